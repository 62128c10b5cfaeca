"""Claims about the posteriors of networks, sampled whole, and the Gaussian process that they approach with width."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import networks, nngp, samplers
from experiments.claim import Assumption, Axes, Budget, Claim, Variant, generator
from experiments.curves import Curve, estimate
from experiments.judges import Mean, Slope

__all__ = ["CLAIMS"]

# Four observations of a function of one variable, and a network with one hidden layer.

_X, _Y = np.array([[-1.2], [-0.4], [0.5], [1.3]]), np.array([1.2, -0.8, -0.6, 1.4])
_TEST = np.linspace(-2.0, 2.0, 9)[:, None]
_NOISE, _SIGMA_W, _SIGMA_B = 0.1, 1.5, 0.5
_STEP_SIZE, _NUM_LEAPS = 0.14, 12
_NUM_CHAINS, _BURN_IN, _NUM_DRAWS = 64, 50, 200


_rhat = jax.jit(samplers.rhat)


class _Predictions(NamedTuple):
    widths: np.ndarray  # [r]
    outputs: np.ndarray  # at the test inputs, [r, chains, draws, m]


def _log_likelihood(outputs, target):
    return samplers.gaussian_log_likelihood(outputs[0], target, _NOISE)


@functools.partial(jax.jit, static_argnums=0)
def _outputs(network, key, start):
    """Outputs [chains, draws, m] along Hamiltonian chains."""
    x, y, test = (jnp.asarray(array, jnp.float32) for array in (_X, _Y, _TEST))
    density = samplers.log_posterior(network.apply, x, y, log_likelihood_fn=_log_likelihood)
    algorithm = samplers.hmc(density, _STEP_SIZE, _NUM_LEAPS, jitter=0.5)
    draws = samplers.run(key, algorithm, start, _BURN_IN + _NUM_DRAWS).positions
    kept = jax.tree.map(lambda leaf: leaf[:, _BURN_IN:], draws)
    return samplers.posterior_outputs(network.apply, kept, test, batch_size=1000)[..., 0]


def _sampled(*widths):
    """A set-up: predictions of networks of these widths, by as many times `_NUM_CHAINS` chains as the budget says.

    Chains start at networks from the prior, whose parameters are standard normal.
    """

    def setup(key, budget):
        def of(width):
            network = networks.MLP((width, 1), activation=jax.lax.erf, sigma_w=_SIGMA_W, sigma_b=_SIGMA_B)
            shapes = jax.eval_shape(network.init, key, jnp.asarray(_X, jnp.float32))
            parts = []
            for child in jax.random.split(jax.random.fold_in(key, width), budget):
                normal = functools.partial(generator(child).standard_normal, dtype=np.float32)
                start = jax.tree.map(lambda leaf, normal=normal: normal((_NUM_CHAINS, *leaf.shape)), shapes)
                parts.append(np.asarray(_outputs(network, child, start), float))
            return np.concatenate(parts)

        return _Predictions(np.array(widths), np.stack([of(width) for width in widths]))

    return setup


def _mixed(predictions):
    """Whether no output at any width has an R-hat above 1.02."""
    return all(np.max(_rhat(outputs[:_NUM_CHAINS])) < 1.02 for outputs in predictions.outputs)


def _limits(predictions):
    """Mean and variance of the outputs by straight lines in 1 / width, continued to 0."""
    centred = 1 / predictions.widths - np.mean(1 / predictions.widths)
    weights = 1 / len(centred) - np.mean(1 / predictions.widths) * centred / np.sum(centred**2)
    x = _TEST[:, 0]

    def limit(values):  # [r, chains, draws, m]: chains are independent, and so are widths
        rows = [estimate(value.mean(axis=1)) for value in values]
        y, error = (np.stack([getattr(row, field) for row in rows]) for field in ("y", "standard_error"))
        return Curve(weights @ y, x, np.sqrt(weights**2 @ error**2))

    deviations = predictions.outputs - predictions.outputs.mean(axis=(1, 2), keepdims=True)
    return {"mean": limit(predictions.outputs), "variance": limit(deviations**2)}


@functools.partial(jax.jit, static_argnums=0)
def _gaussian_process(kind):
    """Mean and variance [m] of the posterior of the process with one of the network's kernels."""
    x = jnp.asarray(np.concatenate([_X, _TEST]))
    kernels = nngp.fully_connected_kernels(x, depth=1, sigma_w=_SIGMA_W, sigma_b=_SIGMA_B, activation="erf")
    kernel = kernels.nngp.covariance if kind == "nngp" else kernels.ntk
    n = len(_X)
    posterior = nngp.gp_condition(kernel[:n, :n], kernel[n:, :n], kernel[n:, n:], jnp.asarray(_Y), noise=_NOISE)
    return posterior.mean, jnp.diag(posterior.covariance)


def _predicted(kind):
    return lambda _: dict(zip(("mean", "variance"), _gaussian_process(kind), strict=True))


def _excess(predictions):
    """Mean square distance from the process's mean relative to its variance, less one, over the width."""
    mean, variance = map(np.asarray, _gaussian_process("nngp"))
    squares = np.mean((predictions.outputs - mean) ** 2 / variance - 1, axis=(2, 3))
    return estimate(squares.T, predictions.widths)


_ASSUMPTIONS = (Assumption("the outputs of all chains have mixed: R-hat below 1.02", _mixed),)

CLAIMS = (
    Claim(
        "samplers.gibbs_distribution",
        part="wide networks",
        says="Mean and variance of the outputs under the posterior of all weights, sampled by Hamiltonian Monte Carlo "
        "and continued to infinite width, are those of the Gaussian process with the network's kernel.",
        setup=_sampled(64, 256),
        measure=_limits,
        predict=_predicted("nngp"),
        judge=Mean(resolution=0.1, floor=0.1),
        control=Variant("with the tangent kernel", predict=_predicted("ntk")),
        assumptions=_ASSUMPTIONS,
        budget=Budget(1, 30),
        axes=Axes("input", "posterior"),
    ),
    Claim(
        "samplers.gibbs_distribution",
        part="rate in the width",
        says="The outputs of networks of width m are farther from the process's mean than its variance says by a "
        "share of order 1/m.",
        setup=_sampled(16, 32, 64, 128, 256),
        measure=_excess,
        predict=lambda _: -1.0,
        judge=Slope(tolerance=0.15),
        control=Variant("like 1/sqrt(m)", predict=lambda _: -0.5),
        assumptions=_ASSUMPTIONS,
        budget=Budget(1, 50),
        tier="full",
        axes=Axes("width m", "excess of the mean square", "xy"),
    ),
)
