"""Objectives with known constants, and the places where those constants are attained."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from dltheory import convergence, optimization
from dltheory.optimization import Objective
from dltheory.typing import Array, ObjectiveFn, PRNGKey
from experiments.claim import generator
from experiments.claims.optimization._problems import rotated

__all__ = [
    "NONCONVEX",
    "Segments",
    "logistic_data",
    "logistic_minimizer",
    "logistic_value",
    "on_segments",
    "problems",
    "quadratic_hessian",
    "random_segments",
    "steepest",
    "tangent_curvature",
    "with_segment",
]

_DIMENSION = 6
_RIDGE = 0.2

# Of one variable, with their lowest curvatures -1 and -2.
NONCONVEX = {"sin x": lambda x: jnp.sum(jnp.sin(x)), "x⁴ − x²": lambda x: jnp.sum(x**4 - x**2)}


@functools.cache
def logistic_data() -> tuple[np.ndarray, np.ndarray]:
    """Features [60, d] and labels of two overlapping classes."""
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(60) < 0.5, -1.0, 1.0)
    return rng.normal(size=(60, _DIMENSION)) + 0.5 * labels[:, None], labels


def logistic_value(w: np.ndarray) -> np.ndarray:
    """The ridge-logistic objective at weights [..., d], in NumPy."""
    features, labels = logistic_data()
    losses = np.logaddexp(0.0, -labels * (w @ features.T))
    return losses.mean(-1) + 0.5 * _RIDGE * np.sum(w**2, -1)


@functools.cache
def logistic_minimizer() -> np.ndarray:
    """Where it is smallest, to rounding: ten steps of Newton's method in NumPy."""
    features, labels = logistic_data()
    w = np.zeros(_DIMENSION)
    for _ in range(10):
        p = special.expit(-labels * (features @ w))
        gradient = -(labels * p) @ features / len(labels) + _RIDGE * w
        hessian = features.T * (p * (1 - p)) @ features / len(labels) + _RIDGE * np.eye(_DIMENSION)
        w = w - np.linalg.solve(hessian, gradient)
    return w


def quadratic_hessian() -> np.ndarray:
    """Hessian of the quadratic: eigenvalues from 0.5 to 4 in random directions."""
    return rotated([0.5, 0.8, 1.2, 2.0, 3.0, 4.0], seed=1)


def flat_hessian() -> np.ndarray:
    """Hessian of the rank-deficient least squares: eigenvalues 1, 0.64, 0.25, 0.04, 0, 0 in random directions."""
    return rotated([1.0, 0.64, 0.25, 0.04, 0.0, 0.0], seed=2)


CONVEX = ("log-sum-exp", "ridge logistic", "quadratic", "Huber")
SINE = "x² + 3 sin² x"  # not convex
FLAT = "rank-deficient least squares"  # singular values 1, 0.8, 0.5, 0.2, 0, 0

_logistic = functools.partial(optimization.ridge_logistic, ridge=_RIDGE)
_FACTORIES = {
    "log-sum-exp": lambda: optimization.log_sum_exp(jnp.eye(_DIMENSION)),
    "ridge logistic": lambda: _logistic(*map(jnp.asarray, logistic_data())),
    "quadratic": lambda: optimization.quadratic(jnp.asarray(quadratic_hessian())),
    "Huber": lambda: optimization.huber(_DIMENSION),
    SINE: lambda: optimization.sine_quadratic(_DIMENSION),
    FLAT: lambda: optimization.quadratic(jnp.asarray(flat_hessian())),
}


@functools.cache
def problems() -> dict[str, Objective]:
    """The objectives, of six variables each, with their constants.

    The constants are computed in one compiled program; a value function builds its objective each time it is traced.
    """

    @jax.jit
    def constants():
        return {name: make()[1:] for name, make in _FACTORIES.items()}

    with jax.ensure_compile_time_eval():  # the first caller may be a function that is being traced
        return {
            name: Objective(lambda x, name=name: _FACTORIES[name]().value(x), *known)
            for name, known in constants().items()
        }


def steepest(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A point where an objective has its largest curvature, and the unit vector in which direction it has it."""
    origin = np.zeros(_DIMENSION)
    first, second = np.eye(_DIMENSION)[:2]
    if name == "log-sum-exp":  # two terms dominate equally
        return 30 * (first + second), (first - second) / np.sqrt(2)
    if name == "ridge logistic":
        return origin, np.linalg.svd(logistic_data()[0])[2][0]
    if name == "quadratic":
        return origin, np.linalg.eigh(quadratic_hessian())[1][:, -1]
    return origin, first


class Segments(NamedTuple):
    """Segments of given lengths.

    Attributes:
        lengths: shape [r].
        x, y: end points of m segments of each length, shape [r, m, d].
    """

    lengths: np.ndarray
    x: np.ndarray
    y: np.ndarray


def random_segments(key: PRNGKey, budget: int) -> Segments:
    """`budget` segments of each of twelve lengths, around points and in directions that are random."""
    rng = generator(key)
    direction = rng.normal(size=(budget, _DIMENSION))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return _around(2 * rng.normal(size=(budget, _DIMENSION)), direction)


def with_segment(segments: Segments, centre: np.ndarray, direction: np.ndarray) -> Segments:
    """The segments, and one more of each length around a given centre."""
    more = _around(centre[None], direction[None])
    return Segments(segments.lengths, *(np.concatenate([segments[i], more[i]], axis=1) for i in (1, 2)))


def _around(centre: np.ndarray, direction: np.ndarray) -> Segments:
    lengths = np.geomspace(0.1, 30.0, 12)
    half = lengths[:, None, None] / 2 * direction
    return Segments(lengths, centre + half, centre - half)


@functools.partial(jax.jit, static_argnums=(0, 1))
def on_segments(quantity: Callable[..., Array], objective_fn: ObjectiveFn, x: Array, y: Array, *more: Array) -> Array:
    """A quantity of an objective and two points, for all pairs of points in `x` and `y` [r, m, d]."""
    return jax.vmap(jax.vmap(lambda a, b: quantity(objective_fn, a, b, *more)))(x, y)


def tangent_curvature(objective_fn: ObjectiveFn, x: Array, y: Array) -> Array:
    """Curvature of the parabola through f(x) that touches the objective at y."""
    return 2 * convergence.bregman_divergence(objective_fn, x, y) / jnp.sum((x - y) ** 2)
