"""Channels and positions side by side."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from dltheory._programs import Equation
from dltheory.infinite_width import _algebra as algebra
from dltheory.infinite_width._context import Context
from dltheory.infinite_width._entries import add_weights
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._gaussians import move_feature
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._layout import slice_axis
from dltheory.infinite_width._noise import DRAWN
from dltheory.infinite_width._positions import Index
from dltheory.infinite_width._values import (
    Factor,
    Piece,
    Random,
    Value,
    Weights,
    channel_factors,
    common_cuts,
    identity_index,
    index_array,
    piece_of,
    position_axis,
)

__all__ = ["beside", "concatenate", "scan_slice", "split", "stack"]


def concatenate(context: Context, equation: Equation, operands: list[Value]) -> Value:
    """Arrays side by side, also along a new axis."""
    axis = equation.params["dimension" if equation.name == "concatenate" else "axis"]
    template = next((v for v in operands if isinstance(v, Random)), None)
    if template is None:
        raise UnsupportedError("weights side by side with known numbers have no rule")
    values = []
    for v in operands:
        if isinstance(v, Weights):
            v = add_weights(context, v, template)
        if not isinstance(v, Random):
            raise UnsupportedError("known and random channels side by side have no rule")
        values.append(v)
    if equation.name == "stack":
        values = [Random((*v.axes[:axis], (), *v.axes[axis:]), v.pieces) for v in values]
    return beside(axis, values)


def beside(axis: int, values: list[Random]) -> Random:
    """Random arrays side by side along an axis."""
    others = [[x for a, x in enumerate(v.axes) if a != axis] for v in values]
    if any(channel_factors(other) != channel_factors(others[0]) for other in others):
        raise UnsupportedError("channels in different orders side by side have no rule")
    kinds = [[f.channel for f in v.axes[axis]] for v in values]
    if any(any(kind) for kind in kinds) and channel_factors(others[0]):
        raise UnsupportedError("groups (or heads) of channels side by side have no rule")
    if all(kind == [True] for kind in kinds):
        size = sum(v.axes[axis][0].size for v in values)
        axes = tuple((Factor(True, size),) if a == axis else x for a, x in enumerate(values[0].axes))
        return Random(axes, tuple(piece for v in values for piece in v.pieces))
    if any(any(kind) for kind in kinds):
        raise UnsupportedError("channels and positions side by side have no rule")
    sizes = [math.prod(f.size for f in v.axes[axis]) for v in values]
    axes = tuple(position_axis(sum(sizes)) if a == axis else x for a, x in enumerate(values[0].axes))
    cuts = common_cuts(values)
    pieces = []
    for start, stop in cuts:
        parts = [piece_of(v, start, stop) for v in values]
        inner = [index_array(v, part.move) for v, part in zip(values, parts, strict=True)]
        positions = tuple(f.size for x in axes for f in x if not f.channel)
        if all(part.base is parts[0].base for part in parts):
            index = np.concatenate(inner, axis).reshape(positions)
            pieces.append(Piece(stop - start, parts[0].base, Index(parts[0].move.shape, index)))
            continue
        total = []
        for i, (v, part) in enumerate(zip(values, parts, strict=True)):
            nothing = [np.full(a.shape, -1) for a in inner]
            nothing[i] = np.arange(math.prod(v.positions)).reshape(inner[i].shape)
            move = Index(v.positions, np.concatenate(nothing, axis).reshape(positions))
            total.append(move_feature(part.feature, move))
        pieces.append(Piece(stop - start, algebra.add(total), identity_index(positions)))
    return Random(axes, tuple(pieces))


def split(equation: Equation, operands: list[Value]) -> list[Value]:
    """Parts of an array along an axis."""
    (value,) = operands
    if not isinstance(value, Random):
        raise UnsupportedError("weights that are split have no rule")
    axis, start = equation.params["axis"], 0
    found: list[Value] = []
    for size in equation.params["sizes"]:
        found.append(slice_axis(value, axis, start, start + size))
        start += size
    return found


def stack(values: list[Value]) -> Value:
    """What the steps of a loop give, along a new axis."""
    known = [v for v in values if isinstance(v, Known)]
    random = [v for v in values if isinstance(v, Random)]
    if len(known) == len(values):
        shape = np.broadcast_shapes(*(v.shape for v in known))
        return Known.apply(lambda *arrays: jnp.stack([jnp.broadcast_to(a, shape) for a in arrays]), *known)
    if len(random) < len(values):
        raise UnsupportedError("steps of a scan differ in kind")
    lifted = [Random((position_axis(1), *v.axes), v.pieces) for v in random]
    return lifted[0] if len(lifted) == 1 else beside(0, lifted)


def scan_slice(value: Value, i: int) -> Value:
    """The slice of a scan's input for one step."""
    if isinstance(value, Known):
        return Known.apply(lambda a: a[min(i, a.shape[0] - 1)], value)
    if isinstance(value, Weights):
        return Weights((value.leaf, "step", i), value.axes[1:], value.scale)
    if not isinstance(value, Random):
        raise UnsupportedError(DRAWN)
    taken = slice_axis(value, 0, i, i + 1) if value.axes[0] else value
    return Random(taken.axes[1:], taken.pieces)
