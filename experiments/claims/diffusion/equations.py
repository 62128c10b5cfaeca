"""Claims about stochastic equations forwards and backwards: the laws that they carry."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import diffusion
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.diffusion import _line
from experiments.curves import Curve, estimate
from experiments.judges import Mean, Slope

__all__ = ["CLAIMS"]

_SDE, _SCORE = _line.SDE, _line.score
_REVERSE = diffusion.reverse_sde(_SDE, _SCORE)


# Forwards.

_START = 2.0
_TIMES = np.linspace(0.1, 1.0, 10)
_EQUATIONS = {
    "variance preserving": diffusion.vp_sde(0.1, 8.0),
    "sub-VP": diffusion.sub_vp_sde(0.1, 8.0),
    "variance exploding": diffusion.ve_sde(0.2, 5.0),
}


@functools.partial(jax.jit, static_argnums=0)
def _simulated(name, key, start):
    """Paths at the times, by Heun's method with twenty steps between two of them."""
    solver = diffusion.heun(_EQUATIONS[name])

    def stretch(x, inputs):
        key, end = inputs
        x = diffusion.solve(key, solver, x, end - 0.1 + jnp.linspace(0.0, 0.1, 21))
        return x, x

    return jax.lax.scan(stretch, start, (jax.random.split(key, len(_TIMES)), jnp.asarray(_TIMES)))[1]


def _paths(draw):
    start = jnp.full(draw.budget, _START)
    curves = {}
    for number, name in enumerate(_EQUATIONS):
        paths = np.asarray(_simulated(name, jax.random.fold_in(draw.key, number), start))
        curves[f"{name}, mean square"] = estimate(paths.T**2, _TIMES)
    return curves


def _mean_squares(_, decay=2.0):
    integral = 0.1 * _TIMES + (8.0 - 0.1) * _TIMES**2 / 2
    kept = 1 - np.exp(-integral)
    return {
        "variance preserving, mean square": np.exp(-integral) * _START**2 + 1 - np.exp(-decay / 2 * integral),
        "sub-VP, mean square": np.exp(-integral) * _START**2 + kept**decay,
        "variance exploding, mean square": _START**2 + 0.2**2 * (25.0 ** (decay * _TIMES) - 1),
    }


_NUMBERS = np.array([50, 71, 100, 141, 200])


def _ddpm(_):
    """Products of the scales of DDPM's steps, which keep sqrt(1 - beta / n) of a sample each."""
    scale = float(_EQUATIONS["variance preserving"].marginal_prob(jnp.ones(()), 1.0)[0])
    rates = [0.1 + (8.0 - 0.1) * np.arange(1, n + 1) / n for n in _NUMBERS]
    products = [np.prod(np.sqrt(1 - rate / n)) for n, rate in zip(_NUMBERS, rates, strict=True)]
    return Curve(np.abs(np.array(products) / scale - 1), 1 / _NUMBERS)


# Forth and back.

_BLOCK = 200


def _energy_distances(x, y):
    """Unbiased estimates of 2 E|X - Y| - E|X - X'| - E|Y - Y'|, one from each block of samples [b, m]."""
    m = x.shape[1]

    def between(a, b):
        return np.abs(a[:, :, None] - b[:, None, :]).sum((1, 2))

    return 2 * between(x, y) / m**2 - (between(x, x) + between(y, y)) / (m * (m - 1))


@functools.partial(jax.jit, static_argnums=2)
def _forth_and_back(key, data, method, sign, against):
    """Data to noise and back, with the sign of the score, or with schedule and score against time if so wished."""
    key_forth, key_back = jax.random.split(key)
    times = jnp.linspace(0.0, 1.0, 201)
    noisy = diffusion.solve(key_forth, diffusion.heun(_SDE), data, times)
    reverse = diffusion.reverse_sde(_SDE, lambda x, t: sign * _SCORE(x, t))

    def clock(t):
        return jnp.where(against, 1 - t, t)

    equation = diffusion.Sde(lambda x, t: reverse.drift(x, clock(t)), lambda t: _NOISE(clock(t)), -1)
    return diffusion.solve(key_back, method(equation), noisy, times[::-1])


def _returned(method, sign=1.0, against=False):
    def measure(draw):
        rng = generator(draw.key)
        data, other = _line.draws(rng, 0.0, (2, draw.budget * _BLOCK))
        back = np.asarray(_forth_and_back(draw.key, jnp.asarray(data), method, sign, against))
        distances = _energy_distances(back.reshape(-1, _BLOCK), other.reshape(-1, _BLOCK))
        return estimate(distances[:, None], [0.0])

    return measure


_NOISE = _SDE.diffusion
# The printed equation with dt > 0 all the way: the clock goes forward from noise while the marginals go back.
_AS_PRINTED = diffusion.Sde(lambda x, s: _REVERSE.drift(x, 1 - s), lambda s: _NOISE(1 - s), 1)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _ended(key, start, solver, rising):
    times = jnp.linspace(0.0, 1.0, 401)
    return diffusion.solve(key, solver, start, times if rising else times[::-1])


def _squares(solver, rising):
    def measure(draw):
        start = _line.draws(generator(draw.key), 1.0, draw.budget)
        ends = np.asarray(_ended(draw.key, jnp.asarray(start), solver, rising))
        return {"mean square": estimate(ends[:, None] ** 2, [0.0])}

    return measure


def _data_square(factor=1.0):
    return lambda _: {"mean square": factor * np.array([_line.WEIGHTS @ (_line.MEANS**2 + _line.STDS**2)])}


CLAIMS = (
    Claim(
        "sde.forward",
        says="From a point, paths of all three equations have the mean squares of their laws in closed form.",
        measure=_paths,
        predict=_mean_squares,
        judge=Mean(resolution=0.2),
        control=Variant("noise of another rate", predict=lambda _: _mean_squares(_, decay=1.0)),
        budget=Budget(8_000, 400_000),
        axes=Axes("time", "mean square", "y"),
    ),
    Claim(
        "sde.forward",
        part="ddpm",
        says="What n steps of DDPM keep of a sample differs from what the equation keeps by O(1 / n).",
        measure=_ddpm,
        predict=lambda _: 1.0,
        judge=Slope(),
        control=Variant("by O(1 / n^2)", predict=lambda _: 2.0),
        axes=Axes("1 / steps", "relative difference of the scales", "xy"),
    ),
    Claim(
        "sde.reverse",
        says="Forwards to noise, then backwards with the exact score: the energy distance to the data is zero.",
        measure=_returned(diffusion.heun),
        predict=lambda _: np.zeros(1),
        judge=Mean(floor=0.01),
        control=Variant("the score's sign flipped", measure=_returned(diffusion.heun, sign=-1.0)),
        budget=Budget(100, 500),
        axes=Axes("", "energy distance"),
    ),
    Claim(
        "sde.reverse",
        part="time",
        says="The same by the method of Euler and Maruyama; schedule and score must run backwards in time.",
        measure=_returned(diffusion.euler_maruyama),
        predict=lambda _: np.zeros(1),
        judge=Mean(floor=0.01),
        control=Variant("their time reversed", measure=_returned(diffusion.euler_maruyama, against=True)),
        budget=Budget(100, 500),
        axes=Axes("", "energy distance"),
    ),
    Claim(
        "sde.reverse@printed",
        says="Read with dt > 0, the equation leads from noise to data: their mean square.",
        measure=_squares(diffusion.euler_maruyama(_AS_PRINTED), rising=True),
        predict=_data_square(),
        judge=Mean(resolution=0.2),
        control=Variant("twice that", predict=_data_square(2.0)),
        corrected=Variant("with dt < 0", measure=_squares(diffusion.euler_maruyama(_REVERSE), rising=False)),
        budget=Budget(4_000, 40_000),
        axes=Axes("", "mean square", "y"),
    ),
)
