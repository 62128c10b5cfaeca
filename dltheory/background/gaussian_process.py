"""Gaussian processes: samples of the prior, and the posterior under Gaussian observation noise."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from dltheory._checks import require, shapes
from dltheory._numerics import jittered_cholesky
from dltheory.typing import Array, KernelFn, PRNGKey

__all__ = ["GaussianProcessPosterior", "gp_posterior", "gp_sample"]


def gp_sample(key: PRNGKey, kernel: KernelFn, x: Array) -> Array:
    r"""The values of one sample path of a centred Gaussian process.

    .. math:: (F(x_1), \dots, F(x_n)) \sim \mathcal N(0, K), \qquad K_{ij} = k(x_i, x_j)

    Gram matrices of smooth kernels are singular to rounding; the least multiple of the identity that mends that is
    added.

    Args:
        key: random key.
        kernel: positive semi-definite kernel.
        x: inputs, shape [n, d].

    Returns:
        Values, shape [n]; NaN if the Gram matrix is indefinite beyond rounding.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.gaussian_process.  Source: Rasmussen and Williams 2006, Section 2.2.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> x = jnp.linspace(0, 1, 5)[:, None]
    >>> background.gp_sample(jax.random.key(0), lambda x1, x2: jnp.minimum(x1, x2.T), x).shape  # Brownian motion
    (5,)
    """
    n = shapes(x=(x, "n d"))["n"]
    gram = kernel(x, x)
    shapes(kernel=(gram, f"{n} {n}"))
    factor, _ = jittered_cholesky(gram)
    require(jnp.all(jnp.isfinite(factor)), "`kernel` must be positive semi-definite")
    return factor @ jax.random.normal(key, (n,), factor.dtype)


class GaussianProcessPosterior(NamedTuple):
    """Values of a Gaussian process at new inputs, given observations.

    Attributes:
        mean: posterior mean, shape [m].
        covariance: of the noiseless values, shape [m, m].
        jitter: what had to be added to the noise to make the Gram matrix positive definite, shape [].
    """

    mean: Array
    covariance: Array
    jitter: Array


def gp_posterior(kernel: KernelFn, x: Array, y: Array, x_new: Array, noise: Array) -> GaussianProcessPosterior:
    r"""Posterior of a centred Gaussian process given noisy observations.

    .. math::
        \mu &= K_{*} (K + \sigma^2 I)^{-1} y \\
        \Sigma &= K_{**} - K_{*} (K + \sigma^2 I)^{-1} K_{*}^T

    Args:
        kernel: positive semi-definite kernel.
        x: observed inputs, shape [n, d].
        y: observations, shape [n].
        x_new: inputs at which the posterior is wanted, shape [m, d].
        noise: variance sigma^2 of the observation noise, non-negative, shape [].

    Returns:
        Mean and covariance, and the jitter that was needed; NaN if the Gram matrix is indefinite beyond rounding or the
        noise is negative.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.gaussian_process.  Source: Rasmussen and Williams 2006, Algorithm 2.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> x = jnp.array([[1.0], [2.0]])
    >>> posterior = background.gp_posterior(
    ...     lambda x1, x2: jnp.minimum(x1, x2.T), x, jnp.array([0.0, 1.0]), jnp.array([[1.5]]), jnp.array(0.0)
    ... )
    >>> posterior.mean, posterior.covariance  # a Brownian bridge
    (Array([0.5], dtype=float32), Array([[0.25]], dtype=float32))
    """
    n = shapes(x=(x, "n d"), y=(y, "n"), x_new=(x_new, "m d"), noise=(noise, ""))["n"]
    require(noise >= 0, "`noise` must be non-negative")
    noise = jnp.where(noise >= 0, noise, jnp.nan)
    gram, cross = kernel(x, x), kernel(x, x_new)
    shapes(kernel=(gram, f"{n} {n}"))
    factor, jitter = jittered_cholesky(gram + noise * jnp.eye(n, dtype=gram.dtype))
    require(jnp.all(jnp.isfinite(factor)), "`kernel` must be positive semi-definite")
    explained = solve_triangular(factor, cross, lower=True)
    mean = cross.T @ cho_solve((factor, True), y)
    return GaussianProcessPosterior(mean=mean, covariance=kernel(x_new, x_new) - explained.T @ explained, jitter=jitter)
