"""Angles between unit vectors from their sines and cosines, by polynomials.

On a CPU, XLA calls the C library for `acos` and `atan2`, number by number. The quotient theta / sin(theta) is an
analytic function of 1 - cos(theta), so that a short polynomial does the same at the speed of memory.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import chebyshev

from dltheory.typing import Array

__all__ = ["angle", "as_correlation", "inverse_sqrt", "magnitude", "safe_ratio", "sine_excess"]

_OCTANT = 1 - np.sqrt(0.5)  # 1 - cos(pi / 4)


def inverse_sqrt(x: Array) -> Array:
    """1 / sqrt(x), and 0 with derivative 0 where x <= 0: what a vanishing variance divides by gives 0.

    >>> inverse_sqrt(jnp.array([4.0, 0.0]))
    Array([0.5, 0. ], dtype=float32)
    """
    empty = x <= 0
    return jnp.where(empty, 0.0, 1 / jnp.sqrt(jnp.where(empty, 1.0, x)))


def safe_ratio(numerator: Array, denominator: Array, default: float = 0.0) -> Array:
    """Quotient, or `default` where the denominator is 0.

    >>> safe_ratio(jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0]))
    Array([0.5, 0. ], dtype=float32)
    """
    usable = denominator != 0
    return jnp.where(usable, numerator / jnp.where(usable, denominator, 1.0), default)


def magnitude(x: Array) -> Array:
    """Absolute value whose derivative at 0 is that from the right, so that it belongs to the branch ``x >= 0``.

    >>> jax.grad(magnitude)(0.0)
    Array(1., dtype=float32, weak_type=True)
    """
    return jnp.where(x >= 0, x, -x)


def as_correlation(x: Array) -> Array:
    """A correlation within [-1, 1], which it leaves by rounding only: its derivative is that of what was rounded.

    >>> jax.grad(as_correlation)(1.0)
    Array(1., dtype=float32, weak_type=True)
    """
    return x + jax.lax.stop_gradient(jnp.clip(x, -1.0, 1.0) - x)


@jax.custom_jvp
def angle(sine: Array, cosine: Array) -> Array:
    """Angle in [0, pi] of the point (cosine, sine) of the unit circle, sine >= 0.

    Relative accuracy is that of the dtype near 0, absolute accuracy everywhere. Both coordinates are asked for because
    neither alone determines the angle well: the cosine fails at 0 and pi, the sine at pi / 2.

    >>> angle(jnp.array([0.0, 1.0, 0.0]), jnp.array([1.0, 0.0, -1.0]))
    Array([0.       , 1.5707964, 3.1415927], dtype=float32)
    """
    acute, _ = _acute(sine, magnitude(cosine))
    return jnp.where(cosine >= 0, acute, jnp.pi - acute)


@angle.defjvp
def _angle_jvp(primals, tangents):
    (sine, cosine), (sine_dot, cosine_dot) = primals, tangents
    return angle(sine, cosine), cosine * sine_dot - sine * cosine_dot


@jax.custom_jvp
def sine_excess(sine: Array, cosine: Array, gap: Array) -> Array:
    """``sin(t) - t cos(t)`` for the angle t in [0, pi/2], relatively accurate down to t = 0, where it is t^3 / 3.

    The gap is ``1 - cos(t)``, which has to be relatively accurate too.

    >>> float(sine_excess(jnp.sin(1e-3), jnp.cos(1e-3), jnp.array(5e-7)) / 1e-9)
    0.3333...
    """
    acute, ratio = _acute(sine, cosine)
    return jnp.where(cosine >= sine, sine * gap * (1 - ratio * cosine), sine - acute * cosine)


@sine_excess.defjvp
def _sine_excess_jvp(primals, tangents):
    (sine, cosine, gap), (_, cosine_dot, _) = primals, tangents
    # d(sin t - t cos t) = -t d(cos t), because sin d(sin) + cos d(cos) = 0 on the circle.
    return sine_excess(sine, cosine, gap), -angle(sine, cosine) * cosine_dot


def _acute(sine: Array, cosine: Array) -> tuple[Array, Array]:
    """Angle in [0, pi/2], and R(g) of the octant: theta = sin(theta) (1 + g R(g)), g = 1 - cos(theta)."""
    large, small = jnp.maximum(sine, cosine), jnp.minimum(sine, cosine)
    # Not 1 - large, which would do: XLA computes what has no division in it again for everyone who uses it.
    gap = small**2 / (1 + large)
    ratio = _horner(_octant_polynomial(jnp.result_type(gap).itemsize), gap)
    octant = small * (1 + gap * ratio)
    return jnp.where(cosine >= sine, octant, jnp.pi / 2 - octant), ratio


@functools.cache
def _octant_polynomial(itemsize: int) -> tuple[float, ...]:
    """Coefficients of R(g) on [0, 1 - cos(pi/4)], highest first; the nearest singularity is at g = 2.

    Chebyshev interpolation gains a factor of 25 with every degree.
    """
    degree = 11 if itemsize >= 8 else 5
    centre = _OCTANT / 2
    points = chebyshev.chebpts1(degree + 1)
    coefficients = chebyshev.chebfit(points, _exact_ratio(centre * (1 + points)), degree)
    powers = np.polynomial.Polynomial(chebyshev.cheb2poly(coefficients))
    shifted = powers(np.polynomial.Polynomial([-1.0, 1 / centre]))
    return tuple(float(c) for c in shifted.coef[::-1])  # pyright: ignore[reportAttributeAccessIssue]


def _exact_ratio(gap: np.ndarray) -> np.ndarray:
    """(theta / sin(theta) - 1) / g by its power series, sum_k of c_k g^(k-1) with c_k = c_(k-1) k / (2k + 1)."""
    total, term = np.zeros_like(gap), np.ones_like(gap)
    for k in range(1, 60):
        term = term * k / (2 * k + 1)
        total = total + term
        term = term * gap
    return total


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    value = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
