"""The forward process, its posterior, and the parametrisations, against conditioning in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dltheory import debug, diffusion

RNG = np.random.default_rng(0)
BETAS = RNG.uniform(0.01, 0.4, 12)
X0, NOISE = RNG.normal(size=(2, 3))
T = 7


@pytest.fixture
def schedule(x64):
    return diffusion.schedule_from_betas(jnp.asarray(BETAS))


def mixture():
    return diffusion.GaussianMixture(
        log_weights=jnp.log(jnp.array([0.3, 0.7])),
        means=jnp.array([[-1.0, 0.5, 0.0], [1.0, 0.2, -0.4]]),
        variances=jnp.array([[0.2, 0.1, 0.5], [0.05, 0.3, 0.1]]),
    )


def noisy(t, schedule):
    bar = np.asarray(schedule.alpha_bars)[t]
    return np.sqrt(bar) * X0 + np.sqrt(1 - bar) * NOISE


@pytest.mark.statement("diffusion.forward_step", "diffusion.forward_marginal")
def test_steps_and_jumps_have_one_law(schedule):
    keys = jax.random.split(jax.random.key(0), 20_000)
    paths = np.asarray(jax.vmap(lambda key: diffusion.forward_path(key, jnp.asarray(X0), schedule))(keys))
    assert (paths[:, 0] == X0).all()
    jump = jax.vmap(lambda key: diffusion.forward_sample(key, jnp.asarray(X0), T, schedule))
    jumps, noises = map(np.asarray, jump(keys))
    bar = np.prod(1 - BETAS[:T])
    np.testing.assert_allclose(jumps, np.sqrt(bar) * X0 + np.sqrt(1 - bar) * noises, rtol=1e-12, atol=1e-14)
    for sample in (paths[:, T, 0], jumps[:, 0]):
        assert stats.kstest(sample, stats.norm(np.sqrt(bar) * X0[0], np.sqrt(1 - bar)).cdf).pvalue > 1e-3
        assert stats.kstest(sample, stats.norm(bar * X0[0], np.sqrt(1 - bar)).cdf).pvalue < 1e-6


@pytest.mark.statement("diffusion.forward_step")
def test_one_step_by_hand(schedule):
    key = jax.random.key(3)
    noise = np.asarray(jax.random.normal(key, (3,)))
    expected = np.sqrt(1 - BETAS[T - 1]) * X0 + np.sqrt(BETAS[T - 1]) * noise
    np.testing.assert_allclose(diffusion.forward_step(key, jnp.asarray(X0), T, schedule), expected, rtol=1e-12)


@pytest.mark.statement("diffusion.forward_limit", "diffusion.prior_term")
def test_prior_kl_equals_quadrature(schedule):
    grid = np.linspace(-12, 12, 4001)
    for t in (1, T, 12):
        bar, exact = np.prod(1 - BETAS[:t]), 0.0
        for x in X0:
            log_density = stats.norm.logpdf(grid, np.sqrt(bar) * x, np.sqrt(1 - bar))
            exact += np.exp(log_density) @ (log_density - stats.norm.logpdf(grid)) * (grid[1] - grid[0])
        assert float(diffusion.prior_kl(jnp.asarray(X0), t, schedule)) == pytest.approx(exact, rel=1e-9)


def test_prior_kl_is_precise_near_the_end():
    """At the origin it is alpha-bar^2 / 4 to leading order, far below the rounding of alpha-bar."""
    schedule = diffusion.cosine_schedule(1000)
    bar = float(schedule.alpha_bars[990])
    assert float(diffusion.prior_kl(jnp.zeros(1), 990, schedule)) == pytest.approx(
        -(bar + np.log1p(-bar)) / 2, rel=1e-5
    )
    assert float(diffusion.prior_kl(jnp.zeros(1), 1000, schedule)) > 0
    assert float(diffusion.prior_kl(jnp.zeros(1), 0, schedule)) == np.inf


@pytest.mark.statement("diffusion.ddpm_posterior", "diffusion.ddpm_posterior_mean", "diffusion.ddpm_posterior_variance")
def test_posterior_is_that_of_conditioning(schedule):
    """By the joint covariance of x_{t-1} and x_t given x_0."""
    for t in range(1, 13):
        before, alpha = np.prod(1 - BETAS[: t - 1]), 1 - BETAS[t - 1]
        xt = noisy(t, schedule)
        cross, total = np.sqrt(alpha) * (1 - before), 1 - before * alpha
        mean = np.sqrt(before) * X0 + cross / total * (xt - np.sqrt(before * alpha) * X0)
        law = diffusion.posterior(jnp.asarray(X0), jnp.asarray(xt), t, schedule)
        np.testing.assert_allclose(law.mean, mean, rtol=1e-10, atol=1e-14)
        assert float(law.variance) == pytest.approx(1 - before - cross**2 / total, rel=1e-10, abs=1e-15)
        np.testing.assert_allclose(
            diffusion.posterior_mean_from_noise(jnp.asarray(NOISE), jnp.asarray(xt), t, schedule), mean, rtol=1e-10
        )


@pytest.mark.statement("diffusion.ddpm_posterior_mean")
def test_posterior_is_precise_where_nothing_is_left_of_the_data():
    """In single precision, at the end of the schedule."""
    low = diffusion.cosine_schedule(1000)
    x0, xt = jnp.array([0.7], jnp.float32), jnp.array([1.3], jnp.float32)
    with jax.enable_x64():
        high = diffusion.cosine_schedule(1000)
        exact = diffusion.posterior(jnp.asarray(x0, "float64"), jnp.asarray(xt, "float64"), 1000, high)
    law = diffusion.posterior(x0, xt, 1000, low)
    np.testing.assert_allclose(law.mean, exact.mean, rtol=1e-4)
    np.testing.assert_allclose(law.variance, exact.variance, rtol=1e-4)


@pytest.mark.statement("diffusion.mu_parametrization")
def test_every_parametrisation_gives_the_others(schedule):
    bar = np.prod(1 - BETAS[:T])
    xt = noisy(T, schedule)
    truth = diffusion.Prediction(
        data=X0,
        noise=NOISE,
        velocity=np.sqrt(bar) * NOISE - np.sqrt(1 - bar) * X0,
        score=-(xt - np.sqrt(bar) * X0) / (1 - bar),
    )
    for name in diffusion.Prediction._fields:
        convert = getattr(diffusion, f"prediction_from_{name}")
        prediction = convert(jnp.asarray(getattr(truth, name)), jnp.asarray(xt), T, schedule)
        for got, wanted in zip(prediction, truth, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-13, err_msg=name)


@pytest.mark.statement("diffusion.mu_parametrization")
def test_maps_between_wrong_estimates_agree(schedule):
    """Going round all four maps leads back, whatever was estimated."""
    xt, estimate = jnp.asarray(noisy(T, schedule)), jnp.asarray(RNG.normal(size=3))
    for order in itertools.permutations(diffusion.Prediction._fields):
        prediction = diffusion.prediction_from_noise(estimate, xt, T, schedule)
        for name in order:
            convert = getattr(diffusion, f"prediction_from_{name}")
            prediction = convert(getattr(prediction, name), xt, T, schedule)
        np.testing.assert_allclose(prediction.noise, estimate, rtol=1e-10)


def test_velocity_needs_no_data_in_the_point():
    """With alpha-bar = 0 the point says nothing of the data, but the velocity does."""
    schedule = diffusion.schedule_from_betas(jnp.array([0.5, 1.0]))
    prediction = diffusion.prediction_from_velocity(-jnp.asarray(X0, jnp.float32), jnp.ones(3), 2, schedule)
    np.testing.assert_allclose(prediction.data, X0, rtol=1e-6)
    np.testing.assert_allclose(prediction.noise, 1.0)


@pytest.mark.statement("diffusion.reverse_bayes", "diffusion.loss_simple")
def test_best_prediction_is_one_prediction(schedule):
    xt = jnp.asarray(noisy(T, schedule))
    best = diffusion.mixture_prediction(mixture(), xt, T, schedule)
    for name in diffusion.Prediction._fields:
        again = getattr(diffusion, f"prediction_from_{name}")(getattr(best, name), xt, T, schedule)
        for got, wanted in zip(again, best, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.statement("diffusion.reverse_bayes", "diffusion.mu_parametrization")
def test_reverse_kernel_has_the_mean_of_the_best_prediction(schedule):
    for t in range(1, 13):
        xt = jnp.asarray(noisy(t, schedule))
        mean, _ = diffusion.mixture_moments(diffusion.mixture_reverse_kernel(mixture(), xt, t, schedule))
        best = diffusion.mixture_prediction(mixture(), xt, t, schedule)
        np.testing.assert_allclose(diffusion.posterior(best.data, xt, t, schedule).mean, mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            diffusion.posterior_mean_from_noise(best.noise, xt, t, schedule), mean, rtol=1e-9, atol=1e-12
        )


@pytest.mark.statement("diffusion.reverse_bayes", "diffusion.reverse_gaussianity")
def test_reverse_kernel_is_bayes_rule(schedule):
    xt = jnp.asarray(noisy(T, schedule))
    kernel = diffusion.mixture_reverse_kernel(mixture(), xt, T, schedule)
    before = diffusion.mixture_marginal(mixture(), T - 1, schedule)
    after = diffusion.mixture_marginal(mixture(), T, schedule)
    beta = BETAS[T - 1]
    for x in RNG.normal(size=(5, 3)):
        forward = stats.norm.logpdf(np.asarray(xt), np.sqrt(1 - beta) * x, np.sqrt(beta)).sum()
        log_bayes = forward + diffusion.mixture_log_density(before, x) - diffusion.mixture_log_density(after, xt)
        assert float(diffusion.mixture_log_density(kernel, x)) == pytest.approx(float(log_bayes), rel=1e-10)


@pytest.mark.statement("diffusion.reverse_gaussianity")
def test_a_small_step_back_has_nearly_equal_components(x64):
    """The components of the kernel come together in units of its width as beta falls; in a large step they do not."""

    def spread(beta):
        schedule = diffusion.schedule_from_betas(jnp.array([0.3, beta]))
        law = diffusion.mixture_reverse_kernel(mixture(), jnp.zeros(3), 2, schedule)
        return float(jnp.max(jnp.abs(law.means[0] - law.means[1])) / jnp.sqrt(law.variances.max()))

    assert spread(1e-4) < 0.1 < 0.5 < spread(0.5)


def test_guidance_is_the_same_in_all_parametrisations(schedule):
    xt = jnp.asarray(noisy(T, schedule))
    one, two = (diffusion.prediction_from_noise(jnp.asarray(n), xt, T, schedule) for n in RNG.normal(size=(2, 3)))
    guided = diffusion.classifier_free_guidance(one, two, 1.5)
    np.testing.assert_allclose(guided.noise, 2.5 * one.noise - 1.5 * two.noise, rtol=1e-12)
    for got, wanted in zip(guided, diffusion.prediction_from_noise(guided.noise, xt, T, schedule), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)
    for strength, wanted in ((0.0, one), (-1.0, two)):
        np.testing.assert_allclose(diffusion.classifier_free_guidance(one, two, strength).data, wanted.data, rtol=1e-12)


def test_guided_score_is_that_of_the_tilted_law(schedule):
    """q(x_t) q(c | x_t)^(1 + w) of one component of a mixture, by automatic differentiation."""
    xt, w = jnp.asarray(noisy(T, schedule)), 0.7
    alone = diffusion.GaussianMixture(*(leaf[:1] for leaf in mixture()))
    guided = diffusion.classifier_free_guidance(
        diffusion.mixture_prediction(alone, xt, T, schedule),
        diffusion.mixture_prediction(mixture(), xt, T, schedule),
        w,
    )

    def tilted(x):
        whole, part = (diffusion.mixture_marginal(m, T, schedule) for m in (mixture(), alone))
        log_class = diffusion.mixture_log_density(part, x) - diffusion.mixture_log_density(whole, x)
        return diffusion.mixture_log_density(whole, x) + (1 + w) * log_class

    np.testing.assert_allclose(guided.score, jax.grad(tilted)(xt), rtol=1e-10)


@pytest.mark.parametrize("t", [0, 13, -1])
def test_times_outside_the_schedule_are_refused(schedule, t):
    x = jnp.asarray(X0)
    with pytest.raises(ValueError, match="`t` must be between 1 and 12"):
        diffusion.posterior(x, x, t, schedule)


def test_values_are_checked_on_request(schedule):
    x = jnp.asarray(X0)
    with pytest.raises(ValueError, match="`t` must be between 1 and 12"):
        debug.checked(lambda t: diffusion.posterior(x, x, t, schedule))(jnp.array(13))
    with pytest.raises(ValueError, match="`betas` must lie between 0 and 1"):
        debug.checked(diffusion.schedule_from_betas)(jnp.array([0.1, 1.5]))


def test_whole_numbers_are_no_points(schedule):
    with pytest.raises(ValueError, match="`x0` must be floating-point"):
        diffusion.forward_sample(jax.random.key(0), jnp.arange(3), 1, schedule)
    with pytest.raises(ValueError, match="`t` must be a whole number"):
        diffusion.forward_sample(jax.random.key(0), jnp.ones(3), jnp.array(1.0), schedule)


def test_points_keep_their_precision(x64):
    """Whatever the precision of the schedule."""
    schedule, x = diffusion.cosine_schedule(5), jnp.ones(3, jnp.float32)
    assert diffusion.forward_sample(jax.random.key(0), x, 2, schedule)[0].dtype == jnp.float32
    assert diffusion.posterior(x, x, 2, schedule).mean.dtype == jnp.float32
    assert diffusion.prediction_from_noise(x, x, 2, schedule).data.dtype == jnp.float32


def test_numbers_are_no_arrays(schedule):
    with pytest.raises(ValueError, match="`x0` must be a floating-point array, got float"):
        diffusion.forward_sample(jax.random.key(0), 1.0, 3, schedule)  # pyright: ignore[reportArgumentType]
