"""Duals of activations that are homogeneous on either side of zero: the arc-cosine family."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from numpy.polynomial import Polynomial

from dltheory._checks import require
from dltheory._numerics import safe_sqrt
from dltheory.nngp._angles import angle, magnitude, sine_excess
from dltheory.nngp.covariances import PairCovariance, correlation, pair_covariance, require_broadcast
from dltheory.nngp.dual import Dual, smooth_dual
from dltheory.typing import Array, ArrayLike

__all__ = ["arccos_kernel", "rectified_monomial_dual", "rectifier_dual", "sign_dual"]


def arccos_kernel(k11: Array, k12: Array, k22: Array, *, degree: int = 1) -> Array:
    r"""Mean product of two rectified powers of jointly Gaussian variables: half the arc-cosine kernel.

    .. math:: E[u_+^n v_+^n] = \frac{(k_{11} k_{22})^{n/2}}{2 \pi} J_n(\vartheta), \quad
              \cos\vartheta = \frac{k_{12}}{\sqrt{k_{11} k_{22}}}, \quad
              J_0 = \pi - \vartheta, \quad J_1 = \sin\vartheta + (\pi - \vartheta) \cos\vartheta

    Args:
        k11, k12, k22: variance of u, covariance, variance of v; shapes that broadcast, of the same rank.
        degree: the power n: 0 for a step, 1 for ReLU, and so on.

    Returns:
        Mean products, of the broadcast shape. A variable of variance 0 counts as uncorrelated. Correlations beyond +-1
        are clipped.

    Raises:
        ValueError: if `degree` is negative, or the shapes do not broadcast.

    Statement: nngp.arccos_recursion.  Source: Cho and Saul 2009, equations 3-6.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.arccos_kernel(*jnp.array([1.0, 1.0, 1.0]))
    Array(0.5, dtype=float32)
    """
    require_broadcast(k11=k11, k12=k12, k22=k22)
    return rectified_monomial_dual(degree).kernel(pair_covariance(k11, k22, k12)).covariance


def rectifier_dual(negative_slope: ArrayLike = 0.0, positive_slope: ArrayLike = 1.0) -> Dual:
    r"""Dual of activations with one slope on either side of zero: ReLU, leaky ReLU, absolute value, the identity.

    .. math::
        \phi(x) &= b \max(x, 0) + a \min(x, 0) \\
        T &= \sqrt{K_{11} K_{22}} \left[ \frac{a^2 + b^2}{2} \cos\vartheta
             + \frac{(a - b)^2}{2 \pi} (\sin\vartheta - \vartheta \cos\vartheta) \right] \\
        \dot T &= \frac{a^2 + b^2}{2} - \frac{(a - b)^2}{2 \pi} \vartheta

    Args:
        negative_slope: a, shape [].
        positive_slope: b, shape [].

    Returns:
        The dual. The derivative dual of a pair one of which is 0 takes the two as uncorrelated.

    Statement: nngp.arccos_recursion.  Source: Cho and Saul 2009, equation 6; Tsuchida et al. 2018, Proposition 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.rectifier_dual(-1.0).derivative(nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.0])))
    Array(0., dtype=float32)
    """
    known = all(isinstance(slope, int | float) for slope in (negative_slope, positive_slope))
    positive = known and negative_slope * positive_slope <= 0  # pyright: ignore[reportOperatorIssue]

    def moments() -> tuple[Array, Array]:
        """Mean square slope, and the coefficient of the angle."""
        kink = jnp.square(jnp.subtract(negative_slope, positive_slope)) / (2 * jnp.pi)
        return (jnp.square(negative_slope) + jnp.square(positive_slope)) / 2, kink

    def kernel(pairs: PairCovariance) -> PairCovariance:
        # The new 1 - |rho'| follows without subtracting equal numbers anywhere.
        mean_square, kink = moments()
        weight = kink / mean_square
        even = jnp.multiply(negative_slope, positive_slope) / mean_square  # -1 for |x|, 1 for x
        rho = correlation(pairs)
        size = magnitude(rho)
        gap = pairs.residual / (1 + size)
        excess = weight * sine_excess(safe_sqrt(pairs.residual), size, gap)
        unlike = (jnp.abs(negative_slope) - jnp.abs(positive_slope)) ** 2 / (2 * mean_square)  # 1 - |even|
        folded = unlike + jnp.abs(even) * gap
        new_rho = jnp.where(rho >= 0, size, -even * size) + excess
        if positive:  # then no image has a negative correlation
            loss = jnp.where(rho >= 0, gap, folded) - excess
        else:
            same_sign = jnp.where(rho >= 0, gap, jnp.where(even < 0, folded, 1 + even * size)) - excess
            loss = jnp.where(new_rho >= 0, same_sign, folded + excess)
        loss = jnp.clip(loss, 0.0, 1.0)
        root1, root2 = mean_square * safe_sqrt(pairs.variance1), safe_sqrt(pairs.variance2)
        return PairCovariance(
            variance1=mean_square * pairs.variance1,
            variance2=mean_square * pairs.variance2,
            covariance=root1 * root2 * new_rho,
            residual=loss * (2 - loss),
        )

    def derivative(pairs: PairCovariance) -> Array:
        mean_square, kink = moments()
        return mean_square - kink * _pair_angle(pairs)

    return Dual(kernel, derivative)


def sign_dual() -> Dual:
    r"""Dual of the sign function.

    .. math:: T = 1 - \frac{2 \vartheta}{\pi} = \frac2\pi \arcsin \rho, \qquad \dot T = 0

    The mean product of the derivatives, which are delta functions, is infinite at equal inputs. It counts as 0 here, as
    gradient descent sees it: automatic differentiation finds the sign's derivative to be 0.

    Returns:
        The dual. A variable of variance 0 has the sign 0.

    Statement: nngp.arccos_recursion.  Source: Cho and Saul 2009, equation 5.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.sign_dual().kernel(nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.5]))).covariance.round(3)
    Array(0.333, dtype=float32)
    """

    def kernel(pairs: PairCovariance) -> PairCovariance:
        acute = angle(safe_sqrt(pairs.residual), magnitude(correlation(pairs)))
        loss = 2 / jnp.pi * acute
        first, second = (jnp.where(q > 0, jnp.ones_like(q), 0.0) for q in (pairs.variance1, pairs.variance2))
        value = first * second * jnp.where(pairs.covariance >= 0, 1 - loss, loss - 1)
        return PairCovariance(first, second, value, loss * (2 - loss))

    def derivative(pairs: PairCovariance) -> Array:
        return jnp.zeros_like(pairs.covariance)

    return Dual(kernel, derivative)


def rectified_monomial_dual(degree: int) -> Dual:
    r"""Dual of a rectified power: the arc-cosine family.

    .. math::
        \phi(x) &= x^n \, 1[x > 0] \\
        T &= \frac{(K_{11} K_{22})^{n/2}}{2 \pi} J_n(\vartheta), \qquad \dot T = n^2 \, T_{n-1} \\
        J_n &= (-1)^n (\sin\vartheta)^{2n + 1}
               \left( \frac{1}{\sin\vartheta} \frac{d}{d\vartheta} \right)^n \frac{\pi - \vartheta}{\sin\vartheta}
             = a_n(\cos\vartheta) (\pi - \vartheta) + b_n(\cos\vartheta) \sin\vartheta

    The polynomials a_n and b_n follow by differentiating n times.

    Args:
        degree: the power n. At 0 the derivative dual counts as 0 (see `sign_dual`).

    Returns:
        The dual. A variable of variance 0 counts as uncorrelated.

    Raises:
        ValueError: if `degree` is negative.

    Statement: nngp.arccos_recursion.  Source: Cho and Saul 2009, equations 3-8.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 1.0]))
    >>> nngp.rectified_monomial_dual(2).kernel(pairs).covariance
    Array(1.5, dtype=float32)
    """
    require(degree >= 0, "`degree` must be non-negative")
    if degree == 0:
        return Dual(_step_kernel, lambda pairs: jnp.zeros_like(pairs.covariance))
    if degree == 1:
        return rectifier_dual()
    half_moment = math.prod(range(2 * degree - 1, 0, -2)) / 2
    return smooth_dual(
        variance=lambda q: half_moment * q**degree,
        product=lambda pairs: _arccos_product(pairs, degree),
        derivative=lambda pairs: degree**2 * _arccos_product(pairs, degree - 1),
    )


def _step_kernel(pairs: PairCovariance) -> PairCovariance:
    loss = _pair_angle(pairs) / jnp.pi
    first, second = (jnp.full_like(q, 0.5) for q in (pairs.variance1, pairs.variance2))
    return PairCovariance(first, second, (1 - loss) / 2, loss * (2 - loss))


def _arccos_product(pairs: PairCovariance, degree: int) -> Array:
    on_angle, on_sine = _arccos_polynomials(degree)
    cosine, sine = correlation(pairs), safe_sqrt(pairs.residual)
    power = (safe_sqrt(pairs.variance1) * safe_sqrt(pairs.variance2)) ** degree
    remaining = angle(sine, -cosine)  # pi - theta
    return power * (_evaluate(on_angle, cosine) * remaining + _evaluate(on_sine, cosine) * sine) / (2 * jnp.pi)


def _arccos_polynomials(degree: int) -> tuple[Polynomial, Polynomial]:
    """The polynomials a_n and b_n of J_n = a_n(cos t) (pi - t) + b_n(cos t) sin t."""
    cosine, square_sine = Polynomial([0.0, 1.0]), Polynomial([1.0, 0.0, -1.0])
    on_angle, on_sine = Polynomial([1.0]), Polynomial([0.0])
    for n in range(degree):  # the derivative of a (pi - t) / sin^(2n+1) + b / sin^(2n) with respect to cos t
        on_sine = on_angle + on_sine.deriv() * square_sine + 2 * n * cosine * on_sine
        on_angle = on_angle.deriv() * square_sine + (2 * n + 1) * cosine * on_angle
    return on_angle, on_sine


def _evaluate(polynomial: Polynomial, x: Array) -> Array:
    value = jnp.zeros_like(x)
    for coefficient in np.asarray(polynomial.coef)[::-1]:
        value = value * x + float(coefficient)
    return value


def _pair_angle(pairs: PairCovariance) -> Array:
    return angle(safe_sqrt(pairs.residual), correlation(pairs))
