"""One step back: the law of x_{t-1} given x_t and the data, which is normal and which the model imitates."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from dltheory._numerics import safe_sqrt
from dltheory.diffusion._steps import at, check_points, check_time
from dltheory.diffusion.schedules import Schedule
from dltheory.typing import Array

__all__ = ["IsotropicGaussian", "posterior", "posterior_mean_from_noise"]


class IsotropicGaussian(NamedTuple):
    """The normal law N(mean, variance I).

    Attributes:
        mean: any shape.
        variance: the same for all entries, shape [].
    """

    mean: Array
    variance: Array


def posterior(x0: Array, xt: Array, t: Array | int, schedule: Schedule) -> IsotropicGaussian:
    r"""Law of x_{t-1} given x_t and the data.

    .. math::
        q(x_{t-1} \mid x_t, x_0) = N(\tilde\mu_t, \tilde\beta_t I), \quad
        \tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\, \beta_t}{1 - \bar\alpha_t} x_0
        + \frac{\sqrt{\alpha_t}\, (1 - \bar\alpha_{t-1})}{1 - \bar\alpha_t} x_t, \quad
        \tilde\beta_t = \frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t} \beta_t

    With an estimate of the data in their place it is the reverse step of the model. This form stays precise where
    alpha-bar is near 0, unlike the one by the noise.

    Args:
        x0: data, or an estimate of them, any shape.
        xt: x_t, like `x0`.
        t: the time, between 1 and T, shape [].
        schedule: the noise schedule.

    Returns:
        Mean, like `x0`, and variance []; at t = 1 these are x_0 and 0.

    Raises:
        ValueError: if `x0` and `xt` differ in shape or are not floating-point, `t` is not a whole number, or a static
            `t` is out of range.

    Statement: diffusion.ddpm_posterior, diffusion.ddpm_posterior_mean, diffusion.ddpm_posterior_variance.
    Source: Ho et al. 2020, equations 6 and 7.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.5, 0.5]))
    >>> diffusion.posterior(jnp.zeros(1), jnp.ones(1), 2, schedule)  # sqrt(1/2) 2/3, and 1/3
    IsotropicGaussian(mean=Array([0.47140452], dtype=float32), variance=Array(0.33333334, dtype=float32))
    """
    check_points(x0=x0, xt=xt)
    check_time(t, schedule)
    total = schedule.one_minus_alpha_bars[t]
    some = total != 0
    total = jnp.where(some, total, 1.0)
    of_data = safe_sqrt(schedule.alpha_bars[t - 1]) * schedule.betas[t] / total
    of_point = safe_sqrt(schedule.alphas[t]) * schedule.one_minus_alpha_bars[t - 1] / total
    of_data = jnp.where(some, of_data, 1.0)  # without any noise so far x_t is x_0
    mean = of_data.astype(x0.dtype) * x0 + of_point.astype(x0.dtype) * xt
    return IsotropicGaussian(mean=mean, variance=at(schedule.posterior_variances, t, x0))


def posterior_mean_from_noise(noise: Array, xt: Array, t: Array | int, schedule: Schedule) -> Array:
    r"""Mean of x_{t-1} given x_t and the noise in it: the parametrisation of DDPM.

    .. math::
        \tilde\mu_t = \frac{1}{\sqrt{\alpha_t}} \left( x_t - \frac{1 - \alpha_t}{\sqrt{1 - \bar\alpha_t}}\, \epsilon
        \right), \qquad \epsilon = \frac{x_t - \sqrt{\bar\alpha_t}\, x_0}{\sqrt{1 - \bar\alpha_t}}

    With the noise that a network predicts it is mu_theta; with E[noise | x_t] it is the mean of q(x_{t-1} | x_t).

    Args:
        noise: epsilon, or an estimate of it, any shape.
        xt: x_t, like `noise`.
        t: the time, between 1 and T, shape [].
        schedule: the noise schedule.

    Returns:
        The mean, like `noise`; not finite where alpha_t is 0.

    Raises:
        ValueError: if `noise` and `xt` differ in shape or are not floating-point, `t` is not a whole number, or a
            static `t` is out of range.

    Statement: diffusion.ddpm_posterior_mean, diffusion.mu_parametrization.  Source: Ho et al. 2020, equations 7 and
    11.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.5, 0.5]))
    >>> noise = jnp.ones(1) / jnp.sqrt(0.75)  # all of x_2 = 1 is noise
    >>> diffusion.posterior_mean_from_noise(noise, jnp.ones(1), 2, schedule)
    Array([0.47140], dtype=float32)
    """
    check_points(noise=noise, xt=xt)
    check_time(t, schedule)
    std = safe_sqrt(schedule.one_minus_alpha_bars[t])
    share = (schedule.betas[t] / jnp.where(std != 0, std, 1.0)).astype(xt.dtype)
    return (xt - share * noise) / jnp.sqrt(at(schedule.alphas, t, xt))
