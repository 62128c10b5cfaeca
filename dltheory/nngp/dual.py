"""Dual activations: what a nonlinearity does to the covariance of pairs of Gaussians."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._numerics import safe_sqrt
from dltheory.nngp._angles import inverse_sqrt, magnitude, safe_ratio
from dltheory.nngp._features import features, threshold
from dltheory.nngp.covariances import PairCovariance, correlation
from dltheory.typing import Array

__all__ = ["Dual", "smooth_dual"]

_LEGENDRE = np.polynomial.legendre.leggauss(4)
_NODES, _WEIGHTS = (1 + _LEGENDRE[0]) / 2, _LEGENDRE[1] / 2


class Dual(NamedTuple):
    r"""The dual of an activation phi: two functions, entry by entry, of pairs (u, v) of centred Gaussians.

    .. math:: T(u, v) = E \phi(u) \phi(v), \qquad \dot T(u, v) = E \phi'(u) \phi'(v)

    Both derive from the second moments of the pair alone, and :math:`\dot T = \partial T / \partial K_{12}` (Price
    1958). The first maps the covariance of pre-activations to that of features, the second multiplies the tangent
    kernel.

    Attributes:
        kernel: `PairCovariance` of (u, v) -> `PairCovariance` of (phi(u), phi(v)); uncentred second moments.
        derivative: `PairCovariance` of (u, v) -> E phi'(u) phi'(v), shape of the covariances.
    """

    kernel: Callable[[PairCovariance], PairCovariance]
    derivative: Callable[[PairCovariance], Array]


def smooth_dual(
    variance: Callable[[Array], Array],
    product: Callable[[PairCovariance], Array],
    derivative: Callable[[PairCovariance], Array],
    parity: int = 0,
    distance: Callable[[PairCovariance], Array] | None = None,
    loss: Callable[[PairCovariance, Array, Array], Array] | None = None,
) -> Dual:
    r"""The dual of a smooth activation from its closed form, with the digits kept where u and v are nearly equal.

    For :math:`p = \sqrt{K_{11} K_{22}}` and correlation rho,

    .. math:: \sqrt{T_{11} T_{22}} - T(\rho) = \left[\sqrt{T_{11} T_{22}} - T(1)\right]
              + p \int_\rho^1 \dot T(r) \, dr

    Where the left side is small, the integral is computed as such. The bracket vanishes for equal variances; where they
    are nearly equal it is taken to second order in the difference of their logarithms. Both are saved where the squared
    distance of the features has a closed form without cancellation:

    .. math:: \sqrt{T_{11} T_{22}} - T = \tfrac12 E (\phi(u) - \phi(v))^2 - \tfrac12 (\sqrt{T_{11}} - \sqrt{T_{22}})^2

    Args:
        variance: K_11 -> E phi(u)^2.
        product: pair -> E phi(u) phi(v).
        derivative: pair -> E phi'(u) phi'(v).
        parity: 1 if phi is even, -1 if it is odd: then pairs near rho = -1 are treated alike. 0 if it is neither.
        distance: pair -> E (phi(u) - phi(v))^2 / 2, relatively accurate for nearly equal u and v; with a parity, that
            of |phi(u)| and |phi(v)| for nearly opposite ones.
        loss: instead of that, (pair, :math:`\sqrt{T_{11} T_{22}}`, the plain difference) -> the left side itself, if it
            is dear: it is computed only if some pair needs it.

    Returns:
        The dual.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> square = nngp.smooth_dual(
    ...     lambda q: 3 * q**2,
    ...     lambda pairs: pairs.variance1 * pairs.variance2 + 2 * pairs.covariance**2,
    ...     lambda pairs: 4 * pairs.covariance,
    ...     parity=1,
    ... )
    >>> square.kernel(nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.5]))).covariance
    Array(1.5, dtype=float32)
    """

    def kernel(pairs: PairCovariance) -> PairCovariance:
        first, second = variance(pairs.variance1), variance(pairs.variance2)
        value = product(pairs)
        rho = correlation(pairs)
        folded = magnitude(rho) if parity else rho  # phi odd or even: only |rho| and a sign matter
        size = safe_sqrt(first) * safe_sqrt(second)
        plain = jnp.maximum(size - (magnitude(value) if parity else value), 0.0)
        near = plain < threshold(size) * size
        if loss is not None:
            needed = jnp.any(near & ((pairs.residual > 0) | (pairs.variance1 != pairs.variance2)))
            # Without derivatives: those of the residual come from the other moments.
            rough = jax.tree.map(jax.lax.stop_gradient, (pairs, size, plain))
            accurate = jax.lax.cond(needed, loss, lambda *given: jnp.zeros_like(given[-1]), *rough)
        elif distance is None:
            accurate = _aligned_loss(pairs, size) + _correlation_loss(pairs, folded)
        else:
            accurate = jnp.maximum(distance(pairs) - (safe_sqrt(first) - safe_sqrt(second)) ** 2 / 2, 0.0)
        lost = jnp.where(near, accurate, plain)
        # Rounding of nearly equal pairs would grow from layer to layer where it is not that of the variances.
        consistent = size - lost
        consistent = jnp.where(value >= 0, consistent, -consistent) if parity else consistent
        value = value + jax.lax.stop_gradient(jnp.where(near, consistent - value, 0.0))
        if not parity:  # the image of opposite pairs is an ordinary one
            lost = jnp.where(value >= 0, lost, size + value)
        inverse = inverse_sqrt(first) * inverse_sqrt(second)
        gap = jnp.where(inverse > 0, jnp.minimum(lost * inverse, 1.0), 1.0)
        return features(first, second, value, gap)

    def _correlation_loss(pairs: PairCovariance, folded: Array) -> Array:
        scale = safe_sqrt(pairs.variance1) * safe_sqrt(pairs.variance2)
        gap = safe_ratio(pairs.residual, 1 + folded, 1.0)
        total = jnp.zeros_like(pairs.covariance)
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            part = gap * float(node) ** 2  # even steps of the angle, in which kinks of phi leave T smooth
            between = PairCovariance(pairs.variance1, pairs.variance2, scale * (1 - part), part * (2 - part))
            total = total + 2 * float(node) * float(weight) * derivative(between)
        return scale * gap * total

    def _aligned_loss(pairs: PairCovariance, size: Array) -> Array:
        q1, q2 = pairs.variance1, pairs.variance2
        both = (q1 > 0) & (q2 > 0)
        logarithm = jnp.where(both, jnp.log(jnp.where(both, q1, 1.0)) - jnp.log(jnp.where(both, q2, 1.0)), 0.0)
        curvature = safe_sqrt(_curvature(q1)) * safe_sqrt(_curvature(q2))
        plain = jnp.maximum(size - jnp.abs(product(_parallel(q1, q2))), 0.0)
        equal = (jnp.abs(logarithm) < threshold(size)) & ((q1 > 0) == (q2 > 0))
        return jnp.where(equal, size * curvature * logarithm**2 / 2, plain)

    def _curvature(q: Array) -> Array:
        """d^2 log T / (d log K_11 d log K_22) of parallel pairs, at equal variances."""
        safe = jnp.where(q > 0, q, 1.0)

        def log_product(log1: Array, log2: Array) -> Array:
            return jnp.log(jnp.abs(product(_parallel(safe * jnp.exp(log1), safe * jnp.exp(log2)))))

        zero, one = jnp.zeros_like(q), jnp.ones_like(q)

        def along_first(log2: Array) -> Array:
            return jax.jvp(lambda log1: log_product(log1, log2), (zero,), (one,))[1]

        return jnp.where(q > 0, jax.jvp(along_first, (zero,), (one,))[1], 0.0)

    return Dual(kernel, derivative)


def _parallel(q1: Array, q2: Array) -> PairCovariance:
    covariance = jnp.sqrt(q1) * jnp.sqrt(q2)
    return PairCovariance(q1, q2, covariance, jnp.zeros_like(covariance))
