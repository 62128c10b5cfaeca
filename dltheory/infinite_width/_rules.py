"""Quadrature between the places where functions are not smooth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from dltheory.infinite_width._elementwise import Elementwise
from dltheory.infinite_width._kinks import switch_points
from dltheory.typing import Array

__all__ = [
    "FAR",
    "PANEL",
    "PLANE_EDGES",
    "PLANE_PANEL",
    "broadcast",
    "density",
    "panel_rule",
    "standardized",
]

EDGES = (-12.0, -6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0, 12.0)
PANEL = 32  # nodes between two edges
PLANE_EDGES = (-9.0, -4.0, -1.5, 0.0, 1.5, 4.0, 9.0)
PLANE_PANEL = 16
FAR = 80.0  # stands for an infinite exponent or argument


def broadcast(q: Array, params: Sequence[Array]) -> tuple[Array, tuple[Array, ...]]:
    """Variances and parameters of one shape."""
    q = jnp.asarray(q)
    shape = jnp.broadcast_shapes(q.shape, *(jnp.shape(p) for p in params))
    return jnp.broadcast_to(q, shape), tuple(jnp.broadcast_to(jnp.asarray(p, q.dtype), shape) for p in params)


def panel_rule(
    function: Elementwise,
    q: Array,
    params: Sequence[Array],
    fixed: tuple[float, ...] = EDGES,
    num_points: int = PANEL,
) -> tuple[Array, Array]:
    """Nodes and weights [..., nodes] of Gauss-Legendre rules between the places where the function is not smooth.

    The nodes are symmetric about zero.
    """
    edges = jnp.broadcast_to(jnp.asarray(fixed, q.dtype).reshape((1,) * q.ndim + (-1,)), (*q.shape, len(fixed)))
    radius = fixed[-1]
    extra = [standardized(kink, q, radius) for kink in function.kinks if kink]
    if extra:
        edges = jnp.concatenate([edges, jnp.stack([*extra, *(-place for place in extra)], axis=-1)], axis=-1)
    if function.num_params:
        extra = switch_points(function, q, params)
        edges = jnp.concatenate([edges, extra, -extra], axis=-1)
    edges = jnp.sort(jnp.clip(edges, -radius, radius), axis=-1)[..., None]
    low, half = edges[..., :-1, :], (edges[..., 1:, :] - edges[..., :-1, :]) / 2
    points, weights = (
        jnp.asarray(x, q.dtype).reshape((1,) * (q.ndim + 1) + (-1,))
        for x in np.polynomial.legendre.leggauss(num_points)
    )
    return (low + half * (1 + points)).reshape(*q.shape, -1), (half * weights).reshape(*q.shape, -1)


def standardized(kink: float, q: Array, radius: float) -> Array:
    """A place in standard deviations, at most the radius if the variance is 0."""
    positive = q > 0
    inverse = jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, q, 1.0)), 0.0)
    return jnp.where(positive, kink * inverse, math.copysign(radius, kink) if kink else 0.0)


def density(x: Array) -> Array:
    """Density of a standard normal variable."""
    return jnp.exp(-jnp.minimum(x**2, 2 * FAR) / 2) / (2 * jnp.pi) ** 0.5
