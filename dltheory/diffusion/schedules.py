"""Noise schedules: how much of the data is left at each step.

Time is counted as in the papers: t = 0 is the data, t = T the noise. The arrays of a schedule have T + 1 entries, so
that entry t belongs to time t and nothing is ever off by one; there is no noise at time 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._checks import require, shapes
from dltheory.diffusion._fields import require_positive
from dltheory.typing import Array, Scalar

__all__ = [
    "Schedule",
    "check_schedule",
    "cosine_schedule",
    "linear_schedule",
    "respaced",
    "schedule_from_betas",
    "schedule_from_log_snr",
    "sigmoid_schedule",
    "signal_to_noise",
]


class Schedule(NamedTuple):
    r"""A noise schedule of T steps. All arrays have shape [T + 1]; entry t belongs to time t, entry 0 to the data.

    Attributes:
        betas: beta_t, the variance of the noise that step t adds; 0 at t = 0.
        alphas: alpha_t = 1 - beta_t.
        alpha_bars: alpha-bar_t, the product of alpha_1, ..., alpha_t: the share of the data in the variance of x_t.
        one_minus_alpha_bars: 1 - alpha-bar_t, the variance of the noise in x_t, precise also where it is near 0.
        posterior_variances: beta-tilde_t = beta_t (1 - alpha-bar_{t-1}) / (1 - alpha-bar_t), the variance of x_{t-1}
            given x_t and x_0; 0 at t = 0 and t = 1.
    """

    betas: Array
    alphas: Array
    alpha_bars: Array
    one_minus_alpha_bars: Array
    posterior_variances: Array


def schedule_from_betas(betas: Array) -> Schedule:
    r"""The schedule that adds noise of given variances.

    .. math::
        \bar\alpha_t = \prod_{s \le t} (1 - \beta_s), \qquad
        \tilde\beta_t = \frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t} \beta_t

    Computed through sums of log(1 - beta), so that 1 - alpha-bar keeps its digits where it is small.

    Args:
        betas: beta_1, ..., beta_T, between 0 and 1, shape [t].

    Returns:
        The schedule; NaN from the first beta outside [0, 1] on.

    Raises:
        ValueError: if `betas` is not a vector.

    Statement: diffusion.forward_marginal, diffusion.ddpm_posterior_variance.
    Source: Ho et al. 2020, equations 4 and 7.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> diffusion.schedule_from_betas(jnp.array([0.5, 0.5])).alpha_bars
    Array([1.  , 0.5 , 0.25], dtype=float32)
    """
    shapes(betas=(betas, "t"))
    betas = jnp.asarray(betas)
    require(jnp.all((betas >= 0) & (betas <= 1)), "`betas` must lie between 0 and 1")
    betas = jnp.concatenate([jnp.zeros(1, betas.dtype), jnp.where(betas >= 0, betas, jnp.nan)])
    log_alpha_bars = jnp.cumsum(jnp.log1p(-betas))
    return _assemble(betas, jnp.exp(log_alpha_bars), -jnp.expm1(log_alpha_bars))


def schedule_from_log_snr(log_snr: Array) -> Schedule:
    r"""The schedule of given signal-to-noise ratios: the form in which schedules are learned.

    .. math::
        \lambda_t = \log \frac{\bar\alpha_t}{1 - \bar\alpha_t}, \qquad
        \bar\alpha_t = \operatorname{sigmoid}(\lambda_t), \quad 1 - \bar\alpha_t = \operatorname{sigmoid}(-\lambda_t)

    Args:
        log_snr: lambda_1 > ... > lambda_T, shape [t].

    Returns:
        The schedule, differentiable in `log_snr`. Where the ratios do not fall, a beta is not positive: see
        `check_schedule`.

    Raises:
        ValueError: if `log_snr` is not a vector.

    Statement: diffusion.scheduler.  Source: Kingma et al. 2021.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> diffusion.schedule_from_log_snr(jnp.array([0.0, -jnp.log(3.0)])).betas
    Array([0. , 0.5, 0.5], dtype=float32)
    """
    shapes(log_snr=(log_snr, "t"))
    start = jnp.zeros(1, log_snr.dtype)
    log_alpha_bars = jnp.concatenate([start, jax.nn.log_sigmoid(log_snr)])
    betas = jnp.concatenate([start, -jnp.expm1(jnp.diff(log_alpha_bars))])
    return _assemble(betas, jnp.exp(log_alpha_bars), jnp.concatenate([start, jax.nn.sigmoid(-log_snr)]))


def linear_schedule(num_steps: int, beta_min: Scalar = 0.1, beta_max: Scalar = 20.0) -> Schedule:
    r"""The schedule whose betas grow linearly.

    .. math:: \beta_t = \frac1T \left( \beta_{\min} + \frac{t - 1}{T - 1} (\beta_{\max} - \beta_{\min}) \right)

    The betas are rates in units of the whole time, so that as much noise is added whatever the number of steps. At
    T = 1000 the defaults are the 1e-4, ..., 0.02 of Ho et al.; alpha-bar_T is about exp(-(beta_min + beta_max) / 2).

    Args:
        num_steps: T, positive and above `beta_max`.
        beta_min: T beta_1, not negative, shape [].
        beta_max: T beta_T, below T, shape [].

    Returns:
        The schedule, in the dtype of the betas.

    Raises:
        ValueError: if `num_steps` is not positive, `beta_min` or `beta_max` is not a scalar, or beta_T would pass 1.

    Statement: diffusion.scheduler.  Source: Ho et al. 2020.

    >>> from dltheory import diffusion
    >>> schedule = diffusion.linear_schedule(1000)
    >>> [round(float(schedule.betas[t]), 6) for t in (1, 1000)]
    [0.0001, 0.02]
    """
    shapes(beta_min=(beta_min, ""), beta_max=(beta_max, ""))
    _require_steps(num_steps)
    require(beta_min >= 0, "`beta_min` must not be negative")
    require(beta_max <= num_steps, "`beta_max` must not be above the number of steps")
    dtype = jnp.result_type(beta_min, beta_max, float)
    fractions = jnp.linspace(0, 1, num_steps, dtype=dtype)
    return schedule_from_betas((beta_min + fractions * (beta_max - beta_min)) / num_steps)


def cosine_schedule(num_steps: int, offset: Scalar = 0.008, max_beta: Scalar = 0.999) -> Schedule:
    r"""The schedule whose alpha-bar falls like a squared cosine: slowly at both ends.

    .. math::
        \bar\alpha_t = \frac{f(t)}{f(0)}, \quad f(t) = \cos^2\!\left( \frac{t / T + s}{1 + s} \frac\pi2 \right), \quad
        \beta_t = \min\!\left( 1 - \frac{\bar\alpha_t}{\bar\alpha_{t-1}},\, \beta_{\max} \right)

    Computed as a product of sines, free of cancellation at both ends; alpha-bar follows from the clipped betas.

    Args:
        num_steps: T, positive.
        offset: s, not negative, shape []; keeps beta_1 from vanishing.
        max_beta: largest beta, positive and at most 1, shape []; keeps the last from being 1, which leaves no data.

    Returns:
        The schedule, in the dtype of `offset` and `max_beta`.

    Raises:
        ValueError: if `num_steps` is not positive, `offset` or `max_beta` is not a scalar, or a static one is out of
            its range.

    Statement: diffusion.scheduler.  Source: Nichol and Dhariwal 2021.

    >>> from dltheory import diffusion
    >>> [round(float(share), 3) for share in diffusion.cosine_schedule(4).alpha_bars]
    [1.0, 0.847, 0.494, 0.144, 0.0]
    """
    shapes(offset=(offset, ""), max_beta=(max_beta, ""))
    _require_steps(num_steps)
    require(offset >= 0, "`offset` must not be negative")
    require((max_beta > 0) & (max_beta <= 1), "`max_beta` must be positive and at most 1")
    dtype = jnp.result_type(offset, max_beta, float)
    left = (num_steps - jnp.arange(num_steps + 1, dtype=dtype)) / num_steps  # 1 - t / T
    angle = left / (1 + offset) * (math.pi / 2)  # up to the right angle
    # 1 - sin^2 b / sin^2 a = sin(a - b) sin(a + b) / sin^2 a
    before, after = angle[:-1], angle[1:]
    step = math.pi / 2 / num_steps / (1 + offset)
    betas = jnp.sin(step) * jnp.sin(before + after) / jnp.sin(before) ** 2
    return schedule_from_betas(jnp.minimum(betas, max_beta).astype(dtype))


def sigmoid_schedule(
    num_steps: int, start: Scalar = -3.0, end: Scalar = 3.0, temperature: Scalar = 1.0, max_beta: Scalar = 0.999
) -> Schedule:
    r"""The schedule whose alpha-bar falls like a sigmoid, stretched to run from 1 to 0.

    .. math::
        \bar\alpha_t = \frac{\operatorname{sigmoid}(e / \tau) - \operatorname{sigmoid}(v_t)}
        {\operatorname{sigmoid}(e / \tau) - \operatorname{sigmoid}(s / \tau)}, \qquad
        v_t = \frac{s + (e - s) t / T}{\tau}

    Args:
        num_steps: T, positive.
        start: s, shape [].
        end: e, above s, shape [].
        temperature: tau, positive, shape []; the smaller, the more abruptly the data go.
        max_beta: largest beta, positive and at most 1, shape []; keeps the last from being 1, which leaves no data.

    Returns:
        The schedule, in the dtype of the settings.

    Raises:
        ValueError: if `num_steps` is not positive, another setting is not a scalar, or a static one is out of its
            range.

    Statement: diffusion.scheduler.  Source: Jabri et al. 2022; Chen 2023.

    >>> from dltheory import diffusion
    >>> [round(float(share), 3) for share in diffusion.sigmoid_schedule(4).alpha_bars]
    [1.0, 0.851, 0.5, 0.149, 0.0]
    """
    shapes(start=(start, ""), end=(end, ""), temperature=(temperature, ""), max_beta=(max_beta, ""))
    _require_steps(num_steps)
    require_positive(temperature=temperature)
    require(start < end, "`start` must be below `end`")
    require((max_beta > 0) & (max_beta <= 1), "`max_beta` must be positive and at most 1")
    dtype = jnp.result_type(start, end, temperature, max_beta, float)
    left = (num_steps - jnp.arange(num_steps + 1, dtype=dtype)) / num_steps
    rest = left * (end - start) / temperature / 2  # (e / tau - v_t) / 2
    last = end / temperature / 2
    # sigmoid a - sigmoid b = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2)), where large exponentials cancel
    step = (end - start) / temperature / num_steps / 2
    before, after = rest[:-1], last - rest[1:]
    growth = jnp.exp(step - before + jnp.abs(last) - jnp.abs(after))
    sines = jnp.expm1(-2 * step) / jnp.expm1(-2 * before)
    betas = growth * sines * (1 + jnp.exp(-2 * jnp.abs(last))) / (1 + jnp.exp(-2 * jnp.abs(after)))
    return schedule_from_betas(jnp.minimum(betas, max_beta).astype(dtype))


def respaced(schedule: Schedule, times: Array) -> Schedule:
    r"""The schedule of some of the time steps, for sampling in fewer steps than the model was trained with.

    .. math:: \beta'_i = 1 - \frac{\bar\alpha_{\tau_i}}{\bar\alpha_{\tau_{i-1}}}, \qquad \tau_0 = 0

    Args:
        schedule: schedule of T steps.
        times: tau, increasing whole numbers between 1 and T, shape [m]; one that is repeated adds no noise.

    Returns:
        A schedule of m steps, whose time i is time tau_i of the given one; NaN if the times fall or are out of range.

    Raises:
        ValueError: if `times` is not a vector of whole numbers.

    A helper.  Source: Nichol and Dhariwal 2021.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.schedule_from_betas(jnp.full(4, 0.5))
    >>> diffusion.respaced(schedule, jnp.array([2, 4])).betas
    Array([0.  , 0.75, 0.75], dtype=float32)
    """
    last = _sizes(schedule) - 1
    shapes(times=(times, "m"))
    times = jnp.asarray(times)
    require(bool(jnp.issubdtype(times.dtype, jnp.integer)), f"`times` must hold whole numbers, got {times.dtype}")
    proper = jnp.all((times >= 1) & (times <= last)) & jnp.all(jnp.diff(times) >= 0)
    require(proper, f"`times` must increase and lie between 1 and {last}")
    log_alpha_bars = jnp.cumsum(jnp.log1p(-schedule.betas))[times]
    before = jnp.concatenate([jnp.zeros(1, log_alpha_bars.dtype), log_alpha_bars[:-1]])
    return schedule_from_betas(jnp.where(proper, -jnp.expm1(log_alpha_bars - before), jnp.nan))


def signal_to_noise(schedule: Schedule) -> Array:
    r"""Signal-to-noise ratio at every time.

    .. math:: \mathrm{SNR}_t = \frac{\bar\alpha_t}{1 - \bar\alpha_t}

    Args:
        schedule: the schedule.

    Returns:
        The ratios, shape [T + 1]; infinite at time 0.

    Raises:
        ValueError: if the arrays of the schedule differ in shape.

    A helper.  Source: Kingma et al. 2021.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> diffusion.signal_to_noise(diffusion.schedule_from_betas(jnp.array([0.5, 0.5])))
    Array([       inf, 1.        , 0.33333334], dtype=float32)
    """
    _sizes(schedule)
    noisy = schedule.one_minus_alpha_bars != 0
    return jnp.where(noisy, schedule.alpha_bars / jnp.where(noisy, schedule.one_minus_alpha_bars, 1.0), jnp.inf)


def check_schedule(schedule: Schedule) -> Array:
    r"""Whether a schedule is one: the test for schedules that were learned or put together by hand.

    There is no noise at time 0; the betas are above 0 and at most 1; alpha-bar falls strictly; and the arrays fit
    together, up to rounding.

    Args:
        schedule: the schedule.

    Returns:
        Truth value, shape [].

    Raises:
        ValueError: if the arrays of the schedule differ in shape.

    Statement: diffusion.scheduler.  Source: Ho et al. 2020; Kingma et al. 2021.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> good = diffusion.cosine_schedule(10)
    >>> bool(diffusion.check_schedule(good)), bool(diffusion.check_schedule(good._replace(betas=good.betas / 2)))
    (True, False)
    """
    t = _sizes(schedule)
    betas, alphas, alpha_bars, noise, posterior_variances = schedule
    tolerance = 8 * t * jnp.finfo(betas.dtype).eps

    def close(x, y):
        return jnp.all(jnp.abs(x - y) <= tolerance * jnp.maximum(jnp.abs(x), jnp.abs(y)))

    clean = (betas[0] == 0) & (alpha_bars[0] == 1) & (noise[0] == 0)
    inside = jnp.all((betas[1:] > 0) & (betas[1:] <= 1))
    # Near 1 alpha-bar may not move by a whole bit while its complement does, and the other way round near 0.
    falling = jnp.all((jnp.diff(alpha_bars) < 0) | (jnp.diff(noise) > 0))
    fitting = (
        jnp.all(jnp.abs(alphas + betas - 1) <= tolerance)
        & jnp.all(jnp.abs(alpha_bars + noise - 1) <= tolerance)
        & close(alpha_bars[1:], alphas[1:] * alpha_bars[:-1])
        & close(noise[1:], betas[1:] + alphas[1:] * noise[:-1])
        & close(posterior_variances[1:] * noise[1:], betas[1:] * noise[:-1])
    )
    return clean & inside & falling & fitting


def _assemble(betas: Array, alpha_bars: Array, noise: Array) -> Schedule:
    before = jnp.concatenate([noise[:1], noise[:-1]])
    ratio = before / jnp.where(noise == 0, 1.0, noise)
    return Schedule(
        betas=betas,
        alphas=1 - betas,
        alpha_bars=alpha_bars,
        one_minus_alpha_bars=noise,
        posterior_variances=betas * ratio,
    )


def _require_steps(num_steps: int) -> None:
    whole = isinstance(num_steps, int | np.integer)
    require(bool(whole and num_steps > 0), f"`num_steps` must be a positive integer, got {num_steps!r}")


def _sizes(schedule: Schedule) -> int:
    return shapes(**{name: (array, "t") for name, array in schedule._asdict().items()})["t"]
