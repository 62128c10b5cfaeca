"""A claim about the posterior of wide networks: Hamiltonian Monte Carlo over weights finds the Gaussian process's."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import nngp, samplers
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.samplers._chains import many_keys
from experiments.curves import Curve, estimate
from experiments.judges import Slope

__all__ = ["CLAIMS"]

_WIDTHS = np.array([2, 4, 8, 16, 32])
_ANGLES = np.array([-0.8, 0.8, 0.0])  # the last is the test input
_INPUTS = np.sqrt(2) * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
_TARGETS, _NOISE, _SIGMA_W = np.array([2.0, -1.0]), 0.1, 2**0.5
_BURN_IN = 40


def _outputs(params, mask):
    """Outputs of a network with one hidden layer of erf units, as many as `mask` leaves; weights are N(0, 1)."""
    hidden = jax.scipy.special.erf(_SIGMA_W / 2**0.5 * jnp.asarray(_INPUTS, jnp.float32) @ params["hidden"])
    return _SIGMA_W * hidden @ (mask * params["readout"]) / jnp.sqrt(jnp.sum(mask))


def _log_posterior(mask):
    def log_likelihood(params):
        return -jnp.sum((_outputs(params, mask)[:-1] - jnp.asarray(_TARGETS, jnp.float32)) ** 2) / (2 * _NOISE)

    def log_prior(params):
        return -sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)) / 2

    f = samplers.potential(log_likelihood, log_prior)
    return lambda params: -f(params)


@jax.jit
def _squares(keys, params, mask):
    """In single precision, mean square [n] of the output at the test input along each chain; `keys` [steps, n]."""
    algorithm = samplers.hmc(_log_posterior(mask), 0.2, 8)

    def chain(keys, params):
        def step(state, key):
            state, _ = algorithm.step(key, state)
            return state, _outputs(state.position, mask)[-1] ** 2

        return jnp.mean(jax.lax.scan(step, algorithm.init(params), keys)[1][_BURN_IN:])

    return jax.vmap(chain, in_axes=(1, 0))(keys, params)


@functools.cache
def _limit():
    """Mean square of the prediction under the posterior of the Gaussian process."""
    kernel = nngp.kernel(jnp.asarray(_INPUTS), depth=1, sigma_w=_SIGMA_W, sigma_b=0.0, activation="erf")
    k = np.asarray(kernel)
    at = nngp.gp_condition(k[:2, :2], k[2:, :2], k[2:, 2:], jnp.asarray(_TARGETS), noise=_NOISE)
    return float(at.mean[0] ** 2 + at.covariance[0, 0])


def _distances(draw):
    rng, points = generator(draw.key), []
    for number, width in enumerate(_WIDTHS):
        keys = many_keys(jax.random.fold_in(draw.key, number), (_BURN_IN + 120, draw.budget))
        params = {
            "hidden": rng.normal(size=(draw.budget, 2, _WIDTHS[-1])).astype(np.float32),
            "readout": rng.normal(size=(draw.budget, _WIDTHS[-1])).astype(np.float32),
        }
        square = estimate(_squares(keys, params, np.float32(np.arange(_WIDTHS[-1]) < width)))
        points.append((abs(square.y - _limit()), square.standard_error))
    distance, error = np.array(points).T
    return Curve(distance, _WIDTHS, error)


CLAIMS = (
    Claim(
        "samplers.gibbs_distribution",
        part="wide networks",
        says="The mean square of a Bayesian network's prediction, by Hamiltonian Monte Carlo over its weights, nears "
        "that of the Gaussian process of infinite width like 1/width.",
        measure=_distances,
        predict=lambda _: -1.0,
        judge=Slope(tolerance=0.25),
        control=Variant("like 1/sqrt(width)", predict=lambda _: -0.5),
        budget=Budget(150, 10_000),
        axes=Axes("width", "distance from the Gaussian process", "xy"),
    ),
)
