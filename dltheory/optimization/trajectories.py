"""Runs of an optimizer that keep every iterate, as theory looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dltheory._checks import leading_axis, require
from dltheory._trees import strongly_typed
from dltheory.typing import Array, ObjectiveFn, PyTree

__all__ = ["Trajectory", "run_online", "run_optimizer"]


class Trajectory(NamedTuple):
    """Everything an optimizer went through.

    Under `jit`, fields that are not used are not computed.

    Attributes:
        params: parameters before each step and after the last, leaves [t + 1, ...].
        value: objective values, shape [t + 1]; of `run_online` the losses suffered, shape [t].
        state: optimizer states that go with `params`, leaves [t + 1, ...].
    """

    params: PyTree
    value: Array
    state: PyTree


def run_optimizer(
    optimizer: optax.GradientTransformation, objective_fn: ObjectiveFn, params: PyTree, num_steps: int
) -> Trajectory:
    """Minimises a fixed objective and keeps the whole trajectory.

    The optimizer is given the gradient at the current parameters and, as extra arguments, `value`, `grad` and
    `value_fn`, so that line searches of optax and `newton` work as they are.

    Args:
        optimizer: any optax transformation.
        objective_fn: the objective, parameters -> shape [].
        params: starting point, a pytree of floating-point arrays.
        num_steps: number of steps t, non-negative.

    Returns:
        Parameters, objective values and optimizer states, each with a leading axis of t + 1.

    Raises:
        ValueError: if `num_steps` is negative or `objective_fn` does not return a scalar.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> run = optimization.run_optimizer(optimization.gradient_descent(0.25), lambda x: x**2, jnp.array(1.0), 2)
    >>> run.params, run.value
    (Array([1.  , 0.5 , 0.25], dtype=float32), Array([1.    , 0.25  , 0.0625], dtype=float32))
    """
    require(num_steps >= 0, f"`num_steps` must be non-negative, got {num_steps}")
    _require_scalar("objective_fn", jax.eval_shape(objective_fn, params))
    (params, state), path = _scan(optimizer, lambda p, _: objective_fn(p), params, None, num_steps, lambda p: p)
    return Trajectory(*jax.tree.map(_append, tuple(path), (params, objective_fn(params), state)))


def run_online(
    optimizer: optax.GradientTransformation,
    loss_fn: Callable[[PyTree, Any], Array],
    params: PyTree,
    data: PyTree,
    projection: Callable[[PyTree], PyTree] | None = None,
) -> Trajectory:
    """Takes one step on each loss of a sequence: stochastic-gradient descent, or online optimisation.

    In step t the optimizer sees the gradient of ``loss_fn(., data[t])`` at the current parameters alone. The sum of the
    returned values less the loss of a fixed comparator is the regret.

    Args:
        optimizer: any optax transformation.
        loss_fn: (parameters, one element of `data`) -> shape [].
        params: starting point, a pytree of floating-point arrays.
        data: what distinguishes the losses (examples, indices, keys, coefficients), leaves [t, ...].
        projection: parameters -> the nearest feasible ones, applied after every step; none by default.

    Returns:
        Parameters and optimizer states with a leading axis of t + 1, and the losses suffered, shape [t], each at the
        parameters before its step.

    Raises:
        ValueError: if the leaves of `data` do not share their leading axis, or it is empty, or `loss_fn` does not
            return a scalar.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> sgd, targets = optimization.gradient_descent(0.5), jnp.array([1.0, 0.0])
    >>> run = optimization.run_online(sgd, lambda x, target: (x - target) ** 2 / 2, jnp.array(0.0), targets)
    >>> run.params, run.value
    (Array([0.  , 0.5 , 0.25], dtype=float32), Array([0.5  , 0.125], dtype=float32))
    """
    leading_axis(data=data)
    first = jax.tree.map(lambda leaf: jax.eval_shape(lambda x: x[0], leaf), data)
    _require_scalar("loss_fn", jax.eval_shape(loss_fn, params, first))
    (params, state), path = _scan(optimizer, loss_fn, params, data, None, projection or (lambda p: p))
    appended = jax.tree.map(_append, (path.params, path.state), (params, state))
    return Trajectory(params=appended[0], value=path.value, state=appended[1])


def _scan(optimizer, loss_fn, params, data, length, projection):
    """The loop itself: final parameters and state, and the trajectory without them."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry, datum):
        params, state = carry

        def value_fn(p):
            return loss_fn(p, datum)

        value, grad = jax.value_and_grad(value_fn)(params)
        updates, new_state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=value_fn)
        return (projection(optax.apply_updates(params, updates)), new_state), Trajectory(params, value, state)

    params = strongly_typed(params)
    return jax.lax.scan(step, (params, optimizer.init(params)), data, length=length)


def _append(path: Array, last: Array) -> Array:
    return jnp.concatenate([path, jnp.expand_dims(last, 0)])


def _require_scalar(name: str, output: Any) -> None:
    shape = getattr(output, "shape", None)
    require(shape == (), f"`{name}` must return a scalar, got {'no array' if shape is None else list(shape)}")
