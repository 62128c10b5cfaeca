"""Convolutions."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from dltheory._programs import Equation, Program
from dltheory.infinite_width._context import Context, location
from dltheory.infinite_width._copies import cut_windows
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._gaussians import Feature, Product, Source, move_feature, node_feature
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._positions import Index, Tap, Windows
from dltheory.infinite_width._values import Factor, Piece, Random, Value, Weights, channel_factors, position_axis
from dltheory.infinite_width._weights import made_channels, require_whole

__all__ = ["convolution"]


def convolution(context: Context, program: Program, equation: Equation, operands: list[Value]) -> Value:
    """A convolution of channels with weights, or one that cuts out windows."""
    value, weights = operands
    shape, out_shape = program.shape(equation.inputs[0]), program.shape(equation.outputs[0])
    params = equation.params
    numbers = params["dimension_numbers"]
    groups = params["feature_group_count"]
    if isinstance(value, Random) and isinstance(weights, Known):
        return cut_windows(program, equation, value, weights)
    if not isinstance(weights, Weights) or params["batch_group_count"] != 1:
        raise UnsupportedError("only a convolution of an array with weights has a rule")
    lhs, rhs, out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    require_whole(weights, program.shape(equation.inputs[1]), rhs)
    kind = "known" if isinstance(value, Known) else "random"
    context.use(weights, [weights.axes[a] for a in rhs[1:]], kind, np.argsort(lhs[2:]).tolist())
    context.take(weights.leaf)
    sizes = [weights.size(a) for a in rhs]
    fan_in = math.prod(sizes[1:])
    variance = context.variance(weights.leaf, fan_in)
    taps = {}
    for i, axis in enumerate(lhs[2:]):
        taps[axis] = Tap(
            sizes[2 + i],
            out_shape[out[2 + i]],
            params["window_strides"][i],
            params["rhs_dilation"][i],
            params["padding"][i][0],
            params["padding"][i][1],
            params["lhs_dilation"][i],
        )
    to_out = dict(zip(lhs, out, strict=True))
    gaussian = True
    if isinstance(value, Known):
        if groups > 1:
            raise UnsupportedError("groups of input channels make output channels differently distributed")
        order = [a for a in range(len(shape)) if a != lhs[1]]
        kept = [a for a in order if shape[a] > 1 or a in taps]
        rows = Known.apply(
            lambda a: (
                jnp.broadcast_to(a, shape).transpose((*order, lhs[1])).reshape(*(shape[a] for a in kept), shape[lhs[1]])
            ),
            value,
        )
        positions = tuple(shape[a] for a in kept)
        source: Source | Feature = Source(rows.whole((*positions, shape[lhs[1]])))
        count = 1
        others = {a: position_axis(shape[a]) for a in kept if a not in taps}
    else:
        assert isinstance(value, Random)
        if len(value.pieces) != 1 or [f.channel for f in value.axes[lhs[1]]] != [True]:
            raise UnsupportedError("a convolution over channels that are not one axis of equal ones has no rule")
        if len(channel_factors(value.axes)) > 1:
            raise UnsupportedError("a convolution along channels, or of several groups of them, has no rule")
        (piece,) = value.pieces
        feature = piece.feature
        kept, positions, index = [], [], np.arange(math.prod(feature.positions)).reshape(feature.positions)
        for a, axis in enumerate(value.axes):
            if a == lhs[1]:
                continue
            if a in taps:
                kept.append(a)
                positions.append(math.prod(f.size for f in axis))
            else:
                for f in axis:
                    kept.append(a)
                    positions.append(f.size)
        positions = tuple(positions)
        source = move_feature(feature, Index(feature.positions, index.reshape(positions)))
        count = sizes[1]
        gaussian = not (groups > 1 and sizes[1] == 1)
        others = {a: value.axes[a] for a in range(len(value.axes)) if a not in taps}
    order = sorted(range(len(kept)), key=lambda i: to_out[kept[i]])
    windows = Windows(positions, tuple(taps.get(a, "keep") for a in kept), tuple(order))
    leaves = frozenset([weights.leaf])
    if isinstance(source, Feature) and not gaussian:
        leaves = leaves.union(*(node.leaves for node in source.nodes))
    node = Product(
        windows.out,
        gaussian,
        leaves,
        weights.leaf,
        weights.scale.scalar(),
        variance * count,
        source,
        windows,
        location(equation),
    )
    axes: list[tuple[Factor, ...]] = [()] * len(out)
    for a in lhs:
        if a in taps:
            axes[to_out[a]] = (Factor(False, taps[a].out),)
        elif a != lhs[1]:
            axes[to_out[a]] = others.get(a, ())
    (axes[out[1]],) = made_channels(weights, rhs[:1])
    squeezed = tuple(n for n in windows.out if n > 1)
    flat = Index(windows.out, np.arange(math.prod(windows.out)).reshape(squeezed))
    axes = [tuple(f for f in axis if f.size > 1) for axis in axes]
    width = sizes[0]
    return Random(tuple(axes), (Piece(width, node_feature(node), flat),))
