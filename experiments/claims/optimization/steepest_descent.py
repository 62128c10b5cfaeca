"""Claims about steepest descent."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from scipy import linalg, optimize

from dltheory import optimization
from experiments.claim import Axes, Claim, Variant
from experiments.curves import Curve
from experiments.judges import Equal, Slope

__all__ = ["CLAIMS"]


_POINT = np.array([0.7, -0.4])
_METRIC = np.array([[2.0, 0.6], [0.6, 0.5]])
_RADII = 2.0 ** -np.arange(3, 11)


def _landscape(x):
    """A function of the plane without any symmetry."""
    return np.exp(0.8 * x[0] - 0.3 * x[1]) + 0.5 * np.sin(2 * x[1]) + 0.4 * x[0] * x[1] ** 2


def _landscape_gradient():
    exponential = np.exp(0.8 * _POINT[0] - 0.3 * _POINT[1])
    return np.array(
        [
            0.8 * exponential + 0.4 * _POINT[1] ** 2,
            -0.3 * exponential + np.cos(2 * _POINT[1]) + 0.8 * _POINT[0] * _POINT[1],
        ]
    )


def _best_direction(objective, sphere):
    """Minimiser of ``objective(sphere(angle))`` over all angles: the best of a grid, refined by Brent's method."""
    grid = np.linspace(0, 2 * np.pi, 721)
    best = grid[np.argmin([objective(sphere(angle)) for angle in grid])]
    step = grid[1]
    refined = optimize.brent(
        lambda angle: objective(sphere(angle)), brack=(best - step, best, best + step), tol=1e-12
    )
    return sphere(min((refined, best), key=lambda angle: objective(sphere(angle))))


def _circle(angle):
    return np.array([np.cos(angle), np.sin(angle)])


_METRIC_ROOT = linalg.inv(linalg.sqrtm(_METRIC))
_SPHERES = {
    "l2": _circle,
    "P": lambda angle: _METRIC_ROOT @ _circle(angle),
    "l1": lambda angle: _circle(angle) / np.sum(np.abs(_circle(angle))),
    "linf": lambda angle: _circle(angle) / np.max(np.abs(_circle(angle))),
}


def _limit(norm):
    norm = jnp.asarray(_METRIC) if norm == "P" else norm
    return np.asarray(optimization.steepest_descent_direction(jnp.asarray(_landscape_gradient()), norm))


def _distance_to_limit(limits):
    def best(norm, radius):
        start = _landscape(_POINT)
        return _best_direction(lambda direction: _landscape(_POINT + radius * direction) - start, _SPHERES[norm])

    return {
        f"norm {norm}": Curve([np.linalg.norm(best(norm, radius) - limit) for radius in _RADII], _RADII)
        for norm, limit in limits.items()
    }


def _polyhedral_directions(_):
    start = _landscape(_POINT)
    return {
        f"norm {norm}": _best_direction(lambda delta: _landscape(_POINT + 1e-3 * delta) - start, _SPHERES[norm])
        for norm in ("l1", "linf")
    }


_BOWL = np.diag([1.0, 3.0])  # with its minimum inside the unit circle: on the circle the gradient points outwards
_BOWL_CENTRE = np.array([0.3, 0.1])


def _bowl(x):
    return 0.5 * (x - _BOWL_CENTRE) @ _BOWL @ (x - _BOWL_CENTRE)


def _printed_direction(_):
    """The print: one symbol for the unit direction and the parameters."""
    return _best_direction(lambda theta: _bowl(theta + 1e-6 * theta), _circle)


def _printed_limit(_):
    gradient = _BOWL @ (_printed_direction(_) - _BOWL_CENTRE)
    return -gradient / np.linalg.norm(gradient)


def _corrected_direction(_):
    return _best_direction(lambda delta: _bowl(_POINT + 1e-6 * delta) - _bowl(_POINT), _circle)


def _corrected_limit(_):
    gradient = jnp.asarray(_BOWL @ (_POINT - _BOWL_CENTRE))
    return optimization.steepest_descent_direction(gradient)


CLAIMS = (
    Claim(
        "optimizers.steepest_descent",
        says="The best point of a small circle (and of a small ellipse) lies, up to an angle of the order of the "
        "radius, in the direction of steepest descent for that norm.",
        measure=lambda _: _distance_to_limit({norm: _limit(norm) for norm in ("l2", "P")}),
        predict=lambda _: 1.0,
        judge=Slope(0.1),
        control=Variant(
            "the Euclidean direction for the other norm",
            measure=lambda _: _distance_to_limit({"P": _limit("l2") / np.sqrt(_limit("l2") @ _METRIC @ _limit("l2"))}),
        ),
        axes=Axes("radius", "distance to the limit", log="xy"),
    ),
    Claim(
        "optimizers.steepest_descent",
        part="other norms",
        says="The best point of a small diamond is a corner on an axis, that of a small square a corner on a diagonal.",
        measure=_polyhedral_directions,
        predict=lambda _: {f"norm {norm}": _limit(norm) for norm in ("l1", "linf")},
        judge=Equal(rtol=0.0, atol=1e-6),
        control=Variant(
            "the Euclidean direction", predict=lambda _: {f"norm {norm}": _limit("l2") for norm in ("l1", "linf")}
        ),
        axes=Axes("coordinate", "direction"),
    ),
    Claim(
        "optimizers.steepest_descent@printed",
        says="With one symbol for direction and parameters, the minimiser on the unit circle is minus its own "
        "normalised gradient.",
        measure=_printed_direction,
        predict=_printed_limit,
        judge=Equal(rtol=0.0, atol=1e-4),
        control=Variant("towards the minimum", predict=lambda _: _BOWL_CENTRE / np.linalg.norm(_BOWL_CENTRE)),
        corrected=Variant(
            "a direction of its own, at a fixed point", measure=_corrected_direction, predict=_corrected_limit
        ),
        axes=Axes("coordinate", "direction"),
    ),
)
