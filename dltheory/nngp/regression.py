"""Regression with a Gaussian process whose kernel matrices are given."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve

from dltheory._checks import require, shapes
from dltheory.typing import Array, ArrayLike

__all__ = ["GpEvidence", "GpPosterior", "gp_condition", "gp_evidence"]


class GpPosterior(NamedTuple):
    """A Gaussian process at new inputs, given observations.

    Attributes:
        mean: posterior means, shape [m, k] (or [m]).
        covariance: posterior covariance of the noiseless values, the same for every output, shape [m, m].
        rank: rank of the training covariance; below n it was singular to rounding and its pseudo-inverse was taken.
        misfit: norm of the part of the observations that the covariance cannot produce, 0 at full rank, shape [].
    """

    mean: Array
    covariance: Array
    rank: Array
    misfit: Array


class GpEvidence(NamedTuple):
    """The evidence for a kernel.

    Attributes:
        log_evidence: log density of the observations in nats, summed over outputs, shape []. At deficient rank it is
            the density on the range of the covariance, and minus infinity if the observations do not lie in it.
        rank: rank of the covariance.
    """

    log_evidence: Array
    rank: Array


def gp_condition(
    k_train: Array,
    k_test_train: Array,
    k_test: Array,
    y: Array,
    *,
    noise: ArrayLike = 0.0,
    rcond: float | None = None,
) -> GpPosterior:
    r"""Conditional of a centred Gaussian process given its (noisy) values.

    .. math::
        \mu &= K_{*} (K + \sigma^2 I)^\dagger y \\
        \Sigma &= K_{**} - K_{*} (K + \sigma^2 I)^\dagger K_{*}^T

    By Cholesky factorisation; where a pivot shows the matrix to be singular to rounding, by its pseudo-inverse from an
    eigendecomposition, which the rank reports. Derivatives of a pseudo-inverse are those at constant rank.

    Args:
        k_train: covariance K of the training values, symmetric positive semi-definite, shape [n, n].
        k_test_train: covariance K_* of test with training values, shape [m, n].
        k_test: covariance of the test values, shape [m, m].
        y: observations, shape [n] or [n, k]: k independent outputs with the same covariance.
        noise: variance sigma^2 of the observation noise, non-negative, shape [].
        rcond: eigenvalues below `rcond` times the largest count as zero, and a squared pivot below `rcond` times the
            largest diagonal entry as a sign of them; n times machine epsilon by default.

    Returns:
        The posterior. Its variances are at least 0. NaN where an entry is not finite, and everywhere if `noise` is
        negative or `k_train` is asymmetric, or indefinite, beyond the square root of the precision.

    Raises:
        ValueError: if shapes disagree.

    Statement: nngp.gp_conditional.  Source: Rasmussen and Williams 2006, equations 2.19 and 2.22-2.24.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> same = jnp.ones((2, 2))  # one value seen twice
    >>> nngp.gp_condition(same, jnp.ones((1, 2)), jnp.ones((1, 1)), jnp.array([1.0, 3.0]))
    GpPosterior(mean=Array([...], ...), covariance=..., rank=Array(1, ...), misfit=Array(1.41..., ...))
    """
    n = shapes(k_train=(k_train, "n n"), k_test_train=(k_test_train, "m n"), k_test=(k_test, "m m"))["n"]
    columns = _as_columns(y, n)
    shapes(noise=(noise, ""))
    dtype = jnp.result_type(k_train, k_test_train, k_test, y, float)
    k_train, k_test_train, k_test, columns = (
        jnp.asarray(array, dtype) for array in (k_train, k_test_train, k_test, columns)
    )
    matrix = _noisy(k_train, noise)
    targets = jnp.concatenate([columns, k_test_train.T], axis=1)
    solutions, _, rank = _solve(matrix, targets, rcond)
    coefficients, explained = jnp.split(solutions, [columns.shape[1]], axis=1)
    covariance = k_test - k_test_train @ explained
    covariance = (covariance + covariance.T) / 2
    negative = jnp.minimum(jnp.diag(covariance), 0.0)
    misfit = _misfit(matrix, columns, coefficients, rank)
    return GpPosterior(
        mean=(k_test_train @ coefficients).reshape(k_test_train.shape[0], *y.shape[1:]),
        covariance=covariance - jnp.diag(negative),
        rank=rank,
        misfit=misfit,
    )


def gp_evidence(k_train: Array, y: Array, *, noise: ArrayLike = 0.0, rcond: float | None = None) -> GpEvidence:
    r"""Log evidence of a centred Gaussian process: the log density of its (noisy) values.

    .. math:: \log p(y) = -\tfrac12 y^T K_\sigma^{-1} y - \tfrac12 \log \det K_\sigma - \tfrac n2 \log 2\pi, \qquad
              K_\sigma = K + \sigma^2 I

    A singular covariance has a density on its range, of dimension r: the pseudo-inverse, the product of the r non-zero
    eigenvalues, and r in place of n.

    Args:
        k_train: covariance K of the values, symmetric positive semi-definite, shape [n, n].
        y: observations, shape [n] or [n, k]: k independent outputs with the same covariance.
        noise: variance sigma^2 of the observation noise, non-negative, shape [].
        rcond: eigenvalues below `rcond` times the largest count as zero; n times machine epsilon by default.

    Returns:
        Log evidence and rank; NaN where `gp_condition` is.

    Raises:
        ValueError: if shapes disagree.

    Statement: nngp.gp_conditional.  Source: Rasmussen and Williams 2006, equation 2.30.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.gp_evidence(jnp.eye(2), jnp.zeros(2)).log_evidence + jnp.log(2 * jnp.pi)
    Array(0., dtype=float32)
    """
    n = shapes(k_train=(k_train, "n n"), noise=(noise, ""))["n"]
    columns = _as_columns(y, n)
    dtype = jnp.result_type(k_train, y, float)
    matrix, columns = _noisy(jnp.asarray(k_train, dtype), noise), jnp.asarray(columns, dtype)
    coefficients, log_determinant, rank = _solve(matrix, columns, rcond)
    misfit = _misfit(matrix, columns, coefficients, rank)
    size = jax.lax.stop_gradient(jnp.linalg.norm(columns))
    supported = misfit <= jnp.finfo(matrix.dtype).eps ** 0.5 * size
    dimension = log_determinant + rank * jnp.log(2 * jnp.pi)
    value = -(jnp.sum(columns * coefficients) + columns.shape[1] * dimension) / 2
    return GpEvidence(log_evidence=jnp.where(supported | jnp.isnan(misfit), value, -jnp.inf), rank=rank)


def _noisy(kernel: Array, noise: ArrayLike) -> Array:
    """A covariance with the variance of the noise on its diagonal, NaN if it cannot be one."""
    noise = jnp.asarray(noise, kernel.dtype)
    scale = jnp.max(jnp.abs(kernel), initial=0.0)
    symmetric = jnp.max(jnp.abs(kernel - kernel.T), initial=0.0) <= jnp.finfo(kernel.dtype).eps ** 0.5 * scale
    require(jnp.all(noise >= 0), "`noise` must be non-negative")
    require(symmetric, "`k_train` must be symmetric")
    matrix = kernel + noise * jnp.eye(len(kernel), dtype=kernel.dtype)
    return jnp.where(symmetric & (noise >= 0), matrix, jnp.nan)


def _as_columns(y: Array, n: int) -> Array:
    shapes(y=(y, f"{n}" if jnp.ndim(y) == 1 else f"{n} k"))
    return y[:, None] if jnp.ndim(y) == 1 else y


def _misfit(matrix: Array, columns: Array, coefficients: Array, rank: Array) -> Array:
    remainder = jax.lax.stop_gradient(columns - matrix @ coefficients)
    return jnp.where(rank < len(matrix), jnp.linalg.norm(remainder), 0.0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _solve(matrix: Array, targets: Array, rcond: float | None) -> tuple[Array, Array, Array]:
    """Pseudo-inverse times `targets` [n, k], log of the product of the non-zero eigenvalues, and their number."""
    n = len(matrix)
    threshold = n * float(jnp.finfo(matrix.dtype).eps) if rcond is None else rcond
    factor = jnp.linalg.cholesky(matrix)
    pivots = jnp.diag(factor)
    regular = jnp.min(pivots, initial=jnp.inf) ** 2 > threshold * jnp.max(jnp.diag(matrix), initial=0.0)

    def by_cholesky(targets: Array) -> tuple[Array, Array, Array]:
        return cho_solve((factor, True), targets), 2 * jnp.sum(jnp.log(pivots)), jnp.asarray(n)

    def by_eigenvalues(targets: Array) -> tuple[Array, Array, Array]:
        values, vectors = jnp.linalg.eigh(matrix)
        kept = values > threshold * jnp.max(jnp.abs(values), initial=0.0)
        safe = jnp.where(kept, values, 1.0)
        inverse = jnp.where(kept, 1 / safe, 0.0)
        solutions = vectors @ (inverse[:, None] * (vectors.T @ targets))
        least = -(jnp.finfo(matrix.dtype).eps ** 0.5) * jnp.max(jnp.abs(values), initial=0.0)
        valid = jnp.where(jnp.all(values >= least), 1.0, jnp.nan)  # also where a value is NaN
        return solutions * valid, jnp.sum(jnp.log(safe)) * valid, jnp.sum(kept)

    return jax.lax.cond(regular, by_cholesky, by_eigenvalues, targets)


@_solve.defjvp
def _solve_jvp(rcond, primals, tangents):
    (matrix, targets), (matrix_dot, targets_dot) = primals, tangents
    solutions, log_determinant, rank = _solve(matrix, targets, rcond)
    # One solve for the tangents of the solutions and for the trace of K^+ dK.
    moved, _, _ = _solve(matrix, jnp.concatenate([targets_dot - matrix_dot @ solutions, matrix_dot], axis=1), rcond)
    k = targets.shape[1]

    def turned() -> Array:
        """What the turning of the null space adds, K^+ K^+ dK (1 - K K^+) y + (1 - K K^+) dK K^+ K^+ y."""
        outside = matrix_dot @ (targets - matrix @ solutions)
        tilted = matrix_dot @ _solve(matrix, solutions, rcond)[0]
        once, _, _ = _solve(matrix, jnp.concatenate([outside, tilted], axis=1), rcond)
        return _solve(matrix, once[:, :k], rcond)[0] + tilted - matrix @ once[:, k:]

    turning = jax.lax.cond(rank < len(matrix), turned, lambda: jnp.zeros_like(solutions))
    no_change = np.zeros((), jax.dtypes.float0)
    return (solutions, log_determinant, rank), (moved[:, :k] + turning, jnp.trace(moved[:, k:]), no_change)
