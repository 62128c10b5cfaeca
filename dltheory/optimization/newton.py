"""Newton's method, with the Hessian and by conjugate gradients without it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from dltheory._checks import require
from dltheory._trees import tree_norm, tree_unit
from dltheory.optimization._settings import add_scaled, require_like, require_non_negative
from dltheory.typing import Array, ObjectiveFn, PyTree, Scalar

__all__ = [
    "NewtonCgDirection",
    "NewtonCgState",
    "NewtonDirection",
    "NewtonState",
    "hessian_vector_product",
    "newton",
    "newton_cg",
    "newton_cg_direction",
    "newton_direction",
]


def hessian_vector_product(objective_fn: ObjectiveFn, params: PyTree, vector: PyTree) -> PyTree:
    r"""Hessian times vector, without the Hessian: the directional derivative of the gradient (forward over reverse).

    .. math:: \nabla^2 f(\theta) v = \frac{d}{d\epsilon} \nabla f(\theta + \epsilon v) \Big|_{\epsilon = 0}

    Args:
        objective_fn: f, parameters -> shape [].
        params: theta, a pytree of floating-point arrays.
        vector: v, with the structure, shapes and dtypes of `params`.

    Returns:
        A pytree like `params`; costs about two gradients.

    Raises:
        ValueError: if `vector` is not like `params`.

    A helper.  Source: Pearlmutter 1994.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.hessian_vector_product(lambda x: jnp.prod(x), jnp.array([2.0, 3.0]), jnp.array([1.0, 0.0]))
    Array([0., 1.], dtype=float32)
    """
    require_like(params, vector=vector)
    return jax.jvp(jax.grad(objective_fn), (params,), (vector,))[1]


class NewtonDirection(NamedTuple):
    """A solution of the Newton equation.

    Attributes:
        direction: the step, a pytree like the parameters; infinite or NaN if the (damped) Hessian is singular.
        positive_definite: whether the (damped) Hessian is, shape []. Only then does the quadratic model have a minimum
            and is the direction one of descent.
    """

    direction: PyTree
    positive_definite: Array


class NewtonState(NamedTuple):
    """State of `newton`.

    Attributes:
        positive_definite: whether the last (damped) Hessian was, shape []; true before the first step.
    """

    positive_definite: Array


def newton_direction(objective_fn: ObjectiveFn, params: PyTree, damping: Scalar = 0.0) -> NewtonDirection:
    r"""The step to the critical point of the second-order Taylor model, its minimum if the Hessian is positive.

    .. math:: \Delta\theta = -(\nabla^2 f(\theta) + \lambda I)^{-1} \nabla f(\theta)

    Builds the Hessian, [p, p], and solves by elimination; `newton_cg_direction` does without.

    Args:
        objective_fn: f, parameters -> shape [].
        params: theta, a pytree of floating-point arrays with p entries in all.
        damping: lambda, non-negative, added to the Hessian's diagonal (Levenberg), shape [].

    Returns:
        The direction and whether the damped Hessian is positive definite (an error under `debug.checked` if not).

    Raises:
        ValueError: if `damping` is not a scalar, or a static one negative.

    Statement: optimizers.newton, optimizers.newton_isotropy.  Source: Nocedal and Wright 2006, section 3.3.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.newton_direction(lambda x: (x - 3) ** 4, jnp.array(0.0)).direction
    Array(1., dtype=float32)
    """
    require_non_negative(damping=damping)
    result = _solve(objective_fn, params, jax.grad(objective_fn)(params), damping)
    require(result.positive_definite, "the damped Hessian of `objective_fn` must be positive definite at `params`")
    return result


def newton(damping: Scalar = 0.0) -> optax.GradientTransformationExtraArgs:
    r"""Newton's method as an optax transformation: steps by `newton_direction`.

    .. math:: \theta_{t+1} = \theta_t - (\nabla^2 f(\theta_t) + \lambda I)^{-1} \nabla f(\theta_t)

    Its update needs the objective as the extra argument `value_fn`, which `run_optimizer` passes. There is no line
    search; ``optax.chain(newton(), optax.scale_by_backtracking_linesearch(20))`` adds one.

    Args:
        damping: lambda, non-negative, added to the Hessian's diagonal, shape [].

    Returns:
        The transformation; its state tells whether the last damped Hessian was positive definite.

    Raises:
        ValueError: if `damping` is not a scalar, or a static one negative; if `update` is not given `params` and
            `value_fn`.

    Statement: optimizers.newton.  Source: Nocedal and Wright 2006, section 3.3.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.run_optimizer(optimization.newton(), lambda x: (x - 3) ** 4, jnp.array(0.0), 2).params
    Array([0.       , 1.       , 1.6666667], dtype=float32)
    """
    require_non_negative(damping=damping)

    def init(params):
        del params
        return NewtonState(positive_definite=jnp.array(True))

    def update(updates, state, params=None, *, value_fn=None, **extra):
        del state, extra
        value_fn = _require_value_fn(value_fn, params)
        result = _solve(value_fn, params, updates, damping)
        return result.direction, NewtonState(positive_definite=result.positive_definite)

    return optax.GradientTransformationExtraArgs(init, update)


class NewtonCgDirection(NamedTuple):
    """An approximate solution of the Newton equation.

    Attributes:
        direction: the step, a pytree like the parameters; always one of descent. NaN if the gradient is not finite.
        num_steps: conjugate-gradient steps taken, shape [].
        converged: whether the residual met the tolerance, shape [].
        negative_curvature: whether the iteration stopped at a direction in which the damped Hessian is not positive,
            shape [].
    """

    direction: PyTree
    num_steps: Array
    converged: Array
    negative_curvature: Array


class NewtonCgState(NamedTuple):
    """State of `newton_cg`: how the last linear solve ended, as in `NewtonCgDirection`.

    Attributes:
        num_steps: conjugate-gradient steps taken, shape [].
        converged: whether the residual met the tolerance, shape []; true before the first step.
        negative_curvature: whether a direction without positive curvature was met, shape [].
    """

    num_steps: Array
    converged: Array
    negative_curvature: Array


def newton_cg_direction(
    objective_fn: ObjectiveFn,
    params: PyTree,
    damping: Scalar = 0.0,
    tolerance: float = 1e-5,
    max_steps: int | None = None,
) -> NewtonCgDirection:
    r"""The Newton step by conjugate gradients on Hessian-vector products; the Hessian is never built.

    .. math:: \lVert (\nabla^2 f(\theta) + \lambda I) \Delta\theta + \nabla f(\theta) \rVert
        \le \text{tolerance} \cdot \lVert \nabla f(\theta) \rVert

    Stops at a direction of non-positive curvature with what it has so far (the negative gradient, if that is the first
    one), so that the step is one of descent even where the Hessian is indefinite.

    Args:
        objective_fn: f, parameters -> shape [].
        params: theta, a pytree of floating-point arrays with p entries in all.
        damping: lambda, non-negative, shape [].
        tolerance: of the residual relative to the gradient, positive.
        max_steps: of the linear solver, positive; 10 p by default.

    Returns:
        The direction and how the linear solve ended.

    Raises:
        ValueError: if a setting is not a scalar, or a static one out of its range.

    Statement: optimizers.newton.  Source: Nocedal and Wright 2006, algorithm 7.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.newton_cg_direction(lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(3)).direction
    Array([1., 1., 1.], dtype=float32)
    """
    _require_cg(damping, tolerance, max_steps)
    return _conjugate_gradient(objective_fn, params, jax.grad(objective_fn)(params), damping, tolerance, max_steps)


def newton_cg(
    damping: Scalar = 0.0, tolerance: float = 1e-5, max_steps: int | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Damped Newton-CG as an optax transformation: steps by `newton_cg_direction`.

    .. math:: \theta_{t+1} = \theta_t + \Delta_t, \quad
        (\nabla^2 f(\theta_t) + \lambda I) \Delta_t \approx -\nabla f(\theta_t)

    Its update needs the objective as the extra argument `value_fn`, which `run_optimizer` passes. There is no line
    search; ``optax.chain(newton_cg(), optax.scale_by_backtracking_linesearch(20))`` adds one.

    Args:
        damping: lambda, non-negative, shape [].
        tolerance: of the residual relative to the gradient, positive.
        max_steps: of the linear solver, positive; 10 p by default, with p the number of parameters.

    Returns:
        The transformation; its state tells how the last linear solve ended.

    Raises:
        ValueError: if a setting is not a scalar, or a static one out of its range; if `update` is not given `params`
            and `value_fn`.

    Statement: optimizers.newton.  Source: Nocedal and Wright 2006, algorithm 7.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> run = optimization.run_optimizer(optimization.newton_cg(), lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(3), 1)
    >>> run.params[-1], run.state.converged[-1]
    (Array([1., 1., 1.], dtype=float32), Array(True, dtype=bool))
    """
    _require_cg(damping, tolerance, max_steps)

    def init(params):
        del params
        return NewtonCgState(num_steps=jnp.array(0), converged=jnp.array(True), negative_curvature=jnp.array(False))

    def update(updates, state, params=None, *, value_fn=None, **extra):
        del state, extra
        value_fn = _require_value_fn(value_fn, params)
        result = _conjugate_gradient(value_fn, params, updates, damping, tolerance, max_steps)
        return result.direction, NewtonCgState(*result[1:])

    return optax.GradientTransformationExtraArgs(init, update)


def _solve(objective_fn: ObjectiveFn, params: PyTree, gradient: PyTree, damping: Scalar) -> NewtonDirection:
    flat, unravel = ravel_pytree(params)
    hessian = jax.hessian(lambda v: objective_fn(unravel(v)))(flat)
    hessian = hessian + damping * jnp.eye(flat.size, dtype=jnp.promote_types(flat.dtype, "float32"))
    direction = jnp.linalg.solve(hessian, -ravel_pytree(gradient)[0].astype(hessian.dtype))
    return NewtonDirection(
        direction=unravel(direction.astype(flat.dtype)),
        positive_definite=jnp.all(jnp.isfinite(jnp.linalg.cholesky(hessian))),
    )


def _conjugate_gradient(
    objective_fn: ObjectiveFn,
    params: PyTree,
    gradient: PyTree,
    damping: Scalar,
    tolerance: float,
    max_steps: int | None,
) -> NewtonCgDirection:
    limit = 10 * optax.tree.size(params) if max_steps is None else max_steps

    def unfinished(carry):
        step, _, residual, _, stuck = carry
        return (step < limit) & (tree_norm(residual) > tolerance) & ~stuck

    def improve(carry):
        step, solution, residual, search, _ = carry
        image = add_scaled(hessian_vector_product(objective_fn, params, search), damping, search)
        curvature = jnp.asarray(optax.tree.vdot(search, image))
        stuck = curvature <= 0
        squared = jnp.asarray(optax.tree.vdot(residual, residual))
        length = jnp.where(stuck, jnp.where(step == 0, 1.0, 0.0), squared / jnp.where(stuck, 1.0, curvature))
        solution = add_scaled(solution, length, search)
        residual = add_scaled(residual, -length, image)
        search = add_scaled(residual, jnp.asarray(optax.tree.vdot(residual, residual)) / squared, search)
        return step + 1, solution, residual, search, stuck

    # The equation is linear: solved for the unit gradient, its squares neither overflow nor underflow.
    negative = optax.tree.scale(-1, tree_unit(gradient))
    start = (jnp.array(0), optax.tree.zeros_like(gradient), negative, negative, jnp.array(False))
    num_steps, solution, residual, _, stuck = jax.lax.while_loop(unfinished, improve, start)
    return NewtonCgDirection(
        direction=add_scaled(optax.tree.zeros_like(gradient), tree_norm(gradient), solution),
        num_steps=num_steps,
        converged=tree_norm(residual) <= tolerance,
        negative_curvature=stuck,
    )


def _require_cg(damping: Scalar, tolerance: float, max_steps: int | None) -> None:
    require_non_negative(damping=damping)
    require(tolerance > 0, "`tolerance` must be positive")
    require(max_steps is None or max_steps >= 1, "`max_steps` must be positive")


def _require_value_fn(value_fn: ObjectiveFn | None, params: PyTree) -> ObjectiveFn:
    if value_fn is None or params is None:
        raise ValueError("`update` needs `params` and the objective: update(grad, state, params, value_fn=f)")
    return value_fn
