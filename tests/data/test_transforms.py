"""Splits, random labels and shuffled pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import data, networks
from dltheory.debug import checked
from tests.networks.modules import init, outputs

N = 4000
IMAGES = np.random.default_rng(0).normal(size=(6, 4, 3, 2)).astype(np.float32)


def test_split_keeps_examples_together_and_loses_none():
    x = jnp.arange(20)
    train, test = data.split(jax.random.key(0), data.Dataset(x, 10 * x), num_test=5)
    assert (train.x.shape, test.x.shape) == ((15,), (5,))
    np.testing.assert_array_equal(np.sort(np.concatenate([train.x, test.x])), x)
    np.testing.assert_array_equal(train.y, 10 * train.x)
    np.testing.assert_array_equal(test.y, 10 * test.x)
    assert not np.array_equal(train.x, np.sort(train.x))


@pytest.mark.parametrize("num_test", [0, 20])
def test_split_may_leave_a_part_empty(num_test):
    train, test = data.split(jax.random.key(0), np.arange(20), num_test)
    assert (len(train), len(test)) == (20 - num_test, num_test)


@pytest.mark.statement("ntk.random_label_memorization")
@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_random_labels_are_uniform_and_as_many_as_asked_for(fraction):
    y = jnp.asarray(np.random.default_rng(0).integers(0, 5, size=N), jnp.uint8)
    labels = data.randomize_labels(jax.random.key(0), y, num_classes=5, fraction=fraction)
    assert labels.dtype == jnp.uint8
    changed = fraction * 4 / 5
    error = np.sqrt(changed * (1 - changed) / N)
    assert abs(np.mean(labels != y) - changed) <= 5 * error
    confusion = np.histogram2d(y, labels, bins=(range(6), range(6)))[0] / (N / 5)
    expected = np.full((5, 5), fraction / 5) + (1 - fraction) * np.eye(5)
    assert np.all(np.abs(confusion - expected) <= 5 * np.sqrt(expected / (N / 5)) + 5 / np.sqrt(N))


def test_one_order_of_the_pixels_for_all_images_or_one_for_each():
    key = jax.random.key(0)
    labelled = np.broadcast_to(np.arange(12).reshape(1, 4, 3, 1), (50, 4, 3, 2)) * np.array([1, 100])
    for per_example in (False, True):
        orders = np.asarray(data.permute_pixels(key, jnp.asarray(labelled), per_example)).reshape(50, 12, 2)
        np.testing.assert_array_equal(np.sort(orders[..., 0]), np.broadcast_to(np.arange(12), (50, 12)))
        np.testing.assert_array_equal(orders[..., 1], 100 * orders[..., 0])  # channels stay together
        assert len(np.unique(orders[..., 0], axis=0)) == (50 if per_example else 1)


@pytest.mark.parametrize("shape", [(6, 24), (6, 4, 6), (6, 4, 3, 2), (0, 4, 3, 2)])
def test_same_key_gives_other_images_the_same_order(shape):
    x = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)
    key = jax.random.key(3)
    np.testing.assert_array_equal(data.permute_pixels(key, 2 * x), 2 * data.permute_pixels(key, x))
    np.testing.assert_array_equal(data.permute_pixels(key, x[:2]), data.permute_pixels(key, x)[:2])


def test_fully_connected_network_with_permuted_weights_does_not_notice():
    network, key, x = networks.MLP((5, 1)), jax.random.key(0), jnp.asarray(IMAGES.reshape(6, 24))
    variables = init(network, x)
    kernel = variables["params"]["Dense_0"]["kernel"]
    permuted = data.permute_pixels(key, kernel.T).T
    moved = {"params": {**variables["params"], "Dense_0": {"kernel": permuted}}}
    there = outputs(network, moved, data.permute_pixels(key, x))
    np.testing.assert_allclose(there, outputs(network, variables, x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda key: data.split(key, np.arange(3), 4), "`num_test` must lie between 0 and the number .*, 3, got 4"),
        (lambda key: data.randomize_labels(key, jnp.ones(3), 2), "`y` must be integers, got float32"),
        (lambda key: data.randomize_labels(key, jnp.ones(3, int), 0), "`num_classes` must be positive, got 0"),
        (lambda key: data.randomize_labels(key, jnp.ones(3, int), 2, 1.5), r"`fraction` must lie in \[0, 1\]"),
        (lambda key: data.permute_pixels(key, jnp.ones(3)), r"`x` must have shape \[n, d\], .*, got \[3\]"),
    ],
)
def test_settings_outside_their_domain_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0))


def test_traced_fraction_is_refused_in_debug_mode():
    with pytest.raises(ValueError, match=r"`fraction` must lie in \[0, 1\]"):
        checked(lambda fraction: data.randomize_labels(jax.random.key(0), jnp.ones(3, int), 2, fraction))(1.5)
