"""Score matching by denoising: the scores of blurred data, which are known sample by sample.

Scores are functions of one example of any shape; losses are means over a set of examples.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dltheory._checks import alike, require, shapes
from dltheory.diffusion._fields import FieldFn, ScoreFn, field, floating, require_positive, samples, score_of
from dltheory.diffusion.sde import LinearSde
from dltheory.typing import Array, PRNGKey, Scalar

__all__ = [
    "continuous_score_matching_loss",
    "denoising_score_matching_loss",
    "noise_conditional_loss",
    "tweedie_mean",
]


def denoising_score_matching_loss(key: PRNGKey, score_fn: FieldFn, x: Array, sigma: Scalar) -> Array:
    r"""Denoising score matching: fits the score of the data blurred by noise.

    .. math:: \frac1n \sum_{i=1}^n \Big\| s(x_i + \sigma \xi_i) + \frac{\xi_i}{\sigma} \Big\|^2, \; \xi_i \sim N(0, I)

    Its mean is the Fisher divergence between p * N(0, sigma^2 I) and the model, up to a constant.

    Args:
        key: random key.
        score_fn: s, x [...] -> [...].
        x: samples of p, shape [n, ...].
        sigma: the noise level, positive, in units of x, shape [].

    Returns:
        The loss, in units of 1 / x^2, shape [].

    Raises:
        ValueError: if `x` has no samples or is not floating-point, or the score does not keep the shape of a sample.

    Statement: score.noise_conditional.  Source: Vincent 2011.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> x = jnp.zeros((5, 2))  # a point, blurred to N(0, 4 I)
    >>> loss = diffusion.denoising_score_matching_loss(jax.random.key(0), lambda x: -x / 4, x, 2.0)
    >>> abs(float(loss)) < 1e-6
    True
    """
    require_positive(sigma=sigma)
    x = samples(x)
    noise = jax.random.normal(key, x.shape, x.dtype)
    sigma = jnp.asarray(sigma, x.dtype)

    def loss(x, noise):
        return jnp.sum((field(score_fn, x + sigma * noise) + noise / sigma) ** 2)

    return jnp.mean(jax.vmap(loss)(x, noise))


def noise_conditional_loss(
    key: PRNGKey,
    score_fn: ScoreFn,
    x: Array,
    sigmas: Array,
    weights: Array | None = None,
) -> Array:
    r"""Denoising score matching on several levels of noise at once, for a score that is told the level.

    .. math:: \sum_{i=1}^l \lambda_i\, \frac1n \sum_{j=1}^n
        \Big\| s(x_j + \sigma_i \xi_{ij}, \sigma_i) + \frac{\xi_{ij}}{\sigma_i} \Big\|^2

    Args:
        key: random key.
        score_fn: s, (x [...], sigma []) -> [...].
        x: samples of p, shape [n, ...].
        sigmas: noise levels, positive, in units of x, shape [l].
        weights: lambda, shape [l]; sigma^2 if None, with which all levels weigh about alike.

    Returns:
        The loss, shape []; of no unit with the weights sigma^2.

    Raises:
        ValueError: if `x` has no samples or is not floating-point, `weights` does not fit `sigmas`, or the score does
            not keep the shape of a sample.

    Statement: score.noise_conditional.  Source: Song and Ermon 2019.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> score_fn = lambda x, sigma: -x / sigma**2  # all data are 0
    >>> x, sigmas = jnp.zeros((5, 2)), jnp.array([10.0, 1.0, 0.1])
    >>> abs(float(diffusion.noise_conditional_loss(jax.random.key(0), score_fn, x, sigmas))) < 1e-6
    True
    """
    x = samples(x)
    shapes(sigmas=(sigmas, "l"))
    require(jnp.all(sigmas > 0), "`sigmas` must be positive")
    if weights is None:
        relative = jnp.ones_like(sigmas)
    else:
        shapes(sigmas=(sigmas, "l"), weights=(weights, "l"))
        relative = weights / sigmas**2
    noise = jax.random.normal(key, (sigmas.size, *x.shape), x.dtype)

    def loss(sigma, noise):
        errors = jax.vmap(lambda x, noise: _noise_error(score_fn, x, sigma, sigma.astype(x.dtype), noise))(x, noise)
        return jnp.mean(errors)

    return jnp.sum(relative.astype(x.dtype) * jax.vmap(loss)(sigmas, noise))


def continuous_score_matching_loss(
    key: PRNGKey,
    sde: LinearSde,
    score_fn: ScoreFn,
    x: Array,
    min_time: Scalar = 1e-3,
    likelihood_weighting: bool = False,
) -> Array:
    r"""Denoising score matching over all times of a forward equation, one random time for each sample.

    .. math:: E\, \lambda(t) \Big\| s(x(t), t) + \frac{\xi}{\sigma(t)} \Big\|^2, \quad
        x(t) = \alpha(t) x + \sigma(t) \xi, \quad t \sim U[t_{\min}, T], \quad \lambda = \sigma^2

    Times are drawn in single precision at least, whatever that of x. With the likelihood weighting lambda = g^2, half
    of the loss times T bounds the divergence of the model from the data, up to a constant and the divergence of the
    prior.

    Args:
        key: random key.
        sde: the forward equation.
        score_fn: s, (x [...], t []) -> [...].
        x: samples of the data, shape [n, ...].
        min_time: t_min, positive and below the horizon, shape [].
        likelihood_weighting: whether lambda is g^2 instead of sigma^2.

    Returns:
        The loss, shape [].

    Raises:
        ValueError: if `x` has no samples or is not floating-point, a static `min_time` is not between 0 and the
            horizon, or the score does not keep the shape of a sample.

    Statement: score.noise_conditional.  Source: Song et al. 2021; Song, Durkan, Murray and Ermon 2021 (the likelihood
    weighting).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> sde, x = diffusion.vp_sde(), jnp.zeros((5, 2))
    >>> score_fn = lambda x, t: -x / sde.marginal_prob(jnp.array(1.0), t)[1] ** 2  # all data are 0
    >>> abs(float(diffusion.continuous_score_matching_loss(jax.random.key(0), sde, score_fn, x))) < 1e-6
    True
    """
    x = samples(x)
    require_positive(min_time=min_time)
    key_time, key_noise = jax.random.split(key)
    require(min_time < sde.horizon, "`min_time` must be below the horizon")
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    uniform = jax.random.uniform(key_time, (len(x),), dtype)
    times = (min_time + (sde.horizon - min_time) * uniform).astype(dtype)

    def loss(time, x, noise):
        mean, std = sde.marginal_prob(x, time)
        weight = (sde.diffusion(time).astype(x.dtype) / std) ** 2 if likelihood_weighting else 1.0
        return weight * _noise_error(score_fn, mean, time, std, noise)

    return jnp.mean(jax.vmap(loss)(times, x, jax.random.normal(key_noise, x.shape, x.dtype)))


def tweedie_mean(x: Array, score: Array, std: Scalar, scale: Scalar = 1.0) -> Array:
    r"""Tweedie's formula: the mean of the clean sample given the noisy one, from the score of the noisy law.

    .. math:: E[x_0 \mid x] = \frac{x + \sigma^2 \nabla \log p(x)}{\alpha}, \qquad x = \alpha x_0 + \sigma \xi

    Args:
        x: the noisy sample, shape [...].
        score: gradient of the log density of noisy samples at x, shape [...].
        std: sigma, non-negative, in units of x, shape [].
        scale: alpha, not zero, shape [].

    Returns:
        The mean, shape [...].

    Raises:
        ValueError: if the shapes of `x` and `score` differ or `x` is not floating-point.

    Statement: score.noise_conditional.  Source: Efron 2011; Robbins 1956.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> float(diffusion.tweedie_mean(jnp.array(4.0), jnp.array(-2.0), 1.0))  # x ~ N(0, 2)
    2.0
    """
    x = floating(x)
    alike(x=x, score=score)
    shapes(std=(std, ""), scale=(scale, ""))
    return (x + jnp.asarray(std, x.dtype) ** 2 * jnp.asarray(score, x.dtype)) / jnp.asarray(scale, x.dtype)


def _noise_error(score_fn: ScoreFn, mean: Array, condition: Array, std: Array, noise: Array) -> Array:
    """sigma^2 ||s + xi / sigma||^2 for the sample mean + sigma xi, without a division by sigma."""
    return jnp.sum((std * score_of(score_fn, mean + std * noise, condition) + noise) ** 2)
