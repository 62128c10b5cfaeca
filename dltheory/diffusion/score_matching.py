"""Scores, and losses that fit them to data without knowing the density: implicit, sliced, denoising score matching.

Scores are functions of one example of any shape; losses are means over a set of examples.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import leading_axis, require, shapes
from dltheory.diffusion._fields import (
    FieldFn,
    ScoreFn,
    field,
    floating,
    probed_trace,
    probes,
    require_positive,
    score_of,
    trace,
)
from dltheory.diffusion.sde import LinearSde
from dltheory.typing import Array, LogDensityFn, PRNGKey, Scalar

__all__ = [
    "ErrorProfile",
    "continuous_score_matching_loss",
    "denoising_score_matching_loss",
    "error_profile",
    "fisher_divergence",
    "hutchinson_trace",
    "implicit_score_matching_loss",
    "noise_conditional_loss",
    "score",
    "sliced_score_matching_loss",
    "tweedie_mean",
]


def score(log_density_fn: LogDensityFn, x: Array) -> Array:
    r"""The score of a density: the gradient of its logarithm with respect to the sample.

    .. math:: \nabla \log p(x) = \frac{\nabla p(x)}{p(x)}

    It does not depend on the normaliser, and its mean under p is zero where p falls off at the boundary.

    Args:
        log_density_fn: log p up to a constant, x -> [].
        x: the sample, shape [...].

    Returns:
        The score at x, shape [...].

    Raises:
        ValueError: if `x` is not floating-point or `log_density_fn` does not return a scalar.

    Statement: score.definition.  Source: Hyvärinen 2005, section 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> float(diffusion.score(lambda x: 5 - x**2 / 2, jnp.array(3.0)))
    -3.0
    """
    x = floating(x)
    value, pull = jax.vjp(log_density_fn, x)
    shapes(log_density_fn=(value, ""))
    return pull(jnp.ones_like(value))[0]


def fisher_divergence(score_fn: FieldFn, model_score_fn: FieldFn, x: Array) -> Array:
    r"""Fisher divergence between a density and a model, also called the explicit score matching loss.

    .. math:: \frac1n \sum_{i=1}^n \| \nabla \log p(x_i) - s(x_i) \|^2, \qquad x_i \sim p

    It compares the two only where there are samples, and hardly sees the weights of modes that lie far apart.
    (Hyvärinen has a factor of 1/2.)

    Args:
        score_fn: gradient of log p, x [...] -> [...].
        model_score_fn: s, x [...] -> [...].
        x: samples of p, shape [n, ...].

    Returns:
        The divergence, in units of 1 / x^2, shape [].

    Raises:
        ValueError: if `x` has no samples or is not floating-point, or a score does not keep the shape of a sample.

    Statement: score.fisher_divergence, score.low_density.  Source: Hyvärinen 2005, equation 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> float(diffusion.fisher_divergence(lambda x: -x, lambda x: -x / 2, jnp.array([[2.0], [0.0]])))
    0.5
    """
    x = _samples(x)

    def squared_error(x):
        return jnp.sum((field(score_fn, x) - field(model_score_fn, x, name="model_score_fn")) ** 2)

    return jnp.mean(jax.vmap(squared_error)(x))


def implicit_score_matching_loss(score_fn: FieldFn, x: Array) -> Array:
    r"""Hyvärinen's loss: the Fisher divergence up to a constant, without the score of the data.

    .. math:: \frac1n \sum_{i=1}^n \|s(x_i)\|^2 + 2 \operatorname{tr} \nabla s(x_i), \qquad
        E = \text{Fisher divergence} - E_p \|\nabla \log p\|^2

    The equality holds for a differentiable density p with p(x) s(x) -> 0 towards the boundary of its support: by
    parts, no mass may escape. For an exponential law it fails. The trace takes one Jacobian-vector product for each
    entry of a sample; see `sliced_score_matching_loss` where there are many.

    Args:
        score_fn: s, x [...] -> [...].
        x: samples of p, shape [n, ...].

    Returns:
        The loss, in units of 1 / x^2, shape [].

    Raises:
        ValueError: if `x` has no samples or is not floating-point, or the score does not keep the shape of a sample.

    Statement: score.fisher_divergence.  Source: Hyvärinen 2005, theorem 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> float(diffusion.implicit_score_matching_loss(lambda x: -x, jnp.array([[2.0], [0.0]])))  # 2 - 2
    0.0
    """

    def loss(x):
        value, divergence = trace(lambda x: field(score_fn, x), x)
        return jnp.sum(value**2) + 2 * divergence

    return jnp.mean(jax.vmap(loss)(_samples(x)))


def hutchinson_trace(
    key: PRNGKey,
    function: FieldFn,
    x: Array,
    num_probes: int = 1,
    distribution: str = "rademacher",
) -> tuple[Array, Array]:
    r"""A vector field, and an unbiased estimate of the trace of its Jacobian.

    .. math:: \operatorname{tr} A = E[v^T A v], \qquad E[v v^T] = I

    For symmetric A with off-diagonal part A', the variance for one probe is 2 ||A'||_F^2 with signs and 2 ||A||_F^2
    with normal numbers. On the sphere the radius must be sqrt(d): on that of radius 1 the mean is tr A / d.

    Args:
        key: random key.
        function: the field, x [...] -> [...].
        x: where, shape [...].
        num_probes: positive.
        distribution: of the probes: "rademacher", "gaussian" or "sphere" (of radius sqrt(d)).

    Returns:
        The field at x, shape [...], and the estimate, [].

    Raises:
        ValueError: if a setting is out of its range, or the field does not keep the shape of x.

    Statement: score.sliced.  Source: Hutchinson 1990, proposition 1.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> value, estimate = diffusion.hutchinson_trace(jax.random.key(0), lambda x: -2 * x, jnp.ones(3))
    >>> float(estimate)
    -6.0
    """
    x = floating(x)
    vectors = probes(key, x, num_probes, distribution)
    value, estimates = probed_trace(lambda x: field(function, x, name="function"), x, vectors)
    return value, jnp.mean(estimates)


def sliced_score_matching_loss(
    key: PRNGKey,
    score_fn: FieldFn,
    x: Array,
    num_projections: int = 1,
    distribution: str = "rademacher",
    exact_norm: bool = False,
) -> Array:
    r"""Sliced score matching: an unbiased estimate of `implicit_score_matching_loss` without the trace.

    .. math:: \frac1n \sum_{i=1}^n E_v \big[(v^T s(x_i))^2 + 2 v^T \nabla s(x_i)\, v\big], \qquad E[v v^T] = I

    Directions of length 1 instead would divide the loss by d. It takes one Jacobian-vector product a direction.

    Args:
        key: random key.
        score_fn: s, x [...] -> [...].
        x: samples of p, shape [n, ...].
        num_projections: directions v for each sample, positive.
        distribution: of the directions: "rademacher", "gaussian" or "sphere" (of radius sqrt(d)).
        exact_norm: whether the first term is the norm ||s||^2 itself, which has less variance.

    Returns:
        The loss, in units of 1 / x^2, shape [].

    Raises:
        ValueError: if `x` has no samples or is not floating-point, a setting is out of its range, or the score does not
            keep the shape of a sample.

    Statement: score.sliced.  Source: Song, Garg, Shi and Ermon 2019, equations 7 and 8.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> x = jnp.array([[2.0], [0.0]])
    >>> float(diffusion.sliced_score_matching_loss(jax.random.key(0), lambda x: -x, x))  # exact for d = 1
    0.0
    """
    x = _samples(x)

    def loss(key, x):
        vectors = probes(key, x, num_projections, distribution, name="num_projections")
        value, estimates = probed_trace(lambda x: field(score_fn, x), x, vectors)
        projections = vectors.reshape(num_projections, -1) @ value.ravel()
        norm = jnp.sum(value**2) if exact_norm else jnp.mean(projections**2)
        return norm + 2 * jnp.mean(estimates)

    return jnp.mean(jax.vmap(loss)(jax.random.split(key, len(x)), x))


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

    Statement: score.noise_conditional.  Source: Vincent 2011, section 4.2.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> x = jnp.zeros((5, 2))  # a point, blurred to N(0, 4 I)
    >>> loss = diffusion.denoising_score_matching_loss(jax.random.key(0), lambda x: -x / 4, x, 2.0)
    >>> abs(float(loss)) < 1e-6
    True
    """
    require_positive(sigma=sigma)
    x = _samples(x)
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

    Statement: score.noise_conditional.  Source: Song and Ermon 2019, equations 5 and 6.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> score_fn = lambda x, sigma: -x / sigma**2  # all data are 0
    >>> x, sigmas = jnp.zeros((5, 2)), jnp.array([10.0, 1.0, 0.1])
    >>> abs(float(diffusion.noise_conditional_loss(jax.random.key(0), score_fn, x, sigmas))) < 1e-6
    True
    """
    x = _samples(x)
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

    With the likelihood weighting lambda = g^2, half of it times T bounds the divergence of the model from the data, up
    to a constant and the divergence of the prior.

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
        ValueError: if `x` has no samples or is not floating-point, a static `min_time` is not positive, or the score
            does not keep the shape of a sample.

    Statement: score.noise_conditional.  Source: Song et al. 2021, equation 7; Song, Durkan, Murray and Ermon 2021,
    theorem 1 (the likelihood weighting).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> sde, x = diffusion.vp_sde(), jnp.zeros((5, 2))
    >>> score_fn = lambda x, t: -x / sde.marginal_prob(jnp.array(1.0), t)[1] ** 2  # all data are 0
    >>> abs(float(diffusion.continuous_score_matching_loss(jax.random.key(0), sde, score_fn, x))) < 1e-6
    True
    """
    x = _samples(x)
    require_positive(min_time=min_time)
    key_time, key_noise = jax.random.split(key)
    uniform = jax.random.uniform(key_time, (len(x),), x.dtype)
    times = (min_time + (sde.horizon - min_time) * uniform).astype(x.dtype)

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

    Statement: score.noise_conditional.  Source: Efron 2011, equation 1.4; Robbins 1956.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> float(diffusion.tweedie_mean(jnp.array(4.0), jnp.array(-2.0), 1.0))  # x ~ N(0, 2)
    2.0
    """
    x = floating(x)
    score = field(lambda _: jnp.asarray(score), x, name="score")
    shapes(std=(std, ""), scale=(scale, ""))
    return (x + jnp.asarray(std, x.dtype) ** 2 * score) / jnp.asarray(scale, x.dtype)


class ErrorProfile(NamedTuple):
    """Where a score is wrong.

    Attributes:
        error: mean of the squared error in each bin, NaN where there are no samples, shape [b].
        count: the number of samples there, shape [b].
    """

    error: Array
    count: Array


def error_profile(
    score_fn: FieldFn, model_score_fn: FieldFn, x: Array, coordinate: Array, edges: Array
) -> ErrorProfile:
    r"""Mean squared error of a score along a coordinate: a radius, a distance to a mode, a log density.

    .. math:: e_b = E\big[\|\nabla \log p(x) - s(x)\|^2 \mid c(x) \in [c_b, c_{b+1})\big]

    Args:
        score_fn: gradient of log p, x [...] -> [...].
        model_score_fn: s, x [...] -> [...].
        x: points, shape [n, ...].
        coordinate: of each point, shape [n].
        edges: of the bins, increasing, shape [b+1].

    Returns:
        Errors and counts of the b bins; points outside of all count nowhere.

    Raises:
        ValueError: if shapes disagree or a score does not keep the shape of a point.

    Statement: score.low_density.  Source: Song and Ermon 2019, section 3.2.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> x = jnp.array([[0.0], [1.0], [3.0]])
    >>> profile = diffusion.error_profile(lambda x: -x, lambda x: 0 * x, x, x[:, 0], jnp.array([0.0, 2.0, 4.0, 6.0]))
    >>> profile.error
    Array([0.5, 9. , nan], dtype=float32)
    """
    x = _samples(x)
    n = len(x)
    shapes(coordinate=(coordinate, str(n)), edges=(edges, "e"))
    require(edges.size >= 2, f"`edges` must hold at least two numbers, got {edges.size}")
    errors = jax.vmap(lambda x: fisher_divergence(score_fn, model_score_fn, x[None]))(x)
    inside = (coordinate[None, :] >= edges[:-1, None]) & (coordinate[None, :] < edges[1:, None])
    count = jnp.sum(inside, axis=1)
    total = jnp.sum(jnp.where(inside, errors[None, :], 0), axis=1)
    return ErrorProfile(jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan), count)


def _samples(x: Array) -> Array:
    x = floating(x)
    leading_axis(x=x)
    return x


def _noise_error(score_fn: ScoreFn, mean: Array, condition: Array, std: Array, noise: Array) -> Array:
    """sigma^2 ||s + xi / sigma||^2 for the sample mean + sigma xi, without a division by sigma."""
    return jnp.sum((std * score_of(score_fn, mean + std * noise, condition) + noise) ** 2)
