"""Running means and covariances, and the estimate of a covariance for a mass matrix."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from dltheory.typing import Array

__all__ = ["Moments", "absorb", "no_moments", "shrunk_covariance"]


class Moments(NamedTuple):
    """Of the vectors seen so far.

    Attributes:
        size: their number n, shape [].
        mean: their mean, shape [p].
        scatter: sum over them of squares of deviations from the mean [p], or of outer products [p, p].
    """

    size: Array
    mean: Array
    scatter: Array


def no_moments(p: int, dtype: Any, *, dense: bool) -> Moments:
    """Of no vectors."""
    return Moments(jnp.zeros((), dtype), jnp.zeros(p, dtype), jnp.zeros((p, p) if dense else p, dtype))


def absorb(moments: Moments, vectors: Array) -> Moments:
    """Adds vectors [c, p], by Welford's update for batches, which does not subtract large numbers."""
    added = vectors.shape[0]
    mean = jnp.mean(vectors, axis=0)
    centred, shift = vectors - jnp.expand_dims(mean, 0), mean - moments.mean
    count = moments.size + added
    if moments.scatter.ndim == 2:
        within, between = centred.T @ centred, jnp.outer(shift, shift)
    else:
        within, between = jnp.sum(centred**2, axis=0), shift**2
    return Moments(
        count,
        moments.mean + shift * (added / count),
        moments.scatter + within + between * (moments.size * added / count),
    )


def shrunk_covariance(moments: Moments) -> Array:
    """The variances [p] or the covariance [p, p], shrunk towards 1e-3 as if by five more vectors, as Stan does."""
    n = moments.size
    covariance = moments.scatter / (n - 1)
    unit = jnp.eye(*covariance.shape, dtype=n.dtype) if covariance.ndim == 2 else jnp.ones_like(covariance)
    return n / (n + 5) * covariance + 1e-3 * 5 / (n + 5) * unit
