"""Rows of the chapter Convergence guarantees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dltheory import convergence
from tests.cases import Case

_RNG = np.random.default_rng(0)
X = {"w": _RNG.normal(size=3), "b": np.array(0.4)}
Y = {"w": _RNG.normal(size=3), "b": np.array(-0.7)}
SHORT = {"w": np.ones(2), "b": np.array(0.4)}
POINTS = {"w": _RNG.normal(size=(4, 3)), "b": _RNG.normal(size=4)}
RAGGED = {"w": np.ones((4, 3)), "b": np.ones(3)}
GRADIENTS = {"w": _RNG.normal(size=(5, 3)), "b": _RNG.normal(size=5)}
PATH = _RNG.normal(size=(4, 2))
PAIR = np.ones(2)
STEPS = np.array(7)
RATE = np.array(0.1)


def objective(params):
    """Smooth, strictly convex, and not quadratic."""
    return jnp.sum(jnp.cosh(params["w"])) + 0.5 * (jnp.sum(params["w"]) - params["b"]) ** 2 + params["b"] ** 2


def _averages(factory):
    """The averages that an averaged optimizer holds after each of the gradients [t, d]."""

    def averages(gradients, *settings):
        optimizer = factory(optax.sgd(0.1), *settings)
        params = jnp.ones_like(gradients[0])
        state, taken = optimizer.init(params), []
        for gradient in gradients:
            updates, state = optimizer.update(gradient, state, params)
            params = params + updates
            taken.append(state.average)
        return jnp.stack(taken)

    return averages


CASES = (
    Case(
        "dltheory.convergence.convexity_gap",
        call=lambda x, y, weight: convergence.convexity_gap(objective, x, y, weight),
        args=(X, Y, np.array(0.3)),
        wrong={"y": (X, SHORT, np.array(0.3)), "weight": (X, Y, PAIR)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.convergence.bregman_divergence",
        call=lambda x, y: convergence.bregman_divergence(objective, x, y),
        args=(X, Y),
        wrong={"y": (X, SHORT)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.convergence.bregman_integral",
        call=lambda x, y: convergence.bregman_integral(objective, x, y, num_nodes=8),
        args=(X, Y),
        wrong={"y": (X, SHORT)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.convergence.quadratic_upper_bound",
        call=lambda x, y, smoothness: convergence.quadratic_upper_bound(objective, x, y, smoothness),
        args=(X, Y, np.array(3.0)),
        wrong={"y": (X, SHORT, np.array(3.0)), "smoothness": (X, Y, PAIR)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.convergence.descent_certificate",
        call=lambda params, smoothness: convergence.descent_certificate(objective, params, smoothness),
        args=(X, np.array(6.0)),
        wrong={"smoothness": (X, PAIR)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.convergence.is_stationary",
        args=(X, np.array(1.0)),
        wrong={"tolerance": (X, PAIR)},
        grad=(),
    ),
    Case(
        "dltheory.convergence.steps_to_stationarity",
        args=(np.array([2.0, 1.0, 0.5, 0.7]), np.array(0.8)),
        wrong={"gradient_norms": (np.ones((2, 2)), np.array(0.8)), "tolerance": (np.ones(3), PAIR)},
        grad=(),
    ),
    Case(
        "dltheory.convergence.smoothness_constant",
        call=lambda key, points: convergence.smoothness_constant(key, objective, points),
        args=(jax.random.key(1), POINTS),
        wrong={"points": (jax.random.key(1), RAGGED)},
        grad=(),
    ),
    Case(
        "dltheory.convergence.strong_convexity_constant",
        call=lambda key, points: convergence.strong_convexity_constant(key, objective, points),
        args=(jax.random.key(1), POINTS),
        wrong={"points": (jax.random.key(1), RAGGED)},
        grad=(),
    ),
    Case(
        "dltheory.convergence.pl_constant",
        call=lambda points, minimum: convergence.pl_constant(objective, points, minimum),
        args=(POINTS, np.array(3.0)),
        wrong={"points": (RAGGED, np.array(3.0)), "minimum": (POINTS, PAIR)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.convergence.hessian_spectrum_bounds",
        call=lambda params: convergence.hessian_spectrum_bounds(objective, params),
        args=(X,),
    ),
    Case(
        "dltheory.convergence.hessian_spectrum_bounds",
        label="vector-valued",
        call=lambda x: convergence.hessian_spectrum_bounds(lambda v: jnp.sum(v**4 / 4 + v**2, axis=-1), x),
        args=(np.array([0.1, 0.5]),),
        wrong={"objective_fn": (np.ones((2, 2)),)},
    ),
    Case(
        "dltheory.convergence.polyak_rate_bound",
        args=(np.array(0.3), np.array(2.0), STEPS, np.array(1.5)),
        wrong={
            "pl": (PAIR, np.array(2.0), STEPS, np.array(1.5)),
            "smoothness": (np.array(0.3), PAIR, STEPS, np.array(1.5)),
            "num_steps": (np.array(0.3), np.array(2.0), PAIR, np.array(1.5)),
            "gap0": (np.array(0.3), np.array(2.0), STEPS, PAIR),
        },
        grad=(0, 1, 3),
    ),
    Case(
        "dltheory.convergence.nesterov_rate_bound",
        args=(np.array(0.3), np.array(2.0), STEPS, np.array(1.5)),
        wrong={
            "strong_convexity": (PAIR, np.array(2.0), STEPS, np.array(1.5)),
            "smoothness": (np.array(0.3), PAIR, STEPS, np.array(1.5)),
            "num_steps": (np.array(0.3), np.array(2.0), PAIR, np.array(1.5)),
            "distance0": (np.array(0.3), np.array(2.0), STEPS, PAIR),
        },
        grad=(0, 1, 3),
    ),
    Case(
        "dltheory.convergence.stationarity_steps_bound",
        args=(np.array(2.0), np.array(1.5), RATE),
        wrong={
            "smoothness": (PAIR, np.array(1.5), RATE),
            "gap0": (np.array(2.0), PAIR, RATE),
            "tolerance": (np.array(2.0), np.array(1.5), PAIR),
        },
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.convergence.sgd_convex_bound",
        args=(np.array(2.0), np.array(1.5), RATE, STEPS),
        wrong={
            "diameter": (PAIR, np.array(1.5), RATE, STEPS),
            "gradient_bound": (np.array(2.0), PAIR, RATE, STEPS),
            "scale": (np.array(2.0), np.array(1.5), PAIR, STEPS),
            "num_iterates": (np.array(2.0), np.array(1.5), RATE, PAIR),
        },
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.convergence.sgd_strongly_convex_bound",
        args=(np.array(2.0), np.array(1.5), STEPS),
        wrong={
            "gradient_bound": (PAIR, np.array(1.5), STEPS),
            "strong_convexity": (np.array(2.0), PAIR, STEPS),
            "num_iterates": (np.array(2.0), np.array(1.5), PAIR),
        },
        grad=(0, 1),
    ),
    Case(
        "dltheory.convergence.sgd_smooth_bound",
        args=(np.array(2.0), np.array(1.5), np.array(3.0), STEPS),
        wrong={
            "gradient_bound": (PAIR, np.array(1.5), np.array(3.0), STEPS),
            "strong_convexity": (np.array(2.0), PAIR, np.array(3.0), STEPS),
            "smoothness": (np.array(2.0), np.array(1.5), PAIR, STEPS),
            "num_iterates": (np.array(2.0), np.array(1.5), np.array(3.0), PAIR),
        },
        grad=(0, 1, 2),
    ),
    Case("dltheory.convergence.polyak_average", call=_averages(convergence.polyak_average), args=(PATH,)),
    Case(
        "dltheory.convergence.suffix_average",
        call=_averages(lambda inner: convergence.suffix_average(inner, num_iterates=5)),
        args=(PATH,),
    ),
    Case(
        "dltheory.convergence.ema",
        call=_averages(lambda inner: convergence.ema(inner, 0.8)),
        args=(PATH,),
    ),
    Case(
        "dltheory.convergence.inverse_power_schedule",
        call=lambda scale, power, count: convergence.inverse_power_schedule(scale, power)(count),
        args=(np.array(0.5), np.array(0.7), STEPS),
        wrong={"scale": (PAIR, np.array(0.7), STEPS), "power": (np.array(0.5), PAIR, STEPS)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.convergence.sgd_expected_progress",
        args=(GRADIENTS, X, Y, RATE),
        wrong={
            "gradients": (RAGGED, X, Y, RATE),
            "optimum": (GRADIENTS, X, SHORT, RATE),
            "learning_rate": (GRADIENTS, X, Y, PAIR),
        },
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.convergence.sgd_progress_threshold",
        args=(GRADIENTS, X, Y),
        wrong={"gradients": ({"w": np.ones((5, 2)), "b": np.ones(5)}, X, Y), "optimum": (GRADIENTS, X, SHORT)},
        grad=(0, 1, 2),
    ),
    Case("dltheory.convergence.gradient_noise", args=(GRADIENTS,), wrong={"gradients": (RAGGED,)}),
    Case(
        "dltheory.convergence.sgd_quasi_convergence",
        args=(np.array(0.5), np.array(2.0), np.array(1.5), RATE),
        wrong={
            "strong_convexity": (PAIR, np.array(2.0), np.array(1.5), RATE),
            "smoothness": (np.array(0.5), PAIR, np.array(1.5), RATE),
            "noise": (np.array(0.5), np.array(2.0), PAIR, RATE),
            "learning_rate": (np.array(0.5), np.array(2.0), np.array(1.5), PAIR),
        },
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.convergence.exact_sgd_moments",
        call=lambda a, c, rate, start: convergence.exact_sgd_moments(a, c, rate, start, num_steps=5),
        args=(np.array([1.0, 3.0, -0.5]), np.array([-1.0, 1.0, 0.2]), RATE, np.array(2.0)),
        wrong={
            "curvatures": (np.ones((2, 2)), np.ones(2), RATE, np.array(2.0)),
            "minimizers": (np.ones(3), np.ones(2), RATE, np.array(2.0)),
            "learning_rate": (np.ones(2), np.ones(2), PAIR, np.array(2.0)),
            "start": (np.ones(2), np.ones(2), RATE, PAIR),
        },
        grad=(0, 1, 2, 3),
    ),
)
