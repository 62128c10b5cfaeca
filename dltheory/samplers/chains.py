"""Many chains of a sampler, and their draws."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dltheory.samplers._loop import advance, chain_axis, sharded
from dltheory.samplers._outcomes import counts, sizes, started, warn_of
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import PRNGKey, PyTree

__all__ = ["Chains", "run"]


class Chains(NamedTuple):
    """Draws of many chains.

    Attributes:
        states: the last state of every chain, leaves [c, ...]; its `position` is where to go on from.
        positions: the draws, leaves [c, s, ...].
        infos: how the steps went, leaves [c, s, ...].
    """

    states: Any
    positions: PyTree
    infos: Any


def run(
    key: PRNGKey,
    algorithm: SamplingAlgorithm,
    positions: PyTree,
    num_steps: int,
    *,
    thinning: int = 1,
    progress: bool = False,
    mesh: Mesh | None = None,
) -> Chains:
    r"""Draws of many independent chains of one sampler, which step together.

    Chain i has the i-th of the keys into which `key` is split, and its step t that key with t folded in. Its random
    numbers do not depend on how many chains, steps or devices there are, and thinning only leaves draws out. A run
    repeats itself to the last bit. With another number of chains on a device a compiler may round products and sums
    otherwise, which a chain magnifies step by step; draws are then as good as others, not the same.

    Compile it where it is called more than once: ``jax.jit(lambda key, x: run(key, algorithm, x, 1000))``. What is
    checked of values, and what is warned of, is so only outside of `jit`.

    Args:
        key: PRNG key.
        algorithm: the sampler of one chain; its states have a field `position`.
        positions: where the chains start, leaves [c, ...].
        num_steps: number of steps of every chain, at least 1.
        thinning: of so many steps the last one is kept, from 1 to `num_steps`; steps after the last draw are not taken.
        progress: whether to print now and then to the standard error stream how far the chains are.
        mesh: devices to spread the chains over: along its axis `chains`, or its first if none is called so, whose size
            must divide c.

    Returns:
        The last states and s = `num_steps` // `thinning` draws of every chain with their infos. With thinning, truth
        values and whole numbers of the infos are added up over the steps that led to a draw, so that a sum over the
        draws counts all divergent or accepted steps; other numbers are those of the step that was kept. No draw is
        left out because a step was divergent.

    Raises:
        ValueError: if leaves of `positions` do not share a leading axis or there are no chains, a setting is out of its
            range, the mesh does not divide the chains, or the log density or its gradient is not finite where a chain
            starts. Under `jit` such a chain goes on as its sampler makes it.

    Warns:
        RuntimeWarning: if every step of a chain was divergent or rejected, or a chain ends where it is not finite.

    A helper.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> algorithm = samplers.hmc(lambda x: -(x**2) / 2, step_size=0.5, num_steps=4)
    >>> chains = samplers.run(jax.random.key(0), algorithm, jnp.zeros(8), 500)
    >>> chains.positions.shape, bool(samplers.rhat(chains.positions) < 1.01)
    ((8, 500), True)
    """
    num_chains, num_draws, thinning = sizes(positions, num_steps, thinning)
    axis = chain_axis(mesh, num_chains)
    states = started(algorithm, positions)

    def draws(keys, states, report):
        def keep(carry, _index, states, infos):
            return carry, (states.position, infos)

        states, _, kept = advance(algorithm, keys, states, num_draws, thinning, keep, (), report)
        return Chains(states, *jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), kept))

    chains = sharded(draws, mesh, axis, num_draws, progress)(jax.random.split(key, num_chains), states)
    counted = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=1), counts(chains.infos))
    warn_of("run", chains.states, counted, num_draws * thinning)
    return chains
