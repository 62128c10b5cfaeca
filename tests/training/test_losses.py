"""Losses against optax and NumPy, at ordinary and at extreme outputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dltheory import training
from dltheory.debug import checked

RNG = np.random.default_rng(0)
LOGITS: Any = RNG.normal(size=(8, 5)) * 3
LABELS: Any = RNG.integers(5, size=8)
ODDS: Any = RNG.uniform(size=8)
TARGETS: Any = RNG.normal(size=LOGITS.shape)


def test_squared_errors_are_optax_ones(x64):
    np.testing.assert_allclose(training.squared_error(LOGITS, TARGETS), np.sum(optax.l2_loss(LOGITS, TARGETS)))
    np.testing.assert_allclose(training.mean_squared_error(LOGITS, TARGETS), np.mean((LOGITS - TARGETS) ** 2))


def test_squared_error_has_the_residual_for_gradient(x64):
    np.testing.assert_allclose(jax.grad(training.squared_error)(LOGITS, TARGETS), LOGITS - TARGETS)


def test_cross_entropies_are_optax_ones(x64):
    expected = np.mean(optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS))
    np.testing.assert_allclose(training.softmax_cross_entropy(LOGITS, LABELS), expected, rtol=1e-12)
    expected = np.mean(optax.sigmoid_binary_cross_entropy(LOGITS[:, 0], ODDS))
    np.testing.assert_allclose(training.sigmoid_cross_entropy(LOGITS[:, 0], ODDS), expected, rtol=1e-12)


def test_two_classes_are_one_logit(x64):
    labels = (ODDS > 0.5).astype(int)
    pair = jnp.stack([jnp.zeros(8), LOGITS[:, 0]], axis=1)
    expected = training.sigmoid_cross_entropy(LOGITS[:, 0], labels)
    np.testing.assert_allclose(training.softmax_cross_entropy(pair, labels), expected, rtol=1e-12)


def test_softmax_is_taken_once(x64):
    once = training.softmax_cross_entropy(LOGITS, LABELS)
    assert abs(training.softmax_cross_entropy(jax.nn.softmax(LOGITS), LABELS) - once) > 0.1


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_large_logits_cost_what_they_are_wrong_by(size):
    logits, labels = jnp.array([[size, 0.0], [size, 0.0]]), jnp.array([0, 1])
    assert training.softmax_cross_entropy(logits, labels) == pytest.approx(size / 2)
    assert training.sigmoid_cross_entropy(logits[:, 0], 1.0 - labels) == pytest.approx(size / 2)
    for loss, y in ((training.softmax_cross_entropy, labels), (training.sigmoid_cross_entropy, 1.0 - labels)):
        at = logits if loss is training.softmax_cross_entropy else logits[:, 0]
        assert np.isfinite(jax.grad(loss)(at, y)).all()


def test_accuracy_counts():
    logits = jnp.array([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [jnp.nan, 0.0]])
    assert training.accuracy(logits, jnp.array([1, 1, 0, 0])) == 0.5
    assert training.accuracy(jnp.argsort(logits), jnp.array([1, 1, 0, 0])).dtype == jnp.float32


@pytest.mark.parametrize("label", [-1, 5])
def test_label_that_is_no_class_is_not_a_number_and_refused_in_debug_mode(label):
    labels = jnp.asarray(LABELS).at[0].set(label)
    assert np.isnan(training.softmax_cross_entropy(jnp.asarray(LOGITS), labels))
    with pytest.raises(ValueError, match=r"`labels` must lie in \{0, ..., k - 1\}"):
        checked(training.softmax_cross_entropy)(jnp.asarray(LOGITS), labels)


def test_signs_are_no_binary_labels():
    with pytest.raises(ValueError, match=r"`labels` must lie in \[0, 1\]"):
        checked(training.sigmoid_cross_entropy)(jnp.ones(2), jnp.array([-1.0, 1.0]))


@pytest.mark.parametrize("function", [training.softmax_cross_entropy, training.accuracy])
def test_classes_are_integers(function):
    with pytest.raises(ValueError, match="`labels` must be integers, got float"):
        function(LOGITS, LABELS * 1.0)


def test_integers_are_numbers():
    assert training.squared_error(jnp.array([1, 2]), jnp.array([0, 0])) == 2.5
    assert training.softmax_cross_entropy(jnp.array([[0, 0]]), jnp.array([1])) == pytest.approx(np.log(2))
