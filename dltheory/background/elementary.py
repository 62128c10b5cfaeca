"""Series, logarithms, determinants and ridge functions: what the other formulae are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.typing import Array

__all__ = [
    "LogDeterminant",
    "geometric_limit",
    "geometric_partial_sum",
    "log1p_linear_error",
    "logdet_product",
    "ridge_function",
]


def log1p_linear_error(x: Array) -> Array:
    r"""What the approximation log(1 + x) = x leaves out, to full relative precision.

    .. math:: \log(1 + x) - x, \qquad
        -\frac{x^2}{2} \le \log(1 + x) - x \le 0 \quad (x \ge 0), \qquad
        |\log(1 + x) - x| \le \frac{x^2}{2 (1 - |x|)} \quad (|x| < 1)

    The plain difference loses all digits near 0. There a series in s = x / (2 + x) is summed instead, which comes from
    log(1 + x) = 2 artanh s. Divergences written with this function are sums of non-negative terms without cancellation.

    Args:
        x: any shape [...], each entry at least -1.

    Returns:
        Non-positive numbers, shape [...]; minus infinity at -1, NaN below.

    Raises:
        ValueError: if `x` is not an array.

    Statement: background.log1p_approx.  Source: Abramowitz and Stegun 1964, 4.1.24 and 4.1.27.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> print(f"{background.log1p_linear_error(jnp.array(1e-4)):.4e}")
    -4.9997e-09
    """
    shapes(x=(x, "..."))
    require(x >= -1, "`x` must be at least -1")
    near = jnp.abs(x) < 0.5  # XLA's log1p has lost two digits at -0.4
    inner, outer = jnp.where(near, x, 0.0), jnp.where(near, 1.0, x)
    s = inner / (2 + inner)
    # 2 artanh(s) - x = -x s + 2 s^3 (1/3 + s^2/5 + ...); |s| <= 1/3, so that 16 terms reach double precision.
    power = s * s
    tail = jnp.zeros_like(s)
    for k in range(33, 2, -2):
        tail = tail * power + 1 / k
    series = -inner * s + 2 * s * power * tail
    return jnp.where(near, series, jnp.log1p(outer) - outer)


def geometric_partial_sum(r: Array, n: Array) -> Array:
    r"""Sum of the first n + 1 powers of r.

    .. math:: \sum_{k=0}^n r^k = \frac{1 - r^{n+1}}{1 - r}

    Precise and differentiable in r everywhere, also near r = 1, where the quotient is 0 / 0 and the sum is n + 1.

    Args:
        r: ratio, shape [].
        n: exponent of the last term, a non-negative integer, shape [].

    Returns:
        The sum, shape [].

    Raises:
        ValueError: if `r` or `n` is not a scalar.

    Statement: background.geometric_series.  Source: Abramowitz and Stegun 1964, 3.1.10.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.geometric_partial_sum(jnp.array(2.0), jnp.array(3)))
    15.0
    """
    shapes(r=(r, ""), n=(n, ""))
    require(n >= 0, "`n` must be non-negative")
    r = jnp.asarray(r)
    m = jnp.asarray(n, r.dtype) + 1
    d = r - 1
    series = jnp.abs(m * d) < 1e-4
    near = (jnp.abs(d) < 0.5) & ~series

    # sum_j C(m, j + 1) d^j; the first term left out is below 1e-18 of the sum
    binomial = m * (1 + (m - 1) * d / 2 * (1 + (m - 2) * d / 3 * (1 + (m - 3) * d / 4)))
    small = jnp.where(near, d, 0.25)
    close = jnp.expm1(m * jnp.log1p(small)) / small
    large = jnp.where(series | near, 2.0, r)
    far = (jnp.power(large, m) - 1) / (large - 1)
    return jnp.where(series, binomial, jnp.where(near, close, far))


def geometric_limit(r: Array) -> Array:
    r"""Sum of all powers of r.

    .. math:: \sum_{k=0}^\infty r^k = \frac{1}{1 - r}, \qquad |r| < 1

    Args:
        r: ratio, any shape [...].

    Returns:
        The limit, shape [...]; infinity for r >= 1, where the sums grow without bound, and NaN for r <= -1, where they
        oscillate.

    Raises:
        ValueError: if `r` is not an array.

    Statement: background.geometric_series.  Source: Abramowitz and Stegun 1964, 3.6.10.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> background.geometric_limit(jnp.array([0.5, 1.0, -1.0]))
    Array([ 2., inf, nan], dtype=float32)
    """
    shapes(r=(r, "..."))
    require(jnp.abs(r) < 1, "`r` must lie in (-1, 1)")
    converges = jnp.abs(r) < 1
    limit = 1 / (1 - jnp.where(converges, r, 0.0))
    return jnp.where(converges, limit, jnp.where(r >= 1, jnp.inf, jnp.nan))


class LogDeterminant(NamedTuple):
    """A determinant as its sign and logarithm, which cannot overflow.

    Attributes:
        sign: -1, 0 or 1, shape [].
        logabsdet: logarithm of the absolute value, minus infinity for a singular matrix, shape [].
    """

    sign: Array
    logabsdet: Array


def logdet_product(a: Array, b: Array) -> LogDeterminant:
    r"""Determinant of a matrix product from the factors' determinants.

    .. math:: \det AB = \det A \, \det B

    Args:
        a, b: square matrices, shape [d, d].

    Returns:
        Sign and logarithm of |det AB|, both of shape [].

    Raises:
        ValueError: if `a` or `b` is not square or their sizes differ.

    Statement: background.det_product.  Source: Horn and Johnson 2013, 0.3.5.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> background.logdet_product(-jnp.eye(3), 2 * jnp.eye(3))
    LogDeterminant(sign=Array(-1., dtype=float32), logabsdet=Array(2.0794415, dtype=float32))
    """
    shapes(a=(a, "d d"), b=(b, "d d"))
    det_a, det_b = jnp.linalg.slogdet(a), jnp.linalg.slogdet(b)
    return LogDeterminant(sign=det_a.sign * det_b.sign, logabsdet=det_a.logabsdet + det_b.logabsdet)


def ridge_function(phi: Callable[[Array], Array], w: Array, b: Array, x: Array) -> Array:
    r"""A function of one linear feature: the response of a single neuron.

    .. math:: f(x) = \phi(w^T x + b)

    It is constant along every direction orthogonal to w. If phi is injective, each of its level sets is a hyperplane
    with normal w or empty; otherwise a level set may be several hyperplanes, a slab or a half-space.

    Args:
        phi: activation, maps an array of shape [] to one of shape [].
        w: weights, shape [d].
        b: bias, shape [].
        x: input, shape [d].

    Returns:
        The response, shape [].

    Raises:
        ValueError: if shapes disagree.

    Statement: background.level_sets.  Source: Pinkus 2015, Chapter 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.ridge_function(jnp.square, jnp.array([1.0, 2.0]), jnp.array(1.0), jnp.array([3.0, -1.0])))
    4.0
    """
    shapes(w=(w, "d"), b=(b, ""), x=(x, "d"))
    return phi(jnp.dot(w, x) + b)
