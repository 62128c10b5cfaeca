"""Claims of the chapter Background."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import background
from experiments.claim import Axes, Budget, Claim, Variant
from experiments.curves import Curve, frequency
from experiments.judges import AtMost, ProbabilityAtMost

__all__ = ["CLAIMS"]

_DEVIATIONS = np.linspace(0.02, 0.5, 25)
_BERNOULLI = {f"n={n}, p={p}": (n, p) for n in (5, 20, 80, 200) for p in (0.1, 0.5, 0.9)}


def _binomial_tails(_):
    """Exact tails of the mean of n Bernoulli(p) variables at p + t."""
    return {
        name: Curve(stats.binom.sf(np.ceil(n * (p + _DEVIATIONS) - 1e-9) - 1, n, p), _DEVIATIONS)
        for name, (n, p) in _BERNOULLI.items()
    }


def _binomial_bounds(_):
    return {name: _bounds(np.ones(n), _DEVIATIONS) for name, (n, _) in _BERNOULLI.items()}


def _bounds(widths, deviations):
    return jax.vmap(background.hoeffding_bound, in_axes=(None, 0))(jnp.asarray(widths), jnp.asarray(deviations))


_WIDTHS = np.geomspace(0.1, 2.0, 12)
_THRESHOLDS = np.linspace(0.05, 0.3, 11)


def _tail(means):
    return frequency(means[:, None] >= _THRESHOLDS, x=_THRESHOLDS)


def _independent_tail(draw):
    uniform = jax.random.uniform(draw.key, (draw.budget, _WIDTHS.size)) - 0.5
    return _tail(np.mean(uniform * _WIDTHS, axis=1))


def _dependent_tail(draw):
    return _tail(np.mean(_WIDTHS) / 2 * np.asarray(jax.random.rademacher(draw.key, (draw.budget,))))


CLAIMS = (
    Claim(
        "background.hoeffding",
        says="Exact binomial tails stay below the bound on a grid of n, p and t.",
        measure=_binomial_tails,
        predict=_binomial_bounds,
        judge=AtMost(),
        control=Variant(
            "exponent doubled", predict=lambda _: {name: bound**2 for name, bound in _binomial_bounds(_).items()}
        ),
        axes=Axes("deviation t", "tail probability", log="y"),
    ),
    Claim(
        "background.hoeffding",
        part="different ranges",
        says="Tail frequencies of a mean of independent uniform variables on twelve different intervals stay below it.",
        measure=_independent_tail,
        predict=lambda _: _bounds(_WIDTHS, _THRESHOLDS),
        judge=ProbabilityAtMost(),
        control=Variant("the variables share one sign (independence violated)", measure=_dependent_tail),
        budget=Budget(quick=200_000, full=10_000_000),
        axes=Axes("deviation t", "tail probability", log="y"),
    ),
)
