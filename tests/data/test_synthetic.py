"""Laws of the synthetic data sets, in standard errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dltheory import data
from dltheory.debug import checked

N = 4000
MEANS = jnp.array([[0.0, 3.0], [2.0, -1.0], [-2.0, -1.0]])


def test_sphere_is_uniform():
    x = np.asarray(data.sphere(jax.random.key(0), N, 3, radius=2.0))
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 2.0, rtol=1e-6)
    for coordinate in x.T:  # Archimedes: in three dimensions every coordinate is uniform
        assert stats.kstest(coordinate, "uniform", args=(-2, 4)).pvalue > 1e-4
    np.testing.assert_allclose(np.cov(x.T), 4 / 3 * np.eye(3), atol=5 * 4 / np.sqrt(N) / 2)


def test_gaussian_mixture_has_its_means_and_scale():
    x, y = data.gaussian_mixture(jax.random.key(0), N, MEANS, scale=0.5)
    counts = np.bincount(y, minlength=3)
    assert stats.chisquare(counts).pvalue > 1e-4
    noise = np.asarray(x - MEANS[y]) / 0.5
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4
    assert abs(np.mean(noise[:, 0] * noise[:, 1])) < 5 / np.sqrt(N)


def test_noisy_linear_has_its_weights_and_noise():
    weights = jnp.array([1.0, -2.0, 0.5])
    x, y = data.noisy_linear(jax.random.key(0), N, weights, noise=0.3)
    assert stats.kstest(np.ravel(x), "norm").pvalue > 1e-4
    assert stats.kstest(np.asarray(y - x @ weights) / 0.3, "norm").pvalue > 1e-4


def test_spirals_without_noise_lie_on_their_arms():
    x, y = data.spirals(jax.random.key(0), N, num_classes=3, turns=0.8)
    t = np.linalg.norm(x, axis=1)
    assert stats.kstest(t, "uniform").pvalue > 1e-4
    excess = np.arctan2(x[:, 1], x[:, 0]) / (2 * np.pi) - 0.8 * t - np.asarray(y) / 3
    np.testing.assert_allclose(excess, np.round(excess), atol=1e-4)
    assert stats.chisquare(np.bincount(y, minlength=3)).pvalue > 1e-4


def test_spirals_are_blurred_by_the_noise():
    clean, noisy = (data.spirals(jax.random.key(0), N, noise=noise).x for noise in (0.0, 0.1))
    assert stats.kstest(np.ravel(noisy - clean) / 0.1, "norm").pvalue > 1e-4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda key: data.sphere(key, 0, 3), "`num_examples` must be positive, got 0"),
        (lambda key: data.sphere(key, 3, 0), "`num_features` must be positive, got 0"),
        (lambda key: data.sphere(key, 3, 3, -1.0), "`radius` must be non-negative"),
        (lambda key: data.gaussian_mixture(key, 0, MEANS), "`num_examples` must be positive, got 0"),
        (lambda key: data.gaussian_mixture(key, 3, MEANS, -1.0), "`scale` must be non-negative"),
        (lambda key: data.noisy_linear(key, 3, MEANS[0], -1.0), "`noise` must be non-negative"),
        (lambda key: data.spirals(key, 3, 0), "`num_classes` must be positive, got 0"),
        (lambda key: data.spirals(key, 3, noise=-1.0), "`noise` must be non-negative"),
    ],
)
def test_settings_outside_their_domain_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0))


def test_traced_settings_are_refused_in_debug_mode():
    with pytest.raises(ValueError, match="`radius` must be non-negative"):
        checked(data.sphere)(jax.random.key(0), 3, 3, jnp.array(-1.0))
