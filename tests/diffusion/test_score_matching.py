"""Losses against closed forms and NumPy; estimates against what they estimate, in standard errors."""

# NumPy arrays stand in for JAX arrays throughout.
# pyright: reportArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from dltheory import diffusion

KEY = jax.random.key(7)
RNG = np.random.default_rng(8)
A = np.array([[-1.0, 0.4, 0.3], [0.4, -0.6, 0.2], [0.3, 0.2, -1.5]])
B = np.array([0.2, -0.1, 0.4])
DATA = RNG.normal(size=(7, 3))
MIXTURE = diffusion.GaussianMixture(
    log_weights=np.log([0.3, 0.7]), means=RNG.normal(size=(2, 3)), variances=RNG.uniform(0.3, 1, size=(2, 3))
)
KINDS = ["rademacher", "gaussian", "sphere"]
SLICED = pytest.mark.statement("score.sliced")
CONDITIONAL = pytest.mark.statement("score.noise_conditional")


def mixture():
    """The data, in the precision of the test."""
    return jax.tree.map(jnp.asarray, MIXTURE)


def affine(x):
    return A @ x + B


def images(x):
    """The same field on samples of another shape."""
    return affine(x.ravel()).reshape(x.shape)


def within(values, expected, errors=4):
    """Whether the mean of independent estimates is the expected one."""
    values = np.asarray(values, float)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return abs(np.mean(values) - expected) <= errors * error + 1e-9


@pytest.mark.statement("score.definition")
def test_score_of_a_mixture_whatever_its_normaliser(x64):
    @jax.jit
    def scores(x, constant):
        unnormalised = diffusion.score(lambda x: diffusion.mixture_log_density(mixture(), x) + constant, x)
        return unnormalised, diffusion.mixture_score(mixture(), x)

    for constant in (0.0, 17.0):
        np.testing.assert_allclose(*scores(jnp.asarray(DATA[0]), constant), rtol=1e-10)


@pytest.mark.statement("score.definition")
def test_scores_have_mean_zero():
    draws = diffusion.mixture_sample(KEY, mixture(), (20_000,))
    scores = np.asarray(jax.vmap(lambda x: diffusion.mixture_score(mixture(), x))(draws))
    assert all(within(column, 0) for column in scores.T)


@pytest.mark.statement("score.fisher_divergence")
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_losses_of_an_affine_score(x64, shape):
    field, x = (affine if shape == (3,) else images), DATA.reshape(7, *shape)
    values = DATA @ A.T + B
    implicit = np.mean(np.sum(values**2, axis=1)) + 2 * np.trace(A)
    assert float(diffusion.implicit_score_matching_loss(field, x)) == pytest.approx(implicit, rel=1e-12)
    explicit = np.mean(np.sum((values + DATA) ** 2, axis=1))
    assert float(diffusion.fisher_divergence(lambda x: -x, field, x)) == pytest.approx(explicit, rel=1e-12)


@pytest.mark.statement("score.fisher_divergence")
def test_the_best_affine_score_is_that_of_the_fitted_normal_law(x64):
    """The gradient of the loss vanishes at minus the inverse covariance."""
    mean, precision = DATA.mean(0), np.linalg.inv(np.cov(DATA.T, ddof=0))

    def loss(matrix, offset):
        return diffusion.implicit_score_matching_loss(lambda x: matrix @ x + offset, DATA)

    for slope in jax.grad(loss, (0, 1))(-precision, precision @ mean):
        np.testing.assert_allclose(slope, 0, atol=1e-10)
    assert np.max(np.abs(jax.grad(loss)(-1.1 * precision, precision @ mean))) > 0.1


@pytest.mark.statement("score.fisher_divergence")
@pytest.mark.parametrize(("law", "holds"), [("normal", True), ("exponential", False)])
def test_loss_and_divergence_differ_by_a_constant_if_no_mass_escapes(x64, law, holds):
    """By quadrature in one dimension, one point of which is a set of one sample."""
    density, score, low = {
        "normal": (lambda x: np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), lambda x: -x, -np.inf),
        "exponential": (lambda x: np.exp(-x), lambda x: -jnp.ones_like(x), 0),
    }[law]
    model = lambda x: 0.7 * jnp.cos(x)  # noqa: E731
    implicit = jax.jit(lambda x: diffusion.implicit_score_matching_loss(model, x[None]))
    explicit = jax.jit(lambda x: diffusion.fisher_divergence(score, model, x[None]))
    own = jax.jit(lambda x: diffusion.fisher_divergence(score, jnp.zeros_like, x[None]))

    def mean(function):
        return integrate.quad(lambda x: density(x) * float(function(x)), low, np.inf, epsabs=1e-7)[0]

    difference = mean(implicit) + mean(own) - mean(explicit)
    assert difference == pytest.approx(0 if holds else -2 * 0.7, abs=1e-6)


@SLICED
@pytest.mark.parametrize("kind", KINDS)
def test_estimates_of_traces(kind):
    keys = jax.random.split(KEY, 4000)
    value, estimates = jax.vmap(lambda key: diffusion.hutchinson_trace(key, affine, DATA[0], 1, kind))(keys)
    np.testing.assert_allclose(value[0], A @ DATA[0] + B, rtol=1e-5)
    estimates = np.asarray(estimates, float)
    assert within(estimates, np.trace(A))
    off = np.sum(A**2) - np.sum(np.diag(A) ** 2)
    # On the sphere v v^T has the moments E[v_i^2 v_j^2] = d / (d + 2), three times that for i = j.
    sphere = 3 / 5 * (2 * np.sum(A**2) + np.trace(A) ** 2) - np.trace(A) ** 2
    variance = {"rademacher": 2 * off, "gaussian": 2 * np.sum(A**2), "sphere": sphere}[kind]
    assert within((estimates - np.trace(A)) ** 2, variance)
    averaged = diffusion.hutchinson_trace(KEY, affine, DATA[0], 4000, kind)[1]
    assert abs(float(averaged) - np.trace(A)) < 5 * np.sqrt(variance / 4000)


@SLICED
@pytest.mark.parametrize("exact_norm", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sliced_loss_has_the_mean_of_the_full_one(kind, exact_norm):
    full = float(diffusion.implicit_score_matching_loss(affine, DATA))

    def sliced(key):
        return diffusion.sliced_score_matching_loss(key, affine, DATA, 2, kind, exact_norm)

    losses = jax.jit(jax.vmap(sliced))(jax.random.split(KEY, 2000))
    assert within(losses, full)
    assert not within(losses / 3, full, errors=20)  # directions of length 1


@CONDITIONAL
def test_denoising_losses_are_their_formulas(x64):
    def score_fn(x, sigma):
        return jnp.tanh(affine(x)) / sigma

    noise = np.asarray(jax.random.normal(KEY, DATA.shape, float))
    errors = np.tanh((DATA + 0.3 * noise) @ A.T + B) / 0.3 + noise / 0.3
    value = diffusion.denoising_score_matching_loss(KEY, lambda x: score_fn(x, 0.3), DATA, 0.3)
    assert float(value) == pytest.approx(np.mean(np.sum(errors**2, axis=1)), rel=1e-12)

    sigmas, weights = np.array([2.0, 0.5]), np.array([0.7, 3.0])
    noise = np.asarray(jax.random.normal(KEY, (2, *DATA.shape), float))
    losses = []
    for sigma, xi in zip(sigmas, noise, strict=True):
        errors = np.tanh((DATA + sigma * xi) @ A.T + B) / sigma + xi / sigma
        losses.append(np.mean(np.sum(errors**2, axis=1)))
    for given, used in ((weights, weights), (None, sigmas**2)):
        value = diffusion.noise_conditional_loss(KEY, score_fn, DATA, sigmas, given)
        assert float(value) == pytest.approx(used @ losses, rel=1e-12)


@CONDITIONAL
def test_denoising_loss_does_not_overflow_for_little_noise():
    score_fn = lambda x, sigma: -x / sigma**2  # noqa: E731
    x, sigmas = jnp.zeros((4, 2)), jnp.array([1e-15], jnp.float32)
    assert abs(float(diffusion.noise_conditional_loss(KEY, score_fn, x, sigmas))) < 1e-6


@CONDITIONAL
@pytest.mark.parametrize("likelihood_weighting", [False, True])
@pytest.mark.parametrize("name", ["vp", "sub-vp", "ve"])
def test_continuous_loss_has_the_mean_of_its_formula(name, likelihood_weighting):
    """For the score c x and data in the origin: E ||c sigma xi + xi / sigma||^2 = d (c sigma + 1 / sigma)^2."""
    sde = {"vp": diffusion.vp_sde(), "sub-vp": diffusion.sub_vp_sde(), "ve": diffusion.ve_sde(0.5, 5.0)}[name]

    def moments(t):
        _, std = sde.marginal_prob(jnp.ones(()), jnp.asarray(t, jnp.float32))
        std, noise = float(std), float(sde.diffusion(jnp.asarray(t, jnp.float32)))
        return 2 * (noise if likelihood_weighting else std) ** 2 * (-0.5 * std + 1 / std) ** 2

    exact = integrate.quad(moments, 0.1, 1, epsrel=1e-6)[0] / 0.9

    def loss(key):
        x = jnp.zeros((50, 2))
        return diffusion.continuous_score_matching_loss(key, sde, lambda x, t: -x / 2, x, 0.1, likelihood_weighting)

    losses = jax.jit(jax.vmap(loss))(jax.random.split(KEY, 400))
    assert within(losses, exact)


@CONDITIONAL
def test_tweedie_is_the_mean_given_the_noisy_sample(x64):
    scale, std = 0.8, 0.6

    @jax.jit
    @jax.vmap
    def means(x):
        score = diffusion.mixture_score(diffusion.diffused(mixture(), scale, std), x)
        return diffusion.tweedie_mean(x, score, std, scale), diffusion.mixture_denoiser(mixture(), x, scale, std)

    np.testing.assert_allclose(*means(jnp.asarray(DATA)), rtol=1e-10)


@pytest.mark.statement("score.low_density")
def test_error_profile_is_the_loop(x64):
    coordinate, edges = np.array([0.0, 1.0, 0.5, 1.5, 2.0, -1.0, 3.5]), np.array([0.0, 1.0, 2.0, 3.0, 3.2])
    errors = np.sum((DATA @ A.T + B + DATA) ** 2, axis=1)
    profile = diffusion.error_profile(lambda x: -x, affine, DATA, coordinate, edges)
    bins = [[0, 2], [1, 3], [4], []]  # the last two points are outside
    np.testing.assert_array_equal(profile.num_points, [len(members) for members in bins])
    np.testing.assert_allclose(profile.error[:3], [np.mean(errors[members]) for members in bins[:3]], rtol=1e-12)
    assert np.isnan(profile.error[3])


@SLICED
@CONDITIONAL
def test_settings_are_checked():
    score_fn = lambda x, *_: -x  # noqa: E731
    with pytest.raises(ValueError, match="`num_projections`"):
        diffusion.sliced_score_matching_loss(KEY, score_fn, DATA, 0)
    with pytest.raises(ValueError, match="`distribution`"):
        diffusion.sliced_score_matching_loss(KEY, score_fn, DATA, 1, "cube")
    with pytest.raises(ValueError, match="`num_probes`"):
        diffusion.hutchinson_trace(KEY, score_fn, DATA[0], 0)
    with pytest.raises(ValueError, match="`sigma`"):
        diffusion.denoising_score_matching_loss(KEY, score_fn, DATA, 0.0)
    with pytest.raises(ValueError, match="`min_time` must be below"):
        diffusion.continuous_score_matching_loss(KEY, diffusion.vp_sde(), score_fn, DATA, 1.0)
    with pytest.raises(ValueError, match="`min_time`"):
        diffusion.continuous_score_matching_loss(KEY, diffusion.vp_sde(), score_fn, DATA, 0.0)
    with pytest.raises(ValueError, match="`edges`"):
        diffusion.error_profile(score_fn, score_fn, DATA, DATA[:, 0], np.ones(1))
