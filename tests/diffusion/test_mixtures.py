"""Gaussian mixtures against SciPy, automatic differentiation and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from dltheory import diffusion

RNG = np.random.default_rng(0)
WEIGHTS = np.array([0.1, 0.6, 0.3])
MEANS = RNG.normal(scale=2.0, size=(3, 4))
VARIANCES = RNG.uniform(0.1, 2.0, size=(3, 4))
POINTS = RNG.normal(scale=2.0, size=(9, 4))
ONE_D = diffusion.GaussianMixture(np.log(WEIGHTS), np.array([[-2.0], [0.5], [3.0]]), np.array([[0.3], [1.0], [0.2]]))


def mixture(dtype=jnp.float64):
    return diffusion.GaussianMixture(*(jnp.asarray(a, dtype) for a in (np.log(WEIGHTS), MEANS, VARIANCES)))


def scipy_log_density(x, weights=WEIGHTS, means=MEANS, variances=VARIANCES):
    terms = [stats.multivariate_normal(m, np.diag(v)).logpdf(x) for m, v in zip(means, variances, strict=True)]
    return special.logsumexp(np.stack(terms), axis=0, b=weights[:, None])


def test_log_density_equals_scipy(x64):
    values = jax.vmap(diffusion.mixture_log_density, (None, 0))(mixture(), POINTS)
    np.testing.assert_allclose(values, scipy_log_density(POINTS), rtol=1e-12)


def test_score_is_the_gradient_of_the_log_density(x64):
    scores = jax.vmap(diffusion.mixture_score, (None, 0))(mixture(), POINTS)
    gradients = jax.vmap(jax.grad(diffusion.mixture_log_density, 1), (None, 0))(mixture(), POINTS)
    np.testing.assert_allclose(scores, gradients, rtol=1e-10, atol=1e-12)


def test_weights_need_not_be_normalised(x64):
    scaled = mixture()._replace(log_weights=jnp.log(7 * WEIGHTS))
    a, b = (diffusion.mixture_log_density(m, POINTS[0]) for m in (mixture(), scaled))
    assert float(a) == pytest.approx(float(b), rel=1e-12)


def test_a_component_without_weight_counts_for_nothing(x64):
    without = diffusion.GaussianMixture(jnp.array([-jnp.inf, 0.0]), jnp.asarray(MEANS[:2]), jnp.asarray(VARIANCES[:2]))
    alone = diffusion.GaussianMixture(*(leaf[1:] for leaf in without))
    for function in (
        diffusion.mixture_log_density,
        diffusion.mixture_score,
        jax.grad(diffusion.mixture_log_density, 1),
    ):
        np.testing.assert_allclose(function(without, POINTS[0]), function(alone, POINTS[0]), rtol=1e-12)


@pytest.mark.parametrize("distance", [1e2, 1e4, 1e6])
def test_far_away_single_precision_tells_components_apart(distance):
    """The exact odds of two components a step apart, where their densities differ in the last bits at best."""
    low = diffusion.GaussianMixture(jnp.zeros(2), jnp.array([[0.0, 0.0], [1.0, 0.0]]), jnp.ones((2, 2)))
    x = jnp.array([0.5 + 2**-4, distance], jnp.float32)
    score = diffusion.mixture_score(low, x)
    odds = special.expit(2.0**-4)
    np.testing.assert_allclose(score, [odds - (0.5 + 2**-4), -distance], rtol=1e-5)


def test_score_is_finite_where_the_density_underflows():
    x = jnp.full(4, 1e15, jnp.float32)
    for function in (diffusion.mixture_score, jax.grad(diffusion.mixture_log_density, 1)):
        assert np.isfinite(function(mixture(jnp.float32), x)).all()


def test_moments_and_samples_agree(x64):
    mean, covariance = map(np.asarray, diffusion.mixture_moments(mixture()))
    draws = np.asarray(diffusion.mixture_sample(jax.random.key(0), mixture(), (20_000,)))
    assert (np.abs(draws.mean(0) - mean) < 5 * draws.std(0) / len(draws) ** 0.5).all()
    products = (draws - mean)[:, :, None] * (draws - mean)[:, None, :]
    assert (np.abs(products.mean(0) - covariance) < 5 * products.std(0) / len(draws) ** 0.5).all()


def test_samples_follow_the_distribution(x64):
    draws = np.asarray(diffusion.mixture_sample(jax.random.key(1), ONE_D, (5_000,)))[:, 0]

    def cdf(x):
        return stats.norm.cdf(x[:, None], ONE_D.means[:, 0], ONE_D.variances[:, 0] ** 0.5) @ WEIGHTS

    assert stats.kstest(draws, cdf).pvalue > 1e-3
    assert stats.kstest(draws + 0.2, cdf).pvalue < 1e-6  # the same test sees a small shift


def quadrature(scale, std, x):
    """Density of x_t, and mean and variance of x_0 given x_t, by the trapezoidal rule over x_0."""
    grid = np.linspace(-8, 8, 4001)
    prior = np.exp(scipy_log_density(grid[:, None], WEIGHTS, ONE_D.means, ONE_D.variances))
    weight = prior * stats.norm.pdf(x, scale * grid, std) * (grid[1] - grid[0])
    mean = np.sum(weight * grid) / weight.sum()
    return weight.sum(), mean, np.sum(weight * (grid - mean) ** 2) / weight.sum()


@pytest.mark.parametrize(("scale", "std"), [(1.0, 0.5), (0.6, 0.8), (0.05, 1.0), (1.0, 5.0)])
def test_noisy_law_and_posterior_equal_quadrature(x64, scale, std):
    for x in (-1.5, 0.2, 2.0):
        evidence, mean, variance = quadrature(scale, std, x)
        noisy = diffusion.diffused(ONE_D, scale, std)
        assert float(jnp.exp(diffusion.mixture_log_density(noisy, jnp.array([x])))) == pytest.approx(evidence, rel=1e-9)
        moments = diffusion.mixture_moments(diffusion.mixture_posterior(ONE_D, jnp.array([x]), scale, std))
        assert float(moments[0][0]) == pytest.approx(mean, rel=1e-8)
        assert float(moments[1][0, 0]) == pytest.approx(variance, rel=1e-8)


@pytest.mark.parametrize(("scale", "std"), [(1.0, 0.5), (0.6, 0.8), (1.0, 30.0)])
def test_denoiser_obeys_tweedie(x64, scale, std):
    for x in POINTS:
        score = diffusion.mixture_score(diffusion.diffused(mixture(), scale, std), x)
        denoised = diffusion.mixture_denoiser(mixture(), x, scale, std)
        np.testing.assert_allclose(denoised, (x + std**2 * score) / scale, rtol=1e-9, atol=1e-11)


def test_denoiser_at_the_ends(x64):
    x = jnp.asarray(POINTS[0])
    np.testing.assert_allclose(diffusion.mixture_denoiser(mixture(), x, 0.0, 1.0), WEIGHTS @ MEANS, rtol=1e-12)
    np.testing.assert_allclose(diffusion.mixture_denoiser(mixture(), x, 1.0, 0.0), x, rtol=1e-12)


def test_denoiser_of_a_data_set_remembers_it():
    points = jnp.asarray(MEANS, jnp.float32)
    data = diffusion.GaussianMixture(jnp.zeros(3), points, jnp.zeros_like(points))
    np.testing.assert_allclose(diffusion.mixture_denoiser(data, points[1] + 0.01, 1.0, 0.05), points[1], rtol=1e-6)


def test_negative_noise_is_refused():
    with pytest.raises(ValueError, match="`std`"):
        diffusion.diffused(mixture(jnp.float32), 1.0, -1.0)
