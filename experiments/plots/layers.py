"""What there is to draw: a record's numbers as flat series, in layers for the claim, its control, its correction."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from experiments import judges
from experiments.curves import Curve, Curves
from experiments.plots.svg import COLOURS
from experiments.typeset import number

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "INK",
    "RED",
    "ROLE_COLOURS",
    "Drawable",
    "Layer",
    "Series",
    "colours",
    "dynamic",
    "forbidden_side",
    "is_log",
    "kind_of",
    "layers_of",
    "note",
]

INK, GREY, BLUE, RED, GREEN = (COLOURS[name][0] for name in ("ink", "soft", "blue", "vermillion", "green"))
ROLE_COLOURS = {"control": GREY, "corrected": GREEN}
_HUES = [COLOURS[name][0] for name in ("blue", "vermillion", "green", "purple", "ochre", "indigo")]
_MOST_CURVES = 12


class Drawable(Protocol):
    """What a picture needs of a record."""

    claim: str
    criterion: dict[str, Any]
    axes: dict[str, str]
    curves: dict[str, Curves]
    control: dict[str, str] | None
    corrected: dict[str, str] | None
    margin: float | None
    tightness: float | None
    measured: float | None
    predicted: float | None
    standard_error: float | None


class Series(NamedTuple):
    """One curve with its prediction, flat.

    Attributes:
        name: for the legend.
        x: abscissa [n], or None.
        y: measured [n].
        target: predicted [n]; NaN where there is no prediction.
        low, high: the interval on which the judge decides [n]; NaN where there is none.
    """

    name: str
    x: np.ndarray | None
    y: np.ndarray
    target: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def abscissa(self) -> np.ndarray:
        """Where the points are drawn: `x`, or their number."""
        return np.arange(1.0, self.y.size + 1) if self.x is None else self.x

    @property
    def distance(self) -> np.ndarray:
        """Measured minus predicted; 0 for equal infinities."""
        with np.errstate(invalid="ignore"):
            return np.where(self.y == self.target, 0.0, self.y - self.target)

    def at(self, index: np.ndarray) -> Series:
        """The points with these indices, in this order."""
        x = None if self.x is None else self.x[index]
        return Series(self.name, x, self.y[index], self.target[index], self.low[index], self.high[index])


class Layer(NamedTuple):
    """The claim itself (role ""), its control, or the corrected reading of a misprint, and what of it is new."""

    role: str
    series: list[Series]
    shows_measured: bool
    shows_theory: bool
    title: str = ""


def layers_of(record: Drawable) -> list[Layer]:
    """The claim's layer, then those of its variants that have curves of their own."""
    curves = record.curves
    measured, predicted = curves.get("measured", {}), curves.get("predicted", {})
    layers = [Layer("", _series(record, measured, predicted), True, True)]
    for role, variant in (("corrected", record.corrected), ("control", record.control)):
        has_measured, has_theory = f"{role} measured" in curves, f"{role} predicted" in curves
        if has_measured or has_theory:
            series = _series(
                record, curves.get(f"{role} measured", measured), curves.get(f"{role} predicted", predicted)
            )
            layers.append(
                Layer(role, series, has_measured, has_theory, f"{role}: {variant['what']}" if variant else role)
            )
    return layers


def kind_of(record: Drawable) -> str:
    """The name of the judge."""
    return str(record.criterion.get("judge", ""))


def forbidden_side(record: Drawable) -> int:
    """Which side of the theory is forbidden: +1 above, -1 below, 0 none."""
    return {"AtMost": 1, "MeanAtMost": 1, "ProbabilityAtMost": 1, "AtLeast": -1}.get(kind_of(record), 0)


def colours(count: int) -> tuple[list[str], np.ndarray]:
    """Colour and opacity of each of `count` curves: hues while they last, else shades of one."""
    return (_HUES[:count], np.ones(count)) if count <= len(_HUES) else ([BLUE] * count, np.linspace(0.35, 1.0, count))


def is_log(axis: str, record: Drawable, values: Iterable[np.ndarray]) -> bool:
    """Whether an axis is logarithmic as asked: not if numbers are negative, or most of them zero."""
    numbers = _finite(values)
    asked = axis in record.axes.get("log", "")
    return bool(asked and numbers.size and numbers.min() >= 0 and np.mean(numbers > 0) >= 0.5)


def dynamic(values: Iterable[np.ndarray]) -> bool:
    """Whether the numbers are positive and range over more than three decades."""
    numbers = _finite(values)
    return bool(numbers.size and numbers.min() > 0 and numbers.max() > 1e3 * numbers.min())


def note(record: Drawable) -> str:
    """The decisive number in a few words."""
    kind = kind_of(record)
    if forbidden_side(record):
        tightness = record.tightness or 0.0
        if tightness > 1 + 1e-6:
            return f"{number(tightness, 3)} × the bound"
        return f"tightness {number(tightness, 3)}" if tightness > 0 else ""
    if kind in ("Equal", "Mean") and record.margin is not None and np.isfinite(record.margin):
        return f"largest deviation {number(1 - record.margin, 2)} × allowed"
    if kind == "Slope" and record.measured is not None and record.predicted is not None:
        error = record.standard_error or 0.0
        shown = f" ± {number(error, 1)}" if error > 1e-5 * abs(record.measured) else ""
        side = record.criterion.get("side", "equal")
        predicted = f"{'' if side == 'equal' else f'{side} '}{number(record.predicted, 4)}"
        return f"slope {number(record.measured, 4)}{shown}, predicted {predicted}"
    return ""


def _series(record: Drawable, measured: Curves, predicted: Curves) -> list[Series]:
    shared = predicted.get("") if set(predicted) == {""} else None
    cells = sum(np.size(curve.y) for curve in measured.values())
    series = []
    for name in _chosen(sorted(measured, key=_natural)):
        curve = measured[name]
        y = np.asarray(curve.y, float)
        target = shared if shared is not None else predicted.get(name)
        try:
            wanted = np.broadcast_to(np.asarray(np.nan if target is None else target.y, float), y.shape)
        except ValueError:
            wanted = np.full(y.shape, np.nan)
        low, high = _interval(record.criterion, curve, cells)
        x = None if curve.x is None else np.ravel(np.asarray(curve.x, float))
        series.append(Series(name, x, y.ravel(), wanted.ravel(), low, high))
    return series


def _natural(name: str) -> list[tuple[float, str]]:
    """Sorts n=5 before n=20."""
    return [(float(part), "") if part.isdecimal() else (-1.0, part) for part in re.split(r"([0-9]+)", name)]


def _chosen(names: list[str]) -> list[str]:
    if len(names) <= _MOST_CURVES:
        return names
    return [names[i] for i in np.linspace(0, len(names) - 1, _MOST_CURVES).astype(int)]


def _interval(criterion: Mapping[str, Any], curve: Curve, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """The interval on which the judge decides, or one standard error to both sides where it does not use any."""
    y = np.ravel(np.asarray(curve.y, float))
    kind = criterion.get("judge")
    if kind == "ProbabilityAtMost" and curve.trials is not None:
        return judges.clopper_pearson(y, np.ravel(curve.trials), cells)
    if curve.standard_error is None:
        return np.full(y.size, np.nan), np.full(y.size, np.nan)
    half = np.ravel(np.asarray(curve.standard_error, float))
    half = half * (judges.joint_quantile(cells) if kind in ("Mean", "MeanAtMost") else 1.0)
    return y - half, y + half


def _finite(values: Iterable[np.ndarray]) -> np.ndarray:
    numbers = np.concatenate([np.ravel(v) for v in values] or [np.empty(0)])
    return numbers[np.isfinite(numbers)]
