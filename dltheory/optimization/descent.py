"""Steepest descent, gradient descent, and the gradient flow that it discretises."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.linalg import cho_solve

from dltheory._checks import require, shapes
from dltheory._numerics import safe_norm
from dltheory.optimization._settings import require_non_negative
from dltheory.typing import Array, ObjectiveFn, PyTree

__all__ = ["GradientFlow", "gradient_descent", "gradient_flow", "steepest_descent_direction"]


def steepest_descent_direction(gradient: Array, norm: str | Array = "l2") -> Array:
    r"""The direction of unit norm in which a function decreases fastest.

    .. math:: \arg\min_{\lVert \Delta \rVert = 1} \nabla f(\theta)^T \Delta

    It depends on the norm: minus the normalised gradient for the Euclidean norm, minus its sign for the maximum norm,
    one signed coordinate for the sum norm, and ``-P^{-1} g / sqrt(g^T P^{-1} g)`` for sqrt(x^T P x).

    Args:
        gradient: gradient g of f at the point, shape [d].
        norm: "l2", "l1", "linf", or a symmetric positive definite matrix P, shape [d, d].

    Returns:
        The direction, shape [d]. Where it is not unique, one of them: for "l1" the first coordinate of largest
        derivative, for "linf" zero where a derivative is zero. The zero gradient gives zero. NaN if P is not positive
        definite.

    Raises:
        ValueError: if shapes disagree or the norm is unknown.

    Statement: optimizers.steepest_descent.  Source: Boyd and Vandenberghe 2004, section 9.4.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.steepest_descent_direction(jnp.array([3.0, -4.0]))
    Array([-0.6,  0.8], dtype=float32)
    >>> optimization.steepest_descent_direction(jnp.array([3.0, -4.0]), "linf")
    Array([-1.,  1.], dtype=float32)
    """
    shapes(gradient=(gradient, "d"))
    if isinstance(norm, str):
        require(norm in _DIRECTIONS, f"`norm` must be one of {', '.join(_DIRECTIONS)} or a matrix, got {norm!r}")
        return _DIRECTIONS[norm](gradient)
    shapes(gradient=(gradient, "d"), norm=(norm, "d d"))
    gradient = _rescaled(gradient)
    solution = cho_solve((jnp.linalg.cholesky(norm), True), gradient)
    decrement = gradient @ solution
    return -solution / jnp.sqrt(jnp.where(decrement == 0, 1.0, decrement))


def _rescaled(gradient: Array) -> Array:
    """A multiple of the gradient, which has the same direction, whose squares neither overflow nor underflow."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(gradient), initial=0.0))
    return gradient / jnp.where(largest > 0, largest, 1.0)


def _l2_direction(gradient: Array) -> Array:
    gradient = _rescaled(gradient)
    length = safe_norm(gradient)
    return -gradient / jnp.where(length > 0, length, 1.0)


def _l1_direction(gradient: Array) -> Array:
    largest = jnp.argmax(jnp.abs(gradient))
    return -jnp.sign(gradient) * jax.nn.one_hot(largest, gradient.size, dtype=gradient.dtype)


_DIRECTIONS = {"l2": _l2_direction, "l1": _l1_direction, "linf": lambda gradient: -jnp.sign(gradient)}


def gradient_descent(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent: the explicit Euler step of the gradient flow.

    .. math:: \theta_{t+1} = \theta_t - \eta_t \nabla f(\theta_t)

    The same as `optax.sgd` without momentum.

    Args:
        learning_rate: eta, non-negative scalar or schedule.

    Returns:
        The transformation.

    Raises:
        ValueError: if `learning_rate` is not a scalar, or a static one negative.

    Statement: optimizers.gradient_descent, optimizers.newton_isotropy.  Source: Cauchy 1847.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.run_optimizer(optimization.gradient_descent(0.25), lambda x: x**2, jnp.array(1.0), 3).params
    Array([1.   , 0.5  , 0.25 , 0.125], dtype=float32)
    """
    require_non_negative(learning_rate=learning_rate)
    return optax.sgd(learning_rate)


class GradientFlow(NamedTuple):
    """A solution of the gradient-flow equation.

    Attributes:
        params: the solution at the requested times, leaves [t, ...].
        converged: whether the solver reached the last time within its step budget, shape []; if not, the parameters
            after it gave up are infinite.
    """

    params: PyTree
    converged: Array


def gradient_flow(
    objective_fn: ObjectiveFn,
    params: PyTree,
    times: Array,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    max_steps: int = 4096,
) -> GradientFlow:
    r"""The gradient flow: what gradient descent becomes as the learning rate tends to zero.

    .. math:: \frac{d\theta}{dt} = -\nabla f(\theta), \quad \theta(0) = \theta_0

    Solved by diffrax with an adaptive explicit Runge-Kutta method of order five (Tsitouras), so the number of steps
    grows with the smoothness times the last time. Gradient descent with learning rate eta stays, over a fixed
    time, within O(eta) of it at times t eta.

    Args:
        objective_fn: f, parameters -> shape [].
        params: theta_0, a pytree of floating-point arrays.
        times: increasing, non-negative, in units of learning rate times steps, shape [t].
        rtol: relative tolerance of one step, positive.
        atol: absolute tolerance of one step, positive.
        max_steps: of the solver, positive.

    Returns:
        The solution at `times`, NaN if these are not increasing and non-negative, and whether the solver got there.

    Raises:
        ValueError: if `times` is not a vector or is empty, or a static setting is not positive.

    Statement: optimizers.gradient_descent.  Source: Tsitouras 2011 (the solver).

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> flow = optimization.gradient_flow(lambda x: x**2 / 2, jnp.array(1.0), jnp.array([0.0, 1.0]))
    >>> bool(jnp.allclose(flow.params, jnp.exp(jnp.array([0.0, -1.0])), rtol=1e-5))
    True
    """
    import diffrax  # takes a second to import, and nothing else here needs it

    shapes(times=(times, "t"))
    require(rtol > 0, "`rtol` must be positive")
    require(atol > 0, "`atol` must be positive")
    require(max_steps >= 1, "`max_steps` must be positive")
    require(times.size >= 1, "`times` must hold at least one time")
    ordered = jnp.all(jnp.diff(times) > 0) & jnp.all(times >= 0)
    require(ordered, "`times` must be increasing and non-negative")
    times = jnp.where(ordered, times, jnp.arange(times.size, dtype=times.dtype))  # diffrax would stop the program

    def velocity(t, y, args):
        del t, args
        return optax.tree.scale(-1, jax.grad(objective_fn)(y))

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Tsit5(),
        t0=jnp.zeros((), times.dtype),
        t1=times[-1],
        dt0=None,
        y0=params,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=max_steps,
        throw=False,
    )
    return GradientFlow(
        params=jax.tree.map(lambda leaf: jnp.where(ordered, leaf, jnp.nan), solution.ys),
        converged=ordered & (solution.result == diffrax.RESULTS.successful),
    )
