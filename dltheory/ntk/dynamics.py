"""A network in training beside its linearisation: how far they part, and how far the kernel and the parameters move."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dltheory._checks import require, shapes
from dltheory._numerics import safe_norm
from dltheory._trees import tree_norm
from dltheory.ntk._variables import require_outputs, same_trainable, trainable
from dltheory.ntk.empirical import empirical_ntk
from dltheory.ntk.linearization import parameter_velocity
from dltheory.ntk.prediction import kernel_modes, predict_steps
from dltheory.typing import ApplyFn, Array, PyTree, Scalar

__all__ = ["NtkDynamics", "kernel_drift", "ntk_dynamics"]


class NtkDynamics(NamedTuple):
    """A training run at t recorded steps, and what its linearisation does in its place.

    Attributes:
        steps: number of steps taken at each record, shape [t]; the first is 0.
        outputs_train: of the network at the training inputs, shape [t, n, k].
        outputs_test: of the network at the test inputs, shape [t, m, k].
        linear_train: of the linearised network at the training inputs, shape [t, n, k].
        linear_test: of the linearised network at the test inputs, shape [t, m, k].
        kernel_drift: relative change of the kernel on the training set in Frobenius norm, shape [t].
        parameter_distance: Euclidean distance of the trained parameters from where they started, shape [t].
        eigenvalues: of the kernel at the start, largest first, shape [n k].
        mode_residuals: targets minus the network's outputs, along the eigenvectors of the kernel at the start, shape
            [t, n k].
        linear_mode_residuals: the same of the linearised network, shape [t, n k].
        params: after the last step, like `params0`.
    """

    steps: Array
    outputs_train: Array
    outputs_test: Array
    linear_train: Array
    linear_test: Array
    kernel_drift: Array
    parameter_distance: Array
    eigenvalues: Array
    mode_residuals: Array
    linear_mode_residuals: Array
    params: PyTree


def kernel_drift(apply_fn: ApplyFn, params0: PyTree, params1: PyTree, x: PyTree) -> Array:
    r"""The relative change of the neural tangent kernel between two sets of parameters.

    .. math:: \frac{\lVert K(\theta_1) - K(\theta_0) \rVert_F}{\lVert K(\theta_0) \rVert_F}

    Args:
        apply_fn: the network, (params, inputs [n, ...]) -> outputs [n, k].
        params0: parameters theta_0; of a mapping with the key "params" (Flax variables) only that collection is
            differentiated.
        params1: parameters theta_1, like `params0`; its other collections count too.
        x: inputs, shape [n, ...] (or a pytree of such arrays).

    Returns:
        The ratio, shape []; infinite or NaN if the kernel at theta_0 is zero.

    Raises:
        ValueError: if the outputs are not [n, k], the parameters differ in structure or shape, or one is not real
            floating-point.

    Statement: ntk.constancy, ntk.drift_rate.  Source: Jacot, Gabriel and Hongler 2018, theorem 2; Lee et al. 2019,
    theorem 2.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> square = lambda w, x: (x @ w) ** 2
    >>> ntk.kernel_drift(square, jnp.array([[1.0]]), jnp.array([[1.5]]), jnp.ones((1, 1)))
    Array(1.25, dtype=float32)
    """
    same_trainable(apply_fn, params0, "params1", params1, "params0")
    require_outputs(trainable(apply_fn, params0), x)
    return _relative_change(empirical_ntk(apply_fn, params0, x), empirical_ntk(apply_fn, params1, x))


def ntk_dynamics(
    apply_fn: ApplyFn,
    params0: PyTree,
    x: PyTree,
    y: Array,
    x_test: PyTree,
    *,
    learning_rate: Scalar,
    num_steps: int,
    record_every: int = 1,
) -> NtkDynamics:
    r"""Trains a network by gradient descent on the squared loss, and its linearisation beside it.

    .. math::
        \theta_{t+1} &= \theta_t - \eta \nabla \tfrac12 \sum_i \lVert f_{\theta_t}(x_i) - y_i \rVert^2 \\
        f^{\mathrm{lin}}_t(X) &= y + (I - \eta K_{\theta_0})^t (f_{\theta_0}(X) - y)

    The linearised run is its closed form (`predict_steps`). Each record costs a kernel, so that the run is recorded
    every so many steps.

    Args:
        apply_fn: the network, (params, inputs [n, ...]) -> outputs [n, k].
        params0: where training starts; of a mapping with the key "params" (Flax variables) only that collection is
            trained.
        x: training inputs, shape [n, ...] (or a pytree of such arrays).
        y: targets, shape [n, k].
        x_test: test inputs, shape [m, ...] (or a pytree of such arrays).
        learning_rate: eta on the sum of squares over 2, positive, shape []; `max_learning_rate` gives the limit.
        num_steps: number of steps, a multiple of `record_every`, at least 0.
        record_every: number of steps between records, at least 1.

    Returns:
        Outputs of both, drift of kernel and parameters, and the training residual mode by mode, at the start and after
        every `record_every` steps.

    Raises:
        ValueError: if shapes disagree, a parameter is not real floating-point, or a static setting is out of its range.

    Statement: ntk.lazy_training, ntk.drift_rate.  Source: Lee et al. 2019, theorem 2.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> x, y = jnp.array([[1.0], [2.0]]), jnp.array([[1.0], [3.0]])
    >>> start = jnp.array([[1.0]])  # a linear network is its own linearisation
    >>> run = ntk.ntk_dynamics(lambda w, x: x @ w, start, x, y, x, learning_rate=0.1, num_steps=4, record_every=2)
    >>> print(run.steps, run.kernel_drift, abs(run.outputs_train - run.linear_train).max() < 1e-6)
    [0 2 4] [0. 0. 0.] True
    """
    net = trainable(apply_fn, params0, "params0")
    n, k = require_outputs(net, x)
    require_outputs(net, x_test, "x_test")
    shapes(y=(y, f"{n} {k}"), learning_rate=(learning_rate, ""))
    require(learning_rate > 0, "`learning_rate` must be positive")
    require(record_every >= 1, "`record_every` must be at least 1")
    whole = num_steps >= 0 and num_steps % record_every == 0
    require(whole, f"`num_steps` must be a non-negative multiple of `record_every`, {record_every}, got {num_steps}")
    kernel0, cross0 = empirical_ntk(net.fn, net.params, x), empirical_ntk(net.fn, net.params, x_test, x)

    def step(params, _):
        velocity = parameter_velocity(net.fn, params, x, y)
        return jax.tree.map(lambda p, v: jnp.asarray(p + learning_rate * v, p.dtype), params, velocity), None

    def record(params):
        kernel = empirical_ntk(net.fn, params, x)
        moved = tree_norm(optax.tree.sub(params, net.params))
        return net.fn(params, x), net.fn(params, x_test), _relative_change(kernel0, kernel), moved

    def stretch(params, _):
        return jax.lax.scan(step, params, length=record_every)[0], record(params)

    start = jax.tree.map(jnp.asarray, net.params)
    params, path = jax.lax.scan(stretch, start, length=num_steps // record_every)
    outputs_train, outputs_test, drift, distance = jax.tree.map(
        lambda before, last: jnp.concatenate([before, last[None]]), path, record(params)
    )
    steps = jnp.arange(0, num_steps + 1, record_every)
    linear = predict_steps(
        kernel0, cross0, y, outputs_train[0], outputs_test[0], learning_rate=learning_rate, num_steps=steps
    )
    eigenvalues, mode_residuals = kernel_modes(kernel0, jnp.asarray(y)[None] - outputs_train)
    return NtkDynamics(
        steps=steps,
        outputs_train=outputs_train,
        outputs_test=outputs_test,
        linear_train=linear.train,
        linear_test=linear.test,
        kernel_drift=drift,
        parameter_distance=distance,
        eigenvalues=eigenvalues,
        mode_residuals=mode_residuals,
        linear_mode_residuals=linear.mode_residuals,
        params=net.rebuild(params),
    )


def _relative_change(before: Array, after: Array) -> Array:
    return safe_norm(after - before) / safe_norm(before)
