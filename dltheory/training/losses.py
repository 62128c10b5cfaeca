"""Losses of a batch of outputs, and the accuracy of a classifier."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.typing import Array

__all__ = [
    "accuracy",
    "mean_squared_error",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "squared_error",
]


def squared_error(outputs: Array, targets: Array) -> Array:
    r"""Half the sum of squared differences, whose gradient flow the neural tangent kernel describes.

    .. math:: \tfrac12 \sum_{i=1}^n \lVert f(x_i) - y_i \rVert^2

    Args:
        outputs: f(x_i), shape [n, ...].
        targets: y_i, the shape of `outputs`.

    Returns:
        Loss in squared units of the outputs, shape [].

    Raises:
        ValueError: if shapes disagree.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import training
    >>> training.squared_error(jnp.array([[1.0], [3.0]]), jnp.zeros((2, 1)))
    Array(5., dtype=float32)
    """
    return jnp.sum(_differences(outputs, targets) ** 2) / 2


def mean_squared_error(outputs: Array, targets: Array) -> Array:
    r"""Mean of squared differences over examples and outputs.

    .. math:: \frac1{nk} \sum_{i=1}^n \lVert f(x_i) - y_i \rVert^2

    Args:
        outputs: f(x_i), shape [n, ...].
        targets: y_i, the shape of `outputs`.

    Returns:
        Loss in squared units of the outputs, shape []; NaN for no examples.

    Raises:
        ValueError: if shapes disagree.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import training
    >>> training.mean_squared_error(jnp.array([[1.0], [3.0]]), jnp.zeros((2, 1)))
    Array(5., dtype=float32)
    """
    return jnp.mean(_differences(outputs, targets) ** 2)


def softmax_cross_entropy(logits: Array, labels: Array) -> Array:
    r"""Mean negative log likelihood of the labels under the softmax of the logits.

    .. math:: -\frac1n \sum_{i=1}^n \log \frac{e^{f(x_i)_{y_i}}}{\sum_c e^{f(x_i)_c}}

    Args:
        logits: f(x_i), shape [n, k].
        labels: classes in {0, ..., k - 1}, integers, shape [n].

    Returns:
        Loss in nats, shape []; NaN if a label is no class.

    Raises:
        ValueError: if shapes disagree or `labels` are not integers.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import training
    >>> training.softmax_cross_entropy(jnp.zeros((3, 2)), jnp.array([0, 1, 1]))  # log 2
    Array(0.6931472, dtype=float32)
    """
    num_classes = _check_labels(logits, labels)
    classes = (labels >= 0) & (labels < num_classes)
    require(classes, "`labels` must lie in {0, ..., k - 1}")
    chosen = jnp.expand_dims(jnp.where(classes, labels, 0), 1)
    log_likelihood = jnp.take_along_axis(jax.nn.log_softmax(logits * 1.0), chosen, axis=1)[:, 0]
    return -jnp.mean(jnp.where(classes, log_likelihood, jnp.nan))


def sigmoid_cross_entropy(logits: Array, labels: Array) -> Array:
    r"""Mean negative log likelihood of binary labels under the sigmoid of the logits.

    .. math:: \frac1n \sum_{i=1}^n \log(1 + e^{f(x_i)}) - y_i f(x_i)

    Args:
        logits: f(x_i), log odds of label 1, shape [n, ...].
        labels: y_i, 0 or 1, or probabilities of label 1, the shape of `logits`.

    Returns:
        Loss in nats, shape []; NaN for no examples.

    Raises:
        ValueError: if shapes disagree.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import training
    >>> training.sigmoid_cross_entropy(jnp.zeros(2), jnp.array([0.0, 1.0]))  # log 2
    Array(0.6931472, dtype=float32)
    """
    shapes(logits=(logits, "..."))
    require(jnp.shape(labels) == jnp.shape(logits), _shape_message("labels", labels, "logits", logits))
    require((labels >= 0) & (labels <= 1), "`labels` must lie in [0, 1]")
    # Each term is a softplus: nothing cancels, however large the logit.
    losses = labels * jax.nn.softplus(-logits) + (1 - labels) * jax.nn.softplus(logits)
    return jnp.mean(losses)


def accuracy(logits: Array, labels: Array) -> Array:
    r"""Fraction of examples whose largest output is at their label; the first of equal outputs counts.

    .. math:: \frac1n \, \#\{i : \arg\max_c f(x_i)_c = y_i\}

    Args:
        logits: f(x_i), shape [n, k].
        labels: y_i, integers, shape [n].

    Returns:
        Accuracy in [0, 1], shape [], in the dtype of `logits`; an example with a NaN output counts as wrong.

    Raises:
        ValueError: if shapes disagree or `labels` are not integers.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import training
    >>> training.accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1]))
    Array(0.5, dtype=float32)
    """
    _check_labels(logits, labels)
    correct = (jnp.argmax(logits, axis=1) == labels) & ~jnp.any(jnp.isnan(logits), axis=1)
    return jnp.mean(correct, dtype=jnp.result_type(logits, float))


def _differences(outputs: Array, targets: Array) -> Array:
    shapes(outputs=(outputs, "..."))
    require(jnp.shape(targets) == jnp.shape(outputs), _shape_message("targets", targets, "outputs", outputs))
    return (outputs - targets) * 1.0


def _check_labels(logits: Array, labels: Array) -> int:
    num_classes = shapes(logits=(logits, "n k"), labels=(labels, "n"))["k"]
    dtype = jnp.result_type(labels)
    require(jnp.issubdtype(dtype, jnp.integer), f"`labels` must be integers, got {dtype}")
    return num_classes


def _shape_message(name: str, got: Array, reference: str, wanted: Array) -> str:
    return f"`{name}` must have the shape of `{reference}`, {list(jnp.shape(wanted))}, got {list(jnp.shape(got))}"
