"""Pictures as SVG documents: small, self-contained, with a light and a dark value for every colour.

Letters are outlines, so that a picture looks the same everywhere.
"""

from __future__ import annotations

import io
import re
from typing import Any
from xml.sax.saxutils import escape

from matplotlib.figure import Figure

from experiments.plots.text import label

__all__ = ["COLOURS", "serialise"]

# name: (on a light page, on a dark one); hues of Okabe and Ito, which colour-blind readers tell apart, at AA contrast.
COLOURS = {
    "ink": ("#1f2328", "#e6e4de"),
    "soft": ("#676c73", "#9b9da1"),
    "line": ("#c9c9c4", "#47494d"),
    "blue": ("#0067a5", "#5cb8f0"),
    "vermillion": ("#c04a00", "#f2915a"),
    "green": ("#00775a", "#43cfa4"),
    "purple": ("#9b4a85", "#e09bca"),
    "ochre": ("#8a6500", "#dfbd4e"),
    "indigo": ("#5a55b0", "#aaa6f2"),
}


def serialise(figure: Figure, title: str, width: float, height: float) -> str:
    """The figure as an SVG of a size in points, its colours replaced by variables that follow the page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", facecolor="none", metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for pattern, replacement in _CLEANING:
        svg = pattern.sub(replacement, svg)
    for name, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{name})")
    light, dark = (";".join(f"--{name}:{pair[i]}" for name, pair in COLOURS.items()) for i in (0, 1))
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'width="{width:g}pt" height="{height:g}pt" viewBox="0 0 {width:g} {height:g}">'
        f"<title>{escape(label(title))}</title>"
        f"<style>:root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    )
    return re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)


def _round(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


def _share_style(match: re.Match[str]) -> str:
    styles = set(re.findall(r'style="[^"]*"', match[0]))
    style = styles.pop() if len(styles) == 1 else None
    return f"<g {style}>\n{match[0].replace(f' {style}', '')}</g>\n" if style else match[0]


_CLEANING: tuple[tuple[re.Pattern[str], Any], ...] = (
    (re.compile(r"<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL), ""),
    (re.compile(r'(?<=<g) id="[^"]*"'), ""),  # nobody refers to groups
    (re.compile(r"-?\d+\.\d{3,}(?!\d*\))"), _round),
    (re.compile(r"STIXGeneral-Regular-"), "s"),
    (re.compile(r"STIXGeneral-Italic-"), "i"),
    (re.compile(r'(<use xlink:href="[^"]*") transform="translate\((\S+) (\S+)\)"'), r'\1 x="\2" y="\3"'),
    (re.compile(r'(?<=[xy]=")-?\d+\.\d{3,}'), _round),
    (re.compile(r"xlink:href"), "href"),
    (re.compile(r"\s*([MLQCz])\s+(?=[-\dMLQCz\"])"), r"\1"),
    (re.compile(r"M(\S+) (\S+)L\1 \2(?=[M\"])"), r"M\1 \2h0"),
    (re.compile(r"\s*\n\s*"), "\n"),
    (re.compile(r'(?:<use href="#m[^>]*/>\n?){3,}'), _share_style),
    (re.compile(r" \"(?=/?>| )"), '"'),
)
