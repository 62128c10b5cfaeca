"""Scores, and losses that fit them to samples without knowing the density: explicit, implicit and sliced.

Scores are functions of one example of any shape; losses are means over a set of examples.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.diffusion._fields import FieldFn, field, floating, probed_trace, probes, samples, trace
from dltheory.typing import Array, LogDensityFn, PRNGKey

__all__ = [
    "ErrorProfile",
    "error_profile",
    "fisher_divergence",
    "hutchinson_trace",
    "implicit_score_matching_loss",
    "score",
    "sliced_score_matching_loss",
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

    Statement: score.definition.  Source: Hyvärinen 2005.

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

    Statement: score.fisher_divergence, score.low_density.  Source: Hyvärinen 2005.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> float(diffusion.fisher_divergence(lambda x: -x, lambda x: -x / 2, jnp.array([[2.0], [0.0]])))
    0.5
    """
    x = samples(x)

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

    return jnp.mean(jax.vmap(loss)(samples(x)))


def hutchinson_trace(
    key: PRNGKey,
    function: FieldFn,
    x: Array,
    num_probes: int = 1,
    distribution: str = "rademacher",
) -> tuple[Array, Array]:
    r"""A vector field, and an unbiased estimate of the trace of its Jacobian.

    .. math:: \operatorname{tr} A = E[v^T A v], \qquad E[v v^T] = I

    For symmetric A the variance for one probe is 2 ||A||_F^2 with normal numbers. Signs take the diagonal from A in
    this formula; the sphere takes (tr A / d) I from it, and the factor becomes 2 d / (d + 2). Its radius must be
    sqrt(d): on the sphere of radius 1 the mean is tr A / d.

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

    Statement: score.sliced.  Source: Hutchinson 1990.

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

    Statement: score.sliced.  Source: Song, Garg, Shi and Ermon 2019.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> x = jnp.array([[2.0], [0.0]])
    >>> float(diffusion.sliced_score_matching_loss(jax.random.key(0), lambda x: -x, x))  # exact for d = 1
    0.0
    """
    x = samples(x)
    require(num_projections >= 1, f"`num_projections` must be positive, got {num_projections}")
    directions = probes(key, x[0], len(x) * num_projections, distribution)

    def loss(vectors, x):
        value, estimates = probed_trace(lambda x: field(score_fn, x), x, vectors)
        projections = vectors.reshape(num_projections, -1) @ value.ravel()
        norm = jnp.sum(value**2) if exact_norm else jnp.mean(projections**2)
        return norm + 2 * jnp.mean(estimates)

    return jnp.mean(jax.vmap(loss)(directions.reshape(len(x), num_projections, *x.shape[1:]), x))


class ErrorProfile(NamedTuple):
    """Where a score is wrong.

    Attributes:
        error: mean of the squared error in each bin, NaN where there are no points, shape [b].
        num_points: the number of points there, shape [b].
    """

    error: Array
    num_points: Array


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

    Statement: score.low_density.  Source: Song and Ermon 2019.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> x = jnp.array([[0.0], [1.0], [3.0]])
    >>> profile = diffusion.error_profile(lambda x: -x, lambda x: 0 * x, x, x[:, 0], jnp.array([0.0, 2.0, 4.0, 6.0]))
    >>> profile.error
    Array([0.5, 9. , nan], dtype=float32)
    """
    x = samples(x)
    n = len(x)
    shapes(coordinate=(coordinate, str(n)), edges=(edges, "e"))
    require(edges.size >= 2, f"`edges` must hold at least two numbers, got {edges.size}")
    errors = jax.vmap(lambda x: fisher_divergence(score_fn, model_score_fn, x[None]))(x)
    inside = (coordinate[None, :] >= edges[:-1, None]) & (coordinate[None, :] < edges[1:, None])
    count = jnp.sum(inside, axis=1)
    total = jnp.sum(jnp.where(inside, errors[None, :], 0), axis=1)
    return ErrorProfile(jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan), count)
