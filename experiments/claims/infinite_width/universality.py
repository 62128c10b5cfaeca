"""Claims about the kernels of wide networks of any architecture."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import ntk
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims._architectures import ARCHITECTURES, INPUTS, Network, limit
from experiments.curves import Curve, estimate
from experiments.judges import Slope

__all__ = ["CLAIMS"]

_NETWORKS = 200
_MINIMUM = 32


@functools.partial(jax.jit, static_argnums=(0, 1))
def _tangent_kernel(architecture, width, params):
    apply_fn: Any = Network(architecture, width).apply  # Flax may return more than outputs
    return ntk.empirical_ntk(apply_fn, params, jnp.asarray(INPUTS, jnp.float32))[..., 0, 0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _covariance(architecture, width, params):
    """Mean products of the features."""
    features: Any = Network(architecture, width, readout=False).apply(params, jnp.asarray(INPUTS, jnp.float32))
    return features @ features.T / width


def _random_kernels(kernel: Callable[..., Any], readout: bool):
    """A set-up: widths [r], and kernels [networks, r, n, n] of every architecture with standard normal parameters."""

    def setup(key, budget):
        rng, x = generator(key), jnp.asarray(INPUTS, jnp.float32)
        widths = _MINIMUM * 2 ** np.arange(round(np.log2(budget / _MINIMUM)) + 1)

        def sample(name, width):
            shapes = jax.eval_shape(Network(name, width, readout=readout).init, jax.random.key(0), x)
            for _ in range(_NETWORKS):
                params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)
                yield np.asarray(kernel(name, width, params), float)

        kernels = {name: [list(sample(name, int(width))) for width in widths] for name in ARCHITECTURES}
        return widths, {name: np.swapaxes(samples, 0, 1) for name, samples in kernels.items()}

    return setup


def _deviations(kind: str, exchanged: bool = False):
    """Distances from the limits relative to these, over the width; or from the limits of the next architecture."""
    names = list(ARCHITECTURES)
    limits = dict(zip(names, names[1:] + names[:1] if exchanged else names, strict=True))

    def measure(problem) -> dict[str, Curve]:
        widths, kernels = problem
        curves = {}
        for name, samples in kernels.items():
            target = getattr(limit(limits[name]), kind)
            distances = np.linalg.norm(samples - target, axis=(-2, -1)) / np.linalg.norm(target)
            curves[name] = estimate(distances, widths)
        return curves

    return measure


CLAIMS = (
    Claim(
        "infinite_width.architecture_universality",
        says="Tangent kernels of six architectures approach those read off their modules as width^(−1/2).",
        setup=_random_kernels(_tangent_kernel, readout=True),
        measure=_deviations("ntk"),
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.1),
        control=Variant("each with another architecture's limit", measure=_deviations("ntk", exchanged=True)),
        budget=Budget(quick=512, full=8192),
        time_limit=120.0,
        axes=Axes("width m", r"$\|\hat\Theta - \Theta\|_F / \|\Theta\|_F$", log="xy"),
    ),
    Claim(
        "infinite_width.architecture_universality",
        part="covariance",
        says="So do mean products of their features.",
        setup=_random_kernels(_covariance, readout=False),
        measure=_deviations("nngp"),
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.1),
        control=Variant("each with another architecture's limit", measure=_deviations("nngp", exchanged=True)),
        budget=Budget(quick=512, full=8192),
        time_limit=120.0,
        axes=Axes("width m", r"$\|\hat K - K\|_F / \|K\|_F$", log="xy"),
    ),
)
