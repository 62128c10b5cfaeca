"""The Gibbs sampler: blocks of a position in turn, each given the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require
from dltheory._trees import strongly_typed
from dltheory.samplers._positions import require_like
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import LogDensityFn, PRNGKey, PyTree

__all__ = ["BlockKernel", "GibbsInfo", "GibbsState", "block_kernel", "gibbs"]

ConditionalSample = Callable[[PRNGKey, PyTree], PyTree]


class GibbsState(NamedTuple):
    """Where a chain is.

    Attributes:
        position: theta, a mapping or a sequence of blocks.
    """

    position: PyTree


class GibbsInfo(NamedTuple):
    """How a step went.

    Attributes:
        blocks: info of each block's update, in the form of the position; () for exact draws. Under a random scan those
            of the blocks that were not updated are zero.
        is_updated: whether a block was updated, shape [], in the form of the position.
    """

    blocks: PyTree
    is_updated: PyTree


class BlockKernel(NamedTuple):
    """A Markov kernel for one block that leaves its conditional distribution invariant.

    Attributes:
        step: (key, position) -> (new block, info).
    """

    step: Callable[[PRNGKey, PyTree], tuple[PyTree, Any]]


def block_kernel(
    log_density_fn: LogDensityFn, block: Any, make: Callable[[LogDensityFn], SamplingAlgorithm]
) -> BlockKernel:
    r"""One step of any sampler for a block given the others: Metropolis within Gibbs.

    .. math:: p(\theta_b \mid \theta_{-b}) \propto p(\theta_b, \theta_{-b})

    A step that leaves the conditional distribution invariant leaves the joint one invariant, converged or not. The
    sampler starts afresh from the block's position every time, because the others have moved: take one whose state is a
    function of its position, such as Metropolis, HMC, MALA or NUTS.

    Args:
        log_density_fn: log p of all blocks up to a constant, position -> shape [].
        block: name of the block in a mapping, or its number in a sequence.
        make: log density of the block alone -> sampler.

    Returns:
        The update of the block, for `gibbs`; its info is the sampler's.

    Statement: samplers.metropolis_hastings.  Source: Tierney 1994.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> log_density_fn = lambda position: -((position["a"] - position["b"]) ** 2) / 2
    >>> kernel = samplers.block_kernel(log_density_fn, "a", lambda f: samplers.random_walk_metropolis(f, 1.0))
    >>> block, info = kernel.step(jax.random.key(0), {"a": jnp.array(0.0), "b": jnp.array(1.0)})
    >>> block.shape, info.is_accepted.shape
    ((), ())
    """

    def step(key, position):
        algorithm = make(lambda value: log_density_fn(_with_block(position, block, value)))
        state, info = algorithm.step(key, algorithm.init(position[block]))
        return state.position, info

    return BlockKernel(step)


def gibbs(
    conditionals: Mapping[Any, ConditionalSample | BlockKernel] | Sequence[ConditionalSample | BlockKernel],
    *,
    scan: str = "systematic",
) -> SamplingAlgorithm:
    r"""The Gibbs sampler.

    .. math:: \theta_b \sim p(\theta_b \mid \theta_{-b}) \quad \text{for the blocks } b \text{ in turn}

    each given the newest values of the others. A systematic scan updates all blocks in the order of `conditionals`; it
    leaves p invariant, but is not reversible. A random scan updates one block, chosen with equal probabilities, and is
    reversible if the updates are. For two normal blocks of correlation rho, the autocorrelation of the first is rho^2
    after a step of the systematic scan, and (1 + rho^2) / 2 after one of the random scan. Blocks may be of any dtype.

    Args:
        conditionals: for each block of the position, in a mapping or a sequence like it, a function that draws it from
            its conditional distribution, (key, position) -> new block, or a `BlockKernel` where there is none. If
            they are no conditionals of one joint distribution, the chain has a law that depends on the scan.
        scan: "systematic" or "random".

    Returns:
        The sampler; its states are `GibbsState`, its infos `GibbsInfo`.

    Raises:
        ValueError: if `conditionals` is empty or has not the blocks of the position, `scan` is unknown, or a new block
            is not like the old one.

    Statement: samplers.metropolis_hastings.  Source: Geman and Geman 1984; Liu, Wong and Kong 1994 (autocorrelations).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> chain = samplers.gibbs({  # a bivariate normal distribution of correlation 0.6
    ...     "a": lambda key, position: 0.6 * position["b"] + 0.8 * jax.random.normal(key),
    ...     "b": lambda key, position: 0.6 * position["a"] + 0.8 * jax.random.normal(key),
    ... })
    >>> state, info = chain.step(jax.random.key(0), chain.init({"a": jnp.array(0.0), "b": jnp.array(0.0)}))
    >>> bool(info.is_updated["b"])
    True
    """
    require(len(conditionals) > 0, "`conditionals` must have at least one block")
    require(scan in ("systematic", "random"), f"`scan` must be systematic or random, got {scan!r}")
    blocks = list(conditionals) if isinstance(conditionals, Mapping) else list(range(len(conditionals)))

    def init(position):
        position = strongly_typed(position)
        names = list(position) if isinstance(position, Mapping) else list(range(len(position)))
        same = isinstance(position, Mapping) == isinstance(conditionals, Mapping) and set(names) == set(blocks)
        require(same, f"`conditionals` must have the blocks of the position, {names}, got {blocks}")
        return GibbsState(position)

    def update(block, key, position):
        conditional = conditionals[block]
        if isinstance(conditional, BlockKernel):
            value, info = conditional.step(key, position)
        else:
            value, info = conditional(key, position), ()
        require_like(position[block], value, f"`conditionals` of block {block!r}")
        return _with_block(position, block, strongly_typed(value)), info

    def sweep(key, state):
        position, infos = state.position, {}
        for block, key_block in zip(blocks, jax.random.split(key, len(blocks)), strict=True):
            position, infos[block] = update(block, key_block, position)
        updated = dict.fromkeys(blocks, jnp.ones((), bool))
        return GibbsState(position), GibbsInfo(_like(position, infos), _like(position, updated))

    def step(key, state):
        key_choice, key_block = jax.random.split(key)

        def only(block):
            def branch(key, position):
                position, info = update(block, key, position)
                return position, {**infos, block: info}

            return branch

        _, kinds = jax.eval_shape(sweep, key, state)
        infos = jax.tree.map(lambda kind: jnp.zeros(kind.shape, kind.dtype), {b: kinds.blocks[b] for b in blocks})
        chosen = jax.random.randint(key_choice, (), 0, len(blocks))
        position, infos = jax.lax.switch(chosen, [only(block) for block in blocks], key_block, state.position)
        updated = {block: chosen == number for number, block in enumerate(blocks)}
        return GibbsState(position), GibbsInfo(_like(position, infos), _like(position, updated))

    return SamplingAlgorithm(init, sweep if scan == "systematic" else step)


def _with_block(position: Any, block: Any, value: PyTree) -> Any:
    """The position with another value of one block."""
    if isinstance(position, Mapping):
        return _like(position, {**position, block: value})
    return _like(position, {**dict(enumerate(position)), block: value})


def _like(position: Any, blocks: Mapping[Any, Any]) -> Any:
    """What there is of every block, in the form of the position."""
    kind: Any = type(position)
    if isinstance(position, Mapping):
        return kind({block: blocks[block] for block in position})
    values = [blocks[number] for number in range(len(position))]
    return kind(*values) if hasattr(position, "_fields") else kind(values)
