"""The perceptron's prediction, loss, update and training loop."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.typing import Array

__all__ = [
    "PerceptronFit",
    "PerceptronPath",
    "perceptron_fit",
    "perceptron_loss",
    "perceptron_path",
    "perceptron_predict",
    "perceptron_update",
]


class PerceptronFit(NamedTuple):
    """What training ended with.

    Attributes:
        theta: weights, shape [d].
        num_mistakes: updates made, shape [], int32.
        num_epochs: passes through the data, shape [], int32.
        converged: whether the last pass made no mistake, shape [], bool. On data that no hyperplane through the origin
            separates it never becomes true.
    """

    theta: Array
    num_mistakes: Array
    num_epochs: Array
    converged: Array


class PerceptronPath(NamedTuple):
    """Every visit of a run, in order.

    Attributes:
        theta: weights after each visit, shape [t, d].
        mistake: whether the visit made an update, shape [t], bool.
        step: the update made, zero without a mistake, shape [t, d].
    """

    theta: Array
    mistake: Array
    step: Array


def perceptron_predict(theta: Array, x: Array) -> Array:
    r"""The perceptron's prediction.

    .. math:: \hat y = \operatorname{sgn}(x^T \theta)

    Args:
        theta: weights, shape [d].
        x: input, shape [d].

    Returns:
        -1, 0 or 1, shape []. 0 is a tie, which counts as a mistake for either label.

    Raises:
        ValueError: if shapes disagree.

    Statement: perceptron.update_rule.  Source: Rosenblatt 1958.

    >>> import jax.numpy as jnp
    >>> from dltheory import perceptron
    >>> perceptron.perceptron_predict(jnp.array([1.0, -2.0]), jnp.array([1.0, 1.0]))
    Array(-1., dtype=float32)
    """
    shapes(theta=(theta, "d"), x=(x, "d"))
    return jnp.sign(x @ theta)


def perceptron_update(theta: Array, x: Array, y: Array) -> tuple[Array, Array]:
    r"""One step of the perceptron: add the example if it is not on the right side.

    .. math:: \Delta\theta = \begin{cases} y x & y \, x^T \theta \le 0 \\ 0 & \text{otherwise} \end{cases}

    A tie counts as a mistake: otherwise the run that starts at zero would stay there. So does NaN, so that a run over
    missing values never ends as if it had converged.

    Args:
        theta: weights, shape [d].
        x: input, shape [d].
        y: label, -1 or +1, shape [].

    Returns:
        The new weights [d], and whether a mistake was made, shape [], bool.

    Raises:
        ValueError: if shapes disagree.

    Statement: perceptron.update_rule, perceptron.zigzag.  Source: Novikoff 1962; Shalev-Shwartz and Ben-David 2014,
        section 9.1.2.

    >>> import jax.numpy as jnp
    >>> from dltheory import perceptron
    >>> perceptron.perceptron_update(jnp.zeros(2), jnp.array([1.0, 2.0]), jnp.array(-1.0))
    (Array([-1., -2.], dtype=float32), Array(True, dtype=bool))
    """
    shapes(theta=(theta, "d"), x=(x, "d"), y=(y, ""))
    require(jnp.abs(y) == 1, "`y` must be -1 or +1")
    mistake = ~(y * (x @ theta) > 0)
    return theta + jnp.where(mistake, y, 0.0) * x, mistake


def perceptron_loss(theta: Array, x: Array, y: Array) -> Array:
    r"""The loss whose stochastic subgradient descent, with step size 1, is the perceptron.

    .. math:: \ell(\theta) = \max\{0, -y \, x^T \theta\}

    At the kink its gradient here is the subgradient -y x, so that ties count as mistakes.

    Args:
        theta: weights, shape [d].
        x: input, shape [d].
        y: label, -1 or +1, shape [].

    Returns:
        Loss, shape [].

    Raises:
        ValueError: if shapes disagree.

    Statement: perceptron.loss_sgd.  Source: Shalev-Shwartz and Ben-David 2014, section 9.1.2.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dltheory import perceptron
    >>> jax.grad(perceptron.perceptron_loss)(jnp.zeros(2), jnp.array([1.0, 2.0]), jnp.array(-1.0))
    Array([1., 2.], dtype=float32)
    """
    shapes(theta=(theta, "d"), x=(x, "d"), y=(y, ""))
    require(jnp.abs(y) == 1, "`y` must be -1 or +1")
    margin = y * (x @ theta)
    return jnp.where(margin <= 0, -margin, 0.0)


def perceptron_path(x: Array, y: Array, theta: Array, num_epochs: int) -> PerceptronPath:
    r"""Runs the perceptron through the data in their order and keeps every visit.

    Args:
        x: inputs, shape [n, d].
        y: labels, -1 or +1, shape [n].
        theta: start, shape [d]; the convergence theorem starts at zero.
        num_epochs: passes through the data, at least 1.

    Returns:
        The path, t = num_epochs * n visits long.

    Raises:
        ValueError: if shapes disagree or `num_epochs` is below 1.

    Statement: perceptron.zigzag, perceptron.norm_growth.  Source: Novikoff 1962.

    >>> import jax.numpy as jnp
    >>> from dltheory import perceptron
    >>> path = perceptron.perceptron_path(jnp.eye(2), jnp.ones(2), jnp.zeros(2), num_epochs=2)
    >>> path.mistake
    Array([ True,  True, False, False], dtype=bool)
    """
    _check_data(x, y)
    shapes(x=(x, "n d"), theta=(theta, "d"))
    require(num_epochs >= 1, "`num_epochs` must be at least 1")
    theta = jnp.asarray(theta, jnp.result_type(theta, x, y, float))  # integers become floating-point numbers

    def visit(theta, example):
        moved, mistake = perceptron_update(theta, *example)
        return moved, PerceptronPath(theta=moved, mistake=mistake, step=moved - theta)

    def epoch(theta, _):
        return jax.lax.scan(visit, theta, (x, y))

    _, path = jax.lax.scan(epoch, theta, length=num_epochs)
    return jax.tree.map(lambda leaf: jnp.concatenate(leaf), path)


def perceptron_fit(x: Array, y: Array, max_epochs: int = 1000) -> PerceptronFit:
    r"""Trains the perceptron from zero until a whole pass makes no mistake.

    Args:
        x: inputs, shape [n, d].
        y: labels, -1 or +1, shape [n].
        max_epochs: passes after which to give up, at least 1. Separable data with margin gamma and radius R need at
            most (R / gamma)^2 + 1.

    Returns:
        Weights, counts, and whether it converged.

    Raises:
        ValueError: if shapes disagree or `max_epochs` is below 1.

    Statement: perceptron.update_rule, perceptron.novikov.  Source: Novikoff 1962.

    >>> import jax.numpy as jnp
    >>> from dltheory import perceptron
    >>> fit = perceptron.perceptron_fit(jnp.eye(2), jnp.array([1.0, -1.0]))
    >>> fit.theta, int(fit.num_mistakes), bool(fit.converged)
    (Array([ 1., -1.], dtype=float32), 2, True)
    """
    d = _check_data(x, y)
    require(max_epochs >= 1, "`max_epochs` must be at least 1")

    def visit(theta, example):
        return perceptron_update(theta, *example)

    def epoch(fit):
        theta, mistakes = jax.lax.scan(visit, fit.theta, (x, y))
        count = jnp.sum(mistakes, dtype=jnp.int32)
        return PerceptronFit(theta, fit.num_mistakes + count, fit.num_epochs + 1, converged=count == 0)

    def unfinished(fit):
        return ~fit.converged & (fit.num_epochs < max_epochs)

    zero = jnp.int32(0)
    theta = jnp.zeros(d, jnp.result_type(x, y, float))  # also for integers
    return jax.lax.while_loop(unfinished, epoch, PerceptronFit(theta, zero, zero, converged=jnp.array(False)))


def _check_data(x: Array, y: Array) -> int:
    d = shapes(x=(x, "n d"), y=(y, "n"))["d"]
    require(jnp.abs(y) == 1, "`y` must be -1 or +1")
    return d
