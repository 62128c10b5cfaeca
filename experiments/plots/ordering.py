"""Orders: points joined in the predicted order, steps that go the wrong way in red."""

from __future__ import annotations

import numpy as np

from experiments.plots.canvas import Entry, canvas, limits, mark, thin
from experiments.plots.curves import points_each, y_limits
from experiments.plots.layers import BLUE, RED, ROLE_COLOURS, Drawable, Layer, Series, colours, is_log
from experiments.plots.legend import DASHES, DOT, curve_entries, variant_entries

__all__ = ["draw_ordering"]


def draw_ordering(record: Drawable, layers: list[Layer]) -> str:
    """Points over their abscissa if the prediction is monotone in it, else in the predicted order."""
    series = layers[0].series
    natural = all(each.x is not None and _monotone(each) for each in series)
    hues, alphas = colours(len(series))
    log_x = natural and is_log("x", record, [each.abscissa for each in series])
    log_y = is_log("y", record, [each.y for each in series])
    # Where the points have places of their own, another predicted order moves none of them.
    shown = [layers[0], *(layer for layer in layers[1:] if layer.shows_measured or not natural)]
    with canvas(height=160) as c:
        axes = c.axes
        axes.set_xscale("log" if log_x else "linear")
        axes.set_yscale("log" if log_y else "linear")
        places = [each.abscissa if natural else np.arange(1.0, each.y.size + 1) for each in series]
        axes.set_xlim(*limits(places, log=log_x, pad=0.05))
        variants = [each.y for layer in shown[1:] for each in layer.series]
        axes.set_ylim(*y_limits([each.y for each in series], variants, log=log_y))
        if not natural and max(map(len, places)) <= 12:
            axes.set_xticks(np.arange(1, max(map(len, places)) + 1))
        wrong = 0
        for layer in reversed(shown):
            for i, each in enumerate(layer.series[: len(series)]):
                each = each.at(np.argsort(each.abscissa if natural else each.target, kind="stable"))
                x = each.abscissa if natural else np.arange(1.0, each.y.size + 1)
                few = thin(x.size, points_each(series), each.y)
                if layer.role:
                    axes.plot(x[few], each.y[few], color=ROLE_COLOURS[layer.role], **DASHES, zorder=1.5)
                    continue
                axes.plot(x[few], each.y[few], color=hues[i], lw=1, alpha=0.6 * float(alphas[i]))
                mark(axes, x[few], each.y[few], hues[i], size=4.6 if x.size <= 40 else 2.8, alpha=float(alphas[i]))
                steps = np.flatnonzero(np.sign(np.diff(each.y)) * np.sign(np.diff(each.target)) < 0)
                wrong += len(steps)
                for step in steps[:40]:
                    axes.plot(x[step : step + 2], each.y[step : step + 2], color=RED, lw=2, zorder=2.5)
        c.x, c.y = record.axes.get("x", "") if natural else "in the predicted order", record.axes.get("y", "")
        c.note = _direction(series) if natural else "predicted to increase"
        c.legend = curve_entries(record, layers) if len(series) > 1 else [Entry("measured", {**DOT, "color": BLUE})]
        c.legend += [Entry("against the predicted order", {"lw": 2, "color": RED})] if wrong else []
        c.legend += variant_entries([layer._replace(shows_theory=True) for layer in shown])
        return c.svg(record.claim)


def _monotone(each: Series) -> bool:
    steps = np.diff(each.target[np.argsort(each.abscissa, kind="stable")])
    return bool((steps >= 0).all() or (steps <= 0).all())


def _direction(series: list[Series]) -> str:
    rises = [each.target[np.argmax(each.abscissa)] - each.target[np.argmin(each.abscissa)] for each in series]
    if all(rise > 0 for rise in rises):
        return "predicted to increase"
    return "predicted to decrease" if all(rise < 0 for rise in rises) else ""
