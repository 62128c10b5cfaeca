"""Warm-up of many chains at once: the step size and the mass matrix that they then run with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from dltheory._checks import leading_axis, require
from dltheory.samplers._moments import Moments, absorb, no_moments, shrunk_covariance
from dltheory.samplers._positions import choose, floating, require_positive
from dltheory.samplers.dual_averaging import DualAveraging, DualAveragingState, dual_averaging
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import Array, PRNGKey, PyTree, Scalar

__all__ = ["Warmup", "warmup"]

# Stan's: steps for the step size alone before and after, and the length of the first window for the mass matrix.
_BEFORE, _AFTER, _FIRST = 75, 50, 25
_FEWEST = 20


class Warmup(NamedTuple):
    """Chains that have warmed up; `samplers.run` takes `states.position` on.

    Attributes:
        states: of the chains, [c, ...].
        step_size: the averaged step size, shape []; NaN where the warm-up could not begin.
        inverse_mass_matrix: estimated covariance of the position, [p] or [p, p]; NaN where it could not begin.
        step_sizes: that every step was made with, shape [num_steps].
        infos: of every step, [c, num_steps, ...].
    """

    states: Any
    step_size: Array
    inverse_mass_matrix: Array
    step_sizes: Array
    infos: Any


class _Adaptation(NamedTuple):
    states: Any
    averaging: DualAveragingState
    is_searching: Array  # for the first step size
    log_change: Array  # that the search made last to the logarithm of the step size, 0 before the first
    moments: Moments  # of the positions of this window
    inverse_mass_matrix: Array


def warmup(
    key: PRNGKey,
    make: Callable[[Array, Array], SamplingAlgorithm],
    positions: PyTree,
    num_steps: int,
    *,
    target_acceptance_rate: float = 0.8,
    dense: bool = False,
    initial_step_size: Scalar = 1.0,
) -> Warmup:
    r"""Runs chains while it adapts their step size and their mass matrix, as Stan does for one chain.

    The step size is doubled, or halved, in every step until the acceptance rate crosses its target; from there on it
    follows `dual_averaging`. After the first steps come windows, each twice as long as the one before, at whose ends
    the inverse mass matrix becomes the covariance of the positions in the window,

    .. math:: M^{-1} = \frac{n}{n + 5} \hat\Sigma + \frac{5}{n + 5} 10^{-3} I,

    and dual averaging begins anew; the last steps are for the step size alone. Of 1000 steps the windows are 75, then
    25, 50, 100, 200, 500, then 50; fewer than 150 are divided into 15, 75 and 10 per cent.

    All chains share one step size and one mass matrix, adapted to the mean of their acceptance rates and to all of
    their positions: c chains estimate a covariance from c times as many draws, and what they then run is one algorithm.
    The step is compiled once; the windows are data.

    Args:
        key: random key.
        make: (step_size [], inverse_mass_matrix [p] or [p, p]) -> sampler, whose infos have `acceptance_rate`. One that
            knows no mass matrix ignores it.
        positions: where the chains start, any pytree of floating-point arrays [c, ...]; best spread more widely than
            the target.
        num_steps: of every chain, at least 20.
        target_acceptance_rate: in (0, 1); 0.8 suits `nuts` and `hmc`, 0.574 `mala`.
        dense: whether the mass matrix is dense [p, p], or diagonal [p].
        initial_step_size: where the search begins, positive, shape [].

    Returns:
        The chains, what they shall run with, and how it came about. Step size and mass matrix are NaN if the log
        density of any chain or its gradient is not finite at its start.

    Raises:
        ValueError: if there are no chains, positions are not floating-point, `num_steps` is below 20, the infos have no
            `acceptance_rate`, or a static setting is out of its range.

    A helper.  Source: Hoffman and Gelman 2014, algorithms 4 and 5; Stan's reference manual, automatic parameter tuning
    (the windows).

    >>> import functools, jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> make = lambda step_size, inverse_mass_matrix: samplers.nuts(
    ...     lambda x: -jnp.sum(x**2) / 2, step_size, inverse_mass_matrix=inverse_mass_matrix
    ... )
    >>> tuned = samplers.warmup(jax.random.key(0), make, jnp.ones((4, 3)), 100)
    >>> tuned.states.position.shape, tuned.inverse_mass_matrix.shape, bool(tuned.step_size > 0.3)
    ((4, 3), (3,), True)
    """
    positions = floating(positions, "positions")
    num_chains = leading_axis(positions=positions)
    require(num_steps >= _FEWEST, f"`num_steps` must be at least {_FEWEST}, got {num_steps}")
    require_positive(initial_step_size=initial_step_size)
    search = dual_averaging(target_acceptance_rate)
    vector = jax.eval_shape(lambda tree: ravel_pytree(jax.tree.map(lambda leaf: leaf[0], tree))[0], positions)
    nothing = no_moments(vector.size, vector.dtype, dense=dense)
    unit = jnp.eye(vector.size, dtype=vector.dtype) if dense else jnp.ones(vector.size, vector.dtype)
    first = jnp.asarray(initial_step_size, vector.dtype)
    states = jax.vmap(make(first, unit).init)(positions)
    begins = _begins(states)
    require(begins, "`positions` must have a finite log density and gradient")

    def step(adaptation, now):
        key, in_window, ends_window = now
        step_size = jnp.exp(adaptation.averaging.log_step_size)
        algorithm = make(step_size, adaptation.inverse_mass_matrix)
        states, infos = jax.vmap(algorithm.step)(jax.random.split(key, num_chains), adaptation.states)
        if not hasattr(infos, "acceptance_rate"):
            raise ValueError("`make` must return a sampler whose infos have `acceptance_rate`")
        adaptation = _adapt_step_size(search, adaptation, jnp.mean(infos.acceptance_rate), target_acceptance_rate)

        vectors = jax.vmap(lambda position: ravel_pytree(position)[0])(states.position)
        moments = choose(in_window, absorb(adaptation.moments, vectors), adaptation.moments)
        adaptation = adaptation._replace(states=states, moments=moments)
        renewed = adaptation._replace(
            averaging=search.init(_best(adaptation)),
            moments=nothing,
            inverse_mass_matrix=shrunk_covariance(moments),
        )
        return choose(ends_window, renewed, adaptation), (step_size, infos)

    start = _Adaptation(states, search.init(first), jnp.asarray(True), jnp.zeros_like(first), nothing, unit)
    schedule = (jax.random.split(key, num_steps), *_schedule(num_steps))
    end, (step_sizes, infos) = jax.lax.scan(step, start, schedule)
    return Warmup(
        states=end.states,
        step_size=jnp.where(begins, _best(end), jnp.nan),
        inverse_mass_matrix=jnp.where(begins, end.inverse_mass_matrix, jnp.nan),
        step_sizes=step_sizes,
        infos=jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), infos),
    )


def windows(num_steps: int) -> tuple[int, ...]:
    """Lengths: before the windows, of every window, after them."""
    if num_steps < _BEFORE + _FIRST + _AFTER:
        before, after = int(0.15 * num_steps), int(0.1 * num_steps)
        return before, num_steps - before - after, after
    lengths, rest, length = [], num_steps - _BEFORE - _AFTER, _FIRST
    while rest:
        # The last window takes what would not do for one twice as long as itself.
        lengths.append(length if rest >= 3 * length else rest)
        rest, length = rest - lengths[-1], 2 * length
    return _BEFORE, *lengths, _AFTER


def _schedule(num_steps: int) -> tuple[Array, Array]:
    """Of every step, whether it is in a window, and whether it is the last one of it."""
    before, *lengths, after = windows(num_steps)
    in_window, ends_window = np.zeros((2, num_steps), bool)
    in_window[before : num_steps - after] = True
    ends_window[before + np.cumsum(lengths) - 1] = True
    return jnp.asarray(in_window), jnp.asarray(ends_window)


def _adapt_step_size(search: DualAveraging, adaptation: _Adaptation, rate: Array, target: float) -> _Adaptation:
    """Doubles or halves until the acceptance rate crosses its target; thereafter dual averaging."""
    averaging = adaptation.averaging
    change = jnp.where(rate > target, jnp.log(2.0), -jnp.log(2.0)).astype(averaging.log_step_size.dtype)
    crosses = change * adaptation.log_change < 0
    scaled = search.init(jnp.exp(averaging.log_step_size + jnp.where(crosses, 0, change)))
    return adaptation._replace(
        averaging=choose(adaptation.is_searching, scaled, search.update(averaging, rate)),
        is_searching=adaptation.is_searching & ~crosses,
        log_change=change,
    )


def _best(adaptation: _Adaptation) -> Array:
    """The step size to go on with."""
    averaging = adaptation.averaging
    return jnp.exp(jnp.where(averaging.step > 1, averaging.log_step_size_avg, averaging.log_step_size))


def _begins(states: Any) -> Array:
    """Whether every chain has somewhere to start from; samplers without a log density in their states are trusted."""
    known = getattr(states, "logdensity", ()), getattr(states, "logdensity_grad", ())
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(known)], bool))
