"""Functions of a kernel matrix, exact at eigenvalue zero and differentiable where eigenvalues coincide.

A function f of a symmetric matrix acts on the eigenvalues. Its derivative does not need those of the eigenvectors,
which do not exist where eigenvalues coincide (Daleckii and Krein 1965):

    d f(K) = V (F * (V^T dK V)) V^T,    F_ij = (f(l_i) - f(l_j)) / (l_i - l_j),    F_ii = f'(l_i).

Eigenvalues too close for the quotient are moved apart, symmetrically about their mean, by a third of the digits: the
error is then of second order in that distance, and F good to two thirds of the digits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require
from dltheory.typing import Array, Scalar

__all__ = ["Descent", "Flow", "Spectrum", "decompose", "growth", "remainder", "spectral_product"]


class Spectrum(NamedTuple):
    """A positive semi-definite matrix and its eigenvalues, largest first.

    Attributes:
        matrix: shape [n, n].
        values: eigenvalues, exactly zero where they count as zero, shape [n]; NaN if the matrix is no kernel.
        vectors: orthonormal eigenvectors in columns, shape [n, n].
        cutoff: up to which an eigenvalue plus ridge counts as zero, shape [].
        rank: number of eigenvalues (plus ridge) above, shape [].
    """

    matrix: Array
    values: Array
    vectors: Array
    cutoff: Array
    rank: Array


def decompose(matrix: Array, ridge: Scalar, rcond: Scalar | None) -> Spectrum:
    """Decomposes a kernel matrix; a matrix that is not symmetric or is indefinite beyond rounding gives NaN.

    Rounding is granted the square root of the precision. What is above zero by less than `rcond` times the largest
    eigenvalue, both with the ridge, counts as zero; by default n machine epsilons, the usual rule for ranks.
    """
    n, precision = matrix.shape[0], jnp.finfo(matrix.dtype)
    values, vectors = jnp.linalg.eigh(matrix)
    values, vectors = values[::-1], vectors[:, ::-1]
    fixed = jax.lax.stop_gradient(matrix)
    rounding = precision.eps**0.5 * jnp.max(jnp.abs(fixed))
    symmetric = jnp.max(jnp.abs(fixed - fixed.T)) <= rounding
    valid = symmetric & (values[-1] >= -precision.eps**0.5 * values[0]) & (ridge >= 0)
    require(valid, "the kernel on the training set must be symmetric positive semi-definite, and `ridge` non-negative")
    relative = jnp.asarray(n * precision.eps if rcond is None else rcond, matrix.dtype)
    cutoff = jax.lax.stop_gradient(relative * (jnp.maximum(values[0], 0) + ridge))
    kept = values + ridge > cutoff
    values = jnp.where(kept, jnp.maximum(values, 0), 0)
    return Spectrum(
        matrix=matrix,
        values=jnp.where(valid, values, jnp.nan),
        vectors=vectors,
        cutoff=cutoff,
        rank=jnp.sum(kept),
    )


class Flow(NamedTuple):
    """Gradient flow up to a time, infinity included; exp(-rate time) of a mode is left."""

    time: Array
    ridge: Scalar
    cutoff: Array

    @property
    def duration(self) -> Array:
        """Time."""
        return self.time

    def left(self, rate: Array) -> tuple[Array, Array]:
        """What is left of a mode with a given rate, and one less that."""
        forever = jnp.isinf(self.time)
        exponent = -rate * jnp.where(forever, 1.0, self.time)
        settled = jnp.where(rate == 0, 0.0, 1.0)
        return jnp.where(forever, 1 - settled, jnp.exp(exponent)), jnp.where(forever, settled, -jnp.expm1(exponent))

    def resolution(self, total: Array) -> Array:
        """Over what distance the functions of two rates, with the given sum, vary."""
        return total


class Descent(NamedTuple):
    """Gradient descent for a number of steps; (1 - learning rate * rate)^steps of a mode is left."""

    learning_rate: Scalar
    num_steps: Array
    ridge: Scalar
    cutoff: Array

    @property
    def duration(self) -> Array:
        """Learning rate times steps."""
        return self.learning_rate * self.num_steps

    def left(self, rate: Array) -> tuple[Array, Array]:
        """What is left of a mode with a given rate, and one less that."""
        num_steps = jax.lax.stop_gradient(self.num_steps)
        fraction = self.learning_rate * rate
        small = fraction < 0.5
        exponent = num_steps * jnp.log1p(-jnp.where(small, fraction, 0.0))  # 1 - fraction would round
        power = jnp.power(1 - jnp.where(small, 1.0, fraction), num_steps)
        return jnp.where(small, jnp.exp(exponent), power), jnp.where(small, -jnp.expm1(exponent), 1 - power)

    def resolution(self, total: Array) -> Array:
        """Over what distance the functions of two rates vary, beyond one over the duration."""
        return jnp.zeros_like(total)


def remainder(values: Array, motion: Flow | Descent) -> Array:
    """What is left of the training residual in modes with given eigenvalues: with a ridge never all of it goes."""
    rate = values + motion.ridge
    safe = jnp.where(rate == 0, 1.0, rate)
    return jnp.where(rate == 0, 1.0, (motion.ridge + values * motion.left(rate)[0]) / safe)


def growth(values: Array, motion: Flow | Descent) -> Array:
    """Dual coefficients per unit of residual: (1 - left) / rate, which is the duration at rate zero.

    A null vector v of a kernel has no effect anywhere, K(x, X) v = 0. Rounding does not know; so, once the duration is
    so long that a rate at the cutoff would have shown, modes that count as null are dropped, as by the pseudo-inverse.
    """
    rate = values + motion.ridge
    safe = jnp.where(rate == 0, 1.0, rate)
    coefficient = jnp.where(rate == 0, motion.duration, motion.left(rate)[1] / safe)
    return jnp.where((rate <= motion.cutoff) & _late(motion), 0.0, coefficient)


def _late(motion: Flow | Descent) -> Array:
    return motion.duration >= 1 / motion.cutoff


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _product(weigh, matrix, values, vectors, motion, columns):
    del matrix
    return vectors @ (weigh(values, motion)[:, None] * (vectors.T @ columns))


def spectral_product(
    weigh: Callable[[Array, Any], Array], spectrum: Spectrum, motion: Flow | Descent, columns: Array
) -> Array:
    """A function of a kernel matrix times columns [n, c], differentiable by the matrix, the motion and the columns."""
    return _product(weigh, spectrum.matrix, spectrum.values, spectrum.vectors, motion, columns)


@functools.partial(_product.defjvp, symbolic_zeros=True)
def _product_jvp(weigh, primals, tangents):
    _, values, vectors, motion, columns = primals
    d_matrix, _, _, d_motion, d_columns = tangents  # the tangent of the matrix says all about eigenvalues and vectors
    d_motion = jax.tree.map(_instantiate, motion, d_motion, is_leaf=_is_zero)
    weights, d_weights = jax.jvp(lambda m: weigh(values, m), (motion,), (d_motion,))
    coordinates = vectors.T @ columns
    d_coordinates = d_weights[:, None] * coordinates
    if not _is_zero(d_columns):
        d_coordinates += weights[:, None] * (vectors.T @ d_columns)
    if not _is_zero(d_matrix):
        rotated = vectors.T @ ((d_matrix + d_matrix.T) / 2) @ vectors
        d_coordinates += (_divided_differences(weigh, values, motion) * rotated) @ coordinates
    return vectors @ (weights[:, None] * coordinates), vectors @ d_coordinates


def _divided_differences(weigh: Callable[[Array, Any], Array], values: Array, motion: Flow | Descent) -> Array:
    first, second = values[:, None], values[None, :]
    middle, half = (first + second) / 2, jnp.abs(first - second) / 2
    duration = jnp.where(motion.duration > 0, motion.duration, 1.0)
    resolution = motion.resolution(first + second + 2 * motion.ridge) + jnp.where(_late(motion), 0.0, 1 / duration)
    apart = jnp.finfo(values.dtype).eps ** (1 / 3) * resolution
    distinct = half > apart
    apart = jnp.where(apart > 0, apart, 1.0)
    weights = weigh(values, motion)
    quotient = (weights[:, None] - weights[None, :]) / jnp.where(distinct, first - second, 1.0)
    derivative = (weigh(middle + apart, motion) - weigh(middle - apart, motion)) / (2 * apart)
    both_null = (middle + motion.ridge <= motion.cutoff) & _late(motion)
    return jnp.where(distinct, quotient, jnp.where(both_null, 0.0, derivative))


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def _instantiate(primal: Array, tangent: Any) -> Array:
    return jnp.zeros_like(primal) if _is_zero(tangent) else tangent
