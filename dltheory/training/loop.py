"""Training as one compiled loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dltheory._checks import leading_axis, require
from dltheory._trees import strongly_typed, trained_part
from dltheory.typing import Array, PRNGKey, PyTree

__all__ = ["Fit", "fit"]


class Fit(NamedTuple):
    """A training run.

    Attributes:
        params: what training ended with, like the parameters it started from.
        state: the optimizer's state at the end.
        loss: loss of each step's batch, at the parameters before the step, shape [t]. If training diverged, it is
            infinite or NaN from that step on.
        trace: what `trace_fn` returned before the first step and after every `trace_every` steps, leaves
            [t / trace_every + 1, ...]; None without `trace_fn`.
    """

    params: PyTree
    state: PyTree
    loss: Array
    trace: PyTree


def fit(
    loss_fn: Callable[..., Array],
    params: PyTree,
    optimizer: optax.GradientTransformation,
    data: PyTree,
    num_steps: int,
    *,
    key: PRNGKey | None = None,
    batch_size: int | None = None,
    loss_key: PRNGKey | None = None,
    trace_fn: Callable[[PyTree], PyTree] | None = None,
    trace_every: int = 1,
) -> Fit:
    """Trains parameters on data, on all of it in every step or on minibatches.

    Minibatches are drawn without replacement: every epoch goes through the data in a new random order, in
    floor(n / batch_size) steps; what is left over sits that epoch out. The whole run is one `lax.scan`: compile it
    with `jit`, run it for many keys or starting points with `vmap`, differentiate through it.

    Args:
        loss_fn: (parameters, batch) -> loss, shape []; with a `loss_key`, (parameters, batch, key). The batch is
            `data`, or rows of it.
        params: starting point, a pytree of floating-point arrays. Of Flax variables, a mapping with the key "params",
            that collection is trained and the others stay as they are.
        optimizer: any optax transformation; it is also given `value`, `grad` and `value_fn`, for line searches.
        data: the examples, a pytree with leaves [n, ...], such as (x, y).
        num_steps: number t of steps, non-negative.
        key: random key for the minibatches; None to train on all data in every step.
        batch_size: size of the minibatches, from 1 to n; None without a key.
        loss_key: random key for losses that are random themselves, by noise or dropout: the loss of every step is given
            a new one, folded from this and the number of the step. It must be another key than `key`.
        trace_fn: parameters -> what to record along the way, any pytree of arrays; by default nothing is.
        trace_every: number of steps between records, a divisor of t.

    Returns:
        Final parameters and optimizer state, the losses, and the trace.

    Raises:
        ValueError: if the leaves of `data` do not share their leading axis, a setting is out of its range, or `loss_fn`
            does not return a scalar.

    A helper.

    >>> import jax, jax.numpy as jnp, optax
    >>> from dltheory import networks, training
    >>> network, x = networks.MLP((16, 1), sigma_w=2**0.5), jnp.linspace(-1, 1, 8)[:, None]
    >>> loss_fn = lambda params, batch: training.mean_squared_error(network.apply(params, batch[0]), batch[1])
    >>> params = network.init(jax.random.key(0), x)
    >>> run = training.fit(loss_fn, params, optax.sgd(0.2), (x, jnp.abs(x)), 200, key=jax.random.key(1), batch_size=4)
    >>> run.loss.shape, bool(run.loss[-1] < 0.1 * run.loss[0])
    ((200,), True)
    """
    n = leading_axis(data=data)
    require(num_steps >= 0, f"`num_steps` must be non-negative, got {num_steps}")
    together = (key is None) == (batch_size is None)
    require(together, "`batch_size` and `key` go together: a minibatch is drawn with the key")
    size = n if batch_size is None else batch_size
    require(1 <= size <= n, f"`batch_size` must lie between 1 and the number of examples, {n}, got {batch_size}")
    trace_every = trace_every if trace_fn else max(num_steps, 1)
    divides = trace_every >= 1 and num_steps % trace_every == 0
    require(divides, f"`trace_every` must be a positive divisor of `num_steps`, {num_steps}, got {trace_every}")
    optimizer = optax.with_extra_args_support(optimizer)
    trained, rebuild = trained_part(strongly_typed(params))
    trace_fn = trace_fn or (lambda _: None)

    def draw(position, shuffled):
        """The batch at this position of the epoch, and the order of the epoch with the key of the next."""
        if key is None:
            return data, shuffled

        def shuffle(key, order):
            key, key_order = jax.random.split(key)
            return key, jax.random.permutation(key_order, n).astype(order.dtype)

        shuffled = jax.lax.cond(position == 0, shuffle, lambda *same: same, *shuffled)
        rows = jax.lax.dynamic_slice_in_dim(shuffled[1], position * size, size)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], data), shuffled

    def loss_at(trained, batch, number):
        fresh = () if loss_key is None else (jax.random.fold_in(loss_key, number),)
        return loss_fn(rebuild(trained), batch, *fresh)

    def step(carry, moment):
        trained, state, shuffled = carry
        position, number = moment
        batch, shuffled = draw(position, shuffled)

        def value_fn(trained):
            return loss_at(trained, batch, number)

        value, grad = jax.value_and_grad(value_fn)(trained)
        updates, state = optimizer.update(grad, state, trained, value=value, grad=grad, value_fn=value_fn)
        return (optax.apply_updates(trained, updates), state, shuffled), value

    def record_and_go(carry, moments):
        record = trace_fn(rebuild(carry[0]))
        carry, losses = jax.lax.scan(step, carry, moments)
        return carry, (losses, record)

    start = (trained, optimizer.init(trained), None if key is None else (key, jnp.arange(n)))
    first, _ = jax.eval_shape(draw, 0, start[2])
    loss = jax.eval_shape(loss_at, trained, first, 0)
    got = list(loss.shape) if hasattr(loss, "shape") else "no array"
    require(got == [], f"`loss_fn` must return a scalar, got {got}")
    numbers = jnp.arange(num_steps).reshape(-1, trace_every)
    (trained, state, _), (losses, records) = jax.lax.scan(record_and_go, start, (numbers % (n // size), numbers))
    params = rebuild(trained)
    trace = jax.tree.map(lambda path, last: jnp.concatenate([path, last[None]]), records, trace_fn(params))
    return Fit(params=params, state=state, loss=losses.reshape(-1), trace=trace)
