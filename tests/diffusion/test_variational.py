"""The bound, its terms and the losses: a linear model is a Gaussian chain, whose likelihood is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from dltheory import diffusion

BETAS = np.linspace(0.05, 0.5, 8)
SLOPE = 0.6
X0 = np.array([0.9])


def model(schedule):
    return lambda x, t: diffusion.prediction_from_noise(SLOPE * x, x, t, schedule)


def log_likelihood(x):
    """Of the chain x_{t-1} = a_t x_t + sigma_t z from N(0, 1), step by step."""
    bars, variance = np.cumprod(1 - BETAS), 1.0
    for t in range(len(BETAS) - 1, -1, -1):
        a = (1 - BETAS[t] / np.sqrt(1 - bars[t]) * SLOPE) / np.sqrt(1 - BETAS[t])
        added = BETAS[t] * (1 - bars[t - 1]) / (1 - bars[t]) if t else BETAS[0]
        variance = a**2 * variance + added
    return stats.norm.logpdf(x, scale=np.sqrt(variance)).sum()


@pytest.mark.statement("diffusion.vlb", "diffusion.vlb_decomposition")
def test_bound_by_paths_and_by_terms(x64):
    schedule = diffusion.schedule_from_betas(jnp.asarray(BETAS))
    keys, x0 = jax.random.split(jax.random.key(0), 20_000), jnp.asarray(X0)
    weights = np.asarray(
        jax.jit(jax.vmap(lambda key: diffusion.path_log_weight(key, model(schedule), x0, schedule)))(keys)
    )
    terms = jax.jit(jax.vmap(lambda key: diffusion.vlb_terms(key, model(schedule), x0, schedule)))(keys)
    assert terms.steps.shape == (20_000, 7)
    sums = -np.asarray(terms.prior + terms.steps.sum(1) + terms.reconstruction)
    error = np.hypot(weights.std(), sums.std()) / len(keys) ** 0.5
    assert abs(weights.mean() - sums.mean()) < 5 * error
    assert sums.std() < weights.std()
    assert weights.mean() + 5 * error < log_likelihood(X0)
    ratio = np.exp(weights - log_likelihood(X0))
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / len(keys) ** 0.5


@pytest.mark.statement("diffusion.vlb_decomposition")
def test_bound_with_other_variances(x64):
    """Paths and terms agree for the variances beta too, where the normal laws differ in width."""
    schedule = diffusion.schedule_from_betas(jnp.asarray(BETAS))
    keys, x0 = jax.random.split(jax.random.key(1), 20_000), jnp.array([0.9, -0.4])

    def both(key):
        one, two = jax.random.split(key)
        terms = diffusion.vlb_terms(two, model(schedule), x0, schedule, schedule.betas)
        weight = diffusion.path_log_weight(one, model(schedule), x0, schedule, schedule.betas)
        return weight, -(terms.prior + terms.steps.sum() + terms.reconstruction)

    differences = np.subtract(*map(np.asarray, jax.jit(jax.vmap(both))(keys)))
    assert abs(differences.mean()) < 5 * differences.std() / len(keys) ** 0.5


@pytest.mark.statement("diffusion.vlb_decomposition", "diffusion.prior_term")
def test_a_model_that_knows_the_data_has_only_a_prior_term(x64):
    """With one datum the best prediction is exact: every divergence of a step is 0."""
    schedule = diffusion.schedule_from_betas(jnp.asarray(BETAS))
    datum = diffusion.GaussianMixture(jnp.zeros(1), jnp.asarray(X0)[None], jnp.zeros((1, 1)))
    predict_fn = lambda x, t: diffusion.mixture_prediction(datum, x, t, schedule)  # noqa: E731
    terms = diffusion.vlb_terms(jax.random.key(0), predict_fn, jnp.asarray(X0), schedule)
    np.testing.assert_allclose(terms.steps, 0, atol=1e-20)
    bar = np.prod(1 - BETAS)
    assert float(terms.prior) == pytest.approx((bar * X0[0] ** 2 - bar - np.log1p(-bar)) / 2, rel=1e-12)
    assert float(terms.reconstruction) == pytest.approx(np.log(2 * np.pi * BETAS[0]) / 2, rel=1e-9)


@pytest.mark.statement("diffusion.loss_reparametrized")
def test_weights_turn_errors_of_the_noise_into_terms(x64):
    schedule = diffusion.schedule_from_betas(jnp.asarray(BETAS))
    weights = np.asarray(diffusion.vlb_weights(schedule))
    assert weights[0] == 0
    assert weights[1] == np.inf
    beta, bar = BETAS, np.cumprod(1 - BETAS)
    tilde = beta[1:] * (1 - bar[:-1]) / (1 - bar[1:])
    np.testing.assert_allclose(weights[2:], beta[1:] ** 2 / (2 * (1 - beta[1:]) * (1 - bar[1:]) * tilde), rtol=1e-12)
    snr = bar / (1 - bar)
    np.testing.assert_allclose(weights[2:], (snr[:-1] - snr[1:]) / (2 * snr[1:]), rtol=1e-12)


def test_min_snr_weights_are_bounded_in_terms_of_the_data(x64):
    schedule = diffusion.cosine_schedule(100)
    snr = np.asarray(diffusion.signal_to_noise(schedule))[1:]
    np.testing.assert_allclose(
        np.asarray(diffusion.min_snr_weights(schedule, 5.0))[1:] * snr, np.minimum(snr, 5.0), rtol=1e-12
    )
    with pytest.raises(ValueError, match="`max_snr`"):
        diffusion.min_snr_weights(schedule, 0.0)


@pytest.mark.statement("diffusion.loss_simple")
def test_best_prediction_leaves_the_least_loss(x64):
    """For data N(0, v) the loss that is left is a v / (a v + 1 - a) a number, and no other slope does as well."""
    schedule, variance = diffusion.schedule_from_betas(jnp.asarray(BETAS)), 0.5
    data = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, 3)), jnp.full((1, 3), variance))
    bar = np.cumprod(1 - BETAS)

    def loss(key, shift):
        key_data, key_noise = jax.random.split(key)
        x0 = diffusion.mixture_sample(key_data, data)

        def predict_fn(x, t):
            noise = diffusion.mixture_prediction(data, x, t, schedule).noise + shift * x
            return diffusion.prediction_from_noise(noise, x, t, schedule)

        return diffusion.simple_loss(key_noise, predict_fn, x0, schedule)

    losses = jax.jit(jax.vmap(jax.vmap(loss, (None, 0)), (0, None)))
    values = np.asarray(losses(jax.random.split(jax.random.key(0), 20_000), jnp.array([0.0, 0.3, -0.3])))
    exact = np.mean(3 * bar * variance / (bar * variance + 1 - bar))
    second = np.mean(3 * (bar * variance + 1 - bar))
    for column, extra in zip(values.T, (0, 0.09, 0.09), strict=True):
        assert abs(column.mean() - exact - extra * second) < 5 * column.std() / len(values) ** 0.5


@pytest.mark.statement("diffusion.loss_simple", "diffusion.l0_term")
def test_simple_loss_draws_every_time_alike(x64):
    """Read off weights that single out one time each, with a network that always predicts 0."""
    schedule = diffusion.schedule_from_betas(jnp.asarray(BETAS))
    zero = lambda x, t: diffusion.Prediction(x * 0, x * 0, x * 0, x * 0)  # noqa: E731
    keys = jax.random.split(jax.random.key(0), 4_000)

    def hits(weights):
        loss = lambda key: diffusion.simple_loss(key, zero, jnp.zeros(2), schedule, weights)  # noqa: E731
        return jnp.mean(jax.vmap(loss)(keys) > 0)

    shares = np.asarray(jax.jit(jax.vmap(hits))(jnp.eye(9)))
    assert shares[0] == 0
    assert abs(shares[1:] - 1 / 8).max() < 5 * (7 / 64 / 4_000) ** 0.5


@pytest.mark.parametrize(("mean", "std"), [(0.1, 0.001), (-0.99, 0.02), (0.5, 3.0), (4.0, 0.5)])
@pytest.mark.statement("diffusion.l0_term")
def test_bins_equal_differences_of_the_distribution_function(x64, mean, std):
    levels = np.linspace(-1, 1, 256)
    log_likelihood = jax.vmap(lambda x: diffusion.discretized_gaussian_log_likelihood(x, jnp.array(mean), std))(
        jnp.asarray(levels)
    )
    edges = np.concatenate([[-np.inf], levels[:-1] + 1 / 255, [np.inf]])
    upper = (edges - mean) / std
    low, high = special.log_ndtr(upper), special.log_ndtr(-upper)
    with np.errstate(divide="ignore"):  # each form is for one side only
        below = low[1:] + np.log1p(-np.exp(np.minimum(low[:-1] - low[1:], 0)))
        above = high[:-1] + np.log1p(-np.exp(np.minimum(high[1:] - high[:-1], 0)))
    exact = np.where(levels > mean, above, below)
    shown = exact > -1e4
    np.testing.assert_allclose(np.asarray(log_likelihood)[shown], exact[shown], rtol=1e-8, atol=1e-9)
    assert np.exp(log_likelihood).sum() == pytest.approx(1, abs=1e-10)


@pytest.mark.statement("diffusion.l0_term")
def test_bins_far_out_are_finite_with_their_gradients():
    for mean in (-50.0, 50.0):
        for x in (-1.0, 0.0, 1.0):
            value, slope = jax.value_and_grad(
                lambda m, x=x: diffusion.discretized_gaussian_log_likelihood(jnp.array(x), m, 0.05)
            )(jnp.array(mean))
            assert np.isfinite(value)
            assert np.isfinite(slope)
            assert slope * mean <= 0


def test_values_for_every_time_are_demanded():
    schedule = diffusion.cosine_schedule(4)
    with pytest.raises(ValueError, match="`variances`"):
        diffusion.vlb_terms(jax.random.key(0), model(schedule), jnp.ones(2), schedule, jnp.ones(4))
    with pytest.raises(ValueError, match="`weights`"):
        diffusion.simple_loss(jax.random.key(0), model(schedule), jnp.ones(2), schedule, jnp.ones(4))
    with pytest.raises(ValueError, match="`num_bins`"):
        diffusion.discretized_gaussian_log_likelihood(jnp.ones(2), jnp.ones(2), 1.0, num_bins=1)
