"""Claims about many dimensions: how often a sampler should accept, and how its step must shrink."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import samplers
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.samplers._chains import advance, integrate, metropolised, normal
from experiments.curves import Curve, estimate
from experiments.judges import Mean, Slope

__all__ = ["CLAIMS"]

_DIMENSION, _REPLICATES = 2048, 12
_PATH = 2.5 * np.pi  # a quarter of a period after the first, where the error in the energy is largest
_DIMENSIONS = np.array([16, 32, 64, 128, 256, 512])


class _Kind(NamedTuple):
    """A sampler and its theory: Roberts, Gelman and Gilks 1997; Roberts and Rosenthal 1998; Beskos et al. 2013."""

    make: Callable
    settings: Callable  # step -> the arguments of `make`
    rate: Callable  # dimension -> a step near the best
    acceptance: float
    exponent: float  # of the dimension in the best step


def _path(step_size, num_steps):
    return metropolised(normal, integrate("leapfrog"), step_size, num_steps, 1.0)


_KINDS = {
    "random walk": _Kind(
        lambda variance: samplers.random_walk_metropolis(normal, jnp.sqrt(variance)),
        lambda step: (step,),
        lambda d: 2.38**2 / d,
        0.234,
        -1.0,
    ),
    "MALA": _Kind(
        lambda step: samplers.mala(normal, step), lambda step: (step,), lambda d: 1.36 * d ** (-1 / 3), 0.574, -1 / 3
    ),
    "HMC": _Kind(
        _path,
        lambda step: (step, np.asarray(round(_PATH / step))),
        lambda d: 1.8 * d ** (-1 / 4),
        0.651,
        -1 / 4,
    ),
}


@functools.cache
def _grid(name, dimension):
    """Steps around the best one; those of trajectories divide the path."""
    steps = _KINDS[name].rate(dimension) * np.geomspace(0.6, 1.6, 13)
    return _PATH / np.round(_PATH / steps) if name == "HMC" else steps


def _acceptances(name, dimension, key, chains):
    """Mean acceptance rates over the grid of steps, from exact draws, with the same noise for all of them."""
    kind, start, rates = _KINDS[name], generator(key).normal(size=(chains, dimension)), []
    for step in _grid(name, dimension):
        info = advance(kind.make, 1, jax.random.fold_in(key, 1), start, *kind.settings(step))[1]
        rates.append(np.mean(info if name == "HMC" else info.acceptance_rate))
    return np.array(rates)


def _best(draw):
    """Acceptance where step times acceptance is largest, by a parabola through its logarithm; replicates [r, kinds]."""
    rows = []
    for replicate in range(_REPLICATES):
        row = []
        for number, name in enumerate(_KINDS):
            key = jax.random.fold_in(draw.key, 10 * replicate + number)
            rates = _acceptances(name, _DIMENSION, key, draw.budget)
            steps = np.log(_grid(name, _DIMENSION))
            speed = np.polynomial.Polynomial.fit(steps, steps + np.log(rates), 3)
            fine = np.linspace(steps[0], steps[-1], 2001)
            top = fine[np.argmax(speed(fine))]
            row.append(np.exp(speed(top) - top))
        rows.append(row)
    return estimate(np.array(rows), np.arange(len(_KINDS)))


def _steps(draw):
    """The step that has the best acceptance rate, by dimension."""
    curves = {}
    for number, (name, kind) in enumerate(_KINDS.items()):
        steps = []
        for dimension in _DIMENSIONS:
            key = jax.random.fold_in(draw.key, 1000 * number + int(dimension))
            rates = _acceptances(name, int(dimension), key, 4 * draw.budget)
            order = np.argsort(rates)
            log_steps = np.log(_grid(name, int(dimension)))[order]
            steps.append(np.exp(np.interp(kind.acceptance, rates[order], log_steps)))
        curves[name] = Curve(np.array(steps), _DIMENSIONS)
    return curves


CLAIMS = (
    Claim(
        "samplers.metropolis_hastings",
        part="optimal acceptance",
        says="In 2048 dimensions step times acceptance is largest where a random walk accepts 0.234, MALA 0.574 and "
        "Hamiltonian Monte Carlo 0.651 of its proposals.",
        measure=_best,
        predict=lambda _: np.array([kind.acceptance for kind in _KINDS.values()]),
        judge=Mean(resolution=0.15),
        control=Variant("half of them, whatever the sampler", predict=lambda _: np.full(len(_KINDS), 0.5)),
        budget=Budget(250, 250),
        tier="full",
        axes=Axes("random walk, MALA, HMC", "acceptance at the best step"),
    ),
    Claim(
        "samplers.metropolis_hastings",
        part="dimension",
        says="At these rates the variance of a random walk's steps falls like 1/d, MALA's step like d^(-1/3), the step "
        "of Hamiltonian Monte Carlo like d^(-1/4).",
        measure=_steps,
        predict=lambda _: {name: kind.exponent for name, kind in _KINDS.items()},
        judge=Slope(tolerance=0.06),
        control=Variant("like d^(-1/2)", predict=lambda _: -0.5),
        budget=Budget(250, 250),
        tier="full",
        axes=Axes("dimension", "step", "xy"),
    ),
)
