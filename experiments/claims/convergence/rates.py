"""Claims about the Polyak-Lojasiewicz condition and the linear rates of Polyak and Nesterov."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from dltheory import convergence, optimization
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.convergence._problems import (
    FLAT,
    SINE,
    flat_hessian,
    logistic_minimizer,
    logistic_value,
    problems,
    quadratic_hessian,
)
from experiments.curves import Curve
from experiments.judges import AtLeast, AtMost, Equal, Slope

__all__ = ["CLAIMS"]

_LOGISTIC = "ridge logistic"
_RATIO = "‖∇f‖² / (2 (f − f*))"
_GAP = r"$f(x_t) - f^*$"


@functools.partial(jax.jit, static_argnums=0)
def _pl_ratios(objective_fn, points, minimum):
    """||grad f||^2 / (2 (f - f*)) at each of the points [..., d]."""
    flat = points.reshape(-1, points.shape[-1])
    ratios = jax.vmap(lambda x: convergence.pl_constant(objective_fn, x[None], minimum))(flat)
    return ratios.reshape(points.shape[:-1])


@functools.partial(jax.jit, static_argnums=(0, 3))
def _descend(objective_fn, learning_rate, start, num_steps):
    return optimization.run_optimizer(optimization.gradient_descent(learning_rate), objective_fn, start, num_steps)


# The condition. The line through least squares leaves the flattest direction for the steepest one.

_PLACES = np.linspace(-10.0, 10.0, 80)  # zero, the minimiser, is not among them


def _ratios_along_lines(_):
    eigenvectors = np.linalg.eigh(flat_hessian())[1]
    line = eigenvectors[:, 2] + np.append(_PLACES, 0.0)[:, None] / 10 * eigenvectors[:, 5]
    return {
        SINE: Curve(_pl_ratios(problems()[SINE].value, jnp.asarray(_PLACES)[:, None], 0.0), _PLACES),
        FLAT: Curve(_pl_ratios(problems()[FLAT].value, jnp.asarray(line), 0.0), np.append(_PLACES, 0.0)),
    }


def _published_constants(_):
    return {SINE: 1 / 32, FLAT: 0.2**2}


def _best_constants(draw):
    """The smallest ratio over a fine grid, and along a run of gradient descent from a random start."""
    grid = jnp.linspace(0.01, 10.0, 100_001)[:, None]
    start = generator(draw.key).normal(size=6)
    run = _descend(problems()[FLAT].value, 1.0, start, 120)
    smallest = jax.jit(convergence.pl_constant, static_argnums=0)
    return {SINE: smallest(problems()[SINE].value, grid, 0.0), FLAT: smallest(problems()[FLAT].value, run.params, 0.0)}


def _constants_by_hand(_):
    def ratio(x):
        return (2 * x + 3 * np.sin(2 * x)) ** 2 / (2 * (x**2 + 3 * np.sin(x) ** 2))

    coarse = np.linspace(0.01, 10.0, 1000)
    near = coarse[np.argmin(ratio(coarse))]
    best = optimize.minimize_scalar(ratio, bounds=(near - 0.02, near + 0.02), method="bounded", options={"xatol": 1e-9})
    return {SINE: ratio(best.x), FLAT: 0.2**2}


_SMALL = 2.0 ** -np.arange(0, 12)


def _ratio_of_power(power):
    return Curve(_pl_ratios(lambda x: jnp.sum(x**power), jnp.asarray(_SMALL)[:, None], 0.0), _SMALL)


# Strong convexity implies it: random directions from the minimiser, at every distance.

_RADII = np.geomspace(0.1, 30.0, 12)


def _directions(key, budget):
    directions = generator(key).normal(size=(budget, 6))
    return _RADII[:, None, None] * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _lowest_ratios(offsets):
    """The smallest ratio at each distance from the minimiser, random directions and the quadratic's flattest."""
    flattest = np.linalg.eigh(quadratic_hessian())[1][:, 0]
    offsets = np.concatenate([offsets, _RADII[:, None, None] * flattest], axis=1)
    places = {
        _LOGISTIC: (logistic_minimizer() + offsets, logistic_value(logistic_minimizer())),
        "quadratic": (offsets, 0.0),
    }
    return {
        name: Curve(_pl_ratios(problems()[name].value, jnp.asarray(points), minimum).min(1), _RADII)
        for name, (points, minimum) in places.items()
    }


def _huber_ratios(offsets):
    return {"Huber": Curve(_pl_ratios(problems()["Huber"].value, jnp.asarray(offsets), 0.0).min(1), _RADII)}


# Polyak's rate.

_STEPS = np.arange(1, 41)


def _polyak_gaps(_):
    runs = {
        SINE: (np.full(1, 9.0), 0.0),
        FLAT: (np.ones(6), 0.0),
        _LOGISTIC: (np.full(6, 2.0), logistic_value(logistic_minimizer())),
    }
    return {
        name: _descend(problems()[name].value, 1 / problems()[name].smoothness, start, int(_STEPS[-1])).value - minimum
        for name, (start, minimum) in runs.items()
    }


def _polyak_bounds(gaps, rate=lambda ratio: ratio):
    """Polyak's bound, with `rate` of mu / L in the place of mu / L."""
    constants = {SINE: 1 / 32 / 8, FLAT: 0.2**2}
    logistic = problems()[_LOGISTIC]
    constants[_LOGISTIC] = float(logistic.pl_constant / logistic.smoothness)
    bound = jax.vmap(convergence.polyak_rate_bound, in_axes=(None, None, 0, None))
    return {name: bound(rate(ratio), 1.0, jnp.asarray(_STEPS), gaps[name][0]) for name, ratio in constants.items()}


_CONDITIONS = 2.0 ** np.arange(1, 13)


@jax.jit
def _slowest_mode(conditions):
    """One step of gradient descent on the slowest mode of a quadratic, for each condition number."""

    def ratio(condition):
        hessian = jnp.diag(jnp.stack([1 / condition, jnp.ones_like(condition)]))
        problem = optimization.quadratic(hessian)
        start = jnp.array([1.0, 0.0], condition.dtype)
        optimizer = optimization.gradient_descent(1 / problem.smoothness)
        value = optimization.run_optimizer(optimizer, problem.value, start, 1).value
        return value[1] / value[0]

    return jax.vmap(ratio)(conditions)


# Nesterov's rate, on quadratics with eigenvalues spread evenly in the logarithm.

_QUADRATICS = {"κ = 10": (10.0, 60), "κ = 100": (100.0, 200), "κ = 1000": (1e3, 300), "κ = 10000": (1e4, 300)}
_FEW = np.arange(1, 16)  # logistic regression is well conditioned
_MODES = 20


def _values(optimizer, objective_fn, start, num_steps):
    """Objective values of the sequence that the theorem is about: for Nesterov's method it is in the state."""
    run = optimization.run_optimizer(optimizer, objective_fn, start, num_steps)
    state: Any = run.state
    return jax.vmap(objective_fn)(state.iterate) if isinstance(state, optimization.NesterovState) else run.value


def _optimizer(settings, accelerated):
    if accelerated:
        return optimization.nesterov(*settings)
    return optimization.gradient_descent(settings.learning_rate)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _quadratic_gaps(conditions, accelerated, num_steps, equal_shares=False):
    """Gaps along runs with step size 1/L = 1 from ones in all modes, or from equal shares of the gap in all modes."""

    def gaps(condition):
        eigenvalues = condition ** -jnp.linspace(1.0, 0.0, _MODES)
        optimizer = _optimizer(optimization.nesterov_optimal(1 / condition, 1.0), accelerated)
        start = eigenvalues**-0.5 if equal_shares else jnp.ones_like(eigenvalues)
        return _values(optimizer, lambda x: 0.5 * jnp.sum(eigenvalues * x**2), start, num_steps)

    return jax.vmap(gaps)(conditions)


@functools.partial(jax.jit, static_argnums=0)
def _logistic_gaps(accelerated):
    problem = problems()[_LOGISTIC]
    optimizer = _optimizer(optimization.nesterov_optimal(problem.strong_convexity, problem.smoothness), accelerated)
    return _values(optimizer, problem.value, jnp.full(6, 2.0), int(_FEW[-1])) - logistic_value(logistic_minimizer())


def _gaps(accelerated=True):
    quadratic = _quadratic_gaps(jnp.array([kappa for kappa, _ in _QUADRATICS.values()]), accelerated, 300)
    curves = {_LOGISTIC: Curve(_logistic_gaps(accelerated)[1:], _FEW)}
    for (name, (_, steps)), gaps in zip(_QUADRATICS.items(), quadratic, strict=True):
        curves[name] = Curve(gaps[1 : steps + 1], np.arange(1, steps + 1))
    return curves


def _nesterov_bounds(_):
    bound = jax.vmap(convergence.nesterov_rate_bound, in_axes=(None, None, 0, None))
    problem, distance = problems()[_LOGISTIC], float(np.linalg.norm(2.0 - logistic_minimizer()))
    bounds = {_LOGISTIC: bound(problem.strong_convexity, problem.smoothness, jnp.asarray(_FEW), distance)}
    for name, (kappa, steps) in _QUADRATICS.items():
        bounds[name] = bound(1 / kappa, 1.0, jnp.arange(1, steps + 1), _MODES**0.5)
    return bounds


_SCALES = 2.0 ** np.arange(4, 11)


def _steps_to_accuracy(_):
    """Steps until the gap is 1e-8 of what it was, with and without acceleration."""
    curves = {}
    for name, accelerated, num_steps in (("gradient descent", False, 12_000), ("Nesterov", True, 1000)):
        gaps = _quadratic_gaps(jnp.asarray(_SCALES), accelerated, num_steps, True)
        below = np.asarray(gaps <= 1e-8 * gaps[:, :1])
        curves[name] = Curve(np.where(below.any(1), below.argmax(1), np.inf), _SCALES)
    return curves


# Nesterov's rate as printed: with nothing said of the step size, and with the implicit step printed elsewhere.

_SHORT = np.arange(1, 31)


def _momentum_run(kappa, step_factor=1.0, implicit=False, momentum=1.0):
    """Gaps of a quadratic with eigenvalues 1/kappa and 1; `implicit` takes the gradient at y_{k+1}."""
    eigenvalues = np.array([1 / kappa, 1.0])
    step = step_factor * eigenvalues
    beta = momentum * (np.sqrt(kappa) - 1) / (np.sqrt(kappa) + 1)
    x = before = np.ones(2)
    gaps = []
    for _ in _SHORT:
        y = x + beta * (x - before)
        if implicit:  # x' = y - step (x' + beta (x' - x)), solved for x'
            after = (y + step * beta * x) / (1 + step * (1 + beta))
        else:
            after = (1 - step) * y
        x, before = after, x
        gaps.append(0.5 * np.sum(eigenvalues * x**2))
    return Curve(gaps, _SHORT)


def _printed_bound(kappa):
    """L (1 - sqrt(mu / L))^t ||x_0 - x*||^2 with L = 1."""
    return 2.0 * (1 - 1 / np.sqrt(kappa)) ** _SHORT


CLAIMS = (
    Claim(
        "convergence.pl_condition",
        says="A nonconvex function and a degenerate least-squares problem satisfy the inequality with their constants.",
        measure=_ratios_along_lines,
        predict=_published_constants,
        judge=AtLeast(),
        control=Variant("μ = 1/4 for the nonconvex one", predict=lambda _: _published_constants(_) | {SINE: 0.25}),
        axes=Axes("place on a line", _RATIO, log="y"),
    ),
    Claim(
        "convergence.pl_condition",
        part="estimator",
        says="The smallest ratio is found on a fine grid, and along gradient descent even where directions are flat.",
        measure=_best_constants,
        predict=_constants_by_hand,
        judge=Equal(rtol=1e-6),
        control=Variant("the published constant 1/32 is the best one", predict=_published_constants),
    ),
    Claim(
        "convergence.pl_condition",
        part="quartic",
        says="x⁴ is convex but has no constant: the ratio falls as 8x².",
        measure=lambda _: _ratio_of_power(4),
        predict=lambda _: 2.0,
        judge=Slope(tolerance=0.01),
        control=Variant("x², whose ratio is constant", measure=lambda _: _ratio_of_power(2)),
        axes=Axes("x", _RATIO, log="xy"),
    ),
    Claim(
        "convergence.strong_convexity_implies_pl",
        says="Strongly convex objectives satisfy the inequality with the same μ at every distance from the minimiser.",
        setup=_directions,
        measure=_lowest_ratios,
        predict=lambda _: {name: problems()[name].strong_convexity for name in (_LOGISTIC, "quadratic")},
        judge=AtLeast(),
        control=Variant(
            "Huber's function, with its curvature at the minimum", measure=_huber_ratios, predict=lambda _: 1.0
        ),
        budget=Budget(quick=200, full=20_000),
        axes=Axes("distance from the minimiser", f"smallest {_RATIO}", log="x"),
    ),
    Claim(
        "convergence.polyak_pl_rate",
        says="Gradient descent with step size 1/L stays below Polyak's bound, convex or not.",
        setup=lambda *_: _polyak_gaps(_),
        measure=lambda gaps: {name: Curve(gap[1:], _STEPS) for name, gap in gaps.items()},
        predict=_polyak_bounds,
        judge=AtMost(atol=1e-13),
        control=Variant("Nesterov's rate 1 − √(μ/L)", predict=lambda gaps: _polyak_bounds(gaps, np.sqrt)),
        axes=Axes("step t", _GAP, log="y"),
    ),
    Claim(
        "convergence.polyak_pl_rate",
        part="slowest mode",
        says="On the slowest mode of a quadratic one step multiplies the gap by exactly (1 − μ/L)².",
        measure=lambda _: Curve(_slowest_mode(jnp.asarray(_CONDITIONS)), _CONDITIONS),
        predict=lambda _: (1 - 1 / _CONDITIONS) ** 2,
        judge=Equal(),
        control=Variant("1 − μ/L, the bound itself", predict=lambda _: 1 - 1 / _CONDITIONS),
        axes=Axes("condition number L/μ", "gap after / before", log="x"),
    ),
    Claim(
        "convergence.nesterov_rate",
        says="Nesterov's method stays below (L+μ)/2 (1−√(μ/L))^t ‖x₀−x*‖² for condition numbers from 10 to 10 000.",
        measure=lambda _: _gaps(),
        predict=_nesterov_bounds,
        judge=AtMost(atol=1e-13),
        control=Variant("gradient descent", measure=lambda _: _gaps(accelerated=False)),
        axes=Axes("step t", _GAP, log="y"),
    ),
    Claim(
        "convergence.nesterov_rate",
        part="scaling",
        says="The number of steps to a given accuracy grows as √κ, for gradient descent as κ.",
        measure=_steps_to_accuracy,
        predict=lambda _: {"gradient descent": 1.0, "Nesterov": 0.5},
        judge=Slope(tolerance=0.07),
        control=Variant("no acceleration: κ for both", predict=lambda _: 1.0),
        axes=Axes("condition number κ", "steps to 10⁻⁸", log="xy"),
    ),
    Claim(
        "convergence.nesterov_rate@printed",
        part="step size",
        says="The bound L (1−√(μ/L))^t ‖x₀−x*‖² holds for any step size, here 2/L, with κ = 10.",
        measure=lambda _: _momentum_run(10.0, step_factor=2.0),
        predict=lambda _: _printed_bound(10.0),
        judge=AtMost(),
        control=Variant("step size 1/L but no momentum", measure=lambda _: _momentum_run(10.0, momentum=0.0)),
        corrected=Variant("step size 1/L", measure=lambda _: _momentum_run(10.0)),
        axes=Axes("step t", _GAP, log="y"),
    ),
    Claim(
        "convergence.nesterov_rate@printed",
        part="implicit step",
        says="The bound holds with the gradient at the extrapolation of the new point, as printed, with κ = 2.",
        measure=lambda _: _momentum_run(2.0, implicit=True),
        predict=lambda _: _printed_bound(2.0),
        judge=AtMost(),
        control=Variant("a step size ten times shorter", measure=lambda _: _momentum_run(2.0, step_factor=0.1)),
        corrected=Variant("the gradient at y_k", measure=lambda _: _momentum_run(2.0)),
        axes=Axes("step t", _GAP, log="y"),
    ),
)
