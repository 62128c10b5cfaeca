"""Equations that act entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dltheory._programs import Equation
from dltheory.infinite_width import _algebra as algebra
from dltheory.infinite_width._context import Context
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._gaussians import Bias, Feature, Mask, Node, Term, move_node, node_feature, shift_node
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._noise import two_values
from dltheory.infinite_width._positions import Index
from dltheory.infinite_width._values import (
    Noise,
    Piece,
    Random,
    Value,
    Weights,
    at_positions,
    channel_factors,
    common_cuts,
    common_template,
    cut_feature,
    identity_index,
)
from dltheory.infinite_width._weights import leaf_order, scale_weights

__all__ = ["add_weights", "elementwise"]


def elementwise(context: Context, equation: Equation, operands: list[Value]) -> Value:
    """An equation that acts entry by entry."""
    name = equation.name
    if name in {"convert_element_type", "copy", "reduce_precision", "real"} and not isinstance(operands[0], Random):
        return operands[0]
    if not any(isinstance(value, Random) for value in operands):
        return scale_weights(name, operands)
    template = common_template(operands)
    if name == "mul":
        _require_no_weights(context, operands)
    values = [
        add_weights(context, v, template)
        if isinstance(v, Weights)
        else _as_mask(context, v, template)
        if isinstance(v, Noise)
        else v
        for v in operands
    ]
    cuts = common_cuts([v for v in values if isinstance(v, Random)])
    pieces = []
    for start, stop in cuts:
        features = [cut_feature(v, start, stop) if isinstance(v, Random) else at_positions(v, template) for v in values]
        feature = algebra.apply(equation, features, template.positions)
        pieces.append(Piece(stop - start, feature, identity_index(template.positions)))
    return Random(template.axes, tuple(pieces))


def _require_no_weights(context: Context, factors: Sequence[Value]) -> None:
    for weights in (value for value in factors if isinstance(value, Weights)):
        variance = context.variance(weights.leaf, None)
        if isinstance(variance, int | float) and variance == 0:
            raise UnsupportedError(
                "weights of variance 0 that multiply leave nothing: give their values by concrete `params`, or their "
                "variance by `param_variance`"
            )
        raise UnsupportedError("random weights that multiply channel by channel leave no Gaussian")


def add_weights(context: Context, weights: Weights, template: Random) -> Random | Known:
    """Weights that are added to an array; 0 if they are."""
    variance = context.variance(weights.leaf, None)
    layout = weights.axes or ((),) * len(template.axes)
    context.use(weights, "added", "bias", [factors for factors in layout if factors])
    context.take(weights.leaf)
    if isinstance(variance, int | float) and variance == 0:
        return Known.constant(0.0, len(template.axes))
    whole = []
    for axis, factors in zip(template.axes, layout, strict=True):
        if not factors and any(f.channel for f in axis):
            raise UnsupportedError("one random number for all channels leaves them dependent")
        if factors and [size for _, size in factors] != [f.size for f in axis]:
            raise UnsupportedError("weights are added along axes that are taken apart differently")
        whole.append(bool(factors))
    pairs = [p for axis, own in zip(template.axes, layout, strict=True) for p in zip(own, axis, strict=bool(own))]
    strides = [f.stride for _, f in sorted(pairs, key=lambda pair: leaf_order(pair[0])) if f.channel]
    if strides != sorted(strides, reverse=True):
        raise UnsupportedError("weights are added to channels in another order than theirs")
    own, move = _spread(template, whole)
    node = Bias(own, True, frozenset([weights.leaf]), weights.leaf, weights.scale.scalar(), variance)
    return at_every_channel(template, node, lambda n: node_feature(move_node(n, move)))


def _as_mask(context: Context, noise: Noise, template: Random) -> Random:
    """Numbers of which there are two, such as what dropout multiplies with."""
    whole = []
    for axis, size in zip(template.axes, noise.shape, strict=True):
        if size == 1 and any(f.channel for f in axis):
            raise UnsupportedError("one random number for all channels leaves them dependent")
        whole.append(size > 1)
    own, move = _spread(template, whole)
    values, rate = two_values(noise)
    order = [f.stride for f in channel_factors(template.axes)]
    if context.uses.setdefault(("noise", noise.name), order) != order:
        raise UnsupportedError("the same random numbers meet channels in different orders")
    key = noise.name, rate, own
    mask = context.masks.setdefault(key, Mask(own, False, frozenset([noise.name]), rate))

    def feature(node: Node) -> Feature:
        moved, rank = move_node(node, move), len(template.positions)
        cases = zip(values, algebra.cases(moved), strict=True)
        return Feature(template.positions, tuple(Term(Known.constant(v, rank), (c,)) for v, c in cases if v))

    return at_every_channel(template, mask, feature)


def _spread(template: Random, whole: Sequence[bool]) -> tuple[tuple[int, ...], Index]:
    """Positions of an array with size 1 along the other axes, and how they are copied to those of another."""
    own, index = [], np.zeros((), int)
    for axis, present in zip(template.axes, whole, strict=True):
        for size in (f.size for f in axis if not f.channel):
            index = index[..., None] * (size if present else 1) + (np.arange(size) if present else np.zeros(size, int))
            own += [size] if present else []
    return tuple(own), Index(tuple(own), index.reshape(template.positions))


def at_every_channel(template: Random, node: Node, feature: Callable[[Node], Feature]) -> Random:
    """An array like another, of a node that is drawn for every channel."""
    pieces, start = [], 0
    for piece in template.pieces:
        shifted = shift_node(node, start) if start else node
        pieces.append(Piece(piece.size, feature(shifted), identity_index(template.positions)))
        start += piece.size
    return Random(template.axes, tuple(pieces))
