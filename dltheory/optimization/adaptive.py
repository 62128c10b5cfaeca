"""Methods that adapt the step of every coordinate to the gradients it has seen."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dltheory._checks import require, shapes
from dltheory.optimization._settings import require_fraction, require_non_negative
from dltheory.typing import Array, PyTree, Scalar

__all__ = ["AdagradState", "adagrad", "adam", "adam_max_step", "adamw", "amsgrad"]


class AdagradState(NamedTuple):
    """First part of the state of `adagrad`; the second is that of the learning rate.

    Attributes:
        sum_of_squares: gamma^2, shaped as the parameters.
    """

    sum_of_squares: PyTree


def adagrad(learning_rate: optax.ScalarOrSchedule, eps: float = 1e-8) -> optax.GradientTransformationExtraArgs:
    r"""AdaGrad: coordinates that have seen large gradients take small steps.

    .. math:: \theta_{t,j} = \theta_{t-1,j} - \frac{\eta}{\gamma_{t,j} + \delta} g_{t,j}, \quad
        \gamma_{t,j}^2 = \gamma_{t-1,j}^2 + g_{t,j}^2, \quad \gamma_0 = 0

    A running sum, not an average. `optax.adagrad` starts the sum at 0.1 and puts delta under the square root; the two
    agree only if both are zero.

    Args:
        learning_rate: eta, in the units of the parameters, non-negative scalar or schedule.
        eps: delta, in the units of the gradient, non-negative.

    Returns:
        The transformation. A coordinate whose gradients were all zero (or whose squares underflow) stays, also for
        eps = 0.

    Raises:
        ValueError: if a setting is not a scalar, or a static one negative.

    Statement: optimizers.adagrad.  Source: Duchi, Hazan and Singer 2011, figure 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.run_optimizer(optimization.adagrad(1.0), lambda x: 5 * x, jnp.array(0.0), 2).params
    Array([ 0.       , -1.       , -1.7071068], dtype=float32)
    """
    require_non_negative(learning_rate=learning_rate, eps=eps)

    def init(params):
        return AdagradState(sum_of_squares=optax.tree.zeros_like(params))

    def update(updates, state, params=None):
        del params
        total = jax.tree.map(lambda gradient, square: square + gradient**2, updates, state.sum_of_squares)

        def scaled(gradient, square):
            seen = square > 0
            return jnp.where(seen, gradient / (jnp.sqrt(jnp.where(seen, square, 1.0)) + eps), 0.0)

        return jax.tree.map(scaled, updates, total), AdagradState(sum_of_squares=total)

    scale_by_adagrad = optax.GradientTransformation(init, update)
    return optax.chain(scale_by_adagrad, optax.scale_by_learning_rate(learning_rate))


def adam(
    learning_rate: optax.ScalarOrSchedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    r"""Adam: momentum divided by a running root mean square, both corrected for their start at zero.

    .. math:: \Delta_{t+1} = \alpha \Delta_t + (1 - \alpha) g_t, \quad
        \gamma_{t+1}^2 = \beta \gamma_t^2 + (1 - \beta) g_t^2, \quad
        \theta_{t+1} = \theta_t - \eta \,
        \frac{\Delta_{t+1} / (1 - \alpha^{t+1})}{\sqrt{\gamma_{t+1}^2 / (1 - \beta^{t+1})} + \delta}

    The same as `optax.adam`. delta stands outside the square root: gradients well below it move by eta g / delta
    instead of eta. In float32 it should not be much below 1e-17, where the squares of gradients underflow and leave
    delta as the whole denominator.

    Args:
        learning_rate: eta, in the units of the parameters, non-negative scalar or schedule.
        b1: alpha in [0, 1).
        b2: beta in [0, 1).
        eps: delta, in the units of the gradient, non-negative; with 0, a coordinate that has seen no gradient is NaN.

    Returns:
        The transformation.

    Raises:
        ValueError: if a setting is not a scalar, or a static one out of its range.

    Statement: optimizers.adam.  Source: Kingma and Ba 2015, algorithm 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.run_optimizer(optimization.adam(0.5), lambda x: 3 * x, jnp.array(1.0), 2).params.round(4)
    Array([1. , 0.5, 0. ], dtype=float32)
    """
    require_non_negative(learning_rate=learning_rate, eps=eps)
    require_fraction(b1=b1, b2=b2)
    return optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with decoupled weight decay: the decay is not divided by the root mean square.

    .. math:: \theta_{t+1} = \theta_t - \eta \Big(
        \frac{\hat\Delta_{t+1}}{\hat\gamma_{t+1} + \delta} + \lambda \theta_t \Big)

    with the corrected moments of `adam`. The same as `optax.adamw`.

    Args:
        learning_rate: eta, in the units of the parameters, non-negative scalar or schedule.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: delta, in the units of the gradient, non-negative.
        weight_decay: lambda, non-negative, in units of one over the parameters.

    Returns:
        The transformation.

    Raises:
        ValueError: if a setting is not a scalar, or a static one out of its range, or `update` is not given `params`.

    Statement: optimizers.adam.  Source: Loshchilov and Hutter 2019, algorithm 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimizer = optimization.adamw(0.5, weight_decay=0.1)
    >>> optimization.run_optimizer(optimizer, lambda x: 0 * x, jnp.array(1.0), 2).params
    Array([1.    , 0.95  , 0.9025], dtype=float32)
    """
    require_non_negative(learning_rate=learning_rate, eps=eps, weight_decay=weight_decay)
    require_fraction(b1=b1, b2=b2)
    return optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)


def amsgrad(
    learning_rate: optax.ScalarOrSchedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    r"""AMSGrad: Adam whose second moment never falls.

    .. math:: \tilde\gamma_{t+1} = \max(\tilde\gamma_t, \gamma_{t+1}), \quad
        \theta_{t+1} = \theta_t - \eta_t \frac{\Delta_{t+1}}{\tilde\gamma_{t+1} + \delta}

    with the moments of `adam`, uncorrected, as in the paper: `optax.amsgrad` with both bias corrections off (optax and
    PyTorch have them on, in two different ways). The guarantee that the maximum buys is for convex losses over a
    bounded domain with bounded gradients and eta_t of order 1/sqrt(t): regret of order sqrt(T).

    Args:
        learning_rate: eta, non-negative scalar or schedule; optax counts steps from 0.
        b1: decay of the first moment, in [0, 1).
        b2: decay of the second moment, in [0, 1).
        eps: delta, in the units of the gradient, non-negative; with 0, a coordinate that has seen no gradient is NaN.

    Returns:
        The transformation; the square of the maximum is ``state[0].nu_max``.

    Raises:
        ValueError: if a setting is not a scalar, or a static one out of its range.

    Statement: optimizers.amsgrad.  Source: Reddi, Kale and Kumar 2018, algorithm 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimizer = optimization.amsgrad(0.5, b1=0.0, b2=0.75)
    >>> optimization.run_optimizer(optimizer, lambda x: 3 * x, jnp.array(1.0), 1).params
    Array([1., 0.], dtype=float32)
    """
    require_non_negative(learning_rate=learning_rate, eps=eps)
    require_fraction(b1=b1, b2=b2)
    return optax.amsgrad(learning_rate, b1, b2, eps, bias_correction_mu=False, bias_correction_nu=False)


def adam_max_step(num_steps: Array, b1: Scalar = 0.9, b2: Scalar = 0.999) -> Array:
    r"""The largest step that Adam can take in one coordinate, in units of the learning rate.

    .. math:: \frac{|\Delta\theta_t|}{\eta} \le \frac{\sqrt{1 - \beta^t}}{1 - \alpha^t} \,
        \frac{1 - \alpha}{\sqrt{1 - \beta}} \Big( \sum_{k<t} (\alpha^2 / \beta)^k \Big)^{1/2}

    By the inequality of Cauchy and Schwarz, with equality for gradients g_i proportional to (alpha/beta)^(t-i): steps
    can be larger than max(1, (1 - alpha) / sqrt(1 - beta)), which the paper gives as an approximate limit.

    Args:
        num_steps: t, the number of the step counted from 1, shape [].
        b1: alpha in [0, 1), shape [].
        b2: beta in (0, 1), shape [].

    Returns:
        The bound, shape []; grows without limit in t if alpha^2 > beta.

    Raises:
        ValueError: if shapes disagree, or a static decay is out of its range.

    Statement: optimizers.adam.  Source: Kingma and Ba 2015, section 2.1 (the question); the answer is derived here.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> round(float(optimization.adam_max_step(jnp.array(1000.0))), 3)
    5.781
    """
    shapes(num_steps=(num_steps, ""), b1=(b1, ""), b2=(b2, ""))
    require_fraction(b1=b1, b2=b2)
    require(num_steps >= 1, "`num_steps` counts from 1")
    require(b2 > 0, "`b2` must be positive")
    ratio = jnp.asarray(b1**2 / b2)
    constant = ratio == 1
    expanded = num_steps * (1 + (num_steps - 1) / 2 * (ratio - 1))  # to first order at ratio 1, for the derivative
    geometric = jnp.where(constant, expanded, _one_minus_power(ratio, num_steps) / jnp.where(constant, 1.0, 1 - ratio))
    corrections = jnp.sqrt(_one_minus_power(b2, num_steps)) / _one_minus_power(b1, num_steps)
    return corrections * (1 - b1) / jnp.sqrt(1 - b2) * jnp.sqrt(geometric)


def _one_minus_power(base: Scalar, exponent: Array) -> Array:
    """1 - base^exponent without cancellation, for a base of at least 0."""
    zero = jnp.asarray(base) == 0
    return jnp.where(zero, 1.0, -jnp.expm1(exponent * jnp.log(jnp.where(zero, 1.0, base))))
