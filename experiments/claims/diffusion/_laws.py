"""The laws that several claims are about, in NumPy: what the library computes must agree with these."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import diffusion
from experiments.claim import generator

__all__ = ["Mixture", "Steps", "data", "integral", "product", "random_steps"]


class Mixture(NamedTuple):
    """A mixture of normal laws on the line."""

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    def noisy(self, scale, variance):
        """The law of scale * x + noise of that variance."""
        return Mixture(self.weights, scale * self.means, scale**2 * self.variances + variance)

    def pdf(self, x):
        """Density at x, any shape."""
        return stats.norm.pdf(np.asarray(x)[..., None], self.means, np.sqrt(self.variances)) @ self.weights

    def cdf(self, x):
        """Distribution function at x, any shape."""
        return stats.norm.cdf(np.asarray(x)[..., None], self.means, np.sqrt(self.variances)) @ self.weights

    def score(self, x):
        """Derivative of the log density at x, any shape."""
        x = np.asarray(x)[..., None]
        parts = stats.norm.pdf(x, self.means, np.sqrt(self.variances)) * self.weights
        return (parts * (self.means - x) / self.variances).sum(-1) / parts.sum(-1)

    def library(self):
        """The same law for the library."""
        with_axis = (jnp.asarray(self.means)[:, None], jnp.asarray(self.variances)[:, None])
        return diffusion.GaussianMixture(jnp.log(jnp.asarray(self.weights)), *with_axis)


data = Mixture(np.array([0.3, 0.45, 0.25]), np.array([-1.6, 0.3, 1.5]), np.array([0.15, 0.1, 0.3]) ** 2)


class Steps(NamedTuple):
    """Variances of the noise of each step, and products of their complements: entry t for time t, entry 0 the data."""

    beta: np.ndarray
    alpha: np.ndarray
    bar: np.ndarray


def product(betas):
    """The steps of given variances for the times 1, ..., T."""
    beta = np.concatenate([[0.0], betas])
    return Steps(beta, 1 - beta, np.cumprod(1 - beta))


def random_steps(key, num_steps=30):
    """Steps of random noise, more from one to the next."""
    return product(np.sort(generator(key).uniform(0.01, 0.25, num_steps)))


def integral(values, grid):
    """The integral of `values` over an even `grid`, along the last axis; for smooth densities precise to rounding."""
    return np.sum(values, axis=-1) * (grid[1] - grid[0])
