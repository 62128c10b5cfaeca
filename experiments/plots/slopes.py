"""Slopes: points, the line fitted to them, and a triangle that has the predicted slope."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from experiments import judges
from experiments.curves import Curve
from experiments.plots.canvas import Entry, canvas, limits
from experiments.plots.curves import draw_measured, points_each
from experiments.plots.layers import BLUE, INK, RED, ROLE_COLOURS, Drawable, Layer, Series, colours, note
from experiments.plots.legend import curve_entries, measured_entry, theory_entry, variant_entries
from experiments.typeset import number

__all__ = ["draw_slopes"]


class _Scale:
    """An axis on which the judge's straight lines are straight."""

    def __init__(self, log: bool) -> None:
        self.log = log
        self.name = "log" if log else "linear"

    def to(self, values: Any) -> Any:
        return np.log(values) if self.log else np.asarray(values, float)

    def back(self, values: Any) -> Any:
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(values) if self.log else values


def draw_slopes(record: Drawable, layers: list[Layer]) -> str:
    """Points and fitted lines on the judge's axes, the predicted slope as a triangle below them."""
    log = record.criterion.get("log", "xy")
    layers = [layer._replace(series=[each for each in layer.series if each.x is not None]) for layer in layers]
    series = layers[0].series
    x = _Scale("x" in log and all((each.abscissa > 0).all() for each in series))
    y = _Scale("y" in log and all((each.y > 0).all() for each in series))
    hues, alphas = colours(len(series))
    with canvas(height=172) as c:
        axes = c.axes
        axes.set_xscale(x.name)
        axes.set_yscale(y.name)
        axes.set_xlim(*limits([each.abscissa for each in series], log=x.log, pad=0.06))
        axes.set_ylim(*limits([a for each in series for a in (each.y, each.low, each.high)], log=y.log, pad=0.1))
        side = record.criterion.get("side", "equal")
        targets = {float(each.target[0]) for each in series if np.isfinite(each.target[0])}
        if targets:  # where curves have different slopes, the one that is easiest to see
            _draw_triangle(axes, series, max(targets, key=abs), side, x, y)
        for layer in layers[1:]:
            for each in layer.series:
                hue = ROLE_COLOURS[layer.role]
                if layer.shows_measured:
                    draw_measured(axes, each, hue, most=points_each(series))
                if layer.shows_theory:
                    _draw_line(axes, each, float(each.target[0]), x, y, color=hue, lw=1, ls=(0, (4, 2.5)))
        for each, hue, alpha in zip(series, hues, alphas, strict=True):
            with contextlib.suppress(ValueError):  # too few points for a line
                slope, _, _ = judges.fit_slope(Curve(each.y, each.abscissa), "x" * x.log + "y" * y.log)
                _draw_line(axes, each, slope, x, y, color=hue, lw=1.1, alpha=float(alpha))
            draw_measured(axes, each, hue, float(alpha), most=points_each(series))
        c.x, c.y, c.note = record.axes.get("x", ""), record.axes.get("y", ""), note(record)
        colour = INK if len(series) > 1 and alphas[0] == 1 else BLUE
        theory = theory_entry(record)
        c.legend = [
            *(curve_entries(record, layers) if len(series) > 1 else []),
            measured_entry(record, layers, colour=colour),
            Entry("fitted", {"lw": 1.1, "color": colour}),
            theory._replace(text=theory.text.replace("predicted", "predicted slope")),
            *variant_entries(layers),
        ]
        return c.svg(record.claim)


def _draw_line(axes: Any, each: Series, slope: float, x: _Scale, y: _Scale, **style: Any) -> None:
    """A line of given slope through the points' centre of gravity."""
    across, up = x.to(each.abscissa), y.to(each.y)
    ends = np.array([across.min(), across.max()])
    axes.plot(x.back(ends), y.back(up.mean() + slope * (ends - across.mean())), **style)


def _draw_triangle(axes: Any, series: list[Series], slope: float, side: str, x: _Scale, y: _Scale) -> None:
    """A triangle with legs parallel to the axes, below all points; the axis is extended to hold it.

    Its right angle is on the far side from the points: right of a rising line, left of a falling one.
    """
    (left, right), (bottom, top) = x.to(axes.get_xlim()), y.to(axes.get_ylim())
    width = 0.2 * (right - left)
    if abs(slope) * width > 0.3 * (top - bottom):
        width = 0.3 * (top - bottom) / abs(slope)
    start = left + (0.62 if slope >= 0 else 0.16) * (right - left)
    xs = np.linspace(start, start + width, 9)
    lowest = np.min([np.interp(xs, *_sorted(x.to(each.abscissa), y.to(each.y))) for each in series], axis=0)
    foot = float(np.min(lowest - slope * (xs - start))) - 0.06 * (top - bottom)
    head = foot + slope * width
    corner = (xs[-1], foot) if slope >= 0 else (start, head)
    beneath = min(foot, head) - 0.05 * (top - bottom)
    if beneath < bottom:
        axes.set_ylim(y.back(beneath), y.back(top))
    points = np.array([(start, foot), (xs[-1], head), corner, (start, foot)])
    across, up = x.back(points[:, 0]), y.back(points[:, 1])
    axes.fill(across, up, fc=RED, ec="none", alpha=0.12)
    axes.plot(across, up, color=RED, lw=1)
    text = {"at most": "≤ ", "at least": "≥ "}.get(side, "") + number(slope, 4)
    where = (x.back(corner[0]), y.back((foot + head) / 2))
    offset, align = ((4, 0), "left") if slope >= 0 else ((-4, 0), "right")
    axes.annotate(text, where, offset, textcoords="offset points", ha=align, va="center", size=9, color=RED)


def _sorted(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(x, kind="stable")
    return x[order], y[order]
