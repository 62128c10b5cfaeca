"""Gradients from a few examples: mini-batches, and variance reduction by control variates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dltheory._checks import leading_axis, require
from dltheory._trees import strongly_typed
from dltheory.optimization._settings import add_scaled, require_like, require_non_negative
from dltheory.typing import Array, PRNGKey, PyTree, Scalar

__all__ = ["SvrgRun", "minibatch_gradient", "sample_batch", "svrg", "svrg_gradient"]


def sample_batch(key: PRNGKey, num_examples: int, batch_size: int, replace: bool = True) -> Array:
    r"""Indices of a mini-batch, uniform over the examples.

    Args:
        key: random key.
        num_examples: n, positive.
        batch_size: r, positive; without replacement at most n.
        replace: whether an example may occur twice.

    Returns:
        Indices in {0, ..., n - 1}, shape [r].

    Raises:
        ValueError: if a size is out of its range.

    Statement: optimizers.minibatch_gradient.  Source: Bottou, Curtis and Nocedal 2018, equation (4.1).

    >>> import jax
    >>> from dltheory import optimization
    >>> sorted(optimization.sample_batch(jax.random.key(0), 3, 3, replace=False).tolist())
    [0, 1, 2]
    """
    require(num_examples >= 1, "`num_examples` must be positive")
    require(batch_size >= 1, "`batch_size` must be positive")
    require(replace or batch_size <= num_examples, "`batch_size` must be at most `num_examples` without replacement")
    return jax.random.choice(key, num_examples, (batch_size,), replace=replace)


def minibatch_gradient(loss_fn: Callable[[PyTree, Any], Array], params: PyTree, batch: PyTree) -> PyTree:
    r"""The average gradient over a mini-batch.

    .. math:: \hat\nabla f(\theta) = \frac1r \sum_{t=1}^r \nabla f_\theta(x_{i_t}, y_{i_t})

    For uniform independent indices it is unbiased with covariance Sigma / r, where Sigma is that of one example's
    gradient; without replacement the covariance is smaller by the factor (n - r) / (n - 1).

    Args:
        loss_fn: (parameters, one example) -> shape [].
        params: theta, a pytree of floating-point arrays.
        batch: the examples, a pytree with leaves [r, ...].

    Returns:
        A pytree like `params`.

    Raises:
        ValueError: if the leaves of `batch` do not share their leading axis, or it is empty.

    Statement: optimizers.minibatch_gradient.  Source: Bottou, Curtis and Nocedal 2018, equation (4.1).

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> loss_fn = lambda theta, x: (theta - x) ** 2 / 2
    >>> float(optimization.minibatch_gradient(loss_fn, jnp.array(0.0), jnp.array([1.0, 3.0])))
    -2.0
    """
    leading_axis(batch=batch)
    return jax.grad(lambda p: jnp.mean(jax.vmap(loss_fn, in_axes=(None, 0))(p, batch)))(params)


def svrg_gradient(
    component_fn: Callable[[PyTree, Array], Array],
    params: PyTree,
    snapshot: PyTree,
    snapshot_gradient: PyTree,
    index: Array,
) -> PyTree:
    r"""The variance-reduced gradient: one example's gradient, corrected by the same example's at a snapshot.

    .. math:: \nabla f_i(\theta) - \nabla f_i(\tilde\theta) + \nabla f(\tilde\theta)

    Unbiased for uniform i, with a variance of at most 4 L (f(theta) - f* + f(snapshot) - f*) if the components are
    convex and L-smooth: it vanishes as both points approach the minimum.

    Args:
        component_fn: (parameters, index i) -> f_i(parameters), shape [].
        params: theta, a pytree of floating-point arrays.
        snapshot: where the full gradient was taken, like `params`.
        snapshot_gradient: the full gradient there, like `params`.
        index: i, an integer, shape [].

    Returns:
        A pytree like `params`.

    Raises:
        ValueError: if `snapshot` or `snapshot_gradient` is not like `params`.

    Statement: optimizers.svrg.  Source: Johnson and Zhang 2013, figure 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> component_fn = lambda theta, i: (theta - i) ** 2 / 2
    >>> float(optimization.svrg_gradient(component_fn, jnp.array(5.0), jnp.array(4.0), jnp.array(3.0), jnp.array(1)))
    4.0
    """
    require_like(params, snapshot=snapshot, snapshot_gradient=snapshot_gradient)
    gradient_fn = jax.grad(component_fn)
    correction = optax.tree.sub(gradient_fn(params, index), gradient_fn(snapshot, index))
    return optax.tree.add(correction, snapshot_gradient)


class SvrgRun(NamedTuple):
    """A run of `svrg`.

    Attributes:
        snapshots: the snapshots, first the starting point, leaves [num_epochs + 1, ...].
        params: the parameters before every step, leaves [num_epochs, epoch_length, ...].
    """

    snapshots: PyTree
    params: PyTree


def svrg(
    key: PRNGKey,
    component_fn: Callable[[PyTree, Array], Array],
    params: PyTree,
    num_components: int,
    learning_rate: Scalar,
    epoch_length: int,
    num_epochs: int,
    average: bool = True,
) -> SvrgRun:
    r"""Stochastic variance-reduced gradient descent on an average of components.

    .. math:: \theta_{t+1} = \theta_t
        - \eta \big[ \nabla f_{i_t}(\theta_t) - \nabla f_{i_t}(\tilde\theta) + \nabla f(\tilde\theta) \big], \quad
        f = \frac1n \sum_i f_i

    with i_t uniform and the snapshot refreshed every `epoch_length` steps, after which the iteration starts from the
    new snapshot. For L-smooth convex components and mu-strongly convex f the gap of the averaged snapshots shrinks in
    expectation by 1/(mu eta (1 - 2 L eta) T) + 2 L eta / (1 - 2 L eta) per epoch of T steps.

    Args:
        key: random key.
        component_fn: (parameters, index i) -> f_i(parameters), shape [].
        params: starting point and first snapshot, a pytree of floating-point arrays.
        num_components: n, positive.
        learning_rate: eta, non-negative, shape [].
        epoch_length: T, positive.
        num_epochs: number of snapshots to take, non-negative.
        average: whether the new snapshot is the mean of the epoch's T iterates (which convexity makes at least as good
            as a random one, and the theorem needs) or simply the last iterate.

    Returns:
        All snapshots and all iterates. An epoch costs n + 2 T component gradients.

    Raises:
        ValueError: if a setting is not a scalar, or a static one out of its range.

    Statement: optimizers.svrg.  Source: Johnson and Zhang 2013, figure 1 and theorem 1.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import optimization
    >>> component_fn = lambda theta, i: (theta - i) ** 2 / 2
    >>> optimization.svrg(jax.random.key(0), component_fn, jnp.array(5.0), 3, 0.5, 4, 2, average=False).snapshots
    Array([5.      , 1.25    , 1.015625], dtype=float32)
    """
    require_non_negative(learning_rate=learning_rate)
    require(num_components >= 1, "`num_components` must be positive")
    require(epoch_length >= 1, "`epoch_length` must be positive")
    require(num_epochs >= 0, "`num_epochs` must be non-negative")
    components = jnp.arange(num_components)

    def epoch(snapshot, epoch_key):
        gradient = minibatch_gradient(component_fn, snapshot, components)

        def step(current, index):
            reduced = svrg_gradient(component_fn, current, snapshot, gradient, index)
            return add_scaled(current, -learning_rate, reduced), current

        last, path = jax.lax.scan(step, snapshot, sample_batch(epoch_key, num_components, epoch_length))
        refreshed = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), path) if average else last
        return refreshed, (snapshot, path)

    params = strongly_typed(params)
    last, (snapshots, path) = jax.lax.scan(epoch, params, jax.random.split(key, num_epochs))
    appended = jax.tree.map(lambda leaf, end: jnp.concatenate([leaf, jnp.expand_dims(end, 0)]), snapshots, last)
    return SvrgRun(snapshots=appended, params=path)
