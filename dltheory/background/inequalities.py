"""Concentration and convexity inequalities."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.background._terms import require_distribution
from dltheory.typing import Array

__all__ = [
    "chernoff_bound",
    "dual_exponent",
    "hoeffding_bound",
    "hoeffding_sample_size",
    "holder_extremal",
    "holder_gap",
    "jensen_gap",
    "markov_bound",
    "p_norm",
]


def markov_bound(mean: Array, a: Array) -> Array:
    r"""Markov's bound on the tail of a non-negative variable.

    .. math:: P(X \ge a) \le \mathbb E X / a

    Args:
        mean: expectation of the variable, non-negative, shape [].
        a: threshold in the units of the variable, positive, shape [].

    Returns:
        Probability in [0, 1], shape []; NaN for a negative mean or a threshold that is not positive.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.markov.  Source: Boucheron, Lugosi and Massart 2013, Section 2.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.markov_bound(jnp.array(1.0), jnp.array(4.0)))
    0.25
    """
    shapes(mean=(mean, ""), a=(a, ""))
    require(mean >= 0, "`mean` must be non-negative")
    require(a > 0, "`a` must be positive")
    valid = (mean >= 0) & (a > 0)
    return jnp.where(valid, jnp.minimum(mean / jnp.where(valid, a, 1.0), 1.0), jnp.nan)


def chernoff_bound(log_mgf: Callable[[Array], Array], a: Array, num_steps: int = 64) -> Array:
    r"""Chernoff's bound: Markov's for exp(tX), at the best t.

    .. math:: P(X \ge a) \le \inf_{t \ge 0} e^{-ta} M(t)

    The exponent is convex in t. Its minimum is bracketed by doubling and found by bisection of the derivative; since
    every t gives a valid bound, a minimum that is not found exactly costs tightness, not validity.

    Args:
        log_mgf: logarithm of the moment generating function, t of shape [] -> []; infinity where that does not exist.
        a: threshold in the units of the variable, shape [].
        num_steps: how often to double and to bisect at most, a static setting.

    Returns:
        Probability in [0, 1], shape []; differentiable in `a` and in what `log_mgf` closes over.

    Raises:
        ValueError: if `a` is not a scalar or `num_steps` is not positive.

    Statement: background.markov.  Source: Boucheron, Lugosi and Massart 2013, Section 2.2.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> round(float(background.chernoff_bound(lambda t: t**2 / 2, jnp.array(2.0))), 4)  # standard normal: exp(-a^2 / 2)
    0.1353
    """
    shapes(a=(a, ""))
    require(num_steps > 0, "`num_steps` must be positive")
    a = jnp.asarray(a) * 1.0  # t, which is differentiated, takes its dtype

    def exponent(t):
        return log_mgf(t) - t * a

    def beyond_minimum(t):
        value, slope = jax.value_and_grad(exponent)(t)
        return ~(jnp.isfinite(value) & (slope < 0))  # where the MGF is infinite, t is too large

    def double(_, high):
        return jnp.where(beyond_minimum(high), high, 2 * high)

    def bisect(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        too_large = beyond_minimum(middle)
        return jnp.where(too_large, low, middle), jnp.where(too_large, middle, high)

    high = jax.lax.fori_loop(0, num_steps, double, jnp.ones_like(a))
    low, _ = jax.lax.fori_loop(0, num_steps, bisect, (jnp.zeros_like(a), high))
    # By the envelope theorem the minimiser counts as a constant in the derivative of the minimum.
    return jnp.exp(jnp.minimum(exponent(jax.lax.stop_gradient(low)), 0.0))


def hoeffding_bound(widths: Array, t: Array) -> Array:
    r"""Hoeffding's bound on the upper tail of a mean of independent bounded variables.

    .. math:: P(\bar Z - \mathbb E \bar Z \ge t) \le \exp\!\Big(-\frac{2 n^2 t^2}{\sum_i (b_i - a_i)^2}\Big)

    The variables must be independent, not identically distributed. The bound is one-sided; double it for the absolute
    deviation.

    Args:
        widths: lengths b_i - a_i of the intervals, non-negative, shape [n].
        t: deviation of the mean, in the units of the variables, shape [].

    Returns:
        Probability in [0, 1], shape []; 1 for t <= 0, where the bound says nothing.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.hoeffding.  Source: Hoeffding 1963, Theorem 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> round(float(background.hoeffding_bound(jnp.ones(50), jnp.array(0.1))), 4)
    0.3679
    """
    n = shapes(widths=(widths, "n"), t=(t, ""))["n"]
    require(widths >= 0, "`widths` must be non-negative")
    total = jnp.sum(widths**2)
    positive = ~((t <= 0) | (total <= 0))  # NaN stays NaN
    exponent = jnp.where(positive, 2 * (n * t) ** 2 / jnp.where(positive, total, 1.0), 0.0)
    return jnp.where((t > 0) & (total == 0), 0.0, jnp.exp(-exponent))


def hoeffding_sample_size(t: Array, probability: Array, width: Array) -> Array:
    r"""How many observations make a large deviation of their mean as improbable as wanted, by Hoeffding's bound.

    .. math:: n = \Big\lceil \frac{(b - a)^2 \log(1 / \delta)}{2 t^2} \Big\rceil
        \quad\Rightarrow\quad P(\bar Z - \mathbb E \bar Z \ge t) \le \delta

    The bound is one-sided; halve the probability for the absolute deviation.

    Args:
        t: deviation of the mean, in the units of the variables, positive, shape [].
        probability: largest acceptable probability delta of that deviation, in (0, 1], shape [].
        width: length b - a of the interval that holds each variable, shape [].

    Returns:
        Number of observations, an integer in the dtype of the arguments, shape []; NaN outside the domain.

    Raises:
        ValueError: if an argument is not a scalar.

    Statement: background.hoeffding.  Source: Hoeffding 1963, Theorem 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.hoeffding_sample_size(jnp.array(0.1), jnp.array(0.05), jnp.array(1.0)))
    150.0
    """
    shapes(t=(t, ""), probability=(probability, ""), width=(width, ""))
    require(t > 0, "`t` must be positive")
    require((probability > 0) & (probability <= 1), "`probability` must lie in (0, 1]")
    require(width >= 0, "`width` must be non-negative")
    valid = (t > 0) & (probability > 0) & (probability <= 1) & (width >= 0)
    t, probability = jnp.where(valid, t, 1.0), jnp.where(valid, probability, 1.0)
    return jnp.where(valid, jnp.ceil(-jnp.log(probability) * (width / t) ** 2 / 2), jnp.nan)


def dual_exponent(p: Array) -> Array:
    r"""The exponent that Hölder's inequality pairs with p.

    .. math:: \frac1p + \frac1{p^*} = 1

    Args:
        p: exponent in [1, inf], any shape [...].

    Returns:
        Exponent in [1, inf], shape [...]; NaN for p < 1.

    Raises:
        ValueError: if `p` is not an array.

    Statement: background.holder.  Source: Hardy, Littlewood and Pólya 1934, Theorem 13.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> background.dual_exponent(jnp.array([1.0, 2.0, 3.0, jnp.inf]))
    Array([inf, 2. , 1.5, 1. ], dtype=float32)
    """
    shapes(p=(p, "..."))
    require(p >= 1, "`p` must be at least 1")
    interior = (p > 1) & (p < jnp.inf)
    inner = jnp.where(interior, p, 2.0)
    edge = jnp.where(p == 1, jnp.inf, jnp.where(p == jnp.inf, 1.0, jnp.nan))
    return jnp.where(interior, inner / (inner - 1), edge)


def p_norm(v: Array, p: Array) -> Array:
    r"""The p-norm of a vector, for p from 1 to infinity.

    .. math:: \|v\|_p = \Big(\sum_i |v_i|^p\Big)^{1/p}, \qquad \|v\|_\infty = \max_i |v_i|

    Scaled by the largest entry, so that no power overflows.

    Args:
        v: vector, shape [d].
        p: exponent in [1, inf], shape [].

    Returns:
        The norm, shape []; NaN for p < 1. Its gradient at v = 0 is 0, one of the subgradients.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.holder.  Source: Horn and Johnson 2013, Section 5.2.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.p_norm(jnp.array([3.0, -4.0]), jnp.array(2.0)))
    5.0
    """
    shapes(v=(v, "d"), p=(p, ""))
    require(p >= 1, "`p` must be at least 1")
    magnitude = v * jnp.sign(v)  # unlike that of `abs`, its gradient at 0 is 0
    largest = jnp.max(magnitude, initial=0.0)
    scale = jax.lax.stop_gradient(jnp.where((largest > 0) & (largest < jnp.inf), largest, 1.0))
    finite = p < jnp.inf
    exponent = jnp.where((p >= 1) & finite, p, 1.0)
    total = jnp.sum((magnitude / scale) ** exponent)
    power = scale * jnp.where(largest > 0, total, 1.0) ** (1 / exponent)
    norm = jnp.where(finite & (largest > 0), power, largest)
    return jnp.where(p >= 1, norm, jnp.nan)


def holder_gap(u: Array, v: Array, p: Array) -> Array:
    r"""How far Hölder's inequality is from equality.

    .. math:: \|v\|_p \, \|u\|_{p^*} - \|u \odot v\|_1 \ge 0

    Args:
        u, v: vectors, shape [d].
        p: exponent of the norm of v in [1, inf], shape []; u is measured in the dual exponent's norm.

    Returns:
        The gap, non-negative up to rounding, shape []; NaN for p < 1.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.holder.  Source: Hardy, Littlewood and Pólya 1934, Theorem 13.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.holder_gap(jnp.array([1.0, 0.0]), jnp.array([3.0, 4.0]), jnp.array(2.0)))
    2.0
    """
    shapes(u=(u, "d"), v=(v, "d"), p=(p, ""))
    return p_norm(v, p) * p_norm(u, dual_exponent(p)) - jnp.sum(jnp.abs(u * v))


def holder_extremal(v: Array, p: Array) -> Array:
    r"""The vector of unit dual norm at which Hölder's inequality is an equality.

    .. math:: u_i \propto \operatorname{sgn}(v_i) |v_i|^{p-1}, \qquad \|u\|_{p^*} = 1, \qquad u^T v = \|v\|_p

    It is the direction of steepest ascent for v in the dual norm. For p = infinity the largest entries of v share the
    weight equally.

    Args:
        v: vector, shape [d].
        p: exponent in [1, inf], shape [].

    Returns:
        The vector u, shape [d]; zero for v = 0, NaN for p < 1. Derivatives at v_i = 0, infinite for 1 < p < 2, are
        reported as 0.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.holder.  Source: Hardy, Littlewood and Pólya 1934, Theorem 13.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> background.holder_extremal(jnp.array([3.0, -4.0]), jnp.array(2.0))
    Array([ 0.6, -0.8], dtype=float32)
    """
    shapes(v=(v, "d"), p=(p, ""))
    magnitude = jnp.abs(v)
    largest = jnp.max(magnitude, initial=0.0)
    ratio = magnitude / jnp.where(largest > 0, largest, 1.0)
    finite = p < jnp.inf
    attained = jnp.asarray(magnitude == largest, ratio.dtype)
    nonzero = ratio > 0  # where v_i = 0 the derivative may be infinite; there it counts as 0
    powers = jnp.where(nonzero, jnp.where(nonzero, ratio, 1.0) ** jnp.where(finite, p - 1, 1.0), 0.0)
    direction = jnp.sign(v) * jnp.where(finite, powers, attained)
    norm = p_norm(direction, dual_exponent(p))
    return direction / jnp.where(largest > 0, norm, 1.0)


def jensen_gap(f: Callable[[Array], Array], samples: Array, weights: Array) -> Array:
    r"""Mean of a function minus the function of the mean, for a law with finitely many atoms.

    .. math:: \mathbb E f(X) - f(\mathbb E X), \qquad P(X = x_i) = w_i

    Non-negative for convex f by Jensen's inequality, zero for affine f, non-positive for concave f.

    Args:
        f: function of one atom, [...] -> [], or several at once, -> [k].
        samples: the atoms, shape [n, ...].
        weights: their probabilities, non-negative with sum 1, shape [n].

    Returns:
        The gap in the units of f, shape [] or [k].

    Raises:
        ValueError: if shapes disagree.

    Statement: background.jensen.  Source: Jensen 1906.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.jensen_gap(jnp.square, jnp.array([-1.0, 1.0]), jnp.array([0.5, 0.5])))
    1.0
    """
    shapes(weights=(weights, "n"))
    if jnp.ndim(samples) == 0 or len(samples) != len(weights):
        raise ValueError(f"`samples` must have shape [{len(weights)}, ...], got {list(jnp.shape(samples))}")
    require_distribution(weights=weights)
    return jnp.tensordot(weights, jax.vmap(f)(samples), axes=1) - f(jnp.tensordot(weights, samples, axes=1))
