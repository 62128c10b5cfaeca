"""Claims about the law of the predictions of wide networks, each trained from its own start."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import ntk
from experiments.claim import Axes, Budget, Claim, Variant
from experiments.claims.ntk._networks import shallow
from experiments.curves import estimate
from experiments.judges import Mean

__all__ = ["CLAIMS"]


def _circle(angles):
    angles = np.radians(angles)
    return np.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], axis=1)


_X, _Y = _circle([20.0, 70.0, 160.0, 290.0]), np.array([1.0, -1.0, 1.5, -0.5])
_ANGLES = np.array([95.0, 115.0, 135.0, 190.0, 210.0, 235.0, 260.0, 320.0])


@functools.partial(jax.jit, static_argnums=(1, 2))
def _kernel_machines(key, num, width):
    """Predictions [num, m] of networks linearised where they start and trained for ever."""
    x, x_test = map(jnp.asarray, (_X, _circle(_ANGLES)))
    apply_fn = shallow("ReLU")

    def sample(key):
        key_first, key_second = jax.random.split(key)
        params = {
            "w": jax.random.normal(key_first, (width, 2), x.dtype),
            "v": jax.random.normal(key_second, (width, 1), x.dtype),
        }
        variables = {"params": params, "setting": {"scale": width**-0.5}}
        outputs = apply_fn(variables, jnp.concatenate([x, x_test]))[:, 0]
        kernel = ntk.empirical_ntk(apply_fn, variables, jnp.concatenate([x, x_test]), x)[..., 0, 0]
        n = len(x)
        return ntk.predict(kernel[:n], kernel[n:], jnp.asarray(_Y), outputs[:n], outputs[n:]).test

    return jax.lax.map(sample, jax.random.split(key, num))


def _moments(draw):
    """Of as many networks as each is wide, so that what finite width adds stays below what sampling leaves open."""
    samples = np.asarray(_kernel_machines(draw.key, draw.budget, draw.budget))
    spread = (samples - samples.mean(0)) ** 2 * len(samples) / (len(samples) - 1)
    return {"mean": estimate(samples, _ANGLES), "variance": estimate(spread, _ANGLES)}


@jax.jit
def _blocks():
    """Kernels of the infinite network between train and train, test and train, test and test: NNGP, then NTK."""
    x = jnp.concatenate([jnp.asarray(_X), jnp.asarray(_circle(_ANGLES))])
    kernels = ntk.analytic_ntk(x, depth=1, sigma_w=1.0, sigma_b=0.0, activation="relu")
    n = len(_X)
    return tuple((kernel[:n, :n], kernel[n:, :n], kernel[n:, n:]) for kernel in kernels)


@jax.jit
def _law(blocks):
    (nngp, nngp_cross, nngp_test), (tangent, tangent_cross, _) = blocks
    return ntk.ensemble_moments(tangent, tangent_cross, nngp, nngp_cross, nngp_test, jnp.asarray(_Y))


def _predicted_moments(_):
    law = _law(_blocks())
    return {"mean": law.mean, "variance": np.diag(law.covariance)}


def _posterior_moments(_):
    """Of the Gaussian process with the same prior, given the data."""
    prior, cross, test = map(np.asarray, _blocks()[0])
    weights = np.linalg.solve(prior, cross.T).T
    return {"mean": weights @ _Y, "variance": np.diag(test - weights @ cross.T)}


CLAIMS = (
    Claim(
        "ntk.ensemble_distribution",
        says="Mean and variance over starts are those of the Gaussian law, which is not the posterior.",
        measure=_moments,
        predict=_predicted_moments,
        judge=Mean(resolution=0.25, floor=0.1),
        control=Variant("the posterior of the Gaussian process", predict=_posterior_moments),
        budget=Budget(quick=3000, full=10_000),
        axes=Axes("angle of the input (degrees)", r"$f_\infty(x)$"),
    ),
)
