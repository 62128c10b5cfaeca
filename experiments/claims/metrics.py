"""Claims of the chapter on evaluation metrics."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from dltheory import metrics
from dltheory.typing import PRNGKey
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.curves import estimate
from experiments.judges import Equal, Slope

__all__ = ["CLAIMS"]


class _Pairs(NamedTuple):
    """Moments of pairs of laws: means [n, 2, d] and covariances [n, 2, d, d]."""

    means: np.ndarray
    covariances: np.ndarray


def _pairs(key: PRNGKey, budget: int) -> _Pairs:
    rng = generator(key)
    roots = rng.normal(size=(budget, 2, 6, 6))
    return _Pairs(rng.normal(size=(budget, 2, 6)), roots @ roots.transpose(0, 1, 3, 2) + 0.1 * np.eye(6))


def _distances(pairs, scale=1.0):
    """By the library."""
    means, covariances = scale * pairs.means, scale**2 * pairs.covariances
    arguments = (means[:, 0], covariances[:, 0], means[:, 1], covariances[:, 1])
    return jax.jit(jax.vmap(metrics.frechet_distance))(*map(jnp.asarray, arguments))


def _sqrtm(matrix) -> np.ndarray:
    root: Any = scipy.linalg.sqrtm(matrix)
    return np.real(root)


def _by_root(overlap):
    """A theory of the formula with a trace of some root of the two covariances."""

    def predict(pairs):
        apart = np.sum((pairs.means[:, 0] - pairs.means[:, 1]) ** 2, axis=1)
        spread = [np.trace(first + second) - 2 * overlap(first, second) for first, second in pairs.covariances]
        return apart + np.array(spread)

    return predict


def _exact(first, second):
    return np.trace(_sqrtm(first @ second))


def _commuting(first, second):
    """The trace of the product of the roots, which is that of the root only where the covariances commute."""
    return np.trace(_sqrtm(first) @ _sqrtm(second))


def _cost(optimal=True):
    """The mean squared distance that a transport moves: tr((A - 1) S (A - 1)') and the means."""

    def predict(pairs):
        costs = []
        for (start, end), (first, second) in zip(pairs.means, pairs.covariances, strict=True):
            root = _sqrtm(first)
            if optimal:
                inverse = np.linalg.inv(root)
                matrix = inverse @ _sqrtm(root @ second @ root) @ inverse
            else:
                matrix = np.linalg.cholesky(second) @ np.linalg.inv(np.linalg.cholesky(first))
            assert np.allclose(matrix @ first @ matrix.T, second)
            moved = matrix - np.eye(len(matrix))
            costs.append(np.sum((start - end) ** 2) + np.trace(moved @ first @ moved.T))
        return np.array(costs)

    return predict


# Dependence on the size of samples and on the scale of features.

_SIZES, _DIMENSION = 100 * 2 ** np.arange(5), 8


def _bias(power=0.0):
    def measure(draw):
        rng = generator(draw.key)
        distances = []
        for size in _SIZES:
            draws = jnp.asarray(rng.normal(size=(2, draw.budget, size, _DIMENSION)))
            distances.append(np.asarray(jax.jit(jax.vmap(metrics.fid))(*draws)) * size**power)
        return estimate(np.transpose(distances), _SIZES)

    return measure


_SCALES = np.array([0.25, 0.5, 2.0, 4.0])


def _growth(pairs):
    """How a distance grows with the scale of the features."""
    unit = np.asarray(_distances(pairs))
    return {f"pair {i}": grown for i, grown in enumerate(np.transpose([_distances(pairs, c) / unit for c in _SCALES]))}


def _homogeneous(degree):
    return lambda _: _SCALES**degree


CLAIMS = (
    Claim(
        "metrics.fid",
        says="The library's distance, by singular values, is the formula's, by SciPy's matrix root.",
        setup=_pairs,
        measure=_distances,
        predict=_by_root(_exact),
        judge=Equal(rtol=1e-8),
        control=Variant("the product of the roots in place of the root", predict=_by_root(_commuting)),
        budget=Budget(quick=20, full=200),
        axes=Axes("pair of laws", "FID"),
    ),
    Claim(
        "metrics.fid",
        part="bias",
        says="Two samples of one law are apart by an amount that falls like one over their size.",
        measure=_bias(),
        predict=lambda _: -1.0,
        judge=Slope(tolerance=0.06),
        control=Variant("root of the size times FID", measure=_bias(power=0.5)),
        budget=Budget(quick=100, full=1000),
        axes=Axes("size n of each sample", "FID", log="xy"),
    ),
    Claim(
        "metrics.fid_wasserstein",
        says="The distance is the mean squared distance that the best transport moves.",
        setup=_pairs,
        measure=_distances,
        predict=_cost(),
        judge=Equal(rtol=1e-8),
        control=Variant("the transport by Cholesky factors", predict=_cost(optimal=False)),
        budget=Budget(quick=20, full=200),
        axes=Axes("pair of laws", "cost of transport"),
    ),
    Claim(
        "metrics.fid_wasserstein@printed",
        says="Multiplied features multiply FID as they multiply a distance.",
        setup=_pairs,
        measure=_growth,
        predict=_homogeneous(1),
        judge=Equal(rtol=1e-8),
        corrected=Variant("as they multiply a squared distance", predict=_homogeneous(2)),
        control=Variant("as they multiply a third power", predict=_homogeneous(3)),
        budget=Budget(quick=3, full=6),
        axes=Axes("scale c", "growth of FID", log="xy"),
    ),
)
