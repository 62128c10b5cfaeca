"""Rows of the chapter Diffusion models: scores, stochastic equations and their solvers."""

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import diffusion
from tests.cases import Case

_RNG = np.random.default_rng(1)
KEY = jax.random.key(0)
X = np.array([0.7, -0.4])
TIME, NEXT = np.array(0.6), np.array(0.45)
LOW, HIGH = np.array(0.2), np.array(3.0)
DATA = _RNG.normal(size=(5, 2))
NOISE = _RNG.normal(size=(3, 2))
LEVELS = np.array([2.0, 1.0, 0.5])
FALLING = np.array([0.9, 0.6, 0.5, 0.2])
RISING = FALLING[::-1].copy()
MATRIX = np.array([[-1.0, 0.3], [0.2, -0.5]])  # of scores and drifts
TALL = np.ones((3, 2))  # one that does not keep the shape of x
INTEGERS = np.array([1, 2])
VECTOR, EMPTY = np.ones(2), np.zeros((0, 2))


def _linear(matrix):
    return lambda x: matrix @ x


def _score(matrix):
    """A score of a shape that `matrix` decides, nonlinear in x and moving with time."""
    return lambda x, t: matrix @ jnp.sin(x) * (1 + t).astype(x.dtype)


def _field(matrix):
    return lambda x: matrix @ jnp.sin(x)


def _equation(key, sde, x, t):
    """Everything that a linear equation says, evaluated."""
    return (
        sde.drift(x, t),
        sde.diffusion(t),
        *sde.marginal_prob(x, t),
        sde.prior_logp(x),
        sde.prior_sampling(key, (2,), x.dtype),
    )


def _noisy(matrix, sign=1):
    return diffusion.Sde(lambda x, t: matrix @ jnp.sin(x) + t.astype(x.dtype), lambda t: 1 + t**2, sign)


def _two_times(make):
    """(matrix, x, time, next_time, noise) -> the sample after a step of the solver that the matrix makes."""
    return lambda matrix, x, t, s, noise: make(matrix).step(x, t, s, noise)


def _flow(matrix):
    return diffusion.probability_flow(diffusion.vp_sde(), _score(matrix))


def _corrected(matrix):
    sde, score_fn = diffusion.vp_sde(), _score(matrix)
    predictor = diffusion.heun(diffusion.reverse_sde(sde, score_fn))
    return diffusion.predictor_corrector(predictor, sde, score_fn, 2)


def _ou(key, rate, x, t):
    return _equation(key, diffusion.linear_sde(lambda t: -rate * (1 + t), lambda t: 1 + rate * t, 2.0), x, t)


def _of_data(name, **more):
    return Case(
        f"dltheory.diffusion.{name}",
        (KEY, MATRIX, DATA),
        wrong={"score_fn": (KEY, TALL, DATA), "x": (KEY, MATRIX, EMPTY)},
        grad=(1, 2),
        **more,
    )


def _solver(name, make, noise, **more):
    return Case(
        f"dltheory.diffusion.{name}",
        (MATRIX, X, TIME, NEXT, noise),
        call=_two_times(make),
        grad=(0, 1),
        **more,
    )


_STEP = (X, TIME, NEXT, NOISE)

CASES = (
    Case(
        "dltheory.diffusion.vp_sde",
        (KEY, LOW, HIGH, X, TIME),
        call=lambda key, low, high, x, t: _equation(key, diffusion.vp_sde(low, high), x, t),
        wrong={"beta_min": (KEY, X, HIGH, X, TIME), "beta_max": (KEY, LOW, X, X, TIME), "t": (KEY, LOW, HIGH, X, X)},
        grad=(1, 2, 3, 4),
    ),
    Case(
        "dltheory.diffusion.sub_vp_sde",
        (KEY, LOW, HIGH, X, TIME),
        call=lambda key, low, high, x, t: _equation(key, diffusion.sub_vp_sde(low, high), x, t),
        wrong={"beta_min": (KEY, X, HIGH, X, TIME), "beta_max": (KEY, LOW, X, X, TIME), "t": (KEY, LOW, HIGH, X, X)},
        grad=(1, 2, 3, 4),
    ),
    Case(
        "dltheory.diffusion.ve_sde",
        (KEY, LOW, HIGH, X, TIME),
        call=lambda key, low, high, x, t: _equation(key, diffusion.ve_sde(low, high), x, t),
        wrong={"sigma_min": (KEY, X, HIGH, X, TIME), "sigma_max": (KEY, LOW, X, X, TIME), "t": (KEY, LOW, HIGH, X, X)},
        grad=(1, 2, 3, 4),
    ),
    Case(
        "dltheory.diffusion.linear_sde",
        (KEY, LOW, X, TIME),
        call=_ou,
        wrong={"drift_coefficient_fn": (KEY, X, X, TIME), "t": (KEY, LOW, X, X)},
        grad=(1, 2, 3),
    ),
    Case(
        "dltheory.diffusion.reverse_sde",
        (MATRIX, X, TIME, LOW),
        call=lambda matrix, x, t, noise_scale: diffusion.reverse_sde(
            diffusion.vp_sde(), _score(matrix), noise_scale
        ).drift(x, t),
        wrong={"score_fn": (TALL, X, TIME, LOW), "noise_scale": (MATRIX, X, TIME, X)},
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.diffusion.probability_flow",
        (MATRIX, X, TIME),
        call=lambda matrix, x, t: _flow(matrix).drift(x, t),
        wrong={"score_fn": (TALL, X, TIME)},
        grad=(0, 1, 2),
    ),
    _solver(
        "euler_maruyama", lambda m: diffusion.euler_maruyama(_noisy(m)), NOISE[:1], wrong={"drift": (TALL, *_STEP)}
    ),
    _solver("heun", lambda m: diffusion.heun(_noisy(m)), NOISE[:1], wrong={"drift": (TALL, *_STEP)}),
    _solver("heun", lambda m: diffusion.heun(_flow(m)), NOISE[:0], label="flow", wrong={"score_fn": (TALL, *_STEP)}),
    _solver(
        "exponential_integrator",
        lambda m: diffusion.exponential_integrator(diffusion.vp_sde(), _score(m)),
        NOISE[:0],
        wrong={"score_fn": (TALL, *_STEP)},
    ),
    _solver("predictor_corrector", _corrected, NOISE, wrong={"score_fn": (TALL, *_STEP)}),
    Case(
        "dltheory.diffusion.solve",
        (KEY, MATRIX, X, RISING),
        call=lambda key, m, x, times: diffusion.solve(key, diffusion.heun(_noisy(m)), x, times),
        wrong={
            "drift": (KEY, TALL, X, RISING),
            "times": (KEY, MATRIX, X, TIME),
            "x": (KEY, MATRIX, INTEGERS, RISING),
        },
        grad=(1, 2, 3),
    ),
    Case(
        "dltheory.diffusion.sample_reverse",
        (KEY, MATRIX, FALLING),
        call=lambda key, m, times: diffusion.sample_reverse(key, diffusion.vp_sde(), _score(m), (2,), times),
        wrong={"score_fn": (KEY, TALL, FALLING), "times": (KEY, MATRIX, INTEGERS)},
        grad=(1, 2),
    ),
    Case(
        "dltheory.diffusion.annealed_langevin",
        (KEY, MATRIX, X, LEVELS, LOW),
        call=lambda key, m, x, sigmas, step: diffusion.annealed_langevin(key, _score(m), x, sigmas, 2, step),
        wrong={
            "score_fn": (KEY, TALL, X, LEVELS, LOW),
            "sigmas": (KEY, MATRIX, X, TIME, LOW),
            "step_size": (KEY, MATRIX, X, LEVELS, X),
        },
        grad=(1, 2, 3, 4),
    ),
    Case(
        "dltheory.diffusion.transport",
        (MATRIX, X, TIME, NEXT),
        call=lambda m, x, start, stop: diffusion.transport(_flow(m), x, start, stop, max_steps=64),
        wrong={
            "start": (MATRIX, X, X, NEXT),
            "stop": (MATRIX, X, TIME, X),
            "score_fn": (TALL, X, TIME, NEXT),
            "x": (MATRIX, INTEGERS, TIME, NEXT),
        },
        grad=(),
    ),
    Case(
        "dltheory.diffusion.flow_log_likelihood",
        (MATRIX, X, LOW),
        call=lambda m, x, t: diffusion.flow_log_likelihood(diffusion.vp_sde(0.1, 2.0), _score(m), x, t, max_steps=64),
        wrong={"min_time": (MATRIX, X, X), "score_fn": (TALL, X, LOW), "x": (MATRIX, INTEGERS, LOW)},
        grad=(),
    ),
    Case(
        "dltheory.diffusion.flow_log_likelihood_hutchinson",
        (KEY, MATRIX, X, LOW),
        call=lambda key, m, x, t: diffusion.flow_log_likelihood_hutchinson(
            key, diffusion.vp_sde(0.1, 2.0), _score(m), x, min_time=t, distribution="gaussian", max_steps=64
        ),
        wrong={"min_time": (KEY, MATRIX, X, X), "score_fn": (KEY, TALL, X, LOW), "x": (KEY, MATRIX, INTEGERS, LOW)},
        grad=(),
    ),
    Case(
        "dltheory.diffusion.score",
        (MATRIX, X),
        call=lambda m, x: diffusion.score(lambda x: jnp.squeeze(x @ jnp.sin(m @ x[:, None])), x),
        wrong={"log_density_fn": (np.ones((2, 2, 2)), X), "x": (MATRIX, INTEGERS)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.diffusion.fisher_divergence",
        (MATRIX, DATA),
        call=lambda m, x: diffusion.fisher_divergence(jnp.cos, _field(m), x),
        wrong={"model_score_fn": (TALL, DATA), "x": (MATRIX, EMPTY)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.diffusion.implicit_score_matching_loss",
        (MATRIX, DATA),
        call=lambda m, x: diffusion.implicit_score_matching_loss(_field(m), x),
        wrong={"score_fn": (TALL, DATA), "x": (MATRIX, EMPTY)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.diffusion.hutchinson_trace",
        (KEY, MATRIX, X),
        call=lambda key, m, x: diffusion.hutchinson_trace(key, _field(m), x, 3, "sphere"),
        wrong={"function": (KEY, TALL, X), "x": (KEY, MATRIX, INTEGERS)},
        grad=(1, 2),
    ),
    _of_data(
        "sliced_score_matching_loss",
        call=lambda key, m, x: diffusion.sliced_score_matching_loss(key, _field(m), x, 2, "gaussian"),
    ),
    Case(
        "dltheory.diffusion.denoising_score_matching_loss",
        (KEY, MATRIX, DATA, LOW),
        call=lambda key, m, x, sigma: diffusion.denoising_score_matching_loss(key, _field(m), x, sigma),
        wrong={
            "score_fn": (KEY, TALL, DATA, LOW),
            "x": (KEY, MATRIX, EMPTY, LOW),
            "sigma": (KEY, MATRIX, DATA, VECTOR),
        },
        grad=(1, 2, 3),
    ),
    Case(
        "dltheory.diffusion.noise_conditional_loss",
        (KEY, MATRIX, DATA, LEVELS, LEVELS),
        call=lambda key, m, x, sigmas, weights: diffusion.noise_conditional_loss(key, _score(m), x, sigmas, weights),
        wrong={
            "score_fn": (KEY, TALL, DATA, LEVELS, LEVELS),
            "sigmas": (KEY, MATRIX, DATA, TIME, TIME),
            "weights": (KEY, MATRIX, DATA, LEVELS, VECTOR),
        },
        grad=(1, 2, 3, 4),
    ),
    _of_data(
        "continuous_score_matching_loss",
        call=lambda key, m, x: diffusion.continuous_score_matching_loss(
            key, diffusion.sub_vp_sde(), _score(m), x, likelihood_weighting=True
        ),
    ),
    Case(
        "dltheory.diffusion.tweedie_mean",
        (X, DATA[0], LOW, HIGH),
        wrong={"score": (X, DATA, LOW, HIGH), "std": (X, X, X, HIGH), "scale": (X, X, LOW, X)},
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.diffusion.error_profile",
        (MATRIX, DATA, np.array([0.1, 1.2, 0.4, 1.9, 5.0]), np.array([0.0, 1.0, 2.0])),
        call=lambda m, x, coordinate, edges: diffusion.error_profile(jnp.cos, _field(m), x, coordinate, edges).error,
        wrong={
            "coordinate": (MATRIX, DATA, X, X),
            "edges": (MATRIX, DATA, np.ones(5), TIME),
            "model_score_fn": (TALL, DATA, np.ones(5), X),
        },
        grad=(0, 1),
    ),
)
