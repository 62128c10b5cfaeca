"""Claims about annealed Langevin dynamics beside the reverse equation, for normal data whose every law is known."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import diffusion
from experiments.claim import Axes, Budget, Claim, Variant
from experiments.curves import Curve, estimate
from experiments.judges import AtMost, Mean, Slope

__all__ = ["CLAIMS"]

_LOW, _HIGH = 0.05, 10.0
_STEP = 0.1
_PER_LEVEL = 5
_EVALUATIONS = np.array([50, 100, 200, 400, 800])  # of the score
_SDE = diffusion.ve_sde(_LOW, _HIGH)


def _score(x, sigma):
    """Of data N(0, 1) with noise."""
    return -x / (1 + sigma**2)


def _score_at(x, t):
    return _score(x, _SDE.marginal_prob(jnp.ones(()), t)[1])


def _levels(count):
    return np.geomspace(_HIGH, _LOW, count)


@jax.jit
def _annealed(key, start, levels):
    return diffusion.annealed_langevin(key, _score, start, levels, _PER_LEVEL, _STEP)


@jax.jit
def _reverse(key, start, count):
    """One program for every number of steps."""
    solver = diffusion.euler_maruyama(diffusion.reverse_sde(_SDE, _score_at))

    def step(number, x):
        noise = jax.random.normal(jax.random.fold_in(key, number), (1, *x.shape))
        return solver.step(x, 1 - number / count, 1 - (number + 1) / count, noise)

    return jax.lax.fori_loop(0, count, step, start)


def _padded(levels):
    """As many levels for all: steps on the last of them do not move a sample."""
    return np.concatenate([levels, np.full(_EVALUATIONS[-1] // _PER_LEVEL - len(levels), 1e-12)])


def _samples(draw, of_levels, of_steps):
    annealed, reverse = [], []
    for number, evaluations in enumerate(map(int, _EVALUATIONS)):
        key_start, key_annealed, key_reverse = jax.random.split(jax.random.fold_in(draw.key, number), 3)
        start = jnp.sqrt(1 + _HIGH**2) * jax.random.normal(key_start, (draw.budget,))
        if of_levels:
            levels = _padded(_levels(evaluations // _PER_LEVEL))
            annealed.append(np.asarray(_annealed(key_annealed, start, levels)) ** 2)
        if of_steps:
            reverse.append(np.asarray(_reverse(key_reverse, start, evaluations)) ** 2)
    curves = {"annealed Langevin": annealed, "reverse equation": reverse}
    return {name: estimate(np.stack(squares, axis=1), _EVALUATIONS) for name, squares in curves.items() if squares}


def _annealed_variance(count, per_level=_PER_LEVEL, step=_STEP):
    """Of x <- (1 - eta / (1 + sigma^2)) x + sqrt(2 eta) xi on each level."""
    variance = 1 + _HIGH**2
    for sigma in np.repeat(_levels(count), per_level):
        eta = step * sigma**2
        variance = (1 - eta / (1 + sigma**2)) ** 2 * variance + 2 * eta
    return variance


def _reverse_variance(count):
    """Of x <- (1 - g^2 h / (1 + sigma^2)) x + g sqrt(h) xi; sigma^2 is s(t)^2 - s(0)^2, and g^2 is d s^2 / dt."""
    variance, step = 1 + _HIGH**2, 1 / count
    for time in np.linspace(1, 0, count + 1)[:-1]:
        level = _LOW**2 * (_HIGH / _LOW) ** (2 * time)
        noise = 2 * np.log(_HIGH / _LOW) * level * step
        variance = (1 - noise / (1 + level - _LOW**2)) ** 2 * variance + noise
    return variance


def _recursions(_):
    return {
        "annealed Langevin": np.array([_annealed_variance(n // _PER_LEVEL) for n in _EVALUATIONS]),
        "reverse equation": np.array([_reverse_variance(n) for n in _EVALUATIONS]),
    }


def _exchanged(_):
    annealed, reverse = _recursions(_).values()
    return {"annealed Langevin": reverse, "reverse equation": annealed}


# Exactly, without sampling: a step is linear in the sample and in its noise, so that it maps variances to variances.


def _linear(step, noises):
    """The factor of x, and the sum of the squares of those of the noises, of a linear step."""
    zero, none = jnp.zeros(()), jnp.zeros(noises)
    spread = sum(step(zero, none.at[number].set(1.0)) ** 2 for number in range(noises))
    return step(jnp.ones(()), none), spread


@functools.partial(jax.jit, static_argnums=0)
def _variance_after(solver, variance, count):
    """The variance at time 0, of a solver over `count` steps."""

    def advance(number, variance):
        times = 1 - number / count, 1 - (number + 1) / count
        factor, spread = _linear(lambda x, noise: solver.step(x, *times, noise), solver.num_noises)
        return factor**2 * variance + spread

    return jax.lax.fori_loop(0, count, advance, variance)


# Data N(0, 0.01), narrow beside most levels of noise.

_DATA = 0.1


def _narrow_score(x, t):
    return -x / (_DATA**2 + _SDE.marginal_prob(jnp.ones(()), t)[1] ** 2)


_EULER = diffusion.euler_maruyama(diffusion.reverse_sde(_SDE, _narrow_score))


def _errors(solver, counts):
    """Of the variance at time 0, relative."""
    start = _DATA**2 + _SDE.marginal_prob(jnp.ones(()), 1.0)[1] ** 2
    return np.array([abs(float(_variance_after(solver, start, n)) / _DATA**2 - 1) for n in counts])


_COUNTS = (200, 283, 400, 566, 800)
_COARSE = (14, 20, 28, 40, 57, 80)


def _corrections(sign):
    """The error after corrected steps over that of the predictor alone."""

    def measure(_):
        solver = diffusion.predictor_corrector(_EULER, _SDE, lambda x, t: sign * _narrow_score(x, t), 2)
        return Curve(_errors(solver, _COARSE) / _errors(_EULER, _COARSE), _COARSE)

    return measure


_AXES = Axes("evaluations of the score", "variance", "xy")

CLAIMS = (
    Claim(
        "score.annealed_langevin",
        says="From normal data each sampler reaches the variance of its own recursion, for any number of evaluations.",
        measure=lambda draw: _samples(draw, True, True),
        predict=_recursions,
        judge=Mean(resolution=0.2),
        control=Variant("the two exchanged", predict=_exchanged),
        budget=Budget(4_000, 200_000),
        axes=_AXES,
    ),
    Claim(
        "score.annealed_langevin@printed",
        says="Annealed Langevin dynamics have the variance of the reverse equation with as many evaluations.",
        measure=lambda draw: _samples(draw, True, False),
        predict=lambda _: {"annealed Langevin": _recursions(_)["reverse equation"]},
        judge=Mean(resolution=0.2),
        control=Variant("that of the data", predict=lambda _: {"annealed Langevin": np.ones(len(_EVALUATIONS))}),
        corrected=Variant(
            "its own recursion", predict=lambda _: {"annealed Langevin": _recursions(_)["annealed Langevin"]}
        ),
        budget=Budget(4_000, 200_000),
        axes=_AXES,
    ),
    Claim(
        "score.annealed_langevin",
        part="limit",
        says="The variance that the reverse equation reaches differs from that of the data by O(1 / steps).",
        measure=lambda _: Curve(_errors(_EULER, _COUNTS), _COUNTS),
        predict=lambda _: -1.0,
        judge=Slope(),
        control=Variant("by O(1 / steps^2)", predict=lambda _: -2.0),
        axes=Axes("steps", "relative error of the variance", "xy"),
    ),
    Claim(
        "score.annealed_langevin",
        part="corrector",
        says="Two Langevin steps after each coarse step of the reverse equation take back a tenth of its error.",
        measure=_corrections(1),
        predict=lambda _: 0.9,
        judge=AtMost(),
        control=Variant("away from the data", measure=_corrections(-1)),
        axes=Axes("steps", "error with / without corrections"),
    ),
)
