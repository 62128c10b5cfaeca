"""The Fréchet distance between normal laws, and between samples through the normal laws of their moments."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory._numerics import psd_sqrt
from dltheory.typing import Array

__all__ = ["fid", "frechet_distance"]


def frechet_distance(mean_1: Array, cov_1: Array, mean_2: Array, cov_2: Array) -> Array:
    r"""The squared 2-Wasserstein distance between two normal laws.

    .. math::
        W_2^2 = \lVert \mu_1 - \mu_2 \rVert^2 + \operatorname{tr}\big( \Sigma_1 + \Sigma_2
        - 2 (\Sigma_1^{1/2} \Sigma_2 \Sigma_1^{1/2})^{1/2} \big)

    The trace of the last root is the sum of the singular values of the product of the roots of both covariances, which
    is real and keeps its digits also where a covariance is singular. It is a squared distance: its root obeys the
    triangle inequality, it does not.

    Args:
        mean_1, mean_2: means, shape [d].
        cov_1, cov_2: covariances, symmetric positive semi-definite, shape [d, d]; eigenvalues below zero count as
            rounding. In derivatives, pairs of directions in which a covariance vanishes count as constant.

    Returns:
        The squared distance, in squared units of the means, in single precision at least, shape [].

    Raises:
        ValueError: if shapes disagree.

    Statement: metrics.fid, metrics.fid_wasserstein.  Source: Dowson and Landau 1982; Gelbrich 1990; Heusel et al. 2017.

    >>> import jax.numpy as jnp
    >>> from dltheory import metrics
    >>> zero, one = jnp.zeros(2), jnp.eye(2)
    >>> round(float(metrics.frechet_distance(zero, one, zero + 1, 4 * one)), 5)  # 1 + 1 in the means, as in the scales
    4.0
    """
    shapes(mean_1=(mean_1, "d"), cov_1=(cov_1, "d d"), mean_2=(mean_2, "d"), cov_2=(cov_2, "d d"))
    dtype = _wide(mean_1, cov_1, mean_2, cov_2)
    cov_1, cov_2 = jnp.asarray(cov_1, dtype), jnp.asarray(cov_2, dtype)
    overlap = jnp.sum(jnp.linalg.svd(psd_sqrt(cov_1) @ psd_sqrt(cov_2), compute_uv=False))
    spread = jnp.trace(cov_1) + jnp.trace(cov_2) - 2 * overlap
    return jnp.sum((jnp.asarray(mean_1, dtype) - jnp.asarray(mean_2, dtype)) ** 2) + jnp.maximum(spread, 0)


def fid(features_1: Array, features_2: Array) -> Array:
    r"""The Fréchet distance between two samples: that of the normal laws with their means and covariances.

    .. math::
        \mathrm{FID} = \lVert \mu_1 - \mu_2 \rVert^2 + \operatorname{tr}\big( \Sigma_1 + \Sigma_2
        - 2 (\Sigma_1 \Sigma_2)^{1/2} \big)

    With the activations of the last hidden layer of Inception-v3 it is the Fréchet inception distance; with any other
    features, such as those of a classifier of one's own, it compares models of the same data just as well. It is biased
    upwards: two samples of size n of one normal law have about (2 d + d (d + 1) / 2) / n in units of its variance, so
    compare samples of equal sizes only.

    Args:
        features_1: features of one sample, shape [n, d], n at least 2.
        features_2: features of the other, shape [m, d], m at least 2.

    Returns:
        The squared distance, in squared units of the features, in single precision at least, shape [].

    Raises:
        ValueError: if shapes disagree, or a sample has fewer than two rows.

    Statement: metrics.fid.  Source: Heusel et al. 2017.

    >>> import jax.numpy as jnp
    >>> from dltheory import metrics
    >>> features = jnp.array([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]])
    >>> round(float(metrics.fid(features, features + 2)), 3)  # 2^2 for each of two features
    8.0
    """
    sizes = shapes(features_1=(features_1, "n d"), features_2=(features_2, "m d"))
    require(sizes["n"] >= 2, f"`features_1` must have at least two rows, got {sizes['n']}")
    require(sizes["m"] >= 2, f"`features_2` must have at least two rows, got {sizes['m']}")
    return frechet_distance(*_moments(features_1), *_moments(features_2))


def _moments(features: Array) -> tuple[Array, Array]:
    features = jnp.asarray(features, _wide(features))
    mean = jnp.mean(features, axis=0)
    centered = features - jnp.expand_dims(mean, 0)
    return mean, centered.T @ centered / (len(features) - 1)


def _wide(*arrays: Array) -> Any:
    """At least single precision: in half there are no eigenvalues, and differences of moments have no digits."""
    return jnp.promote_types(jnp.result_type(*arrays, float), jnp.float32)
