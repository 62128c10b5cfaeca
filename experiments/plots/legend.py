"""What the parts of a picture are called."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.plots.canvas import Entry
from experiments.plots.layers import BLUE, RED, ROLE_COLOURS, Drawable, Layer, colours, kind_of

__all__ = ["DASHES", "DOT", "LINE", "curve_entries", "measured_entry", "theory_entry", "variant_entries"]

DOT: dict[str, Any] = {"ls": "", "marker": "o", "ms": 4.4, "mew": 0}
LINE: dict[str, Any] = {"lw": 1.5}
DASHES: dict[str, Any] = {"lw": 1.1, "ls": (0, (3, 2))}
_BOUNDS = {"AtLeast": "lower bound"} | dict.fromkeys(("AtMost", "MeanAtMost", "ProbabilityAtMost"), "upper bound")


def curve_entries(record: Drawable, layers: list[Layer]) -> list[Entry]:
    """Names of the curves, if there are several; of many, the first and the last."""
    series = layers[0].series
    hues, alphas = colours(len(series))
    if len(series) == 1:
        return [Entry(series[0].name, {**DOT, "color": BLUE})] if series[0].name else []
    if alphas[0] == 1:
        return [
            Entry(each.name, {**LINE, **DOT, "ls": "-", "color": hue}) for each, hue in zip(series, hues, strict=True)
        ]
    total = len(record.curves["measured"])
    count = f"{len(series)} of {total} curves" if total > len(series) else f"{total} curves"
    return [
        Entry(series[0].name, {**DOT, "color": hues[0], "alpha": alphas[0]}),
        Entry(f"… {series[-1].name} ({count})", {**DOT, "color": hues[-1]}),
    ]


def measured_entry(record: Drawable, layers: list[Layer], *, colour: str = BLUE, joined: bool = False) -> Entry:
    """What the dots and their bars are; `joined` if they are drawn as a line."""
    text = "measured"
    if any(np.isfinite(each.low).any() for each in layers[0].series):
        by_judge = kind_of(record) in ("Mean", "MeanAtMost", "ProbabilityAtMost")
        text += ", with the judge’s interval" if by_judge else " ± standard error"
    return Entry(text, {**({"lw": 3, "alpha": 0.5} if joined else DOT), "color": colour})


def theory_entry(record: Drawable, *, colour: str = RED) -> Entry:
    """What the solid lines are."""
    text = _BOUNDS.get(kind_of(record), "predicted") + (" as printed" if record.corrected else "")
    return Entry(text, {**LINE, "color": colour})


def variant_entries(layers: list[Layer]) -> list[Entry]:
    """What the grey and the green things are."""
    return [
        Entry(layer.title, {**(DASHES if layer.shows_theory else DOT), "color": ROLE_COLOURS[layer.role]})
        for layer in layers[1:]
    ]
