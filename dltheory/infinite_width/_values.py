"""What stands for the arrays of a program whose network is infinitely wide.

The axes of the program's arrays are taken apart into factors, each a channel or a position, so that reshaping and
flattening are understood.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._gaussians import Feature, move_feature, shift_feature
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._positions import Index
from dltheory.typing import Array

__all__ = [
    "Axes",
    "Factor",
    "Joined",
    "Noise",
    "Piece",
    "Random",
    "Total",
    "Value",
    "Vanishing",
    "Weights",
    "at_positions",
    "axes_width",
    "channel_factors",
    "common_cuts",
    "common_template",
    "cut_feature",
    "identity_index",
    "index_array",
    "join_channels",
    "piece_of",
    "position_axis",
    "position_places",
    "require_inner",
    "total_width",
]


class Factor(NamedTuple):
    """Part of an axis: a channel or a position.

    Attributes:
        channel: whether it is a channel.
        size: number of entries.
        stride: by how many channels they are apart, which tells the factors of channels that are taken apart.
    """

    channel: bool
    size: int
    stride: int = 1


Axes = tuple[tuple[Factor, ...], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """Some channels that are identically distributed.

    Attributes:
        size: how many.
        base: a feature.
        move: how its positions are copied.
    """

    size: int
    base: Feature
    move: Index

    @functools.cached_property
    def feature(self) -> Feature:
        """The feature with its positions copied."""
        return move_feature(self.base, self.move)


@dataclasses.dataclass(frozen=True, eq=False)
class Random:
    """An array that is random along its channels.

    Attributes:
        axes: the factors of every axis; none for an axis of size 1.
        pieces: what stands side by side along the channels.
    """

    axes: Axes
    pieces: tuple[Piece, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        """Sizes of the positions, in the order of the axes."""
        return tuple(f.size for axis in self.axes for f in axis if not f.channel)

    @property
    def channels(self) -> list[int]:
        """The axes that hold channels."""
        return [i for i, axis in enumerate(self.axes) if any(f.channel for f in axis)]


class Weights(NamedTuple):
    """A parameter leaf, or a part of one: independent entries of mean 0.

    Attributes:
        leaf: what it is a part of.
        axes: the axes of the leaf, as (number, size), that every axis consists of; axes of size 1 have none. Of an axis
            that is taken apart the outer part is ((number, stride), size).
        scale: a number times the entries.
    """

    leaf: Hashable
    axes: tuple[tuple[tuple[int, int], ...], ...]
    scale: Known

    def size(self, axis: int) -> int:
        """Number of entries along an axis."""
        return math.prod(size for _, size in self.axes[axis])


class Joined(NamedTuple):
    """Weights side by side.

    Attributes:
        axis: along which of the axes.
        parts: the weights.
    """

    axis: int
    parts: tuple[Weights, ...]


class Vanishing(NamedTuple):
    """A sum of n independent terms of mean 0: smaller than n by a factor of sqrt(n)."""

    width: int
    zeros: Known


class Total(NamedTuple):
    """A sum over channels that grows like a power of the width, until it is divided by that.

    Attributes:
        width: number of terms.
        known: its value at this width.
        power: of the width.
        factor: the numbers that it has been multiplied with.
    """

    width: int
    known: Known
    power: float = 1.0
    factor: float = 1.0


class Noise(NamedTuple):
    """Numbers that the network draws, independent and identically distributed.

    Attributes:
        name: what tells the draw from others.
        shape: of the array.
        bits: number of random bits of an entry.
        fn: (bits) -> entries.
    """

    name: Hashable
    shape: tuple[int, ...]
    bits: int
    fn: Callable[[Array], Array]


Value = Known | Weights | Joined | Random | Vanishing | Total | Noise


def position_axis(size: int) -> tuple[Factor, ...]:
    """The factors of an axis of positions."""
    return (Factor(False, size),) if size > 1 else ()


def identity_index(positions: tuple[int, ...]) -> Index:
    """The map that copies positions to themselves."""
    return Index(positions, np.arange(math.prod(positions)).reshape(positions))


def total_width(value: Random) -> int:
    """Number of channels of an array."""
    return sum(piece.size for piece in value.pieces)


def axes_width(axes: Sequence[tuple[Factor, ...]]) -> int:
    """Number of channels along axes."""
    return math.prod(f.size for axis in axes for f in axis if f.channel)


def position_places(axes: Axes) -> list[list[int]]:
    """For every axis which of the positions it holds."""
    found, count = [], 0
    for axis in axes:
        own = sum(not f.channel for f in axis)
        found.append(list(range(count, count + own)))
        count += own
    return found


def channel_factors(axes: Sequence[tuple[Factor, ...]]) -> list[Factor]:
    """The channels among the factors of axes."""
    return [f for axis in axes for f in axis if f.channel]


def join_channels(axis: Sequence[Factor]) -> tuple[Factor, ...]:
    """An axis whose channels are put together again where they are in order."""
    found: list[Factor] = []
    for factor in axis:
        last = found[-1] if found else Factor(False, 0)
        if last.channel and factor.channel and last.stride == factor.size * factor.stride:
            found[-1] = Factor(True, last.size * factor.size, factor.stride)
        else:
            found.append(factor)
    return tuple(found)


def require_inner(summed: Sequence[Factor], kept: Sequence[Factor]) -> None:
    """Demands that of channels that are taken apart the inner ones are summed: those are what grows."""
    largest = max((f.stride for f in summed if f.channel), default=0)
    if any(f.channel and f.stride < largest for f in kept):
        raise UnsupportedError("a sum over groups (or heads) of channels, whose number does not grow with the width")


def common_template(operands: Sequence[Value]) -> Random:
    """An array that has the axes of all random ones."""
    values = [v for v in operands if isinstance(v, Random)]
    if any(v.axes != values[0].axes for v in values):
        raise UnsupportedError("arrays whose axes mean different things are combined entry by entry")
    return values[0]


def common_cuts(values: Sequence[Random]) -> list[tuple[int, int]]:
    """Ranges of channels in which every value has one piece."""
    edges = {0}
    for v in values:
        edges |= set(np.cumsum([piece.size for piece in v.pieces]).tolist())
    ends = sorted(edges)
    return list(itertools.pairwise(ends))


def piece_of(value: Random, start: int, stop: int) -> Piece:
    """The channels from `start` to `stop`, which lie in one piece."""
    begin = 0
    for piece in value.pieces:
        if begin <= start and stop <= begin + piece.size:
            if start == begin:
                return piece if stop - start == piece.size else dataclasses.replace(piece, size=stop - start)
            return Piece(stop - start, shift_feature(piece.base, start - begin), piece.move)
        begin += piece.size
    raise UnsupportedError("channels are taken apart differently")


def cut_feature(value: Random, start: int, stop: int) -> Feature:
    """The feature of some channels, which lie in one piece."""
    return piece_of(value, start, stop).feature


def at_positions(value: Value, template: Random) -> Known:
    """A known array as numbers at the positions of a random one."""
    assert isinstance(value, Known)
    if value.is_scalar:
        return Known.apply(lambda a: jnp.reshape(a, (1,) * len(template.positions)), value)
    sizes: list[int] = []
    for axis, size in zip(template.axes, value.shape, strict=True):
        if size == 1:
            sizes += [1] * sum(not f.channel for f in axis)
        elif any(f.channel for f in axis):
            raise UnsupportedError(
                "known numbers that differ from channel to channel leave them differently distributed"
            )
        else:
            sizes += [f.size for f in axis]
    return Known.apply(lambda a: jnp.reshape(a, sizes), value)


def index_array(value: Random, move: Index) -> np.ndarray:
    """Position numbers of the base in the program's layout, channels with size 1."""
    shape = [math.prod(f.size for f in axis if not f.channel) for axis in value.axes]
    return move.index.reshape(shape)
