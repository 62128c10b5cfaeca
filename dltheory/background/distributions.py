"""Log densities and log probabilities of the exponential, Bernoulli, binomial and Poisson distributions.

Counts are handled as Loader (2000) does: the large logarithms of factorials cancel against powers analytically, so that
a probability keeps its digits also for a million trials.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory._numerics import safe_log
from dltheory.background._terms import relative_entropy_term
from dltheory.typing import Array

__all__ = ["bernoulli_logpmf", "binomial_logpmf", "exponential_logpdf", "poisson_logpmf"]


def exponential_logpdf(x: Array, rate: Array) -> Array:
    r"""Log density of the exponential distribution.

    .. math:: \log \lambda - \lambda x, \qquad x \ge 0

    Args:
        x: where to evaluate, shape [].
        rate: the inverse of the mean, positive, shape [].

    Returns:
        Log density, shape []; minus infinity for x < 0, NaN if the rate is not positive.

    Raises:
        ValueError: if an argument is not a scalar.

    Statement: background.exponential.  Source: Grimmett and Stirzaker 2001, Section 4.4.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.exponential_logpdf(jnp.array(2.0), jnp.array(1.0)))
    -2.0
    """
    shapes(x=(x, ""), rate=(rate, ""))
    require(rate > 0, "`rate` must be positive")
    positive = jnp.where(rate > 0, rate, 1.0)
    logpdf = jnp.where(x >= 0, jnp.log(positive) - positive * x, -jnp.inf)
    return jnp.where(rate > 0, logpdf, jnp.nan)


def bernoulli_logpmf(x: Array, p: Array) -> Array:
    r"""Log probability of the Bernoulli distribution.

    .. math:: x \log p + (1 - x) \log(1 - p), \qquad x \in \{0, 1\}

    Args:
        x: outcome, shape [].
        p: probability of the outcome 1, shape [].

    Returns:
        Log probability in the dtype of `p`, shape []; minus infinity for an impossible outcome, NaN if p is not in
        [0, 1].

    Raises:
        ValueError: if an argument is not a scalar.

    Statement: background.bernoulli.  Source: Grimmett and Stirzaker 2001, Section 3.5.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> round(float(background.bernoulli_logpmf(jnp.array(1), jnp.array(0.5))), 4)
    -0.6931
    """
    shapes(x=(x, ""), p=(p, ""))
    require((p >= 0) & (p <= 1), "`p` must lie in [0, 1]")
    logpmf = jnp.where(x == 1, safe_log(p), _log_complement(p))
    logpmf = jnp.where((x == 0) | (x == 1), logpmf, -jnp.inf)
    return jnp.where((p >= 0) & (p <= 1), logpmf, jnp.nan)


def binomial_logpmf(x: Array, n: Array, p: Array) -> Array:
    r"""Log probability of the binomial distribution: the number of successes in independent trials.

    .. math:: \log \binom nx + x \log p + (n - x) \log(1 - p), \qquad x \in \{0, \dots, n\}

    Args:
        x: number of successes, shape [].
        n: number of trials, a non-negative integer, shape [].
        p: probability of success, shape [].

    Returns:
        Log probability in the dtype of `p`, shape []; minus infinity for an impossible number, NaN if p is not in
        [0, 1] or n is not a non-negative integer.

    Raises:
        ValueError: if an argument is not a scalar.

    Statement: background.binomial.  Source: Loader 2000.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> round(float(background.binomial_logpmf(jnp.array(1), jnp.array(2), jnp.array(0.5))), 4)
    -0.6931
    """
    shapes(x=(x, ""), n=(n, ""), p=(p, ""))
    require((p >= 0) & (p <= 1), "`p` must lie in [0, 1]")
    require((n >= 0) & (n == jnp.floor(n)), "`n` must be a non-negative integer")
    p = jnp.asarray(p)
    x, n = jnp.asarray(x, p.dtype), jnp.asarray(n, p.dtype)
    valid = (p >= 0) & (p <= 1) & (n >= 0) & (n == jnp.floor(n))
    possible = valid & (x >= 0) & (x <= n) & (x == jnp.floor(x))
    p, n, x = jnp.where(valid, p, 0.5), jnp.where(possible, n, 0.0), jnp.where(possible, x, 0.0)
    counts, means = jnp.stack([x, n - x]), jnp.stack([n * p, n * (1 - p)])
    missing = n * p - x
    divergence = relative_entropy_term(counts, means, jnp.stack([missing, -missing]))
    logpmf = _log_factorial_excess(n) - jnp.sum(_log_factorial_excess(counts) + divergence)
    return jnp.where(valid, jnp.where(possible, logpmf, -jnp.inf), jnp.nan)


def poisson_logpmf(x: Array, rate: Array) -> Array:
    r"""Log probability of the Poisson distribution: the number of rare independent events.

    .. math:: x \log \lambda - \lambda - \log x!, \qquad x \in \{0, 1, 2, \dots\}

    Args:
        x: number of events, shape [].
        rate: the mean, non-negative, shape [].

    Returns:
        Log probability in the dtype of `rate`, shape []; minus infinity for an impossible number, NaN if the rate is
        negative.

    Raises:
        ValueError: if an argument is not a scalar.

    Statement: background.poisson.  Source: Loader 2000.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.poisson_logpmf(jnp.array(0), jnp.array(2.0)))
    -2.0
    """
    shapes(x=(x, ""), rate=(rate, ""))
    require(rate >= 0, "`rate` must be non-negative")
    rate = jnp.asarray(rate)
    x = jnp.asarray(x, rate.dtype)
    possible = (x >= 0) & (x == jnp.floor(x))
    x, mean = jnp.where(possible, x, 0.0), jnp.where(rate >= 0, rate, 1.0)
    logpmf = -relative_entropy_term(x, mean, mean - x) - _log_factorial_excess(x)
    return jnp.where(rate >= 0, jnp.where(possible, logpmf, -jnp.inf), jnp.nan)


def _log_complement(p: Array) -> Array:
    """Log(1 - p), minus infinity at 1, with a finite derivative everywhere."""
    below_one = p < 1
    return jnp.where(below_one, jnp.log1p(-jnp.where(below_one, p, 0.0)), -jnp.inf)


def _log_factorial_excess(n: Array) -> Array:
    """Logarithm of n! / (n / e)^n for integers n: 0 at 0, and growing like half the logarithm of 2 pi n."""
    tabulated = jnp.asarray(_SMALL_EXCESSES, n.dtype)
    few = jnp.take(tabulated, n.astype("int32"), mode="clip")
    large = n >= len(_SMALL_EXCESSES)
    many = jnp.where(large, n, 1.0)
    series = jnp.polyval(jnp.asarray(_STIRLING, n.dtype), 1 / many**2, unroll=8) / many
    return jnp.where(large, 0.5 * jnp.log(2 * math.pi * many) + series, few)


_SMALL_EXCESSES = (0.0, *(math.log(math.factorial(n)) - n * math.log(n) + n for n in range(1, 16)))

# Bernoulli numbers over 2k (2k - 1), highest order first (Abramowitz and Stegun 1964, 6.1.40); the next term is below
# 1e-17 from n = 16 on.
_STIRLING = (-691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12)
