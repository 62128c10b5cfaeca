"""Claims about Langevin dynamics without momentum: the bias of the unadjusted algorithm, and its cure."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import samplers
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.samplers._chains import advance, many_keys, normal
from experiments.curves import estimate
from experiments.judges import Mean

__all__ = ["CLAIMS"]

_SIGMA = 1.3
_STEPS = _SIGMA**2 * np.array([0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5])


def _scaled(x):
    return normal(x / _SIGMA)


def _ula(step_size):
    return samplers.ula(_scaled, step_size)


def _mala(step_size):
    return samplers.mala(_scaled, step_size)


def _variances(make):
    """Mean squares of positions after sixty steps from exact draws."""

    def measure(draw):
        rng = generator(draw.key)
        rows = []
        for number, step_size in enumerate(_STEPS):
            start = _SIGMA * rng.normal(size=draw.budget)
            rows.append(
                np.asarray(advance(make, 60, jax.random.fold_in(draw.key, number), start, step_size)[0].position)
            )
        return estimate(np.stack(rows, axis=1) ** 2, _STEPS)

    return measure


def _biased(_):
    return _SIGMA**2 / (1 - _STEPS / (2 * _SIGMA**2))


def _exact(_):
    return np.full(len(_STEPS), _SIGMA**2)


# On the way: variances from a point, also where there is no stationary law.

_TIMES = np.arange(1, 13)
_SHOWN = {"0.2": 0.2, "1.5": 1.5, "2": 2.0, "2.2": 2.2}  # steps as multiples of sigma^2
_ORIGIN = 2.0


@functools.partial(jax.jit, static_argnums=0)
def _paths(make, keys, step_size):
    algorithm = make(step_size)

    def step(state, key):
        state, _ = algorithm.step(key, state)
        return state, state.position

    return jax.vmap(lambda keys: jax.lax.scan(step, algorithm.init(jnp.array(_ORIGIN)), keys)[1])(keys)


def _squares(draw):
    curves = {}
    for number, (name, multiple) in enumerate(_SHOWN.items()):
        keys = many_keys(jax.random.fold_in(draw.key, number), (draw.budget, len(_TIMES)))
        curves[f"step {name} sigma^2"] = estimate(np.asarray(_paths(_ula, keys, multiple * _SIGMA**2)) ** 2, _TIMES)
    return curves


def _recursion(multiples):
    """Second moments of x <- (1 - eta / sigma^2) x + sqrt(2 eta) xi."""

    def predict(_):
        curves = {}
        for name, multiple in zip(_SHOWN, multiples, strict=True):
            moment, moments = _ORIGIN**2, []
            for _ in _TIMES:
                moment = (1 - multiple) ** 2 * moment + 2 * multiple * _SIGMA**2
                moments.append(moment)
            curves[f"step {name} sigma^2"] = np.array(moments)
        return curves

    return predict


def _of_the_equation(_):
    """Second moments of the stochastic differential equation at the same times."""
    return {
        f"step {name} sigma^2": _SIGMA**2 + (_ORIGIN**2 - _SIGMA**2) * np.exp(-2 * multiple * _TIMES)
        for name, multiple in _SHOWN.items()
    }


_AXES = Axes("step size", "stationary variance")

CLAIMS = (
    Claim(
        "samplers.ula",
        says="For N(0, sigma^2) the stationary variance is sigma^2 / (1 - eta / (2 sigma^2)).",
        measure=_variances(_ula),
        predict=_biased,
        judge=Mean(resolution=0.1),
        control=Variant("the target's own variance", predict=_exact),
        budget=Budget(8_000, 400_000),
        axes=_AXES,
    ),
    Claim(
        "samplers.ula@printed",
        says="The algorithm samples its target: N(0, sigma^2) comes with variance sigma^2, whatever the step.",
        measure=_variances(_ula),
        predict=_exact,
        judge=Mean(resolution=0.1),
        control=Variant("half the variance", predict=lambda _: _exact(_) / 2),
        corrected=Variant("a bias that grows with the step", predict=_biased),
        budget=Budget(8_000, 400_000),
        axes=_AXES,
    ),
    Claim(
        "samplers.ula",
        part="transient",
        says="Second moments follow the recursion of the algorithm at every step, and explode from eta = 2 sigma^2 on.",
        measure=_squares,
        predict=_recursion(_SHOWN.values()),
        judge=Mean(resolution=0.1),
        control=Variant("those of the differential equation", predict=_of_the_equation),
        budget=Budget(8_000, 400_000),
        axes=Axes("step", "mean square", "y"),
    ),
    Claim(
        "samplers.ula",
        part="adjusted",
        says="With Metropolis's rule (MALA) the variance is the target's for every step.",
        measure=_variances(_mala),
        predict=_exact,
        judge=Mean(resolution=0.1),
        control=Variant("without it", measure=_variances(_ula)),
        budget=Budget(8_000, 400_000),
        axes=_AXES,
    ),
)
