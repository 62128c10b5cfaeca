"""Means and variances of numbers that come one at a time, in constant memory."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from dltheory.typing import Array

__all__ = ["Sum", "Welford", "add", "centred", "start", "update"]


class Sum(NamedTuple):
    """A sum as two numbers: the rounded sum, and what rounding has cost.

    Without the second, a mean in single precision stops moving after some thousand draws, whose increments it is then
    too large to feel.
    """

    high: Array
    low: Array


class Welford(NamedTuple):
    """Mean and sum of squared deviations of the numbers so far.

    Attributes:
        mean: shape [...].
        squares: sum of the squared deviations from the mean, shape [...].
    """

    mean: Sum
    squares: Sum


def start(like: Array) -> Sum:
    """Nothing added yet."""
    return Sum(jnp.zeros_like(like), jnp.zeros_like(like))


def add(total: Sum, x: Array) -> Sum:
    """The sum with one more term (Kahan's summation), where the rounding error is that of Knuth's two-sum.

    >>> total = Sum(jnp.array(1e8), jnp.array(0.0))
    >>> for _ in range(16): total = add(total, jnp.array(1.0))
    >>> float(total.high), float(total.high + 1.0)
    (100000016.0, 100000016.0)
    """
    x = x + total.low
    high = total.high + x
    part = high - total.high
    return Sum(high, (total.high - (high - part)) + (x - part))


def centred(x: Array, mean: Sum) -> Array:
    """The difference to the mean, to the precision of the difference."""
    return (x - mean.high) - mean.low


def update(moments: Welford, count: Array, x: Array) -> tuple[Welford, Array, Array]:
    """The moments with one more number, the `count`-th, and its deviations from the mean before and after."""
    before = centred(x, moments.mean)
    mean = add(moments.mean, before / count.astype(x.dtype))
    after = centred(x, mean)
    return Welford(mean, add(moments.squares, before * after)), before, after
