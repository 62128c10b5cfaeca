"""Equations that lay arrays out anew: their factors stay, and so do their entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._positions import Index
from dltheory.infinite_width._values import (
    Axes,
    Factor,
    Piece,
    Random,
    channel_factors,
    join_channels,
    piece_of,
    position_axis,
    position_places,
)

__all__ = ["broadcast", "regroup", "reshape", "slice_axis", "transpose"]


def regroup(
    axes: Sequence[tuple[tuple[Any, int], ...]],
    shape: tuple[int, ...],
    outer: Callable[[Any, int], Any] | None = None,
) -> list[list[tuple[Any, int]]]:
    """Factors (label, size) of the axes of a reshaped array; factors are split where they must be.

    The outer part of one that is split has the label `outer` (label, size of the inner part), by default the same.
    """
    factors = [f for axis in axes for f in axis]
    found: list[list[tuple[Any, int]]] = []
    for size in shape:
        own: list[tuple[Any, int]] = []
        left = size
        while left > 1:
            if not factors:
                raise UnsupportedError("copies of random numbers along an axis are reshaped")
            label, n = factors.pop(0)
            if left % n == 0:
                own.append((label, n))
                left //= n
            elif n % left == 0:
                own.append((outer(label, n // left) if outer else label, left))
                factors.insert(0, (label, n // left))
                left = 1
            else:
                raise UnsupportedError("an axis is reshaped across the boundary of channels and positions")
        found.append(own)
    return found


def reshape(value: Random, shape: tuple[int, ...]) -> Random:
    """Channels that are taken apart know their strides; positions need none, for they are numbered."""
    labelled = [tuple(((f.channel, f.stride), f.size) for f in axis) for axis in value.axes]
    regrouped = regroup(labelled, shape, lambda label, inner: (label[0], label[1] * inner if label[0] else 1))
    axes = tuple(join_channels([Factor(c, n, stride) for (c, stride), n in axis]) for axis in regrouped)
    taken_apart = channel_factors(axes) != channel_factors(value.axes)
    if taken_apart and len(value.pieces) > 1:
        raise UnsupportedError("channels of several kinds side by side are taken apart into groups (or heads)")
    return with_axes(value, axes, lambda array: array)


def with_axes(value: Random, axes: Axes, change: Callable[[np.ndarray], np.ndarray]) -> Random:
    """The value with other axes; `change` acts on the array of position numbers."""
    positions = tuple(f.size for axis in axes for f in axis if not f.channel)

    def moved(piece: Piece) -> Piece:
        return Piece(piece.size, piece.base, Index(piece.move.shape, change(piece.move.index).reshape(positions)))

    return Random(axes, tuple(map(moved, value.pieces)))


def transpose(value: Random, permutation: Sequence[int]) -> Random:
    """An array with its axes exchanged."""
    places = position_places(value.axes)
    order = [i for a in permutation for i in places[a]]
    return with_axes(value, tuple(value.axes[a] for a in permutation), lambda array: array.transpose(order))


def broadcast(value: Random, shape: tuple[int, ...], dimensions: Sequence[int]) -> Random:
    """Copies along new axes, or axes of size 1."""
    axes: list[tuple[Factor, ...]] = [position_axis(size) for size in shape]
    source = {d: i for i, d in enumerate(dimensions)}
    sizes = []
    for d, size in enumerate(shape):
        if d in source and (value.axes[source[d]] or size == 1):
            axes[d] = value.axes[source[d]]
            sizes += [(f.size, f.size) for f in axes[d] if not f.channel]
        else:
            sizes += [(1, f.size) for f in axes[d]]

    def change(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array.reshape([n for n, _ in sizes]), [n for _, n in sizes])

    return with_axes(value, tuple(axes), change)


def slice_axis(value: Random, axis: int, start: int, stop: int) -> Random:
    """Entries from `start` to `stop` of one axis."""
    factors = value.axes[axis]
    size = math.prod(f.size for f in factors)
    if (start, stop) == (0, size):
        return value
    if any(f.channel for f in factors):
        if len(factors) > 1 or len(value.channels) > 1:
            raise UnsupportedError("channels that are mixed with other axes are cut")
        pieces, begin = [], 0
        for piece in value.pieces:
            low, high = max(start, begin), min(stop, begin + piece.size)
            if low < high:
                pieces.append(piece_of(value, low, high))
            begin += piece.size
        axes = list(value.axes)
        axes[axis] = (Factor(True, stop - start),) if stop - start > 1 else ()
        return Random(tuple(axes), tuple(pieces))
    axes = list(value.axes)
    axes[axis] = position_axis(stop - start)
    shape = [math.prod(f.size for f in x if not f.channel) for x in value.axes]

    def change(array: np.ndarray) -> np.ndarray:
        return np.take(array.reshape(shape), range(start, stop), axis)

    return with_axes(value, tuple(axes), change)
