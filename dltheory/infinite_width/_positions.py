"""Linear maps of positions: what pooling, indexing and convolutions do to covariances between positions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dltheory.infinite_width._known import Known
from dltheory.typing import Array

__all__ = ["Index", "Linear", "PositionMap", "Tap", "Windows"]

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """Every output position is one input position, or nothing.

    Attributes:
        shape: the input positions.
        index: for each output position its input position, counted in row-major order; -1 for nothing.
    """

    shape: Shape
    index: np.ndarray

    @property
    def out(self) -> Shape:
        """The output positions."""
        return self.index.shape

    @property
    def is_complete(self) -> bool:
        """Whether every output position is an input position."""
        return bool((self.index >= 0).all())

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return self.shape == self.out and np.array_equal(self.index.ravel(), np.arange(self.index.size))

    def after(self, first: Index) -> Index:
        """This map after another."""
        return Index(first.shape, np.where(self.index >= 0, first.index.ravel()[self.index], -1))

    def __call__(self, array: Array, axis: int, known: Array | None = None) -> Array:
        """Maps the position axes that begin at `axis`."""
        del known
        lead, tail = array.shape[:axis], array.shape[axis + len(self.shape) :]
        if self.index.size == np.prod(self.shape) and np.array_equal(self.index.ravel(), np.arange(self.index.size)):
            return array.reshape(*lead, *self.out, *tail)
        moved = _as_transpose(self)
        if moved is not None:
            order, before = moved
            array = array.reshape(*lead, *before, *tail)
            rank = len(lead)
            axes = [*range(rank), *(rank + a for a in order), *range(rank + len(order), array.ndim)]
            return array.transpose(axes).reshape(*lead, *self.out, *tail)
        flat = array.reshape(*lead, -1, *tail)
        taken = jnp.take(flat, np.maximum(self.index, 0), axis=axis)
        if not self.is_complete:
            present = (self.index >= 0).reshape((1,) * axis + self.out + (1,) * len(tail))
            taken = jnp.where(present, taken, jnp.zeros_like(taken))
        return taken


def _as_transpose(move: Index) -> tuple[tuple[int, ...], Shape] | None:
    """The permutation of axes that the map is, if it is one without reshaping."""
    shape = [s for s in move.shape if s > 1]
    if len(shape) != len([s for s in move.out if s > 1]) or len(shape) > 4 or move.index.size != np.prod(move.shape):
        return None
    numbers = np.arange(move.index.size).reshape(shape)
    import itertools

    for order in itertools.permutations(range(len(shape))):
        if np.array_equal(numbers.transpose(order).ravel(), move.index.ravel()):
            return order, tuple(shape)
    return None


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """Any linear map of positions.

    Attributes:
        shape, out: input and output positions.
        fn: (array [*shape], known array of the example or nothing) -> array [*out].
        known: what it depends on besides.
    """

    shape: Shape
    out: Shape
    fn: Callable[..., Array]
    known: Known | None = None

    def __call__(self, array: Array, axis: int, known: Array | None = None) -> Array:
        """Maps the position axes that begin at `axis`; `known` has the other axes of `array` before the positions."""
        k = len(self.shape)
        rest = [a for a in range(array.ndim) if not axis <= a < axis + k]
        moved = jnp.moveaxis(array, range(axis, axis + k), range(array.ndim - k, array.ndim))
        lead = moved.shape[: len(rest)]
        flat = moved.reshape(-1, *self.shape)
        if known is None:
            result = jax.vmap(self.fn)(flat)
        else:
            own = known.ndim - len(self.known.shape)  # pyright: ignore[reportOptionalMemberAccess]
            known = known.reshape(*known.shape[:own], *(1,) * (len(lead) - own), *known.shape[own:])
            known = jnp.broadcast_to(known, (*lead, *known.shape[len(lead) :])).reshape(-1, *known.shape[len(lead) :])
            result = jax.vmap(self.fn)(flat, known)
        result = result.reshape(*lead, *self.out)
        return jnp.moveaxis(result, range(len(lead), result.ndim), range(axis, axis + len(self.out)))


PositionMap = Index | Linear


@dataclasses.dataclass(frozen=True)
class Tap:
    """One axis of a convolution: output o sees the inputs ``o * stride + t * dilation - low`` of spread-out inputs.

    Attributes:
        size: number of taps.
        out: number of outputs.
        stride, dilation: steps of the window and within it.
        low, high: zeros added before and behind; negative ones cut.
        spread: inputs are this far apart, with zeros between.
    """

    size: int
    out: int
    stride: int
    dilation: int
    low: int
    high: int
    spread: int

    def spread_out(self, array: Array, axes: tuple[int, ...]) -> Array:
        """The inputs with the zeros before, between and behind them, along all of `axes` alike."""
        config = [(self.low, self.high, self.spread - 1) if a in axes else (0, 0, 0) for a in range(array.ndim)]
        if all(c == (0, 0, 0) for c in config):
            return array
        return jax.lax.pad(array, jnp.zeros((), array.dtype), config)

    def total(self, spread: Array, axes: tuple[int, ...]) -> Array:
        """The sum over the taps of the inputs that they see."""

        def seen(t: int) -> Array:
            start, limit, step = [0] * spread.ndim, list(spread.shape), [1] * spread.ndim
            for a in axes:
                start[a] = t * self.dilation
                limit[a] = start[a] + (self.out - 1) * self.stride + 1
                step[a] = self.stride
            return jax.lax.slice(spread, start, limit, step)

        return sum((seen(t) for t in range(1, self.size)), start=seen(0))


@dataclasses.dataclass(frozen=True)
class Windows:
    """Which positions the weights of one output position are multiplied with: every weight with one position.

    Covariances of the products sum over the weights: over equal positions within a window.

    Attributes:
        shape: positions of the source.
        axes: for each of them "keep", "untied" (kept, with weights of its own for each position), "sum" (summed, with
            weights of its own for each position) or a `Tap`.
        order: the kept axes in the order of the output's positions.
    """

    shape: Shape
    axes: tuple[str | Tap, ...]
    order: tuple[int, ...]

    @property
    def out(self) -> Shape:
        """The output positions."""
        return tuple(a.out if isinstance(a := self.axes[i], Tap) else self.shape[i] for i in self.order)

    @property
    def is_trivial(self) -> bool:
        """Whether a position of the output is that of the source."""
        return all(axis == "keep" for axis in self.axes) and self.order == tuple(range(len(self.axes)))

    def __call__(self, array: Array, axis: int, full: bool) -> Array:
        """Sums covariances [..., *shape] from `axis` on, with `full` [..., *shape, *shape]."""
        k = len(self.shape)
        for i, rule in enumerate(self.axes):
            if isinstance(rule, Tap):
                axes = (axis + i, axis + k + i) if full else (axis + i,)
                array = rule.total(rule.spread_out(array, axes), axes)
        if full:
            array = self._where_tied(array, 0.0, axis)
        return self._arrange(array, axis, full)

    def distances(self, distance: Array, first: Array, second: Array, axis: int, full: bool) -> Array:
        """Sums half the squared distances of variables with variances `first` and `second`, which broadcast.

        Where only one of two windows reaches over the border, its variable is compared with 0.
        """
        if not full:
            return self(distance, axis, full)
        k = len(self.shape)
        distance = self._where_tied(distance, (first + second) / 2, axis)
        for i, rule in enumerate(self.axes):
            if not isinstance(rule, Tap):
                continue
            left, right = axis + i, axis + k + i
            inside = rule.spread_out(jnp.ones(self.shape[i], distance.dtype), (0,))
            first, second = rule.spread_out(first, (left,)), rule.spread_out(second, (right,))
            distance = rule.spread_out(distance, (left, right))
            if inside.size > self.shape[i]:
                outside = 1 - inside
                on_left = outside.reshape([-1 if a == left else 1 for a in range(distance.ndim)])
                on_right = outside.reshape([-1 if a == right else 1 for a in range(distance.ndim)])
                distance = distance + (on_right * first + on_left * second) / 2
            distance = rule.total(distance, (left, right))
            first, second = rule.total(first, (left,)), rule.total(second, (right,))
        return self._arrange(distance, axis, full)

    def _where_tied(self, array: Array, other: Array | float, axis: int) -> Array:
        """An array [..., *shape, *shape], or another where positions have different weights."""
        k = len(self.shape)
        for i, rule in enumerate(self.axes):
            if rule == "untied":
                place = jnp.arange(self.shape[i])
                left, right = (
                    place.reshape([-1 if a == axis + j else 1 for a in range(array.ndim)]) for j in (i, k + i)
                )
                array = jnp.where(left == right, array, other)
        return array

    def _arrange(self, array: Array, axis: int, full: bool) -> Array:
        """Sums what is left to sum, and puts the axes into the order of the output."""
        k = len(self.shape)
        for i in reversed(range(k)):
            if self.axes[i] == "sum":
                if full:
                    array = jnp.sum(jnp.diagonal(array, axis1=axis + i, axis2=axis + k + i), axis=-1)
                else:
                    array = jnp.sum(array, axis=axis + i)
                k -= 1
        kept = [i for i in range(len(self.axes)) if self.axes[i] != "sum"]
        order = [kept.index(i) for i in self.order]
        if order == list(range(len(order))):
            return array
        left = [axis + o for o in order]
        right = [axis + len(order) + o for o in order] if full else []
        return array.transpose([*range(axis), *left, *right])
