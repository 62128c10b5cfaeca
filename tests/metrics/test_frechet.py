"""The Fréchet distance against SciPy's matrix root, and its identities."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from dltheory import metrics

RNG = np.random.default_rng(0)
pytestmark = pytest.mark.statement("metrics.fid", "metrics.fid_wasserstein")


def moments(d, rank=None, seed=0) -> Any:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, rank or 2 * d))
    return rng.normal(size=d), root @ root.T / root.shape[1]


def oracle(mean_1, cov_1, mean_2, cov_2):
    root = scipy.linalg.sqrtm(cov_1 @ cov_2)
    return np.sum((mean_1 - mean_2) ** 2) + np.trace(cov_1 + cov_2 - 2 * np.real(root))


@pytest.mark.parametrize("d", [1, 2, 20])
def test_is_that_of_scipys_root(d, x64):
    one, two = moments(d, seed=1), moments(d, seed=2)
    exact = oracle(*one, *two)
    np.testing.assert_allclose(metrics.frechet_distance(*one, *two), exact, rtol=1e-9)
    np.testing.assert_allclose(metrics.frechet_distance(*two, *one), exact, rtol=1e-9)
    single: Any = [leaf.astype(np.float32) for leaf in (*one, *two)]
    np.testing.assert_allclose(metrics.frechet_distance(*single), exact, rtol=1e-4)


def test_is_zero_for_equal_laws_only(x64):
    mean, cov = moments(6)
    assert 0 <= float(metrics.frechet_distance(mean, cov, mean, cov)) < 1e-12
    assert float(metrics.frechet_distance(mean, cov, mean, 1.01 * cov)) > 1e-5


def test_singular_covariances(x64):
    """Laws on lines that meet at an angle: the roots of both are known, tr = |u| |v| |cos|."""
    u, v, zero = jnp.array([2.0, 0.0, 0.0]), jnp.array([1.0, 1.0, 0.0]), jnp.zeros(3)
    got = metrics.frechet_distance(zero, jnp.outer(u, u), zero, jnp.outer(v, v))
    np.testing.assert_allclose(got, 4 + 2 - 2 * abs(u @ v), rtol=1e-7)
    point = metrics.frechet_distance(zero, jnp.zeros((3, 3)), zero + 1, jnp.eye(3))
    np.testing.assert_allclose(point, 3 + 3, rtol=1e-12)


def test_gradient_at_equal_eigenvalues_is_that_of_the_formula(x64):
    """Of tr(C + 1 - 2 C^(1/2)) at C = 4 I: (1 - 1/2) I."""
    gradient = jax.grad(lambda cov: metrics.frechet_distance(jnp.zeros(3), cov, jnp.zeros(3), jnp.eye(3)))
    np.testing.assert_allclose(gradient(4 * jnp.eye(3)), 0.5 * np.eye(3), atol=1e-12)


@pytest.mark.parametrize("sizes", [(50, 60), (4, 5)], ids=["n > d", "n < d"])
def test_fid_is_the_distance_of_moments(sizes, x64):
    one: Any
    two: Any
    one, two = (RNG.normal(size=(n, 8)) @ RNG.normal(size=(8, 8)) for n in sizes)
    cov_1, cov_2 = np.cov(one.T), np.cov(two.T)
    # The nuclear norm of the product of centred samples needs no root of a singular matrix.
    centred = (one - one.mean(0)) @ (two - two.mean(0)).T / np.sqrt((sizes[0] - 1) * (sizes[1] - 1))
    exact = np.sum((one.mean(0) - two.mean(0)) ** 2) + np.trace(cov_1 + cov_2) - 2 * np.linalg.norm(centred, "nuc")
    np.testing.assert_allclose(metrics.fid(one, two), exact, rtol=1e-6)
    low = metrics.fid(one.astype(np.float32), two.astype(np.float32))
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, exact, rtol=1e-3)


def test_small_samples_of_one_law_are_apart_as_much_as_theory_says(x64):
    draws = RNG.normal(size=(200, 2, 200, 4))
    distances = np.asarray(jax.jit(jax.vmap(metrics.fid))(draws[:, 0], draws[:, 1]))
    assert abs(distances.mean() - 18 / 200) < 5 * distances.std() / np.sqrt(200) + 0.05 * 18 / 200


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    one, two = (jnp.asarray(20 + RNG.normal(size=(9, 2)), dtype) for _ in range(2))
    got = metrics.fid(one, two)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, metrics.fid(one.astype(jnp.float32), two.astype(jnp.float32)))
