"""Claims about solvers of the reverse equation and of the probability flow: their orders of convergence."""

from __future__ import annotations

import functools

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
_FLOW = diffusion.probability_flow(_SDE, _SCORE)


def _flipped(x, t):
    return -_SCORE(x, t)


# Weak order: means at the end, without sampling. The mean of phi(x(t)) given x at an earlier time is carried backwards
# from one time to the one before, by quadrature over the noise of the step, on a grid of x.

_ENDS = np.linspace(-9.0, 9.0, 721)
_NODES, _MASSES = np.polynomial.hermite_e.hermegauss(16)
_MASSES = _MASSES / _MASSES.sum()
_STEPS = np.array([32, 45, 64, 91, 128])


@functools.partial(jax.jit, static_argnums=0)
def _moved(solver, times):
    """Where a step leads from each point of the grid with each noise, [steps, grid, nodes]."""
    x = jnp.broadcast_to(jnp.asarray(_ENDS)[:, None], (len(_ENDS), len(_NODES)))
    noise = jnp.broadcast_to(jnp.asarray(_NODES)[None, None, :], (1, *x.shape))
    return jax.lax.map(lambda pair: solver.step(x, *pair, noise), (times[:-1], times[1:]))


def _mean_at_the_end(solver, function, num_steps):
    values = function(_ENDS)
    for ends in np.asarray(_moved(solver, jnp.linspace(1.0, 0.0, num_steps + 1)))[::-1]:
        values = interpolate.CubicSpline(_ENDS, values)(np.clip(ends, _ENDS[0], _ENDS[-1])) @ _MASSES
    mass = _line.pdf(_ENDS, 1.0) * (_ENDS[1] - _ENDS[0])
    return values @ mass


_FUNCTIONS = {"x^2": np.square, "cos 2x": lambda x: np.cos(2 * x)}


def _weak_errors(equation):
    def measure(_):
        curves = {}
        for method, make in (("Euler-Maruyama", diffusion.euler_maruyama), ("Heun", diffusion.heun)):
            for name, function in _FUNCTIONS.items():
                exact = _line.expectation(function, 0.0)
                errors = [abs(_mean_at_the_end(make(equation), function, n) - exact) for n in _STEPS]
                curves[f"{method}, {name}"] = Curve(np.array(errors), 1 / _STEPS)
        return curves

    return measure


def _weak_orders(euler, heun):
    return lambda _: {
        f"{method}, {name}": order
        for method, order in (("Euler-Maruyama", euler), ("Heun", heun))
        for name in _FUNCTIONS
    }


# Strong order: paths that share their noise.

_FINEST = 4096
_COARSE = np.array([32, 64, 128, 256, 512])


def _strong_errors(draw):
    rng = generator(draw.key)
    start = jnp.asarray(_line.draws(rng, 1.0, draw.budget))
    fine = rng.normal(size=(_FINEST, 1, draw.budget))

    def end(solver, num_steps):
        noise = fine.reshape(num_steps, -1, 1, draw.budget).sum(1) * np.sqrt(num_steps / _FINEST)
        return np.asarray(_line.driven(solver, start, jnp.linspace(1.0, 0.0, num_steps + 1), jnp.asarray(noise)))

    exact = end(diffusion.heun(_REVERSE), _FINEST)
    curves = {}
    for method, make in (("Euler-Maruyama", diffusion.euler_maruyama), ("Heun", diffusion.heun)):
        errors = [estimate(np.abs(end(make(_REVERSE), int(n)) - exact)) for n in _COARSE]
        curves[method] = Curve([e.y for e in errors], 1 / _COARSE, [e.standard_error for e in errors])
    return curves


# The probability flow.

_SOURCES = np.linspace(-2.0, 2.0, 9)
_GRIDS = np.array([64, 91, 128, 181, 256])


def _flow_solvers(score_fn):
    flow = diffusion.probability_flow(_SDE, score_fn)
    return {
        "Euler": diffusion.euler_maruyama(flow),
        "Heun": diffusion.heun(flow),
        "exponential, order 1": diffusion.exponential_integrator(_SDE, score_fn, 1),
        "exponential, order 2": diffusion.exponential_integrator(_SDE, score_fn, 2),
    }


def _flow_errors(score_fn):
    def measure(_):
        exact = _line.quantile_map(_SOURCES, 1.0, 0.0)
        curves = {}
        for name, solver in _flow_solvers(score_fn).items():
            ends = [diffusion.solve(None, solver, jnp.asarray(_SOURCES), jnp.linspace(1.0, 0.0, n + 1)) for n in _GRIDS]
            curves[name] = Curve([np.mean(np.abs(np.asarray(end) - exact)) for end in ends], 1 / _GRIDS)
        return curves

    return measure


_FLOW_ORDERS = {"Euler": 1.0, "Heun": 2.0, "exponential, order 1": 1.0, "exponential, order 2": 2.0}


CLAIMS = (
    Claim(
        "sde.reverse",
        part="weak order",
        says="Means under the laws of samples converge to those of the data: Euler-Maruyama with order 1, Heun with 2.",
        measure=_weak_errors(_REVERSE),
        predict=_weak_orders(1.0, 2.0),
        judge=Slope(),
        control=Variant("the score's sign flipped", measure=_weak_errors(diffusion.reverse_sde(_SDE, _flipped))),
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
        budget=Budget(500, 5_000),
        axes=Axes("step", "mean error of the end", "xy"),
    ),
    Claim(
        "sde.reverse",
        part="flow",
        says="Solvers of the probability flow map quantiles of noise to quantiles of the data, at their orders.",
        measure=_flow_errors(_SCORE),
        predict=lambda _: _FLOW_ORDERS,
        judge=Slope(),
        control=Variant("the score's sign flipped", measure=_flow_errors(_flipped)),
        axes=Axes("step", "mean error", "xy"),
    ),
)
