"""What is known in an infinitely wide network: numbers, inputs, and averages over channels.

A known value is one array, or one for each example of the two sets of inputs. Axes along which it is constant have size
1, whatever the shape of the value in the program: so a number that a program broadcasts along the channels is seen to
be the same for all of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from dltheory.typing import Array, ArrayLike

__all__ = ["Known", "compress", "is_concrete"]


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """A known value.

    Attributes:
        arrays: the value, or those of both sets of inputs with a leading axis of examples; with one set of inputs a
            single array of the latter kind.
        batched: whether the arrays have that axis.
        width: if it is 0 as the limit of an average over so many channels, which is random at any width, else 0.
    """

    arrays: tuple[Array, ...]
    batched: bool = False
    width: int = 0

    @staticmethod
    def constant(value: ArrayLike, rank: int | None = None) -> Known:
        """A constant; numbers get `rank` axes of size 1."""
        array = compress(value)
        return Known((array if rank is None else array.reshape((1,) * (rank - np.ndim(array)) + np.shape(array)),))

    def side(self, s: int) -> Array:
        """The array of a set of inputs."""
        return self.arrays[s if self.batched and len(self.arrays) > 1 else 0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value of one example."""
        return np.shape(self.arrays[0])[int(self.batched) :]

    @property
    def is_scalar(self) -> bool:
        """Whether it is one number."""
        return not self.batched and math.prod(self.shape) == 1

    @property
    def is_static(self) -> bool:
        """Whether it is a number, known while the program is read."""
        return self.is_scalar and is_concrete(self.arrays[0])

    def scalar(self) -> Any:
        """The number that it is; a NumPy number, in double precision, if it is known already."""
        if is_concrete(self.arrays[0]):
            return np.asarray(self.arrays[0], float).reshape(())[()]
        return jnp.reshape(self.arrays[0], ())

    def whole(self, shape: tuple[int, ...]) -> Known:
        """The same with its axes in full."""
        return Known(
            tuple(jnp.broadcast_to(a, (*np.shape(a)[: int(self.batched)], *shape)) for a in self.arrays), self.batched
        )

    def is_number(self, number: float) -> bool:
        """Whether it is known to be this number everywhere."""
        return not self.batched and is_concrete(self.arrays[0]) and bool(np.all(np.asarray(self.arrays[0]) == number))

    def __mul__(self, other: Known) -> Known:
        if self.is_number(1.0):
            return other
        return self if other.is_number(1.0) else Known.apply(jnp.multiply, self, other)

    def __add__(self, other: Known) -> Known:
        if self.is_number(0.0):
            return other
        return self if other.is_number(0.0) else Known.apply(jnp.add, self, other)

    @staticmethod
    def apply(fn: Callable[..., Array], *values: Known) -> Known:
        """A function of the values of one example."""
        if not any(value.batched for value in values):
            arrays = [value.arrays[0] for value in values]
            if all(map(is_concrete, arrays)):
                with jax.ensure_compile_time_eval():
                    return Known((compress(fn(*arrays)),))
            return Known((fn(*arrays),))
        sides = max(len(value.arrays) for value in values)
        mapped = jax.vmap(fn, in_axes=tuple(0 if value.batched else None for value in values))
        return Known(tuple(mapped(*(value.side(s) for value in values)) for s in range(sides)), batched=True)


def is_concrete(value: ArrayLike) -> bool:
    """Whether the numbers are there, and not traced or abstract."""
    return not isinstance(value, jax.core.Tracer)


def compress(value: ArrayLike) -> Array:
    """The array with size 1 along axes in which it is constant, as far as that is known."""
    if not is_concrete(value) or jnp.issubdtype(jnp.result_type(value), jax.dtypes.prng_key):
        return jnp.asarray(value)
    array = np.asarray(value)
    for axis, size in enumerate(array.shape):
        if size > 1:
            first = np.take(array, [0], axis)
            if np.array_equal(np.broadcast_to(first, array.shape), array):
                array = first
    return array  # pyright: ignore[reportReturnType]
