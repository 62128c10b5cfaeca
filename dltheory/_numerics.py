"""Numerically safe forms of functions that are singular where theory needs them: logs, norms, matrix roots."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dltheory.typing import Array

__all__ = ["jittered_cholesky", "psd_sqrt", "safe_log", "safe_norm", "safe_sqrt"]


def safe_log(x: Array) -> Array:
    """Log x where x > 0, minus infinity elsewhere; the gradient is 1/x where x > 0 and 0 elsewhere, never NaN.

    >>> safe_log(jnp.array([1.0, 0.0]))
    Array([  0., -inf], dtype=float32)
    """
    positive = x > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, x, 1.0)), -jnp.inf)


def safe_sqrt(x: Array) -> Array:
    """Square root of max(x, 0), whose derivative at 0 is 0 instead of infinity.

    >>> jax.grad(safe_sqrt)(0.0)
    Array(0., dtype=float32, weak_type=True)
    """
    empty = x <= 0  # false for NaN, which stays
    return jnp.where(empty, 0.0, jnp.sqrt(jnp.where(empty, 1.0, x)))


def safe_norm(x: Array, axis: int | None = None) -> Array:
    """Euclidean norm along `axis` (of all entries by default); its gradient at the zero vector is 0 instead of NaN.

    >>> jax.grad(safe_norm)(jnp.zeros(2))
    Array([0., 0.], dtype=float32)
    """
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0.0))
    zero = scale == 0
    scale = jnp.where((scale > 0) & (scale < jnp.inf), scale, 1.0)
    unit = x / scale  # squares of the entries neither overflow nor underflow
    total = jnp.sum(unit**2, axis=axis, keepdims=True)
    norm = jnp.where(zero, 0.0, scale * jnp.sqrt(jnp.where(zero, 1.0, total)))
    return jnp.squeeze(norm, axis)


@jax.custom_jvp
def psd_sqrt(matrix: Array) -> Array:
    """Symmetric square root of a positive semi-definite matrix [d, d]; eigenvalues below zero count as rounding.

    Derivatives are finite where eigenvalues are equal, as those of the identity are; pairs of directions in which the
    matrix vanishes count as constant.

    >>> psd_sqrt(jnp.array([[4.0, 0.0], [0.0, 0.0]]))
    Array([[2., 0.],
           [0., 0.]], dtype=float32)
    """
    return _root(matrix)[0]


@psd_sqrt.defjvp
def _psd_sqrt_jvp(primals, tangents):
    root, scales, vectors = _root(primals[0])
    sums = scales[None, :] + scales[:, None]  # S dS + dS S = d(S S), solved in the eigenbasis
    tangent = vectors.T @ ((tangents[0] + tangents[0].T) / 2) @ vectors
    quotient = jnp.where(sums > 0, tangent / jnp.where(sums > 0, sums, 1), 0)
    return root, vectors @ quotient @ vectors.T


def _root(matrix: Array) -> tuple[Array, Array, Array]:
    """The square root, its eigenvalues and its eigenvectors."""
    values, vectors = jnp.linalg.eigh(matrix)
    scales = jnp.sqrt(jnp.maximum(values, 0))
    return (vectors * scales[None, :]) @ vectors.T, scales, vectors


def jittered_cholesky(matrix: Array) -> tuple[Array, Array]:
    """Cholesky factor of a positive semi-definite matrix, after the least multiple of the identity that makes it work.

    Tries no jitter, then machine epsilon times the mean of the diagonal, then doubles, up to the square root of machine
    epsilon: a matrix that needs more is indefinite beyond rounding. In derivatives the jitter counts as a constant.

    Args:
        matrix: symmetric positive semi-definite up to rounding, shape [d, d].

    Returns:
        The lower factor [d, d], NaN if no jitter sufficed, and the jitter [] that was added.

    >>> factor, jitter = jittered_cholesky(jnp.ones((2, 2)))
    >>> bool(jnp.allclose(factor @ factor.T, jnp.ones((2, 2)), atol=1e-5))
    True
    """
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    fixed = jax.lax.stop_gradient(matrix)  # the search is a loop of unknown length, which has no reverse derivative
    unit = jnp.finfo(matrix.dtype).eps * jnp.mean(jnp.diag(fixed))
    max_doublings = jnp.finfo(matrix.dtype).nmant // 2

    def failed(carry):
        tries, factor, _ = carry
        return jnp.isnan(factor).any() & (tries <= max_doublings)

    def retry(carry):
        tries, _, jitter = carry
        jitter = jnp.where(tries == 0, unit, 2 * jitter)
        return tries + 1, jnp.linalg.cholesky(fixed + jitter * identity), jitter

    start = (0, jnp.linalg.cholesky(fixed), jnp.zeros((), matrix.dtype))
    _, _, jitter = jax.lax.while_loop(failed, retry, start)
    return jnp.linalg.cholesky(matrix + jitter * identity), jitter
