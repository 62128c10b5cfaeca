"""Mean products of activations of Gaussian pairs by quadrature in NumPy, panel by panel between kinks."""

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_FEW_NODES, _FEW_WEIGHTS = np.polynomial.legendre.leggauss(20)  # for panels that are many
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


def mean_product_at_any_variance(f, g, q1, q2, rho, residual, kinks=()):
    """E f(u) g(v) of functions that change on a scale of about 1: panels halve towards zero and towards kinks.

    The correlation and 1 - rho^2 are given both, so that pairs may be nearly equal.
    """
    if q2 > q1:
        f, g, q1, q2 = g, f, q2, q1
    size, across = np.sqrt(q1), np.sqrt(q2 * residual)
    slope = rho * np.sqrt(q2 / q1)
    total = 0.0
    for node, weight in zip(*_outer_panels(size, across, slope, [0.0, *kinks]), strict=True):
        if across == 0:
            inner = g(np.float64(slope * node))
        else:
            inner = _conditional_mean(g, slope * node, across, [0.0, *kinks])
        total += weight * f(np.float64(node)) * inner
    return total


def _outer_panels(size, across, slope, kinks):
    radius = 11 * size
    edges = [_halved(radius, min(0.25, size / 4)), np.linspace(-radius, radius, 13), kinks]
    for kink in kinks:
        if slope:
            smoothed = np.array([0, 0.5, 1, 2, 4, 8]) * across
            edges += [(kink + smoothed) / slope, (kink - smoothed) / slope]
            edges += [kink / slope + _halved(radius, min(0.25, size / 4))]
    nodes, weights = _rule(np.clip(np.concatenate(edges), -radius, radius))
    weights = weights * np.exp(-((nodes / size) ** 2) / 2) / size / np.sqrt(2 * np.pi)
    kept = weights > 1e-40
    return nodes[kept], weights[kept]


def _conditional_mean(g, mean, across, kinks):
    radius = 11 * across
    edges = [mean + np.linspace(-radius, radius, 13), kinks]
    if abs(mean) < 1.5 * radius:
        edges.append(_halved(abs(mean) + radius, min(0.25, across / 2)))
    nodes, weights = _rule(np.clip(np.concatenate(edges), mean - radius, mean + radius))
    return weights @ (np.exp(-(((nodes - mean) / across) ** 2) / 2) * g(nodes)) / across / np.sqrt(2 * np.pi)


def _halved(largest, smallest):
    steps = largest * 2.0 ** -np.arange(np.ceil(np.log2(max(largest / smallest, 2.0))) + 1)
    return np.concatenate([-steps, [0.0], steps])


def _rule(edges):
    edges = np.unique(edges)
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    return (middle + half * _FEW_NODES).ravel(), (half * _FEW_WEIGHTS).ravel()
