"""Claims about the Gibbs sampler: how fast it mixes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import samplers
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.samplers._chains import advance
from experiments.curves import estimate
from experiments.judges import Mean

__all__ = ["CLAIMS"]

_CORRELATIONS = np.array([-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9])
_LAG = 2


def _sampler(scan):
    def make(rho):
        def given(other):
            def draw(key, position):
                noise = jax.random.normal(key, dtype=position[other].dtype)
                return rho * position[other] + jnp.sqrt(1 - rho**2) * noise

            return draw

        return samplers.gibbs({"a": given("b"), "b": given("a")}, scan=scan)

    return make


_SCANS = {"systematic": _sampler("systematic"), "random": _sampler("random")}


def _products(draw):
    """Products of the first coordinate with itself two steps later, from exact draws."""
    rng, curves = generator(draw.key), {}
    for scan, make in _SCANS.items():
        rows = []
        for number, rho in enumerate(_CORRELATIONS):
            a, noise = rng.normal(size=(2, draw.budget))
            start = {"a": a, "b": rho * a + np.sqrt(1 - rho**2) * noise}
            end = advance(make, _LAG, jax.random.fold_in(draw.key, number), start, rho)[0].position
            rows.append(a * np.asarray(end["a"], float))
        curves[f"{scan} scan"] = estimate(np.stack(rows, axis=1), _CORRELATIONS)
    return curves


def _autocorrelation(_):
    """Of a systematic scan rho^2 a step; of a random one the square of a matrix that mixes the coordinates."""
    systematic = _CORRELATIONS ** (2 * _LAG)
    random = []
    for rho in _CORRELATIONS:
        # E[(a, b) after | (a, b) before]: one of them is drawn given the other, each with probability 1/2.
        mean = (np.array([[0, rho], [0, 1]]) + np.array([[1, 0], [rho, 0]])) / 2
        random.append((np.linalg.matrix_power(mean, _LAG) @ [1, rho])[0])
    return {"systematic scan": systematic, "random scan": np.array(random)}


def _without_square(_):
    return {**_autocorrelation(_), "systematic scan": np.abs(_CORRELATIONS) ** _LAG}


CLAIMS = (
    Claim(
        "samplers.metropolis_hastings",
        part="Gibbs",
        says="Drawing either coordinate of a normal pair given the other leaves an autocorrelation of rho^2 a sweep, "
        "and more for coordinates in random order.",
        measure=_products,
        predict=_autocorrelation,
        judge=Mean(resolution=0.1, floor=0.1),
        control=Variant("an autocorrelation of abs(rho) a sweep", predict=_without_square),
        budget=Budget(10_000, 400_000),
        axes=Axes("correlation", "autocorrelation after two steps"),
    ),
)
