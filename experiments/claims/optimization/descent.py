"""Claims about steepest descent, gradient descent and sign descent."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg, optimize

from dltheory import optimization
from experiments.claim import Axes, Budget, Claim, Variant
from experiments.claims.optimization._problems import logistic_data
from experiments.curves import Curve, estimate
from experiments.judges import AtLeast, AtMost, Equal, Mean, Slope

__all__ = ["CLAIMS"]


# Steepest descent: directions in the plane found by minimising over angles, without any derivative.

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


_STEEPEST_DESCENT = (
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


# Gradient descent.

_SPECTRUM = np.array([0.5, 1.5, 4.0])
_START = np.array([1.0, -2.0, 1.5])
_RATES = np.array([0.05, 0.45])
_STEPS = 40


def _rotated(spectrum, seed):
    """A symmetric matrix with the given eigenvalues and random eigenvectors."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(spectrum), len(spectrum))))[0]
    return basis @ np.diag(spectrum) @ basis.T


_HESSIAN = _rotated(_SPECTRUM, seed=0)


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
    features, labels = logistic_data(jax.random.key(0), 20, 3)
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
    hessians = np.array([_rotated([0.3 * top, 0.6 * top, top], seed=7) for top in _SHARPEST])
    return Curve(jax.vmap(_divergence_threshold)(jnp.asarray(hessians)), _SHARPEST)


_GRADIENT_DESCENT = (
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


# Sign descent.


@jax.jit
def _sign_runs():
    """Function values and gradients along sign descent on problems with known smoothness."""
    features, labels = logistic_data(jax.random.key(1), 30, 5)
    sphere = optimization.quadratic(2 * jnp.eye(5))
    problems = {
        "sphere": (sphere, jnp.array([-1.0, -0.6, 0.4, 0.8, 1.0])),
        "quadratic": (optimization.quadratic(jnp.asarray(_rotated([0.2, 0.5, 1, 2, 4], 1))), jnp.ones(5)),
        "logistic": (optimization.ridge_logistic(features, labels, 0.1), 2 * jnp.ones(5)),
        "nonconvex": (optimization.sine_quadratic(5), jnp.linspace(1.0, 3.0, 5)),
    }
    runs = {}
    for name, (problem, start) in problems.items():
        run = optimization.run_optimizer(optimization.sign_sgd(_SIGN_RATE), problem.value, start, 30)
        runs[name] = run.value, jax.vmap(jax.grad(problem.value))(run.params), problem.smoothness
    return runs


_SIGN_RATE = 0.03


def _sign_decrease(_):
    return {name: Curve(value[:-1] - value[1:], np.arange(30)) for name, (value, *_) in _sign_runs().items()}


def _sign_bound(curvature):
    return lambda _: {
        name: _SIGN_RATE * np.abs(gradient[:-1]).sum(1) - curvature * _SIGN_RATE**2 * smoothness * 5 / 2
        for name, (_, gradient, smoothness) in jax.tree.map(np.asarray, _sign_runs()).items()
    }


_SLOPES = np.array([4.0, -1.0, -1.0, -1.0])  # of the components; their mean, 1/4, points to -1
_WALK_RATE = 0.05
_WALK_STEPS = 240
_SHOWN = np.arange(0, _WALK_STEPS + 1, 20)


@jax.jit
def _sign_walks(keys):
    """Sign descent on linear components over [-1, 1], one run a key."""

    def walk(key):
        slopes = jax.random.choice(key, jnp.asarray(_SLOPES), (_WALK_STEPS,))
        optimizer = optimization.sign_sgd(_WALK_RATE)
        box = lambda x: jnp.clip(x, -1.0, 1.0)  # noqa: E731
        path = optimization.run_online(optimizer, lambda x, slope: slope * x, jnp.array(0.0), slopes, box).params
        return path[_SHOWN]

    return jax.vmap(walk)(keys)


def _walk_means(chances):
    """Exact means of the walk on the grid of the box that goes up with the first chance and down with the second."""
    up, down = chances
    points = np.linspace(-1, 1, round(2 / _WALK_RATE) + 1)
    size = len(points)
    transition = up * np.eye(size, k=1) + down * np.eye(size, k=-1)
    transition[0, 0], transition[-1, -1] = down, up
    law = np.eye(size)[size // 2]
    means = []
    for _ in range(_WALK_STEPS + 1):
        means.append(law @ points)
        law = law @ transition
    return np.array(means)[_SHOWN]


_VALLEY = 0.25
_FEEDBACK_RATE = 0.02
_FEEDBACK_STEPS = 2000
_AVERAGED = np.unique(np.geomspace(1, _FEEDBACK_STEPS, 40).astype(int))


def _valley(x):
    """|x1 - x2| + eps |x1 + x2|: the sign of every gradient lies on one diagonal (Karimireddy et al. 2019)."""
    return jnp.abs(x[0] - x[1]) + _VALLEY * jnp.abs(x[0] + x[1])


def _average_gaps(optimizer):
    def gaps(_):
        path = jax.jit(lambda x: optimization.run_optimizer(optimizer, _valley, x, _FEEDBACK_STEPS).params)(
            jnp.array([1.0, 1.0 + _FEEDBACK_RATE / 3])
        )
        counts = np.arange(1, _FEEDBACK_STEPS + 2)[:, None]
        averages = np.cumsum(np.asarray(path), axis=0) / counts
        return Curve(jax.vmap(_valley)(averages[_AVERAGED]), _AVERAGED)

    return gaps


def _feedback_bound(_):
    """Regret of the error-free sequence, plus gradient bound G times the largest error that feedback can pile up.

    Distance^2 / (2 eta T) + eta G^2 (1/2 + q / (1 - q)) with q = sqrt(1 - 1/d).
    """
    distance = 1 + (1 + _FEEDBACK_RATE / 3) ** 2
    gradient = 2 * (1 + _VALLEY**2)
    q = np.sqrt(1 - 1 / 2)
    return distance / (2 * _FEEDBACK_RATE * (_AVERAGED + 1)) + _FEEDBACK_RATE * gradient * (0.5 + q / (1 - q))


_SIGN_DESCENT = (
    Claim(
        "optimizers.sign_sgd",
        says="Every full-batch step lowers an L-smooth function by at least eta ||grad||_1 - eta^2 L d / 2.",
        measure=_sign_decrease,
        predict=_sign_bound(1),
        judge=AtLeast(atol=1e-13),
        control=Variant("without the term for curvature", predict=_sign_bound(0)),
        axes=Axes("step", "decrease of f"),
    ),
    Claim(
        "optimizers.sign_sgd",
        part="bias",
        says="On components with slopes 4, -1, -1, -1 the mean of sign descent follows the walk that goes up three "
        "times out of four: to the maximum.",
        setup=lambda key, budget: jax.random.split(key, budget),
        measure=lambda keys: estimate(_sign_walks(keys), _SHOWN),
        predict=lambda _: _walk_means((0.75, 0.25)),
        judge=Mean(resolution=0.1, floor=0.1),
        control=Variant("a walk that follows the mean gradient", predict=lambda _: _walk_means((0.25, 0.75))),
        budget=Budget(quick=4000, full=400_000),
        axes=Axes("step", "mean of the parameter"),
    ),
    Claim(
        "optimizers.sign_sgd",
        part="error feedback",
        says="In a valley along a diagonal the average iterate of error feedback comes within the bound of the "
        "minimum, while sign descent never moves along the valley.",
        measure=_average_gaps(optimization.error_feedback_sign_sgd(_FEEDBACK_RATE)),
        predict=_feedback_bound,
        judge=AtMost(),
        control=Variant("plain sign descent", measure=_average_gaps(optimization.sign_sgd(_FEEDBACK_RATE))),
        axes=Axes("steps", "f at the average iterate", log="xy"),
    ),
)


CLAIMS = tuple(itertools.chain(_STEEPEST_DESCENT, _GRADIENT_DESCENT, _SIGN_DESCENT))
