"""Solvers of stochastic and ordinary equations: one step as a pure function of its noise, and one scan over all steps.

A sample may have any shape. Where the drift or the score takes a batch, the batch is the sample: one scan then
advances all of it, and its noise is drawn in one call a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._checks import require, shapes
from dltheory._noise import normal
from dltheory.diffusion._fields import ScoreFn, field, floating, is_monotone, require_positive, score_of
from dltheory.diffusion.reverse import reverse_sde
from dltheory.diffusion.sde import LinearSde, Sde
from dltheory.typing import Array, PRNGKey, Scalar

__all__ = [
    "Solver",
    "euler_maruyama",
    "exponential_integrator",
    "heun",
    "predictor_corrector",
    "sample_reverse",
    "solve",
]

_BLOCK_STEPS, _BLOCK_ENTRIES = 16, 2**18  # of noise that is made at once


class Solver(NamedTuple):
    """One step of a method, made by a closure over its equation.

    Attributes:
        step: (x [...], time [], next_time [], noise [m, ...]) -> x at the next time, [...].
        num_noises: m, the number of standard normal arrays of the shape of x that a step takes.
        time_direction: that of the equation: 1, -1, or 0 for either.
    """

    step: Callable[[Array, Array, Array, Array], Array]
    num_noises: int
    time_direction: int


def euler_maruyama(sde: Sde | LinearSde) -> Solver:
    r"""The method of Euler and Maruyama; without noise, Euler's.

    .. math:: x_{k+1} = x_k + f(x_k, t_k) \Delta t_k + g(t_k) \sqrt{|\Delta t_k|}\, \xi_k, \quad \xi_k \sim N(0, I)

    Its weak order is 1. So is its strong order, as the noise does not depend on x; in general it would be 1/2.

    Args:
        sde: the equation, in either direction of time.

    Returns:
        The solver; a step takes one evaluation of the drift.

    Statement: sde.forward, sde.reverse.  Source: Kloeden and Platen 1992.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> solver = diffusion.euler_maruyama(diffusion.Sde(lambda x, t: -x, lambda t: 2.0))
    >>> float(solver.step(jnp.array(1.0), jnp.array(0.0), jnp.array(0.25), jnp.array([1.0])))
    1.75
    """

    def step(x, time, next_time, noise):
        dt = next_time - time
        moved = x + dt.astype(x.dtype) * field(sde.drift, x, time, name="drift")
        if sde.diffusion is None:
            return moved
        return moved + _increment(sde.diffusion(time), dt, noise[0])

    return Solver(step, int(sde.diffusion is not None), sde.time_direction)


def heun(sde: Sde | LinearSde) -> Solver:
    r"""Heun's method: the drift and the noise of Euler's step, averaged over its two ends.

    .. math::
        \hat x = x_k + f(x_k, t_k) \Delta t + g(t_k) \sqrt{|\Delta t|}\, \xi, \quad
        x_{k+1} = x_k + \tfrac12 \big(f(x_k, t_k) + f(\hat x, t_{k+1})\big) \Delta t
        + \tfrac12 \big(g(t_k) + g(t_{k+1})\big) \sqrt{|\Delta t|}\, \xi

    Its weak order is 2 and its strong order 1, as the noise does not depend on x; without noise its order is 2.

    Args:
        sde: the equation, in either direction of time; its drift is evaluated at both ends of the time grid.

    Returns:
        The solver; a step takes two evaluations of the drift.

    Statement: sde.forward, sde.reverse.  Source: Kloeden and Platen 1992; Karras et al. 2022, algorithm 1 (without
    noise).

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> solver = diffusion.heun(diffusion.Sde(lambda x, t: -x, None))
    >>> float(solver.step(jnp.array(1.0), jnp.array(0.0), jnp.array(0.5), jnp.zeros(0)))  # 1 - h + h^2 / 2
    0.625
    """

    def step(x, time, next_time, noise):
        dt = next_time - time
        half = (dt / 2).astype(x.dtype)
        drift = field(sde.drift, x, time, name="drift")
        if sde.diffusion is None:
            first, mean = 0.0, 0.0
        else:
            start, end = sde.diffusion(time), sde.diffusion(next_time)
            first = _increment(start, dt, noise[0])
            mean = _increment((start + end) / 2, dt, noise[0])
        predicted = x + 2 * half * drift + first
        return x + half * (drift + field(sde.drift, predicted, next_time, name="drift")) + mean

    return Solver(step, int(sde.diffusion is not None), sde.time_direction)


def exponential_integrator(sde: LinearSde, score_fn: ScoreFn, order: int = 2) -> Solver:
    r"""The probability flow of a linear equation, its linear part solved exactly.

    .. math::
        y = x / \alpha, \quad \rho = \sigma / \alpha, \quad
        \frac{dy}{d\rho} = \epsilon(x, t) = -\sigma(t) \nabla \log p_t(x)

    where x(t) given x(0) is N(alpha x(0), sigma^2 I). In these variables the equation has no linear part and no
    singularity at time 0, where epsilon vanishes if the data have a density. Euler's method gives order 1, which is
    DDIM without noise and the first DPM-Solver; Heun's gives order 2. For data in one point epsilon is constant, and a
    single step exact; but they have no score at time 0, which order 2 asks for in a step to there.

    Args:
        sde: the forward equation.
        score_fn: (x [...], t []) -> gradient of log p_t at x, [...].
        order: 1 or 2.

    Returns:
        The solver, for either direction of time; a step takes as many evaluations of the score as its order.

    Raises:
        ValueError: if `order` is neither 1 nor 2.

    Statement: sde.reverse.  Source: Song, Meng and Ermon 2021; Lu et al. 2022; Zhang and Chen 2023.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> sde = diffusion.ve_sde()
    >>> score_fn = lambda x, t: -x / sde.marginal_prob(jnp.array(1.0), t)[1] ** 2  # all data are 0
    >>> solver = diffusion.exponential_integrator(sde, score_fn, order=1)
    >>> float(solver.step(jnp.array(3.0), jnp.array(1.0), jnp.array(0.0), jnp.zeros(0)))
    0.0
    """
    require(order in (1, 2), f"`order` must be 1 or 2, got {order}")

    def step(x, time, next_time, noise):
        del noise
        one = jnp.ones((), x.dtype)
        (scale, std), (next_scale, next_std) = sde.marginal_prob(one, time), sde.marginal_prob(one, next_time)
        ratio = next_scale / scale
        gain = next_std - ratio * std  # alpha_{k+1} times the step in rho
        slope = -std * score_of(score_fn, x, time)
        moved = ratio * x + gain * slope
        if order == 1:
            return moved
        return ratio * x + gain / 2 * (slope - next_std * score_of(score_fn, moved, next_time))

    return Solver(step, num_noises=0, time_direction=0)


def predictor_corrector(
    predictor: Solver,
    sde: LinearSde,
    score_fn: ScoreFn,
    num_corrections: int = 1,
    signal_to_noise: Scalar = 0.16,
) -> Solver:
    r"""A step of a solver, then steps of Langevin dynamics that lead towards the law of the new time.

    .. math:: x \leftarrow x + \eta \nabla \log p_t(x) + \sqrt{2 \eta}\, \xi, \qquad \eta = 2 (r \sigma(t))^2

    The dynamics lead to p_t up to O(eta), and so take back some of the error of a predictor that errs more than that:
    after few steps, or with a score that was learned. Song et al. have the ratio of the norms of noise and score in
    place of sigma(t), which it estimates.

    Args:
        predictor: the solver of the reverse equation, or of the probability flow.
        sde: the forward equation, for sigma.
        score_fn: (x [...], t []) -> gradient of log p_t at x, [...].
        num_corrections: Langevin steps after each step of the predictor, a whole number, non-negative.
        signal_to_noise: r, positive, shape [].

    Returns:
        The solver; a step takes `num_corrections` evaluations of the score more than the predictor.

    Raises:
        ValueError: if a static setting is out of its range.

    Statement: score.annealed_langevin, sde.reverse.  Source: Song et al. 2021.

    >>> from dltheory import diffusion
    >>> sde, score_fn = diffusion.vp_sde(), lambda x, t: -x
    >>> predictor = diffusion.euler_maruyama(diffusion.reverse_sde(sde, score_fn))
    >>> diffusion.predictor_corrector(predictor, sde, score_fn, num_corrections=2).num_noises
    3
    """
    whole = isinstance(num_corrections, int | np.integer)
    require(bool(whole and num_corrections >= 0), f"`num_corrections` must be a whole number, got {num_corrections}")
    require_positive(signal_to_noise=signal_to_noise)

    def step(x, time, next_time, noise):
        x = predictor.step(x, time, next_time, noise[: predictor.num_noises])
        _, std = sde.marginal_prob(jnp.ones((), x.dtype), next_time)
        root = jnp.asarray(signal_to_noise, x.dtype) * std
        for fresh in noise[predictor.num_noises :]:
            x = x + 2 * root**2 * score_of(score_fn, x, next_time) + 2 * root * fresh
        return x

    return Solver(step, predictor.num_noises + num_corrections, predictor.time_direction)


def solve(key: PRNGKey | None, solver: Solver, x: Array, times: Array) -> Array:
    """A solution at the last of the times, from x at the first.

    Args:
        key: of the noise; None will do for a solver that takes none.
        solver: the method, with its equation.
        x: the sample to start from, or a batch of them if drift and score take one, shape [...].
        times: the time grid, strictly monotone in the direction of the solver's equation, at least two, shape [t].

    Returns:
        x at the last time, shape [...]; NaN if the times run in the wrong direction.

    Raises:
        ValueError: if `x` is not floating-point, `times` is not a vector of at least two, the drift or the score does
            not keep the shape of x, or there is noise but no key.

    Statement: sde.forward, sde.reverse.  Source: Kloeden and Platen 1992; Song et al. 2021.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> decay = diffusion.heun(diffusion.Sde(lambda x, t: -x, None))
    >>> x = diffusion.solve(None, decay, jnp.ones(2), jnp.linspace(0.0, 1.0, 101))
    >>> bool(jnp.allclose(x, jnp.exp(-1.0), rtol=1e-4))
    True
    >>> reverse = diffusion.reverse_sde(diffusion.vp_sde(), lambda x, t: -x)
    >>> diffusion.solve(jax.random.key(0), diffusion.euler_maruyama(reverse), x, jnp.linspace(0.0, 1.0, 101))
    Array([nan, nan], dtype=float32)
    """
    x = floating(x)
    t = shapes(times=(times, "t"))["t"]
    require(t >= 2, f"`times` must hold at least two times, got {t}")
    ordered = is_monotone(times, solver.time_direction)
    require(ordered, "`times` must be strictly monotone in the direction of the equation's time")
    num_noises = solver.num_noises
    shape = (num_noises, *x.shape)

    def step(x, inputs):
        time, next_time, noise = inputs
        return solver.step(x, time, next_time, jnp.zeros(shape, x.dtype) if noise is None else noise), None

    if not num_noises:
        last, _ = jax.lax.scan(step, x, (times[:-1], times[1:], None))
        return jnp.where(ordered, last, jnp.nan)
    if key is None:
        raise ValueError("`key` must be a key: the solver draws noise")

    # Noise is made for several steps at once. Made within a step it would become part of the loops that read it, and
    # those do not run along it, or run several times.
    size = _block(t - 1, num_noises * x.size)

    def block(x, inputs):
        *grid, keys = inputs
        return jax.lax.scan(step, x, (*grid, jax.vmap(lambda key: normal(key, shape, x.dtype))(keys)))

    grid = (times[:-1], times[1:], jax.random.split(key, t - 1))
    last, _ = jax.lax.scan(block, x, jax.tree.map(lambda leaf: leaf.reshape(-1, size), grid))
    return jnp.where(ordered, last, jnp.nan)


def sample_reverse(
    key: PRNGKey,
    sde: LinearSde,
    score_fn: ScoreFn,
    shape: tuple[int, ...],
    times: Array,
) -> Array:
    r"""Samples of a diffusion model: the reverse equation from its prior, by the method of Euler and Maruyama.

    For another method, `solve` it from a draw of the equation's prior.

    Args:
        key: random key.
        sde: the forward equation.
        score_fn: (x of `shape`, t []) -> gradient of log p_t at x, of `shape`.
        shape: of what is sampled; of a whole batch if the score takes one.
        times: the time grid, strictly decreasing from the horizon to where sampling ends, shape [t].

    Returns:
        x at the last time, of `shape`, in the precision of `times`; NaN if the times do not decrease.

    Raises:
        ValueError: if `times` is not a floating-point vector of at least two, or the score does not keep the shape.

    Statement: sde.reverse.  Source: Song et al. 2021.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> sde, times = diffusion.vp_sde(), jnp.linspace(1.0, 0.0, 201)
    >>> x = diffusion.sample_reverse(jax.random.key(0), sde, lambda x, t: -x, (10_000,), times)  # data N(0, 1)
    >>> bool(abs(jnp.std(x) - 1) < 0.05)
    True
    """
    times = floating(times, "times")
    key_prior, key_noise = jax.random.split(key)
    x = sde.prior_sampling(key_prior, shape, times.dtype)
    return solve(key_noise, euler_maruyama(reverse_sde(sde, score_fn)), x, times)


def _block(num_steps: int, size: int) -> int:
    """How many steps, a divisor of their number, to make noise for at once, if a step takes `size` numbers."""
    most = min(max(_BLOCK_ENTRIES // max(size, 1), 2), _BLOCK_STEPS)
    return next(steps for steps in range(most, 0, -1) if num_steps % steps == 0)


def _increment(diffusion: Scalar, dt: Array, noise: Array) -> Array:
    """Noise over a step in either direction of time."""
    return (diffusion * jnp.sqrt(jnp.abs(dt))).astype(noise.dtype) * noise
