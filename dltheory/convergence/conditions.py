"""What convergence theorems ask of an objective, as numbers: convexity, smoothness, descent, stationarity."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dltheory._checks import alike, require, shapes
from dltheory._trees import tree_norm
from dltheory.typing import Array, ObjectiveFn, PyTree, Scalar

__all__ = [
    "DescentCertificate",
    "StationaritySteps",
    "bregman_divergence",
    "bregman_integral",
    "convexity_gap",
    "descent_certificate",
    "is_stationary",
    "quadratic_upper_bound",
    "steps_to_stationarity",
]


def convexity_gap(objective_fn: ObjectiveFn, x: PyTree, y: PyTree, weight: Scalar) -> Array:
    r"""How far the chord between two points lies above the function: non-negative everywhere iff it is convex.

    .. math:: \lambda f(x) + (1 - \lambda) f(y) - f(\lambda x + (1 - \lambda) y)

    Args:
        objective_fn: f, parameters -> shape [].
        x, y: two points, pytrees of floating-point arrays of the same shapes.
        weight: lambda, in [0, 1], shape [].

    Returns:
        The gap, in the units of f, shape []. One negative value is a proof that f is not convex.

    Raises:
        ValueError: if `y` has not the shapes of `x`, or a static `weight` is outside [0, 1].

    Statement: convergence.convexity.  Source: Boyd and Vandenberghe 2004, inequality (3.1).

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> float(convergence.convexity_gap(lambda x: x**2, jnp.array(-1.0), jnp.array(1.0), 0.5))
    1.0
    """
    alike(x=x, y=y)
    shapes(weight=(weight, ""))
    require((weight >= 0) & (weight <= 1), "`weight` must lie in [0, 1]")
    between = jax.tree.map(lambda a, b: weight * a + (1 - weight) * b, x, y)
    return weight * objective_fn(x) + (1 - weight) * objective_fn(y) - objective_fn(between)


def bregman_divergence(objective_fn: ObjectiveFn, x: PyTree, y: PyTree) -> Array:
    r"""How far a function lies above its tangent plane: non-negative everywhere iff it is convex.

    .. math:: D_f(x, y) = f(x) - f(y) - \nabla f(y)^T (x - y)

    It lies between mu/2 ||x - y||^2 and L/2 ||x - y||^2 for a mu-strongly convex, L-smooth f.

    Args:
        objective_fn: f, parameters -> shape [].
        x: where f is evaluated, a pytree of floating-point arrays.
        y: where the tangent plane touches, shaped as `x`.

    Returns:
        The divergence, in the units of f, shape [].

    Raises:
        ValueError: if `y` has not the shapes of `x`.

    Statement: convergence.first_order_convexity.  Source: Boyd and Vandenberghe 2004, inequality (3.2).

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> float(convergence.bregman_divergence(lambda x: x**2, jnp.array(3.0), jnp.array(1.0)))
    4.0
    """
    alike(x=x, y=y)
    value, gradient = jax.value_and_grad(objective_fn)(y)
    return objective_fn(x) - value - optax.tree.vdot(gradient, optax.tree.sub(x, y))


def quadratic_upper_bound(objective_fn: ObjectiveFn, x: PyTree, y: PyTree, smoothness: Scalar) -> Array:
    r"""The parabola that touches f at y and lies above it everywhere, if f is L-smooth.

    .. math:: f(x) \le f(y) + \nabla f(y)^T (x - y) + \tfrac{L}{2} \lVert x - y \rVert^2

    Args:
        objective_fn: f, parameters -> shape [].
        x: where the bound is evaluated, a pytree of floating-point arrays.
        y: where it touches, shaped as `x`.
        smoothness: L, a Lipschitz constant of the gradient, shape [].

    Returns:
        The right-hand side, shape [].

    Raises:
        ValueError: if `y` has not the shapes of `x`.

    Statement: convergence.quadratic_upper_bound.  Source: Nesterov 2004, lemma 1.2.3.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> float(convergence.quadratic_upper_bound(jnp.sin, jnp.array(1.0), jnp.array(0.0), 1.0))
    1.5
    """
    alike(x=x, y=y)
    shapes(smoothness=(smoothness, ""))
    value, gradient = jax.value_and_grad(objective_fn)(y)
    step = optax.tree.sub(x, y)
    return value + optax.tree.vdot(gradient, step) + 0.5 * smoothness * optax.tree.vdot(step, step)


def bregman_integral(objective_fn: ObjectiveFn, x: PyTree, y: PyTree, num_nodes: int = 20) -> Array:
    r"""The Bregman divergence as an integral of gradient differences, which smoothness bounds under the integral.

    .. math:: D_f(x, y) = \int_0^1 [\nabla f(y + s (x - y)) - \nabla f(y)]^T (x - y) \, ds

    Args:
        objective_fn: f, parameters -> shape [].
        x, y: two points, pytrees of floating-point arrays of the same shapes.
        num_nodes: of the Gauss-Legendre rule, at least 1; exact for polynomials f of degree up to 2 num_nodes.

    Returns:
        The integral, shape [].

    Raises:
        ValueError: if `y` has not the shapes of `x`, or `num_nodes` is not positive.

    Statement: convergence.smoothness_integral.  Source: Nesterov 2004, proof of lemma 1.2.3.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> convergence.bregman_integral(lambda x: x**2, jnp.array(3.0), jnp.array(1.0), num_nodes=1)
    Array(4., dtype=float32)
    """
    alike(x=x, y=y)
    require(num_nodes >= 1, "`num_nodes` must be positive")
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    step = optax.tree.sub(x, y)
    gradient = jax.grad(objective_fn)(y)

    def integrand(s):
        difference = optax.tree.sub(jax.grad(objective_fn)(optax.tree.add_scale(y, s, step)), gradient)
        return optax.tree.vdot(difference, step)

    dtype = jax.eval_shape(objective_fn, x).dtype
    values = jax.vmap(integrand)(jnp.asarray((nodes + 1) / 2, dtype))
    return jnp.sum(jnp.asarray(weights / 2, dtype) * values)


class DescentCertificate(NamedTuple):
    """What one gradient step gained and what smoothness promised.

    A helper.

    Attributes:
        decrease: of the objective in one gradient step of length 1/L, shape [].
        guaranteed: the least decrease of any L-smooth objective with this gradient, shape [].
    """

    decrease: Array
    guaranteed: Array


def descent_certificate(objective_fn: ObjectiveFn, params: PyTree, smoothness: Scalar) -> DescentCertificate:
    r"""The decrease in a gradient step of length 1/L, beside the one that the descent lemma guarantees.

    .. math:: f(\theta) - f(\theta - \nabla f(\theta) / L) \ge \frac{\lVert \nabla f(\theta) \rVert^2}{2 L}

    Args:
        objective_fn: f, parameters -> shape [].
        params: theta, a pytree of floating-point arrays.
        smoothness: L, positive, shape [].

    Returns:
        Both sides of the inequality; a decrease below the guaranteed one shows that f is not L-smooth.

    Raises:
        ValueError: if a static `smoothness` is not positive.

    Statement: convergence.descent_lemma.  Source: Nesterov 2004, section 1.2.3.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> certificate = convergence.descent_certificate(jnp.cos, jnp.array(1.0), 1.0)
    >>> float(certificate.decrease), float(certificate.guaranteed)
    (0.80768, 0.35404)
    """
    shapes(smoothness=(smoothness, ""))
    require(smoothness > 0, "`smoothness` must be positive")
    value, gradient = jax.value_and_grad(objective_fn)(params)
    moved = optax.tree.add_scale(params, -1 / smoothness, gradient)
    squared_norm = jnp.asarray(optax.tree.vdot(gradient, gradient))
    return DescentCertificate(decrease=value - objective_fn(moved), guaranteed=squared_norm / (2 * smoothness))


def is_stationary(gradient: PyTree, tolerance: Scalar) -> Array:
    r"""Whether a point is epsilon-stationary.

    .. math:: \lVert \nabla f(x) \rVert \le \epsilon

    Args:
        gradient: the gradient there, a pytree of arrays.
        tolerance: epsilon, non-negative, shape [].

    Returns:
        A truth value, shape []; false if the gradient has a NaN.

    Raises:
        ValueError: if a static `tolerance` is negative.

    Statement: convergence.eps_stationarity.  Source: Nesterov 2004, section 1.2.3.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> convergence.is_stationary({"w": jnp.array([3.0, 4.0])}, 5.0)
    Array(True, dtype=bool)
    """
    shapes(tolerance=(tolerance, ""))
    require(tolerance >= 0, "`tolerance` must be non-negative")
    return tree_norm(gradient) <= tolerance


class StationaritySteps(NamedTuple):
    """When a run first came to an epsilon-stationary point.

    A helper.

    Attributes:
        num_steps: steps taken before the first stationary iterate, shape []; the length of the run if there is none.
        reached: whether there is one, shape [].
    """

    num_steps: Array
    reached: Array


def steps_to_stationarity(gradient_norms: Array, tolerance: Scalar) -> StationaritySteps:
    r"""Number of steps until an optimizer first stands at an epsilon-stationary point.

    .. math:: \min \{ t : \lVert \nabla f(x_t) \rVert \le \epsilon \}

    Args:
        gradient_norms: norms of the gradient at the iterates x_0, x_1, ..., shape [t].
        tolerance: epsilon, non-negative, shape [].

    Returns:
        The number of steps, and whether the run came that far.

    Raises:
        ValueError: if shapes disagree or a static `tolerance` is negative.

    Statement: convergence.eps_stationarity.  Source: Nesterov 2004, section 1.2.3.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> convergence.steps_to_stationarity(jnp.array([2.0, 1.0, 0.5]), 1.0)
    StationaritySteps(num_steps=Array(1, dtype=int32), reached=Array(True, dtype=bool))
    """
    shapes(gradient_norms=(gradient_norms, "t"), tolerance=(tolerance, ""))
    require(tolerance >= 0, "`tolerance` must be non-negative")
    stationary = gradient_norms <= tolerance
    return StationaritySteps(num_steps=jnp.argmax(jnp.append(stationary, True)), reached=jnp.any(stationary))
