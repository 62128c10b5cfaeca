"""What the pictures are drawn with: a canvas in their common style, a legend, axes that fit."""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from experiments.plots.svg import COLOURS, serialise
from experiments.plots.text import FONTS, label, shorten, text_width
from experiments.typeset import number, superscript

__all__ = [
    "WIDTH",
    "Canvas",
    "Entry",
    "canvas",
    "limits",
    "mark",
    "segments",
    "thin",
]

WIDTH = 360.0  # points: 480 pixels on the page

_STYLE: dict[Any, Any] = {
    "font.family": FONTS,
    "font.size": 10,
    "mathtext.fontset": "stix",
    "svg.fonttype": "path",
    "svg.hashsalt": "dltheory",
    "path.simplify": False,
    "axes.unicode_minus": True,
    "axes.linewidth": 0.7,
    "axes.edgecolor": COLOURS["soft"][0],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"][0],
    "grid.linewidth": 0.4,
    "text.color": COLOURS["ink"][0],
    "axes.labelcolor": COLOURS["ink"][0],
    "xtick.color": COLOURS["soft"][0],
    "ytick.color": COLOURS["soft"][0],
    "xtick.labelcolor": COLOURS["ink"][0],
    "ytick.labelcolor": COLOURS["ink"][0],
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 1.6,
    "ytick.minor.size": 1.6,
    "figure.facecolor": "none",
    "figure.dpi": 72,
}


class Entry(NamedTuple):
    """A line of the legend: its text and how the thing it names is drawn (keywords of `Line2D`)."""

    text: str
    style: dict[str, Any]


class Canvas:
    """A picture in the making: axes, a legend above them, and a note in the corner.

    Attributes:
        axes: the main axes.
        panel: axes of a low second panel below them, with the same abscissa, or None.
        legend: entries, set one after the other in as many lines as they need.
        note: a few words above the axes on the right.
        x, y, y_panel: labels; ordinates are labelled above their axes, where there is room.
        right: space in points to keep free at the right of the axes.
    """

    def __init__(self, *, panel: bool = False, height: float = 150.0) -> None:
        """Makes the axes; `height` is that of the main ones in points."""
        self._figure = Figure(dpi=72)
        FigureCanvasSVG(self._figure)
        self.axes: Axes = self._figure.add_axes((0, 0, 1, 1))
        self.panel: Axes | None = self._figure.add_axes((0, 0, 1, 0.1), sharex=self.axes) if panel else None
        self.legend: list[Entry] = []
        self.note = self.x = self.y = self.y_panel = ""
        self.height, self.left, self.right = height, 0.0, 12.0

    def svg(self, title: str) -> str:
        """Lays everything out and returns the SVG."""
        rows = _flow(self.legend)
        head = 15.0 if self.y or self.note else 3.0
        if text_width(self.y) + text_width(self.note) > WIDTH - 30:
            head += 14
        for axes in self._all():
            _fit_ticks(axes)
        left = max(self.left, 12 + max(_tick_width(axes.yaxis) for axes in self._all()))
        panel = 58.0 if self.panel else 0.0
        bottom = 19.0 + (12.0 if self.x else 0.0)
        height = bottom + panel + self.height + head + 15 * len(rows) + (4 if rows else 0)
        self._figure.set_size_inches(WIDTH / 72, height / 72)

        def place(axes: Axes, base: float, tall: float) -> None:
            axes.set_position((left / WIDTH, base / height, (WIDTH - left - self.right) / WIDTH, tall / height))

        def write(x: float, y: float, text: str, **style: Any) -> None:
            self._figure.text(x / WIDTH, y / height, label(text), **style)

        place(self.axes, bottom + panel, self.height)
        if self.panel:
            place(self.panel, bottom, panel - 22)
            write(2, bottom + panel - 15, self._with_power(self.panel.yaxis, self.y_panel), size=9, va="baseline")
            self.axes.tick_params(labelbottom=False)
        top = bottom + panel + self.height
        write(2, top + 6, self._with_power(self.axes.yaxis, self.y), va="baseline")
        write(WIDTH - 2, top + head - 9, self.note, ha="right", va="baseline", color=COLOURS["soft"][0])
        lowest = self.panel or self.axes
        write(WIDTH - self.right, 3, self._with_power(lowest.xaxis, self.x), ha="right", va="baseline")
        for i, row in enumerate(rows):
            y = height - 11 - 15 * i
            for x, entry in row:
                line = Line2D(
                    [(x + 1) / WIDTH, (x + 9) / WIDTH, (x + 17) / WIDTH],
                    [(y + 3) / height] * 3,
                    markevery=[1],
                    transform=self._figure.transFigure,
                    **entry.style,
                )
                self._figure.add_artist(line)
                write(x + 22, y, entry.text, va="baseline", size=9.5)
        return serialise(self._figure, title, WIDTH, height)

    def _all(self) -> list[Axes]:
        return [self.axes, *([self.panel] if self.panel else [])]

    @staticmethod
    def _with_power(axis: Any, text: str) -> str:
        """The label with the power of ten that matplotlib would otherwise write where our label stands."""
        formatter = axis.get_major_formatter()
        axis.get_offset_text().set_visible(False)
        if not isinstance(formatter, ticker.ScalarFormatter):
            return text
        formatter.set_locs(axis.get_majorticklocs())
        offset = re.sub(r"1e(\S+)", lambda m: "×10" + superscript(int(m[1].replace("−", "-"))), formatter.get_offset())
        return f"{text} ({offset})".strip() if offset else text


@contextlib.contextmanager
def canvas(*, panel: bool = False, height: float = 150.0) -> Iterator[Canvas]:
    """A `Canvas` in the pictures' common style."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box, as in any browser without the font
        yield Canvas(panel=panel, height=height)


def mark(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, *, size: float, alpha: float = 1.0) -> None:
    """Round dots as one outline, so that hundreds cost little; arrow heads at the edge for what lies off the scale."""
    low, high = axes.get_ylim()
    for beyond, edge, marker in ((y < low, low, 7), (y > high, high, 6)):
        if beyond.any():
            beyond = np.flatnonzero(beyond)[:: max(1, beyond.sum() // 16)]
            style = {"color": colour, "alpha": 0.7 * alpha, "mew": 0}
            axes.plot(x[beyond], np.full(beyond.size, edge), ls="", marker=marker, ms=3.6, **style)
    inside = np.isfinite(x) & (y >= low) & (y <= high)
    points = np.repeat(np.column_stack([x[inside], y[inside]]), 2, axis=0)
    if len(points):
        path = Path(points, np.tile([Path.MOVETO, Path.LINETO], len(points) // 2))
        style = {"ec": colour, "lw": size, "alpha": alpha, "capstyle": "round"}
        axes.add_patch(PathPatch(path, fill=False, zorder=3, **style))


def segments(axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, **style: Any) -> None:
    """Vertical lines from `low` to `high` as one outline."""
    gap = np.full(len(x), np.nan)
    axes.plot(
        np.column_stack([x, x, gap]).ravel(),
        np.column_stack([low, high, gap]).ravel(),
        color=colour,
        **{"lw": 1.1, "solid_capstyle": "butt", **style},
    )


def limits(values: Sequence[np.ndarray], *, log: bool, pad: float = 0.07) -> tuple[float, float]:
    """Limits of an axis that shows all finite values."""
    numbers = np.concatenate([np.ravel(np.asarray(v, float)) for v in values]) if len(values) else np.array([])
    numbers = numbers[np.isfinite(numbers) & ((numbers > 0) | (not log))]
    if not numbers.size:
        return (0.1, 10.0) if log else (0.0, 1.0)
    low, high = float(numbers.min()), float(numbers.max())
    if log:
        low, high = np.log10(low), np.log10(high)
        room = min(max(pad * (high - low), 0.05 if high > low else 0.5), 0.7)
        return float(10 ** max(low - room, -307)), float(10 ** min(high + room, 307))
    room = pad * (high - low)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = max(abs(low), abs(high)) * 0.25 or 1.0
    return float(max(low - room, -1e307)), float(min(high + room, 1e307))


def thin(count: int, most: int, *keys: np.ndarray) -> np.ndarray:
    """Indices of about `most` of `count` points in order: of every stretch the first and those with extreme keys."""
    if count <= most:
        return np.arange(count)
    keys = tuple(np.where(np.isfinite(key), key, 0.0) for key in keys)
    edges = np.linspace(0, count, max(2, most // (1 + 2 * len(keys))) + 1).astype(int)
    kept = {0, count - 1}
    for start, stop in itertools.pairwise(edges):
        for key in keys:
            kept |= {start, start + int(np.argmin(key[start:stop])), start + int(np.argmax(key[start:stop]))}
    return np.array(sorted(kept))


def _flow(entries: Sequence[Entry]) -> list[list[tuple[float, Entry]]]:
    """Legend entries in lines, each with its abscissa in points."""
    rows: list[list[tuple[float, Entry]]] = []
    x = WIDTH
    for entry in entries:
        entry = entry._replace(text=shorten(entry.text, WIDTH - 30, 9.5))
        width = 22 + text_width(entry.text, 9.5)
        if x + width > WIDTH - 6:
            rows.append([])
            x = 0.0
        rows[-1].append((x, entry))
        x += width + 16
    return rows


def _fit_ticks(axes: Axes) -> None:
    """A handful of ticks an axis."""
    for axis, most in ((axes.xaxis, 7), (axes.yaxis, 3 if axes.get_position().height < 0.2 else 6)):
        if isinstance(axis.get_major_locator(), (ticker.FixedLocator, ticker.NullLocator)):
            continue
        if axis.get_scale() == "log":
            ticks, texts = _log_ticks(*axis.get_view_interval(), most)
            axis.set_major_locator(ticker.FixedLocator(ticks))
            axis.set_major_formatter(ticker.FixedFormatter(texts))
            axis.set_minor_locator(ticker.NullLocator())
        else:
            axis.set_major_locator(ticker.MaxNLocator(most - 1, steps=[1, 2, 2.5, 5, 10]))
            formatter = ticker.ScalarFormatter()
            formatter.set_powerlimits((-3, 5))
            axis.set_major_formatter(formatter)


def _log_ticks(low: float, high: float, most: int) -> tuple[list[float], list[str]]:
    """Powers of ten at equal distances, or also their multiples if there are too few; mathtext would be slow here."""
    first, last = np.log10(low), np.log10(high)
    if last - first > 1.8:
        stride = int(np.ceil((last - first) / most))
        exponents = range(int(np.ceil(first / stride)) * stride, int(np.floor(last)) + 1, stride)
        return [10.0**e for e in exponents], [_power(e) for e in exponents]
    multiples = (1, 2, 5) if last - first > 0.7 else np.arange(1, 10, 0.5) if last - first > 0.15 else ()
    ticks = [m * 10.0**e for e in range(int(np.floor(first)), int(np.ceil(last)) + 1) for m in multiples]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if not 2 <= len(ticks) <= 9:
        ticks = [float(tick) for tick in ticker.MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    return ticks, [number(tick) for tick in ticks]


def _power(exponent: int) -> str:
    return f"{10**exponent}" if 0 <= exponent <= 3 else f"10{superscript(exponent)}"


def _tick_width(axis: Any) -> float:
    texts = axis.get_major_formatter().format_ticks(axis.get_majorticklocs())
    return max((text_width(text, 9) for text in texts), default=0.0)
