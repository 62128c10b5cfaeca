"""Settings of optimizers: scalars, or schedules from the step's number to scalars."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from dltheory._checks import require, shapes
from dltheory.typing import Array, PyTree, Scalar

__all__ = ["add_scaled", "at_step", "require_fraction", "require_like", "require_non_negative"]


def at_step(setting: optax.ScalarOrSchedule, step: Array) -> Scalar:
    """The setting's value at step `step`."""
    return setting(step) if callable(setting) else setting  # pyright: ignore[reportReturnType]


def add_scaled(tree: PyTree, scale: Scalar, direction: PyTree) -> PyTree:
    """``tree + scale * direction`` in the dtypes of `tree`, whatever that of `scale`."""
    return jax.tree.map(lambda x, v: jnp.asarray(x + scale * v, jnp.result_type(x)), tree, direction)


def require_like(reference: PyTree, **trees: PyTree) -> None:
    """Demands trees with the structure, shapes and dtypes of `params`, which is `reference`."""
    wanted = jax.tree.map(_describe, reference)
    for name, tree in trees.items():
        got = jax.tree.map(_describe, tree)
        same = jax.tree.structure(wanted) == jax.tree.structure(got) and jax.tree.leaves(wanted) == jax.tree.leaves(got)
        require(same, f"`{name}` must be like `params`, {wanted}, got {got}")


def _describe(leaf: Array) -> str:
    return f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"


def require_non_negative(**settings: optax.ScalarOrSchedule) -> None:
    """Demands scalars that are not negative; schedules are taken on trust."""
    for name, setting in settings.items():
        if not callable(setting):
            shapes(**{name: (setting, "")})
            require(setting >= 0, f"`{name}` must be non-negative")


def require_fraction(**settings: optax.ScalarOrSchedule) -> None:
    """Demands scalars in [0, 1); schedules are taken on trust."""
    for name, setting in settings.items():
        if not callable(setting):
            shapes(**{name: (setting, "")})
            require((setting >= 0) & (setting < 1), f"`{name}` must lie in [0, 1)")
