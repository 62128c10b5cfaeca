"""Mean products of activations of Gaussian pairs by quadrature in NumPy, panel by panel between kinks."""

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_RADIUS = 9.5


def gaussian_panels(cuts):
    """Nodes and weights for a standard normal variable, with panels that end at the cuts."""
    edges = np.unique(np.clip([*np.linspace(-_RADIUS, _RADIUS, 7), *cuts], -_RADIUS, _RADIUS))
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    nodes, weights = (middle + half * _NODES).ravel(), (half * _WEIGHTS).ravel()
    return nodes, weights * np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi)


def mean_product(phi, q1, q2, rho, kinks=()):
    """E phi(u) phi(v): over u, and over the part of v that is independent of u."""
    a, b, rest = np.sqrt(q1), np.sqrt(q2), np.sqrt(1 - rho**2)
    kinks = np.asarray(kinks, float)
    total = 0.0
    for node, weight in zip(*gaussian_panels(kinks / a), strict=True):
        inner, inner_weights = gaussian_panels((kinks / b - rho * node) / rest)
        total += weight * phi(np.float64(a * node)) * (inner_weights @ phi(b * (rho * node + rest * inner)))
    return total


def mean_square(phi, q, kinks=()):
    """E phi(u)^2."""
    nodes, weights = gaussian_panels(np.asarray(kinks, float) / np.sqrt(q))
    return weights @ phi(np.sqrt(q) * nodes) ** 2
