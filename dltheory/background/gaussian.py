"""The multivariate normal distribution: density, samples, moment generating function, divergence.

No covariance is ever inverted: everything goes through triangular solves with its Cholesky factor.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from dltheory._checks import require, shapes
from dltheory.background._terms import relative_entropy_term
from dltheory.typing import Array, PRNGKey

__all__ = ["gaussian_kl", "gaussian_kl_diag", "gaussian_log_mgf", "gaussian_logpdf", "gaussian_sample"]


def gaussian_logpdf(x: Array, mean: Array, cov: Array) -> Array:
    r"""Log density of the normal distribution.

    .. math:: -\tfrac12 (x - \mu)^T \Sigma^{-1} (x - \mu) - \tfrac12 \log\det\Sigma - \tfrac d2 \log 2\pi

    Args:
        x: where to evaluate, shape [d].
        mean: mean, shape [d].
        cov: covariance, symmetric positive definite, shape [d, d].

    Returns:
        Log density, shape []; NaN if the covariance is not positive definite.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.gaussian_density.  Source: Bishop 2006, (2.43).

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> round(float(background.gaussian_logpdf(jnp.zeros(2), jnp.zeros(2), jnp.eye(2))), 4)  # -log(2 pi)
    -1.8379
    """
    d = shapes(x=(x, "d"), mean=(mean, "d"), cov=(cov, "d d"))["d"]
    factor = _cholesky(cov=cov)
    white = solve_triangular(factor, x - mean, lower=True)
    return -0.5 * (jnp.sum(white**2) + d * math.log(2 * math.pi)) - jnp.sum(jnp.log(jnp.diag(factor)))


def gaussian_sample(key: PRNGKey, mean: Array, cov: Array, shape: tuple[int, ...] = ()) -> Array:
    r"""Independent samples of the normal distribution.

    .. math:: x = \mu + L \epsilon, \qquad L L^T = \Sigma, \quad \epsilon \sim \mathcal N(0, I)

    Args:
        key: random key.
        mean: mean, shape [d].
        cov: covariance, symmetric positive definite, shape [d, d].
        shape: how many samples, in which arrangement.

    Returns:
        Samples, shape [*shape, d], differentiable in mean and covariance; NaN if the covariance is not positive
        definite.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.gaussian_density.  Source: Bishop 2006, Section 11.1.1.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> background.gaussian_sample(jax.random.key(0), jnp.zeros(2), jnp.eye(2), shape=(5,)).shape
    (5, 2)
    """
    d = shapes(mean=(mean, "d"), cov=(cov, "d d"))["d"]
    factor = _cholesky(cov=cov)
    noise = jax.random.normal(key, (*shape, d), factor.dtype)
    return jnp.broadcast_to(mean, noise.shape) + noise @ factor.T


def gaussian_log_mgf(mean: Array, cov: Array, t: Array) -> Array:
    r"""Logarithm of the moment generating function of the normal distribution.

    .. math:: \log \mathbb E\, e^{t^T X} = t^T \mu + \tfrac12 t^T \Sigma t

    Args:
        mean: mean, shape [d].
        cov: covariance, symmetric positive semi-definite, shape [d, d].
        t: argument, shape [d].

    Returns:
        Shape [].

    Raises:
        ValueError: if shapes disagree.

    Statement: background.gaussian_mgf.  Source: Grimmett and Stirzaker 2001, Section 5.8.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.gaussian_log_mgf(jnp.zeros(2), jnp.eye(2), jnp.array([1.0, 2.0])))
    2.5
    """
    shapes(mean=(mean, "d"), cov=(cov, "d d"), t=(t, "d"))
    return jnp.dot(t, mean) + 0.5 * jnp.dot(t, cov @ t)


def gaussian_kl(mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> Array:
    r"""Kullback-Leibler divergence from one normal distribution to another.

    .. math:: \mathrm{KL}(P \| Q) = \tfrac12 \big( \Delta^T \Sigma_q^{-1} \Delta
        + \operatorname{tr} \Sigma_q^{-1} \Sigma_p - \log \tfrac{|\Sigma_p|}{|\Sigma_q|} - d \big),
        \qquad \Delta = \mu_q - \mu_p

    Computed as a sum of non-negative terms, so that it is precise also where P is close to Q.

    Args:
        mean_p, mean_q: means, shape [d].
        cov_p, cov_q: covariances, symmetric positive definite, shape [d, d].

    Returns:
        Divergence in nats, shape []; NaN if a covariance is not positive definite.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.gaussian_kl.  Source: Bishop 2006, exercise 2.13.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.gaussian_kl(jnp.zeros(1), jnp.eye(1), jnp.ones(1), jnp.eye(1)))
    0.5
    """
    shapes(mean_p=(mean_p, "d"), cov_p=(cov_p, "d d"), mean_q=(mean_q, "d"), cov_q=(cov_q, "d d"))
    factor_p, factor_q = _cholesky(cov_p=cov_p), _cholesky(cov_q=cov_q)
    ratio = solve_triangular(factor_q, factor_p, lower=True)  # the trace is the sum of its squares
    white = solve_triangular(factor_q, mean_q - mean_p, lower=True)
    scale = jnp.diag(ratio)
    excess = relative_entropy_term(jnp.ones_like(scale), scale**2, (scale - 1) * (scale + 1))  # s^2 - 1 - log s^2
    return 0.5 * (jnp.sum(white**2) + jnp.sum(jnp.tril(ratio, -1) ** 2) + jnp.sum(excess))


def gaussian_kl_diag(mean_p: Array, var_p: Array, mean_q: Array, var_q: Array) -> Array:
    r"""Kullback-Leibler divergence between normal distributions with diagonal covariances.

    .. math:: \tfrac12 \sum_i \Big( \frac{(\mu_{q,i} - \mu_{p,i})^2}{v_{q,i}} + \frac{v_{p,i}}{v_{q,i}} - 1
        - \log \frac{v_{p,i}}{v_{q,i}} \Big)

    Args:
        mean_p, mean_q: means, shape [d].
        var_p, var_q: variances, positive, shape [d].

    Returns:
        Divergence in nats, shape []; infinity if a variance is 0, NaN if one is negative.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.gaussian_kl.  Source: Kingma and Welling 2014, Appendix B.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.gaussian_kl_diag(jnp.zeros(3), jnp.ones(3), jnp.ones(3), jnp.ones(3)))
    1.5
    """
    shapes(mean_p=(mean_p, "d"), var_p=(var_p, "d"), mean_q=(mean_q, "d"), var_q=(var_q, "d"))
    require(var_p > 0, "`var_p` must be positive")
    require(var_q > 0, "`var_q` must be positive")
    valid = (var_p > 0) & (var_q > 0)
    p, q = jnp.where(valid, var_p, 1.0), jnp.where(valid, var_q, 1.0)
    # log(q / p) + p / q - 1 is a relative entropy term over its first argument.
    terms = ((mean_q - mean_p) ** 2 + relative_entropy_term(q, p, p - q)) / q
    terms = jnp.where(valid, terms, jnp.inf)
    return jnp.where(jnp.all((var_p >= 0) & (var_q >= 0)), 0.5 * jnp.sum(terms), jnp.nan)


def _cholesky(**argument: Array) -> Array:
    ((name, cov),) = argument.items()
    factor = jnp.linalg.cholesky(cov)
    require(jnp.all(jnp.isfinite(factor)), f"`{name}` must be positive definite")
    return factor
