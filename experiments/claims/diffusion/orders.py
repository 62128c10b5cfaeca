"""Claims about solvers of the reverse equation and of the probability flow: their orders of convergence."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import interpolate

from dltheory import diffusion
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.diffusion import _line
from experiments.curves import Curve, estimate
from experiments.judges import Slope

__all__ = ["CLAIMS"]

_SDE, _SCORE = _line.SDE, _line.score
_REVERSE = diffusion.reverse_sde(_SDE, _SCORE)


def _signed(sign):
    """The score, or with the sign -1 a wrong one."""
    return lambda x, t: sign * _SCORE(x, t)


@functools.partial(jax.jit, static_argnums=0)
def _step(solver, x, time, next_time, noise):
    """One program for time grids of every length."""
    return solver.step(x, time, next_time, noise)


def _backwards(num_steps):
    times = np.linspace(1.0, 0.0, num_steps + 1)
    return itertools.pairwise(times)


# Weak order: means at the end, without sampling. The mean of phi(x(t)) given x at an earlier time is carried backwards
# from one time to the one before, by quadrature over the noise of the step, on a grid of x.

_GRID = np.linspace(-6.0, 6.0, 281)
_SPLINES = interpolate.make_interp_spline(_GRID, np.eye(len(_GRID)), k=5)  # one through each of the unit vectors
_NODES, _MASSES = np.polynomial.hermite_e.hermegauss(10)
_MASSES = _MASSES / _MASSES.sum()
_STEPS = np.array([152, 215, 304, 430, 608])
_FUNCTIONS = {"x^2": np.square, "cos 2x": lambda x: np.cos(2 * x)}


def _interpolated(values, x):
    """Splines of degree five through values [grid, functions], at x [...]: by the recursion of Cox and de Boor."""
    knots, degree = jnp.asarray(_SPLINES.t), 5
    # Interior knots are the points of the grid from the fourth on (not-a-knot), after six at its left end.
    cell = jnp.floor((x - _GRID[0]) / (_GRID[1] - _GRID[0])).astype(int)
    at = jnp.clip(cell + 3, degree, len(_GRID) - 1)
    basis = [jnp.ones_like(x)]
    for order in range(1, degree + 1):
        left = [x - knots[at + 1 - order + r] for r in range(order)]
        right = [knots[at + 1 + r] - x for r in range(order)]
        parts = [basis[r] / (left[r] + right[r]) for r in range(order)]
        rising = [jnp.zeros_like(x), *(left[r] * parts[r] for r in range(order))]
        falling = [*(right[r] * parts[r] for r in range(order)), jnp.zeros_like(x)]
        basis = [up + down for up, down in zip(rising, falling, strict=True)]
    coefficients = jnp.asarray(_SPLINES.c) @ values
    return sum(part[..., None] * coefficients[at - degree + r] for r, part in enumerate(basis))


@functools.partial(jax.jit, static_argnums=0)
def _means_at_the_end(make, sign, num_steps):
    """The means of all functions, by one program for every number of steps."""
    solver = make(diffusion.reverse_sde(_SDE, _signed(sign)))
    x, noise = jnp.broadcast_arrays(jnp.asarray(_GRID)[:, None], jnp.asarray(_NODES))

    def backwards(number, values):
        time, next_time = (number + 1) / num_steps, number / num_steps
        ends = jnp.clip(solver.step(x, time, next_time, noise[None]), _GRID[0], _GRID[-1])
        return jnp.asarray(_MASSES) @ _interpolated(values, ends)

    start = jnp.asarray(np.stack([function(_GRID) for function in _FUNCTIONS.values()], axis=-1))
    mass = _line.pdf(_GRID, 1.0) * (_GRID[1] - _GRID[0])
    return jnp.asarray(mass) @ jax.lax.fori_loop(0, num_steps, backwards, start)


def _weak_errors(sign):
    def measure(_):
        exact = [_line.expectation(function, 0.0) for function in _FUNCTIONS.values()]
        curves = {}
        for method, make in (("Euler-Maruyama", diffusion.euler_maruyama), ("Heun", diffusion.heun)):
            errors = np.abs([np.asarray(_means_at_the_end(make, sign, int(n))) - exact for n in _STEPS])
            for name, column in zip(_FUNCTIONS, errors.T, strict=True):
                curves[f"{method}, {name}"] = Curve(column, 1 / _STEPS)
        return curves

    return measure


def _weak_orders(euler, heun):
    return lambda _: {
        f"{method}, {name}": order
        for method, order in (("Euler-Maruyama", euler), ("Heun", heun))
        for name in _FUNCTIONS
    }


# Strong order: paths that share their noise.

_FINEST = 8192
_COARSE = np.array([32, 64, 128, 256, 512])


def _strong_errors(draw):
    rng = generator(draw.key)
    start = jnp.asarray(_line.draws(rng, 1.0, draw.budget))
    fine = rng.normal(size=(_FINEST, 1, draw.budget))
    exact = np.asarray(
        _line.driven(diffusion.heun(_REVERSE), start, jnp.linspace(1.0, 0.0, _FINEST + 1), jnp.asarray(fine))
    )

    def end(solver, num_steps):
        x, noise = start, fine.reshape(num_steps, -1, 1, draw.budget).sum(1) * np.sqrt(num_steps / _FINEST)
        for (time, next_time), increment in zip(_backwards(num_steps), noise, strict=True):
            x = _step(solver, x, time, next_time, increment)
        return np.asarray(x)

    curves = {}
    for method, make in (("Euler-Maruyama", diffusion.euler_maruyama), ("Heun", diffusion.heun)):
        solver = make(_REVERSE)
        errors = [estimate(np.abs(end(solver, n) - exact)) for n in _COARSE]
        curves[method] = Curve([e.y for e in errors], 1 / _COARSE, [e.standard_error for e in errors])
    return curves


# The probability flow.

_SOURCES = np.linspace(-2.0, 2.0, 9)


_FLOW_SOLVERS = {
    "Euler": lambda score_fn: diffusion.euler_maruyama(diffusion.probability_flow(_SDE, score_fn)),
    "Heun": lambda score_fn: diffusion.heun(diffusion.probability_flow(_SDE, score_fn)),
    "exponential, order 1": lambda score_fn: diffusion.exponential_integrator(_SDE, score_fn, 1),
    "exponential, order 2": lambda score_fn: diffusion.exponential_integrator(_SDE, score_fn, 2),
}


@functools.partial(jax.jit, static_argnums=0)
def _flown(name, sign, num_steps):
    """Where the sources go, by one program for every number of steps."""
    solver = _FLOW_SOLVERS[name](_signed(sign))
    none = jnp.zeros((0, len(_SOURCES)))

    def step(number, x):
        return solver.step(x, 1 - number / num_steps, 1 - (number + 1) / num_steps, none)

    return jax.lax.fori_loop(0, num_steps, step, jnp.asarray(_SOURCES))


def _flow_errors(sign):
    def measure(_):
        exact = _line.quantile_map(_SOURCES, 1.0, 0.0)
        curves = {}
        for name in _FLOW_SOLVERS:
            errors = [np.mean(np.abs(np.asarray(_flown(name, sign, int(n))) - exact)) for n in _STEPS]
            curves[name] = Curve(np.array(errors), 1 / _STEPS)
        return curves

    return measure


_FLOW_ORDERS = {"Euler": 1.0, "Heun": 2.0, "exponential, order 1": 1.0, "exponential, order 2": 2.0}


CLAIMS = (
    Claim(
        "sde.reverse",
        part="weak order",
        says="Means under the laws of samples converge to those of the data: Euler-Maruyama with order 1, Heun with 2.",
        measure=_weak_errors(1.0),
        predict=_weak_orders(1.0, 2.0),
        judge=Slope(),
        control=Variant("the score's sign flipped", measure=_weak_errors(-1.0)),
        axes=Axes("step", "error of the mean", "xy"),
    ),
    Claim(
        "sde.reverse",
        part="strong order",
        says="With the noise of one Brownian path both methods reach its end with order 1, as g does not depend on x.",
        measure=_strong_errors,
        predict=lambda _: 1.0,
        judge=Slope(),
        control=Variant("order 1/2, that for noise that does", predict=lambda _: 0.5),
        budget=Budget(1_500, 5_000),
        axes=Axes("step", "mean error of the end", "xy"),
    ),
    Claim(
        "sde.reverse",
        part="flow",
        says="Solvers of the probability flow map quantiles of noise to quantiles of the data, at their orders.",
        measure=_flow_errors(1.0),
        predict=lambda _: _FLOW_ORDERS,
        judge=Slope(),
        control=Variant("the score's sign flipped", measure=_flow_errors(-1.0)),
        axes=Axes("step", "mean error", "xy"),
    ),
)
