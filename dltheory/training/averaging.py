"""Averages of the parameters along a training run, as part of the optimizer."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dltheory._checks import alike, require, shapes
from dltheory._trees import trained_part
from dltheory.typing import Array, PyTree, Scalar

__all__ = ["EmaState", "ema_params", "with_ema"]


class EmaState(NamedTuple):
    """State of an optimizer that also averages the parameters.

    Attributes:
        average: the average, like the parameters, but at least in single precision.
        num_updates: number of updates so far, shape [].
        inner: state of the optimizer itself.
    """

    average: PyTree
    num_updates: Array
    inner: Any


def with_ema(
    optimizer: optax.GradientTransformation, decay: Scalar = 0.999, warmup: Scalar = 9.0
) -> optax.GradientTransformationExtraArgs:
    r"""An optimizer that also keeps an exponential moving average of the parameters.

    .. math:: \bar\theta_t = d_t \bar\theta_{t-1} + (1 - d_t)\, \theta_t, \qquad
        d_t = \min\!\left( d,\, \frac{t}{t + w} \right), \quad \bar\theta_0 = \theta_0

    While t / (t + w) is the smaller, parameter s <= t weighs like (s / t)^(w - 1): the average is over the last w-th
    of the run, however short that is, and forgets where it started like t^-w. Later it is over the last 1 / (1 - d)
    updates. With w = 0 it is a plain average, whose start has the weight d^t. The training itself is not changed.

    Wrap the whole optimizer, as what comes after it would change the updates. For gradient accumulation wrap this in
    `optax.MultiSteps`, and the average counts updates, not minibatches.

    Args:
        optimizer: any optax transformation.
        decay: d, between 0 and 1, shape [].
        warmup: w, not negative, shape [].

    Returns:
        An optax transformation whose state is an `EmaState`; read the average by `ema_params`.

    Raises:
        ValueError: if `decay` or `warmup` is not a scalar, or a static one is out of its range; on update, if the
            parameters are not given.

    A helper.  Source: Polyak and Juditsky 1992; Song and Ermon 2020; for the warm-up, w = 9,
    `tf.train.ExponentialMovingAverage`.

    >>> import jax.numpy as jnp, optax
    >>> from dltheory import training
    >>> loss_fn = lambda params, batch: jnp.mean((params - batch) ** 2)
    >>> optimizer = training.with_ema(optax.sgd(0.5), decay=0.5, warmup=0.0)  # the first step leads from 0 to 1
    >>> run = training.fit(loss_fn, jnp.array(0.0), optimizer, jnp.array([1.0]), 1)
    >>> float(training.ema_params(run.state, run.params))
    0.5
    """
    shapes(decay=(decay, ""), warmup=(warmup, ""))
    require((decay >= 0) & (decay <= 1), "`decay` must be between 0 and 1")
    require(warmup >= 0, "`warmup` must not be negative")
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params):
        average = jax.tree.map(_wide, params)
        return EmaState(average=average, num_updates=jnp.zeros((), jnp.int32), inner=optimizer.init(params))

    def update(updates, state, params=None, **extra_args):
        if params is None:
            raise ValueError("`params` must be given to the update: it is them that are averaged")
        updates, inner = optimizer.update(updates, state.inner, params, **extra_args)
        num_updates = jnp.asarray(optax.safe_increment(state.num_updates))
        kept = jnp.minimum(decay, num_updates / (num_updates + 1.0 * warmup))  # as whole numbers they might overflow

        def moved(average, new):
            return average + (1 - kept).astype(average.dtype) * (new.astype(average.dtype) - average)

        average = jax.tree.map(moved, state.average, optax.apply_updates(params, updates))
        return updates, EmaState(average=average, num_updates=num_updates, inner=inner)

    return optax.GradientTransformationExtraArgs(init, update)


def ema_params(state: PyTree, params: PyTree) -> PyTree:
    """The averaged parameters that an optimizer's state holds, wherever in it.

    Args:
        state: state of an optimizer made by `with_ema`, or of one made of it, such as `optax.MultiSteps`.
        params: the parameters that were trained, for their structure and dtypes. Of Flax variables, a mapping with the
            key "params", that collection was averaged, and the others are returned as they are.

    Returns:
        The average, like `params`.

    Raises:
        ValueError: if `state` does not hold exactly one average, or it is not like `params`.

    A helper.

    >>> import jax.numpy as jnp, optax
    >>> from dltheory import training
    >>> params = {"params": {"w": jnp.ones(2)}}
    >>> state = training.with_ema(optax.adam(1e-3)).init(params["params"])
    >>> training.ema_params(state, params)
    {'params': {'w': Array([1., 1.], dtype=float32)}}
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, EmaState))
    found = [leaf.average for leaf in leaves if isinstance(leaf, EmaState)]
    require(len(found) == 1, f"`state` must hold one average, that of an optimizer `with_ema`, got {len(found)}")
    trained, rebuild = trained_part(params)
    alike(params=trained, state=found[0])
    return rebuild(jax.tree.map(lambda average, leaf: average.astype(jnp.result_type(leaf)), found[0], trained))


def _wide(leaf: Array) -> Array:
    """A copy whose sums do not lose small changes; buffers of the parameters themselves could not be donated twice."""
    return jnp.array(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32))
