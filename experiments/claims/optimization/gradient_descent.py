"""Claims about gradient descent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg

from dltheory import optimization
from experiments.claim import Axes, Claim, Variant
from experiments.claims.optimization._problems import logistic_data, rotated
from experiments.curves import Curve
from experiments.judges import Equal, Slope

__all__ = ["CLAIMS"]


_SPECTRUM = np.array([0.5, 1.5, 4.0])
_START = np.array([1.0, -2.0, 1.5])
_RATES = np.array([0.05, 0.45])
_STEPS = 40


_HESSIAN = rotated(_SPECTRUM, seed=0)


@jax.jit
def _descend(learning_rate):
    objective = optimization.quadratic(jnp.asarray(_HESSIAN)).value
    optimizer = optimization.gradient_descent(learning_rate)
    return optimization.run_optimizer(optimizer, objective, jnp.asarray(_START), _STEPS).params


def _paths(paths):
    steps, paths = np.arange(_STEPS + 1), np.asarray(paths)
    return {
        f"learning rate {rate}, coordinate {j + 1}": Curve(path[:, j], steps)
        for rate, path in zip(_RATES, paths, strict=True)
        for j in range(3)
    }


def _matrix_powers(_):
    powers = [np.linalg.matrix_power(np.eye(3) - rate * _HESSIAN, t) for rate in _RATES for t in range(_STEPS + 1)]
    return _paths((np.array(powers) @ _START).reshape(len(_RATES), _STEPS + 1, 3))


def _exponentials(_):
    times = _RATES[:, None] * np.arange(_STEPS + 1)
    return _paths([[linalg.expm(-t * _HESSIAN) @ _START for t in row] for row in times])


_HORIZON = 2.0
_FINENESS = 2 ** np.arange(5, 11)  # steps per unit of time


@jax.jit
def _distance_to_flow():
    """Largest distance between gradient descent and the gradient flow over a fixed time, for finer and finer steps."""
    finest = int(_HORIZON * _FINENESS[-1])
    features, labels = map(jnp.asarray, logistic_data(0, 20, 3))
    objectives = {
        "quadratic": optimization.quadratic(jnp.asarray(_HESSIAN)).value,
        "logistic": optimization.ridge_logistic(3 * features, labels, ridge=0.1).value,
    }
    result = {}
    for name, objective in objectives.items():
        times = _HORIZON * jnp.arange(finest + 1) / finest
        if name == "quadratic":
            values, vectors = np.linalg.eigh(_HESSIAN)
            flow = jnp.exp(-jnp.outer(times, jnp.asarray(values))) @ (np.diag(_START @ vectors) @ vectors.T)
        else:
            flow = optimization.gradient_flow(objective, jnp.asarray(_START), times, rtol=1e-10, atol=1e-12).params

        def furthest(fineness, objective=objective, flow=flow):
            optimizer = optimization.gradient_descent(1 / fineness)
            path = optimization.run_optimizer(optimizer, objective, jnp.asarray(_START), finest).params
            at = jnp.arange(finest + 1) * (_FINENESS[-1] // fineness)
            distance = jnp.linalg.norm(path - flow[jnp.minimum(at, finest)], axis=1)
            return jnp.max(jnp.where(at <= finest, distance, 0.0))

        result[name] = jax.vmap(furthest)(jnp.asarray(_FINENESS))
    return result


def _flow_distances(_):
    return {name: Curve(distance, 1 / _FINENESS) for name, distance in _distance_to_flow().items()}


_SHARPEST = np.array([0.5, 1.0, 3.0, 10.0, 40.0])


@jax.jit
def _diverges(hessian, learning_rate):
    """Whether the gradient grows over the second half of a long run."""
    objective = optimization.quadratic(hessian).value
    optimizer = optimization.gradient_descent(learning_rate)
    path = optimization.run_optimizer(optimizer, objective, jnp.ones(3), 200).params
    norms = jnp.linalg.norm(path @ hessian, axis=1)
    return norms[-1] > norms[100]


@jax.jit
def _divergence_threshold(hessian):
    def halve(interval, _):
        low, high = interval
        middle = (low + high) / 2
        diverges = _diverges(hessian, middle)
        return (jnp.where(diverges, low, middle), jnp.where(diverges, middle, high)), None

    top = jnp.max(jnp.sum(jnp.abs(hessian), axis=1))  # Gershgorin: the threshold lies in [1, 10] / this
    return jax.lax.scan(halve, (1 / top, 10 / top), length=40)[0][0]


def _thresholds(_):
    hessians = np.array([rotated([0.3 * top, 0.6 * top, top], seed=7) for top in _SHARPEST])
    return Curve(jax.vmap(_divergence_threshold)(jnp.asarray(hessians)), _SHARPEST)


CLAIMS = (
    Claim(
        "optimizers.gradient_descent",
        says=r"On a quadratic the iterates are powers of I - eta H applied to the start.",
        measure=lambda _: _paths(jax.vmap(_descend)(jnp.asarray(_RATES))),
        predict=_matrix_powers,
        judge=Equal(rtol=1e-10, atol=1e-13),
        control=Variant("the gradient flow at the same times", predict=_exponentials),
        axes=Axes("step", "parameters"),
    ),
    Claim(
        "optimizers.gradient_descent",
        part="flow",
        says="Over a fixed time, gradient descent stays within a distance of order eta of the gradient flow.",
        measure=_flow_distances,
        predict=lambda _: 1.0,
        judge=Slope(0.05),
        control=Variant("an integrator of second order", predict=lambda _: 2.0),
        axes=Axes("learning rate", "largest distance", log="xy"),
    ),
    Claim(
        "optimizers.gradient_descent",
        part="stability",
        says="The learning rate from which gradient descent on a quadratic diverges, found by bisection, is 2 over the "
        "largest eigenvalue.",
        measure=_thresholds,
        predict=lambda _: 2 / _SHARPEST,
        judge=Equal(rtol=1e-6),
        control=Variant("1 over the largest eigenvalue", predict=lambda _: 1 / _SHARPEST),
        axes=Axes("largest eigenvalue", "threshold of the learning rate", log="xy"),
    ),
)
