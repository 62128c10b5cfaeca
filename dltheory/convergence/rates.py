"""Convergence rates as functions: how far an optimizer can still be from its goal after so many steps."""

from __future__ import annotations

import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.typing import Array, Scalar

__all__ = [
    "nesterov_rate_bound",
    "polyak_rate_bound",
    "sgd_convex_bound",
    "sgd_smooth_bound",
    "sgd_strongly_convex_bound",
    "stationarity_steps_bound",
]


def polyak_rate_bound(pl: Scalar, smoothness: Scalar, num_steps: Scalar, gap0: Scalar) -> Array:
    r"""Polyak's linear rate of gradient descent with step size 1/L on an L-smooth, mu-PL objective.

    .. math:: f(x_t) - f^* \le (1 - \mu / L)^t \, (f(x_0) - f^*)

    Args:
        pl: mu, the Polyak-Lojasiewicz constant, in [0, L], shape [].
        smoothness: L, positive, shape [].
        num_steps: t, shape [].
        gap0: f(x_0) - min f, shape [].

    Returns:
        Bound on f(x_t) - min f, shape []; NaN if mu is outside [0, L].

    Raises:
        ValueError: if an argument is not a scalar, or static constants are outside their range.

    Statement: convergence.polyak_pl_rate.  Source: Polyak 1963; Karimi, Nutini and Schmidt 2016, theorem 1.

    >>> from dltheory import convergence
    >>> float(convergence.polyak_rate_bound(1.0, 2.0, 3, 8.0))
    1.0
    """
    shapes(pl=(pl, ""), smoothness=(smoothness, ""), num_steps=(num_steps, ""), gap0=(gap0, ""))
    require((pl >= 0) & (pl <= smoothness), "`pl` must lie in [0, smoothness]")
    return _decay(pl / smoothness, num_steps) * gap0


def nesterov_rate_bound(
    strong_convexity: Scalar, smoothness: Scalar, num_steps: Scalar, distance0: Scalar
) -> Array:
    r"""Nesterov's accelerated linear rate on an L-smooth, mu-strongly convex objective.

    .. math:: f(x_t) - f^* \le \tfrac{L + \mu}{2} \big(1 - \sqrt{\mu / L}\big)^t \lVert x_0 - x^* \rVert^2

    Holds for step size 1/L, momentum (sqrt(kappa) - 1) / (sqrt(kappa) + 1) with kappa = L/mu, and a start at rest
    (x_{-1} = x_0).

    Args:
        strong_convexity: mu, in [0, L], shape [].
        smoothness: L, positive, shape [].
        num_steps: t, shape [].
        distance0: ||x_0 - x*||, shape [].

    Returns:
        Bound on f(x_t) - min f, shape []; NaN if mu is outside [0, L].

    Raises:
        ValueError: if an argument is not a scalar, or static constants are outside their range.

    Statement: convergence.nesterov_rate.  Source: Nesterov 2004, theorem 2.2.3; Bubeck 2015, theorem 3.18.

    >>> from dltheory import convergence
    >>> float(convergence.nesterov_rate_bound(1.0, 4.0, 2, 2.0))
    2.5
    """
    shapes(strong_convexity=(strong_convexity, ""), smoothness=(smoothness, ""))
    shapes(num_steps=(num_steps, ""), distance0=(distance0, ""))
    inside = (strong_convexity >= 0) & (strong_convexity <= smoothness)
    require(inside, "`strong_convexity` must lie in [0, smoothness]")
    ratio = strong_convexity / smoothness
    positive = ratio > 0
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, ratio, 1.0)), ratio)  # a negative ratio stays out of range
    return 0.5 * (smoothness + strong_convexity) * _decay(root, num_steps) * distance0**2


def stationarity_steps_bound(smoothness: Scalar, gap0: Scalar, tolerance: Scalar) -> Array:
    r"""How many iterates of gradient descent with step size 1/L suffice to meet an epsilon-stationary point.

    .. math:: T \ge \frac{2 L (f(x_0) - \inf f)}{\epsilon^2}
        \;\Rightarrow\; \min_{t < T} \lVert \nabla f(x_t) \rVert \le \epsilon

    Adds up the decreases that the descent lemma guarantees; convexity is not needed.

    Args:
        smoothness: L, positive, shape [].
        gap0: f(x_0) - inf f, non-negative, shape [].
        tolerance: epsilon, positive, shape [].

    Returns:
        The right-hand side, a real number, shape [].

    Raises:
        ValueError: if an argument is not a scalar, or a static one is outside its range.

    Statement: convergence.eps_stationarity.  Source: Nesterov 2004, section 1.2.3.

    >>> from dltheory import convergence
    >>> float(convergence.stationarity_steps_bound(1.0, 2.0, 0.1))
    400.0
    """
    shapes(smoothness=(smoothness, ""), gap0=(gap0, ""), tolerance=(tolerance, ""))
    require(smoothness > 0, "`smoothness` must be positive")
    require(gap0 >= 0, "`gap0` must be non-negative")
    require(tolerance > 0, "`tolerance` must be positive")
    return jnp.asarray(2 * smoothness * gap0 / tolerance**2)


def sgd_convex_bound(
    diameter: Scalar, gradient_bound: Scalar, scale: Scalar, num_iterates: Scalar
) -> Array:
    r"""What projected SGD with steps c / sqrt(t) has reached on a convex objective, at the average of its iterates.

    .. math:: \mathbb E f(\bar\theta_T) - f^* \le \Big(\frac{D^2}{2 c} + c G^2\Big) \frac{1}{\sqrt T}

    The average is over theta_1, ..., theta_T, the starting point included. The bound is smallest for
    c = D / (sqrt(2) G): sqrt(2) D G / sqrt(T).

    Args:
        diameter: D of the domain on which the iterates are projected, shape [].
        gradient_bound: G, a root-mean-square bound of the stochastic gradients: E||g||^2 <= G^2, shape [].
        scale: c of the step sizes, positive, shape [].
        num_iterates: T, shape [].

    Returns:
        Bound on E f - min f, shape [].

    Raises:
        ValueError: if an argument is not a scalar, or a static `scale` or `num_iterates` is not positive.

    Statement: convergence.averaging_convex_rate.
    Source: Zinkevich 2003, theorem 1; Shalev-Shwartz and Ben-David 2014, section 14.4.1.

    >>> from dltheory import convergence
    >>> float(convergence.sgd_convex_bound(2.0, 1.0, 1.0, 9))
    1.0
    """
    shapes(diameter=(diameter, ""), gradient_bound=(gradient_bound, ""), scale=(scale, ""))
    shapes(num_iterates=(num_iterates, ""))
    require(scale > 0, "`scale` must be positive")
    require(num_iterates > 0, "`num_iterates` must be positive")
    return (diameter**2 / (2 * scale) + scale * gradient_bound**2) / jnp.sqrt(1.0 * num_iterates)


def sgd_strongly_convex_bound(
    gradient_bound: Scalar, strong_convexity: Scalar, num_iterates: Scalar
) -> Array:
    r"""What projected SGD with steps 1 / (mu t) has reached on a strongly convex objective, at the average.

    .. math:: \mathbb E f(\bar\theta_T) - f^* \le \frac{G^2 (1 + \ln T)}{2 \mu T}

    The average is over theta_1, ..., theta_T, the starting point included.

    Args:
        gradient_bound: G, a root-mean-square bound of the stochastic gradients: E||g||^2 <= G^2, shape [].
        strong_convexity: mu, positive, shape [].
        num_iterates: T, shape [].

    Returns:
        Bound on E f - min f, shape [].

    Raises:
        ValueError: if an argument is not a scalar, or a static `strong_convexity` or `num_iterates` is not positive.

    Statement: convergence.averaging_strongly_convex_rate.
    Source: Shalev-Shwartz and Ben-David 2014, theorem 14.11.

    >>> from dltheory import convergence
    >>> float(convergence.sgd_strongly_convex_bound(2.0, 1.0, 1))
    2.0
    """
    shapes(gradient_bound=(gradient_bound, ""), strong_convexity=(strong_convexity, ""))
    shapes(num_iterates=(num_iterates, ""))
    require(strong_convexity > 0, "`strong_convexity` must be positive")
    require(num_iterates > 0, "`num_iterates` must be positive")
    return gradient_bound**2 * (1 + jnp.log(1.0 * num_iterates)) / (2 * strong_convexity * num_iterates)


def sgd_smooth_bound(
    gradient_bound: Scalar, strong_convexity: Scalar, smoothness: Scalar, num_iterates: Scalar
) -> Array:
    r"""What projected SGD with steps 1 / (mu t) has reached on a smooth, strongly convex objective, without averaging.

    .. math:: \mathbb E f(\theta_T) - f^* \le \frac{2 L G^2}{\mu^2 T}

    This is about the last iterate; no logarithm is left. The minimiser must be interior to the domain.

    Args:
        gradient_bound: G, a root-mean-square bound of the stochastic gradients: E||g||^2 <= G^2, shape [].
        strong_convexity: mu, positive, shape [].
        smoothness: L, shape [].
        num_iterates: T, shape [].

    Returns:
        Bound on E f - min f, shape [].

    Raises:
        ValueError: if an argument is not a scalar, or a static `strong_convexity` or `num_iterates` is not positive.

    Statement: convergence.averaging_smooth_rate.  Source: Rakhlin, Shamir and Sridharan 2012, theorem 1.

    >>> from dltheory import convergence
    >>> float(convergence.sgd_smooth_bound(1.0, 1.0, 2.0, 4))
    1.0
    """
    shapes(gradient_bound=(gradient_bound, ""), strong_convexity=(strong_convexity, ""), smoothness=(smoothness, ""))
    shapes(num_iterates=(num_iterates, ""))
    require(strong_convexity > 0, "`strong_convexity` must be positive")
    require(num_iterates > 0, "`num_iterates` must be positive")
    return jnp.asarray(2 * smoothness * gradient_bound**2 / (strong_convexity**2 * num_iterates))


def _decay(rate: Scalar, num_steps: Scalar) -> Array:
    """(1 - rate)^num_steps, accurate for small rates; NaN for rates outside [0, 1]."""
    inside = (rate >= 0) & (rate < 1)
    power = jnp.exp(num_steps * jnp.log1p(-jnp.where(inside, rate, 0.0)))
    return jnp.where(inside, power, jnp.where(rate == 1, jnp.where(num_steps == 0, 1.0, 0.0), jnp.nan))
