"""Random data sets with known truth, as functions of a key."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory._numerics import safe_norm
from dltheory.typing import Array, PRNGKey, Scalar

__all__ = ["Dataset", "gaussian_mixture", "noisy_linear", "sphere", "spirals"]


class Dataset(NamedTuple):
    """Examples with what is to be predicted of them.

    Attributes:
        x: inputs, shape [n, ...].
        y: targets, shape [n] or [n, k]; integers if they are classes.
    """

    x: Array
    y: Array


def sphere(key: PRNGKey, num_examples: int, num_features: int, radius: Scalar = 1.0) -> Array:
    r"""Points uniform on a sphere, the inputs that wide-network theory mostly speaks of.

    .. math:: x = r g / \lVert g \rVert, \qquad g \sim N(0, I_d)

    Args:
        key: random key.
        num_examples: n, positive.
        num_features: d, positive; the sphere has dimension d - 1.
        radius: r, non-negative, shape []. sqrt(d) gives entries of unit variance.

    Returns:
        Points, shape [n, d], in the dtype of `radius`.

    Raises:
        ValueError: if a size is not positive or `radius` is not a scalar.

    A helper.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import data
    >>> x = data.sphere(jax.random.key(0), 3, 2, radius=2.0)
    >>> bool(jnp.allclose(jnp.linalg.norm(x, axis=1), 2.0))
    True
    """
    shapes(radius=(radius, ""))
    _require_sizes(num_examples=num_examples, num_features=num_features)
    require(radius >= 0, "`radius` must be non-negative")
    directions = jax.random.normal(key, (num_examples, num_features), jnp.result_type(radius, float))
    return radius * (directions / jnp.expand_dims(safe_norm(directions, axis=1), 1))


def gaussian_mixture(key: PRNGKey, num_examples: int, means: Array, scale: Scalar = 1.0) -> Dataset:
    r"""Classes that are Gaussian clouds of one size, equally likely.

    .. math:: y \sim \mathrm{Uniform}\{0, \dots, k - 1\}, \qquad x \mid y \sim N(\mu_y, \sigma^2 I)

    The best classifier predicts the nearest mean.

    Args:
        key: random key.
        num_examples: n, positive.
        means: mu, shape [k, d].
        scale: sigma, non-negative, shape [].

    Returns:
        Inputs [n, d] in the dtype of `means`, and classes [n].

    Raises:
        ValueError: if shapes are wrong or `num_examples` is not positive.

    A helper.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import data
    >>> x, y = data.gaussian_mixture(jax.random.key(0), 5, jnp.array([[-1.0], [1.0]]), scale=0.0)
    >>> bool((x[:, 0] == 2 * y - 1).all())
    True
    """
    sizes = shapes(means=(means, "k d"), scale=(scale, ""))
    _require_sizes(num_examples=num_examples)
    require(scale >= 0, "`scale` must be non-negative")
    key_class, key_noise = jax.random.split(key)
    means = jnp.asarray(means, jnp.result_type(means, float))
    y = jax.random.randint(key_class, (num_examples,), 0, sizes["k"])
    return Dataset(x=means[y] + scale * jax.random.normal(key_noise, (num_examples, sizes["d"]), means.dtype), y=y)


def noisy_linear(key: PRNGKey, num_examples: int, weights: Array, noise: Scalar = 0.0) -> Dataset:
    r"""Standard normal inputs with noisy linear targets.

    .. math:: x \sim N(0, I_d), \qquad y = \langle w, x \rangle + \sigma \varepsilon, \quad \varepsilon \sim N(0, 1)

    Args:
        key: random key.
        num_examples: n, positive.
        weights: w, shape [d].
        noise: sigma, non-negative, shape [].

    Returns:
        Inputs [n, d] and targets [n], in the dtype of `weights`.

    Raises:
        ValueError: if shapes are wrong or `num_examples` is not positive.

    A helper.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import data
    >>> x, y = data.noisy_linear(jax.random.key(0), 4, jnp.array([1.0, 0.0]))
    >>> bool((y == x[:, 0]).all())
    True
    """
    d = shapes(weights=(weights, "d"), noise=(noise, ""))["d"]
    _require_sizes(num_examples=num_examples)
    require(noise >= 0, "`noise` must be non-negative")
    key_input, key_noise = jax.random.split(key)
    weights = jnp.asarray(weights, jnp.result_type(weights, float))
    x = jax.random.normal(key_input, (num_examples, d), weights.dtype)
    return Dataset(x=x, y=x @ weights + noise * jax.random.normal(key_noise, (num_examples,), weights.dtype))


def spirals(key: PRNGKey, num_examples: int, num_classes: int = 2, turns: Scalar = 1.0, noise: Scalar = 0.0) -> Dataset:
    r"""Interleaved arms of a spiral in the plane: classes that no linear map separates.

    .. math:: x = t \, (\cos\varphi, \sin\varphi) + \sigma \varepsilon, \qquad
        \varphi = 2 \pi (\tau t + y / k), \quad t \sim \mathrm{Uniform}[0, 1]

    Args:
        key: random key.
        num_examples: n, positive.
        num_classes: number k of arms, positive.
        turns: tau, how often an arm winds round the origin, shape [].
        noise: sigma, non-negative, shape [].

    Returns:
        Inputs [n, 2], in the dtype of `turns`, and classes [n], equally likely.

    Raises:
        ValueError: if a size is not positive or a setting is not a scalar.

    A helper.

    >>> import jax
    >>> from dltheory import data
    >>> x, y = data.spirals(jax.random.key(0), 100, num_classes=3, turns=1.5, noise=0.02)
    >>> x.shape, sorted(set(y.tolist()))
    ((100, 2), [0, 1, 2])
    """
    shapes(turns=(turns, ""), noise=(noise, ""))
    _require_sizes(num_examples=num_examples, num_classes=num_classes)
    require(noise >= 0, "`noise` must be non-negative")
    dtype = jnp.result_type(turns, float)
    key_class, key_time, key_noise = jax.random.split(key, 3)
    y = jax.random.randint(key_class, (num_examples,), 0, num_classes)
    t = jax.random.uniform(key_time, (num_examples,), dtype)
    angle = 2 * jnp.pi * (turns * t + y.astype(dtype) / num_classes)
    arm = jnp.expand_dims(t, 1) * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return Dataset(x=arm + noise * jax.random.normal(key_noise, arm.shape, dtype), y=y)


def _require_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        require(size >= 1, f"`{name}` must be positive, got {size}")
