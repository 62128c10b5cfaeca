"""What experiments do to a data set: split it, replace its labels, shuffle its pixels."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from dltheory._checks import leading_axis, require, shapes
from dltheory.typing import Array, PRNGKey, PyTree, Scalar

__all__ = ["permute_pixels", "randomize_labels", "split"]


def split(key: PRNGKey, data: PyTree, num_test: int) -> tuple[PyTree, PyTree]:
    """Splits examples at random into training and test data.

    Args:
        key: random key.
        data: a pytree with leaves [n, ...], such as a `Dataset`.
        num_test: number of test examples, from 0 to n.

    Returns:
        Two pytrees like `data`, with leaves [n - num_test, ...] and [num_test, ...].

    Raises:
        ValueError: if the leaves do not share their leading axis, or `num_test` is out of its range.

    A helper.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import data
    >>> train, test = data.split(jax.random.key(0), jnp.arange(5), num_test=2)
    >>> train.shape, sorted([*train.tolist(), *test.tolist()])
    ((3,), [0, 1, 2, 3, 4])
    """
    n = leading_axis(data=data)
    require(0 <= num_test <= n, f"`num_test` must lie between 0 and the number of examples, {n}, got {num_test}")
    order = jax.random.permutation(key, n)
    shuffled = jax.tree.map(lambda leaf: jnp.asarray(leaf)[order], data)
    train = jax.tree.map(lambda leaf: leaf[: n - num_test], shuffled)
    test = jax.tree.map(lambda leaf: leaf[n - num_test :], shuffled)
    return train, test


def randomize_labels(key: PRNGKey, y: Array, num_classes: int, fraction: Scalar = 1.0) -> Array:
    r"""Replaces labels by uniformly random ones, each with the same probability.

    A random label may be the true one, so that a fraction of 1 - fraction * (k - 1) / k stays as it was.

    Args:
        key: random key.
        y: classes, integers, shape [n].
        num_classes: k, positive.
        fraction: probability with which each label is replaced, independently of the others, shape [].

    Returns:
        Classes, shape [n], in the dtype of `y`.

    Raises:
        ValueError: if shapes are wrong, `y` are not integers, or `num_classes` is not positive.

    A helper. Source: Zhang, Bengio, Hardt, Recht and Vinyals 2017, section 2.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import data
    >>> data.randomize_labels(jax.random.key(0), jnp.arange(5), num_classes=10, fraction=0.0)
    Array([0, 1, 2, 3, 4], dtype=int32)
    >>> y = data.randomize_labels(jax.random.key(0), jnp.full(1000, 3), num_classes=10)
    >>> sorted(set(y.tolist()))
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    n = shapes(y=(y, "n"), fraction=(fraction, ""))["n"]
    dtype = jnp.result_type(y)
    require(jnp.issubdtype(dtype, jnp.integer), f"`y` must be integers, got {dtype}")
    require(num_classes >= 1, f"`num_classes` must be positive, got {num_classes}")
    require((fraction >= 0) & (fraction <= 1), "`fraction` must lie in [0, 1]")
    key_which, key_label = jax.random.split(key)
    replaced = jax.random.bernoulli(key_which, fraction, (n,))
    return jnp.where(replaced, jax.random.randint(key_label, (n,), 0, num_classes).astype(dtype), y)


def permute_pixels(key: PRNGKey, x: Array, per_example: bool = False) -> Array:
    r"""Puts the pixels of images in a random order.

    A pixel is an entry of [n, d] or [n, h, w], and a position with all its channels of [n, h, w, c]. One order for all
    images destroys what a convolution can use, but leaves a fully connected network as able to learn as before; an
    order of its own for each image takes that away too. The same key gives training and test images the same order.

    Args:
        key: random key.
        x: images, shape [n, d], [n, h, w] or [n, h, w, c].
        per_example: whether each image is given an order of its own.

    Returns:
        Images, the shape and dtype of `x`.

    Raises:
        ValueError: if `x` has another number of axes.

    A helper. Source: Zhang, Bengio, Hardt, Recht and Vinyals 2017, section 2.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import data
    >>> x = jnp.tile(jnp.arange(6), (2, 1))
    >>> shuffled = data.permute_pixels(jax.random.key(0), x)
    >>> bool((shuffled[0] == shuffled[1]).all()), sorted(shuffled[0].tolist())
    (True, [0, 1, 2, 3, 4, 5])
    """
    x = jnp.asarray(x)
    require(2 <= x.ndim <= 4, f"`x` must have shape [n, d], [n, h, w] or [n, h, w, c], got {list(x.shape)}")
    num_pixels = math.prod(x.shape[1:3])
    pixels = x.reshape(x.shape[0], num_pixels, math.prod(x.shape[3:]))
    if per_example:
        keys = jax.random.split(key, x.shape[0])
        orders = jax.vmap(lambda key: jax.random.permutation(key, num_pixels))(keys)
        shuffled = jax.vmap(lambda image, order: image[order])(pixels, orders)
    else:
        shuffled = pixels[:, jax.random.permutation(key, num_pixels)]
    return shuffled.reshape(x.shape)
