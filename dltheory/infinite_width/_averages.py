"""Sums and inner products over channels, which are averages times the width."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from dltheory._programs import Equation
from dltheory.infinite_width import _algebra as algebra
from dltheory.infinite_width._context import Context
from dltheory.infinite_width._copies import linear_map
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._gaussians import Feature, move_feature
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._moments import Pairing
from dltheory.infinite_width._positions import Index
from dltheory.infinite_width._totals import largest_factor, settle
from dltheory.infinite_width._values import (
    Random,
    Total,
    Value,
    Vanishing,
    channel_factors,
    position_places,
    require_inner,
    total_width,
)
from dltheory.typing import Array

__all__ = ["inner_products", "reduce_sum"]


def reduce_sum(context: Context, equation: Equation, value: Random) -> Value:
    """A sum over axes."""
    axes = equation.params["axes"]
    factors = [f for a in axes for f in value.axes[a]]
    if not any(f.channel for f in factors):
        return linear_map(equation, value, None)
    count = math.prod(f.size for f in factors if f.channel)
    kept = [a for a in range(len(value.axes)) if a not in axes]
    require_inner(factors, channel_factors([value.axes[a] for a in kept]))
    shape = tuple(math.prod(f.size for f in value.axes[a] if not f.channel) for a in kept)
    flags = [a in axes for a, axis in enumerate(value.axes) for f in axis if not f.channel]
    summed = tuple(i for i, flag in enumerate(flags) if flag)

    def total(s: int) -> Array:
        shares = [piece.size / total_width(value) for piece in value.pieces]
        means = [q * context.moments.mean(p.feature, s) for q, p in zip(shares, value.pieces, strict=True)]
        whole = sum(means[1:], start=means[0])
        return jnp.sum(count * whole, axis=tuple(1 + i for i in summed)).reshape(-1, *shape)

    if all(algebra.is_centred(piece.feature) for piece in value.pieces):
        return Vanishing(count, Known.constant(np.zeros((1,) * len(kept))))
    known = Known(tuple(total(s) for s in range(len(context.moments.sizes))), batched=True)
    return settle(Total(count, known, 1.0, max(largest_factor(piece.feature) for piece in value.pieces)))


def inner_products(context: Context, equation: Equation, operands: list[Random]) -> Value:
    """Averages over the channels of products of two features."""
    contract, batch = equation.params["dimension_numbers"]
    channels = [f for a in contract[0] for f in operands[0].axes[a]]
    if not channels or not all(f.channel for f in channels):
        raise UnsupportedError("a product of two random arrays that is summed over positions has no rule")
    left, right = operands
    if len(left.pieces) != 1 or len(right.pieces) != 1:
        raise UnsupportedError("inner products of concatenated channels have no rule")
    first, second = left.pieces[0].feature, right.pieces[0].feature
    free = [
        [a for a in range(len(v.axes)) if a not in contract[i] and a not in batch[i]] for i, v in enumerate(operands)
    ]
    if any(f.channel for i, v in enumerate(operands) for a in free[i] for f in v.axes[a]):
        raise UnsupportedError("an outer product of channels has no rule")
    pairs = [(left.axes[a], right.axes[b]) for d in (contract, batch) for a, b in zip(*d, strict=True)]
    if any(channel_factors([one]) != channel_factors([other]) for one, other in pairs):
        raise UnsupportedError("an inner product of channels in different orders has no rule")
    require_inner(channels, [f for a in batch[0] for f in left.axes[a]])
    rank = max(len(first.positions), len(second.positions))
    first, second = (with_rank(feature, rank) for feature in (first, second))
    width = math.prod(f.size for f in channels)
    places = [position_places(v.axes) for v in operands]
    shared = [(places[0][a], places[1][b]) for a, b in zip(*batch, strict=True)]
    lead = [i for pair in shared for i in pair[0]]
    k = len(first.positions)
    partner = {i: k + j for pair in shared for i, j in zip(*pair, strict=True)}
    sizes = [math.prod(f.size for f in left.axes[a] if not f.channel) for a in batch[0]]
    sizes += [math.prod(f.size for f in v.axes[a] if not f.channel) for i, v in enumerate(operands) for a in free[i]]
    names = list(range(k + len(second.positions)))
    for i, j in partner.items():
        names[j] = names[i]
    out = [*lead, *(i for a in free[0] for i in places[0][a]), *(k + i for a in free[1] for i in places[1][a])]

    def total(s: int) -> Array | None:
        block = context.moments.feature_block(first, second, Pairing(s, s, False), full=True)
        if block is None:
            return None
        n = context.moments.sizes[s]
        array = jnp.broadcast_to(block.covariance, (n, *first.positions, *second.positions))
        array = jnp.einsum(array, [100, *names], [100, *out])
        return width * array.reshape(n, *sizes)

    arrays = [total(s) for s in range(len(context.moments.sizes))]
    if any(array is None for array in arrays):
        return Vanishing(width, Known.constant(np.zeros((1,) * len(sizes))))
    known = Known(tuple(arrays), batched=True)  # pyright: ignore[reportArgumentType]
    return settle(Total(width, known, 1.0, largest_factor(first) * largest_factor(second)))


def with_rank(feature: Feature, rank: int) -> Feature:
    """A feature with more positions, of size 1."""
    shape = (*feature.positions, *(1,) * (rank - len(feature.positions)))
    return move_feature(feature, Index(feature.positions, np.arange(math.prod(shape)).reshape(shape)))
