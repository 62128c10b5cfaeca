"""Data and objectives that the claims of the chapter share."""

from __future__ import annotations

import jax
import numpy as np

__all__ = ["logistic_data", "rotated", "tilted"]


def logistic_data(seed, num_examples, num_features):
    """Gaussian features, and labels -1 or +1 that a random direction explains up to noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_examples, num_features))
    scores = features @ rng.normal(size=num_features) + rng.normal(size=num_examples)
    return features, np.where(scores > 0, 1.0, -1.0)


def rotated(spectrum, seed):
    """A symmetric matrix with the given eigenvalues and random eigenvectors."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(spectrum), len(spectrum))))[0]
    return basis @ np.diag(spectrum) @ basis.T


def tilted(objective, minimiser):
    """The objective plus the linear function that makes a given point critical."""
    slope = jax.grad(objective)(minimiser)
    return lambda x: objective(x) - slope @ x
