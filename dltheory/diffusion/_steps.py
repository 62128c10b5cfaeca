"""What every function of a time step needs: its coefficients in the dtype of the points, and their checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from dltheory._checks import require, shapes
from dltheory._numerics import safe_sqrt
from dltheory.typing import Array

__all__ = ["at", "check_points", "check_time", "check_values", "signal_and_noise"]


def at(values: Array, t: Any, like: Array) -> Array:
    """Entry t of `values`, in the dtype of the points that it will multiply."""
    return values[t].astype(like.dtype)


def signal_and_noise(t: Any, schedule: Any, like: Array) -> tuple[Array, Array]:
    """The square roots of alpha-bar_t and of 1 - alpha-bar_t."""
    return (
        safe_sqrt(schedule.alpha_bars[t]).astype(like.dtype),
        safe_sqrt(schedule.one_minus_alpha_bars[t]).astype(like.dtype),
    )


def check_points(**points: Array) -> None:
    """Demands floating-point arrays of one shape."""
    first = next(iter(points))
    for name, array in points.items():
        shapes(**{name: (array, "...")})
        require(hasattr(array, "dtype"), f"`{name}` must be a floating-point array, got {type(array).__name__}")
        real = jnp.issubdtype(jnp.result_type(array), jnp.floating)
        require(real, f"`{name}` must be floating-point, got {jnp.result_type(array)}")
        wanted, got = jnp.shape(points[first]), jnp.shape(array)
        require(got == wanted, f"`{name}` must have the shape of `{first}`, {list(wanted)}, got {list(got)}")


def check_time(t: Any, schedule: Any, first: int = 1) -> None:
    """Demands one whole number between `first` and the number of steps."""
    shapes(t=(t, ""))
    whole = jnp.issubdtype(jnp.result_type(t), jnp.integer)
    require(whole, f"`t` must be a whole number, got {jnp.result_type(t)}")
    last = len(schedule.betas) - 1
    inside = (t >= first) & (t <= last)
    require(bool(inside) if isinstance(t, int | np.integer) else inside, f"`t` must be between {first} and {last}")


def check_values(schedule: Any, values: Array | None, name: str, default: Callable[[Any], Array]) -> Array:
    """One number for every time step of the schedule, by default those that the chapter uses."""
    if values is None:
        return default(schedule)
    shapes(betas=(schedule.betas, "t"), **{name: (values, "t")})
    return values
