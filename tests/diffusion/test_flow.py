"""Likelihoods and transport by the probability flow, against the mixtures whose flow it is."""

# NumPy arrays stand in for JAX arrays throughout.
# pyright: reportArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import special_ortho_group

from dltheory import diffusion

KEY = jax.random.key(6)
REVERSE = pytest.mark.statement("sde.reverse")
SDES = {"vp": diffusion.vp_sde(), "sub-vp": diffusion.sub_vp_sde(), "ve": diffusion.ve_sde(0.05, 20.0)}


def mixture(d, dtype="float32"):
    rng = np.random.default_rng(d)
    return diffusion.GaussianMixture(
        log_weights=jnp.log(jnp.array([0.2, 0.5, 0.3], dtype)),
        means=jnp.asarray(rng.normal(size=(3, d)), dtype),
        variances=jnp.asarray(rng.uniform(0.2, 0.8, size=(3, d)), dtype),
    )


def score_of(sde, data):
    return lambda x, t: diffusion.mixture_score(diffusion.diffused(data, *sde.marginal_prob(jnp.ones(()), t)), x)


def with_exact_prior(sde, data):
    """The equation with the law at its horizon in place of the prior."""
    last = diffusion.diffused(data, *sde.marginal_prob(jnp.ones(()), sde.horizon))
    return sde._replace(prior_logp=lambda z: diffusion.mixture_log_density(last, z))


@REVERSE
@pytest.mark.parametrize(
    ("name", "d"),
    [
        ("vp", 2),
        ("vp", 10),
        *(pytest.param(name, d, marks=pytest.mark.slow) for name in ("sub-vp", "ve") for d in (2, 10)),
    ],
)
def test_likelihood_is_the_exact_one(name, d):
    data, sde = mixture(d), SDES[name]
    points = diffusion.mixture_sample(KEY, data, (16,))
    exact = jax.vmap(lambda x: diffusion.mixture_log_density(data, x))(points)

    values = likelihoods(with_exact_prior(sde, data), score_of(sde, data), points)
    np.testing.assert_allclose(values, exact, atol=1e-3)


def likelihoods(sde, score_fn, points):
    result = jax.jit(jax.vmap(lambda x: diffusion.flow_log_likelihood(sde, score_fn, x)))(points)
    assert bool(jnp.all(result.converged))
    return result.log_likelihood


@REVERSE
@pytest.mark.slow
@pytest.mark.parametrize(("sign", "forwards"), [(-1, True), (1, False)])
def test_with_the_sign_or_the_time_of_the_score_reversed_likelihoods_are_wrong(sign, forwards):
    data, sde = mixture(2), SDES["vp"]
    points, score_fn = diffusion.mixture_sample(KEY, data, (16,)), score_of(sde, data)
    exact = jax.vmap(lambda x: diffusion.mixture_log_density(data, x))(points)
    values = likelihoods(with_exact_prior(sde, data), lambda x, t: sign * score_fn(x, t if forwards else 1 - t), points)
    assert np.max(np.abs(values - exact)) > 0.1


@REVERSE
def test_the_prior_costs_what_it_differs_from_the_last_law(x64):
    data, sde = mixture(2, "float64"), SDES["vp"]
    point, exact_prior = jnp.array([0.3, -0.8]), with_exact_prior(sde, data)
    usual, exact = jax.jit(
        lambda x: [diffusion.flow_log_likelihood(s, score_of(sde, data), x) for s in (sde, exact_prior)]
    )(point)
    np.testing.assert_allclose(usual.latent, exact.latent, rtol=1e-12)
    difference = sde.prior_logp(usual.latent) - exact_prior.prior_logp(usual.latent)
    assert float(usual.log_likelihood - exact.log_likelihood) == pytest.approx(float(difference), rel=1e-9)
    assert 0 < abs(float(difference)) < 0.03


@REVERSE
@pytest.mark.statement("score.sliced")
@pytest.mark.parametrize("distribution", ["rademacher", "gaussian", "sphere"])
def test_estimated_likelihoods_have_the_exact_mean(distribution):
    """For normal data, whose covariance no coordinate is an axis of."""
    sde, point = diffusion.vp_sde(0.1, 5.0), jnp.array([0.3, -0.8, 0.5])
    axes, variances = jnp.asarray(special_ortho_group.rvs(3, random_state=0), jnp.float32), jnp.array([0.2, 1.0, 3.0])

    def score_fn(x, t):
        scale, std = sde.marginal_prob(jnp.ones(()), t)
        return -axes @ ((axes.T @ x) / (scale**2 * variances + std**2))

    def estimate(key):
        return diffusion.flow_log_likelihood_hutchinson(key, sde, score_fn, point, 2, distribution)

    estimates = jax.jit(jax.vmap(estimate))(jax.random.split(KEY, 200))
    exact = diffusion.flow_log_likelihood(sde, score_fn, point)
    np.testing.assert_allclose(estimates.latent, np.tile(exact.latent, (200, 1)), atol=1e-3)
    values = np.asarray(estimates.log_likelihood, float)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert 0 < error < 0.1
    assert abs(np.mean(values) - float(exact.log_likelihood)) < 4 * error


@REVERSE
def test_transport_goes_there_and_back(x64):
    data, sde = mixture(2, "float64"), SDES["vp"]
    flow, x = diffusion.probability_flow(sde, score_of(sde, data)), jnp.array([0.3, -0.8])
    transport = jax.jit(lambda x, start, stop: diffusion.transport(flow, x, start, stop, rtol=1e-8, atol=1e-8))
    there = transport(x, 0.0, 1.0)
    back = transport(there.x, 1.0, 0.0)
    assert bool(there.converged & back.converged)
    np.testing.assert_allclose(back.x, x, atol=1e-6)
    fine = diffusion.solve(None, diffusion.heun(flow), x, jnp.linspace(0.0, 1.0, 2001))
    np.testing.assert_allclose(there.x, fine, atol=1e-5)


@REVERSE
def test_what_cannot_be_solved_is_said():
    flow = diffusion.probability_flow(diffusion.vp_sde(), lambda x, t: -x)
    x = jnp.ones(2)
    for start, stop in ((0.5, 0.5), (0.0, jnp.nan)):
        end = diffusion.transport(flow, x, start, stop)
        assert not bool(end.converged)
        assert np.all(np.isnan(end.x))
    forward = diffusion.Sde(lambda x, t: -x, None)
    assert bool(diffusion.transport(forward, x, 0.0, 1.0).converged)
    assert np.all(np.isnan(diffusion.transport(forward, x, 1.0, 0.0).x))
    stiff = diffusion.Sde(lambda x, t: -1e4 * x, None)
    short = diffusion.transport(stiff, x, 0.0, 1.0, max_steps=5)
    assert not bool(short.converged)
    assert np.all(np.isfinite(short.x))
    result = diffusion.flow_log_likelihood(diffusion.vp_sde(), lambda x, t: -1e6 * jnp.sin(x), x, max_steps=3)
    assert not bool(result.converged)
    assert np.isnan(result.log_likelihood)
    for min_time in (-0.1, 1.0, 2.0):
        with pytest.raises(ValueError, match="`min_time`"):
            diffusion.flow_log_likelihood(diffusion.vp_sde(), lambda x, t: -x, x, min_time)


@REVERSE
def test_half_precision_is_solved_in_single():
    half, single = (
        diffusion.flow_log_likelihood(diffusion.vp_sde(), lambda x, t: -x / 2, jnp.ones(2, dtype))
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert half.log_likelihood.dtype == half.latent.dtype == jnp.bfloat16
    assert bool(half.converged)
    assert float(half.log_likelihood) == pytest.approx(float(single.log_likelihood), rel=2**-8)


@REVERSE
def test_settings_are_checked():
    flow = diffusion.probability_flow(diffusion.vp_sde(), lambda x, t: -x)
    for setting in ({"rtol": 0.0}, {"atol": -1.0}, {"max_steps": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(setting))}`"):
            diffusion.transport(flow, jnp.ones(2), 0.0, 1.0, **setting)
    with pytest.raises(ValueError, match="`ode` must have no noise"):
        diffusion.transport(diffusion.Sde(lambda x, t: x, lambda t: t), jnp.ones(2), 0.0, 1.0)
    with pytest.raises(ValueError, match="`num_probes`"):
        diffusion.flow_log_likelihood_hutchinson(KEY, diffusion.vp_sde(), lambda x, t: -x, jnp.ones(2), 0)
    with pytest.raises(ValueError, match="`distribution`"):
        diffusion.flow_log_likelihood_hutchinson(KEY, diffusion.vp_sde(), lambda x, t: -x, jnp.ones(2), 1, "uniform")
