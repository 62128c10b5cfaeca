"""The loop over steps that all chains take together: keys, thinning, progress, devices."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from dltheory._checks import require
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import Array, PRNGKey, PyTree

__all__ = ["advance", "chain_axis", "sharded"]

_BLOCK = 128  # steps whose keys are made at once: enough to hide what a call costs, few enough to stay in a cache
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
    step = jax.vmap(algorithm.step)

    def draw(carried, x):
        index, step_keys = x
        states, carry = carried
        if report is not None:
            report(index)
        states, infos = step(step_keys[0], states) if thinning == 1 else _several(step, step_keys, states)
        carry, kept = visit(carry, index, states, infos)
        return (states, carry), kept

    def draws(carried, first):
        index = first + jnp.arange(size)
        return jax.lax.scan(some_draw, carried, (index, step_keys(index)))

    def step_keys(index):
        """Of the steps that lead to some draws, [draws, thinning, c]."""
        steps = jnp.expand_dims(index * thinning, 1) + jnp.expand_dims(jnp.arange(thinning), 0)
        of_a_step = jax.vmap(jax.random.fold_in, in_axes=(0, None))
        return jax.vmap(jax.vmap(of_a_step, in_axes=(None, 0)), in_axes=(None, 0))(keys, steps)

    size = _block_size(num_draws, max(1, _BLOCK // thinning))
    some_draw = draw if num_draws % size == 0 else _only(draw, lambda x: x[0] < num_draws)
    if size == num_draws:
        (states, carry), kept = draws((states, carry), 0)
        return states, carry, kept
    (states, carry), kept = jax.lax.scan(draws, (states, carry), jnp.arange(0, num_draws, size))
    return states, carry, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_draws], kept)


def _several(step, step_keys, states):
    """Steps of which only the last is kept, but truth values and whole numbers of the infos are added up."""

    def one(carried, keys):
        states, totals = carried
        states, infos = step(keys, states)
        added = jax.tree.map(lambda total, leaf: total + leaf if _counts(leaf) else leaf, totals, infos)
        return (states, added), None

    _, infos = jax.eval_shape(step, step_keys[0], states)
    totals = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, int if leaf.dtype == bool else leaf.dtype), infos)
    (states, totals), _ = jax.lax.scan(one, (states, totals), step_keys)
    return states, totals


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
    """Prints how far a loop has come to the standard error stream."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._lock = threading.Lock()
        self._began = self._last = time.monotonic()

    def __call__(self, done: Array) -> None:
        done, now = int(done), time.monotonic()
        with self._lock:
            if done == 0:
                self._began = self._last = now
            elif now - self._last >= _SECONDS:
                self._last, spent = now, now - self._began
                left = spent / done * (self._total - done)
                words = f"draw {done} of {self._total}: {spent:.0f} s, about {left:.0f} s to go"
                print(words, file=sys.stderr, flush=True)
