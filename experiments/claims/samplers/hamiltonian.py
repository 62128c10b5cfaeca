"""Claims about Hamiltonian Monte Carlo: what its integrator must be like, and how far to follow it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import samplers
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.samplers._chains import advance, integrate, metropolised, mixture, mixture_draws, normal
from experiments.curves import Curve, estimate
from experiments.judges import Equal, Mean, Slope

__all__ = ["CLAIMS"]


# A banana: x ~ N(0, 1), y = b (x^2 - 1) + s z.

_BEND, _WIDTH = 0.7, 0.5


def _banana(position):
    x, y = position
    return -(x**2) / 2 - ((y - _BEND * (x**2 - 1)) / _WIDTH) ** 2 / 2


def _banana_draws(rng, n):
    x, z = rng.normal(size=(2, n))
    return np.stack([x, _BEND * (x**2 - 1) + _WIDTH * z], axis=1)


def _banana_moments(positions):
    x, y = positions.T
    return estimate(np.stack([x, x**2, y, y**2, x**2 * y, x**4 / 3], axis=1), np.arange(6))


_EXACT = np.array([0, 1, 0, 2 * _BEND**2 + _WIDTH**2, 2 * _BEND, 1])


def _library_hmc():
    return samplers.hmc(_banana, 0.3, 7)


def _euler_hmc():
    return metropolised(_banana, integrate("Euler"), 0.2, 7, 1.0)


def _invariance(make, unwrap):
    def measure(draw):
        start = _banana_draws(generator(draw.key), draw.budget)
        return _banana_moments(np.asarray(unwrap(advance(make, 12, draw.key, start)[0])))

    return measure


# The same rule with another integrator, on N(0, 1).

_STEPS_SHOWN = np.array([0.1, 0.2, 0.3, 0.4, 0.5])


def _any_step(scheme):
    def make(step_size):
        return metropolised(normal, integrate(scheme), step_size, 5, 1.0)

    return make


_EULER, _LEAPFROG = _any_step("Euler"), _any_step("leapfrog")


def _variances(make):
    def measure(draw):
        rng = generator(draw.key)
        rows = []
        for number, step_size in enumerate(_STEPS_SHOWN):
            key = jax.random.fold_in(draw.key, number)
            rows.append(np.asarray(advance(make, 40, key, rng.normal(size=draw.budget), step_size)[0]) ** 2)
        return estimate(np.stack(rows, axis=1), _STEPS_SHOWN)

    return measure


# Reversibility and volume.

_LENGTHS = np.array([1, 2, 4, 8, 16])


class _Points(NamedTuple):
    positions: np.ndarray  # [n, 2]
    momenta: np.ndarray  # [n, 2]


def _points(key, budget):
    rng = generator(key)
    return _Points(_banana_draws(rng, budget), rng.normal(size=(budget, 2)))


def _there_and_back(scheme):
    """Largest distance from the start after a trajectory, a reversal of momenta, and the same trajectory."""

    @jax.jit
    def distance(positions, momenta, num_steps):
        def one(position, momentum):
            go = integrate(scheme)
            end = go(_banana, position, momentum, 0.05, num_steps, 1.0)
            back = go(_banana, end[0], -end[1], 0.05, num_steps, 1.0)
            return jnp.max(jnp.abs(jnp.concatenate([back[0] - position, -back[1] - momentum])))

        return jnp.max(jax.vmap(one)(positions, momenta))

    return lambda points: Curve([distance(*points, n) for n in _LENGTHS], _LENGTHS)


def _volume(scheme):
    """Determinants of the map of phase space, at each starting point."""

    @jax.jit
    def determinant(positions, momenta):
        def flow(point):
            end = integrate(scheme)(_banana, point[:2], point[2:], 0.1, 8, 1.0)
            return jnp.concatenate(end)

        return jax.vmap(lambda point: jnp.linalg.det(jax.jacfwd(flow)(point)))(
            jnp.concatenate([positions, momenta], axis=1)
        )

    return lambda points: Curve(determinant(*points), np.arange(len(points.positions)))


# Energy.

_NUMBERS = np.array([8, 11, 16, 23, 32, 45])  # of steps in which the same time passes
_TIME = 1.0


def _energy_changes(log_density_fn, scheme):
    @jax.jit
    @jax.vmap
    def changes(positions, momenta, step_size, num_steps):
        def one(position, momentum):
            end = integrate(scheme)(log_density_fn, position, momentum, step_size, num_steps, 1.0)
            return samplers.hamiltonian(log_density_fn, *end) - samplers.hamiltonian(log_density_fn, position, momentum)

        return jax.vmap(one)(positions, momenta)

    def measure(points, numbers, time):
        repeat = [np.broadcast_to(x, (len(numbers), *x.shape)) for x in points]
        return np.asarray(changes(*repeat, time / numbers, numbers))

    return measure


_banana_changes = _energy_changes(_banana, "leapfrog")


def _errors(points):
    """Root mean square error in the energy, and mean probability of rejection, over the step."""
    change = _banana_changes(points, _NUMBERS, _TIME)
    square = estimate(change.T**2)
    return {
        "energy error": Curve(square.y**0.5, _TIME / _NUMBERS, square.standard_error / (2 * square.y**0.5)),
        "rejected": estimate(1 - np.exp(np.minimum(-change.T, 0)), _TIME / _NUMBERS),
    }


_COARSE, _LONGER = np.array([3, 4, 6, 9, 14]), 3.0


def _points_of_two_modes(key, budget):
    rng = generator(key)
    return _Points(mixture_draws(rng, 1.5, budget), rng.normal(size=budget))


def _exponentials(scheme):
    changes = _energy_changes(mixture(1.5), scheme)
    return lambda points: estimate(np.exp(-changes(points, _COARSE, _LONGER).T), _LONGER / _COARSE)


# Path lengths: a normal with standard deviations of all sizes.

_FREQUENCIES = np.concatenate([np.linspace(0.25, 3.0, 12), [np.pi]])
_PATH, _LEAPS = 2.0, 40


def _anisotropic(position):
    return -jnp.sum((jnp.asarray(_FREQUENCIES) * position) ** 2) / 2


def _paths(jitter):
    def make():
        return samplers.hmc(_anisotropic, _PATH / _LEAPS, _LEAPS, jitter=jitter)

    return make


_FIXED, _RANDOM = _paths(0.0), _paths(0.5)


def _correlations(**kinds):
    """Correlation of every coordinate before and after one transition."""

    def measure(draw):
        start = generator(draw.key).normal(size=(draw.budget, len(_FREQUENCIES))) / _FREQUENCIES
        curves = {}
        for name, make in kinds.items():
            end = np.asarray(advance(make, 1, draw.key, start)[0].position)
            curves[f"{name} path"] = estimate(start * end * _FREQUENCIES**2, _FREQUENCIES)
        return curves

    return measure


def _cosines(spread):
    """cos(omega T), and its mean over the path lengths that a jitter of `spread` draws."""

    def predict(_):
        fractions = 1 - spread * (np.arange(2000) + 0.5) / 2000
        return {
            "fixed path": np.cos(_FREQUENCIES * _PATH),
            "random path": np.cos(_FREQUENCIES * _PATH * fractions[:, None]).mean(axis=0),
        }

    return predict


_STEP_AXES = Axes("step of the integrator", "variance of the position")

CLAIMS = (
    Claim(
        "samplers.hmc",
        says="From exact draws of a banana, twelve transitions of the library's sampler leave its moments as they are.",
        measure=_invariance(_library_hmc, lambda state: state.position),
        predict=lambda _: _EXACT,
        judge=Mean(resolution=0.2, floor=0.2),
        control=Variant("with Euler's explicit method", measure=_invariance(_euler_hmc, lambda position: position)),
        budget=Budget(40_000, 1_000_000),
        axes=Axes("moment", "mean"),
    ),
    Claim(
        "samplers.hmc@printed",
        says="The rule makes any integrator exact: with Euler's explicit method N(0, 1) keeps its variance.",
        measure=_variances(_EULER),
        predict=lambda _: np.ones(len(_STEPS_SHOWN)),
        judge=Mean(resolution=0.15),
        control=Variant("a variance of 3", predict=lambda _: np.full(len(_STEPS_SHOWN), 3.0)),
        corrected=Variant("with the leapfrog method", measure=_variances(_LEAPFROG)),
        budget=Budget(4_000, 100_000),
        axes=_STEP_AXES,
    ),
    Claim(
        "samplers.hmc",
        part="reversibility",
        says="A trajectory followed back with reversed momentum ends where it began.",
        setup=_points,
        measure=_there_and_back("leapfrog"),
        predict=lambda _: np.zeros(len(_LENGTHS)),
        judge=Equal(atol=1e-10),
        control=Variant("Euler's explicit method", measure=_there_and_back("Euler")),
        budget=Budget(200, 10_000),
        axes=Axes("steps", "distance", "x"),
    ),
    Claim(
        "samplers.hmc",
        part="volume",
        says="The map of phase space has determinant one everywhere.",
        setup=_points,
        measure=_volume("leapfrog"),
        predict=lambda points: np.ones(len(points.positions)),
        judge=Equal(atol=1e-10),
        control=Variant("Euler's explicit method", measure=_volume("Euler")),
        budget=Budget(50, 2_000),
        axes=Axes("starting point", "determinant"),
    ),
    Claim(
        "samplers.hmc",
        part="energy",
        says="Over a fixed time, the error in the energy and the share of rejections grow like the square of the step.",
        setup=_points,
        measure=_errors,
        predict=lambda _: 2.0,
        judge=Slope(tolerance=0.15),
        control=Variant("like the step", predict=lambda _: 1.0),
        budget=Budget(4_000, 200_000),
        axes=Axes("step of the integrator", "error", "xy"),
    ),
    Claim(
        "samplers.hmc",
        part="exponential of the error",
        says="E exp(-dH) = 1 at stationarity, however coarse the steps.",
        setup=_points_of_two_modes,
        measure=_exponentials("leapfrog"),
        predict=lambda _: np.ones(len(_COARSE)),
        judge=Mean(resolution=0.1),
        control=Variant("Euler's explicit method", measure=_exponentials("Euler")),
        budget=Budget(20_000, 1_000_000),
        axes=Axes("step of the integrator", "mean of exp(-dH)"),
    ),
    Claim(
        "samplers.hmc",
        part="resonance",
        says="After a path of length T a coordinate of frequency omega has correlation cos(omega T) with its start, "
        "one at every whole period; random paths average this, and no frequency is stuck.",
        measure=_correlations(fixed=_FIXED, random=_RANDOM),
        predict=_cosines(0.5),
        judge=Mean(floor=0.15),
        control=Variant("paths that do not vary", predict=_cosines(0.0)),
        budget=Budget(6_000, 200_000),
        axes=Axes("frequency", "correlation"),
    ),
)
