"""Sign descent, and the error feedback that repairs its bias."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dltheory.optimization._settings import add_scaled, at_step, require_non_negative
from dltheory.typing import Array, PyTree

__all__ = ["ErrorFeedbackState", "error_feedback_sign_sgd", "sign_sgd"]


def sign_sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    r"""Sign descent: every coordinate moves by the learning rate, against its derivative.

    .. math:: \theta_{t+1} = \theta_t - \eta_t \operatorname{sign} g_t

    The same as `optax.sign_sgd`. The sign of a stochastic gradient is a biased estimate of the gradient's sign: there
    are convex problems on which the method climbs. A coordinate with derivative zero stays.

    Args:
        learning_rate: eta, in the units of the parameters, non-negative scalar or schedule.

    Returns:
        The transformation.

    Raises:
        ValueError: if `learning_rate` is not a scalar, or a static one negative.

    Statement: optimizers.sign_sgd.  Source: Bernstein et al. 2018, algorithm 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.run_optimizer(optimization.sign_sgd(0.5), lambda x: 3 * x**2, jnp.array(1.0), 3).params
    Array([1. , 0.5, 0. , 0. ], dtype=float32)
    """
    require_non_negative(learning_rate=learning_rate)
    return optax.sign_sgd(learning_rate)


class ErrorFeedbackState(NamedTuple):
    """State of `error_feedback_sign_sgd`.

    Attributes:
        error: what previous steps left undone, e_t, shaped as the parameters.
        step: t, shape [].
    """

    error: PyTree
    step: Array


def error_feedback_sign_sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    r"""Sign descent that carries over what the sign throws away.

    .. math:: p_t = \eta_t g_t + e_t, \quad \Delta_t = \tfrac{1}{d} \lVert p_t \rVert_1 \operatorname{sign} p_t, \quad
        \theta_{t+1} = \theta_t - \Delta_t, \quad e_{t+1} = p_t - \Delta_t

    The parameters less the error perform exact SGD, theta_t - e_t = theta_0 - sum_{s<t} eta_s g_s, so the bias of the
    sign does not add up.

    Args:
        learning_rate: eta, non-negative scalar or schedule.

    Returns:
        The transformation; d counts, and the norm sums, the entries of all leaves together.

    Raises:
        ValueError: if `learning_rate` is not a scalar, or a static one negative.

    Statement: optimizers.sign_sgd.  Source: Karimireddy et al. 2019, algorithm 1 (EF-signSGD).

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimizer = optimization.error_feedback_sign_sgd(0.5)
    >>> optimizer.update(jnp.array([3.0, -1.0]), optimizer.init(jnp.zeros(2)))[0]
    Array([-1.,  1.], dtype=float32)
    """
    require_non_negative(learning_rate=learning_rate)

    def init(params):
        return ErrorFeedbackState(error=optax.tree.zeros_like(params), step=jnp.array(0))

    def update(updates, state, params=None, **extra):
        del params, extra
        wanted = add_scaled(state.error, at_step(learning_rate, state.step), updates)
        scale = optax.tree.norm(wanted, ord=1) / optax.tree.size(wanted)
        taken = jax.tree.map(lambda leaf: scale.astype(leaf.dtype) * jnp.sign(leaf), wanted)
        return optax.tree.scale(-1, taken), ErrorFeedbackState(optax.tree.sub(wanted, taken), state.step + 1)

    return optax.GradientTransformationExtraArgs(init, update)
