"""Matrix products, and rows of weights that integers pick out."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._programs import Equation, Program
from dltheory.infinite_width import _algebra as algebra
from dltheory.infinite_width._averages import inner_products
from dltheory.infinite_width._context import Context, location
from dltheory.infinite_width._copies import linear_map
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._gaussians import Product, Source, node_feature, sum_nodes
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._positions import Windows
from dltheory.infinite_width._values import (
    Factor,
    Piece,
    Random,
    Value,
    Weights,
    axes_width,
    channel_factors,
    identity_index,
    position_axis,
    position_places,
    require_inner,
    total_width,
)
from dltheory.infinite_width._weights import kept_channels, made_channels, paired_axes, require_whole
from dltheory.typing import Array

__all__ = ["dot_general", "lookup"]


def dot_general(context: Context, program: Program, equation: Equation, operands: list[Value]) -> Value:
    """A matrix product."""
    (contract, batch) = equation.params["dimension_numbers"]
    kinds = [isinstance(value, Weights) for value in operands]
    if all(kinds):
        raise UnsupportedError("a product of random matrices has no Gaussian entries")
    if any(kinds):
        w = kinds.index(True)
        return _layer(context, program, equation, operands, 1 - w, w)
    if all(isinstance(value, Random) for value in operands):
        return inner_products(context, equation, operands)  # pyright: ignore[reportArgumentType]
    r = 0 if isinstance(operands[0], Random) else 1
    value, known = operands[r], operands[1 - r]
    assert isinstance(value, Random)
    assert isinstance(known, Known)
    whole = list(program.shape(equation.inputs[1 - r]))
    differs = channel_factors([value.axes[a] for a in contract[r]])
    for a, b in zip(batch[r], batch[1 - r], strict=True):
        if channel_factors([value.axes[a]]) and known.shape[b] == 1 and all(f.channel for f in value.axes[a]):
            whole[b] = 1
        else:
            differs += channel_factors([value.axes[a]])
    if differs:
        raise UnsupportedError("channels are weighted by known numbers, which has no rule")
    known = known.whole(tuple(whole))
    free = [
        [a for a in range(len(program.shape(equation.inputs[i]))) if a not in contract[i] and a not in batch[i]]
        for i in (0, 1)
    ]
    axes: list[tuple[Factor, ...]] = [value.axes[a] for a in batch[r]]
    for i in (0, 1):
        axes += [value.axes[a] if i == r else position_axis(whole[a]) for a in free[i]]
    return linear_map(equation, value, None, known=known, slot=r, axes=tuple(axes))


def _layer(context: Context, program: Program, equation: Equation, operands: list[Value], x: int, w: int) -> Value:
    """A product with weights: a Gaussian for every channel that they make."""
    contract, batch = equation.params["dimension_numbers"]
    value, weights = operands[x], operands[w]
    assert isinstance(weights, Weights)
    shape = program.shape(equation.inputs[x])
    free = [a for a in range(len(shape)) if a not in contract[x] and a not in batch[x]]
    own = [a for a in range(len(weights.axes)) if a not in contract[w] and a not in batch[w]]
    require_whole(weights, program.shape(equation.inputs[w]), (*contract[w], *own))
    made = made_channels(weights, own)
    summed, taken = paired_axes(weights, contract[w], contract[x])
    untied = [(a, b) for a, b in zip(batch[x], batch[w], strict=True) if weights.axes[b]]
    each, mapped = paired_axes(weights, [b for _, b in untied], [a for a, _ in untied])
    fan_in = math.prod(shape[a] for a in contract[x])
    variance = context.variance(weights.leaf, fan_in)
    scale, leaves = weights.scale.scalar(), frozenset([weights.leaf])
    if isinstance(value, Known) and value.is_number(0.0):
        return Known.constant(np.zeros((1,) * len(program.shapes[equation.outputs[0]].shape)))
    untied = [a for a, _ in untied]
    if isinstance(value, Known):
        places = [a for a in (*batch[x], *free) if shape[a] > 1]
        positions = tuple(shape[a] for a in places)
        order = (*batch[x], *free, *taken)
        context.use(weights, (summed, each), "known", [weights.axes[a] for a in batch[w]])
        context.take(weights.leaf)
        rows = Known.apply(lambda a: jnp.broadcast_to(a, shape).transpose(order).reshape(*positions, fan_in), value)
        rows = rows.whole((*positions, fan_in))
        rules = tuple("untied" if a in untied else "keep" for a in places)
        windows = Windows(positions, rules, tuple(range(len(positions))))
        node = Product(positions, True, leaves, weights.leaf, scale, variance, Source(rows), windows)
        nodes = [(axes_width(made), node)]
        kept = {a: position_axis(shape[a]) for a in places}
    else:
        assert isinstance(value, Random)
        nodes, start = [], 0
        met = channel_factors([value.axes[a] for a in contract[x]])
        if not met:
            raise UnsupportedError("weights are summed over an axis that does not grow with the width")
        rest = channel_factors([value.axes[a] for a in (*batch[x], *free)])
        require_inner(met, rest)
        tied = channel_factors([value.axes[a] for a in range(len(shape)) if a not in (*contract[x], *untied)])
        if tied and not all(algebra.is_centred(piece.feature) for piece in value.pieces):
            raise UnsupportedError("the same weights for several channels leave them dependent")
        inside = [a for a in (*taken, *mapped) if any(not f.channel for f in value.axes[a])]
        pairing = [value.axes[a] for a in (*taken, *mapped)], np.argsort(inside).tolist()
        context.use(weights, (summed, each), "random", pairing)
        rules = dict.fromkeys(contract[x], "sum") | dict.fromkeys(untied, "untied")
        rules = tuple(rules.get(a, "keep") for a, axis in enumerate(value.axes) for f in axis if not f.channel)
        places = position_places(value.axes)
        order = tuple(i for a in (*batch[x], *free) for i in places[a])
        total, where = math.prod(f.size for f in met), location(equation)
        parts = []
        for piece in value.pieces:
            feature = piece.feature
            windows = Windows(feature.positions, rules, order)
            leaf = weights.leaf if len(value.pieces) == 1 else (weights.leaf, "rows", start, start + piece.size)
            context.take(leaf)
            count = total * piece.size // total_width(value)
            own_leaf = frozenset([leaf])
            parts.append(Product(windows.out, True, own_leaf, leaf, scale, variance * count, feature, windows, where))
            start += piece.size
        node = sum_nodes(parts)
        nodes = [(axes_width([*made, tuple(rest)]), node)]
        kept = dict(enumerate(kept_channels(value.axes, rest, axes_width(made))))
    axes: list[tuple[Factor, ...]] = [kept.get(a, ()) for a in batch[x]]
    blocks = {x: [kept.get(a, ()) for a in free], w: made}
    axes += [*blocks[0], *blocks[1]]
    pieces = [Piece(max(size, 1), node_feature(n), identity_index(n.positions)) for size, n in nodes]
    return Random(tuple(axes), tuple(pieces))


def lookup(context: Context, program: Program, equation: Equation, weights: Weights, numbers: Known) -> Random:
    """Rows of weights that integers pick out: their products with one-hot vectors."""
    table, shape = program.shape(equation.inputs[0]), program.shape(equation.inputs[1])
    places = equation.params["dimension_numbers"]
    offsets = tuple(range(len(shape) - 1, len(shape) + len(table) - 2))
    rows = places.collapsed_slice_dims == places.start_index_map == (0,) and places.offset_dims == offsets
    if not rows or tuple(equation.params["slice_sizes"]) != (1, *table[1:]):
        raise UnsupportedError("of weights only rows are picked out by integers (an embedding)")
    require_whole(weights, table, range(len(table)))
    context.use(weights, [0], "labels")
    context.take(weights.leaf)
    clipped = equation.params["mode"] == jax.lax.GatherScatterMode.CLIP
    positions = tuple(size for size in shape[:-1] if size > 1)

    def label(array: Array) -> Array:
        row = jnp.broadcast_to(array, shape).reshape(*positions, 1)
        return jnp.clip(row, 0, table[0] - 1) if clipped else row

    variance = context.variance(weights.leaf, math.prod(table[1:]))
    windows = Windows(positions, ("keep",) * len(positions), tuple(range(len(positions))))
    leaves = frozenset([weights.leaf])
    source = Source(Known.apply(label, numbers).whole((*positions, 1)), labels=True)
    node = Product(positions, True, leaves, weights.leaf, weights.scale.scalar(), variance, source, windows)
    channels = made_channels(weights, range(1, len(table)))
    axes = (*map(position_axis, shape[:-1]), *channels)
    return Random(axes, (Piece(max(axes_width(channels), 1), node_feature(node), identity_index(positions)),))
