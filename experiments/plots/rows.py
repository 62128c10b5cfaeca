"""A few numbers without an abscissa: a line for each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from experiments.plots.canvas import canvas, limits
from experiments.plots.layers import (
    BLUE,
    RED,
    ROLE_COLOURS,
    Drawable,
    Layer,
    Series,
    dynamic,
    forbidden_side,
    is_log,
    note,
)
from experiments.plots.legend import measured_entry, theory_entry, variant_entries
from experiments.plots.text import shorten, text_width
from experiments.typeset import number

__all__ = ["MOST_ROWS", "draw_rows"]

MOST_ROWS = 8
_HALF = 0.36  # of a mark's height, in rows


class _Row(NamedTuple):
    name: str
    y: float
    target: float
    low: float
    high: float


def draw_rows(record: Drawable, layers: list[Layer]) -> str:
    """Measured numbers as dots on lines, predicted ones as strokes across them, both printed at the right."""
    rows = {layer.role: _rows(layer.series) for layer in layers}
    main = rows[""]
    values = [np.array([row[1:] for row in each]) for each in rows.values()]
    log = dynamic(values) or is_log("y", record, values)
    side = forbidden_side(record)
    with canvas(height=22.0 * len(main) + 8) as c:
        axes = c.axes
        axes.set_xscale("log" if log else "linear")
        axes.set_xlim(*limits(values, log=log, pad=0.12))
        axes.set_ylim(len(main) - 0.45, -0.55)
        axes.set_yticks(range(len(main)), [shorten(row.name, 92, 9) for row in main])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        for layer in reversed(layers):
            hue = ROLE_COLOURS.get(layer.role)
            for i, row in enumerate(rows[layer.role][: len(main)]):
                across = [i - _HALF, i + _HALF]
                if layer.shows_theory and np.isfinite(row.target):
                    if not hue and side:
                        edge = axes.get_xlim()[1 if side > 0 else 0]
                        axes.fill_betweenx(across, row.target, edge, color=RED, alpha=0.13, lw=0)
                    style: dict[str, Any] = {"lw": 1.3, "ls": (0, (2.5, 1.8))} if hue else {"lw": 1.8}
                    axes.plot([row.target] * 2, across, color=hue or RED, solid_capstyle="butt", **style)
                if layer.shows_measured:
                    axes.plot([row.low, row.high], [i, i], color=hue or BLUE, lw=1.3, solid_capstyle="butt")
                    face = "none" if hue else BLUE
                    axes.plot([row.y], [i], "o", ms=4.6, mec=hue or BLUE, mfc=face, mew=1.1, zorder=4)
        for values, hue in (([row.y for row in main], BLUE), ([row.target for row in main], RED)):
            texts = ["" if np.isnan(value) else number(value) for value in values]
            c.right += max(text_width(text, 9) for text in texts)
            for i, text in enumerate(texts):
                axes.annotate(
                    text, (1, i), (c.right, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                    size=9, ha="right", va="center", color=hue, annotation_clip=False,
                )  # fmt: skip
            c.right += 12
        c.x, c.note = record.axes.get("y", ""), note(record)
        c.legend = [measured_entry(record, layers), theory_entry(record), *variant_entries(layers)]
        return c.svg(record.claim)


def _rows(series: list[Series]) -> list[_Row]:
    return [
        _Row(each.name if each.y.size == 1 else f"{each.name} {i + 1}".strip(), *(float(a[i]) for a in each[2:]))
        for each in series
        for i in range(each.y.size)
    ]
