"""The forward process: data turn into noise step by step, and the law at every step is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dltheory.diffusion._steps import at, check_points, check_time, signal_and_noise
from dltheory.diffusion.schedules import Schedule
from dltheory.typing import Array, PRNGKey

__all__ = ["forward_path", "forward_sample", "forward_step", "prior_kl"]


def forward_step(key: PRNGKey, x: Array, t: Array | int, schedule: Schedule) -> Array:
    r"""One step of the forward process.

    .. math:: x_t = \sqrt{1 - \beta_t}\, x_{t-1} + \sqrt{\beta_t}\, \epsilon, \qquad \epsilon \sim N(0, I)

    It preserves variance: data of unit variance keep it.

    Args:
        key: random key.
        x: x_{t-1}, any shape.
        t: the time of the result, between 1 and T, shape [].
        schedule: the noise schedule.

    Returns:
        x_t, like `x`.

    Raises:
        ValueError: if `x` is not floating-point, `t` not a whole number, or a static `t` out of range.

    Statement: diffusion.forward_step.  Source: Sohl-Dickstein et al. 2015; Ho et al. 2020.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.0, 1.0]))
    >>> diffusion.forward_step(jax.random.key(0), jnp.array([3.0]), 1, schedule)
    Array([3.], dtype=float32)
    """
    check_points(x=x)
    check_time(t, schedule)
    noise = jax.random.normal(key, x.shape, x.dtype)
    return jnp.sqrt(at(schedule.alphas, t, x)) * x + jnp.sqrt(at(schedule.betas, t, x)) * noise


def forward_path(key: PRNGKey, x0: Array, schedule: Schedule) -> Array:
    r"""A path of the forward process, step by step.

    Args:
        key: random key.
        x0: data, any shape.
        schedule: the noise schedule, T steps.

    Returns:
        x_0, ..., x_T, shape [T + 1, ...].

    Raises:
        ValueError: if `x0` is not floating-point.

    Statement: diffusion.forward_step.  Source: Ho et al. 2020.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> diffusion.forward_path(jax.random.key(0), jnp.zeros(2), diffusion.cosine_schedule(8)).shape
    (9, 2)
    """
    check_points(x0=x0)
    num_steps = len(schedule.betas) - 1

    def step(x, moment):
        t, key = moment
        x = forward_step(key, x, t, schedule)
        return x, x

    moments = (jnp.arange(1, num_steps + 1), jax.random.split(key, num_steps))
    path = jax.lax.scan(step, x0, moments)[1]
    return jnp.concatenate([jnp.expand_dims(x0, 0), path])


def forward_sample(key: PRNGKey, x0: Array, t: Array | int, schedule: Schedule) -> tuple[Array, Array]:
    r"""A sample of the forward process at one time, without the steps before.

    .. math::
        x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, \qquad \epsilon \sim N(0, I), \quad
        \bar\alpha_t = \prod_{s \le t} (1 - \beta_s)

    Args:
        key: random key.
        x0: data, any shape.
        t: the time, between 0 and T, shape [].
        schedule: the noise schedule.

    Returns:
        x_t and the noise epsilon in it, both like `x0`.

    Raises:
        ValueError: if `x0` is not floating-point, `t` not a whole number, or a static `t` out of range.

    Statement: diffusion.forward_marginal.  Source: Ho et al. 2020, equation 4.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.36]))
    >>> x, noise = diffusion.forward_sample(jax.random.key(0), jnp.ones(2), 1, schedule)
    >>> bool(jnp.allclose(x, 0.8 + 0.6 * noise))
    True
    """
    check_points(x0=x0)
    check_time(t, schedule, first=0)
    signal, std = signal_and_noise(t, schedule, x0)
    noise = jax.random.normal(key, x0.shape, x0.dtype)
    return signal * x0 + std * noise, noise


def prior_kl(x0: Array, t: Array | int, schedule: Schedule) -> Array:
    r"""How far x_t is from noise: the divergence of its law given the data from N(0, I).

    .. math::
        \mathrm{KL}(q(x_t \mid x_0) \,\|\, N(0, I)) =
        \tfrac12 \left( \bar\alpha_t \lVert x_0 \rVert^2 - d \bar\alpha_t - d \log(1 - \bar\alpha_t) \right)

    At t = T it is the term L_T of the variational bound. It vanishes with alpha-bar, for long schedules thus if and
    only if the sum of the betas diverges.

    Args:
        x0: data, any shape, d numbers.
        t: the time, between 0 and T, shape [].
        schedule: the noise schedule.

    Returns:
        Divergence in nats, shape []; infinite where no noise has been added.

    Raises:
        ValueError: if `x0` is not floating-point, `t` not a whole number, or a static `t` out of range.

    Statement: diffusion.forward_limit, diffusion.prior_term.  Source: Ho et al. 2020, equation 5.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.5]))
    >>> float(diffusion.prior_kl(jnp.ones(2), 1, schedule))  # log 2
    0.6931472
    """
    check_points(x0=x0)
    check_time(t, schedule, first=0)
    alpha_bar, noise = at(schedule.alpha_bars, t, x0), at(schedule.one_minus_alpha_bars, t, x0)
    return (alpha_bar * jnp.sum(x0**2) + x0.size * _excess(alpha_bar, noise)) / 2


def _excess(alpha_bar: Array, noise: Array) -> Array:
    """-a - log(1 - a), by its series where the two would cancel."""
    small = alpha_bar < 1 / 16
    a = jnp.where(small, alpha_bar, 0.0)
    series = jnp.zeros_like(a)
    for power in range(14, 1, -1):
        series = (series * a) + 1 / power
    some = noise != 0
    direct = -alpha_bar - jnp.where(some, jnp.log(jnp.where(some, noise, 1.0)), -jnp.inf)
    return jnp.where(small, series * a**2, direct)
