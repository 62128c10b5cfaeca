"""Entropy and the Kullback-Leibler divergence."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.background._terms import clipped_log, relative_entropy_term, require_distribution
from dltheory.typing import Array, LogDensityFn, PyTree

__all__ = [
    "KlEstimate",
    "cross_entropy",
    "entropy",
    "kl_bernoulli",
    "kl_bernoulli_inverse",
    "kl_discrete",
    "kl_monte_carlo",
]

_NEWTON_STEPS = 8  # five reach double precision from `_distance_above_root` for all q and c


def entropy(p: Array, base: float = math.e) -> Array:
    r"""Shannon entropy of a distribution on finitely many outcomes.

    .. math:: H(p) = -\sum_i p_i \log p_i, \qquad 0 \log 0 = 0

    Args:
        p: probabilities, shape [n].
        base: of the logarithm, a static setting: e for nats, 2 for bits.

    Returns:
        Entropy in nats, or in the unit that `base` names, shape []; NaN if an entry is negative. Its gradient at
        p_i = 0, where the derivative is infinite, is that at the smallest normal number.

    Raises:
        ValueError: if `p` is not a vector, or `base` is not a positive number other than 1.

    Statement: background.entropy.  Source: Shannon 1948, Section 6.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> float(background.entropy(jnp.array([0.5, 0.25, 0.25, 0.0]), base=2))
    1.5
    """
    shapes(p=(p, "n"))
    require(base > 0 and base != 1, "`base` must be positive and not 1")
    require_distribution(p=p)
    return jnp.where(jnp.all(p >= 0), jnp.sum(p * -clipped_log(p)) / math.log(base), jnp.nan)


def cross_entropy(p: Array, q: Array) -> Array:
    r"""Cross-entropy: mean code length under p of a code that is optimal for q.

    .. math:: H(p, q) = -\sum_i p_i \log q_i = H(p) + \mathrm{KL}(p \| q)

    Args:
        p, q: probabilities, shape [n].

    Returns:
        Cross-entropy in nats, shape []; infinity if q_i = 0 < p_i for some i, NaN if an entry is negative.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.entropy.  Source: Cover and Thomas 2006, Theorem 5.4.3.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> round(float(background.cross_entropy(jnp.array([1.0, 0.0]), jnp.array([0.25, 0.75]))), 4)
    1.3863
    """
    shapes(p=(p, "n"), q=(q, "n"))
    require_distribution(p=p, q=q)
    return _infinite_unless_dominated(p, q, jnp.sum(p * -clipped_log(q)))


def kl_discrete(q: Array, p: Array) -> Array:
    r"""Kullback-Leibler divergence of two distributions on finitely many outcomes.

    .. math:: \mathrm{KL}(q \| p) = \sum_i q_i \log \frac{q_i}{p_i}, \qquad 0 \log 0 = 0

    Args:
        q, p: probabilities, shape [n].

    Returns:
        Divergence in nats, shape []; infinity if p_i = 0 < q_i for some i, NaN if an entry is negative. Gradients are
        finite: at q_i = 0, where the derivative is infinite, it is that at the smallest normal number.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.kl_divergence.  Source: Kullback and Leibler 1951, Section 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> round(float(background.kl_discrete(jnp.array([1.0, 0.0]), jnp.array([0.5, 0.5]))), 4)
    0.6931
    """
    shapes(q=(q, "n"), p=(p, "n"))
    require_distribution(q=q, p=p)
    return _infinite_unless_dominated(q, p, jnp.sum(q * (clipped_log(q) - clipped_log(p))))


def kl_bernoulli(q: Array, p: Array) -> Array:
    r"""Kullback-Leibler divergence of two Bernoulli distributions, the "small kl" of PAC-Bayes bounds.

    .. math:: \mathrm{kl}(q \| p) = q \log \frac qp + (1 - q) \log \frac{1 - q}{1 - p}

    A sum of two non-negative terms without cancellation: precise to rounding also where q is close to p.

    Args:
        q, p: probabilities of the outcome 1, shape [].

    Returns:
        Divergence in nats, shape []; infinity if p is 0 or 1 and q is not the same, NaN outside [0, 1]. Its derivative
        in q at 0 and 1, which is infinite, is that at the smallest normal distance.

    Raises:
        ValueError: if `q` or `p` is not a scalar.

    Statement: background.kl_divergence.  Source: Seeger 2002, Theorem 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> round(float(background.kl_bernoulli(jnp.array(0.0), jnp.array(0.5))), 4)
    0.6931
    """
    shapes(q=(q, ""), p=(p, ""))
    require((q >= 0) & (q <= 1), "`q` must lie in [0, 1]")
    require((p >= 0) & (p <= 1), "`p` must lie in [0, 1]")
    valid = (q >= 0) & (q <= 1) & (p >= 0) & (p <= 1)
    q, p = jnp.where(valid, q, 0.5), jnp.where(valid, p, 0.5)
    return jnp.where(valid, _kl_bernoulli(q, p, 1 - p, p - q), jnp.nan)


def kl_bernoulli_inverse(q: Array, bound: Array) -> Array:
    r"""Largest probability within a given divergence of an observed one: the inverse of `kl_bernoulli`.

    .. math:: \sup \{ p \in [q, 1] : \mathrm{kl}(q \| p) \le c \}

    Turns a bound on the divergence of empirical and true risk into one on the true risk. For the smallest such
    probability use 1 - kl_bernoulli_inverse(1 - q, bound).

    Args:
        q: observed probability, shape [].
        bound: divergence c in nats, non-negative, shape [].

    Returns:
        Probability in [q, 1], precise to rounding, shape []; NaN outside the domain. Differentiable any number of times
        by the implicit function theorem; the derivative in `bound` at 0, which is infinite, is reported as 0, and the
        one in q at 0, infinite too, is that at the smallest normal number.

    Raises:
        ValueError: if `q` or `bound` is not a scalar.

    Statement: background.kl_divergence.  Source: Seeger 2002, Theorem 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> round(float(background.kl_bernoulli_inverse(jnp.array(0.0), jnp.array(0.05))), 4)  # 1 - exp(-c)
    0.0488
    """
    shapes(q=(q, ""), bound=(bound, ""))
    require((q >= 0) & (q <= 1), "`q` must lie in [0, 1]")
    require(bound >= 0, "`bound` must be non-negative")
    q, bound = jnp.asarray(q), jnp.asarray(bound)
    valid = (q >= 0) & (q <= 1) & (bound >= 0)
    q, c = jnp.where(valid, q, 0.5), jnp.where(valid, bound, 0.0)
    room = 1 - q  # the unknown is the distance p - q in [0, room]: it stays precise where p is close to q

    def excess(distance):
        return _kl_bernoulli(q, q + distance, room - distance, distance) - c

    def newton(excess, start):
        def step(_, distance):
            variance = (q + distance) * (room - distance)  # the derivative of kl in p is distance / variance
            move = jnp.maximum(excess(distance), 0.0) * variance / jnp.where(distance > 0, distance, 1.0)
            return distance - jnp.where(distance > 0, move, 0.0)

        return jax.lax.fori_loop(0, _NEWTON_STEPS, step, start)

    def divide(linear, y):
        slope = linear(jnp.ones_like(y))
        return jnp.where(slope > 0, y / jnp.where(slope > 0, slope, 1.0), 0.0)

    start = jax.lax.stop_gradient(_distance_above_root(q, c))
    distance = jax.lax.custom_root(excess, start, newton, divide)
    return jnp.where(valid, q + distance, jnp.nan)


class KlEstimate(NamedTuple):
    """Monte-Carlo estimate of a divergence.

    Attributes:
        mean: the estimate in nats, shape [].
        standard_error: of the mean, shape [].
    """

    mean: Array
    standard_error: Array


def kl_monte_carlo(log_q: LogDensityFn, log_p: LogDensityFn, samples: PyTree) -> KlEstimate:
    r"""Unbiased estimate of a divergence between densities that can only be evaluated, from samples of the first.

    .. math:: \mathrm{KL}(Q \| P) \approx \frac1n \sum_{i=1}^n \log \frac{q(x_i)}{p(x_i)}, \qquad x_i \sim Q

    Args:
        log_q, log_p: normalised log densities at one sample, -> [].
        samples: independent samples of Q, at least two, stacked along the leading axis of each leaf, [n, ...].

    Returns:
        The estimate and its standard error; infinite and NaN if log_p is minus infinity at a sample. The error is
        honest only if the log ratio has a finite variance.

    Raises:
        ValueError: if the leaves of `samples` do not share a leading axis of at least two.

    Statement: background.kl_divergence.  Source: Kullback and Leibler 1951, Section 2.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> x = jax.random.normal(jax.random.key(0), (1000,))
    >>> estimate = background.kl_monte_carlo(lambda x: -(x**2) / 2, lambda x: -((x - 1) ** 2) / 2, x)  # 1/2
    >>> bool(abs(estimate.mean - 0.5) < 4 * estimate.standard_error)
    True
    """
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(samples)}
    if len(lengths) != 1 or not min(lengths) or min(lengths)[0] < 2:
        found = ", ".join(str(list(jnp.shape(leaf))) for leaf in jax.tree.leaves(samples))
        raise ValueError(f"`samples` must have a common leading axis of at least two, got shapes {found}")
    log_ratio = jax.vmap(lambda x: log_q(x) - log_p(x))(samples)
    return KlEstimate(
        mean=jnp.mean(log_ratio), standard_error=jnp.std(log_ratio, ddof=1) / jnp.sqrt(log_ratio.shape[0])
    )


def _kl_bernoulli(q: Array, p: Array, not_p: Array, difference: Array) -> Array:
    """Divergence from p, 1 - p and p - q, which the caller may know more precisely than they follow from each other."""
    observed, expected = jnp.stack([q, 1 - q]), jnp.stack([p, not_p])
    return jnp.sum(relative_entropy_term(observed, expected, jnp.stack([difference, -difference])))


def _distance_above_root(q: Array, c: Array) -> Array:
    """Close upper bound on the distance p - q at which the divergence is c: Newton's method descends from there.

    The divergence is convex in p, so that Newton's iterates never pass the root from above. It is at least d^2 / 2p for
    the distance d (sharp where p is small), d^2 over twice the largest variance in [q, p] (sharp where d is small), and
    -(1 - q) log(1 - p) minus the entropy of q (sharp where p is close to 1).
    """
    room = 1 - q
    small = c + jnp.sqrt(c * (c + 2 * q))
    close = jnp.sqrt(2 * c * jnp.where(q < 0.5, 0.25, q * room))
    large = -jnp.expm1(-(c + entropy(jnp.stack([q, room]))) / jnp.where(room > 0, room, 1.0)) - q
    below_one = room * (1 - jnp.finfo(room.dtype).eps)  # the divergence is infinite at 1
    return jnp.clip(jnp.minimum(jnp.minimum(small, close), large), 0.0, below_one)


def _infinite_unless_dominated(q: Array, p: Array, value: Array) -> Array:
    """`value`, infinity if q puts mass where p has none, NaN if an entry is negative."""
    value = jnp.where(jnp.any((q > 0) & (p == 0)), jnp.inf, value)
    return jnp.where(jnp.all((q >= 0) & (p >= 0)), value, jnp.nan)
