"""The samplers: with the best prediction they give the data, and DDIM with all its noise is ancestral sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dltheory import diffusion
from dltheory.debug import checked

WEIGHTS, MEANS, SDS = np.array([0.3, 0.7]), np.array([-1.0, 0.8]), np.array([0.2, 0.4])


def mixture():
    return diffusion.GaussianMixture(
        jnp.log(jnp.asarray(WEIGHTS)), jnp.asarray(MEANS)[:, None], jnp.asarray(SDS)[:, None] ** 2
    )


def cdf(x):
    return stats.norm.cdf(x[:, None], MEANS, SDS) @ WEIGHTS


def best(schedule):
    return lambda x, t: diffusion.mixture_prediction(mixture(), x, t, schedule)


def samples(sample, count=3_000, seed=0):
    """Draws of `sample(key, noise)`."""
    keys = jax.random.split(jax.random.key(seed), count)
    noise = jax.random.normal(jax.random.key(seed + 1), (count, 1))
    return np.asarray(jax.jit(jax.vmap(sample))(keys, noise))[:, 0]


@pytest.mark.slow
@pytest.mark.statement("diffusion.ancestral_sampling")
def test_both_samplers_give_the_data(x64):
    schedule = diffusion.cosine_schedule(150)
    times = jnp.arange(3, 151, 3)
    draws = {
        "ancestral": samples(lambda key, z: diffusion.ancestral_sample(key, best(schedule), z, schedule)),
        "variance beta": samples(
            lambda key, z: diffusion.ancestral_sample(key, best(schedule), z, schedule, schedule.betas)
        ),
        "DDIM": samples(lambda key, z: diffusion.ddim_sample(key, best(schedule), z, schedule)),
        "DDIM, a third of the times": samples(
            lambda key, z: diffusion.ddim_sample(key, best(schedule), z, schedule, times, eta=0.5)
        ),
    }
    tested = {name: stats.kstest(draw, cdf).pvalue for name, draw in draws.items()}
    assert min(tested.values()) > 1e-4, tested


@pytest.mark.statement("diffusion.ancestral_sampling", "diffusion.scheduler")
def test_few_steps_do_not(x64):
    schedule = diffusion.cosine_schedule(4)
    draw = samples(lambda key, z: diffusion.ancestral_sample(key, best(schedule), z, schedule))
    assert stats.kstest(draw, cdf).pvalue < 1e-6


@pytest.mark.statement("diffusion.ancestral_sampling")
def test_ddim_with_all_noise_is_ancestral(x64):
    schedule, key = diffusion.cosine_schedule(12), jax.random.key(5)
    noise = jnp.array([0.7])
    ddim = jax.jit(lambda key, eta: diffusion.ddim_sample(key, best(schedule), noise, schedule, eta=eta))
    ancestral = jax.jit(lambda key: diffusion.ancestral_sample(key, best(schedule), noise, schedule))
    np.testing.assert_allclose(ddim(key, 1.0), ancestral(key), rtol=1e-9)
    assert abs(float(ddim(key, 0.5)[0] - ancestral(key)[0])) > 1e-3
    assert ddim(key, 0.0) == ddim(jax.random.key(6), 0.0)  # without noise the key has no effect


@pytest.mark.statement("diffusion.ancestral_sampling")
def test_ddim_keeps_the_laws_of_the_forward_process(x64):
    """Given the data, for any share of the noise: x_{t-1} has mean sqrt(alpha-bar) x_0 and variance 1 - alpha-bar."""
    schedule, t, x0, eta = diffusion.cosine_schedule(10), 6, 0.8, 0.6

    def step(key):
        first, second = jax.random.split(key)
        xt, noise = diffusion.forward_sample(first, jnp.array(x0), t, schedule)
        prediction = diffusion.prediction_from_noise(noise, xt, t, schedule)
        return diffusion.ddim_step(second, prediction, xt, t, schedule, eta)

    draws = np.asarray(jax.jit(jax.vmap(step))(jax.random.split(jax.random.key(0), 10_000)))
    bar = float(schedule.alpha_bars[t - 1])
    assert stats.kstest(draws, stats.norm(np.sqrt(bar) * x0, np.sqrt(1 - bar)).cdf).pvalue > 1e-3


@pytest.mark.statement("diffusion.mu_parametrization", "diffusion.ancestral_sampling")
def test_one_step_is_normal_about_the_mean_of_the_model(x64):
    schedule, t = diffusion.cosine_schedule(10), 6
    xt = jnp.array([0.4])
    prediction = best(schedule)(xt, t)
    step = lambda key: diffusion.ancestral_step(key, prediction, xt, t, schedule)  # noqa: E731
    draws = np.asarray(jax.vmap(step)(jax.random.split(jax.random.key(0), 10_000)))[:, 0]
    mean = float(diffusion.posterior_mean_from_noise(prediction.noise, xt, t, schedule)[0])
    sd = float(schedule.posterior_variances[t]) ** 0.5
    assert stats.kstest(draws, stats.norm(mean, sd).cdf).pvalue > 1e-3


@pytest.mark.statement("diffusion.ancestral_sampling")
def test_the_last_step_adds_no_noise(x64):
    schedule, x = diffusion.cosine_schedule(5), jnp.array([0.3])
    prediction = best(schedule)(x, 1)
    for key in map(jax.random.key, range(2)):
        end = diffusion.ancestral_step(key, prediction, x, 1, schedule, schedule.betas)
        np.testing.assert_allclose(end, prediction.data, rtol=1e-9)


def test_batches_and_single_points_give_the_same(x64):
    """A model of whole batches, without a map: every operation is one of all entries."""
    schedule, key = diffusion.cosine_schedule(6), jax.random.key(0)
    batch = jax.random.normal(key, (5, 1))
    batched = lambda x, t: jax.vmap(best(schedule), (0, None))(x, t)  # noqa: E731
    whole = jax.jit(lambda z: diffusion.ddim_sample(key, batched, z, schedule))(batch)
    single = jax.jit(jax.vmap(lambda z: diffusion.ddim_sample(key, best(schedule), z, schedule)))(batch)
    np.testing.assert_allclose(whole, single, rtol=1e-10)


def test_guided_samples_move_to_the_class(x64):
    """With the components as classes, guidance makes less likely what the other class makes too."""
    schedule = diffusion.cosine_schedule(60)
    alone = diffusion.GaussianMixture(*(leaf[:1] for leaf in mixture()))

    @jax.jit
    @jax.vmap
    def mean(strength):
        def predict_fn(x, t):
            given = diffusion.mixture_prediction(alone, x, t, schedule)
            return diffusion.classifier_free_guidance(given, best(schedule)(x, t), strength)

        noise = jax.random.normal(jax.random.key(0), (500, 1))
        sample = lambda z: diffusion.ddim_sample(jax.random.key(1), predict_fn, z, schedule)  # noqa: E731
        return jnp.mean(jax.vmap(sample)(noise))

    everything, given, guided = mean(jnp.array([-1.0, 0.0, 2.0]))
    assert float(everything) == pytest.approx(WEIGHTS @ MEANS, abs=0.2)
    assert float(given) == pytest.approx(-1.0, abs=0.06)
    assert guided < given - 0.05


def test_wrong_settings_are_refused():
    schedule, key, x = diffusion.cosine_schedule(5), jax.random.key(0), jnp.zeros(1)
    with pytest.raises(ValueError, match="`eta`"):
        diffusion.ddim_sample(key, best(schedule), x, schedule, eta=1.5)
    with pytest.raises(ValueError, match="`times`"):
        diffusion.ddim_sample(key, best(schedule), x, schedule, times=jnp.array(3))
    with pytest.raises(ValueError, match="`variances`"):
        diffusion.ancestral_sample(key, best(schedule), x, schedule, jnp.ones(5))


@pytest.mark.slow
def test_gradients_flow_through_schedules_that_are_learned(x64):
    """Through both samplers and the bound, although variances vanish at t = 1."""
    noise, key = jnp.array([0.4]), jax.random.key(0)

    def outcome(log_snr):
        schedule = diffusion.schedule_from_log_snr(log_snr)
        terms = diffusion.vlb_terms(key, best(schedule), jnp.array([0.5]), schedule)
        one = diffusion.ancestral_sample(key, best(schedule), noise, schedule)
        two = diffusion.ddim_sample(key, best(schedule), noise, schedule, eta=0.5)
        return jnp.sum(one + two) + terms.prior + terms.steps.sum() + terms.reconstruction

    at = jnp.array([4.0, 1.0, -1.0, -4.0])
    both, along = jax.jit(jax.value_and_grad(outcome)), jnp.array([0.3, -0.2, 0.5, 0.1])
    slope = both(at)[1]
    numeric = (both(at + 1e-5 * along)[0] - both(at - 1e-5 * along)[0]) / 2e-5
    assert float(slope @ along) == pytest.approx(float(numeric), rel=1e-6)


def _sample(name, predict_fn, schedule, noise):
    key = jax.random.key(0)
    return {
        "ancestral": lambda: diffusion.ancestral_sample(key, predict_fn, noise, schedule),
        "DDIM": lambda: diffusion.ddim_sample(key, predict_fn, noise, schedule, eta=jnp.float32(0.5)),
        "paths": lambda: diffusion.path_log_weight(key, predict_fn, noise, schedule),
        "terms": lambda: diffusion.vlb_terms(key, predict_fn, noise, schedule).steps,
        "loss": lambda: diffusion.simple_loss(key, predict_fn, noise, schedule),
        "excess": lambda: diffusion.excess_loss(key, predict_fn, POINT, 2, schedule),
    }[name]()


POINT = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, 3)), jnp.ones((1, 3)))
ALL = ("ancestral", "DDIM", "paths", "terms", "loss", "excess")


@pytest.mark.parametrize("name", ALL)
def test_models_must_predict_in_the_shape_of_the_point(name):
    schedule = diffusion.cosine_schedule(3)
    for shape in ((1,), (3, 1)):  # both would broadcast
        model = lambda _x, _t, shape=shape: diffusion.Prediction(*[jnp.ones(shape)] * 4)  # noqa: E731
        with pytest.raises(ValueError, match=r"`predict_fn` must predict in the shape of `xt`, \[3\]"):
            _sample(name, model, schedule, jnp.ones(3))
    with pytest.raises(ValueError, match=r"`predict_fn` must be .* a `Prediction`"):
        _sample(name, lambda x, _t: x, schedule, jnp.ones(3))


@pytest.mark.parametrize("name", ALL[:-1])
def test_precision_is_that_of_the_points_whatever_that_of_the_model(name):
    schedule = diffusion.cosine_schedule(3)

    def model(x, t):
        noise = 0.1 * x.astype(jnp.float32)
        return diffusion.prediction_from_noise(noise, x, t, schedule)

    assert _sample(name, model, schedule, jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("times", [[5, 2, 8], [2, 80], [0, 3]])
def test_times_that_fall_or_lie_outside_give_nan(times):
    schedule = diffusion.cosine_schedule(8)
    model = lambda x, t: diffusion.prediction_from_noise(0.1 * x, x, t, schedule)  # noqa: E731
    sample = lambda times: diffusion.ddim_sample(jax.random.key(0), model, jnp.ones(2), schedule, times)  # noqa: E731
    assert np.all(np.isnan(sample(np.array(times))))
    with pytest.raises(ValueError, match="`times` must increase"):
        checked(diffusion.respaced)(schedule, jnp.array(times))
    with pytest.raises(ValueError, match="`times` must hold whole numbers"):
        sample(jnp.array(times, float))
    np.testing.assert_allclose(sample(jnp.array([2, 5, 5, 8])), sample(jnp.array([2, 5, 8])), rtol=1e-5)
