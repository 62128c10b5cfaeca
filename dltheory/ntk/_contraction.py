"""The kernel that factors contract to: which way is the cheapest, and in which blocks.

Through positions: `sum_{t,t'} (x_t . x'_t') (g_t . g'_t')`, the Gram matrices of features first. Through weights: one
product of the Jacobians `sum_t x_t (x) g_t`. Through channels, where each channel reaches the outputs only through
itself: a product for each channel. Dense layers are cheapest in the first way, convolutions in the second, and before a
pooling in the third.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._programs import Program
from dltheory.ntk._factors import ByChannels, ByPositions, ByWeights, FactorArrays, Outputs, Route, Sizes
from dltheory.ntk._sites import Factor, find_bottleneck
from dltheory.typing import Array

__all__ = ["Factors", "block_rows", "choose_route", "contract", "contract_anew", "contract_in_blocks"]

Factors = Sequence[FactorArrays]  # of several examples: every array has a leading axis

# To write an entry of an intermediate and read it costs about as much as this many multiply-adds of a matrix product.
_PASS = 16
# Outputs in a block of rows: enough to keep a matrix product at full speed, few enough to stay in the cache.
_BLOCK_ROWS = 512
_BLOCK_ENTRIES = 2**24


def choose_route(program: Program, factor: Factor, sizes: Sizes, outputs: Outputs, num_examples: int) -> Route:
    """The way to contract a factor of `num_examples` with as many that costs the fewest operations."""
    blocks, positions, width, features = sizes
    if positions == width == 1:
        return Route("weights")  # the gradient is the Jacobian
    rows, full = outputs.traced * outputs.diagonal * outputs.full, outputs.full
    weights = width * features
    jacobians = num_examples * rows * blocks * positions * weights
    through_weights = jacobians + num_examples**2 * rows * full * blocks * weights
    gram_width = sum(1 if row[0].kind == "tokens" else row[0].width for row in factor.rows)
    through_positions = num_examples**2 * blocks * (positions**2 * gram_width + positions * rows * full * features)
    if positions > 1:
        through_positions += num_examples**2 * blocks * positions * rows * features * (positions + _PASS)
    if positions > 1 and len(factor.sites) == 1:
        bottleneck = find_bottleneck(program, factor.sites[0])
        through_channels = num_examples * positions * weights + num_examples**2 * (weights + rows * full * features)
        if bottleneck is not None and through_channels < min(through_weights, through_positions):
            return Route("channels", bottleneck)
    return Route("weights" if through_weights < through_positions else "positions")


def contract(left: Factors, right: Factors) -> Array:
    """The kernel [n, m, diagonal, full, full] between two sets of examples from their factors."""
    first, *others = [_contract(a, b) for a, b in zip(left, right, strict=True)]
    return sum(others, start=first).transpose(1, 3, 0, 2, 4)


def _contract(left: FactorArrays, right: FactorArrays) -> Array:
    """What one factor contributes, [diagonal, n, full, m, full]: the order in which matrix products give it."""
    if isinstance(left, ByWeights) and isinstance(right, ByWeights):
        products = [_outputs_product(a, b) for a, b in zip(left.jacobians, right.jacobians, strict=True)]
        return sum(products[1:], start=products[0])
    if isinstance(left, ByChannels) and isinstance(right, ByChannels):
        products = [_einsum("icf,jcf->fij", a, b) for a, b in zip(left.jacobians, right.jacobians, strict=True)]
        channels = sum(products[1:], start=products[0])
        return jnp.einsum(
            "iqdmf,ijf,jqdnf->dimjn", left.gradients, jnp.moveaxis(channels, 0, 2), right.gradients, optimize="optimal"
        )
    assert isinstance(left, ByPositions)
    assert isinstance(right, ByPositions)
    grams = [_einsum("ibtc,jbsc->bitjs", a, b) for a, b in zip(left.features, right.features, strict=True)]
    for (tokens, weights), (others, other_weights) in zip(left.tokens, right.tokens, strict=True):
        same = _outer(tokens) == _outer(others).transpose(0, 3, 4, 1, 2)
        grams.append(jnp.where(same, _outer(weights) * _outer(other_weights).transpose(0, 3, 4, 1, 2), 0))
    gram = sum(grams[1:], start=grams[0])
    if left.gradients.shape[4:6] == (1, 1):
        squeezed = _outputs_product(left.gradients[:, :, :, :, 0, 0], right.gradients[:, :, :, :, 0, 0])
        return squeezed * gram[:, :, 0, None, :, 0, None]

    def column(example: tuple[Array, Array]) -> Array:
        """Against one example on the right: what all of them would need at once leaves the cache."""
        seen, gradient = example
        weighted = _einsum("bits,qdnbsf->bitqdnf", seen, gradient)
        return _einsum("iqdmbtf,bitqdnf->dimn", left.gradients, weighted)

    columns = jax.lax.map(column, (jnp.moveaxis(gram, 3, 0), right.gradients))
    return jnp.moveaxis(columns, 0, 3)


def _outputs_product(left: Array, right: Array) -> Array:
    """Products over traced outputs and the last axis, [n, traced, diagonal, full, p] to [diagonal, n, full, m, full].

    Of two plain matrices where no output is diagonal: other forms of the same product are up to twice as slow.
    """
    (n, _, diagonal, full, _), m = left.shape, right.shape[0]
    if diagonal > 1:
        return _einsum("iqdmp,jqdnp->dimjn", left, right)
    rows, columns = (jnp.moveaxis(side[:, :, 0], 1, 2).reshape(side.shape[0] * full, -1) for side in (left, right))
    return _einsum("ap,bp->ab", rows, columns).reshape(1, n, full, m, full)


def _einsum(subscripts: str, left: Array, right: Array) -> Array:
    """A matrix product whose sums are formed in single precision at least."""
    dtype = jnp.promote_types(jnp.promote_types(left.dtype, right.dtype), jnp.float32)
    return jnp.einsum(subscripts, left, right, preferred_element_type=dtype)


def _outer(array: Array) -> Array:
    """[n, blocks, positions] as [blocks, n, positions, 1, 1]."""
    return jnp.moveaxis(array, 1, 0)[:, :, :, None, None]


def block_rows(sizes: Sequence[Sizes], routes: Sequence[Route], outputs: Outputs) -> int:
    """How many examples a block of the contraction holds, so that its intermediates stay small."""
    rows = max(1, _BLOCK_ROWS // outputs.full)
    for (blocks, positions, _, features), route in zip(sizes, routes, strict=True):
        entries = 1
        if route.name == "positions":
            entries = blocks * positions**2
        elif route.name == "channels":
            entries = features * outputs.traced * outputs.diagonal * outputs.full
        rows = min(rows, max(1, math.isqrt(_BLOCK_ENTRIES // entries)))
    return rows


def contract_in_blocks(left: Factors, right: Factors | None, rows: int) -> Array:
    """`contract` in blocks of `rows` examples; of the kernel of one set (`right` is None) only one triangle.

    Returns:
        Kernel [n, m, diagonal, full, full].
    """
    sides = [left] if right is None else [left, right]
    counts = [_num_examples(side) for side in sides]
    if max(counts) <= rows:
        return contract(left, left if right is None else right)
    rows = -(-max(counts) // -(-max(counts) // rows))  # as few blocks, of even size
    split = [_split(side, rows) for side in sides]
    pairs = _pairs(counts, rows)

    def block(pair: Array) -> Array:
        first, second = (
            jax.tree.map(lambda leaf, i=i: leaf[i], side) for side, i in zip((split[0], split[-1]), pair, strict=True)
        )
        return contract(first, second)

    return _assemble(jax.lax.map(block, jnp.asarray(pairs)), pairs, counts, rows)


def contract_anew(
    left: Callable[[Array], Factors],
    right: Callable[[Array], Factors] | None,
    counts: Sequence[int],
    size: int,
    rows: int,
) -> Array:
    """The same where the factors of each block are computed when they are needed, those on the left once for each.

    Args:
        left: the factors of a block of `size` examples, by its number.
        right: the same for the other set of examples; None if there is one set only.
        counts: number of examples in each set.
        size: examples in a block; the last block of a set is filled up.
        rows: examples in the blocks that a pair of blocks is contracted in.
    """
    pairs = _pairs(counts, size)
    changed = np.diff(pairs[:, 0], prepend=-1) != 0

    def step(kept: Factors, pair: tuple[Array, Array]) -> tuple[Factors, Array]:
        (first, second), is_new = pair
        kept = jax.lax.cond(is_new, lambda: left(first), lambda: kept)
        return kept, contract_in_blocks(kept, (right or left)(second), rows)

    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(left, jnp.zeros((), int)))
    _, blocks = jax.lax.scan(step, empty, (jnp.asarray(pairs), jnp.asarray(changed)))
    return _assemble(blocks, pairs, counts, size)


def _pairs(counts: Sequence[int], rows: int) -> np.ndarray:
    """The pairs of blocks to contract, [pairs, 2]: all of two sets, one triangle of one."""
    grid = -(-counts[0] // rows), -(-counts[-1] // rows)
    return np.array([(i, j) for i in range(grid[0]) for j in range(grid[1]) if len(counts) == 2 or i <= j])


def _assemble(blocks: Array, pairs: np.ndarray, counts: Sequence[int], rows: int) -> Array:
    """The kernel from its blocks [pairs, rows, rows, diagonal, full, full], mirrored if they are one triangle."""
    grid = tuple(pairs.max(axis=0) + 1)
    index = np.zeros(grid, int)
    index[pairs[:, 0], pairs[:, 1]] = np.arange(len(pairs))
    if len(counts) == 1:
        mirrored = np.tril(np.ones(grid, bool), -1)[:, :, None, None, None, None, None]
        tiles = blocks[np.maximum(index, index.T)]
        tiles = jnp.where(mirrored, tiles.transpose(0, 1, 3, 2, 4, 6, 5), tiles)
    else:
        tiles = blocks[index]
    kernel = tiles.transpose(0, 2, 1, 3, 4, 5, 6).reshape(grid[0] * rows, grid[1] * rows, *tiles.shape[4:])
    return kernel[: counts[0], : counts[-1]]


def _num_examples(factors: Factors) -> int:
    return jax.tree.leaves(factors)[0].shape[0]


def _split(factors: Factors, rows: int) -> Factors:
    """Factors in blocks of `rows` examples, the last one padded with zeros."""
    n = _num_examples(factors)
    num_blocks = -(-n // rows)

    def split(leaf: Array) -> Array:
        padded = jnp.pad(leaf, [(0, num_blocks * rows - n)] + [(0, 0)] * (leaf.ndim - 1))
        return padded.reshape(num_blocks, rows, *leaf.shape[1:])

    return jax.tree.map(split, factors)
