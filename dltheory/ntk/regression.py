"""Regression with a kernel matrix that may be singular."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.ntk._outputs import (
    as_blocks,
    as_columns,
    floating,
    from_columns,
    kernel_pattern,
    of_outputs,
    output_pattern,
)
from dltheory.ntk._spectral import Flow, decompose, growth, remainder, spectral_product
from dltheory.typing import Array, Scalar

__all__ = ["KernelRegression", "kernel_regression"]


class KernelRegression(NamedTuple):
    """The dual solution of a regression with a kernel.

    Attributes:
        coefficients: dual coefficients alpha, like the residual.
        unexplained: what they leave of the residual, r - K alpha, like the residual. Without a ridge it is the part of
            the residual that no coefficients reach, such as half the difference of conflicting labels.
        rank: numerical rank of the kernel matrix (plus ridge), shape [], or [k] for kernels [n, n, k].
        condition: ratio of the largest to the smallest eigenvalue (plus ridge) that is not counted as zero, shaped like
            the rank; times the precision it is the relative error of the coefficients.
    """

    coefficients: Array
    unexplained: Array
    rank: Array
    condition: Array


def kernel_regression(
    kernel: Array, residual: Array, *, ridge: Scalar = 0.0, rcond: Scalar | None = None
) -> KernelRegression:
    r"""Kernel regression: the coefficients of least squares, and among those the ones of least norm.

    .. math:: \alpha = K^\dagger r, \quad \text{with a ridge} \quad \alpha = (K + \rho I)^{-1} r

    The pseudo-inverse inverts the eigenvalues above a cutoff and drops the others, as it must where inputs are equal or
    the kernel has fewer features than there are numbers to fit. Look at `rank`, `condition` and `unexplained`:
    in single precision many kernels of smooth networks are singular to rounding.

    Args:
        kernel: K on the training set, symmetric positive semi-definite, shape [n, n] (one kernel for every output),
            [n, n, k] (one for each) or [n, n, k, k] (the full kernel).
        residual: r, targets minus outputs at initialisation, shape [n, k]; with a kernel [n, n] also [n].
        ridge: rho, non-negative, shape []; in units of the kernel, added to its diagonal. It stands for the penalty
            rho / 2 times the squared norm of the parameters' shift beside the sum of squares over 2.
        rcond: eigenvalues (plus ridge) up to this multiple of the largest count as zero; by default the size of the
            matrix times the precision.

    Returns:
        Coefficients, the part of the residual that they leave, numerical rank and condition number. NaN if the kernel
        is not symmetric or is indefinite beyond the square root of the precision, or the ridge is negative. Derivatives
        by the kernel are those at constant rank.

    Raises:
        ValueError: if shapes disagree.

    Statement: ntk.kernel_regression.  Source: Schölkopf, Herbrich and Smola 2001, theorem 1; Golub and Van Loan 2013,
    section 5.5.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> twice = jnp.array([[1.0, 1.0], [1.0, 1.0]])  # one input, given twice with different labels
    >>> fit = ntk.kernel_regression(twice, jnp.array([3.0, 1.0]))
    >>> print(fit.coefficients, fit.unexplained, fit.rank)
    [1. 1.] [ 1. -1.] 1
    """
    pattern = output_pattern(kernel, residual)
    shapes(kernel=(kernel, kernel_pattern("kernel", kernel)), residual=(residual, pattern), ridge=(ridge, ""))
    require(rcond is None or jnp.ndim(rcond) == 0, "`rcond` must be a scalar")
    kernel, residual = floating(kernel, residual)
    ridge = jnp.asarray(ridge, kernel.dtype)

    def solve(matrix, columns):
        spectrum = decompose(matrix, ridge, rcond)
        forever = Flow(time=jnp.full((), jnp.inf, matrix.dtype), ridge=ridge, cutoff=spectrum.cutoff)
        coefficients = spectral_product(growth, spectrum, forever, columns)
        unexplained = spectral_product(remainder, spectrum, forever, columns)
        eigenvalues = spectrum.values + ridge
        smallest = jnp.min(jnp.where(eigenvalues > spectrum.cutoff, eigenvalues, jnp.inf))
        return coefficients, unexplained, spectrum.rank, eigenvalues[0] / smallest

    coefficients, unexplained, rank, condition = jax.vmap(solve)(as_blocks(kernel), as_columns(residual, kernel.ndim))
    return KernelRegression(
        coefficients=from_columns(coefficients, kernel.ndim, residual.shape[1:]),
        unexplained=from_columns(unexplained, kernel.ndim, residual.shape[1:]),
        rank=of_outputs(rank, kernel.ndim),
        condition=of_outputs(condition, kernel.ndim),
    )
