"""The kernel that factors contract to: which way is the cheapest, and in which blocks.

Through positions: the Gram matrices of features and of gradients, multiplied entry by entry and summed,
`sum_{t,t'} (x_t . x'_t') (g_t . g'_t')`. Through weights: one product of the Jacobians `sum_t x_t (x) g_t`. Dense
layers are cheapest in the first way, convolutions mostly in the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dltheory.ntk._factors import FactorArrays, Outputs, Sizes
from dltheory.typing import Array

__all__ = ["Factors", "block_rows", "cheaper_as_jacobian", "contract", "contract_in_blocks", "pair_blocks"]

Factors = Sequence[FactorArrays]  # of several examples: every array has a leading axis

# To read and write an entry of an intermediate costs about as much as this many multiply-adds of a matrix product.
_PASS = 24
# Outputs in a block of rows: enough to keep a matrix product at full speed, few enough to stay in the cache.
_BLOCK_ROWS = 512
_BLOCK_ENTRIES = 2**24


def cheaper_as_jacobian(sizes: Sizes, outputs: Outputs, num_examples: int) -> bool:
    """Whether a factor of `num_examples` costs less through weights than through positions."""
    blocks, positions, width, features = sizes
    if positions == width == 1:
        return True  # the gradient is the Jacobian
    rows, full = outputs.traced * outputs.diagonal * outputs.full, outputs.full
    weights = width * features
    jacobians = num_examples * rows * blocks * positions * weights
    through_weights = jacobians + num_examples**2 * rows * full * blocks * weights
    grams = num_examples**2 * positions**2 * blocks
    return through_weights < grams * (width + rows * full * features + outputs.diagonal * full**2 * _PASS)


def contract(left: Factors, right: Factors) -> Array:
    """The kernel [n, m, diagonal, full, full] between two sets of examples from their factors."""
    first, *others = [_contract(a, b) for a, b in zip(left, right, strict=True)]
    return sum(others, start=first).transpose(1, 3, 0, 2, 4)


def _contract(left: FactorArrays, right: FactorArrays) -> Array:
    """What one factor contributes, [diagonal, n, full, m, full]: the order in which matrix products give it."""
    precise = _accumulator(left.gradients.dtype)
    if left.features is None and not left.tokens:
        return jnp.einsum("iqdmp,jqdnp->dimjn", left.gradients, right.gradients, preferred_element_type=precise)
    gradients = jnp.einsum(
        "iqdmbtf,jqdnbsf->bdimtjns", left.gradients, right.gradients, preferred_element_type=precise
    )
    grams = []
    if left.features is not None:
        assert right.features is not None
        grams.append(jnp.einsum("ibtc,jbsc->bitjs", left.features, right.features, preferred_element_type=precise))
    for (tokens, weights), (others, other_weights) in zip(left.tokens, right.tokens, strict=True):
        same = _outer(tokens) == _outer(others).transpose(0, 3, 4, 1, 2)
        grams.append(jnp.where(same, _outer(weights) * _outer(other_weights).transpose(0, 3, 4, 1, 2), 0))
    gram = sum(grams[1:], start=grams[0])
    return jnp.sum(gradients * gram[:, None, :, None, :, :, None, :], axis=(0, 4, 7))


def _outer(array: Array) -> Array:
    """[n, blocks, positions] as [blocks, n, positions, 1, 1]."""
    return jnp.moveaxis(array, 1, 0)[:, :, :, None, None]


def _accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which sums of products of `dtype` are formed."""
    return jnp.promote_types(dtype, jnp.float32)


def block_rows(sizes: Sequence[Sizes], as_jacobian: Sequence[bool], outputs: Outputs) -> int:
    """How many examples a block of the contraction holds, so that its intermediates stay small."""
    rows = max(1, _BLOCK_ROWS // outputs.full)
    for size, multiplied in zip(sizes, as_jacobian, strict=True):
        if not multiplied:
            entries = size.blocks * outputs.diagonal * (size.positions * outputs.full) ** 2
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
    blocks = [_split(side, rows) for side in sides]
    first, *others = [lambda i, side=side: jax.tree.map(lambda leaf: leaf[i], side) for side in blocks]
    return pair_blocks(first, others[0] if others else None, counts, rows, contract)


def pair_blocks(
    left: Callable[[Array], Factors],
    right: Callable[[Array], Factors] | None,
    counts: Sequence[int],
    rows: int,
    product: Callable[[Factors, Factors], Array],
) -> Array:
    """The kernel assembled from the products of blocks; the left one is made anew only when it changes.

    Args:
        left: the factors of a block of `rows` examples, by its number.
        right: the same for the other set of examples; None if there is one set only.
        counts: number of examples in each set.
        rows: examples in a block; the last block of a set is padded.
        product: kernel [rows, rows, diagonal, full, full] of two blocks.
    """
    symmetric = right is None
    grid = -(-counts[0] // rows), -(-counts[-1] // rows)
    pairs = np.array([(i, j) for i in range(grid[0]) for j in range(grid[1]) if not symmetric or i <= j])
    changed = np.diff(pairs[:, 0], prepend=-1) != 0

    def step(kept: Factors, pair: tuple[Array, Array, Array]) -> tuple[Factors, Array]:
        row, column, is_new = pair
        kept = jax.lax.cond(is_new, lambda: left(row), lambda: kept)
        return kept, product(kept, left(column) if right is None else right(column))

    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(left, jnp.zeros((), int)))
    _, blocks = jax.lax.scan(step, empty, (jnp.asarray(pairs[:, 0]), jnp.asarray(pairs[:, 1]), jnp.asarray(changed)))
    index = np.zeros(grid, int)
    index[pairs[:, 0], pairs[:, 1]] = np.arange(len(pairs))
    if symmetric:
        mirrored = np.tril(np.ones(grid, bool), -1)[:, :, None, None, None, None, None]
        tiles = blocks[np.maximum(index, index.T)]
        tiles = jnp.where(mirrored, tiles.transpose(0, 1, 3, 2, 4, 6, 5), tiles)
    else:
        tiles = blocks[index]
    kernel = tiles.transpose(0, 2, 1, 3, 4, 5, 6).reshape(grid[0] * rows, grid[1] * rows, *tiles.shape[4:])
    return kernel[: counts[0], : counts[-1]]


def _num_examples(factors: Factors) -> int:
    return factors[0].gradients.shape[0]


def _split(factors: Factors, rows: int) -> Factors:
    """Factors in blocks of `rows` examples, the last one padded with zeros."""
    n = _num_examples(factors)
    num_blocks = -(-n // rows)

    def split(leaf: Array) -> Array:
        padded = jnp.pad(leaf, [(0, num_blocks * rows - n)] + [(0, 0)] * (leaf.ndim - 1))
        return padded.reshape(num_blocks, rows, *leaf.shape[1:])

    return jax.tree.map(split, factors)
