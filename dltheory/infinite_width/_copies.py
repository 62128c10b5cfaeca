"""Equations that copy entries from place to place, or sum over positions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._programs import Equation, Program
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._gaussians import move_feature
from dltheory.infinite_width._known import Known, is_concrete
from dltheory.infinite_width._layout import slice_axis
from dltheory.infinite_width._positions import Index, Linear
from dltheory.infinite_width._values import (
    Axes,
    Factor,
    Piece,
    Random,
    channel_factors,
    identity_index,
    index_array,
    position_axis,
)
from dltheory.typing import Array

__all__ = ["copy_entries", "cut_windows", "linear_map"]


def copy_entries(program: Program, equation: Equation, value: Random, others: list[Known]) -> Random:
    """Equations that move entries about: run on the numbers of the positions, and on those of the channels."""
    if any(not is_concrete(k.arrays[0]) or k.batched for k in others):
        raise UnsupportedError("which entries are taken depends on the inputs")
    if equation.name == "slice" and equation.params["strides"] in (None, (1,) * len(value.axes)):
        changed = [
            a
            for a, (start, stop) in enumerate(
                zip(equation.params["start_indices"], equation.params["limit_indices"], strict=True)
            )
            if (start, stop) != (0, program.shape(equation.inputs[0])[a])
        ]
        for a in changed:
            start, stop = equation.params["start_indices"][a], equation.params["limit_indices"][a]
            value = slice_axis(value, a, start, stop)
        return value
    if any(len({f.channel for f in axis}) > 1 for axis in value.axes):
        raise UnsupportedError("entries are picked out of channels that are mixed with other axes")
    shape = program.shape(equation.inputs[0])
    extra = [np.broadcast_to(k.arrays[0], program.shape(i)) for k, i in zip(others, equation.inputs[1:], strict=True)]
    if equation.name == "pad":
        if np.any(extra[0] != 0):
            raise UnsupportedError("positions are padded with a number other than 0")
        extra[0] = np.asarray(-1)

    def run(numbers: np.ndarray) -> np.ndarray:
        with jax.ensure_compile_time_eval():
            numbers = np.broadcast_to(numbers, shape).astype(np.int32)
            arrays = [jnp.asarray(e, jnp.int32) if e.dtype.kind in "iu" else jnp.asarray(e) for e in extra]
            params = dict(equation.params)
            if equation.name == "gather":
                params["fill_value"] = -1
            bind = equation.primitive.get_bind_params(params)
            return np.asarray(equation.primitive.bind(jnp.asarray(numbers), *arrays, **bind))

    count = math.prod(value.positions)
    own = [math.prod(f.size for f in axis if not f.channel) for axis in value.axes]
    places = run(np.arange(count).reshape(own))
    width = [math.prod(f.size for f in axis if f.channel) for axis in value.axes]
    total = math.prod(width)
    names = run(np.arange(total).reshape(width))
    kept = [a for a in range(names.ndim) if total > 1 and np.any(np.diff(names, axis=a)[_present(names, a)])]
    if [names.shape[a] for a in kept] != [w for w in width if w > 1]:
        raise UnsupportedError("channels are picked out one by one")
    numbers = np.arange(total).reshape([size if a in kept else 1 for a, size in enumerate(names.shape)])
    if np.any((names != numbers) & (names >= 0)):
        raise UnsupportedError("channels are put into another order, after which it matters which is which")
    channels = iter(axis for axis in value.axes if channel_factors([axis]))
    axes = [next(channels) if a in kept else position_axis(size) for a, size in enumerate(places.shape)]
    for a in kept:
        places = np.take(places, [0], a)
    return moved_positions(value, tuple(axes), places)


def _present(names: np.ndarray, axis: int) -> np.ndarray:
    before = np.take(names, range(names.shape[axis] - 1), axis)
    after = np.take(names, range(1, names.shape[axis]), axis)
    return (before >= 0) & (after >= 0)


def moved_positions(value: Random, axes: Axes, places: np.ndarray) -> Random:
    """Copies of positions, numbered in the order of the axes; -1 for nothing."""
    positions = tuple(f.size for axis in axes for f in axis if not f.channel)
    move = Index((math.prod(value.positions),), places.reshape(positions))

    def moved(piece: Piece) -> Piece:
        if move.is_complete:
            return Piece(piece.size, piece.base, move.after(piece.move))
        whole = Index(piece.feature.positions, move.index)
        return Piece(piece.size, move_feature(piece.feature, whole), identity_index(positions))

    return Random(axes, tuple(map(moved, value.pieces)))


def cut_windows(program: Program, equation: Equation, value: Random, filters: Known) -> Random:
    """The windows of every channel, cut out by filters that each take one entry."""
    params, (lhs, rhs, out) = equation.params, equation.params["dimension_numbers"]
    whole = np.asarray(filters.arrays[0]) if is_concrete(filters.arrays[0]) and not filters.batched else np.zeros(())
    groups, channel = params["feature_group_count"], value.axes[lhs[1]]
    taken = np.broadcast_to(whole, program.shape(equation.inputs[1])).transpose(rhs)
    cuts = taken.shape[1] == 1 and params["batch_group_count"] == 1 and channel == (Factor(True, groups),)
    if cuts:
        taken = taken.reshape(groups, -1, *taken.shape[2:])
        cuts = np.all(taken == taken[:1]) and np.all((taken == 0) | (taken == 1))
        cuts = cuts and np.all(taken.sum(tuple(range(2, taken.ndim))) == 1)
    if not cuts:
        raise UnsupportedError("a convolution with filters that are not weights has a rule only if it cuts out windows")
    numbers = index_array(value, identity_index(value.positions))
    windows = []
    for taps in np.argwhere(taken[0])[:, 1:]:
        window = numbers
        for i, (axis, tap) in enumerate(zip(lhs[2:], taps, strict=True)):
            spread = params["lhs_dilation"][i]
            place = np.arange(program.shape(equation.outputs[0])[out[2 + i]]) * params["window_strides"][i]
            place += tap * params["rhs_dilation"][i] - params["padding"][i][0]
            inside = (place >= 0) & (place % spread == 0) & (place // spread < numbers.shape[axis])
            window = np.take(window, np.where(inside, place // spread, 0), axis)
            window = np.where(inside.reshape([-1 if a == axis else 1 for a in range(window.ndim)]), window, -1)
        windows.append(window)
    places = np.concatenate(windows, lhs[1])
    order = [lhs[list(out).index(a)] for a in range(len(out))]
    axes = {a: position_axis(places.shape[a]) for a in lhs[2:]} | {lhs[0]: value.axes[lhs[0]]}
    axes[lhs[1]] = (*channel, *position_axis(len(windows)))
    return moved_positions(value, tuple(axes[a] for a in order), places.transpose(order))


def linear_map(
    equation: Equation,
    value: Random,
    shape: tuple[int, ...] | None,
    known: Known | None = None,
    slot: int = 0,
    axes: Axes | None = None,
) -> Random:
    """Linear maps of positions: the equation itself, for one channel."""
    own = [math.prod(f.size for f in axis if not f.channel) for axis in value.axes]
    params = equation.primitive.get_bind_params(equation.params)

    def run(array: Array, *others: Array) -> Array:
        operands = [array.reshape(own), *others]
        if slot == 1:
            operands.reverse()
        return equation.primitive.bind(*operands, **params)

    if axes is None:
        if equation.name == "reduce_sum":
            axes = tuple(axis for a, axis in enumerate(value.axes) if a not in equation.params["axes"])
        else:
            assert shape is not None
            grown = []
            for a, (axis, size) in enumerate(zip(value.axes, shape, strict=True)):
                if any(f.channel for f in axis):
                    if len(axis) != 1 or axis[0].size != size or not _keeps(equation, a):
                        raise UnsupportedError("windows over channels have no rule")
                    grown.append(axis)
                else:
                    grown.append(position_axis(size))
            axes = tuple(grown)
    positions = tuple(f.size for axis in axes for f in axis if not f.channel)

    def fn(array: Array, *others: Array) -> Array:
        return run(array, *others).reshape(positions)

    def moved(piece: Piece) -> Piece:
        feature = piece.feature
        move = Linear(feature.positions, positions, fn, known)
        return Piece(piece.size, move_feature(feature, move), identity_index(positions))

    return Random(axes, tuple(map(moved, value.pieces)))


def _keeps(equation: Equation, axis: int) -> bool:
    """Whether a sum over windows leaves an axis as it is."""
    params = equation.params
    if equation.name == "cumsum":
        return params["axis"] != axis
    return params["window_dimensions"][axis] == 1 and tuple(params["padding"][axis]) == (0, 0)
