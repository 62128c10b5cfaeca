"""What every sampler needs: checked positions and densities, flat vectors, safe acceptance, cheap random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dltheory._checks import require, shapes
from dltheory._trees import strongly_typed
from dltheory.typing import Array, LogDensityFn, PRNGKey, PyTree, Scalar

__all__ = [
    "accept_probability",
    "choose",
    "draw",
    "flatten",
    "floating",
    "require_like",
    "require_positive",
    "scalar_log_density",
    "value_and_gradient",
]


def floating(position: PyTree, name: str = "position") -> PyTree:
    """The position as strongly typed arrays; its leaves must be real floating-point numbers.

    >>> floating(1.0).dtype
    dtype('float32')
    """
    position = strongly_typed(position)
    leaves = jax.tree.leaves(position)
    require(len(leaves) > 0, f"`{name}` must hold at least one array")
    for leaf in leaves:
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        require(real, f"`{name}` must hold floating-point arrays, got {leaf.dtype}")
    return position


def scalar_log_density(log_density_fn: LogDensityFn, position: PyTree, name: str = "log_density_fn") -> None:
    """Demands a function that returns one floating-point number at `position`."""
    out = jax.eval_shape(log_density_fn, position)
    got = f"{out.dtype}{list(out.shape)}" if hasattr(out, "shape") else "no array"
    fits = hasattr(out, "shape") and out.shape == () and jnp.issubdtype(out.dtype, jnp.floating)
    require(bool(fits), f"`{name}` must return a floating-point scalar, got {got}")


def flatten(
    log_density_fn: LogDensityFn, position: PyTree
) -> tuple[Array, Callable[[Array], PyTree], Callable[[Array], Array]]:
    """The position as a vector [p], the way back, and the log density as a function of the vector."""
    vector, unravel = ravel_pytree(position)
    return vector, unravel, lambda flat: log_density_fn(unravel(flat))


def value_and_gradient(log_density_fn: LogDensityFn, position: PyTree) -> tuple[PyTree, Array, PyTree]:
    """A checked position, the log density there and its gradient."""
    position = floating(position)
    scalar_log_density(log_density_fn, position)
    return position, *jax.value_and_grad(log_density_fn)(position)


def accept_probability(log_ratio: Array) -> Array:
    """min(1, exp(log_ratio)), and 0 where the ratio is not a number.

    >>> accept_probability(jnp.array([1.0, -jnp.inf, jnp.nan]))
    Array([1., 0., 0.], dtype=float32)
    """
    return jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(jnp.nan_to_num(log_ratio, nan=0.0), 0.0)))


def choose(condition: Array, if_true: PyTree, if_false: PyTree) -> PyTree:
    """One of two trees of the same shapes."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)


def draw(key: PRNGKey, num_normals: int, num_uniforms: int, dtype: Any) -> tuple[Array, Array]:
    """Independent standard normal numbers [num_normals] and uniform ones in (0, 1) [num_uniforms].

    All come from one call of the bit generator: in a loop over steps its calls cost more than its bits. The normal
    numbers are those of `jax.random.normal` for as many numbers as both together.
    """
    lowest = jnp.nextafter(jnp.array(-1, dtype), jnp.array(0, dtype))
    symmetric = jax.random.uniform(key, (num_normals + num_uniforms,), dtype, lowest, 1)
    normals = jnp.array(2**0.5, dtype) * jax.lax.erf_inv(symmetric[:num_normals])
    return normals, (1 + symmetric[num_normals:]) / 2


def require_positive(**settings: Scalar) -> None:
    """Demands positive scalars: at once where they are numbers, under `debug.checked` where they are traced."""
    for name, setting in settings.items():
        shapes(**{name: (setting, "")})
        known = isinstance(setting, int | float)
        require(setting > 0, f"`{name}` must be positive" + (f", got {setting}" if known else ""))


def require_like(position: PyTree, other: PyTree, what: str) -> None:
    """Demands a tree with the structure, shapes and dtypes of the position; `what` says whose result it is."""

    def kinds(tree):
        return [f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for leaf in jax.tree.leaves(tree)]

    same = jax.tree.structure(position) == jax.tree.structure(other) and kinds(position) == kinds(other)
    require(same, f"{what} must return what is like the position, {kinds(position)}, got {kinds(other)}")
