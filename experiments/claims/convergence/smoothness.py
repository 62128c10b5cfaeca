"""Claims about smoothness: gradients that are Lipschitz, parabolas above, and what one gradient step gains."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from dltheory import convergence, optimization
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.convergence._problems import (
    CONVEX,
    SINE,
    logistic_data,
    logistic_minimizer,
    logistic_value,
    on_segments,
    problems,
    random_segments,
    steepest,
    tangent_curvature,
    with_segment,
)
from experiments.curves import Curve
from experiments.judges import AtLeast, AtMost, Equal, Slope

__all__ = ["CLAIMS"]

_BUDGET = Budget(quick=300, full=30_000)
_SMOOTH = (*CONVEX, SINE)


def _smoothness(factor=1.0):
    return {name: factor * problems()[name].smoothness for name in _SMOOTH}


def _gradient_ratio(objective_fn, x, y):
    gradient_fn = jax.grad(objective_fn)
    return jnp.linalg.norm(gradient_fn(x) - gradient_fn(y)) / jnp.linalg.norm(x - y)


def _largest(quantity, segments):
    """The largest value over segments of each length: random ones, and the one where the objective is steepest."""
    curves = {}
    for name in _SMOOTH:
        at = with_segment(segments, *steepest(name))
        curves[name] = Curve(on_segments(quantity, problems()[name].value, at.x, at.y).max(1), at.lengths)
    return curves


_ESTIMATED = ("log-sum-exp", "ridge logistic", SINE)
_TOLERANCE = 1e-4


@jax.jit
def _power_iteration(key, points):
    estimate = functools.partial(convergence.smoothness_constant, max_steps=10_000, tolerance=_TOLERANCE)
    return {name: estimate(key, problems()[name].value, at) for name, at in points.items()}


def _estimated_constants(draw):
    """Estimates from random points and the one of largest curvature; infinite if not converged."""
    random = jax.random.normal(draw.key, (draw.budget, 6))
    points = {name: jnp.concatenate([random, jnp.asarray(steepest(name)[0])[None]]) for name in _ESTIMATED}
    estimates = _power_iteration(draw.key, points)
    return {name: jnp.where(estimate.converged, estimate.value, jnp.inf) for name, estimate in estimates.items()}


def _frobenius_norms(_):
    """The Frobenius norms of the Hessians where they are largest, by hand."""
    features, _labels = logistic_data()
    ridge = problems()["ridge logistic"].strong_convexity * np.eye(6)
    logistic = features.T @ features / (4 * len(features)) + ridge
    return {"log-sum-exp": 0.5, "ridge logistic": np.linalg.norm(logistic), SINE: np.linalg.norm(8 * np.eye(6))}


_GAPS = 2.0 ** -np.arange(1, 13)


def _ratio_at_zero(power):
    """Gradient difference over distance between 0 and h > 0, of |x|^power."""
    gradients = jax.vmap(jax.grad(lambda x: jnp.abs(x) ** power))(jnp.asarray(_GAPS))
    return Curve(gradients / _GAPS, _GAPS)


# The parabola above, along the line through the point of largest curvature, where it touches.

_PLACES = np.linspace(-3.0, 3.0, 49)


@functools.partial(jax.jit, static_argnums=0)
def _line(name, factor):
    """The objective along the line, less its value in the middle, and the parabola of curvature `factor` L there."""
    problem = problems()[name]
    centre, direction = map(jnp.asarray, steepest(name))
    line = centre[None] + jnp.asarray(_PLACES)[:, None] * direction[None]
    bound = functools.partial(convergence.quadratic_upper_bound, problem.value)
    parabola = jax.vmap(bound, in_axes=(0, None, None))(line, centre, factor * problem.smoothness)
    middle = problem.value(centre)
    return jax.vmap(problem.value)(line) - middle, parabola - middle


def _along_lines(_):
    return {name: Curve(_line(name, 1.0)[0], _PLACES) for name in _SMOOTH}


def _parabolas(factor=1.0):
    return {name: Curve(_line(name, factor)[1], _PLACES) for name in _SMOOTH}


# The integral identity: Gauss-Legendre and automatic derivatives against derivatives by hand.

_BY_HAND = {  # objective of a vector [d], the same in NumPy on [..., d], its gradient
    "log-sum-exp": (jax.nn.logsumexp, lambda x: special.logsumexp(x, -1), lambda x: special.softmax(x, -1)),
    "Σ log cosh x": (lambda x: jnp.sum(jnp.log(jnp.cosh(x))), lambda x: np.sum(np.log(np.cosh(x)), -1), np.tanh),
    "Σ cos x": (lambda x: jnp.sum(jnp.cos(x)), lambda x: np.sum(np.cos(x), -1), lambda x: -np.sin(x)),
}


def _pairs(key, budget, d=3):
    """Pairs of points [n, d] at distances below 3."""
    rng = generator(key)
    y, step = rng.normal(size=(2, budget, d))
    distance = np.linspace(0.25, 3.0, budget)[:, None]
    return y + distance * step / np.linalg.norm(step, axis=1, keepdims=True), y


def _distances(pairs):
    return np.linalg.norm(pairs[0] - pairs[1], axis=1)


@jax.jit
def _integrate(x, y):
    integral = convergence.bregman_integral
    return {name: jax.vmap(functools.partial(integral, value))(x, y) for name, (value, *_) in _BY_HAND.items()}


def _integrals(pairs):
    return {name: Curve(y, _distances(pairs)) for name, y in _integrate(*map(jnp.asarray, pairs)).items()}


def _divergences(pairs, with_tangent=True):
    x, y = pairs
    return {
        name: Curve(f(x) - f(y) - with_tangent * np.sum(gradient(y) * (x - y), -1), _distances(pairs))
        for name, (_, f, gradient) in _BY_HAND.items()
    }


_NODES, _QUADRATURE = (part / 2 for part in np.polynomial.legendre.leggauss(30))


def _printed_integrals(pairs, with_factor=True):
    """In one dimension the printed integrand is a number: f'(y + s (x - y)) - f'(y) (x - y)."""
    x, y = pairs
    curves = {}
    for name, (_, _, gradient) in _BY_HAND.items():
        between = np.stack([gradient(y + (node + 0.5) * (x - y)) for node in _NODES])
        subtrahend = gradient(y) * (x - y if with_factor else 1.0)
        curves[name] = Curve(np.tensordot(_QUADRATURE, between, 1)[:, 0] - subtrahend[:, 0], _distances(pairs))
    return curves


# What a gradient step gains.


class _Run(NamedTuple):
    """A run of gradient descent: objective values [t + 1], squared gradient norms [t + 1], constants."""

    value: np.ndarray
    squared_gradient: np.ndarray
    smoothness: np.ndarray
    minimum: float


@functools.partial(jax.jit, static_argnums=(0, 3))
def _descend(objective_fn, learning_rate, start, num_steps):
    run = optimization.run_optimizer(optimization.gradient_descent(learning_rate), objective_fn, start, num_steps)
    return run.value, jnp.sum(jax.vmap(jax.grad(objective_fn))(run.params) ** 2, axis=-1)


_STARTS = {"ridge logistic": 3.0 * np.ones(6), "log-sum-exp": np.arange(6.0), SINE: 1.3 * np.arange(1.0, 7.0)}
_STEPS = 11


def _runs(step_factor=1.0):
    """Gradient descent with step size `step_factor` / L."""
    runs = {}
    for name, start in _STARTS.items():
        problem = problems()[name]
        learning_rate = step_factor / problem.smoothness
        value, squared_gradient = _descend(problem.value, learning_rate, jnp.asarray(start), _STEPS)
        minimum = {"ridge logistic": logistic_value(logistic_minimizer()), "log-sum-exp": -np.inf, SINE: 0.0}[name]
        runs[name] = _Run(np.asarray(value), np.asarray(squared_gradient), np.asarray(problem.smoothness), minimum)
    return runs


def _decreases(runs):
    return {name: Curve(-np.diff(run.value), np.arange(1, _STEPS + 1)) for name, run in runs.items()}


def _guaranteed(runs):
    return {name: run.squared_gradient[:-1] / (2 * run.smoothness) for name, run in runs.items()}


def _smallest_squared_gradients(runs):
    steps = np.arange(1, _STEPS + 1)
    return {
        name: Curve(np.minimum.accumulate(run.squared_gradient[:-1]), steps)
        for name, run in runs.items()
        if np.isfinite(run.minimum)
    }


def _summed_decreases(runs, factor=2.0):
    steps = np.arange(1, _STEPS + 1)
    return {
        name: factor * run.smoothness * (run.value[0] - run.minimum) / steps
        for name, run in runs.items()
        if np.isfinite(run.minimum)
    }


_CURVATURES = np.geomspace(0.01, 100.0, 30)


@jax.jit
def _sphere_certificates(points):
    """Certificates of (L/2) ||x||^2 at one point for each of several L."""

    def certificate(smoothness, x):
        return convergence.descent_certificate(lambda z: smoothness / 2 * (z @ z), x, smoothness)

    return jax.vmap(certificate)(jnp.asarray(_CURVATURES), points)


def _sphere_points(key, budget):
    del budget
    return jnp.asarray(generator(key).normal(size=(len(_CURVATURES), 6)))


# The spectrum of the Hessian.

_RADII = np.concatenate([[0.0], np.geomspace(0.1, 30.0, 14)])


def _relative_eigenvalues(draw):
    """The most extreme eigenvalues at distance r from zero, relative to what bounds them."""
    direction = generator(draw.key).normal(size=(draw.budget, 6))
    points = _RADII[:, None, None] * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    logistic, sine = problems()["ridge logistic"], problems()[SINE]
    strong, weak = _spectra(logistic.value, points), _spectra(sine.value, points)
    return {
        "logistic: λmax / L": Curve((strong.largest / logistic.smoothness).max(1), _RADII),
        "logistic: μ / λmin": Curve((logistic.strong_convexity / strong.smallest).max(1), _RADII),
        "nonconvex: λmax / L": Curve((weak.largest / sine.smoothness).max(1), _RADII),
        "nonconvex: −λmin / L": Curve((-weak.smallest / sine.smoothness).max(1), _RADII),
    }


@functools.partial(jax.jit, static_argnums=0)
def _spectra(objective_fn, points):
    return jax.vmap(jax.vmap(functools.partial(convergence.hessian_spectrum_bounds, objective_fn)))(points)


def _without_ridge(_):
    features, _labels = logistic_data()
    ridge = problems()["ridge logistic"].strong_convexity
    largest = np.linalg.norm(features, 2) ** 2 / (4 * len(features))
    return {
        "logistic: λmax / L": largest / (largest + ridge),
        "logistic: μ / λmin": 1.0,
        "nonconvex: λmax / L": 1.0,
        "nonconvex: −λmin / L": 1.0,
    }


# Steps to a stationary point.

_TOLERANCES = np.geomspace(0.005, 0.3, 12)
_HUBER, _FAR = 5.0, 20.0


@jax.jit
def _stationarity(tolerances):
    """Steps to tolerance on Huber's function with slope just above it, and on a nonconvex function."""

    def huber_steps(tolerance):
        objective_fn = optimization.huber(1, 1.001 * tolerance).value
        _, squared_gradient = _descend(objective_fn, 1.0, jnp.full(1, _HUBER), 1000)
        return convergence.steps_to_stationarity(jnp.sqrt(squared_gradient), tolerance)

    problem = optimization.sine_quadratic()
    _, squared_gradient = _descend(problem.value, 1 / problem.smoothness, jnp.full(1, _FAR), 200)
    return {
        "Huber, slope just above ε": jax.vmap(huber_steps)(tolerances),
        SINE: jax.vmap(lambda tolerance: convergence.steps_to_stationarity(jnp.sqrt(squared_gradient), tolerance))(
            tolerances
        ),
    }


def _steps(_):
    found = _stationarity(jnp.asarray(_TOLERANCES))
    return {name: Curve(jnp.where(s.reached, s.num_steps, jnp.inf), _TOLERANCES) for name, s in found.items()}


def _step_bounds(power=2):
    """The bound; `power` 1 forgets to square the tolerance."""
    slope = 1.001 * _TOLERANCES
    gaps = {"Huber, slope just above ε": slope * (_HUBER - slope / 2), SINE: _FAR**2 + 3 * np.sin(_FAR) ** 2}
    constants = {"Huber, slope just above ε": 1.0, SINE: 8.0}
    bound = jax.vmap(convergence.stationarity_steps_bound, in_axes=(None, 0, 0))
    tolerances = jnp.asarray(_TOLERANCES ** (power / 2))
    return {
        name: Curve(bound(constants[name], jnp.broadcast_to(gap, tolerances.shape), tolerances), _TOLERANCES)
        for name, gap in gaps.items()
    }


_DISTANCE = "distance ‖x−y‖"

CLAIMS = (
    Claim(
        "convergence.lipschitz_smoothness",
        says="Gradients of five objectives differ by at most L times the distance, with L from theory.",
        setup=random_segments,
        measure=lambda segments: _largest(_gradient_ratio, segments),
        predict=lambda _: _smoothness(),
        judge=AtMost(),
        control=Variant("L ten per cent too small", predict=lambda _: _smoothness(0.9)),
        budget=_BUDGET,
        axes=Axes(_DISTANCE, "largest ‖∇f(x)−∇f(y)‖ / ‖x−y‖", log="x"),
    ),
    Claim(
        "convergence.lipschitz_smoothness",
        part="estimator",
        says="Power iteration finds L, given points of which one has the largest curvature.",
        measure=_estimated_constants,
        predict=lambda _: {name: _smoothness()[name] for name in _ESTIMATED},
        judge=Equal(rtol=_TOLERANCE / 2),
        control=Variant("the Frobenius norm of the Hessian", predict=_frobenius_norms),
        budget=Budget(quick=16, full=1000),
    ),
    Claim(
        "convergence.lipschitz_smoothness",
        part="no constant",
        says="The gradient of |x|^1.5 is steeper than any line through 0: its ratio grows as h^(-1/2).",
        measure=lambda _: _ratio_at_zero(1.5),
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.01),
        control=Variant("x², which is smooth", measure=lambda _: _ratio_at_zero(2.0)),
        axes=Axes("h", "|f′(h) − f′(0)| / h", log="xy"),
    ),
    Claim(
        "convergence.quadratic_upper_bound",
        says="Along the line through its point of largest curvature, each objective stays below the parabola of "
        "curvature L that touches it there.",
        measure=_along_lines,
        predict=lambda _: _parabolas(),
        judge=AtMost(atol=1e-12),
        control=Variant("L ten per cent too small", predict=lambda _: _parabolas(0.9)),
        axes=Axes("position on the line", "f − f(middle)"),
    ),
    Claim(
        "convergence.quadratic_upper_bound",
        part="everywhere",
        says="Between random points, no objective curves upwards from its tangent more than L allows.",
        setup=random_segments,
        measure=lambda segments: _largest(tangent_curvature, segments),
        predict=lambda _: _smoothness(),
        judge=AtMost(),
        control=Variant("L ten per cent too small", predict=lambda _: _smoothness(0.9)),
        budget=_BUDGET,
        axes=Axes(_DISTANCE, "largest D(x, y) · 2 / ‖x−y‖²", log="x"),
    ),
    Claim(
        "convergence.smoothness_integral",
        says="The integral of gradient differences by quadrature is the Bregman divergence with derivatives by hand.",
        setup=_pairs,
        measure=_integrals,
        predict=_divergences,
        judge=Equal(rtol=1e-10, atol=1e-12),
        control=Variant("the bracket lost: ∇f(y) is not subtracted", predict=lambda p: _divergences(p, False)),
        budget=Budget(quick=24, full=1000),
        axes=Axes(_DISTANCE, "D(x, y)"),
    ),
    Claim(
        "convergence.smoothness_integral@printed",
        says="Without brackets the integrand subtracts a number from a vector; in one dimension it can be computed.",
        setup=lambda key, budget: _pairs(key, budget, d=1),
        measure=_divergences,
        predict=_printed_integrals,
        judge=Equal(rtol=1e-10, atol=1e-12),
        control=Variant("no factor x − y at all", predict=lambda p: _printed_integrals(p, with_factor=False)),
        corrected=Variant("with brackets and transpose", predict=_integrals),
        budget=Budget(quick=24, full=1000),
        axes=Axes(_DISTANCE, "D(x, y)"),
    ),
    Claim(
        "convergence.descent_lemma",
        says="Every step of gradient descent with step size 1/L gains at least ‖∇f‖²/(2L), convex or not.",
        setup=lambda *_: _runs(),
        measure=_decreases,
        predict=_guaranteed,
        judge=AtLeast(atol=1e-13),
        control=Variant("step size 2.5/L", setup=lambda *_: _runs(2.5)),
        axes=Axes("step", "decrease", log="y"),
    ),
    Claim(
        "convergence.descent_lemma",
        part="equality",
        says="On (L/2)‖x‖² the step gains exactly ‖∇f‖²/(2L), all there is to gain.",
        setup=_sphere_points,
        measure=lambda points: {
            side: Curve(values, _CURVATURES) for side, values in _sphere_certificates(points)._asdict().items()
        },
        predict=lambda points: _CURVATURES * np.sum(points**2, 1) / 2,
        judge=Equal(),
        control=Variant("‖∇f‖²/L", predict=lambda points: _CURVATURES * np.sum(points**2, 1)),
        axes=Axes("L", "decrease", log="xy"),
    ),
    Claim(
        "convergence.descent_lemma",
        part="smallest gradient",
        says="After T steps the smallest squared gradient is at most 2L (f₀ − f*) / T.",
        setup=lambda *_: _runs(),
        measure=_smallest_squared_gradients,
        predict=_summed_decreases,
        judge=AtMost(),
        control=Variant("a tenth of the bound", predict=lambda runs: _summed_decreases(runs, 0.2)),
        axes=Axes("steps T", "smallest ‖∇f‖²", log="xy"),
    ),
    Claim(
        "convergence.hessian_sandwich",
        says="All eigenvalues of the Hessian lie between μ and L where f is convex, between −L and L where it is not.",
        measure=_relative_eigenvalues,
        predict=lambda _: 1.0,
        judge=AtMost(),
        control=Variant("L of the loss without its ridge", predict=_without_ridge),
        budget=Budget(quick=50, full=5000),
        axes=Axes("distance from zero", "eigenvalue / bound"),
    ),
    Claim(
        "convergence.eps_stationarity",
        says="Gradient descent meets an ε-stationary point within 2L (f₀ − f*) / ε² steps.",
        measure=_steps,
        predict=lambda _: _step_bounds(),
        judge=AtMost(),
        control=Variant("1/ε steps", predict=lambda _: _step_bounds(power=1)),
        axes=Axes("tolerance ε", "steps", log="xy"),
    ),
)
