r"""What a denoising network may predict, and the maps between the choices.

Given x_t the data, the noise, the velocity and the score are affine functions of each other: a network that predicts
one predicts them all. They differ in where they are well conditioned, and in what a mean squared error of them weighs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import shapes
from dltheory.diffusion._steps import check_points, check_time, signal_and_noise
from dltheory.diffusion.schedules import Schedule
from dltheory.typing import Array, Scalar

__all__ = [
    "PredictFn",
    "Prediction",
    "classifier_free_guidance",
    "prediction_from_data",
    "prediction_from_noise",
    "prediction_from_score",
    "prediction_from_velocity",
]


class Prediction(NamedTuple):
    r"""What is predicted of a noisy point x_t, in all four parametrisations. Each is like the point.

    Attributes:
        data: an estimate of x_0.
        noise: an estimate of epsilon.
        velocity: v = sqrt(alpha-bar_t) epsilon - sqrt(1 - alpha-bar_t) x_0.
        score: an estimate of the gradient of log q(x_t), -epsilon / sqrt(1 - alpha-bar_t).
    """

    data: Array
    noise: Array
    velocity: Array
    score: Array


# (x_t, t) -> what is predicted of x_t at time t [].
PredictFn = Callable[[Array, Array], Prediction]


def prediction_from_noise(noise: Array, xt: Array, t: Array | int, schedule: Schedule) -> Prediction:
    r"""All parametrisations, from the noise.

    .. math::
        \hat x_0 = \frac{x_t - \sigma \hat\epsilon}{a}, \quad \hat v = \frac{\hat\epsilon - \sigma x_t}{a}, \quad
        \hat s = -\frac{\hat\epsilon}{\sigma}, \qquad a = \sqrt{\bar\alpha_t}, \quad \sigma = \sqrt{1 - \bar\alpha_t}

    Errors of the noise are magnified in the data where alpha-bar is near 0.

    Args:
        noise: an estimate of epsilon, any shape.
        xt: x_t, like `noise`.
        t: the time, between 1 and T, shape [].
        schedule: the noise schedule.

    Returns:
        The prediction; data and velocity are not finite where alpha-bar_t is 0.

    Raises:
        ValueError: if `noise` and `xt` differ in shape or are not floating-point, `t` is not a whole number, or a
            static `t` is out of range.

    Statement: diffusion.mu_parametrization.  Source: Ho et al. 2020.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.36]))
    >>> round(float(diffusion.prediction_from_noise(jnp.array(0.5), jnp.array(1.1), 1, schedule).data), 6)
    1.0
    """
    a, std = _coefficients("noise", noise, xt, t, schedule)
    return Prediction(data=(xt - std * noise) / a, noise=noise, velocity=(noise - std * xt) / a, score=-noise / std)


def prediction_from_data(data: Array, xt: Array, t: Array | int, schedule: Schedule) -> Prediction:
    r"""All parametrisations, from the data.

    .. math::
        \hat\epsilon = \frac{x_t - a \hat x_0}{\sigma}, \quad \hat v = \frac{a x_t - \hat x_0}{\sigma}, \quad
        \hat s = -\frac{\hat\epsilon}{\sigma}, \qquad a = \sqrt{\bar\alpha_t}, \quad \sigma = \sqrt{1 - \bar\alpha_t}

    Errors of the data are magnified in the noise where 1 - alpha-bar is near 0.

    Args:
        data: an estimate of x_0, any shape.
        xt: x_t, like `data`.
        t: the time, between 1 and T, shape [].
        schedule: the noise schedule.

    Returns:
        The prediction.

    Raises:
        ValueError: if `data` and `xt` differ in shape or are not floating-point, `t` is not a whole number, or a static
            `t` is out of range.

    A helper.  Source: Salimans and Ho 2022.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.36]))
    >>> round(float(diffusion.prediction_from_data(jnp.array(1.0), jnp.array(1.1), 1, schedule).noise), 6)
    0.5
    """
    a, std = _coefficients("data", data, xt, t, schedule)
    noise = (xt - a * data) / std
    return Prediction(data=data, noise=noise, velocity=(a * xt - data) / std, score=-noise / std)


def prediction_from_velocity(velocity: Array, xt: Array, t: Array | int, schedule: Schedule) -> Prediction:
    r"""All parametrisations, from the velocity, which is well conditioned at every noise level.

    .. math::
        \hat x_0 = a x_t - \sigma \hat v, \quad \hat\epsilon = \sigma x_t + a \hat v, \quad
        \hat s = -\frac{\hat\epsilon}{\sigma}, \qquad a = \sqrt{\bar\alpha_t}, \quad \sigma = \sqrt{1 - \bar\alpha_t}

    With a = cos and sigma = sin of an angle, v is the derivative of x_t by it.

    Args:
        velocity: an estimate of v = a epsilon - sigma x_0, any shape.
        xt: x_t, like `velocity`.
        t: the time, between 1 and T, shape [].
        schedule: the noise schedule.

    Returns:
        The prediction.

    Raises:
        ValueError: if `velocity` and `xt` differ in shape or are not floating-point, `t` is not a whole number, or a
            static `t` is out of range.

    A helper.  Source: Salimans and Ho 2022.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.36]))
    >>> velocity = jnp.array(0.8 * 0.5 - 0.6 * 1.0)
    >>> round(float(diffusion.prediction_from_velocity(velocity, jnp.array(1.1), 1, schedule).data), 6)
    1.0
    """
    a, std = _coefficients("velocity", velocity, xt, t, schedule)
    noise = std * xt + a * velocity
    return Prediction(data=a * xt - std * velocity, noise=noise, velocity=velocity, score=-noise / std)


def prediction_from_score(score: Array, xt: Array, t: Array | int, schedule: Schedule) -> Prediction:
    r"""All parametrisations, from the score.

    .. math::
        \hat x_0 = \frac{x_t + \sigma^2 \hat s}{a}, \quad \hat\epsilon = -\sigma \hat s, \quad
        \hat v = -\frac{\sigma}{a} (\hat s + x_t), \quad a = \sqrt{\bar\alpha_t}, \; \sigma = \sqrt{1 - \bar\alpha_t}

    Args:
        score: an estimate of the gradient of log q(x_t), any shape.
        xt: x_t, like `score`.
        t: the time, between 1 and T, shape [].
        schedule: the noise schedule.

    Returns:
        The prediction; data and velocity are not finite where alpha-bar_t is 0.

    Raises:
        ValueError: if `score` and `xt` differ in shape or are not floating-point, `t` is not a whole number, or a
            static `t` is out of range.

    A helper.  Source: Song et al. 2021; Efron 2011 (Tweedie's formula).

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.36]))
    >>> round(float(diffusion.prediction_from_score(jnp.array(-0.5 / 0.6), jnp.array(1.1), 1, schedule).data), 6)
    1.0
    """
    a, std = _coefficients("score", score, xt, t, schedule)
    return Prediction(data=(xt + std**2 * score) / a, noise=-std * score, velocity=-std * (score + xt) / a, score=score)


def classifier_free_guidance(conditional: Prediction, unconditional: Prediction, strength: Scalar) -> Prediction:
    r"""A prediction moved away from the unconditional one: guidance without a classifier.

    .. math::
        \tilde\epsilon = (1 + w)\, \epsilon(x_t \mid c) - w\, \epsilon(x_t), \qquad
        \tilde s = \nabla \log \left( q(x_t)\, q(c \mid x_t)^{1 + w} \right)

    As the weights sum to 1, the formula is the same in all parametrisations. For w > 0 the laws with these scores are
    not those that noise makes of any one law of data: guided samples have no density that is known.

    Args:
        conditional: prediction given the condition c.
        unconditional: prediction without it.
        strength: w, shape []; 0 is the conditional model, -1 the unconditional one.

    Returns:
        The guided prediction.

    Raises:
        ValueError: if the predictions differ in shape or `strength` is not a scalar.

    A helper.  Source: Ho and Salimans 2022.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> one, zero = diffusion.Prediction(*jnp.ones(4)), diffusion.Prediction(*jnp.zeros(4))
    >>> float(diffusion.classifier_free_guidance(one, zero, 2.0).noise)
    3.0
    """
    shapes(strength=(strength, ""))
    check_points(conditional=conditional.noise, unconditional=unconditional.noise)

    def guided(given, free):
        return given + jnp.asarray(strength, given.dtype) * (given - free)

    return jax.tree.map(guided, conditional, unconditional)


def _coefficients(name: str, estimate: Array, xt: Array, t: Array | int, schedule: Schedule) -> tuple[Array, Array]:
    check_points(**{name: estimate, "xt": xt})
    check_time(t, schedule)
    return signal_and_noise(t, schedule, xt)
