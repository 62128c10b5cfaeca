"""The loop over steps that all chains take together: keys, thinning, progress, devices."""

from __future__ import annotations

import functools
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from dltheory._checks import require
from dltheory.samplers._foresight import foresee
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import Array, PRNGKey, PyTree

__all__ = ["advance", "chain_axis", "sharded"]

# How far to look ahead: enough to hide what a call of the bit generator costs, little enough to stay in a cache.
_MOST = 128  # steps
_BYTES = 2**20  # of random numbers
_REPORTS = 20  # at most, of a loop's progress
_SECONDS = 1.0  # at least, between two of them

Visit = Callable[[PyTree, Array, Any, Any], tuple[PyTree, PyTree]]


def advance(
    algorithm: SamplingAlgorithm,
    keys: PRNGKey,
    states: Any,
    num_draws: int,
    thinning: int,
    visit: Visit,
    carry: PyTree,
    report: Callable[[Array], None] | None = None,
) -> tuple[Any, PyTree, PyTree]:
    """Takes `num_draws` times `thinning` steps with every chain.

    Step t of a chain has the key `fold_in(chain's key, t)`, whatever the other chains, the thinning and the number of
    steps are.

    Args:
        algorithm: the sampler of one chain.
        keys: of the chains, [c].
        states: of the chains, leaves [c, ...].
        num_draws: s, static.
        thinning: steps from one draw to the next, static.
        visit: (carry, number of the draw, states, infos) -> (carry, what to keep), called at every draw.
        carry: the first.
        report: is told the number of draws made, now and then.

    Returns:
        The last states, the last carry, and what was kept, leaves [s, ...].
    """
    early, late = foresee(algorithm.step, *_one(keys, states))
    step = jax.vmap(late)
    most = _steps_together(early, keys)

    def foreseen(steps):
        """What can be known of some steps, [..., c, ...]."""
        known = jax.vmap(lambda key, step: early(jax.random.fold_in(key, step)), in_axes=(0, None))
        for _ in range(steps.ndim):
            known = jax.vmap(known, in_axes=(None, 0))
        return known(keys, steps)

    def draw(carried, x):
        index, known = x
        states, carry = carried
        if report is not None:
            report(index)
        states, infos = step(known, states) if thinning == 1 else several(states, index, known)
        carry, kept = visit(carry, index, states, infos)
        return (states, carry), kept

    def several(states, index, known):
        """Steps of which only the last is kept, but truth values and whole numbers of the infos are added up."""

        def one(carried, x):
            states, totals = carried
            states, infos = step(x[1], states)
            added = jax.tree.map(lambda total, leaf: total + leaf if _counts(leaf) else leaf, totals, infos)
            return (states, added), ()

        totals = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, int if leaf.dtype == bool else leaf.dtype), like)
        carried, numbers = (states, totals), jnp.arange(thinning)
        if thinning <= most:
            return jax.lax.scan(one, carried, (numbers, known))[0]
        return _blocks(one, carried, thinning, most, lambda number: foreseen(index * thinning + number))[0]

    def foreseen_of_draws(index):
        if thinning > most:
            return ()
        if thinning == 1:
            return foreseen(index)
        return foreseen(jnp.expand_dims(index * thinning, 1) + jnp.expand_dims(jnp.arange(thinning), 0))

    _, like = jax.eval_shape(jax.vmap(algorithm.step), keys, states)
    carried, kept = _blocks(draw, (states, carry), num_draws, max(1, most // thinning), foreseen_of_draws)
    return *carried, kept


def _one(keys, states):
    """A key and a state of one chain, by their shapes."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (keys, states))


def _steps_together(early, keys) -> int:
    """How many steps of all chains to look ahead."""
    known = jax.tree.leaves(jax.eval_shape(jax.vmap(early), keys))
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in known)
    return max(1, min(_MOST, _BYTES // max(size, 1)))


def _blocks(body, carry, number, most, prepare):
    """The scan of a body over pairs of an index below a number and what is prepared for it, for some at a time."""

    def block(carry, first):
        index = first + jnp.arange(size)
        return jax.lax.scan(some, carry, (index, prepare(index)))

    size = _block_size(number, most)
    some = body if number % size == 0 else _only(body, lambda x: x[0] < number)
    if size == number:
        return block(carry, 0)
    carry, kept = jax.lax.scan(block, carry, jnp.arange(0, number, size))
    return carry, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:number], kept)


def _counts(leaf: Array) -> bool:
    return leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.integer)


def _block_size(number: int, most: int) -> int:
    """A divisor of the number that is not much smaller than the most, or else the most."""
    most = min(number, most)
    return next((size for size in range(most, most // 2, -1) if number % size == 0), most)


def _only(body, condition):
    """The body of a scan, or nothing where the condition on its input is false."""

    def some(carried, x):
        _, kept = jax.eval_shape(body, carried, x)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), kept)
        return jax.lax.cond(condition(x), body, lambda carried, _: (carried, nothing), carried, x)

    return some


def chain_axis(mesh: Mesh | None, num_chains: int) -> str | None:
    """The axis of the mesh over which chains are spread: `chains`, or the first if none is called so.

    >>> chain_axis(None, 4) is None
    True
    """
    if mesh is None:
        return None
    require(len(mesh.axis_names) > 0, "`mesh` must have an axis")
    axis = "chains" if "chains" in mesh.axis_names else mesh.axis_names[0]
    size = mesh.shape[axis]
    require(
        num_chains % size == 0,
        f"`mesh` must divide the chains: axis {axis} has {size} devices, `positions` {num_chains} chains",
    )
    return axis


def sharded(
    function: Callable[..., PyTree], mesh: Mesh | None, axis: str | None, num_steps: int, progress: bool
) -> Callable[..., PyTree]:
    """A function of trees with leaves [c, ...] and a report to trees of such, on shards of the chains.

    Without a mesh there is one shard. The function is called with what to tell progress as its keyword `report`.
    """
    tell = functools.partial(jax.debug.callback, _Progress(num_steps)) if progress else None
    if mesh is None:
        return functools.partial(function, report=tell and _now_and_then(tell, num_steps, lambda: True))

    # Of `jax.make_mesh` the axes are explicit: they would demand inputs that are spread over them already.
    mesh = Mesh(mesh.devices, mesh.axis_names)

    def leads():
        return jnp.all(jnp.stack([jax.lax.axis_index(name) == 0 for name in mesh.axis_names]))

    spec = PartitionSpec(axis)
    report = tell and _now_and_then(tell, num_steps, leads)
    body = functools.partial(function, report=report)
    # What varies between shards is not tracked: loops inside samplers may start from constants.
    return jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def _now_and_then(tell, num_draws, leads):
    every = max(1, num_draws // _REPORTS)

    def report(index):
        due = jnp.logical_and(index % every == 0, leads())
        jax.lax.cond(due, tell, lambda _: None, index)

    return report


class _Progress:
    """Writes how far a loop has come to the standard error stream."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._lock = threading.Lock()
        self._began = self._last = time.monotonic()

    def __call__(self, num_draws: Array) -> None:
        done, now = int(num_draws), time.monotonic()
        with self._lock:
            if done == 0:
                self._began = self._last = now
            elif now - self._last >= _SECONDS:
                self._last, spent = now, now - self._began
                left = spent / done * (self._total - done)
                sys.stderr.write(f"draw {done} of {self._total}: {spent:.0f} s, about {left:.0f} s to go\n")
                sys.stderr.flush()
