"""Kernels of networks with dropout in training, whose masks are as random as their weights."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import infinite_width
from tests.infinite_width.test_against_monte_carlo import LIMIT, gaussian_init, lecun

pytestmark = pytest.mark.statement("nngp.kernel_recursion", "ntk.init_convergence")
OUTPUTS, WIDTH, SAMPLES = 16, 512, 200


class Module(nn.Module):
    """A function as a module."""

    network: Callable[[Any, int], Any]
    width: int = WIDTH

    @nn.compact
    def __call__(self, x):
        return self.network(x, self.width)


def _drop(rate, **settings):
    return nn.Dropout(rate, deterministic=False, **settings)


def before_relu(x, width):
    for _ in range(2):
        x = nn.leaky_relu(_drop(0.3)(nn.Dense(width)(x)), 0.1)
    return nn.Dense(OUTPUTS)(x)


def residual(x, width):
    x = nn.Dense(width)(x)
    for _ in range(2):
        x = x + _drop(0.4)(nn.Dense(width)(nn.relu(x)))
    return nn.Dense(OUTPUTS)(nn.relu(x))


def normalised(x, width):
    x = nn.LayerNorm()(_drop(0.5)(nn.Dense(width)(x)))
    return nn.Dense(OUTPUTS)(_drop(0.2)(nn.gelu(x)))


def pooled(x, width):
    x = _drop(0.3)(nn.tanh(nn.Dense(width)(x)))
    x = _drop(0.5, broadcast_dims=(1,))(nn.Dense(width)(x))
    return nn.Dense(OUTPUTS)(nn.relu(x).mean(1))


def gated(x, width):
    x = nn.glu(_drop(0.3)(nn.Dense(2 * width)(x)))
    return nn.Dense(OUTPUTS)(x)


NETWORKS = {
    "before relu": (before_relu, (5,)),
    "residual": (residual, (5,)),
    "normalised": (normalised, (5,)),
    "pooled": (pooled, (3, 4)),
    "gated": (gated, (5,)),
}


def _simulate(module, x, key):
    """Both kernels of one network with masks of its own."""
    key_params, key_masks = jax.random.split(key)
    params = gaussian_init(module, lecun)(key_params, x)
    apply = functools.partial(module.apply, x=x, rngs={"dropout": key_masks})
    outputs, jacobian = apply(params), jax.jacrev(apply)(params)
    scaled = jax.tree.map_with_path(
        lambda path, leaf: lecun(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape[2:]) ** 0.5 * leaf,
        jacobian,
    )
    flat = jnp.concatenate([leaf.reshape(*outputs.shape, -1) for leaf in jax.tree.leaves(scaled)], axis=-1)
    return outputs @ outputs.T / OUTPUTS, jnp.einsum("iop,jop->ij", flat, flat) / OUTPUTS


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_within_the_noise_of_an_average(name):
    """The right kernels are, and those without dropout are not."""
    network, shape = NETWORKS[name]
    module, x = Module(network), jnp.asarray(np.random.default_rng(0).normal(size=(3, *shape)), jnp.float32)
    rngs = {name: jax.random.key(1) for name in ("params", "dropout")}
    params = jax.eval_shape(module.init, rngs, x)
    kernel = infinite_width.kernel_fn(functools.partial(module.apply, rngs=rngs), params, param_variance="lecun")
    exact, others = jax.jit(lambda x: (kernel(x), kernel(x, x)))(x)
    keys = jax.random.split(jax.random.key(0), SAMPLES)
    samples = jax.jit(lambda keys: jax.lax.map(functools.partial(_simulate, module, x), keys))(keys)
    for found, other, draws in zip(exact, others, samples, strict=True):
        error = draws.std(0, ddof=1) / SAMPLES**0.5
        assert float(jnp.max(jnp.abs(found - draws.mean(0)) / error)) < LIMIT
        assert float(jnp.max(jnp.abs(other - draws.mean(0)) / error)) > LIMIT  # masks of their own for equal inputs
        np.testing.assert_allclose(found[~np.eye(3, dtype=bool)], other[~np.eye(3, dtype=bool)], rtol=1e-5)
