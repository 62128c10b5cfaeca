"""What the functions of this chapter are given, checked: samples, and functions of a sample and a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dltheory._checks import leading_axis, require, shapes
from dltheory._trees import strongly_typed
from dltheory.typing import Array, PRNGKey, Scalar

__all__ = [
    "FieldFn",
    "ScoreFn",
    "field",
    "floating",
    "is_monotone",
    "probed_trace",
    "probes",
    "require_positive",
    "samples",
    "score_of",
    "trace",
]

FieldFn = Callable[[Array], Array]  # x [...] -> [...], of the same shape
ScoreFn = Callable[[Array, Any], Array]  # (x [...], time or noise level []) -> [...], of the shape of x


def floating(x: Array, name: str = "x") -> Array:
    """A strongly typed array; it must be real and floating-point.

    >>> floating(1.0).dtype
    dtype('float32')
    """
    shapes(**{name: (x, "...")})
    x = strongly_typed(x)
    require(bool(jnp.issubdtype(x.dtype, jnp.floating)), f"`{name}` must be a floating-point array, got {x.dtype}")
    return x


def samples(x: Array) -> Array:
    """A set of at least one sample, [n, ...]."""
    x = floating(x)
    leading_axis(x=x)
    return x


def field(function: Callable[..., Array], x: Array, *conditions: Scalar, name: str = "score_fn") -> Array:
    """A vector field at x, in the precision of x, whatever that of a network or of the time is."""
    out = function(x, *conditions)
    fits = hasattr(out, "shape") and out.shape == x.shape
    got = f"{list(out.shape)}" if hasattr(out, "shape") else type(out).__name__
    require(fits, f"`{name}` must return an array of the shape of its argument, {list(x.shape)}, got {got}")
    return out.astype(x.dtype)


def score_of(score_fn: ScoreFn, x: Array, time: Scalar) -> Array:
    """The score at x and a time, in the precision of x."""
    return field(score_fn, x, time)


def trace(function: FieldFn, x: Array) -> tuple[Array, Array]:
    """A vector field at x and the trace of its Jacobian there, by one Jacobian-vector product for each entry of x."""
    basis = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
    value, push = jax.linearize(function, x)
    return value, jnp.sum(jax.vmap(push)(basis) * basis)


def probes(key: PRNGKey, x: Array, num_probes: int, distribution: str) -> Array:
    """Random vectors [m, ...] of the shape of x with E[v v^T] = I."""
    require(num_probes >= 1, f"`num_probes` must be positive, got {num_probes}")
    shape = (num_probes, *x.shape)
    if distribution == "rademacher":
        return jax.random.rademacher(key, shape, x.dtype)
    require(
        distribution in ("gaussian", "sphere"),
        f"`distribution` must be 'rademacher', 'gaussian' or 'sphere', got {distribution!r}",
    )
    vectors = jax.random.normal(key, shape, x.dtype)
    if distribution == "sphere":
        norms = jnp.linalg.norm(vectors.reshape(num_probes, -1), axis=1)
        vectors = vectors * (jnp.sqrt(jnp.asarray(x.size, x.dtype)) / norms).reshape(num_probes, *(1,) * x.ndim)
    return vectors


def probed_trace(function: FieldFn, x: Array, vectors: Array) -> tuple[Array, Array]:
    """A vector field at x and v^T J v for vectors [m, ...], shape [m], J being its Jacobian at x."""
    value, push = jax.linearize(function, x)
    products = jax.vmap(push)(vectors) * vectors
    return value, jnp.sum(products, axis=tuple(range(1, products.ndim)))


def is_monotone(times: Array, direction: int) -> Array:
    """Whether times increase strictly (direction 1), decrease (-1), or do either (0)."""
    steps = jnp.diff(times)
    forward, backward = jnp.all(steps > 0), jnp.all(steps < 0)
    return {1: forward, -1: backward, 0: forward | backward}[direction]


def require_positive(**settings: Scalar) -> None:
    """Demands positive scalars: at once where they are numbers, under `debug.checked` where they are traced."""
    for name, setting in settings.items():
        shapes(**{name: (setting, "")})
        known = isinstance(setting, int | float)
        require(setting > 0, f"`{name}` must be positive" + (f", got {setting}" if known else ""))
