"""Text in pictures: what can be set, how wide it is, how much of it fits."""

from __future__ import annotations

import bisect
import functools
import re
import warnings

from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from matplotlib.textpath import text_to_path

from experiments.typeset import signs

__all__ = ["FONTS", "label", "shorten", "text_width"]

FONTS = ["STIXGeneral", "DejaVu Sans"]  # both come with matplotlib


@functools.cache
def label(text: str) -> str:
    """Text that matplotlib can set: mathematics between dollar signs if it parses, else the signs themselves."""
    text = re.sub(r"[\x00-\x20\x7f-\x9f\ud800-\udfff]+", " ", text)
    if "$" not in text:
        return signs(text)
    try:
        MathTextParser("path").parse(text, 72, FontProperties(size=10))
    except (ValueError, RuntimeError):
        return text.replace("$", r"\$")
    return text


@functools.cache
def text_width(text: str, size: float = 10.0) -> float:
    """Width of a line of text in points."""
    text = label(text)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        font = FontProperties(family=FONTS, size=size)
        math = len(re.findall(r"(?<!\\)\$", text)) > 1
        return float(text_to_path.get_text_width_height_descent(text, font, math)[0]) if text.strip() else 0.0


def shorten(text: str, room: float, size: float) -> str:
    """The text, or as much of its beginning as fits into `room` points."""
    if text_width(text, size) <= room:
        return text
    plain = text.replace("$", "")
    most = bisect.bisect_right(range(len(plain)), room, key=lambda count: text_width(f"{plain[:count]}…", size))
    return f"{plain[: max(most - 1, 0)].rstrip()}…"
