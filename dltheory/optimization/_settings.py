"""Settings of optimizers: scalars, or schedules from the step's number to scalars."""

from __future__ import annotations

import optax

from dltheory._checks import require
from dltheory.typing import Array

__all__ = ["Scalar", "at_step", "require_fraction", "require_non_negative"]

Scalar = float | Array


def at_step(setting: optax.ScalarOrSchedule, step: Array) -> Scalar:
    """The setting's value at step `step`."""
    return setting(step) if callable(setting) else setting  # pyright: ignore[reportReturnType]


def require_non_negative(**settings: optax.ScalarOrSchedule) -> None:
    """Demands that scalars are not negative; schedules are taken on trust."""
    for name, setting in settings.items():
        if not callable(setting):
            require(setting >= 0, f"`{name}` must be non-negative")


def require_fraction(**settings: optax.ScalarOrSchedule) -> None:
    """Demands that scalars lie in [0, 1); schedules are taken on trust."""
    for name, setting in settings.items():
        if not callable(setting):
            require((setting >= 0) & (setting < 1), f"`{name}` must lie in [0, 1)")
