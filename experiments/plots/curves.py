"""Many numbers: dots over a line, and below them the deviations where the judge allows only so much of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments import judges
from experiments.plots.canvas import Canvas, canvas, limits, mark, segments, thin
from experiments.plots.layers import (
    BLUE,
    GREY,
    INK,
    RED,
    ROLE_COLOURS,
    Drawable,
    Layer,
    Series,
    colours,
    dynamic,
    forbidden_side,
    is_log,
    kind_of,
    note,
)
from experiments.plots.legend import DASHES, curve_entries, measured_entry, theory_entry, variant_entries

__all__ = ["draw_curves", "draw_measured", "points_each", "y_limits"]

_POINTS = 320  # in all curves together
_SHADE = 0.13  # opacity of the forbidden side
_BAND = 0.05  # of the axis
_DENSE = 150  # points of one curve that look like a line


def draw_curves(record: Drawable, layers: list[Layer]) -> str:
    """Measured dots, predicted line, forbidden side; deviations in a panel of their own for equalities."""
    natural = any(each.x is not None for each in layers[0].series)
    layers, x_label, y_label = _with_abscissa(record, layers)
    series = layers[0].series
    deviations = _deviations(record, series) if kind_of(record) in ("Equal", "Mean") else None
    both = [a for each in series for a in (each.y, each.target)]
    diagonal = x_label == "predicted" and dynamic(both)
    log_x = diagonal or is_log("x", record, [each.abscissa for each in series])
    log_y = diagonal or is_log("y", record, both)
    shared = all(np.array_equal(each.target, series[0].target, equal_nan=True) for each in series)
    hues, alphas = colours(len(series))
    shades = alphas[0] < 1
    side = forbidden_side(record)
    dense = natural and all(each.y.size > _DENSE and (np.diff(each.abscissa) > 0).all() for each in series)
    with canvas(panel=deviations is not None, height=160 if deviations is None else 128) as c:
        c.axes.set_xscale("log" if log_x else "linear")
        c.axes.set_yscale("log" if log_y else "linear")
        c.axes.set_xlim(*limits([each.abscissa for each in series], log=log_x, pad=0.04))
        own = [a for each in series for a in (each.y, each.target, each.low, each.high)]
        variants = [a for layer in layers[1:] for each in layer.series for a in _new(layer, each)]
        c.axes.set_ylim(*y_limits(own, variants, log=log_y, bounds=both if side > 0 else ()))
        for layer in reversed(layers):
            for i, each in enumerate(layer.series[: len(series)]):
                hue = ROLE_COLOURS.get(layer.role, hues[i])
                alpha = float(alphas[i]) * (0.6 if layer.role and shades else 1.0)
                if layer.shows_theory and (i == 0 or not shared or layer.role):
                    theory_hue = RED if not layer.role and (shared or shades) else hue
                    few = _theory_points(each, points_each(series))
                    _draw_theory(c.axes, few, theory_hue, alpha, dashed=bool(layer.role))
                    if side and not layer.role and not (shades and not shared):
                        _shade(c.axes, few, side, theory_hue, everything=shared)
                if layer.shows_measured:
                    draw_measured(c.axes, each, hue, alpha, most=points_each(series), joined=dense)
        if deviations is not None:
            _draw_deviations(c, record, layers, log_x=log_x)
        c.x, c.y, c.note = x_label, y_label, note(record)
        several = len(series) > 1 and not shades
        names = curve_entries(record, layers) if len(series) > 1 else []
        c.legend = [*names, measured_entry(record, layers, colour=INK if several else BLUE, joined=dense)]
        c.legend += [theory_entry(record, colour=INK if several and not shared else RED), *variant_entries(layers)]
        return c.svg(record.claim)


def points_each(series: list[Series]) -> int:
    """How many points to draw of each curve."""
    return max(24, _POINTS // len(series))


def draw_measured(axes: Any, each: Series, hue: str, alpha: float = 1.0, *, most: int, joined: bool = False) -> None:
    """Dots with their intervals, or a broad line where there are so many that they would touch."""
    few = each.at(thin(each.y.size, most, each.y, each.distance))
    x = few.abscissa
    if joined:
        axes.plot(x, few.y, color=hue, lw=3, alpha=0.5 * alpha, solid_capstyle="round")
        return
    if np.isfinite(few.low).any():
        low, high = (np.clip(edge, *axes.get_ylim()) for edge in (few.low, few.high))
        segments(axes, x, low, high, hue, alpha=alpha)
    mark(axes, x, few.y, hue, size=4.6 if x.size <= 40 else 3.4 if x.size <= 100 else 2.6, alpha=alpha)


def y_limits(own: list[np.ndarray], variants: list[np.ndarray], *, log: bool, bounds: Any = ()) -> tuple[float, float]:
    """Limits that show the claim, and of its variants what lies within half as much again.

    Args:
        own: the claim's numbers.
        variants: those of control and correction.
        log: whether the axis is logarithmic.
        bounds: measured numbers and upper bounds: how far below the bounds the numbers lie soon ceases to matter.
    """
    low, high = limits(own, log=log)
    if log and len(bounds):
        targets, top = limits(bounds[1::2], log=True, pad=0)[0], limits(own, log=True, pad=0)[1]
        low = max(low, top * 1e-12, targets * 1e-3)
        low, high = limits([np.clip(v, low * 1.01, None) for v in own], log=True)
    shown = np.concatenate([np.ravel(v) for v in variants]) if variants else np.empty(0)
    shown = shown[np.isfinite(shown) & ((shown > 0) | (not log))]
    if not shown.size or np.mean((shown >= low) & (shown <= high)) > 0.3:
        return low, high
    wide_low, wide_high = limits([*own, shown], log=log)
    if log:
        room = (high / low) ** 0.5 if high < low * 1e300 else 1e150
        lowest, highest = low / room, high * room
    else:
        lowest, highest = 1.5 * low - 0.5 * high, 1.5 * high - 0.5 * low
    low = max(wide_low, lowest) if shown.min() < low else low
    high = min(wide_high, highest) if shown.max() > high else high
    return low, high


def _new(layer: Layer, each: Series) -> list[np.ndarray]:
    return [a for a, new in ((each.y, layer.shows_measured), (each.target, layer.shows_theory)) if new]


def _with_abscissa(record: Drawable, layers: list[Layer]) -> tuple[list[Layer], str, str]:
    """Numbers without an abscissa get one: the prediction, or their rank where that hardly varies."""
    x_label, y_label = record.axes.get("x", ""), record.axes.get("y", "")
    series = layers[0].series
    if any(each.x is not None for each in series):
        return layers, x_label, y_label

    spread = [np.ptp(a[np.isfinite(a)]) if np.isfinite(a).any() else 0.0 for a in map(np.concatenate, zip(
        *((each.target, each.y) for each in series), strict=True))]  # fmt: skip
    varies = spread[0] > 0.05 * spread[1]

    def placed(each: Series) -> Series:
        each = each.at(np.argsort(each.target if varies else each.y, kind="stable"))
        return each._replace(x=each.target if varies else np.arange(1.0, each.y.size + 1))

    layers = [layer._replace(series=[placed(each) for each in layer.series]) for layer in layers]
    return layers, "predicted" if varies else x_label or "rank", y_label or "measured"


def _theory_points(each: Series, most: int) -> Series:
    """What it takes to draw the prediction: of a constant, both ends."""
    each = each.at(np.argsort(each.abscissa, kind="stable"))
    if np.unique(each.target).size == 1:
        return each.at(np.array([0, each.y.size - 1]))
    return each.at(thin(each.y.size, most, each.target))


def _draw_theory(axes: Any, each: Series, hue: str, alpha: float, *, dashed: bool) -> None:
    x, target = each.abscissa, each.target
    with np.errstate(invalid="ignore"):
        is_function = not ((np.diff(x) == 0) & (np.abs(np.diff(target)) > 1e-9 * np.abs(target[1:]))).any()
    if is_function:
        axes.plot(x, target, color=hue, alpha=alpha, **(DASHES if dashed else {"lw": 1.4, "zorder": 2.2}))
    else:
        low, high = axes.get_xlim()
        half = 0.008 * (np.log(high / low) if axes.get_xscale() == "log" else high - low)
        ends = (x * np.exp(-half), x * np.exp(half)) if axes.get_xscale() == "log" else (x - half, x + half)
        gap = np.full(x.size, np.nan)
        line = np.column_stack([*ends, gap]).ravel()
        axes.plot(line, np.column_stack([target, target, gap]).ravel(), color=hue, alpha=alpha, lw=1.2)


def _shade(axes: Any, each: Series, side: int, hue: str, *, everything: bool) -> None:
    """Tints the forbidden side: all of it, or a narrow band where several bounds would lie over each other."""
    low, high = axes.get_ylim()
    edge = np.full(each.y.size, high if side > 0 else low)
    inside = np.clip(each.target, low, high)
    if not everything:
        step = side * _BAND
        band = inside * (high / low) ** step if axes.get_yscale() == "log" else inside + step * (high - low)
        edge = np.where((each.target >= low) & (each.target <= high), np.clip(band, low, high), np.nan)
    axes.fill_between(each.abscissa, inside, edge, color=hue, alpha=_SHADE, lw=0)


def _deviations(record: Drawable, series: list[Series]) -> list[np.ndarray] | None:
    """Deviations in units of what the judge allows; None if it allows none at all."""
    tolerances = {key: value for key, value in record.criterion.items() if key != "judge"}
    deviations = []
    for each in series:
        with np.errstate(divide="ignore", invalid="ignore"):
            if kind_of(record) == "Equal":
                deviations.append(np.abs(each.distance) / judges.Equal(**tolerances).allowance(each.target))
            else:
                deviations.append(2 * each.distance / (each.high - each.low))
    return deviations if any(np.isfinite(each).any() for each in deviations) else None


def _draw_deviations(c: Canvas, record: Drawable, layers: list[Layer], *, log_x: bool) -> None:
    panel = c.panel
    assert panel is not None
    equal = kind_of(record) == "Equal"
    c.y_panel = "deviation / tolerance" if equal else "deviation / half-width of the interval"
    shown = [layer for layer in layers if not layer.role or (equal and layer.role == "control")]
    scaled = {layer.role: _deviations(record, layer.series) or [] for layer in shown}
    panel.set_xscale("log" if log_x else "linear")
    if equal:
        panel.set_yscale("log")
        low, high = limits([np.array([0.03, 3.0]), *(a for each in scaled.values() for a in each)], log=True)
        panel.set_ylim(max(low, 1e-9), min(high, 1e15))
        panel.axhline(1, color=RED, lw=1)
        panel.axhspan(1, panel.get_ylim()[1], color=RED, alpha=_SHADE, lw=0)
    else:
        panel.set_ylim(*limits([np.array([-1.25, 1.25]), *scaled[""]], log=False))
        panel.axhline(0, color=RED, lw=1)
        for limit, edge in zip((-1, 1), panel.get_ylim(), strict=True):
            panel.axhspan(limit, edge, color=RED, alpha=_SHADE, lw=0)
    for layer in reversed(shown):
        hues, alphas = colours(len(layer.series))
        for i, (each, deviation) in enumerate(zip(layer.series, scaled[layer.role], strict=False)):
            few = thin(deviation.size, points_each(layer.series) // 2, deviation)
            hue = GREY if layer.role else hues[i]
            mark(panel, each.abscissa[few], deviation[few], hue, size=2.6, alpha=float(alphas[i]))
