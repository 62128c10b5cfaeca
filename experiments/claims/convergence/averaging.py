"""Claims about averaged stochastic gradient descent: what averaging does, and three rates that need the right steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from dltheory import convergence, optimization
from experiments.claim import Assumption, Axes, Budget, Claim, Variant, generator
from experiments.curves import Curve, estimate
from experiments.judges import Equal, Mean, MeanAtMost, Slope

__all__ = ["CLAIMS"]

_GAP = "E f − f*"


# Running averages of SGD on theta^2 / 2 + noise * theta with steps t^(-2/3).

_RUN, _SUFFIX, _DECAY = 200, 0.4, 0.9
_POWER = 2 / 3


def _noise(key, budget):
    del budget
    return generator(key).normal(size=_RUN)


def _loss(theta, noise):
    return 0.5 * theta**2 + noise * theta


@jax.jit
def _running_averages(noise):
    sgd = optimization.gradient_descent(convergence.inverse_power_schedule(1.0, _POWER))
    averaged = {
        "all iterates": convergence.polyak_average(sgd),
        "the last 40 %": convergence.suffix_average(sgd, _RUN + 1, _SUFFIX),
        "exponential": convergence.ema(sgd, _DECAY),
    }
    start = jnp.ones(())
    runs = {name: optimization.run_online(optimizer, _loss, start, noise) for name, optimizer in averaged.items()}
    return {name: _state(run).average for name, run in runs.items()}


def _state(run: optimization.Trajectory) -> Any:
    return run.state


def _sgd_path(noise):
    """Iterates theta_1, ..., theta_{n+1} and the steps eta_t grad_t between them, in NumPy."""
    theta, path, steps = 1.0, [1.0], []
    for t, xi in enumerate(noise, start=1):
        steps.append(t**-_POWER * (theta + xi))
        theta = theta - steps[-1]
        path.append(theta)
    return np.array(path), np.array(steps)


def _batch_averages(noise, skip_start=False):
    path, _ = _sgd_path(noise)
    counts = np.arange(1, _RUN + 2)
    first = _RUN + 1 - int(np.ceil(_SUFFIX * (_RUN + 1)))
    exponential = [path[0]]
    for theta in path[1:]:
        exponential.append(_DECAY * exponential[-1] + (1 - _DECAY) * theta)
    everything = np.append(path[0], np.cumsum(path[1:]) / counts[:-1]) if skip_start else np.cumsum(path) / counts
    return {
        "all iterates": everything,
        "the last 40 %": [path[t] if t <= first else path[first : t + 1].mean() for t in range(_RUN + 1)],
        "exponential": exponential,
    }


class _Recursion(NamedTuple):
    """theta_t, its running mean, the step eta_t grad_t, and t + 1, all for t = 1, ..., n."""

    theta: np.ndarray
    mean: np.ndarray
    step: np.ndarray
    following: np.ndarray


def _recursion(noise):
    path, steps = _sgd_path(noise)
    counts = np.arange(1, _RUN + 1)
    return _Recursion(path[:-1], np.cumsum(path[:-1]) / counts, steps, counts + 1), path


def _next_means(noise):
    at, path = _recursion(noise)
    return Curve(np.cumsum(path)[1:] / at.following, at.following)


def _mean_increments(noise):
    at, _ = _recursion(noise)
    return Curve(_next_means(noise).y - at.mean, at.following)


def _printed_increments(noise):
    at, _ = _recursion(noise)
    return -at.step / at.following


def _corrected_increments(noise):
    at, _ = _recursion(noise)
    return (at.theta - at.mean - at.step) / at.following


# Exact variances: iterates and averages are linear in the noise, so that derivatives give their variance.

_COUNTS = 2 ** np.arange(4, 14)


@jax.jit
def _variances(power):
    """Variance of the running average and of the last iterate after n steps, for unit white noise."""

    def sampled(noise):
        sgd = optimization.gradient_descent(convergence.inverse_power_schedule(1.0, power))
        run = optimization.run_online(convergence.polyak_average(sgd), _loss, jnp.zeros(()), noise)
        return jnp.stack([_state(run).average[_COUNTS], run.params[_COUNTS]])

    return jnp.sum(jax.jacrev(sampled)(jnp.zeros(_COUNTS[-1])) ** 2, axis=-1)


def _scaled_variances(power):
    average, last = _variances(power)
    return {"average": Curve(_COUNTS * average, _COUNTS), "last iterate": Curve(_COUNTS * last, _COUNTS)}


def _doubled(_):
    harmonic = np.cumsum(1 / np.arange(1, _COUNTS[-1] + 1))[_COUNTS - 1]
    return {"average": _COUNTS * (2 * _COUNTS - harmonic) / (_COUNTS + 1) ** 2, "last iterate": 1.0}


def _variance_curves(power):
    average, last = _variances(power)
    late = _COUNTS >= 128
    return {"average": Curve(average[late], _COUNTS[late]), "last iterate": Curve(last[late], _COUNTS[late])}


def _excess(power):
    average, _ = _variances(power)
    late = _COUNTS >= 512
    return Curve((_COUNTS * average - 1)[late], _COUNTS[late])


# Projected SGD, many runs at once.


class _Problem(NamedTuple):
    """A stochastic problem on the box of a given half-width.

    Attributes:
        value: f at parameters [..., d], less its minimum.
        gradient: (generator, parameters [n, d]) -> stochastic gradients [n, d].
        start: theta_1, shape [d].
        half_width: of the box.
        gradient_bound: G with E||g||^2 <= G^2 on the box.
    """

    value: Callable[[np.ndarray], np.ndarray]
    gradient: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    start: np.ndarray
    half_width: float
    gradient_bound: float

    @property
    def diameter(self):
        return 2 * self.half_width * np.sqrt(len(self.start))


def _signs(rng, shape):
    return rng.integers(0, 2, shape) * 2.0 - 1.0


def _absolute_value(slope):
    return _Problem(
        lambda theta: slope * np.abs(theta[..., 0]),
        lambda rng, theta: slope * np.sign(theta) + _signs(rng, theta.shape),
        np.ones(1),
        1.0,
        np.sqrt(slope**2 + 1),
    )


def _quadratic(curvature, slope=0.0):
    """(mu / 2) theta^2 + slope |theta|, with noise of unit variance."""
    return _Problem(
        lambda theta: curvature / 2 * theta[..., 0] ** 2 + slope * np.abs(theta[..., 0]),
        lambda rng, theta: curvature * theta + slope * np.sign(theta) + _signs(rng, theta.shape),
        np.ones(1),
        1.0,
        np.sqrt((curvature + slope) ** 2 + 1),
    )


@functools.cache
def _hinge():
    """A support vector machine without penalty: 30 points in the unit ball of R^3, minimised by a linear program."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(30, 3))
    points /= np.maximum(np.linalg.norm(points, axis=1), 1.0)[:, None]
    labels = np.sign(points[:, 0] + 0.5 * rng.normal(size=30))
    signed, half_width = labels[:, None] * points, 2.0
    program = optimize.linprog(
        np.append(np.zeros(3), np.full(30, 1 / 30)),
        A_ub=-np.hstack([signed, np.eye(30)]),
        b_ub=-np.ones(30),
        bounds=[(-half_width, half_width)] * 3 + [(0, None)] * 30,
    )

    def gradient(rng, theta):
        drawn = signed[rng.integers(0, 30, len(theta))]
        return -drawn * (np.sum(drawn * theta, 1, keepdims=True) < 1)

    def value(theta):
        return np.maximum(1 - theta @ signed.T, 0).mean(-1) - program.fun

    return _Problem(value, gradient, np.zeros(3), half_width, 1.0)


def _sgd(rng, runs, problem, step_fn, times):
    """The gap at the average of theta_1, ..., theta_T and at theta_T, for each T in `times`: [T, runs] each."""
    theta = np.tile(problem.start, (runs, 1))
    total = np.zeros_like(theta)
    averaged, last = [], []
    for t in range(1, times[-1] + 1):
        total += theta
        if t in times:
            averaged.append(problem.value(total / t))
            last.append(problem.value(theta))
        theta = theta - step_fn(t) * problem.gradient(rng, theta)
        np.clip(theta, -problem.half_width, problem.half_width, out=theta)
    return np.array(averaged), np.array(last)


def _gap_curves(draw, problems, step_fn, times, *, last=False):
    """Mean gaps over `draw.budget` runs; `step_fn` makes the step sizes from the problem's name."""
    rng = generator(draw.key)
    curves = {}
    for name, problem in problems.items():
        gaps = _sgd(rng, draw.budget, problem, step_fn(name), times)[int(last)]
        curves[name] = estimate(gaps.T, times)
    return curves


def _bounded_gradients(problems):
    """The premise that E||g||^2 <= G^2, measured at places in the box and in its corners with 2000 draws each."""

    def holds(draw):
        rng = generator(draw.key)
        for problem in problems().values():
            d = len(problem.start)
            places = problem.half_width * np.vstack([rng.uniform(-1, 1, (20, d)), _signs(rng, (10, d))])
            squares = np.sum(problem.gradient(rng, np.repeat(places, 2000, axis=0)) ** 2, axis=1)
            if np.max(squares.reshape(30, 2000).mean(1)) > 1.1 * problem.gradient_bound**2:
                return False
        return True

    return (Assumption("E‖g‖² ≤ G²", holds),)


_RUNS = Budget(quick=400, full=10_000)
_TIMES = tuple(2**k for k in range(6, 13))
_LONG_TIMES = (*_TIMES, 2**13)


# Convex: steps c / sqrt(t).


def _convex():
    return {"|θ|": _absolute_value(1.0), "|θ| / 20": _absolute_value(0.05), "hinge loss": _hinge()}


def _best_scale(problem):
    return problem.diameter / (np.sqrt(2) * problem.gradient_bound)


def _convex_gaps(draw, names, power=0.5):
    chosen = {name: _convex()[name] for name in names}
    return _gap_curves(draw, chosen, lambda name: lambda t: _best_scale(_convex()[name]) * t**-power, _LONG_TIMES)


def _convex_bounds(_, power=0.5):
    bounds = {}
    for name, problem in _convex().items():
        bound = functools.partial(
            convergence.sgd_convex_bound,
            float(problem.diameter),
            float(problem.gradient_bound),
            float(_best_scale(problem)),
        )
        bounds[name] = [bound(float(t) ** (2 * power)) for t in _LONG_TIMES]
    return bounds


_PRINTED_TIMES = tuple(2**k for k in range(6, 17))


def _quartic(power):
    """The gap of x^4 / 4 at the average of gradient descent from 1/2 with steps t^-power."""
    x, total, gaps = 0.5, 0.0, []
    for t in range(1, _PRINTED_TIMES[-1] + 1):
        total += x
        if t in _PRINTED_TIMES:
            gaps.append((total / t) ** 4 / 4)
        x -= t**-power * x**3
    return Curve(gaps, _PRINTED_TIMES)


# Strongly convex: steps 1 / (mu t).

_CURVATURE = 0.5


def _strongly_convex():
    return {"θ²/4": _quadratic(_CURVATURE), "θ²/4 + |θ|": _quadratic(_CURVATURE, 1.0)}


def _strongly_convex_gaps(draw, factor=1.0):
    """With steps factor / (mu t)."""
    return _gap_curves(draw, _strongly_convex(), lambda _: lambda t: factor / (_CURVATURE * t), _LONG_TIMES)


def _strongly_convex_bounds(_):
    bound = convergence.sgd_strongly_convex_bound
    return {
        name: [bound(float(problem.gradient_bound), _CURVATURE, float(t)) for t in _LONG_TIMES]
        for name, problem in _strongly_convex().items()
    }


def _slope_of_log_over_t(times):
    x, y = np.log(times), np.log((1 + np.log(times)) / times)
    return float(np.polyfit(x, y, 1)[0])


def _decay_without_noise(scale, power=1.0):
    """The gap of theta^2 / 2 at the average and at the last iterate, from 1, with steps scale / t^power."""
    steps = scale * np.arange(1, _PRINTED_TIMES[-1]) ** -float(power)
    path = np.append(1.0, np.cumprod(1 - steps))
    at = np.array(_PRINTED_TIMES) - 1
    average = (np.cumsum(path) / np.arange(1, len(path) + 1))[at]
    return {
        "average": Curve(average**2 / 2, _PRINTED_TIMES),
        "last iterate": Curve(path[at] ** 2 / 2, _PRINTED_TIMES),
    }


# Smooth as well.

_EXACT_TIMES = tuple(2**k for k in range(3, 11))


def _gaussian_quadratic():
    """theta^2 / 2 from its minimum, with Gaussian noise, on a box that is never left."""

    def gradient(rng, theta):
        return theta + rng.normal(size=theta.shape)

    return _Problem(lambda theta: theta[..., 0] ** 2 / 2, gradient, np.zeros(1), 99.0, np.inf)


def _harmonic_steps(draw):
    averaged, last = _sgd(generator(draw.key), draw.budget, _gaussian_quadratic(), lambda t: 1 / t, _EXACT_TIMES)
    return {"average": estimate(averaged.T, _EXACT_TIMES), "last iterate": estimate(last.T, _EXACT_TIMES)}


def _harmonic_gaps(_):
    n = np.array(_EXACT_TIMES) - 1  # steps taken
    harmonic = np.cumsum(1 / np.arange(1, n[-1] + 1))[n - 1]
    return {"average": (2 * n - harmonic) / (2 * (n + 1) ** 2), "last iterate": 1 / (2 * n)}


@functools.cache
def _least_squares():
    """Five weights, 50 examples in batches of 5; the design is whitened, so that mu = L = 1."""
    rng = np.random.default_rng(4)
    features = np.linalg.qr(rng.normal(size=(50, 5)))[0] * np.sqrt(50)
    residuals = rng.normal(size=50)
    residuals -= features @ (features.T @ residuals) / 50

    def gradient(rng, theta):
        drawn = rng.integers(0, 50, (len(theta), 5))
        batch = features[drawn]
        error = np.einsum("nrd,nd->nr", batch, theta) - residuals[drawn]
        return np.einsum("nrd,nr->nd", batch, error) / 5

    return _Problem(lambda theta: np.sum(theta**2, -1) / 2, gradient, np.full(5, 0.1), 99.0, np.inf)


def _least_squares_gaps(draw, scale=1.0):
    averaged, last = _sgd(generator(draw.key), draw.budget, _least_squares(), lambda t: scale / t, _TIMES)
    return {"average": estimate(averaged.T, _TIMES), "last iterate": estimate(last.T, _TIMES)}


_CURVATURES = {"θ²/4": 0.5, "θ²": 2.0}


def _smooth():
    return {name: _quadratic(curvature) for name, curvature in _CURVATURES.items()}


def _smooth_gaps(draw, factor=1.0):
    return _gap_curves(draw, _smooth(), lambda name: lambda t: factor / (_CURVATURES[name] * t), _TIMES, last=True)


def _smooth_bounds(_):
    bound = convergence.sgd_smooth_bound
    return {
        name: [bound(float(_quadratic(mu).gradient_bound), mu, mu, float(t)) for t in _TIMES]
        for name, mu in _CURVATURES.items()
    }


_TIME = "iterates T"
_BOTH = ("average", "last iterate")

CLAIMS = (
    Claim(
        "convergence.polyak_averaging",
        says="The running averages of an SGD run are the averages of its iterates taken afterwards.",
        setup=_noise,
        measure=lambda noise: {
            name: Curve(y, np.arange(_RUN + 1)) for name, y in _running_averages(jnp.asarray(noise)).items()
        },
        predict=_batch_averages,
        judge=Equal(atol=1e-13),
        control=Variant("the starting point does not count", predict=lambda noise: _batch_averages(noise, True)),
        axes=Axes("step", "average"),
    ),
    Claim(
        "convergence.polyak_averaging",
        part="steps 1/t",
        says="With steps 1/t on θ²/2, averaging doubles the variance: n (2n − H_n) / (n + 1)² against 1, times 1/n.",
        measure=lambda _: _scaled_variances(1.0),
        predict=_doubled,
        judge=Equal(),
        control=Variant("averaging does no harm", predict=lambda _: 1.0),
        axes=Axes("steps n", "n × variance", log="x"),
    ),
    Claim(
        "convergence.polyak_averaging",
        part="slow steps",
        says="With steps t^(−2/3) the variance of the average falls as 1/n, that of the iterate only as n^(−2/3).",
        measure=lambda _: _variance_curves(_POWER),
        predict=lambda _: {"average": -1.0, "last iterate": -_POWER},
        judge=Slope(tolerance=0.04),
        control=Variant("steps 1/t", measure=lambda _: _variance_curves(1.0)),
        axes=Axes("steps n", "variance", log="xy"),
    ),
    Claim(
        "convergence.polyak_averaging",
        part="efficiency",
        says="n times the variance of the average tends to 1, the least possible: its excess falls as n^(−1/3).",
        measure=lambda _: _excess(_POWER),
        predict=lambda _: -1 / 3,
        judge=Slope(tolerance=0.04),
        control=Variant("steps 1/t, whose excess tends to 1", measure=lambda _: _excess(1.0)),
        axes=Axes("steps n", "n × variance − 1", log="xy"),
    ),
    Claim(
        "convergence.polyak_averaging@printed",
        says="The new average is −η ∇f / (t+1).",
        setup=_noise,
        measure=_next_means,
        predict=_printed_increments,
        judge=Equal(atol=1e-13),
        control=Variant("read as the increment of the average", measure=_mean_increments),
        corrected=Variant(
            "the increment is (θ − average − η ∇f) / (t+1)", measure=_mean_increments, predict=_corrected_increments
        ),
        axes=Axes("t + 1", "average, or its increment"),
    ),
    Claim(
        "convergence.averaging_convex_rate",
        says="Projected SGD with steps c/√t stays below (D²/(2c) + cG²)/√T on average.",
        measure=lambda draw: _convex_gaps(draw, _convex()),
        predict=_convex_bounds,
        judge=MeanAtMost(),
        control=Variant("a bound of order 1/T", predict=lambda _: _convex_bounds(_, power=1.0)),
        assumptions=_bounded_gradients(_convex),
        budget=_RUNS,
        axes=Axes(_TIME, _GAP, log="xy"),
    ),
    Claim(
        "convergence.averaging_convex_rate",
        part="slope",
        says="The gap falls at least as fast as 1/√T.",
        measure=lambda draw: _convex_gaps(draw, ("|θ|", "hinge loss")),
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.1, side="at most"),
        control=Variant(
            "steps 1/t², whose sum is finite", measure=lambda draw: _convex_gaps(draw, ("|θ|", "hinge loss"), power=2.0)
        ),
        budget=_RUNS,
        axes=Axes(_TIME, _GAP, log="xy"),
    ),
    Claim(
        "convergence.averaging_convex_rate@printed",
        says="With steps 1/t on x⁴/4 the gap falls at least as fast as 1/√T.",
        measure=lambda _: _quartic(1.0),
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.05, side="at most"),
        control=Variant("steps 1/t², whose sum is finite", measure=lambda _: _quartic(2.0)),
        corrected=Variant("steps 1/√t", measure=lambda _: _quartic(0.5)),
        axes=Axes(_TIME, "f − f*", log="xy"),
    ),
    Claim(
        "convergence.averaging_strongly_convex_rate",
        says="Projected SGD with steps 1/(μt) stays below G² (1 + ln T) / (2μT) on average.",
        measure=_strongly_convex_gaps,
        predict=_strongly_convex_bounds,
        judge=MeanAtMost(),
        control=Variant("steps ten times shorter", measure=lambda draw: _strongly_convex_gaps(draw, 0.1)),
        assumptions=_bounded_gradients(_strongly_convex),
        budget=_RUNS,
        axes=Axes(_TIME, _GAP, log="xy"),
    ),
    Claim(
        "convergence.averaging_strongly_convex_rate",
        part="slope",
        says="The gap falls at least as fast as ln T / T.",
        measure=_strongly_convex_gaps,
        predict=lambda _: _slope_of_log_over_t(_LONG_TIMES),
        judge=Slope(tolerance=0.1, side="at most"),
        control=Variant("steps ten times shorter", measure=lambda draw: _strongly_convex_gaps(draw, 0.1)),
        budget=_RUNS,
        axes=Axes(_TIME, _GAP, log="xy"),
    ),
    Claim(
        "convergence.averaging_strongly_convex_rate@printed",
        says="With steps 0.1/(μt), which are ∝ 1/t, the gap falls at least as fast as ln T / T.",
        measure=lambda _: _decay_without_noise(0.1)["average"],
        predict=lambda _: _slope_of_log_over_t(_PRINTED_TIMES),
        judge=Slope(tolerance=0.1, side="at most"),
        control=Variant("steps 1/t², whose sum is finite", measure=lambda _: _decay_without_noise(0.5, 2)["average"]),
        corrected=Variant("steps 1/(μt)", measure=lambda _: _decay_without_noise(1.0)["average"]),
        axes=Axes(_TIME, "f − f*", log="xy"),
    ),
    Claim(
        "convergence.averaging_smooth_rate",
        says="With steps 1/t on θ²/2 the gap is (2n − H_n)/(2(n+1)²) at the average and 1/(2n) at the last iterate.",
        measure=_harmonic_steps,
        predict=_harmonic_gaps,
        judge=Mean(),
        control=Variant("1/(2n) at both", predict=lambda _: dict.fromkeys(_BOTH, _harmonic_gaps(_)["last iterate"])),
        budget=Budget(quick=20_000, full=500_000),
        axes=Axes(_TIME, _GAP, log="xy"),
    ),
    Claim(
        "convergence.averaging_smooth_rate",
        part="slope",
        says="On least squares with steps 1/(μt) the gap falls as 1/T, at the average and at the last iterate.",
        measure=_least_squares_gaps,
        predict=lambda _: -1.0,
        judge=Slope(tolerance=0.1),
        control=Variant("steps 1/(10μt)", measure=lambda draw: _least_squares_gaps(draw, 0.1)),
        budget=_RUNS,
        axes=Axes(_TIME, _GAP, log="xy"),
    ),
    Claim(
        "convergence.averaging_smooth_rate",
        part="bound",
        says="The last iterate of projected SGD with steps 1/(μt) stays below 2LG² / (μ²T) on average.",
        measure=_smooth_gaps,
        predict=_smooth_bounds,
        judge=MeanAtMost(),
        control=Variant("steps ten times shorter", measure=lambda draw: _smooth_gaps(draw, 0.1)),
        assumptions=_bounded_gradients(_smooth),
        budget=_RUNS,
        axes=Axes(_TIME, _GAP, log="xy"),
    ),
    Claim(
        "convergence.averaging_smooth_rate@printed",
        says="With steps 0.1/(μt), which are ∝ 1/t, the gap falls at least as fast as 1/T.",
        measure=lambda _: _decay_without_noise(0.1),
        predict=lambda _: -1.0,
        judge=Slope(tolerance=0.1, side="at most"),
        control=Variant("steps 1/t², whose sum is finite", measure=lambda _: _decay_without_noise(0.5, 2)),
        corrected=Variant("steps 3/(4μt)", measure=lambda _: _decay_without_noise(0.75)),
        axes=Axes(_TIME, "f − f*", log="xy"),
    ),
)
