"""Claims about one step of SGD, and about the neighbourhood that a constant step size reaches."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from dltheory import convergence
from experiments.claim import Assumption, Axes, Budget, Claim, Variant, generator
from experiments.curves import Curve, estimate
from experiments.judges import AtMost, Equal, MeanAtMost, Slope

__all__ = ["CLAIMS"]


# One step, seen from theta*: all examples enumerated.


class _Step(NamedTuple):
    """Parameters [m, d], the optimum [d], and the gradients of all examples at each of the parameters [m, n, d]."""

    params: np.ndarray
    optimum: np.ndarray
    gradients: np.ndarray


def _least_squares_steps(key, budget):
    rng = generator(key)
    features, targets = rng.normal(size=(12, 4)), rng.normal(size=12)
    optimum = np.linalg.lstsq(features, targets)[0]
    params = optimum + np.linspace(0.2, 3.0, budget)[:, None] * rng.normal(size=(budget, 4))
    errors = params @ features.T - targets
    return _Step(params, optimum, errors[:, :, None] * features)


def _enumerated_progress(at, i, learning_rate):
    """By how much a step from the i-th parameters shrinks the squared distance, averaged over the examples."""
    offset = at.params[i] - at.optimum
    moved = offset - learning_rate * at.gradients[i]
    return offset @ offset - np.mean(np.sum(moved**2, axis=1))


_RATES = np.linspace(0.0, 1.0, 21)


def _progress(at):
    return {f"start {i + 1}": Curve([_enumerated_progress(at, i, rate) for rate in _RATES], _RATES) for i in range(3)}


def _progress_identity(at):
    progress = jax.vmap(convergence.sgd_expected_progress, in_axes=(None, None, None, 0))
    return {
        f"start {i + 1}": Curve(progress(at.gradients[i], at.params[i], at.optimum, jnp.asarray(_RATES)), _RATES)
        for i in range(3)
    }


def _progress_of_the_mean(at):
    """The identity with ||E grad||^2 in the place of E||grad||^2."""
    means = np.broadcast_to(at.gradients.mean(1, keepdims=True), at.gradients.shape)
    return _progress_identity(at._replace(gradients=means))


def _sign_changes(at):
    """The positive step size at which the enumerated progress is zero."""
    roots = []
    for i in range(len(at.params)):
        upper = 1e-3
        while _enumerated_progress(at, i, upper) > 0:
            upper *= 2
        roots.append(optimize.brentq(lambda rate, i=i: _enumerated_progress(at, i, rate) / rate, upper / 1e3, upper))
    return Curve(roots, np.linalg.norm(at.params - at.optimum, axis=1))


def _thresholds(at):
    return jax.vmap(convergence.sgd_progress_threshold, in_axes=(0, 0, None))(at.gradients, at.params, at.optimum)


# Constant steps on scalar quadratics, whose moments are known without sampling.


class _Quadratics(NamedTuple):
    """Components a_k / 2 (theta - c_k)^2, a start, and a step size."""

    curvatures: tuple[float, ...]
    minimizers: tuple[float, ...]
    start: float
    learning_rate: float

    @property
    def optimum(self):
        return float(np.dot(self.curvatures, self.minimizers) / np.sum(self.curvatures))

    @property
    def strong_convexity(self):
        return float(np.mean(self.curvatures))

    @property
    def smoothness(self):
        return float(np.max(np.abs(self.curvatures)))

    def noise(self, theta):
        """sigma^2 at theta."""
        return float(np.var(np.array(self.curvatures) * (theta - np.array(self.minimizers))))


_TIMES = np.arange(61)
_moments = jax.jit(functools.partial(convergence.exact_sgd_moments, num_steps=60))
_STEP_SIZES = (0.01, 0.05, 0.15, 0.3)


def _setting(learning_rate):
    return _Quadratics((1.0, 3.0), (-1.0, 1.0), start=4.0, learning_rate=learning_rate)


def _settings(*_):
    return {f"η = {rate}": _setting(rate) for rate in _STEP_SIZES}


def _second_moments(settings):
    curves = {}
    for name, s in settings.items():
        moments = _moments(jnp.asarray(s.curvatures), jnp.asarray(s.minimizers), s.learning_rate, s.start)
        curves[name] = Curve(moments.second_moment, _TIMES)
    return curves


def _bounds(settings, noisy=True):
    bounds = {}
    for name, s in settings.items():
        noise = s.noise(s.optimum) if noisy else 0.0
        at = convergence.sgd_quasi_convergence(s.strong_convexity, s.smoothness, noise, s.learning_rate)
        bounds[name] = at.contraction**_TIMES * (s.start - s.optimum) ** 2 + at.radius
    return bounds


def _printed_bounds(settings, at_start=False):
    """A and B by their printed formulas, whatever the step size; sigma^2 at the optimum or at the start."""
    bounds = {}
    for name, s in settings.items():
        slack = 1 - s.learning_rate * s.smoothness
        contraction = 1 - 2 * s.learning_rate * s.strong_convexity * slack
        radius = s.learning_rate * s.noise(s.start if at_start else s.optimum) / (s.strong_convexity * slack)
        bounds[name] = contraction**_TIMES * (s.start - s.optimum) ** 2 + radius
    return bounds


def _gradient_descent(settings):
    """The squared distance of full gradient descent."""
    return {
        name: (1 - s.learning_rate * s.strong_convexity) ** (2.0 * _TIMES) * (s.start - s.optimum) ** 2
        for name, s in settings.items()
    }


_SMALL = 2.0 ** -np.arange(3, 10)


@jax.jit
def _stationary_moments(learning_rates, curvatures, minimizers):
    def last(rate):
        return convergence.exact_sgd_moments(curvatures, minimizers, rate, 0.0, num_steps=8000).second_moment[-1]

    return jax.vmap(last)(learning_rates)


def _radii(_):
    return Curve(_stationary_moments(jnp.asarray(_SMALL), jnp.array([1.0, 3.0]), jnp.array([-1.0, 1.0])), _SMALL)


# Constant steps on least squares in ten dimensions, sampled.


class _LeastSquares(NamedTuple):
    """Features [n, d], targets [n], their minimiser [d], and the constants of the theorem."""

    rng: np.random.Generator
    runs: int
    features: np.ndarray
    targets: np.ndarray
    optimum: np.ndarray
    strong_convexity: float
    smoothness: float
    noise: float


def _least_squares(key, budget):
    rng = generator(key)
    features = rng.normal(size=(60, 10))
    features /= np.linalg.norm(features, axis=1, keepdims=True) / rng.uniform(0.7, 1.0, (60, 1))
    targets = features @ rng.normal(size=10) + 0.3 * rng.normal(size=60)
    optimum = np.linalg.lstsq(features, targets)[0]
    gradients = (features @ optimum - targets)[:, None] * features
    return _LeastSquares(
        rng,
        budget,
        features,
        targets,
        optimum,
        strong_convexity=float(np.linalg.eigvalsh(features.T @ features / 60)[0]),
        smoothness=float(np.max(np.sum(features**2, axis=1))),
        noise=float(convergence.gradient_noise(jnp.asarray(gradients))),
    )


_SAMPLED = {"η = 0.2 / L": 0.2, "η = 0.7 / L": 0.7}
_MARKS = tuple(2**k for k in range(10))


def _sampled_distances(problem):
    curves = {}
    for name, factor in _SAMPLED.items():
        theta = np.zeros((problem.runs, 10))
        distances = []
        for t in range(1, _MARKS[-1] + 1):
            drawn = problem.rng.integers(0, 60, problem.runs)
            row = problem.features[drawn]
            error = np.sum(row * theta, axis=1) - problem.targets[drawn]
            theta -= factor / problem.smoothness * error[:, None] * row
            if t in _MARKS:
                distances.append(np.sum((theta - problem.optimum) ** 2, axis=1))
        curves[name] = estimate(np.transpose(distances), _MARKS)
    return curves


def _sampled_bounds(problem, noisy=True):
    bounds = {}
    for name, factor in _SAMPLED.items():
        at = convergence.sgd_quasi_convergence(
            problem.strong_convexity, problem.smoothness, problem.noise * noisy, factor / problem.smoothness
        )
        bounds[name] = at.contraction ** np.array(_MARKS) * np.sum(problem.optimum**2) + at.radius
    return bounds


_DISTANCE = r"$\mathbb{E}\,\|\theta_t - \theta^*\|^2$"
_AXES = Axes("step t", _DISTANCE, log="y")

CLAIMS = (
    Claim(
        "convergence.sgd_distance_identity",
        says="The expected shrinkage of the squared distance is 2η⟨θ−θ*, E∇f⟩ − η² E‖∇f‖², all examples enumerated.",
        setup=_least_squares_steps,
        measure=_progress,
        predict=_progress_identity,
        judge=Equal(rtol=1e-10, atol=1e-11),
        control=Variant("‖E∇f‖² in the place of E‖∇f‖²", predict=_progress_of_the_mean),
        budget=Budget(quick=3, full=3),
        axes=Axes("step size η", "expected progress"),
    ),
    Claim(
        "convergence.sgd_distance_identity",
        part="threshold",
        says="Progress changes its sign exactly at η = 2⟨θ−θ*, E∇f⟩ / E‖∇f‖².",
        setup=_least_squares_steps,
        measure=_sign_changes,
        predict=_thresholds,
        judge=Equal(rtol=1e-9),
        control=Variant("half of it, where progress is largest", predict=lambda at: _thresholds(at) / 2),
        budget=Budget(quick=30, full=1000),
        axes=Axes("distance ‖θ−θ*‖", "step size without progress"),
    ),
    Claim(
        "convergence.sgd_quasi_convergence",
        says="The exact second moment of SGD on two quadratics stays below A^t ‖θ₀−θ*‖² + B for step sizes below 1/L.",
        setup=_settings,
        measure=_second_moments,
        predict=_bounds,
        judge=AtMost(),
        control=Variant("no noise at the optimum", predict=lambda settings: _bounds(settings, noisy=False)),
        assumptions=(
            Assumption("η < 1/L", lambda settings: [s.learning_rate * s.smoothness < 1 for s in settings.values()]),
            Assumption("convex components", lambda settings: [min(s.curvatures) >= 0 for s in settings.values()]),
        ),
        axes=_AXES,
    ),
    Claim(
        "convergence.sgd_quasi_convergence",
        part="least squares",
        says="Sampled runs on least squares in ten dimensions stay below it on average.",
        setup=_least_squares,
        measure=_sampled_distances,
        predict=_sampled_bounds,
        judge=MeanAtMost(),
        control=Variant("no noise at the optimum", predict=lambda problem: _sampled_bounds(problem, noisy=False)),
        assumptions=(Assumption("strongly convex mean", lambda problem: problem.strong_convexity > 1e-3),),
        budget=Budget(quick=1000, full=50_000),
        axes=Axes("step t", _DISTANCE, log="xy"),
    ),
    Claim(
        "convergence.sgd_quasi_convergence",
        part="radius",
        says="The squared radius of the neighbourhood is proportional to the step size, as B is for small ones.",
        measure=_radii,
        predict=lambda _: 1.0,
        judge=Slope(tolerance=0.05),
        control=Variant("proportional to its square", predict=lambda _: 2.0),
        axes=Axes("step size η", r"$\mathbb{E}\,\|\theta_\infty - \theta^*\|^2$", log="xy"),
    ),
    Claim(
        "convergence.sgd_quasi_convergence@printed",
        part="step size",
        says="The bound holds for step sizes up to 1/μ, here η = 0.45 with 1/L = 1/3 and 1/μ = 1/2.",
        setup=lambda *_: {"start at θ*": _setting(0.45)._replace(start=0.5)},
        measure=_second_moments,
        predict=_printed_bounds,
        judge=AtMost(),
        control=Variant("full gradients, without noise", predict=_gradient_descent),
        corrected=Variant(
            "η = 0.3 < 1/L", setup=lambda *_: {"start at θ*": _setting(0.3)._replace(start=0.5)}, predict=_bounds
        ),
        axes=Axes("step t", _DISTANCE),
    ),
    Claim(
        "convergence.sgd_quasi_convergence@printed",
        part="components",
        says="The bound needs no convex components, here curvatures 2 and −1 with a common stationary point.",
        setup=lambda *_: {"curvatures 2, −1": _Quadratics((2.0, -1.0), (0.0, 0.0), 1.0, 0.25)},
        measure=_second_moments,
        predict=_printed_bounds,
        judge=AtMost(),
        control=Variant("full gradients", predict=_gradient_descent),
        corrected=Variant(
            "curvatures 1 and 0",
            setup=lambda *_: {"curvatures 1, 0": _Quadratics((1.0, 0.0), (0.0, 0.0), 1.0, 0.25)},
            predict=_bounds,
        ),
        axes=_AXES,
    ),
    Claim(
        "convergence.sgd_quasi_convergence@printed",
        part="noise",
        says="σ² may be taken where SGD starts, here where both gradients agree and σ² = 0.",
        setup=lambda *_: {"η = 0.2": _Quadratics((1.0, 3.0), (-3.0, -1.0), 0.0, 0.2)},
        measure=_second_moments,
        predict=lambda settings: _printed_bounds(settings, at_start=True),
        judge=AtMost(),
        control=Variant("full gradients", predict=_gradient_descent),
        corrected=Variant("σ² at the optimum", predict=_bounds),
        axes=_AXES,
    ),
)
