"""Parallel tempering: replicas at higher temperatures, which cross barriers, and swap with those at lower ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._checks import require, shapes
from dltheory._trees import strongly_typed
from dltheory.samplers._positions import accept_probability, scalar_log_density
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import Array, ArrayLike, LogDensityFn, PyTree

__all__ = ["TemperingInfo", "TemperingState", "parallel_tempering"]


class TemperingState(NamedTuple):
    """Where the replicas are.

    Attributes:
        position: theta of the replica at inverse temperature 1, any pytree.
        replicas: states of the samplers at every inverse temperature, leaves [k, ...].
        replica_index: which of the replicas of the start is at every inverse temperature, shape [k], integer.
        step_count: number of steps taken, shape [], integer.
    """

    position: PyTree
    replicas: Any
    replica_index: Array
    step_count: Array


class TemperingInfo(NamedTuple):
    """How a step went.

    Attributes:
        replicas: infos of the samplers at every inverse temperature, leaves [k, ...].
        swap_acceptance_rate: probability with which neighbours j and j + 1 would have been swapped, whether or not it
            was their turn, shape [k - 1].
        is_swapped: whether they were, shape [k - 1].
    """

    replicas: Any
    swap_acceptance_rate: Array
    is_swapped: Array


def parallel_tempering(
    log_density_fn: LogDensityFn,
    make: Callable[[LogDensityFn, Array], SamplingAlgorithm],
    inverse_temperatures: ArrayLike | Sequence[float],
    *,
    log_reference_fn: LogDensityFn | None = None,
) -> SamplingAlgorithm:
    r"""Parallel tempering (replica exchange) with deterministic even-odd swaps.

    .. math::
        p_\beta(\theta) \propto r(\theta)\, e^{\beta \ell(\theta)}, \quad 1 = \beta_1 > \dots > \beta_k \ge 0, \qquad
        \theta_j \leftrightarrow \theta_{j+1} \text{ with probability }
        \min\{1, e^{(\beta_j - \beta_{j+1}) (\ell(\theta_{j+1}) - \ell(\theta_j))}\}

    Every step moves each replica by one step of the sampler for its density, then proposes to swap the pairs that begin
    at odd j, or those at even j, in turn: so replicas travel along the ladder where random pairs would make them
    diffuse. The product of all p_beta is invariant, so that `position`, the replica at beta = 1, has the law r e^l.

    With no reference r, temperature acts on the whole log density; beta must then stay positive enough for a proper
    density. With l the log likelihood and r the prior it acts on the likelihood alone, and beta = 0 is the prior. Take
    as many replicas as make all swaps accepted about half of the time: a number that grows like the root of the
    dimension, for betas about in geometric progression.

    Args:
        log_density_fn: l, what is tempered, position -> shape []. Samplers that follow its gradient need it finite
            wherever the replicas go, at beta = 0 too: what is not a number stays so times 0, and is rejected.
        make: (log density at beta, beta, shape []) -> sampler. Wider densities can do with longer steps, such as
            ``step_size / sqrt(beta)``. The samplers start afresh from their positions at every step: take those whose
            state is a function of its position, such as Metropolis, HMC, MALA or NUTS.
        inverse_temperatures: beta, decreasing from 1, at least 0, shape [k].
        log_reference_fn: log r, position -> shape []; None for a constant.

    Returns:
        The sampler; its states are `TemperingState`, its infos `TemperingInfo`. All replicas start at the same
        position. To go on, keep the whole state: a new start from `position` forgets the others.

    Raises:
        ValueError: if `inverse_temperatures` is not of shape [k], or known and not decreasing from 1 to at least 0, or
            `log_density_fn` does not return a floating-point scalar.

    Statement: samplers.hmc_mode_claim.  Source: Geyer 1991; Syed, Bouchard-Cote, Deligiannidis and Doucet 2022.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> two_modes = lambda x: jnp.logaddexp(-((x - 6) ** 2) / 2, -((x + 6) ** 2) / 2)
    >>> make = lambda log_density_fn, beta: samplers.random_walk_metropolis(log_density_fn, 2 / jnp.sqrt(beta))
    >>> chain = samplers.parallel_tempering(two_modes, make, [1.0, 0.3, 0.1, 0.03])
    >>> state, info = jax.jit(chain.step)(jax.random.key(0), chain.init(jnp.array(6.0)))
    >>> state.position.shape, info.swap_acceptance_rate.shape
    ((), (3,))
    """
    known = inverse_temperatures if isinstance(inverse_temperatures, jax.Array) else np.asarray(inverse_temperatures)
    k = shapes(inverse_temperatures=(known, "k"))["k"]
    require(k >= 1, "`inverse_temperatures` must hold at least one")
    for condition in (known[0] == 1, (known[1:] < known[:-1]).all(), known[-1] >= 0):
        require(condition, "`inverse_temperatures` must decrease from 1, and none be negative")

    def betas_for(position):
        return jnp.asarray(known, jax.eval_shape(log_density_fn, position).dtype)

    def algorithm_at(beta):
        def tempered(position):
            # Where beta is 0 the density is the reference's, also where the likelihood is 0; its gradient need not be.
            value = jnp.where(beta > 0, beta * log_density_fn(position), 0.0)
            return value if log_reference_fn is None else value + log_reference_fn(position)

        return make(tempered, beta)

    def init(position):
        position = strongly_typed(position)
        scalar_log_density(log_density_fn, position)
        betas = betas_for(position)
        replicas = jax.vmap(lambda beta: algorithm_at(beta).init(position))(betas)
        return TemperingState(_first(replicas.position), replicas, jnp.arange(k), jnp.zeros((), jnp.int32))

    def step(key, state):
        key_move, key_swap = jax.random.split(key)
        betas = betas_for(state.position)
        moved, infos = jax.vmap(lambda key, replica, beta: algorithm_at(beta).step(key, replica))(
            jax.random.split(key_move, k), state.replicas, betas
        )
        value = jax.vmap(log_density_fn)(moved.position)
        # A difference of betas times one of log densities: no rounding of products that nearly cancel.
        rate = accept_probability(-jnp.diff(betas) * jnp.diff(value))
        turn = jnp.arange(k - 1) % 2 == state.step_count % 2
        swapped = turn & (jax.random.uniform(key_swap, (k - 1,), jnp.promote_types(rate.dtype, jnp.float32)) < rate)
        up, down = jnp.append(swapped, False), jnp.insert(swapped, 0, False)
        order = jnp.arange(k) + up - down
        position = jax.tree.map(lambda leaf: leaf[order], moved.position)
        replicas = jax.vmap(lambda beta, position: algorithm_at(beta).init(position))(betas, position)
        moved = TemperingState(_first(position), replicas, state.replica_index[order], state.step_count + 1)
        return moved, TemperingInfo(infos, rate, swapped)

    return SamplingAlgorithm(init, step)


def _first(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[0], tree)
