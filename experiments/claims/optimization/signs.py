"""Claims about sign descent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import optimization
from experiments.claim import Axes, Budget, Claim, Variant
from experiments.claims.optimization._problems import logistic_data, rotated
from experiments.curves import Curve, estimate
from experiments.judges import AtLeast, AtMost, Mean

__all__ = ["CLAIMS"]


@jax.jit
def _sign_runs():
    """Function values and gradients along sign descent on problems with known smoothness."""
    features, labels = map(jnp.asarray, logistic_data(1, 30, 5))
    sphere = optimization.quadratic(2 * jnp.eye(5))
    problems = {
        "sphere": (sphere, jnp.array([-1.0, -0.6, 0.4, 0.8, 1.0])),
        "quadratic": (optimization.quadratic(jnp.asarray(rotated([0.2, 0.5, 1, 2, 4], 1))), jnp.ones(5)),
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


CLAIMS = (
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
