"""Moment generating functions, in logarithms: closed forms, sums, samples, and moments from derivatives at 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.experimental import jet

from dltheory._checks import require, shapes
from dltheory.typing import Array

__all__ = [
    "bernoulli_log_mgf",
    "binomial_log_mgf",
    "empirical_log_mgf",
    "exponential_log_mgf",
    "log_mgf_of_sum",
    "moment_from_mgf",
    "poisson_log_mgf",
]


def empirical_log_mgf(samples: Array, t: Array) -> Array:
    r"""Logarithm of the moment generating function of the law that gives every sample the same weight.

    .. math:: \log \frac1n \sum_{i=1}^n e^{t^T x_i}

    As an estimate of the true function it is biased downwards, badly so where few samples carry the sum.

    Args:
        samples: samples, shape [n, d].
        t: argument, shape [d].

    Returns:
        Shape [].

    Raises:
        ValueError: if shapes disagree or there is no sample.

    Statement: background.mgf.  Source: Boucheron, Lugosi and Massart 2013, Section 2.2.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> round(float(background.empirical_log_mgf(jnp.array([[-1.0], [1.0]]), jnp.array([1.0]))), 4)  # log cosh 1
    0.4338
    """
    n = shapes(samples=(samples, "n d"), t=(t, "d"))["n"]
    require(n > 0, "`samples` must not be empty")
    return jax.nn.logsumexp(samples @ t) - jnp.log(n)


def exponential_log_mgf(rate: Array, t: Array) -> Array:
    r"""Logarithm of the moment generating function of the exponential distribution.

    .. math:: -\log(1 - t / \lambda), \qquad t < \lambda

    Args:
        rate: the inverse of the mean, positive, shape [].
        t: argument, shape [].

    Returns:
        Shape []; infinity for t >= rate, NaN if the rate is not positive.

    Raises:
        ValueError: if an argument is not a scalar.

    Statement: background.mgf.  Source: Grimmett and Stirzaker 2001, Section 5.7.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> round(float(background.exponential_log_mgf(jnp.array(2.0), jnp.array(1.0))), 4)
    0.6931
    """
    shapes(rate=(rate, ""), t=(t, ""))
    require(rate > 0, "`rate` must be positive")
    exists = (t < rate) & (rate > 0)
    ratio = jnp.where(exists, t, 0.0) / jnp.where(rate > 0, rate, 1.0)
    return jnp.where(exists, -jnp.log1p(-ratio), jnp.where(rate > 0, jnp.inf, jnp.nan))


def bernoulli_log_mgf(p: Array, t: Array) -> Array:
    r"""Logarithm of the moment generating function of the Bernoulli distribution.

    .. math:: \log(1 - p + p e^t)

    Args:
        p: probability of the outcome 1, shape [].
        t: argument, shape [].

    Returns:
        Shape []; NaN if p is not in [0, 1].

    Raises:
        ValueError: if an argument is not a scalar.

    Statement: background.mgf.  Source: Grimmett and Stirzaker 2001, Section 5.7.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> round(float(background.bernoulli_log_mgf(jnp.array(0.5), jnp.array(100.0))), 4)
    99.3069
    """
    shapes(p=(p, ""), t=(t, ""))
    require((p >= 0) & (p <= 1), "`p` must lie in [0, 1]")
    valid = (p >= 0) & (p <= 1)
    p = jnp.where(valid, p, 0.5)
    near = jnp.abs(t) < 1
    small = jnp.log1p(p * jnp.expm1(jnp.where(near, t, 0.0)))
    shift = jnp.maximum(t, 0.0)
    large = shift + jnp.log((1 - p) * jnp.exp(-shift) + p * jnp.exp(t - shift))
    return jnp.where(valid, jnp.where(near, small, large), jnp.nan)


def binomial_log_mgf(n: Array, p: Array, t: Array) -> Array:
    r"""Logarithm of the moment generating function of the binomial distribution.

    .. math:: n \log(1 - p + p e^t)

    Args:
        n: number of trials, a non-negative integer, shape [].
        p: probability of success, shape [].
        t: argument, shape [].

    Returns:
        Shape []; NaN if p is not in [0, 1].

    Raises:
        ValueError: if an argument is not a scalar.

    Statement: background.mgf.  Source: Grimmett and Stirzaker 2001, Section 5.7.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.binomial_log_mgf(jnp.array(10), jnp.array(0.5), jnp.array(0.0)))
    0.0
    """
    shapes(n=(n, ""), p=(p, ""), t=(t, ""))
    require(n >= 0, "`n` must be non-negative")
    return n * bernoulli_log_mgf(p, t)


def poisson_log_mgf(rate: Array, t: Array) -> Array:
    r"""Logarithm of the moment generating function of the Poisson distribution.

    .. math:: \lambda (e^t - 1)

    Args:
        rate: the mean, non-negative, shape [].
        t: argument, shape [].

    Returns:
        Shape []; NaN if the rate is negative.

    Raises:
        ValueError: if an argument is not a scalar.

    Statement: background.mgf.  Source: Grimmett and Stirzaker 2001, Section 5.7.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.poisson_log_mgf(jnp.array(2.0), jnp.array(0.0)))
    0.0
    """
    shapes(rate=(rate, ""), t=(t, ""))
    require(rate >= 0, "`rate` must be non-negative")
    return jnp.where(rate >= 0, rate * jnp.expm1(t), jnp.nan)


def log_mgf_of_sum(*log_mgfs: Callable[[Array], Array]) -> Callable[[Array], Array]:
    r"""Logarithm of the moment generating function of a sum of independent variables.

    .. math:: \log M_{X + Y}(t) = \log M_X(t) + \log M_Y(t), \qquad X \perp Y

    Args:
        *log_mgfs: those of the summands, at least one.

    Returns:
        That of the sum, a function of t.

    Raises:
        ValueError: if there is no summand.

    Statement: background.mgf_sum.  Source: Grimmett and Stirzaker 2001, Section 5.7.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> log_mgf = background.log_mgf_of_sum(lambda t: t**2 / 2, lambda t: t**2 / 2)
    >>> float(log_mgf(jnp.array(1.0)))
    1.0
    """
    require(len(log_mgfs) > 0, "`log_mgfs` must hold at least one function")

    def log_mgf(t: Array) -> Array:
        total = log_mgfs[0](t)
        for summand in log_mgfs[1:]:
            total = total + summand(t)
        return total

    return log_mgf


def moment_from_mgf(
    mgf: Callable[[Array], Array], multi_index: Sequence[int], dtype: jax.typing.DTypeLike = float
) -> Array:
    r"""Mixed moment of a random vector: a derivative of its moment generating function at 0.

    .. math:: \mathbb E \prod_i X_i^{k_i} = \frac{\partial^{|k|} M}{\partial t_1^{k_1} \cdots \partial t_d^{k_d}}(0)

    Derivatives in one coordinate are Taylor coefficients propagated through `mgf`, whose cost grows with the square of
    the order; nested differentiation would double it with every order.

    Args:
        mgf: moment generating function (not its logarithm, whose derivatives are the cumulants), [d] -> [], made of
            operations that `jax.experimental.jet` knows.
        multi_index: the orders k, static non-negative integers.
        dtype: of the point 0 at which `mgf` is differentiated.

    Returns:
        The moment, shape [].

    Raises:
        ValueError: if an order is negative or there is none.

    Statement: background.moment_representation.  Source: Grimmett and Stirzaker 2001, Section 5.7.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.moment_from_mgf(lambda t: jnp.exp(jnp.dot(t, t) / 2), (4, 2)))  # E[x^4] E[y^2] = 3
    3.0
    """
    orders = tuple(multi_index)
    require(len(orders) > 0 and all(k >= 0 for k in orders), "`multi_index` must hold non-negative integers")

    def derivative(fn, coordinate, order):
        """Partial derivative of positive order in one coordinate, as a function of all."""

        def differentiated(t):
            direction = jnp.zeros_like(t).at[coordinate].set(1)
            path = [direction, *[jnp.zeros_like(t)] * (order - 1)]  # the derivatives of a straight line
            _, derivatives = jet.jet(fn, (t,), (path,))
            return jnp.asarray(derivatives[-1])

        return differentiated

    for coordinate, order in enumerate(orders):
        mgf = derivative(mgf, coordinate, order) if order else mgf
    return mgf(jnp.zeros(len(orders), dtype))
