"""Architectures as a user writes them in Flax, their limits read off by the library, and the same limits on paper.

All of them take the same inputs: sequences of three positions with two channels, which dense networks flatten.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from dltheory import infinite_width
from dltheory.networks import Conv, Dense
from dltheory.typing import Array

__all__ = [
    "ARCHITECTURES",
    "INPUTS",
    "ON_PAPER",
    "PAIRS",
    "STRIPPED",
    "Kernels",
    "Network",
    "arc_cosine_step",
    "limit",
    "on_paper",
    "quadrature_step",
    "read_off",
]

INPUTS = np.array(
    [
        [[1.0, 0.2], [-0.5, 0.8], [0.3, -1.1]],
        [[0.9, -0.4], [-0.1, 1.2], [0.6, -0.7]],
        [[-0.3, 1.3], [0.7, 0.5], [-0.9, 0.1]],
        [[-1.2, 0.6], [0.4, -0.8], [0.2, 0.9]],
    ]
)
PAIRS = np.triu_indices(len(INPUTS))
_ADJACENCY = np.array([[2, 1, 0], [1, 1, 1], [0, 1, 2]]) / 3  # of a path with loops, rows normalised
_SIGMA_W = 2.0**0.5


def _residual(x, width, activation):
    x = Dense(width, sigma_w=_SIGMA_W)(_flat(x))
    for _ in range(2):
        x = x + Dense(width, sigma_w=_SIGMA_W)(activation(x))
    return activation(x)


def _convolutional(x, width, activation):
    for _ in range(2):
        x = activation(Conv(width, (3,), sigma_w=_SIGMA_W)(x))
    return jnp.mean(x, axis=1)


def _normalized(x, width, activation):
    x = _flat(x)
    for _ in range(2):
        x = activation(nn.LayerNorm(use_bias=False, use_scale=False)(Dense(width, sigma_w=_SIGMA_W)(x)))
    return x


def _gated(x, width, activation):
    x = _flat(x)
    for _ in range(2):
        x = activation(Dense(width, sigma_w=_SIGMA_W)(x)) * nn.sigmoid(Dense(width, sigma_w=_SIGMA_W)(x))
    return x


def _recurrent(x, width, activation):
    cell, encoder = Dense(width), Dense(width)
    hidden = activation(encoder(x[:, 0]))
    for step in range(1, x.shape[1]):
        hidden = activation(cell(hidden) + encoder(x[:, step]))
    return hidden


def _graph(x, width, activation):
    for _ in range(2):
        x = activation(Dense(width, sigma_w=_SIGMA_W)(jnp.einsum("pq,nqc->npc", jnp.asarray(_ADJACENCY, x.dtype), x)))
    return jnp.mean(x, axis=1)


def _flat(x):
    return x.reshape(len(x), -1)


ARCHITECTURES: dict[str, Callable[[Any, int, Callable], Any]] = {
    "residual": _residual,
    "convolutional": _convolutional,
    "layer norm": _normalized,
    "gated": _gated,
    "recurrent": _recurrent,
    "graph": _graph,
}


class Network(nn.Module):
    """One of the architectures, whose features a last layer with one output reads.

    Attributes:
        architecture: its name.
        width: number of channels of all hidden layers.
        activation: elementwise function.
        readout: whether there is a last layer; without it the outputs are the features.
    """

    architecture: str
    width: int = 64
    activation: Callable[[Array], Array] = nn.relu
    readout: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps inputs [n, 3, 2] to outputs [n, 1], or features [n, width]."""
        features = ARCHITECTURES[self.architecture](x, self.width, self.activation)
        return Dense(1)(features) if self.readout else features


class Kernels(NamedTuple):
    """Covariance and tangent kernel, shape [n, n] each."""

    nngp: np.ndarray
    ntk: np.ndarray


@functools.cache
def limit(architecture: str, activation: Callable[[Array], Array] = nn.relu) -> Kernels:
    """The kernels of the infinitely wide network, as the library reads them off the module."""
    network, x = Network(architecture, activation=activation), jnp.asarray(INPUTS)
    params = jax.eval_shape(network.init, jax.random.key(0), x)
    kernel = infinite_width.kernel_fn(network.apply, params, param_variance=1.0)
    return Kernels(*map(np.asarray, jax.jit(kernel)(x)))


# On paper: a step maps covariances [s, s] of Gaussians to the mean products of their activations, and of the slopes.

Step = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
_HERMITE = np.polynomial.hermite_e.hermegauss(180)


def quadrature_step(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E φ(u) φ(v) and E φ'(u) φ'(v) for the error function, by Gauss and Hermite's rule in both variables."""
    nodes, weights = _HERMITE
    rule = np.outer(weights, weights) / (2 * np.pi)
    variance = np.diag(covariance)
    slope = (covariance / variance[:, None])[:, :, None, None]
    rest = np.sqrt(np.maximum(variance[None, :] - covariance**2 / variance[:, None], 0))[:, :, None, None]
    u = np.sqrt(variance)[:, None, None, None] * nodes[:, None]
    v = slope * u + rest * nodes
    return tuple(
        np.sum(rule * f(u) * f(v), axis=(-2, -1)) for f in (special.erf, lambda u: 2 / np.sqrt(np.pi) * np.exp(-(u**2)))
    )


def arc_cosine_step(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for ReLU, by the arc-cosine kernels of orders one and zero."""
    size = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    angle = np.arccos(np.clip(covariance / size, -1, 1))
    value = size * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
    return value, (np.pi - angle) / (2 * np.pi)


def _residual_on_paper(step: Step, skip: bool = True) -> Kernels:
    nngp = tangent = _SIGMA_W**2 * _gram(_flat(INPUTS))
    for _ in range(2):
        value, slope = step(nngp)
        tangent = skip * tangent + _SIGMA_W**2 * (value + slope * tangent)
        nngp = skip * nngp + _SIGMA_W**2 * value
    return _read_out(*step(nngp), tangent)


def _convolutional_on_paper(step: Step, filters: bool = True) -> Kernels:
    n, positions, channels = INPUTS.shape

    def patches(covariance):
        """Averages over filters of three taps that both positions move along, zeros beyond the ends."""
        padded = np.pad(covariance.reshape(n, positions, n, positions), [(0, 0), (1, 1)] * 2)
        taps = range(3) if filters else [1, 1, 1]
        moved = [padded[:, t : t + positions, :, t : t + positions] for t in taps]
        return np.mean(moved, axis=0).reshape(covariance.shape)

    nngp = tangent = _SIGMA_W**2 * patches(_gram(INPUTS.reshape(-1, channels)))
    value, slope = step(nngp)
    tangent = _SIGMA_W**2 * patches(value + slope * tangent)
    nngp = _SIGMA_W**2 * patches(value)
    everywhere = _read_out(*step(nngp), tangent)
    return Kernels(*(np.mean(k.reshape(n, positions, n, positions), axis=(1, 3)) for k in everywhere))


def _normalized_on_paper(step: Step, normalized: bool = True) -> Kernels:
    features = _gram(_flat(INPUTS))
    read = Kernels(features, features)
    for _ in range(2):
        nngp, tangent = (_SIGMA_W**2 * kernel for kernel in read)
        deviation = np.sqrt(np.diag(nngp) + 1e-6) if normalized else np.ones(len(nngp))
        scale = np.outer(deviation, deviation)
        read = _read_out(*step(nngp / scale), tangent / scale)
    return read


def _read_out(value: np.ndarray, slope: np.ndarray, tangent: np.ndarray) -> Kernels:
    return Kernels(value, value + slope * tangent)


def _gram(x: np.ndarray) -> np.ndarray:
    return x @ x.T / x.shape[1]


# Each takes a step, and whether to leave in what makes the architecture.
ON_PAPER: dict[str, Callable[[Step, bool], Kernels]] = {
    "residual": _residual_on_paper,
    "convolutional": _convolutional_on_paper,
    "layer norm": _normalized_on_paper,
}
STRIPPED = "without skip connections, filters, normalisation"  # what is left out of recursions that are not whole


def read_off(kind: str, activation: Callable[[Array], Array] = nn.relu) -> Callable[[Any], dict[str, np.ndarray]]:
    """A function of any problem: the entries of a kernel ("nngp" or "ntk") of these architectures, by the library."""
    return lambda _: {name: getattr(limit(name, activation), kind)[PAIRS] for name in ON_PAPER}


def on_paper(kind: str, step: Step = arc_cosine_step, whole: bool = True) -> Callable[[Any], dict[str, np.ndarray]]:
    """The same by the recursions on paper, with what makes the architectures or without."""
    return lambda _: {name: getattr(recursion(step, whole), kind)[PAIRS] for name, recursion in ON_PAPER.items()}
