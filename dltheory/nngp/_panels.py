"""Rules for integrals over Gaussians, panel by panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dltheory.nngp._profiles import num_nodes
from dltheory.typing import Array

__all__ = ["density", "integral", "over_panels", "radius"]


def integral(function: Callable[[Array], Any], variance: Array, edges: Sequence[Array | float]) -> Any:
    """Mean of functions of a centred Gaussian that is 0 beyond the outer ones of its panels' edges."""
    deviation = jnp.sqrt(variance)
    known = [edge for edge in edges if isinstance(edge, float)]
    low = jnp.maximum(-radius(variance) * deviation, min(known))
    high = jnp.minimum(radius(variance) * deviation, max(known))

    def integrand(x: Array) -> Any:
        here = density(x / deviation) / deviation
        return jax.tree.map(lambda value: here * value, function(x))

    return over_panels(integrand, edges, low, high)


def over_panels(
    integrand: Callable[[Array], Any], edges: Sequence[Array | float], low: Array, high: Array, base: Array | float = 0
) -> Any:
    """Gauss-Legendre rules between edges, less a base and clipped to an interval, one node after the other."""
    points, weights = np.polynomial.legendre.leggauss(num_nodes(low.dtype))
    count = len(edges) - 1
    if all(isinstance(edge, float) for edge in edges):  # where panels lie is found out again for every node
        keys = np.sort(np.asarray(edges, low.dtype))

        def place(edge: Array) -> Array:
            return jnp.clip(edge - base, low, high)
    else:
        sorted_edges = jnp.sort(jnp.stack([jnp.clip(edge - base, low, high) for edge in edges]), axis=0)
        keys = np.arange(count + 1)

        def place(edge: Array) -> Array:
            return sorted_edges[edge]

    rule = (
        jnp.asarray(np.repeat(keys[:-1], len(points))),
        jnp.asarray(np.repeat(keys[1:], len(points))),
        jnp.asarray(np.tile((1 + points) / 2, count), low.dtype),
        jnp.asarray(np.tile(weights / 2, count), low.dtype),
    )

    def add(total: Any, node: tuple[Array, ...]) -> tuple[Any, None]:
        start, stop, point, weight = node
        begin = place(start)
        size = place(stop) - begin
        values = integrand(begin + point * size)
        return jax.tree.map(lambda so_far, value: so_far + weight * size * value, total, values), None

    zeros = jax.tree.map(lambda value: jnp.zeros(value.shape, value.dtype), jax.eval_shape(integrand, low))
    return jax.lax.scan(add, zeros, rule)[0]


def radius(x: Array) -> float:
    """Standard deviations beyond which a Gaussian has no mass."""
    return 8.0 if x.dtype.itemsize >= 8 else 6.5


def density(z: Array) -> Array:
    """Density of a standard normal variable."""
    return jnp.exp(-(z**2) / 2) / (2 * jnp.pi) ** 0.5
