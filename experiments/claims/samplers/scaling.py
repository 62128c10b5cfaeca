"""Claims about many dimensions: how long steps may be, what they cost, and which acceptance rate is best."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import samplers
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.samplers._chains import advance, integrate, metropolised, normal
from experiments.curves import Curve, estimate
from experiments.judges import Mean, Slope

__all__ = ["CLAIMS"]

# A step from exact draws of a product of d equal laws, in units l of d^-1/2 (random walk), d^-1/6 (Langevin; l^2 is the
# variance of the noise) or d^-1/4 (leapfrog). Its speed is the squared step (for trajectories of a fixed length the
# step, whose inverse they cost) times the rate of acceptance.

_WALK_DIMENSION, _LANGEVIN_DIMENSION, _HAMILTON_DIMENSION = 500, 1000, 4096
_WALKS = np.array([0.6, 1.2, 1.8, 2.38, 3.0, 3.8])
_LANGEVINS = np.array([0.7, 1.0, 1.3, 1.65, 2.0, 2.3])
_TIME, _LEAPS = np.pi / 2, np.array([4, 5, 6, 7, 9, 12])
_HAMILTONS = _TIME / _LEAPS * _HAMILTON_DIMENSION**0.25


def _logistic(x):
    return -jnp.sum(x + 2 * jnp.logaddexp(0.0, -x))


def _logistic_draws(rng, shape):
    return rng.logistic(size=shape)


def _normal_draws(rng, shape):
    return rng.normal(size=shape)


# Density, exact draws, and E (log f)'^2 of each law.
_LAWS = {"normal": (normal, _normal_draws, 1.0), "logistic": (_logistic, _logistic_draws, 1 / 3)}


def _walk_of(log_density_fn):
    return lambda scale: samplers.random_walk_metropolis(log_density_fn, scale)


_WALK = {name: _walk_of(log_density_fn) for name, (log_density_fn, _, _) in _LAWS.items()}


def _langevin(noise_variance):
    return samplers.mala(normal, noise_variance / 2)


def _hamilton(num_steps):
    return metropolised(normal, integrate("leapfrog"), _TIME / num_steps, num_steps, 1.0)


def _speeds(rates, units):
    """Speed over acceptance, with standard errors, from rates [n, settings] and what each moves if accepted."""
    mean = estimate(rates)
    return Curve(mean.y * units, mean.y, mean.standard_error * units)


_BATCH = 2_000  # starts in memory at once


def _rates(make, draw, start, settings):
    """Probability of acceptance from each of `budget` exact draws, `start(rng, n)` [n, d], for each setting."""
    batches = []
    for batch in range(-(-draw.budget // _BATCH)):
        key = jax.random.fold_in(draw.key, batch)
        positions = start(generator(key), min(_BATCH, draw.budget))
        infos = [advance(make, 1, jax.random.fold_in(key, i), positions, each)[1] for i, each in enumerate(settings)]
        batches.append(np.stack([getattr(info, "acceptance_rate", info) for info in infos], axis=1))
    return np.concatenate(batches)


def _walk_speeds(draw):
    curves = {}
    for name, (_, draws, information) in _LAWS.items():
        scales = _WALKS / np.sqrt(information * _WALK_DIMENSION)
        rates = _rates(_WALK[name], draw, lambda rng, n, draws=draws: draws(rng, (n, _WALK_DIMENSION)), scales)
        curves[name] = _speeds(rates, _WALKS**2)
    return curves


def _langevin_speeds(draw):
    variances = _LANGEVINS**2 * _LANGEVIN_DIMENSION ** (-1 / 3)
    rates = _rates(_langevin, draw, lambda rng, n: rng.normal(size=(n, _LANGEVIN_DIMENSION)), variances)
    return _speeds(rates, _LANGEVINS**2)


def _hamilton_speeds(draw):
    rates = _rates(_hamilton, draw, lambda rng, n: rng.normal(size=(n, _HAMILTON_DIMENSION)), _LEAPS)
    return _speeds(rates, _HAMILTONS)


def _limit(units, argument):
    """The speed 2 Phi(-argument) times the unit."""
    return lambda _: units * 2 * stats.norm.cdf(-argument)


def _normal_energy_errors(_):
    """The speed where energy errors are normal with the mean and variance that leapfrog steps of this length give.

    On N(0, 1) the steps are a matrix, and the error is a quadratic form of position and momentum. As steps shorten, its
    mean over the coordinates tends to l^4 sin(T)^2 / 32 and its variance to twice that: the rate to the limit.
    """
    speeds = []
    for steps, unit in zip(_LEAPS, _HAMILTONS, strict=True):
        eps = _TIME / steps
        step = np.array([[1 - eps**2 / 2, eps], [-eps * (1 - eps**2 / 4), 1 - eps**2 / 2]])
        end = np.linalg.matrix_power(step, steps)
        form = (end.T @ end - np.eye(2)) / 2
        mean, variance = _HAMILTON_DIMENSION * np.trace(form), 2 * _HAMILTON_DIMENSION * np.trace(form @ form)
        sd = np.sqrt(variance)
        rate = stats.norm.cdf(-mean / sd) + np.exp(variance / 2 - mean) * stats.norm.cdf(mean / sd - sd)
        speeds.append(unit * rate)
    return np.array(speeds)


# The steps that a journey of length one takes, at one rate of acceptance, over the dimension. Coordinates beyond the
# dimension have a flat density, and no part in any acceptance: one program serves all dimensions.

_DIMENSIONS = np.array([16, 32, 64, 128, 256, 512, 1024])
_RATE = 0.5
_LONG = 5.0  # path length: more steps, in finer gradations, than a quarter period has


def _first(dimension):
    return lambda x: -jnp.sum(jnp.where(jnp.arange(x.size) < dimension, x**2, 0.0)) / 2


def _walk_in(dimension, variance):
    return samplers.random_walk_metropolis(_first(dimension), jnp.sqrt(variance))


def _langevin_in(dimension, variance):
    return samplers.mala(_first(dimension), variance / 2)


def _hamilton_in(dimension, num_steps):
    return metropolised(_first(dimension), integrate("leapfrog"), _LONG / num_steps, num_steps, 1.0)


def _costs(draw):
    start = generator(draw.key).normal(size=(draw.budget, _DIMENSIONS[-1]))

    def rate(make, dimension, setting):
        """Mean acceptance, with the same starts and the same random numbers for every setting."""
        info = advance(make, 1, draw.key, start, dimension, setting)[1]
        return float(np.mean(getattr(info, "acceptance_rate", info)))

    def variance_in(make, dimension):
        low, high = np.log(1e-4), np.log(8.0)
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (middle, high) if rate(make, dimension, np.exp(middle)) > _RATE else (low, middle)
        return np.exp((low + high) / 2)

    def steps_in(dimension):
        """The number of leapfrog steps at which the rate passes the wanted one, linear between whole numbers."""
        low, high = 3, 40
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if rate(_hamilton_in, dimension, middle) > _RATE else (middle, high)
        below, above = rate(_hamilton_in, dimension, low), rate(_hamilton_in, dimension, high)
        return low + (_RATE - below) / (above - below)

    costs = {
        "random walk": [1 / variance_in(_walk_in, dimension) for dimension in _DIMENSIONS],
        "Langevin": [1 / variance_in(_langevin_in, dimension) for dimension in _DIMENSIONS],
        "Hamilton": [steps_in(dimension) / _LONG for dimension in _DIMENSIONS],
    }
    return {name: Curve(np.array(values), _DIMENSIONS) for name, values in costs.items()}


_POWERS = {"random walk": 1.0, "Langevin": 1 / 3, "Hamilton": 1 / 4}

CLAIMS = (
    Claim(
        "samplers.metropolis_hastings",
        part="optimal scaling",
        says="With steps of variance l^2 / (d I), I = E (log f)'^2, a random walk in many dimensions accepts "
        "2 Phi(-l / 2) of them, whatever f; it moves fastest where this is 0.234.",
        measure=_walk_speeds,
        predict=_limit(_WALKS**2, _WALKS / 2),
        judge=Mean(resolution=0.1, floor=0.15),
        control=Variant("2 Phi(-l / 4)", predict=_limit(_WALKS**2, _WALKS / 4)),
        budget=Budget(12_000, 100_000),
        axes=Axes("acceptance", "speed, squared step times acceptance"),
    ),
    Claim(
        "samplers.ula",
        part="optimal scaling",
        says="With steps of variance l^2 d^(-1/3), adjusted Langevin steps on N(0, I) are accepted at the rate "
        "2 Phi(-l^3 / 8); they move fastest where this is 0.574.",
        measure=_langevin_speeds,
        predict=_limit(_LANGEVINS**2, _LANGEVINS**3 / 8),
        judge=Mean(resolution=0.1, floor=0.1),
        control=Variant("at the rate of a random walk", predict=_limit(_LANGEVINS**2, _LANGEVINS / 2)),
        budget=Budget(8_000, 80_000),
        axes=Axes("acceptance", "speed, squared step times acceptance"),
    ),
    Claim(
        "samplers.hmc",
        part="optimal scaling",
        says="With steps l d^(-1/4), trajectories of length T on N(0, I) are accepted at the rate "
        "2 Phi(-l^2 |sin T| / 8), but for terms of the order of a step's square; work is best spent where it is 0.651.",
        measure=_hamilton_speeds,
        predict=_normal_energy_errors,
        judge=Mean(resolution=0.1, floor=0.15),
        control=Variant("at the rate of a random walk", predict=_limit(_HAMILTONS, _HAMILTONS / 2)),
        budget=Budget(2_000, 20_000),
        axes=Axes("acceptance", "speed, step times acceptance"),
    ),
    Claim(
        "samplers.hmc",
        part="dimension",
        says="At one rate of acceptance, a random walk takes d steps to move by its target's width, adjusted Langevin "
        "steps d^(1/3), Hamiltonian trajectories d^(1/4).",
        measure=_costs,
        predict=lambda _: _POWERS,
        judge=Slope(tolerance=0.08),
        control=Variant("all like the square root", predict=lambda _: dict.fromkeys(_POWERS, 0.5)),
        budget=Budget(600, 10_000),
        axes=Axes("dimension", "steps", "xy"),
    ),
)
