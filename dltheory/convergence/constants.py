"""Estimates of the constants in convergence theorems: smoothness, strong convexity, Polyak-Lojasiewicz.

Each looks at the points it is given. A constant over a region is the worst over all of its points, so that the
estimates err on one side: the smoothness constant is at least the estimate, the other two are at most theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from dltheory._checks import leading_axis, require, shapes
from dltheory._trees import tree_norm, tree_normal_like, tree_unit
from dltheory.optimization import hessian_vector_product
from dltheory.typing import Array, ObjectiveFn, PRNGKey, PyTree, Scalar

__all__ = [
    "ConstantEstimate",
    "SpectrumBounds",
    "hessian_spectrum_bounds",
    "pl_constant",
    "smoothness_constant",
    "strong_convexity_constant",
]


class ConstantEstimate(NamedTuple):
    """A constant of an objective, estimated from its Hessians at some points.

    A helper.

    Attributes:
        value: the estimate, shape [].
        point: number of the point with the extreme Hessian, shape [].
        num_steps: steps of the power iteration at the slowest point, shape [].
        converged: whether the iteration met its tolerance at every point, shape [].
    """

    value: Array
    point: Array
    num_steps: Array
    converged: Array


def smoothness_constant(
    key: PRNGKey, objective_fn: ObjectiveFn, points: PyTree, max_steps: int = 1000, tolerance: float = 1e-3
) -> ConstantEstimate:
    r"""The smoothness constant as the largest absolute Hessian eigenvalue, by power iteration without the Hessian.

    .. math:: L = \sup_x \max_i |\lambda_i(\nabla^2 f(x))|

    Iterates on the squared Hessian, so that eigenvalues of opposite sign and equal size do not make it oscillate. A
    step costs two Hessian-vector products. It ends when the residual of the squared eigenvalue is below `tolerance`
    times that eigenvalue: the estimate is then within half that relative error of an eigenvalue, usually much closer.
    About 1 / (e tolerance) steps are enough, however close the next eigenvalue.

    Args:
        key: decides the random start vectors.
        objective_fn: f, parameters -> shape []; twice differentiable.
        points: n places to look at, a pytree of parameters with a leading axis [n].
        max_steps: of the power iteration, at least 1.
        tolerance: relative, positive; below the square root of the precision it may not be reached.

    Returns:
        The largest absolute eigenvalue over the points, a lower bound of L; NaN, not converged, where the Hessian is
        not finite.

    Raises:
        ValueError: if the leaves of `points` do not share a leading axis, or a static setting is not positive.

    Statement: convergence.lipschitz_smoothness.  Source: Nesterov 2004, lemma 1.2.2.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> points = jnp.array([[0.0, 0.0], [1.0, 0.0]])
    >>> estimate = convergence.smoothness_constant(jax.random.key(0), lambda x: jnp.sum(x**4), points)
    >>> print(f"{estimate.value:.3f} at point {estimate.point}, {estimate.converged=!s}")
    12.000 at point 1, estimate.converged=True
    """
    keys = _keys(key, points, max_steps, tolerance)

    def at(key, point):
        return _spectral_radius(key, _hessian(objective_fn, point), point, max_steps, tolerance)

    radius = jax.vmap(at)(keys, points)
    point = jnp.argmax(radius.value)
    return ConstantEstimate(
        value=radius.value[point],
        point=point,
        num_steps=jnp.max(radius.num_steps),
        converged=jnp.all(radius.converged),
    )


def strong_convexity_constant(
    key: PRNGKey, objective_fn: ObjectiveFn, points: PyTree, max_steps: int = 1000, tolerance: float = 1e-3
) -> ConstantEstimate:
    r"""The strong-convexity constant as the smallest Hessian eigenvalue, by power iteration without the Hessian.

    .. math:: \mu = \inf_x \lambda_{\min}(\nabla^2 f(x)), \quad \lambda_{\min}(H) = L - \lambda_{\max}(L I - H)

    One iteration finds L, a second one the other end of the spectrum. The tolerance is relative to L, so that a
    condition number kappa needs one well below 1 / kappa, and as many more steps.

    Args:
        key: decides the random start vectors.
        objective_fn: f, parameters -> shape []; twice differentiable.
        points: n places to look at, a pytree of parameters with a leading axis [n].
        max_steps: of each power iteration, at least 1.
        tolerance: relative to the largest absolute eigenvalue, positive.

    Returns:
        The smallest eigenvalue over the points, an upper bound of mu, with the steps of both iterations added; negative
        where f is not convex. NaN, not converged, where the Hessian is not finite.

    Raises:
        ValueError: if the leaves of `points` do not share a leading axis, or a static setting is not positive.

    Statement: convergence.strong_convexity.  Source: Nesterov 2004, theorem 2.1.11.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> points = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    >>> objective_fn = lambda x: jnp.sum(x**4) + 0.5 * jnp.sum(x**2)
    >>> estimate = convergence.strong_convexity_constant(jax.random.key(0), objective_fn, points)
    >>> print(f"{estimate.value:.3f} at point {estimate.point}, {estimate.converged=!s}")
    1.000 at point 0, estimate.converged=True
    """
    keys = _keys(key, points, max_steps, tolerance)

    def at(key, point):
        key_top, key_bottom = jax.random.split(key)
        hessian = _hessian(objective_fn, point)
        top = _spectral_radius(key_top, hessian, point, max_steps, tolerance)

        def flipped(vector):
            return optax.tree.add_scale(optax.tree.scale(top.value, vector), -1, hessian(vector))

        bottom = _spectral_radius(key_bottom, flipped, point, max_steps, tolerance, scale=top.value)
        return _Radius(
            value=top.value - bottom.value,
            num_steps=top.num_steps + bottom.num_steps,
            converged=top.converged & bottom.converged,
        )

    smallest = jax.vmap(at)(keys, points)
    point = jnp.argmin(smallest.value)
    return ConstantEstimate(
        value=smallest.value[point],
        point=point,
        num_steps=jnp.max(smallest.num_steps),
        converged=jnp.all(smallest.converged),
    )


def pl_constant(objective_fn: ObjectiveFn, points: PyTree, minimum: Scalar) -> Array:
    r"""The largest Polyak-Lojasiewicz constant that some points allow.

    .. math:: \mu = \min_x \frac{\lVert \nabla f(x) \rVert^2}{2 (f(x) - \min f)}

    The iterates of gradient descent make good points: the slow modes, which decide the minimum, survive longest. Leave
    out those where f - min f is mere rounding.

    Args:
        objective_fn: f, parameters -> shape [].
        points: n places to look at, a pytree of parameters with a leading axis [n].
        minimum: min f, shape [].

    Returns:
        The smallest ratio, an upper bound of the constant, shape []; infinite if all points are minimisers, NaN if f
        falls below `minimum` at one.

    Raises:
        ValueError: if the leaves of `points` do not share a leading axis.

    Statement: convergence.pl_condition, convergence.strong_convexity_implies_pl.
    Source: Karimi, Nutini and Schmidt 2016, inequality (3).

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> convergence.pl_constant(lambda x: 2 * x[0] ** 2 + x[1] ** 2, jnp.array([[1.0, 0.0], [0.0, 1.0]]), 0.0)
    Array(2., dtype=float32)
    """
    leading_axis(points=points)
    shapes(minimum=(minimum, ""))
    values, gradients = jax.vmap(jax.value_and_grad(objective_fn))(points)
    gap = values - minimum
    require(gap >= 0, "`minimum` must not exceed the objective at any of the points")
    squared_norm = jax.vmap(lambda gradient: optax.tree.vdot(gradient, gradient))(gradients)
    ratio = squared_norm / (2 * jnp.where(gap > 0, gap, 1.0))
    return jnp.min(jnp.where(gap > 0, ratio, jnp.where(gap == 0, jnp.inf, jnp.nan)))


class SpectrumBounds(NamedTuple):
    """Extreme eigenvalues of a Hessian.

    A helper.

    Attributes:
        smallest: the smallest eigenvalue, shape [].
        largest: the largest eigenvalue, shape [].
    """

    smallest: Array
    largest: Array


def hessian_spectrum_bounds(objective_fn: ObjectiveFn, params: PyTree) -> SpectrumBounds:
    r"""The extreme eigenvalues of the Hessian at one point, from the Hessian itself.

    .. math:: \mu I \preceq \nabla^2 f(\theta) \preceq L I

    Builds the Hessian, [p, p]; `smoothness_constant` and `strong_convexity_constant` do without.

    Args:
        objective_fn: f, parameters -> shape []; twice differentiable.
        params: theta, a pytree of floating-point arrays with p entries in all.

    Returns:
        The smallest and the largest eigenvalue. For a mu-strongly convex, L-smooth f they lie in [mu, L]; for an
        L-smooth f that is not convex, in [-L, L].

    Raises:
        ValueError: if `objective_fn` does not return a scalar.

    Statement: convergence.hessian_sandwich.  Source: Nesterov 2004, theorems 2.1.6 and 2.1.11.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> convergence.hessian_spectrum_bounds(lambda x: x[0] ** 2 - x[1] ** 2, jnp.zeros(2))
    SpectrumBounds(smallest=Array(-2., dtype=float32), largest=Array(2., dtype=float32))
    """
    flat, unravel = ravel_pytree(params)
    value = jax.eval_shape(objective_fn, params)
    require(value.shape == (), f"`objective_fn` must return a scalar, got {list(value.shape)}")
    eigenvalues = jnp.linalg.eigvalsh(jax.hessian(lambda vector: objective_fn(unravel(vector)))(flat))
    return SpectrumBounds(smallest=eigenvalues[0], largest=eigenvalues[-1])


class _Radius(NamedTuple):
    value: Array
    num_steps: Array
    converged: Array


def _spectral_radius(
    key: PRNGKey,
    operator: Callable[[PyTree], PyTree],
    like: PyTree,
    max_steps: int,
    tolerance: float,
    scale: Scalar = 0.0,
) -> _Radius:
    """Largest absolute eigenvalue of a symmetric operator on trees shaped as `like`.

    The residual of the squared eigenvalue is measured against the square of the eigenvalue or of `scale`, whichever is
    larger: an operator that vanishes up to rounding has no direction to converge to. Squares are not formed, for they
    overflow or underflow where the eigenvalue does not.
    """

    def improve(carry):
        num_steps, vector, _, _ = carry
        image = operator(vector)
        value = tree_norm(image)
        squared = operator(tree_unit(image))  # the squared operator applied to the vector, divided by the value
        residual = tree_norm(optax.tree.add_scale(squared, -value, vector))
        largest = jnp.maximum(value, scale)
        converged = residual * (value / jnp.where(largest == 0, 1.0, largest)) <= tolerance * largest
        return num_steps + 1, tree_unit(squared), value, converged

    def unfinished(carry):
        num_steps, _, value, converged = carry
        return (num_steps < max_steps) & ~converged & ~jnp.isnan(value)

    vector = tree_unit(tree_normal_like(key, like))
    zero = jnp.zeros_like(tree_norm(like))
    start = (jnp.array(0), vector, zero, jnp.array(False))
    num_steps, _, value, converged = jax.lax.while_loop(unfinished, improve, start)
    return _Radius(value=value, num_steps=num_steps, converged=converged)


def _hessian(objective_fn: ObjectiveFn, point: PyTree) -> Callable[[PyTree], PyTree]:
    return lambda vector: hessian_vector_product(objective_fn, point, vector)


def _keys(key: PRNGKey, points: PyTree, max_steps: int, tolerance: float) -> Array:
    """One key for each point, once the settings are right."""
    n = leading_axis(points=points)
    require(max_steps >= 1, "`max_steps` must be at least 1")
    require(tolerance > 0, "`tolerance` must be positive")
    return jax.random.split(key, n)
