"""Random laws and quadrature rules that the claims of the chapter share."""

from __future__ import annotations

import itertools

import numpy as np

__all__ = ["hermite_grid", "legendre_grid", "random_covariance", "random_laws"]


def random_laws(rng, count, n, concentration=1.0):
    """`count` random distributions on n outcomes, all of positive probability."""
    weights = rng.gamma(concentration, size=(count, n)) + 1e-12
    return weights / weights.sum(1, keepdims=True)


def random_covariance(rng, d):
    """A well-conditioned covariance with correlations of all signs."""
    factor = rng.normal(size=(d, d))
    return factor @ factor.T / d + 0.3 * np.eye(d)


def hermite_grid(num_nodes, d):
    """Nodes [num_nodes^d, d] and weights that integrate polynomials against the standard normal density exactly."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    weights = weights / weights.sum()
    grid = np.array(list(itertools.product(nodes, repeat=d)))
    return grid, np.prod(list(itertools.product(weights, repeat=d)), axis=1)


def legendre_grid(start, stop, num_panels):
    """Nodes and weights of Gauss-Legendre quadrature with twenty nodes on each of `num_panels` equal panels."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    edges = np.linspace(start, stop, num_panels + 1)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (nodes + 1)).ravel(), (half * weights).ravel()
