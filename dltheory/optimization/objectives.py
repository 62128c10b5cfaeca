"""Test problems whose constants are known: what rates and step sizes are checked on."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dltheory._checks import require, shapes
from dltheory.typing import Array, ObjectiveFn, Scalar

__all__ = ["Objective", "huber", "log_sum_exp", "quadratic", "ridge_logistic", "sine_quadratic"]


class Objective(NamedTuple):
    """An objective and what theory knows about it.

    Attributes:
        value: the objective f, parameters -> R.
        smoothness: an L with which the gradient is L-Lipschitz, shape [].
        strong_convexity: a mu for which f - mu/2 ||x||^2 is convex, shape []; 0 for a merely convex objective,
            negative for a nonconvex one.
        pl_constant: a mu with which ||grad f||^2 >= 2 mu (f - min f) everywhere (Polyak-Lojasiewicz), shape []; 0 if
            there is none.
        minimum: the infimum of f, shape []; NaN where it has no closed form.
        minimizer: the minimiser (of least norm, if there are several), shaped as the parameters; NaN where it has no
            closed form or does not exist.
    """

    value: ObjectiveFn
    smoothness: Array
    strong_convexity: Array
    pl_constant: Array
    minimum: Array
    minimizer: Array


def quadratic(hessian: Array, linear: Array | None = None) -> Objective:
    r"""The quadratic objective with a given Hessian.

    .. math:: f(x) = \tfrac12 x^T H x - b^T x

    All constants are exact. A singular positive semi-definite Hessian gives a convex objective that satisfies the
    Polyak-Lojasiewicz inequality with its smallest non-zero eigenvalue; eigenvalues below d eps lambda_max count as 0.

    Args:
        hessian: H, symmetric, shape [d, d].
        linear: b, shape [d]; zero by default.

    Returns:
        The objective on vectors [d]. Where f is unbounded below (a negative eigenvalue, or b outside the range of H)
        the minimum is minus infinity, the minimiser NaN, and the PL constant 0.

    Raises:
        ValueError: if shapes disagree.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> problem = optimization.quadratic(jnp.diag(jnp.array([1.0, 4.0])), jnp.array([1.0, 4.0]))
    >>> problem.value(jnp.zeros(2)), problem.smoothness, problem.strong_convexity, problem.minimum
    (Array(0., dtype=float32), Array(4., dtype=float32), Array(1., dtype=float32), Array(-2.5, dtype=float32))
    """
    linear = jnp.zeros(hessian.shape[:1], hessian.dtype) if linear is None else linear
    d = shapes(hessian=(hessian, "d d"), linear=(linear, "d"))["d"]
    eigenvalues, eigenvectors = jnp.linalg.eigh(hessian)
    smoothness = jnp.max(jnp.abs(eigenvalues))
    rounding = d * jnp.finfo(hessian.dtype).eps
    positive = eigenvalues > rounding * smoothness
    coefficients = eigenvectors.T @ linear
    solution = jnp.where(positive, coefficients / jnp.where(positive, eigenvalues, 1.0), 0.0)
    outside = ~positive & (jnp.abs(coefficients) > rounding * jnp.max(jnp.abs(linear)))
    bounded = ~jnp.any(outside | (eigenvalues < -rounding * smoothness))
    return Objective(
        value=lambda x: 0.5 * x @ (hessian @ x) - linear @ x,
        smoothness=smoothness,
        strong_convexity=eigenvalues[0],
        pl_constant=jnp.where(bounded & jnp.any(positive), jnp.min(eigenvalues, initial=jnp.inf, where=positive), 0.0),
        minimum=jnp.where(bounded, -0.5 * coefficients @ solution, -jnp.inf),
        minimizer=jnp.where(bounded, eigenvectors @ solution, jnp.nan),
    )


def ridge_logistic(features: Array, labels: Array, ridge: Scalar = 0.0) -> Objective:
    r"""Logistic regression with a ridge penalty.

    .. math:: f(w) = \frac1n \sum_{i=1}^n \log(1 + e^{-y_i x_i^T w}) + \frac\lambda2 \lVert w \rVert^2

    Its smoothness constant is ||X||^2 / (4 n) + lambda with the spectral norm of the feature matrix, its strong
    convexity (and PL) constant lambda. The minimiser has no closed form: a dozen steps of `newton` find it to rounding.

    Args:
        features: X, shape [n, d].
        labels: y, entries -1 or +1, shape [n].
        ridge: lambda, non-negative, shape [].

    Returns:
        The objective on weight vectors [d]; minimum and minimiser are NaN.

    Raises:
        ValueError: if shapes disagree or a static `ridge` is negative.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> problem = optimization.ridge_logistic(jnp.eye(2), jnp.array([1.0, -1.0]), ridge=0.5)
    >>> problem.smoothness, problem.strong_convexity
    (Array(0.625, dtype=float32), Array(0.5, dtype=float32))
    """
    n, d = shapes(features=(features, "n d"), labels=(labels, "n"), ridge=(ridge, "")).values()
    require(jnp.abs(labels) == 1, "`labels` must be -1 or +1")
    require(ridge >= 0, "`ridge` must be non-negative")
    strong_convexity = jnp.asarray(ridge, features.dtype)

    def value(w):
        return jnp.mean(jax.nn.softplus(-labels * (features @ w))) + 0.5 * strong_convexity * (w @ w)

    return Objective(
        value=value,
        smoothness=_squared_spectral_norm(features) / (4 * n) + strong_convexity,
        strong_convexity=strong_convexity,
        pl_constant=strong_convexity,
        minimum=jnp.full((), jnp.nan, features.dtype),
        minimizer=jnp.full(d, jnp.nan, features.dtype),
    )


def huber(num_features: int, delta: Scalar = 1.0) -> Objective:
    r"""Huber's function, summed over coordinates: quadratic near zero, linear far away.

    .. math:: f(x) = \sum_j h_\delta(x_j), \quad h_\delta(r) =
        \begin{cases} r^2/2 & |r| \le \delta \\ \delta (|r| - \delta/2) & \text{otherwise} \end{cases}

    Smooth with L = 1 and convex, but neither strongly convex nor PL: the gradient stays bounded while f grows.

    Args:
        num_features: dimension d of the argument, at least 1.
        delta: where the quadratic ends, positive, shape [].

    Returns:
        The objective on vectors [d].

    Raises:
        ValueError: if `num_features` or a static `delta` is not positive.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.huber(2).value(jnp.array([0.5, -3.0]))
    Array(2.625, dtype=float32)
    """
    shapes(delta=(delta, ""))
    require(num_features >= 1, "`num_features` must be at least 1")
    require(delta > 0, "`delta` must be positive")
    return Objective(
        value=lambda x: jnp.sum(optax.losses.huber_loss(x, delta=delta)),  # pyright: ignore[reportArgumentType]
        smoothness=jnp.asarray(1.0),
        strong_convexity=jnp.asarray(0.0),
        pl_constant=jnp.asarray(0.0),
        minimum=jnp.asarray(0.0),
        minimizer=jnp.zeros(num_features),
    )


def sine_quadratic(num_features: int = 1) -> Objective:
    r"""A nonconvex function that satisfies the Polyak-Lojasiewicz inequality, summed over coordinates.

    .. math:: f(x) = \sum_j x_j^2 + 3 \sin^2 x_j

    Its second derivative 2 + 6 cos 2x lies in [-4, 8]. The published PL constant is 1/32; the best one is about 0.175.

    Args:
        num_features: dimension d of the argument, at least 1.

    Returns:
        The objective on vectors [d].

    Raises:
        ValueError: if `num_features` is not positive.

    A helper.  Source: Karimi, Nutini and Schmidt 2016, section 2.2.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.sine_quadratic().value(jnp.array([jnp.pi]))
    Array(9.869604, dtype=float32)
    """
    require(num_features >= 1, "`num_features` must be at least 1")
    return Objective(
        value=lambda x: jnp.sum(x**2 + 3 * jnp.sin(x) ** 2),
        smoothness=jnp.asarray(8.0),
        strong_convexity=jnp.asarray(-4.0),
        pl_constant=jnp.asarray(1 / 32),
        minimum=jnp.asarray(0.0),
        minimizer=jnp.zeros(num_features),
    )


def log_sum_exp(features: Array, offsets: Array | None = None) -> Objective:
    r"""Log-sum-exp of affine functions: a smooth maximum, convex but in general not strongly.

    .. math:: f(x) = \log \sum_{i=1}^n e^{a_i^T x + b_i}

    Its Hessian is the covariance of the rows a_i under softmax weights, so ||A||^2 / 2 bounds its smoothness (attained
    by the identity matrix, at points where two terms dominate equally).

    Args:
        features: A, rows a_i, shape [n, d].
        offsets: b, shape [n]; zero by default.

    Returns:
        The objective on vectors [d]; minimum and minimiser are NaN: they may not exist, and have no closed form.

    Raises:
        ValueError: if shapes disagree.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.log_sum_exp(jnp.eye(2)).value(jnp.zeros(2))
    Array(0.6931472, dtype=float32)
    """
    offsets = jnp.zeros(features.shape[:1], features.dtype) if offsets is None else offsets
    d = shapes(features=(features, "n d"), offsets=(offsets, "n"))["d"]
    return Objective(
        value=lambda x: jax.nn.logsumexp(features @ x + offsets),
        smoothness=_squared_spectral_norm(features) / 2,
        strong_convexity=jnp.zeros((), features.dtype),
        pl_constant=jnp.zeros((), features.dtype),
        minimum=jnp.full((), jnp.nan, features.dtype),
        minimizer=jnp.full(d, jnp.nan, features.dtype),
    )


def _squared_spectral_norm(matrix: Array) -> Array:
    n, d = matrix.shape
    return jnp.linalg.eigvalsh(matrix.T @ matrix if d <= n else matrix @ matrix.T)[-1]
