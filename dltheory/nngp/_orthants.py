"""Ramps and steps of two jointly Gaussian variables: what kinks of an activation contribute to its dual."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from dltheory._numerics import safe_sqrt
from dltheory.nngp._angles import angle, magnitude, safe_ratio, sine_excess
from dltheory.nngp.covariances import PairCovariance, correlation, correlation_gap
from dltheory.typing import Array

__all__ = ["RampProducts", "ramp_products", "step_products"]

_FAR = 1e4  # stands for an infinite argument


class RampProducts(NamedTuple):
    """Mean products of even ramps (x - t)_+ + (-x - t)_+ and odd ones (x - t)_+ - (-x - t)_+ at correlation |rho|.

    Attributes:
        even, odd: the mean products.
        aligned: either of them at correlation 1.
        even_loss, odd_loss: what they lack of that, without cancellation.
    """

    even: Array
    odd: Array
    aligned: Array
    even_loss: Array
    odd_loss: Array


def ramp_products(pairs: PairCovariance, threshold: float) -> RampProducts:
    """The mean products of ramps that start at +-t, t >= 0."""
    like, opposite = (_ramp_product(signed, threshold) for signed in _both_signs(pairs))
    loss = _ramp_loss(pairs, threshold)
    return RampProducts(
        even=2 * (like + opposite),
        odd=2 * (like - opposite),
        aligned=2 * _aligned_product(pairs, threshold),
        even_loss=jnp.maximum(2 * (loss - opposite), 0.0),
        odd_loss=2 * (loss + opposite),
    )


def step_products(pairs: PairCovariance, threshold: float) -> tuple[Array, Array]:
    """Mean products at |rho| of the slopes of even ramps, which are odd, and of those of odd ramps, which are even."""
    like, opposite = (_orthant_probability(signed, threshold) for signed in _both_signs(pairs))
    return 2 * (like - opposite), 2 * (like + opposite)


def _both_signs(pairs: PairCovariance) -> tuple[PairCovariance, PairCovariance]:
    size = magnitude(pairs.covariance)
    return pairs._replace(covariance=size), pairs._replace(covariance=-size)


def _orthant_probability(pairs: PairCovariance, threshold: float) -> Array:
    """P(u > t, v > t)."""
    rho, sine = correlation(pairs), safe_sqrt(pairs.residual)
    if threshold == 0:
        return angle(sine, -rho) / (2 * jnp.pi)
    h, k = _standardized(pairs, threshold)
    slope_h, slope_k = _slopes(h, k, pairs)
    both = _owens_t(jnp.stack([h, k]), jnp.stack([slope_h, slope_k]))
    return (ndtr(-h) + ndtr(-k)) / 2 - both[0] - both[1]


def _ramp_product(pairs: PairCovariance, threshold: float) -> Array:
    """E (u - t)_+ (v - t)_+ ."""
    rho, sine = correlation(pairs), safe_sqrt(pairs.residual)
    scale = safe_sqrt(pairs.variance1) * safe_sqrt(pairs.variance2)
    if threshold == 0:
        size = magnitude(rho)
        return (
            scale
            * (sine_excess(sine, size, pairs.residual / (1 + size)) + jnp.where(rho >= 0, jnp.pi * rho, 0.0))
            / (2 * jnp.pi)
        )
    h, k = _standardized(pairs, threshold)
    slope_h, slope_k = _slopes(h, k, pairs)
    probability = _orthant_probability(pairs, threshold)
    density_h, density_k = _density(h), _density(k)
    ramp = (rho + h * k) * probability - k * density_h * ndtr(-h * slope_h) - h * density_k * ndtr(-k * slope_k)
    ramp = ramp + sine * density_h * _density(h * slope_h)
    return jnp.maximum(scale * ramp, 0.0)


def _aligned_product(pairs: PairCovariance, threshold: float) -> Array:
    """E (u - t)_+ (v - t)_+ for v proportional to u."""
    scale = safe_sqrt(pairs.variance1) * safe_sqrt(pairs.variance2)
    h, k = _standardized(pairs, threshold) if threshold else (jnp.zeros_like(scale), jnp.zeros_like(scale))
    later = jnp.maximum(h, k)
    return scale * ((1 + h * k) * ndtr(-later) + (later - h - k) * _density(later))


def _ramp_loss(pairs: PairCovariance, threshold: float) -> Array:
    """What the product of ramps loses from correlation 1 to |rho|: the integral of the product of steps."""
    scale = safe_sqrt(pairs.variance1) * safe_sqrt(pairs.variance2)
    size = magnitude(correlation(pairs))
    gap = pairs.residual / (1 + size)
    if threshold == 0:
        return scale * (gap / 2 - sine_excess(safe_sqrt(pairs.residual), size, gap) / (2 * jnp.pi))

    def add_node(total: Array, rule: tuple[Array, Array]) -> tuple[Array, None]:
        node, weight = rule
        part = gap * node**2  # even steps of the angle, in which the integrand is smooth
        between = pairs._replace(covariance=scale * (1 - part), residual=part * (2 - part))
        return total + 2 * node * weight * _orthant_probability(between, threshold), None

    total, _ = jax.lax.scan(add_node, jnp.zeros_like(gap), _rule(6, gap.dtype))
    return scale * gap * total


def _standardized(pairs: PairCovariance, threshold: float) -> tuple[Array, Array]:
    """The threshold in standard deviations of u and of v."""

    def standardize(q: Array) -> Array:
        far = (threshold / _FAR) ** 2
        return jnp.where(q > far, threshold / jnp.sqrt(jnp.where(q > far, q, 1.0)), _FAR)

    h, k = standardize(pairs.variance1), standardize(pairs.variance2)
    return h + jnp.zeros_like(pairs.covariance), k + jnp.zeros_like(pairs.covariance)


def _slopes(h: Array, k: Array, pairs: PairCovariance) -> tuple[Array, Array]:
    """(k - rho h) / (h sin t) and (h - rho k) / (k sin t), from numerators without cancellation near rho = 1."""
    gap, sine = correlation_gap(pairs), safe_sqrt(pairs.residual)

    def slope(a: Array, b: Array) -> Array:
        ratio = (b - a) / a + gap
        at_limit = jnp.where(ratio == 0, 0.0, jnp.where(ratio > 0, _FAR, -_FAR))
        return jnp.where(sine > jnp.abs(ratio) / _FAR, safe_ratio(ratio, sine), at_limit)

    return slope(h, k), slope(k, h)


def _owens_t(h: Array, a: Array) -> Array:
    r"""Owen's T: :math:`\frac{1}{2\pi} \int_0^a \frac{\exp(-h^2 (1 + x^2) / 2)}{1 + x^2} dx`, for h > 0.

    Beyond a = 1 by T(h, a) + T(a h, 1/a) = (P + P') / 2 - P P' with the upper tails P of h and P' of a h.
    """
    size = jnp.abs(a)
    beyond = size > 1
    stretch = jnp.where(beyond, size, 1.0)
    scaled = h * stretch
    integral = _owens_integral(scaled, jnp.where(beyond, 1 / stretch, size))
    tail, scaled_tail = ndtr(-h), ndtr(-scaled)
    value = jnp.where(beyond, (tail + scaled_tail) / 2 - tail * scaled_tail - integral, integral)
    return jnp.where(a >= 0, value, -value)


def _owens_integral(h: Array, a: Array) -> Array:
    def add_node(total: Array, rule: tuple[Array, Array]) -> tuple[Array, None]:
        node, weight = rule
        square = 1 + (a * node) ** 2
        return total + weight * jnp.exp(-(h**2) * square / 2) / square, None

    size = 20 if h.dtype.itemsize >= 8 else 10
    total, _ = jax.lax.scan(add_node, jnp.zeros_like(h), _rule(size, h.dtype))
    return a * total / (2 * jnp.pi)


def _rule(size: int, dtype) -> tuple[Array, Array]:
    """Nodes and weights of a Gauss-Legendre rule on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(size)
    return jnp.asarray((1 + nodes) / 2, dtype), jnp.asarray(weights / 2, dtype)


def _density(x: Array) -> Array:
    return jnp.exp(-(x**2) / 2) / (2 * jnp.pi) ** 0.5
