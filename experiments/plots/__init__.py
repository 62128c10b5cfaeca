"""A picture for every claim: what was measured, with its uncertainty, against what was predicted, and the control.

Dots are measured, solid lines are theory, the shaded side is forbidden, grey is the control, green the corrected
reading of a misprint. How they are arranged depends on the judge and on whether the numbers have an abscissa.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import types
from collections.abc import Iterable
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from experiments.plots.curves import draw_curves
from experiments.plots.layers import Drawable, layers_of
from experiments.plots.ordering import draw_ordering
from experiments.plots.rows import MOST_ROWS, draw_rows
from experiments.plots.slopes import draw_slopes

__all__ = ["Drawable", "picture", "pictures"]

_WORTH_A_PROCESS = 50  # pictures; starting a process costs about as much as twenty


def picture(record: Drawable) -> str | None:
    """The claim's picture as an SVG document, or None if nothing was measured."""
    layers = layers_of(record)
    series = layers[0].series
    if not any(np.isfinite(each.y).any() for each in series):
        return None
    bare = all(each.x is None for each in series)
    match record.criterion.get("judge"):
        case "Slope" if not bare:
            return draw_slopes(record, layers)
        case "Ordering":
            return draw_ordering(record, layers)
    single = all(each.y.size == 1 for each in series)
    if (bare or single) and sum(each.y.size for each in series) <= MOST_ROWS:
        return draw_rows(record, layers)
    return draw_curves(record, layers)


def pictures(records: Iterable[Drawable], *, jobs: int | None = None) -> dict[str, str | Exception | None]:
    """Pictures of many claims by name; one that cannot be drawn is the exception that says why.

    Args:
        records: the records.
        jobs: number of processes; by default as many as there are processors and it is worth starting.
    """
    # Bare data travels to another process without the modules, and with them JAX, that records come from.
    bare = [types.SimpleNamespace(**{field: getattr(r, field) for field in Drawable.__annotations__}) for r in records]
    if jobs is None:
        jobs = min(os.cpu_count() or 1, len(bare) // _WORTH_A_PROCESS)
    if jobs <= 1:
        return dict(map(_attempt, bare))
    # Forking a process in which JAX has started threads can deadlock.
    context = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
            return dict(pool.map(_attempt, bare, chunksize=max(1, len(bare) // (4 * jobs))))
    except BrokenProcessPool:  # a worker was killed; what it could not do is done here
        return dict(map(_attempt, bare))


def _attempt(record: Any) -> tuple[str, str | Exception | None]:
    try:
        return record.claim, picture(record)
    except Exception as error:  # one odd record must not cost the others their pictures
        return record.claim, RuntimeError(f"{type(error).__name__}: {error}")
