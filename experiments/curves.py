"""What claims measure and predict: named curves of numbers, with their uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Curve", "Curves", "as_curves", "estimate", "frequency"]


class Curve(NamedTuple):
    """Numbers that belong together, of any shape; a picture draws `y` over `x`.

    Attributes:
        y: values, shape [...].
        x: where they were taken, same shape as `y`, or None if there is no natural abscissa.
        standard_error: of each value, same shape, or None if the values are exact.
        trials: number of independent trials behind each relative frequency, same shape, or None.
    """

    y: Any
    x: Any = None
    standard_error: Any = None
    trials: Any = None


Curves = dict[str, Curve]


def estimate(samples: Any, x: Any = None) -> Curve:
    """Monte-Carlo mean over the leading axis of `samples` [n, ...], with its standard error."""
    samples = np.asarray(samples, np.float64)
    if len(samples) < 2:
        raise ValueError(f"`samples` must hold at least two trials, got {len(samples)}")
    return Curve(samples.mean(0), x, samples.std(0, ddof=1) / np.sqrt(len(samples)))


def frequency(events: Any, x: Any = None) -> Curve:
    """Relative frequency of an event over the leading axis of the truth values `events` [n, ...]."""
    events = np.asarray(events, bool)
    return Curve(events.mean(0), x, trials=np.full(events.shape[1:], len(events)))


def as_curves(value: Any) -> Curves:
    """Puts whatever a claim returned into one form: a dictionary of curves of float64 arrays.

    Args:
        value: a number, an array, a `Curve`, or a dictionary of these under the names a legend shows.
    """
    named = value if isinstance(value, Mapping) else {"": value}
    return {str(name): _as_curve(item) for name, item in named.items()}


def _as_curve(value: Any) -> Curve:
    curve = value if isinstance(value, Curve) else Curve(value)
    y = np.asarray(curve.y, np.float64)

    def aligned(field: str, values: Any) -> np.ndarray | None:
        if values is None:
            return None
        try:
            return np.broadcast_to(np.asarray(values, np.float64), y.shape)
        except ValueError:
            raise ValueError(f"`{field}` must fit `y` of shape {y.shape}, got {np.shape(values)}") from None

    return Curve(
        y, aligned("x", curve.x), aligned("standard_error", curve.standard_error), aligned("trials", curve.trials)
    )
