"""Claims about layer normalisation in wide networks."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dltheory import infinite_width
from dltheory.networks import Dense
from dltheory.typing import Array
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims._architectures import INPUTS, PAIRS, arc_cosine_step
from experiments.curves import Curve, estimate
from experiments.judges import Equal, Mean, Slope

__all__ = ["CLAIMS"]

_SIGMA_W, _SIGMA_B, _EPSILON = 1.5, 0.5, 1e-2
_X = INPUTS.reshape(len(INPUTS), -1) * np.array([[0.3], [1.0], [2.0], [0.7]])  # of different norms


class _Normalized(nn.Module):
    """One hidden layer, normalised before the ReLU or after it, with an epsilon large enough to be seen."""

    before: bool
    width: int = 64
    num_outputs: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        norm = nn.LayerNorm(epsilon=_EPSILON, use_bias=False, use_scale=False, use_fast_variance=False)
        h = Dense(self.width, sigma_w=_SIGMA_W, sigma_b=_SIGMA_B)(x)
        h = nn.relu(norm(h)) if self.before else norm(nn.relu(h))
        return Dense(self.num_outputs)(h)


_ORDERS = {"before ReLU": True, "after ReLU": False}


def _read_off(_):
    """Both kernels of both orders, by the library from the modules."""
    curves = {}
    for name, before in _ORDERS.items():
        network = _Normalized(before)
        params = jax.eval_shape(network.init, jax.random.key(0), _X)
        kernel = jax.jit(infinite_width.kernel_fn(network.apply, params, param_variance=1.0))(jnp.asarray(_X))
        curves |= {f"NNGP, {name}": kernel.nngp[PAIRS], f"NTK, {name}": kernel.ntk[PAIRS]}
    return curves


def _on_paper(centered=True):
    """The same by arc-cosine kernels: normalising divides by the deviation, and takes away the mean of ReLUs."""

    def predict(_):
        first = _SIGMA_W**2 * _X @ _X.T / _X.shape[1] + _SIGMA_B**2
        variance = np.diag(first)
        curves = {}
        for name, before in _ORDERS.items():
            if before:
                scale = np.sqrt(variance + _EPSILON)
                value, slope = arc_cosine_step(first / np.outer(scale, scale))
            else:
                value, slope = arc_cosine_step(first)
                mean = np.sqrt(variance / (2 * np.pi)) * centered
                scale = np.sqrt(variance / 2 - mean**2 + _EPSILON)
                value = (value - np.outer(mean, mean)) / np.outer(scale, scale)
            tangent = value + slope * first / np.outer(scale, scale)
            curves |= {f"NNGP, {name}": value[PAIRS], f"NTK, {name}": tangent[PAIRS]}
        return curves

    return predict


# Networks of finite width.

_WIDTH = 256


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sampled(before, num, key):
    network = _Normalized(before, _WIDTH, num_outputs=16)
    x = jnp.asarray(_X, jnp.float32)
    apply_fn: Any = network.apply  # Flax may return more than outputs
    return infinite_width.monte_carlo_kernel(network.init, apply_fn, x, key=key, num_samples=num)


def _mean_kernels(draw):
    curves = {}
    for name, before in _ORDERS.items():
        kernel = _sampled(before, draw.budget, draw.key)
        for kind, value, error in (
            ("NNGP", kernel.nngp, kernel.nngp_error),
            ("NTK", kernel.ntk, kernel.ntk_error),
        ):
            curves[f"{kind}, {name}"] = Curve(value[PAIRS], None, error[PAIRS])
    return curves


# The statistics over channels.

_WIDTHS = 2 ** np.arange(6, 12)


def _scatter(power=0.0):
    """Relative deviations of the statistics of ReLU features from their limits, times a power of the width."""

    def measure(draw):
        rng = generator(draw.key)
        covariance = _SIGMA_W**2 * _X @ _X.T / _X.shape[1] + _SIGMA_B**2
        root, variance = np.linalg.cholesky(covariance), np.diag(covariance)
        limits = {"mean": np.sqrt(variance / (2 * np.pi)), "variance": variance * (0.5 - 1 / (2 * np.pi))}
        deviations = {name: [] for name in limits}
        for width in _WIDTHS:
            features = np.maximum(rng.normal(size=(draw.budget, width, len(_X))) @ root.T, 0)
            for name, statistic in (("mean", np.mean), ("variance", np.var)):
                relative = np.abs(statistic(features, axis=1) / limits[name] - 1)
                deviations[name].append(np.mean(relative, axis=1) * width**power)
        return {name: estimate(np.transpose(values), _WIDTHS) for name, values in deviations.items()}

    return measure


CLAIMS = (
    Claim(
        "infinite_width.layer_norm_follows",
        says="Kernels read off modules with layer normalisation, before the ReLU and after it, are those on paper.",
        measure=_read_off,
        predict=_on_paper(),
        judge=Equal(rtol=1e-9, atol=1e-12),
        control=Variant("without the mean over channels", predict=_on_paper(centered=False)),
        axes=Axes("pair of inputs", "kernel"),
    ),
    Claim(
        "infinite_width.layer_norm_follows",
        part="networks",
        says="Random networks of width 256 with layer normalisation have these kernels on average.",
        measure=_mean_kernels,
        predict=_on_paper(),
        judge=Mean(resolution=0.3, floor=0.15),
        control=Variant("without the mean over channels", predict=_on_paper(centered=False)),
        budget=Budget(quick=200, full=1000),
        axes=Axes("pair of inputs", "kernel"),
    ),
    Claim(
        "infinite_width.layer_norm_follows",
        part="statistics",
        says="Mean and variance over the channels deviate from constants by width^(−1/2).",
        measure=_scatter(),
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.05),
        control=Variant("root of the width times the deviation", measure=_scatter(power=0.5)),
        budget=Budget(quick=800, full=5000),
        axes=Axes("width m", "relative deviation", log="xy"),
    ),
)
