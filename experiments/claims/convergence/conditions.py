"""Claims about convexity: chords above, tangents below, parabolas below."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import convergence
from dltheory.typing import ObjectiveFn
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.convergence._problems import (
    CONVEX,
    NONCONVEX,
    Segments,
    on_segments,
    problems,
    quadratic_hessian,
    random_segments,
    tangent_curvature,
    with_segment,
)
from experiments.curves import Curve
from experiments.judges import AtLeast, AtMost, Equal

__all__ = ["CLAIMS"]

_BUDGET = Budget(quick=300, full=30_000)
_CHORDS = Axes("weight λ", "smallest gap · 2 / (λ (1−λ) ‖x−y‖²)")
_TANGENTS = Axes("distance ‖x−y‖", "smallest D(x, y) · 2 / ‖x−y‖²", log="x")
_ROUNDING = AtLeast(atol=1e-9)


def _convex_functions() -> dict[str, ObjectiveFn]:
    return {name: problems()[name].value for name in CONVEX}


def _short_segments(key, budget):
    """Segments of one variable around places in [-3, 3], short enough to fit into a region of negative curvature."""
    lengths = np.geomspace(0.05, 1.0, 12)
    centre = generator(key).uniform(-3, 3, (budget, 1))
    half = lengths[:, None, None] / 2
    return Segments(lengths, centre + half, centre - half)


def _chord_curvature(objective_fn, x, y, weight):
    """Curvature of the parabola that has the same gap to its chord."""
    gap = convergence.convexity_gap(objective_fn, x, y, weight)
    return 2 * gap / (weight * (1 - weight) * jnp.sum((x - y) ** 2))


_WEIGHTS = np.linspace(0.05, 0.95, 10)


def _lowest_chords(objectives: dict[str, ObjectiveFn], segments: Segments):
    def lowest(fn, weight):
        return on_segments(_chord_curvature, fn, segments.x, segments.y, weight).min()

    return {name: Curve([lowest(fn, weight) for weight in _WEIGHTS], _WEIGHTS) for name, fn in objectives.items()}


def _lowest_tangents(objectives: dict[str, ObjectiveFn], segments: Segments):
    return {
        name: Curve(on_segments(tangent_curvature, fn, segments.x, segments.y).min(1), segments.lengths)
        for name, fn in objectives.items()
    }


def _half_the_lowest_curvature(_):
    return {"sin x": -0.5, "x⁴ − x²": -1.0}


_STRONGLY_CONVEX = ("ridge logistic", "quadratic")
_RESIDUAL = "logistic − μ‖x‖²/2"


def _with_flattest_segment(key, budget):
    """Random segments, and those along the direction in which the quadratic is flattest."""
    segments = random_segments(key, budget)
    flattest = np.linalg.eigh(quadratic_hessian())[1][:, 0]
    return with_segment(segments, np.zeros_like(flattest), flattest)


def _lowest_parabolas(segments):
    """Tangent parabolas of strongly convex functions, and chords of one of them less a parabola."""
    curves = _lowest_tangents({name: problems()[name].value for name in _STRONGLY_CONVEX}, segments)
    chords = on_segments(_chord_curvature, _logistic_less_a_parabola(), segments.x, segments.y, 0.5).min(1)
    return curves | {_RESIDUAL: Curve(chords, segments.lengths)}


@functools.cache  # the same object each time, so that it is compiled once
def _logistic_less_a_parabola():
    logistic = problems()["ridge logistic"]
    return lambda x: logistic.value(x) - 0.5 * logistic.strong_convexity * jnp.sum(x**2)


def _strong_convexity(factor=1.0):
    return {name: factor * problems()[name].strong_convexity for name in _STRONGLY_CONVEX} | {_RESIDUAL: 0.0}


def _random_hessians(key, budget):
    """Hessians [n, d, d] with known spectra [n, d], some indefinite."""
    rng = generator(key)
    spectra = np.linspace(-1.0, 3.0, budget)[:, None] + np.cumsum(rng.uniform(0.4, 1.2, (budget, 6)), axis=1)
    bases = np.linalg.qr(rng.normal(size=(budget, 6, 6)))[0]
    return key, (bases * spectra[:, None, :]) @ bases.transpose(0, 2, 1), spectra


@jax.jit
def _power_iteration(key, hessians):
    def estimate(key, hessian):
        origin = jnp.zeros((1, len(hessian)))
        return convergence.strong_convexity_constant(key, lambda x: x @ hessian @ x / 2, origin, tolerance=1e-7)

    return jax.vmap(estimate)(jax.random.split(key, len(hessians)), hessians)


def _estimated_constants(problem):
    key, hessians, spectra = problem
    estimate = _power_iteration(key, jnp.asarray(hessians))
    return Curve(jnp.where(estimate.converged, estimate.value, jnp.inf), spectra[:, 0])


CLAIMS = (
    Claim(
        "convergence.convexity",
        says="Four convex objectives stay below all their chords: random end points, every weight.",
        setup=random_segments,
        measure=lambda segments: _lowest_chords(_convex_functions(), segments),
        predict=lambda _: 0.0,
        judge=_ROUNDING,
        control=Variant(
            "functions that are not convex",
            setup=_short_segments,
            measure=lambda segments: _lowest_chords(NONCONVEX, segments),
        ),
        budget=_BUDGET,
        axes=_CHORDS,
    ),
    Claim(
        "convergence.convexity",
        part="witness",
        says="Functions that are not convex rise above some chord, with at least half their most negative curvature.",
        setup=_short_segments,
        measure=lambda segments: _lowest_chords(NONCONVEX, segments),
        predict=_half_the_lowest_curvature,
        judge=AtMost(),
        control=Variant(
            "convex functions",
            setup=random_segments,
            measure=lambda segments: _lowest_chords(_convex_functions(), segments),
            predict=lambda _: -0.5,
        ),
        budget=_BUDGET,
        axes=_CHORDS,
    ),
    Claim(
        "convergence.first_order_convexity",
        says="Four convex objectives stay above all their tangent planes.",
        setup=random_segments,
        measure=lambda segments: _lowest_tangents(_convex_functions(), segments),
        predict=lambda _: 0.0,
        judge=_ROUNDING,
        control=Variant(
            "functions that are not convex",
            setup=_short_segments,
            measure=lambda segments: _lowest_tangents(NONCONVEX, segments),
        ),
        budget=_BUDGET,
        axes=_TANGENTS,
    ),
    Claim(
        "convergence.first_order_convexity",
        part="witness",
        says="Functions that are not convex fall below some tangent, with at least half their most negative curvature.",
        setup=_short_segments,
        measure=lambda segments: _lowest_tangents(NONCONVEX, segments),
        predict=_half_the_lowest_curvature,
        judge=AtMost(),
        control=Variant(
            "convex functions",
            setup=random_segments,
            measure=lambda segments: _lowest_tangents(_convex_functions(), segments),
            predict=lambda _: -0.5,
        ),
        budget=_BUDGET,
        axes=_TANGENTS,
    ),
    Claim(
        "convergence.strong_convexity",
        says="Strongly convex objectives stay above all their tangent parabolas of curvature μ, and are still convex "
        "after one of them is taken off.",
        setup=_with_flattest_segment,
        measure=_lowest_parabolas,
        predict=lambda _: _strong_convexity(),
        judge=_ROUNDING,
        control=Variant("μ five per cent too large", predict=lambda _: _strong_convexity(1.05)),
        budget=_BUDGET,
        axes=_TANGENTS,
    ),
    Claim(
        "convergence.strong_convexity",
        part="estimator",
        says="Power iteration on Hessian-vector products finds the smallest eigenvalue of quadratics, convex or not.",
        setup=_random_hessians,
        measure=_estimated_constants,
        predict=lambda problem: problem[2][:, 0],
        judge=Equal(rtol=1e-8, atol=1e-8),
        control=Variant("the second smallest eigenvalue", predict=lambda problem: problem[2][:, 1]),
        budget=Budget(quick=24, full=500),
        axes=Axes("smallest eigenvalue", "estimate"),
    ),
)
