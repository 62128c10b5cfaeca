"""Hermite series of functions, their products (Mehler's formula), and what they lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._numerics import safe_sqrt
from dltheory.nngp._angles import safe_ratio
from dltheory.typing import Array

__all__ = ["TERMS", "Series", "expand", "mehler", "power_tail", "project", "resolved", "series_tail"]

TERMS = 64
_UNRESOLVED = 0.1, 0.9  # mean square beyond a series: of two functions (geometric mean), and of one of them


class Series(NamedTuple):
    """A Hermite series.

    Attributes:
        terms: coefficients [K, ...].
        late: sums of squares of the even and of the odd ones in the second half, [2, ...].
        rest: the same of those that follow, from the mean square of the function.
    """

    terms: Array
    late: Array
    rest: Array


def expand(
    fn: Callable[..., Array], q: Array, params: Sequence[Array], rule: tuple[Array, Array], num_terms: int = TERMS
) -> Series:
    """The series of a function at variances."""
    nodes, weights = rule
    values = fn(safe_sqrt(q)[..., None] * nodes, *(p[..., None] for p in params))
    return project(jnp.broadcast_to(values, nodes.shape), nodes, weights, num_terms)


def project(values: Array, nodes: Array, weights: Array, num_terms: int) -> Series:
    # Hermite functions h_k(z) exp(-z^2/4) stay of order one; the other half of the density weighs the nodes.
    """The series of the function with values at nodes."""
    envelope = jnp.exp(-(nodes**2) / 4) / (2 * jnp.pi) ** 0.25
    weighted = weights * envelope * values

    def pair_of_terms(carry, j):
        before, now = carry
        following = (nodes * now - jnp.sqrt(2 * j) * before) / jnp.sqrt(2 * j + 1)
        next_even = (nodes * following - jnp.sqrt(2 * j + 1) * now) / jnp.sqrt(2 * j + 2)
        terms = jnp.sum(weighted * now, axis=-1), jnp.sum(weighted * following, axis=-1)
        return (following, next_even), jnp.stack(terms)

    start = (jnp.zeros_like(envelope), envelope)
    _, terms = jax.lax.scan(pair_of_terms, start, jnp.arange(num_terms // 2, dtype=nodes.dtype))
    mirrored = values[..., ::-1]  # the nodes are symmetric
    parts = jnp.stack([(values + mirrored) / 2, (values - mirrored) / 2])
    totals = jnp.sum((weights * envelope**2)[None] * parts**2, axis=-1)
    rest = totals - jnp.sum(terms**2, axis=0)
    rest = jnp.where(rest > 16 * jnp.finfo(rest.dtype).eps * jnp.sum(totals, axis=0)[None], rest, 0.0)
    late = jnp.sum(terms[num_terms // 4 :] ** 2, axis=0)
    return Series(terms.reshape(num_terms, *values.shape[:-1]), late, rest)


def mehler(first: Series, second: Series, rho: Array) -> tuple[Array, Array]:
    r"""Sum of the terms :math:`a_k b_k \rho^k`, and those of the second half without the powers, even and odd."""
    num_terms = len(first.terms)

    def two_terms(carry, xs):
        total, even, odd = carry
        late, a, b = xs
        products = a[0] * b[0], a[1] * b[1]
        return (
            (total * rho + products[1]) * rho + products[0],
            even + late * products[0],
            odd + late * products[1],
        ), None

    late = jnp.asarray(np.arange(num_terms // 2) >= num_terms // 4, rho.dtype)
    zero = jnp.zeros_like(rho)
    paired = (series.terms.reshape(-1, 2, *series.terms.shape[1:]) for series in (first, second))
    (total, even, odd), _ = jax.lax.scan(two_terms, (zero, zero, zero), (late, *paired), reverse=True, unroll=4)
    return total, jnp.stack([even, odd])


def resolved(first: Series, second: Series, rests: tuple[Array, Array]) -> Array:
    """Whether the series hold most of the mean squares of their functions."""
    parts = []
    for series, rest in zip((first, second), rests, strict=True):
        total = jnp.sum(series.terms**2, axis=0) + jnp.sum(series.rest, axis=0)
        parts.append(jnp.sum(jnp.abs(rest), axis=0) / jnp.where(total > 0, total, 1.0))
    one, two = parts
    return (one * two <= _UNRESOLVED[0] ** 2) & (jnp.maximum(one, two) <= _UNRESOLVED[1])


def series_tail(
    late: Array,
    squares: tuple[Array, Array],
    rests: tuple[Array, Array],
    rho: Array,
    residual: Array,
    power: float,
    num_terms: int,
) -> Array:
    """What follows the series, [parity, ...] in all arguments: as aligned as the products `late` of the second half."""
    alignment = late * safe_ratio(jnp.ones_like(late), safe_sqrt(squares[0]) * safe_sqrt(squares[1]))
    first, second = rests
    size = safe_sqrt(jnp.abs(first)) * safe_sqrt(jnp.abs(second))
    size = jnp.where(first * second > 0, jnp.sign(first) * size, 0.0)
    even, odd = jax.lax.stop_gradient(jnp.clip(alignment, -1.0, 1.0) * size)
    odd = odd * power_tail(residual, num_terms, power)
    return even * power_tail(residual, num_terms - 1, power) + jnp.where(rho >= 0, odd, -odd)


def power_tail(residual: Array, start: int, power: float) -> Array:
    r""":math:`\int_K^\infty k^{-s} |\rho|^k dk`, relative to its value at |rho| = 1, for s = 3/2, 5/2 or between."""
    x = -start / 2 * jnp.log1p(-jnp.clip(residual, 0.0, 0.99))
    root = safe_sqrt(x)
    decay = jnp.exp(-x)
    steps = jnp.maximum(decay - jnp.pi**0.5 * root * jax.lax.erfc(root), 0.0)
    ramps = jnp.maximum(decay - 2 * x * steps, 0.0)
    return (2.5 - power) * steps + (power - 1.5) * ramps
