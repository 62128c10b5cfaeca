"""What is checked where chains start, and said of how they went."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from dltheory._checks import leading_axis, require
from dltheory._trees import strongly_typed
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import Array, PyTree

__all__ = ["counts", "sizes", "started", "warn_of"]

_NAMED = 8  # chains that a message names, at most


def sizes(positions: PyTree, num_steps: int, thinning: int) -> tuple[int, int, int]:
    """The numbers of chains, of draws and of steps from one to the next, checked."""
    num_chains = leading_axis(positions=positions)
    num_steps, thinning = operator.index(num_steps), operator.index(thinning)
    require(num_steps >= 1, f"`num_steps` must be at least 1, got {num_steps}")
    require(1 <= thinning <= num_steps, f"`thinning` must lie between 1 and `num_steps`, {num_steps}, got {thinning}")
    return num_chains, num_steps // thinning, thinning


def started(algorithm: SamplingAlgorithm, positions: PyTree) -> Any:
    """The first states of all chains; the log density and its gradient must be finite in them.

    A state that has neither is taken as it is.
    """
    states = jax.vmap(algorithm.init)(strongly_typed(positions))
    known = (getattr(states, "logdensity", None), getattr(states, "logdensity_grad", None))
    finite = [_finite(leaf) for leaf in jax.tree.leaves(known)]
    if not finite:
        return states
    fine = jnp.all(jnp.stack(finite), axis=0)
    message = "the log density and its gradient must be finite where `positions` start"
    if _concrete(fine):
        require(bool(jnp.all(fine)), f"{message}; they are not for {_chains(~np.asarray(fine))}")
    else:
        require(fine, message)
    return states


def counts(infos: Any) -> dict[str, Array]:
    """Of a step's infos those that say whether it was divergent or accepted, as numbers."""
    names = ("is_divergent", "is_accepted")
    return {name: getattr(infos, name).astype(int) for name in names if hasattr(infos, name)}


def warn_of(name: str, states: Any, counted: Mapping[str, Array], num_steps: int) -> None:
    """Warns of chains that never moved and of chains that are lost; of nothing under a transformation.

    Args:
        name: the function that ran the chains.
        states: the last states.
        counted: `counts`, added up over the steps, leaves [c, ...].
        num_steps: over how many.
    """
    lost = [~_finite(leaf) for leaf in jax.tree.leaves(states.position)]
    stuck = [jnp.all(_rows(counted[kind] == none), axis=1) for kind, none in _never(num_steps) if kind in counted]
    for flags, what in (
        (stuck, f"every one of the {num_steps} steps was rejected or divergent"),
        (lost, "the last position is not finite"),
    ):
        if flags and _concrete(flags):
            chains = np.asarray(jnp.any(jnp.stack(flags), axis=0))
            if chains.any():
                warnings.warn(f"`{name}`: {what} in {_chains(chains)}", RuntimeWarning, stacklevel=3)


def _never(num_steps: int) -> tuple[tuple[str, int], ...]:
    return ("is_accepted", 0), ("is_divergent", num_steps)


def _rows(leaf: Array) -> Array:
    return leaf.reshape(len(leaf), -1)


def _finite(leaf: Array) -> Array:
    """Which chains have none but finite numbers in a leaf, [c]."""
    return jnp.all(_rows(jnp.isfinite(leaf)), axis=1)


def _concrete(tree: PyTree) -> bool:
    return all(not isinstance(x, jax.core.Tracer) and x.is_fully_addressable for x in jax.tree.leaves(tree))


def _chains(which: np.ndarray) -> str:
    numbers = np.flatnonzero(which)
    named = ", ".join(map(str, numbers[:_NAMED])) + (", ..." if len(numbers) > _NAMED else "")
    return f"{len(numbers)} of {len(which)} chains: {named}"
