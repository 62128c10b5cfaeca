"""Whether predicted probabilities are frequencies: proper scores, reliability of classes, coverage of intervals."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._checks import require, shapes
from dltheory.typing import Array, ArrayLike

__all__ = ["ReliabilityCurve", "brier_score", "expected_calibration_error", "interval_coverage", "reliability_curve"]


class ReliabilityCurve(NamedTuple):
    """How often the predicted class is right, by how probable it was said to be.

    Attributes:
        confidence: mean probability of the predicted class, shape [b]; NaN in an empty bin.
        accuracy: share of predictions that are right, shape [b]; NaN in an empty bin.
        fraction: share of examples in the bin, shape [b].
    """

    confidence: Array
    accuracy: Array
    fraction: Array


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> Array:
    r"""Mean squared distance between predicted probabilities and what happened.

    .. math:: \frac1n \sum_{i=1}^n \sum_{c=1}^k (p_{ic} - 1[y_i = c])^2

    A proper score: in expectation least for the true probabilities. Brier's own form, between 0 and 2; for two classes
    it is twice what is often given.

    Args:
        probabilities: p, shape [n, k].
        labels: classes in {0, ..., k - 1}, integers, shape [n].

    Returns:
        The score, shape []; NaN if a label is no class.

    Raises:
        ValueError: if shapes disagree or `labels` are not integers.

    A helper.  Source: Brier 1950, equation 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.brier_score(jnp.array([[1.0, 0.0], [0.5, 0.5]]), jnp.array([0, 0]))
    Array(0.25, dtype=float32)
    """
    probabilities, labels, valid = _checked(probabilities, labels)
    happened = jax.nn.one_hot(labels, probabilities.shape[1], dtype=probabilities.dtype)
    return jnp.where(valid, jnp.mean(jnp.sum((probabilities - happened) ** 2, axis=1)), jnp.nan)


def reliability_curve(probabilities: ArrayLike, labels: ArrayLike, *, num_bins: int = 15) -> ReliabilityCurve:
    r"""Accuracy of predictions against their confidence, in bins of equal width.

    .. math:: \hat y_i = \arg\max_c p_{ic}, \qquad i \in B_b \iff \frac{b - 1}{B} < p_{i \hat y_i} \le \frac bB

    Args:
        probabilities: p, shape [n, k].
        labels: classes in {0, ..., k - 1}, integers, shape [n].
        num_bins: B, positive.

    Returns:
        The curve; of a calibrated classifier accuracies are confidences. NaN if a label is no class or a probability
        is NaN.

    Raises:
        ValueError: if shapes disagree, `labels` are not integers, or `num_bins` is not positive.

    A helper.  Source: Guo, Pleiss, Sun and Weinberger 2017, section 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> probabilities = jnp.array([[0.9, 0.1], [0.3, 0.7], [0.45, 0.55], [0.4, 0.6]])
    >>> curve = samplers.reliability_curve(probabilities, jnp.array([0, 1, 1, 0]), num_bins=3)
    >>> curve.accuracy, curve.fraction
    (Array([nan, 0.5, 1. ], dtype=float32), Array([0. , 0.5, 0.5], dtype=float32))
    """
    confidence, correct, count = _bins(probabilities, labels, num_bins)
    filled = count > 0
    size = jnp.where(filled, count, 1)

    def mean(total):
        return jnp.where(filled, total / size, jnp.nan)

    return ReliabilityCurve(mean(confidence), mean(correct), count / jnp.sum(count))


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, *, num_bins: int = 15) -> Array:
    r"""Distance between accuracy and confidence, averaged over examples.

    .. math:: \sum_{b=1}^B \frac{|B_b|}{n} \, \big|\mathrm{acc}(B_b) - \mathrm{conf}(B_b)\big|

    It is positive for a calibrated classifier too, of order sqrt(B / n), as the accuracies of bins scatter; and it is
    no proper score, since predicting base rates makes it vanish.

    Args:
        probabilities: p, shape [n, k].
        labels: classes in {0, ..., k - 1}, integers, shape [n].
        num_bins: B, positive; bins as of `reliability_curve`.

    Returns:
        The error in [0, 1], shape []; NaN if a label is no class or a probability is NaN.

    Raises:
        ValueError: if shapes disagree, `labels` are not integers, or `num_bins` is not positive.

    A helper.  Source: Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017, equation 3.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> probabilities = jnp.array([[0.9, 0.1], [0.3, 0.7], [0.4, 0.6]])
    >>> samplers.expected_calibration_error(probabilities, jnp.array([0, 1, 0]), num_bins=2)  # |2 / 3 - 2.2 / 3|
    Array(0.0667, dtype=float32)
    """
    confidence, correct, count = _bins(probabilities, labels, num_bins)
    return jnp.sum(jnp.abs(correct - confidence)) / jnp.sum(count)


def interval_coverage(cdf: ArrayLike, probability: ArrayLike) -> Array:
    r"""Share of targets in the central intervals of their predictive distributions.

    .. math:: \frac1n \, \#\Big\{i : \frac{1 - p}{2} \le u_i \le \frac{1 + p}{2}\Big\}

    Args:
        cdf: distribution functions at the targets u, as `predictive_cdf` returns them, shape [...]: n numbers.
        probability: p of the intervals, in [0, 1], shape [q].

    Returns:
        Coverage, shape [q]; of calibrated predictions it is p, with standard error sqrt(p (1 - p) / n) for independent
        targets. NaN with a NaN among the arguments.

    Raises:
        ValueError: if `probability` is no vector.

    A helper.  Source: Gneiting, Balabdaoui and Raftery 2007, section 3.3.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.interval_coverage(jnp.array([0.01, 0.3, 0.5, 0.9]), jnp.array([0.5, 0.9]))
    Array([0.5 , 0.75], dtype=float32)
    """
    shapes(cdf=(cdf, "..."), probability=(probability, "q"))
    dtype = jnp.result_type(cdf, probability, float)
    u, p = jnp.ravel(jnp.asarray(cdf, dtype)), jnp.asarray(probability, dtype)
    require((p >= 0) & (p <= 1), "`probability` must lie in [0, 1]")
    inside = jnp.abs(2 * u[None, :] - 1) <= p[:, None]
    known = ~jnp.isnan(p) & ~jnp.any(jnp.isnan(u))
    return jnp.where(known, jnp.mean(inside, axis=1, dtype=dtype), jnp.nan)


def _bins(probabilities: ArrayLike, labels: ArrayLike, num_bins: int) -> tuple[Array, Array, Array]:
    """Sums over each bin [b] of confidences, of correct predictions, and of ones; NaN where nothing is known."""
    probabilities, labels, valid = _checked(probabilities, labels)
    require(num_bins >= 1, f"`num_bins` must be positive, got {num_bins}")
    confidence = jnp.max(probabilities, axis=1)
    correct = jnp.argmax(probabilities, axis=1) == labels
    edges = jnp.asarray(np.linspace(0, 1, num_bins + 1)[1:-1], probabilities.dtype)
    places = jnp.searchsorted(edges, confidence)  # a confidence on an edge belongs to the bin below it

    def total(values):
        return jax.ops.segment_sum(values, places, num_bins)

    known = valid & ~jnp.any(jnp.isnan(probabilities))
    sums = total(confidence), total(correct.astype(confidence.dtype)), total(jnp.ones_like(confidence))
    confidence, correct, count = (jnp.where(known, values, jnp.nan) for values in sums)
    return confidence, correct, count


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Array, Array, Array]:
    """Probabilities as floating-point numbers, labels, and whether these are classes."""
    num_classes = shapes(probabilities=(probabilities, "n k"), labels=(labels, "n"))["k"]
    kind = jnp.result_type(labels)
    require(jnp.issubdtype(kind, jnp.integer), f"`labels` must be integers, got {kind}")
    probabilities, labels = jnp.asarray(probabilities, jnp.result_type(probabilities, float)), jnp.asarray(labels)
    classes = (labels >= 0) & (labels < num_classes)
    require(classes, "`labels` must lie in {0, ..., k - 1}")
    return probabilities, labels, jnp.all(classes)
