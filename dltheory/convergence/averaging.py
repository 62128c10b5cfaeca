"""Averages of an optimizer's iterates, as optax transformations that leave the iterates as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dltheory._checks import require, shapes
from dltheory.typing import Array, PyTree, Scalar

__all__ = ["AveragedState", "ema", "polyak_average", "suffix_average"]


class AveragedState(NamedTuple):
    """State of an averaged optimizer.

    A helper.

    Attributes:
        inner: state of the optimizer whose iterates are averaged.
        average: the average, a pytree like the parameters; at first the starting point.
        num_iterates: how many iterates there have been, the starting point included, shape [].
    """

    inner: optax.OptState
    average: PyTree
    num_iterates: Array


def polyak_average(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    r"""Polyak-Ruppert averaging: keeps the mean of all iterates beside them.

    .. math:: \bar\theta_{t+1} = \frac{t \bar\theta_t + \theta_{t+1}}{t + 1}
        = \bar\theta_t + \frac{\theta_{t+1} - \bar\theta_t}{t + 1}, \quad \bar\theta_1 = \theta_1

    Meant for steps that decay slowly, as t^-a with 1/2 < a < 1: there the average has the smallest possible variance,
    whatever the curvature. With steps 1/t the iterates are averages already.

    Args:
        inner: the optimizer. Project inside of it, if at all: what it returns is what is averaged.

    Returns:
        The same optimizer; `AveragedState.average` of its state is the mean.

    Raises:
        ValueError: if `update` is called without `params`.

    Statement: convergence.polyak_averaging.  Source: Polyak and Juditsky 1992.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence, optimization
    >>> optimizer = convergence.polyak_average(optimization.gradient_descent(0.25))
    >>> optimization.run_optimizer(optimizer, lambda x: x**2, jnp.array(4.0), 2).state.average
    Array([4.       , 3.       , 2.3333333], dtype=float32)
    """
    return _averaged(inner, lambda num_iterates: 1 / num_iterates)


def suffix_average(
    inner: optax.GradientTransformation, num_iterates: int, fraction: float = 0.5
) -> optax.GradientTransformationExtraArgs:
    r"""Suffix averaging: keeps the mean of the last part of a run whose length is known.

    .. math:: \bar\theta^\alpha_T = \frac1m \sum_{t = T - m + 1}^{T} \theta_t, \quad m = \lceil \alpha T \rceil

    Forgets the start, and with it the logarithm in the rate of the full average on strongly convex objectives that are
    not smooth.

    Args:
        inner: the optimizer. Project inside of it, if at all: what it returns is what is averaged.
        num_iterates: T, the starting point included: one more than the number of steps.
        fraction: alpha, in (0, 1].

    Returns:
        The same optimizer; `AveragedState.average` of its state is the mean of the iterates since the suffix began, and
        before that the iterate itself.

    Raises:
        ValueError: if a setting is out of its range, or `update` is called without `params`.

    Statement: convergence.polyak_averaging.  Source: Rakhlin, Shamir and Sridharan 2012, theorem 5.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence, optimization
    >>> optimizer = convergence.suffix_average(optimization.gradient_descent(0.25), num_iterates=4)
    >>> optimization.run_optimizer(optimizer, lambda x: x**2, jnp.array(4.0), 3).state.average
    Array([4.  , 2.  , 1.  , 0.75], dtype=float32)
    """
    require(num_iterates >= 1, "`num_iterates` must be at least 1")
    require(0 < fraction <= 1, "`fraction` must lie in (0, 1]")
    length = math.ceil(round(fraction * num_iterates, 9))  # 0.07 * 100 is a little more than 7
    before = num_iterates - max(length, 1)
    return _averaged(inner, lambda t: 1 / jnp.maximum(t - before, 1))


def ema(inner: optax.GradientTransformation, decay: Scalar) -> optax.GradientTransformationExtraArgs:
    r"""Exponential moving average: keeps a mean of the iterates that forgets the past at a constant rate.

    .. math:: \bar\theta_{t+1} = \beta \bar\theta_t + (1 - \beta) \theta_{t+1}, \quad \bar\theta_1 = \theta_1

    It is long about 1 / (1 - beta) iterates. Unlike `optax.ema` it averages parameters, not updates.

    Args:
        inner: the optimizer. Project inside of it, if at all: what it returns is what is averaged.
        decay: beta, in [0, 1), shape [].

    Returns:
        The same optimizer; `AveragedState.average` of its state is the average.

    Raises:
        ValueError: if `decay` is not a scalar, or a static one out of its range, or `update` is called without
            `params`.

    Statement: convergence.polyak_averaging.  Source: Morales-Brotons, Vogels and Hendrikx 2024, section 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence, optimization
    >>> optimizer = convergence.ema(optimization.gradient_descent(0.25), decay=0.5)
    >>> optimization.run_optimizer(optimizer, lambda x: x**2, jnp.array(4.0), 2).state.average
    Array([4., 3., 2.], dtype=float32)
    """
    shapes(decay=(decay, ""))
    require((decay >= 0) & (decay < 1), "`decay` must lie in [0, 1)")
    return _averaged(inner, lambda _: 1 - decay)


def _averaged(
    inner: optax.GradientTransformation, weight_fn: Callable[[Array], Array | float]
) -> optax.GradientTransformationExtraArgs:
    """Moves the average towards each new iterate by a weight that depends on how many iterates there have been."""
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return AveragedState(inner=inner.init(params), average=params, num_iterates=jnp.ones((), jnp.int32))

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError("`params` are needed to average them: update(grad, state, params)")
        updates, inner_state = inner.update(updates, state.inner, params, **extra)
        num_iterates = state.num_iterates + 1

        def towards(average, iterate):
            weight = jnp.asarray(weight_fn(num_iterates.astype(iterate.dtype)), iterate.dtype)
            return average + weight * (iterate - average)

        average = jax.tree.map(towards, state.average, optax.apply_updates(params, updates))
        return updates, AveragedState(inner=inner_state, average=average, num_iterates=num_iterates)

    return optax.GradientTransformationExtraArgs(init, update)
