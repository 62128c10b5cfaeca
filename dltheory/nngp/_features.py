"""Pairs of features: their moments, the digits of nearly equal ones, and changes of both."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dltheory._numerics import safe_sqrt
from dltheory.nngp._angles import safe_ratio
from dltheory.nngp.covariances import PairCovariance
from dltheory.typing import Array

__all__ = ["features", "moments_change", "threshold"]


def features(variance1: Array, variance2: Array, covariance: Array, gap: Array) -> PairCovariance:
    """Second moments with 1 - |rho| given. Derivatives of the residual are those of the other moments.

    To differentiate what makes the gap accurate would be dear, and no better: the derivative of 1 - rho^2 is smooth.
    """
    residual = _residual(variance1, variance2, covariance, jax.lax.stop_gradient(gap))
    return PairCovariance(variance1, variance2, covariance, residual)


@jax.custom_jvp
def _residual(variance1: Array, variance2: Array, covariance: Array, gap: Array) -> Array:
    del variance1, variance2, covariance
    return gap * (2 - gap)


@_residual.defjvp
def _residual_jvp(primals, tangents):
    variance1, variance2, covariance, gap = primals
    found = PairCovariance(variance1, variance2, covariance, _residual(variance1, variance2, covariance, gap))
    return found.residual, moments_change(found, *tangents[:3]).residual


def moments_change(pairs: PairCovariance, first: Array, second: Array, both: Array) -> PairCovariance:
    """Changes of all fields of pairs from those of the second moments."""

    def square(variance1: Array, variance2: Array, covariance: Array) -> Array:
        return safe_ratio(covariance, safe_sqrt(variance1) * safe_sqrt(variance2)) ** 2

    _, change = jax.jvp(square, pairs[:3], (first, second, both))
    return PairCovariance(first, second, both, -change)


def threshold(x: Array) -> float:
    """Where the error of a difference, epsilon / threshold, meets that of a second-order term, threshold^2."""
    return float(jnp.finfo(x.dtype).eps) ** 0.25
