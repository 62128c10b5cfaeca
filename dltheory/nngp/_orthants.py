"""Ramps and steps of two jointly Gaussian variables, off centre: what kinks of an activation contribute to its dual."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from dltheory.nngp._angles import angle, magnitude, safe_ratio, safe_sqrt, sine_excess
from dltheory.nngp.covariances import PairCovariance, correlation, correlation_gap
from dltheory.typing import Array

__all__ = ["orthant_probability", "ramp_loss", "ramp_product"]

_FAR = 1e4  # stands for an infinite argument
_LEGENDRE = {size: np.polynomial.legendre.leggauss(size) for size in (4, 10, 20)}


def orthant_probability(pairs: PairCovariance, threshold: float) -> Array:
    """P(u > t, v > t)."""
    rho, sine = correlation(pairs), safe_sqrt(pairs.residual)
    if threshold == 0:
        return angle(sine, -rho) / (2 * jnp.pi)
    h, k = _standardized(pairs, threshold)
    slope_h, slope_k = _slopes(h, k, pairs)
    # Of (-z1 < -h, -z2 < -k) by Owen's T function; h and k have the same sign.
    return (ndtr(-h) + ndtr(-k)) / 2 - _owens_t(h, slope_h) - _owens_t(k, slope_k)


def ramp_product(pairs: PairCovariance, threshold: float) -> Array:
    """E (u - t)_+ (v - t)_+ ."""
    rho, sine = correlation(pairs), safe_sqrt(pairs.residual)
    scale = safe_sqrt(pairs.variance1) * safe_sqrt(pairs.variance2)
    if threshold == 0:
        size = magnitude(rho)
        return scale * (sine_excess(sine, size) + jnp.where(rho >= 0, jnp.pi * rho, 0.0)) / (2 * jnp.pi)
    h, k = _standardized(pairs, threshold)
    slope_h, slope_k = _slopes(h, k, pairs)
    probability = orthant_probability(pairs, threshold)
    density_h, density_k = _density(h), _density(k)
    ramp = (rho + h * k) * probability - k * density_h * ndtr(-h * slope_h) - h * density_k * ndtr(-k * slope_k)
    ramp = ramp + sine * density_h * _density(h * slope_h)
    return jnp.maximum(scale * ramp, 0.0)


def ramp_loss(pairs: PairCovariance, threshold: float) -> Array:
    """What the product of ramps loses from correlation 1 to that of the pair."""
    scale = safe_sqrt(pairs.variance1) * safe_sqrt(pairs.variance2)
    gap = correlation_gap(pairs)
    aligned = pairs._replace(covariance=scale, residual=jnp.zeros_like(gap))
    if threshold == 0:
        size = magnitude(correlation(pairs))
        near = scale * (gap / 2 - sine_excess(safe_sqrt(pairs.residual), size) / (2 * jnp.pi))
    else:
        nodes, weights = _LEGENDRE[4]
        near = jnp.zeros_like(gap)
        for node, weight in zip((1 + nodes) / 2, weights / 2, strict=True):
            part = gap * float(node) ** 2
            between = pairs._replace(covariance=scale * (1 - part), residual=part * (2 - part))
            near = near + 2 * float(node * weight) * orthant_probability(between, threshold)
        near = scale * gap * near
    return jnp.where(gap < 0.1, near, ramp_product(aligned, threshold) - ramp_product(pairs, threshold))


def _standardized(pairs: PairCovariance, threshold: float) -> tuple[Array, Array]:
    """The threshold in standard deviations of u and of v."""

    def standardize(q: Array) -> Array:
        far = threshold**2 / _FAR**2
        return jnp.where(q > far, threshold / jnp.sqrt(jnp.where(q > far, q, 1.0)), np.sign(threshold) * _FAR)

    h, k = standardize(pairs.variance1), standardize(pairs.variance2)
    return h + jnp.zeros_like(k), k + jnp.zeros_like(h)


def _slopes(h: Array, k: Array, pairs: PairCovariance) -> tuple[Array, Array]:
    """(k - rho h) / (h sin t) and (h - rho k) / (k sin t), from numerators without cancellation near rho = 1."""
    gap, sine = correlation_gap(pairs), safe_sqrt(pairs.residual)

    def slope(a: Array, b: Array) -> Array:
        ratio = (b - a + a * gap) / a
        at_limit = jnp.where(ratio == 0, 0.0, jnp.where(ratio > 0, _FAR, -_FAR))
        return jnp.where(sine > jnp.abs(ratio) / _FAR, safe_ratio(ratio, sine), at_limit)

    return slope(h, k), slope(k, h)


def _owens_t(h: Array, a: Array) -> Array:
    r"""Owen's T: :math:`\frac{1}{2\pi} \int_0^a \frac{\exp(-h^2 (1 + x^2) / 2)}{1 + x^2} dx`."""
    h, size = jnp.abs(h), jnp.abs(a)
    inside = size <= 1
    near = _owens_integral(h, jnp.where(inside, size, 1.0))
    inverse = 1 / jnp.where(inside, 1.0, size)
    scaled = h * jnp.where(inside, 1.0, size)
    upper_h, upper_scaled = ndtr(-h), ndtr(-scaled)
    # T(h, a) + T(a h, 1/a) = (P + P') / 2 - P P' with the upper tails P of h and P' of a h.
    far = (upper_h + upper_scaled) / 2 - upper_h * upper_scaled - _owens_integral(scaled, inverse)
    return jnp.where(a >= 0, 1, -1) * jnp.where(inside, near, far)


def _owens_integral(h: Array, a: Array) -> Array:
    nodes, weights = _LEGENDRE[20 if h.dtype.itemsize >= 8 else 10]
    total = jnp.zeros_like(h)
    for node, weight in zip((1 + nodes) / 2, weights / 2, strict=True):
        square = 1 + (a * float(node)) ** 2
        total = total + float(weight) * jnp.exp(-(h**2) * square / 2) / square
    return a * total / (2 * jnp.pi)


def _density(x: Array) -> Array:
    return jnp.exp(-(x**2) / 2) / (2 * jnp.pi) ** 0.5
