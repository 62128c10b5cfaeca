"""Gaussian mixtures: data whose densities, scores and denoisers are known at every level of noise.

A mixture that is scaled and blurred by Gaussian noise is a mixture again, and so is the law of the clean point given
the noisy one. Losses, samplers and likelihoods can therefore be held against the truth, and what a network has not
learned kept apart from what a coarse time grid does wrong. A mixture with zero variances is a finite data set: its
denoiser is the one that remembers its training data.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.typing import Array, PRNGKey, Scalar

__all__ = [
    "GaussianMixture",
    "diffused",
    "mixture_denoiser",
    "mixture_log_density",
    "mixture_moments",
    "mixture_posterior",
    "mixture_sample",
    "mixture_score",
]

_FEW = 8  # coordinates


class GaussianMixture(NamedTuple):
    r"""A mixture of normal distributions with diagonal covariances, sum_j w_j N(mu_j, diag v_j).

    Attributes:
        log_weights: log w up to an additive constant, shape [k].
        means: mu, shape [k, d].
        variances: v, not negative, shape [k, d].
    """

    log_weights: Array
    means: Array
    variances: Array


def mixture_log_density(mixture: GaussianMixture, x: Array) -> Array:
    r"""Log density of a Gaussian mixture.

    .. math:: \log p(x) = \log \sum_j w_j N(x; \mu_j, \operatorname{diag} v_j)

    Args:
        mixture: the mixture, with positive variances.
        x: where to evaluate, shape [d].

    Returns:
        Log density in nats, shape []. Far from all modes it is as precise as the largest of its terms.

    Raises:
        ValueError: if shapes disagree.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> mixture = diffusion.GaussianMixture(jnp.zeros(2), jnp.array([[-1.0], [1.0]]), jnp.ones((2, 1)))
    >>> round(float(diffusion.mixture_log_density(mixture, jnp.zeros(1))), 4)  # -1/2 - log(2 pi) / 2
    -1.4189
    """
    _check(mixture, x)
    nearest, log_ratios = _log_ratios(mixture, x)
    mean, variance = mixture.means[nearest], mixture.variances[nearest]
    normal = -jnp.sum((x - mean) ** 2 / variance + jnp.log(2 * math.pi * variance)) / 2
    weight = jax.nn.log_softmax(mixture.log_weights)[nearest]
    return normal + weight + jax.nn.logsumexp(log_ratios)


def mixture_score(mixture: GaussianMixture, x: Array) -> Array:
    r"""Score of a Gaussian mixture, the gradient of its log density.

    .. math::
        \nabla \log p(x) = \sum_j p(j \mid x) \frac{\mu_j - x}{v_j}, \qquad
        p(j \mid x) \propto w_j N(x; \mu_j, \operatorname{diag} v_j)

    Args:
        mixture: the mixture, with positive variances.
        x: where to evaluate, shape [d].

    Returns:
        Score, shape [d]; finite also where the density underflows.

    Raises:
        ValueError: if shapes disagree.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> mixture = diffusion.GaussianMixture(jnp.zeros(2), jnp.array([[-1.0], [1.0]]), jnp.ones((2, 1)))
    >>> diffusion.mixture_score(mixture, jnp.array([1000.0]))
    Array([-999.], dtype=float32)
    """
    _check(mixture, x)
    log_ratios = _log_ratios(mixture, x)[1]
    weights = jnp.exp(log_ratios - jax.lax.stop_gradient(jnp.max(log_ratios)))
    precisions = 1 / mixture.variances

    def pull(i):
        return jnp.sum(weights * ((mixture.means[:, i] - x[i]) * precisions[:, i]))

    if 0 < len(x) <= _FEW:
        pulls = jnp.stack([pull(i) for i in range(len(x))])
    else:
        pulls = weights @ ((mixture.means - x[None, :]) * precisions)
    return pulls / jnp.sum(weights)


def mixture_moments(mixture: GaussianMixture) -> tuple[Array, Array]:
    r"""Mean and covariance of a Gaussian mixture.

    .. math::
        \mu = \sum_j w_j \mu_j, \qquad
        \Sigma = \sum_j w_j \left( \operatorname{diag} v_j + (\mu_j - \mu)(\mu_j - \mu)^T \right)

    Args:
        mixture: the mixture.

    Returns:
        Mean [d] and covariance [d, d].

    Raises:
        ValueError: if shapes disagree.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> mixture = diffusion.GaussianMixture(jnp.zeros(2), jnp.array([[-1.0], [1.0]]), jnp.ones((2, 1)))
    >>> diffusion.mixture_moments(mixture)
    (Array([0.], dtype=float32), Array([[2.]], dtype=float32))
    """
    _check(mixture)
    weights = jax.nn.softmax(mixture.log_weights)
    mean = weights @ mixture.means
    centred = mixture.means - mean[None, :]
    return mean, jnp.diag(weights @ mixture.variances) + (weights[:, None] * centred).T @ centred


def mixture_sample(key: PRNGKey, mixture: GaussianMixture, shape: tuple[int, ...] = ()) -> Array:
    """Independent samples of a Gaussian mixture.

    Args:
        key: random key.
        mixture: the mixture.
        shape: how many samples, in which arrangement.

    Returns:
        Samples, shape [*shape, d], differentiable in means and variances, not in weights.

    Raises:
        ValueError: if shapes disagree.

    A helper.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> points = diffusion.GaussianMixture(jnp.zeros(2), jnp.array([[-1.0], [1.0]]), jnp.zeros((2, 1)))
    >>> float(jnp.abs(diffusion.mixture_sample(jax.random.key(0), points)[0]))
    1.0
    """
    d = _check(mixture)
    key_component, key_noise = jax.random.split(key)
    component = jax.random.categorical(key_component, mixture.log_weights, shape=shape)
    noise = jax.random.normal(key_noise, (*shape, d), mixture.means.dtype)
    return mixture.means[component] + jnp.sqrt(mixture.variances)[component] * noise


def diffused(mixture: GaussianMixture, scale: Scalar, std: Scalar) -> GaussianMixture:
    r"""Law of a scaled and noised sample of a Gaussian mixture, which is a mixture again.

    .. math::
        x_t = a x_0 + \sigma \epsilon, \quad x_0 \sim \sum_j w_j N(\mu_j, \operatorname{diag} v_j), \quad
        \epsilon \sim N(0, I) \quad \Rightarrow \quad
        x_t \sim \sum_j w_j N(a \mu_j, \operatorname{diag}(a^2 v_j) + \sigma^2 I)

    Args:
        mixture: law of x_0.
        scale: a, shape [].
        std: sigma, not negative, shape [].

    Returns:
        Law of x_t.

    Raises:
        ValueError: if shapes disagree, or a static `std` is negative.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> point = diffusion.GaussianMixture(jnp.zeros(1), jnp.array([[2.0]]), jnp.zeros((1, 1)))
    >>> diffusion.diffused(point, 0.5, 3.0)[1:]
    (Array([[1.]], dtype=float32), Array([[9.]], dtype=float32))
    """
    _check(mixture)
    _check_noise(scale, std)
    scale, std = (jnp.asarray(factor, jnp.result_type(mixture.means)) for factor in (scale, std))
    return mixture._replace(means=scale * mixture.means, variances=scale**2 * mixture.variances + std**2)


def mixture_posterior(mixture: GaussianMixture, x: Array, scale: Scalar, std: Scalar) -> GaussianMixture:
    r"""Law of a sample of a Gaussian mixture given a noisy view of it, which is a mixture again.

    .. math::
        p(x_0 \mid x_t) = \sum_j p(j \mid x_t)\, N\!\left(\mu_j + \frac{a v_j (x_t - a \mu_j)}{a^2 v_j + \sigma^2},\,
        \operatorname{diag} \frac{\sigma^2 v_j}{a^2 v_j + \sigma^2} \right), \qquad x_t = a x_0 + \sigma \epsilon

    Args:
        mixture: law of x_0.
        x: x_t, shape [d].
        scale: a, shape [].
        std: sigma, not negative, shape []; positive where a variance is zero.

    Returns:
        Law of x_0 given x_t; it is exact for scale 0, where the view says nothing.

    Raises:
        ValueError: if shapes disagree, or a static `std` is negative.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> prior = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.ones((1, 1)))
    >>> diffusion.mixture_posterior(prior, jnp.array([1.0]), 1.0, 1.0)[1:]
    (Array([[0.5]], dtype=float32), Array([[0.5]], dtype=float32))
    """
    _check(mixture, x)
    noisy = diffused(mixture, scale, std)
    scale, std = (jnp.asarray(factor, jnp.result_type(mixture.means)) for factor in (scale, std))
    shrink = mixture.variances / noisy.variances
    return GaussianMixture(
        log_weights=jax.nn.log_softmax(_log_ratios(noisy, x)[1]),
        means=mixture.means + scale * shrink * (x[None, :] - noisy.means),
        variances=std**2 * shrink,
    )


def mixture_denoiser(mixture: GaussianMixture, x: Array, scale: Scalar, std: Scalar) -> Array:
    r"""Mean of a sample of a Gaussian mixture given a noisy view of it: the best denoiser.

    .. math::
        E[x_0 \mid x_t] = \frac{x_t + \sigma^2 \nabla \log p_t(x_t)}{a}, \qquad x_t = a x_0 + \sigma \epsilon

    That is Tweedie's formula; it is computed as the mean of `mixture_posterior`, which is exact for scale 0 too.

    Args:
        mixture: law of x_0.
        x: x_t, shape [d].
        scale: a, shape [].
        std: sigma, not negative, shape []; positive where a variance is zero.

    Returns:
        E[x_0 | x_t], shape [d].

    Raises:
        ValueError: if shapes disagree, or a static `std` is negative.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> points = diffusion.GaussianMixture(jnp.zeros(2), jnp.array([[-1.0], [1.0]]), jnp.zeros((2, 1)))
    >>> diffusion.mixture_denoiser(points, jnp.array([0.5]), 1.0, 1.0)  # tanh(1/2)
    Array([0.46212], dtype=float32)
    """
    posterior = mixture_posterior(mixture, x, scale, std)
    return jnp.exp(posterior.log_weights) @ posterior.means


def _log_ratios(mixture: GaussianMixture, x: Array) -> tuple[Array, Array]:
    """The component most likely at x, and log p(j, x) - log p(nearest, x) of all components, shape [k].

    The difference of two log densities is not taken as such: far away both are huge, and what tells the components
    apart would be lost in their rounding. For equal variances the squares of x cancel before they are computed.
    """
    means, variances = mixture.means, mixture.variances
    precisions, log_variances = 1 / variances, jnp.log(variances)
    squares = _total(lambda mean, precision, x: (x - mean) ** 2 * precision, means, precisions, x)
    log_scales = mixture.log_weights - jnp.sum(log_variances, axis=1) / 2
    nearest = jnp.argmax(log_scales - squares / 2)

    def difference(mean, variance, precision, x, near_mean, near_variance, near_precision):
        """(x - mean_j)^2 / v_j - (x - mean)^2 / v, of the nearest component without index."""
        offset, shift = x - near_mean, mean - near_mean
        widening = (near_variance - variance) * (near_precision * offset)
        return (widening * offset + shift * (shift - 2 * offset)) * precision

    components = means, variances, precisions
    squares = _total(difference, *components, x, *(part[nearest] for part in components))
    return nearest, log_scales - log_scales[nearest] - squares / 2


def _total(term: Callable[..., Array], *parts: Array) -> Array:
    """Sum over coordinates of a function of parts [k, d] or [d], shape [k].

    A few coordinates are taken one by one: mapped over points, compiled loops then run along the components, with
    vector instructions, and not along the two or three coordinates.
    """
    d = parts[0].shape[-1]
    if 0 < d <= _FEW:
        return functools.reduce(jnp.add, (term(*(part[..., i] for part in parts)) for i in range(d)))
    return jnp.sum(term(*(part if part.ndim == 2 else part[None, :] for part in parts)), axis=1)


def _check(mixture: GaussianMixture, x: Array | None = None) -> int:
    """Checks shapes and variances; returns the dimension."""
    sizes = shapes(
        log_weights=(mixture.log_weights, "k"), means=(mixture.means, "k d"), variances=(mixture.variances, "k d")
    )
    if x is not None:
        shapes(means=(mixture.means, "k d"), x=(x, "d"))
    require(jnp.all(mixture.variances >= 0), "`variances` must not be negative")
    return sizes["d"]


def _check_noise(scale: Scalar, std: Scalar) -> None:
    shapes(scale=(scale, ""), std=(std, ""))
    require(std >= 0, "`std` must not be negative")
