"""Shortest interpolation on random features: what the claims about double descent fit."""

import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import ntk


@pytest.mark.statement("ntk.interpolation_test_accuracy")
@pytest.mark.parametrize("num_features", [8, 20, 50])
def test_regression_on_features_is_the_shortest_least_squares_fit(num_features, x64):
    rng = np.random.default_rng(0)
    features = np.maximum(rng.normal(size=(20, 4)) @ rng.normal(size=(4, num_features)), 0)
    y = rng.normal(size=20)
    fit = ntk.kernel_regression(jnp.asarray(features @ features.T), jnp.asarray(y), rcond=1e-11)
    weights = features.T @ np.asarray(fit.coefficients)
    np.testing.assert_allclose(weights, np.linalg.lstsq(features, y)[0], rtol=1e-4, atol=1e-6)
    if num_features > 20:
        np.testing.assert_allclose(features @ weights, y, atol=1e-8)
