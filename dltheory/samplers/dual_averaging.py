"""Nesterov's dual averaging of the step size, as Hoffman and Gelman use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.samplers._positions import require_positive
from dltheory.typing import Array, ArrayLike

__all__ = ["DualAveraging", "DualAveragingState", "dual_averaging"]


class DualAveragingState(NamedTuple):
    """How far the search for a step size is.

    Attributes:
        log_step_size: logarithm of the step size to use next, shape [].
        log_step_size_avg: of the averaged one, to use once the search is over, shape [].
        step: number of the next update, from 1, shape [].
        avg_error: running average of target less acceptance rate, shape [].
        mu: what the step size is drawn to, shape [].
    """

    log_step_size: Array
    log_step_size_avg: Array
    step: Array
    avg_error: Array
    mu: Array


class DualAveraging(NamedTuple):
    """A search for the step size of which the target is the acceptance rate.

    Attributes:
        init: step size [] -> state.
        update: (state, acceptance rate [] at the state's step size) -> state.
    """

    init: Callable[[ArrayLike], DualAveragingState]
    update: Callable[[DualAveragingState, ArrayLike], DualAveragingState]


def dual_averaging(
    target_acceptance_rate: float = 0.8, *, gamma: float = 0.05, t0: float = 10.0, kappa: float = 0.75
) -> DualAveraging:
    r"""Dual averaging of the logarithm of the step size.

    .. math::
        \bar h_m &= \Bigl(1 - \frac{1}{m + t_0}\Bigr) \bar h_{m-1} + \frac{\delta - \alpha_m}{m + t_0} \\
        \log \varepsilon_{m+1} &= \mu - \frac{\sqrt m}{\gamma} \bar h_m, \qquad \mu = \log(10\, \varepsilon_1) \\
        \log \bar\varepsilon_{m+1} &= m^{-\kappa} \log \varepsilon_{m+1} + (1 - m^{-\kappa}) \log \bar\varepsilon_m

    with alpha_m the acceptance rate at eps_m. The steps eps_m explore; their average converges to a step size with
    mean acceptance rate delta. mu prefers long steps, which are the cheaper ones to try.

    Args:
        target_acceptance_rate: delta, in (0, 1).
        gamma: how strongly the step size is drawn to mu, positive.
        t0: damps the first updates, non-negative.
        kappa: how fast the average forgets, in (0.5, 1].

    Returns:
        The search; its states are `DualAveragingState`, of the dtype of the first step size.

    Raises:
        ValueError: if a setting is out of its range, a static step size is not positive, or a step size or an
            acceptance rate is not a scalar.

    A helper.  Source: Hoffman and Gelman 2014, section 3.2.1; Nesterov 2009.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> search = samplers.dual_averaging()
    >>> state = search.update(search.init(1.0), 0.8)  # on target: the step size is mu
    >>> jnp.exp(state.log_step_size)
    Array(10., dtype=float32)
    """
    require(
        0 < target_acceptance_rate < 1, f"`target_acceptance_rate` must lie in (0, 1), got {target_acceptance_rate}"
    )
    require(gamma > 0, f"`gamma` must be positive, got {gamma}")
    require(t0 >= 0, f"`t0` must be non-negative, got {t0}")
    require(0.5 < kappa <= 1, f"`kappa` must lie in (0.5, 1], got {kappa}")

    def init(step_size):
        require_positive(step_size=step_size)
        log_step_size = jnp.log(jnp.asarray(step_size, jnp.result_type(step_size, float)))
        log_step_size = log_step_size.astype(log_step_size.dtype)  # strongly typed, for loops
        zero = jnp.zeros_like(log_step_size)
        return DualAveragingState(log_step_size, zero, zero + 1, zero, jnp.log(10.0).astype(zero.dtype) + log_step_size)

    def update(state, acceptance_rate):
        shapes(acceptance_rate=(acceptance_rate, ""))
        m = state.step
        acceptance_rate = jnp.asarray(acceptance_rate, m.dtype)  # a log density may be wider than its positions
        weight, forgotten = 1 / (m + t0), m**-kappa
        error = (1 - weight) * state.avg_error + weight * (target_acceptance_rate - acceptance_rate)
        log_step_size = state.mu - jnp.sqrt(m) / gamma * error
        average = forgotten * log_step_size + (1 - forgotten) * state.log_step_size_avg
        return DualAveragingState(log_step_size, average, m + 1, error, state.mu)

    return DualAveraging(init, update)
