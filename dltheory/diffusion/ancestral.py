"""From noise to data, one step of the schedule at a time: ancestral sampling and DDIM.

The samplers work on points of any shape. For a model that takes one point, map over the noise; one that takes a batch
can be given a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory._numerics import safe_sqrt
from dltheory.diffusion._predictions import conform, predicted
from dltheory.diffusion._steps import at, check_points, check_time, check_values, signal_and_noise
from dltheory.diffusion.parametrizations import PredictFn, Prediction
from dltheory.diffusion.posterior import posterior
from dltheory.diffusion.schedules import Schedule, respaced
from dltheory.typing import Array, PRNGKey, Scalar

__all__ = ["ancestral_sample", "ancestral_step", "ddim_sample", "ddim_step"]


def ancestral_step(
    key: PRNGKey, prediction: Prediction, xt: Array, t: Array | int, schedule: Schedule, variances: Array | None = None
) -> Array:
    r"""One step back, drawn from the model.

    .. math::
        x_{t-1} = \tilde\mu_t(\hat x_0, x_t) + \sigma_t z, \qquad z \sim N(0, I); \quad
        \tilde\mu_t(\hat x_0, x_t) = \frac{1}{\sqrt{\alpha_t}} \left( x_t
        - \frac{\beta_t}{\sqrt{1 - \bar\alpha_t}}\, \hat\epsilon \right)

    The last step, from t = 1, adds no noise.

    Args:
        key: random key.
        prediction: what the model predicts of `xt`, in its shape; only its data are used.
        xt: x_t, any shape.
        t: the time, between 1 and T, shape [].
        schedule: the noise schedule, T steps.
        variances: sigma_t^2, shape [T + 1]; by default beta-tilde_t, best where the data are a point. Where they are
            N(0, I) it is beta_t, `schedule.betas`.

    Returns:
        x_{t-1}, like `xt`.

    Raises:
        ValueError: if the prediction and `xt` differ in shape or are not floating-point, `t` is not a whole number, a
            static `t` is out of range, or `variances` does not fit the schedule.

    Statement: diffusion.ancestral_sampling.  Source: Ho et al. 2020, algorithm 2.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.36]))
    >>> prediction = diffusion.prediction_from_data(jnp.zeros(1), jnp.ones(1), 1, schedule)
    >>> diffusion.ancestral_step(jax.random.key(0), prediction, jnp.ones(1), 1, schedule)
    Array([0.], dtype=float32)
    """
    check_points(xt=xt)
    variances = check_values(schedule, variances, "variances", lambda schedule: schedule.posterior_variances)
    mean = posterior(conform(prediction, xt).data, xt, t, schedule).mean
    variance = jnp.where(t > 1, at(variances, t, xt), 0.0)
    return mean + safe_sqrt(variance) * jax.random.normal(key, xt.shape, xt.dtype)


def ancestral_sample(
    key: PRNGKey, predict_fn: PredictFn, noise: Array, schedule: Schedule, variances: Array | None = None
) -> Array:
    r"""Samples a diffusion model from its last step to its first.

    .. math::
        x_T \sim N(0, I), \qquad x_{t-1} \sim p_\theta(x_{t-1} \mid x_t) = N(\tilde\mu_t(\hat x_0, x_t), \sigma_t^2 I)

    With the best prediction (`mixture_prediction`) the law of the samples tends to that of the data like 1 / T.

    Args:
        key: random key.
        predict_fn: the model, (x_t, t) -> `Prediction`.
        noise: x_T, drawn from N(0, I), any shape.
        schedule: the noise schedule, T steps.
        variances: sigma_t^2, shape [T + 1]; by default beta-tilde_t.

    Returns:
        x_0, like `noise`.

    Raises:
        ValueError: if `noise` is not floating-point, predictions do not have its shape, or `variances` does not fit the
            schedule.

    Statement: diffusion.ancestral_sampling.  Source: Ho et al. 2020, algorithm 2.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.cosine_schedule(20)
    >>> points = diffusion.GaussianMixture(jnp.zeros(2), jnp.array([[-1.0], [1.0]]), jnp.zeros((2, 1)))
    >>> predict_fn = lambda x, t: diffusion.mixture_prediction(points, x, t, schedule)
    >>> key_noise, key_path = jax.random.split(jax.random.key(0))
    >>> sample = diffusion.ancestral_sample(key_path, predict_fn, jax.random.normal(key_noise, (1,)), schedule)
    >>> round(abs(float(sample[0])), 4)
    1.0
    """
    check_points(noise=noise)
    variances = check_values(schedule, variances, "variances", lambda schedule: schedule.posterior_variances)

    def step(key, xt, t):
        return ancestral_step(key, predicted(predict_fn, xt, t), xt, t, schedule, variances)

    return _descend(key, step, noise, schedule)


def ddim_step(
    key: PRNGKey, prediction: Prediction, xt: Array, t: Array | int, schedule: Schedule, eta: Scalar = 0.0
) -> Array:
    r"""One step back that keeps the laws of x_t with less noise than ancestral sampling, or none.

    .. math::
        x_{t-1} = \sqrt{\bar\alpha_{t-1}}\, \hat x_0 + \sqrt{1 - \bar\alpha_{t-1} - \sigma_t^2}\, \hat\epsilon
        + \sigma_t z, \qquad \sigma_t^2 = \eta^2 \tilde\beta_t

    For eta = 1 it is the step of ancestral sampling. For eta = 0 it is deterministic, one of the probability-flow
    equation in the variable x_t / sqrt(alpha-bar_t).

    Args:
        key: random key.
        prediction: what the model predicts of `xt`; its data and its noise are used.
        xt: x_t, any shape.
        t: the time, between 1 and T, shape [].
        schedule: the noise schedule, T steps.
        eta: between 0 and 1, shape [].

    Returns:
        x_{t-1}, like `xt`.

    Raises:
        ValueError: if the prediction and `xt` differ in shape or are not floating-point, `t` is not a whole number, a
            static `t` is out of range, `eta` is not a scalar, or a static `eta` is not between 0 and 1.

    Statement: diffusion.ancestral_sampling.  Source: Song, Meng and Ermon 2021, equation 12.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.36, 0.5]))
    >>> prediction = diffusion.Prediction(data=jnp.ones(1), noise=jnp.ones(1), velocity=jnp.ones(1), score=jnp.ones(1))
    >>> diffusion.ddim_step(jax.random.key(0), prediction, jnp.ones(1), 2, schedule)  # 0.8 + 0.6
    Array([1.4], dtype=float32)
    """
    check_points(xt=xt)
    prediction = conform(prediction, xt)
    check_time(t, schedule)
    shapes(eta=(eta, ""))
    require((eta >= 0) & (eta <= 1), "`eta` must lie between 0 and 1")
    signal, std = signal_and_noise(t - 1, schedule, xt)
    total = schedule.one_minus_alpha_bars[t]
    # 1 - beta-tilde_t / (1 - alpha-bar_{t-1}) = alpha_t (1 - alpha-bar_{t-1}) / (1 - alpha-bar_t)
    kept = schedule.alphas[t] * schedule.one_minus_alpha_bars[t - 1] / jnp.where(total != 0, total, 1.0)
    kept = safe_sqrt(1 - eta**2 + eta**2 * kept).astype(xt.dtype)
    fresh = (eta * safe_sqrt(schedule.posterior_variances[t])).astype(xt.dtype)
    z = jax.random.normal(key, xt.shape, xt.dtype)
    return signal * prediction.data + std * kept * prediction.noise + fresh * z


def ddim_sample(
    key: PRNGKey,
    predict_fn: PredictFn,
    noise: Array,
    schedule: Schedule,
    times: Array | None = None,
    eta: Scalar = 0.0,
) -> Array:
    r"""Samples a diffusion model in some of its steps, with as much noise as is wanted.

    Args:
        key: random key; without effect for eta = 0.
        predict_fn: the model, (x_t, t) -> `Prediction`, with t a time of `schedule`.
        noise: x_T, drawn from N(0, I), any shape.
        schedule: the noise schedule that the model was trained with, T steps.
        times: the times to evaluate the model at, increasing whole numbers between 1 and T, shape [m]; all by default.
        eta: 0 for a deterministic map from noise to data, 1 for ancestral sampling, shape [].

    Returns:
        x_0, like `noise`; NaN if the times are not as they must be.

    Raises:
        ValueError: if `noise` is not floating-point, predictions do not have its shape, `times` is not a vector of
            whole numbers, or `eta` is not a scalar between 0 and 1.

    Statement: diffusion.ancestral_sampling.  Source: Song, Meng and Ermon 2021.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.cosine_schedule(100)
    >>> data = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.full((1, 1), 4.0))
    >>> predict_fn = lambda x, t: diffusion.mixture_prediction(data, x, t, schedule)
    >>> sample = diffusion.ddim_sample(jax.random.key(0), predict_fn, jnp.ones(1), schedule)
    >>> abs(float(sample[0]) - 2) < 0.1  # the map from N(0, 1) to N(0, 4)
    True
    """
    check_points(noise=noise)
    if times is None:
        times = jnp.arange(1, len(schedule.betas))
    chosen = respaced(schedule, times)
    times = jnp.asarray(times)

    def step(key, xt, i):
        return ddim_step(key, predicted(predict_fn, xt, times[i - 1]), xt, i, chosen, eta)

    return _descend(key, step, noise, chosen)


def _descend(key: PRNGKey, step: Callable[[PRNGKey, Array, Array], Array], noise: Array, schedule: Schedule) -> Array:
    num_steps = len(schedule.betas) - 1
    moments = (jnp.arange(num_steps, 0, -1), jax.random.split(key, num_steps))
    return jax.lax.scan(lambda xt, moment: (step(moment[1], xt, moment[0]), None), noise, moments)[0]
