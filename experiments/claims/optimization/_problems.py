"""Data that the claims of the chapter share."""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["logistic_data"]


def logistic_data(key, num_examples, num_features):
    """Gaussian features and labels that a random direction explains up to noise."""
    key_features, key_direction, key_noise = jax.random.split(key, 3)
    features = jax.random.normal(key_features, (num_examples, num_features))
    direction = jax.random.normal(key_direction, (num_features,))
    noise = jax.random.normal(key_noise, (num_examples,))
    return features, jnp.where(features @ direction + noise > 0, 1.0, -1.0)
