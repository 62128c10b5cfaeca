"""Kernels of networks that `stax` cannot express, against averages over random networks of finite width."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import infinite_width, networks

pytestmark = pytest.mark.statement(
    "infinite_width.architecture_universality",
    "infinite_width.layer_norm_follows",
    "nngp.kernel_recursion",
    "ntk.analytic_recursion",
    "ntk.init_convergence",
)
# 12 entries of symmetric kernels and 25 networks: chance exceeds this once in 500 runs of all tests.
LIMIT = 4.7
OUTPUTS = 64
ADJACENCY = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.5], [0.0, 0.5, 1.0]])


@dataclasses.dataclass(frozen=True)
class Case:
    """A network of some width, as (x, dense) -> outputs, and how well it is to be known.

    Attributes:
        network: maps inputs to outputs inside of a Flax module; (x, width).
        shape: of one input.
        width: of the hidden layers.
        num_samples: how many networks.
        param_variance: of the leaves; that of LeCun by default.
    """

    network: Callable[[Any, int], Any]
    shape: tuple[int, ...] = (5,)
    width: int = 512
    num_samples: int = 150
    param_variance: Any = "lecun"


class Module(nn.Module):
    """A function as a module."""

    network: Callable[[Any, int], Any]
    width: int

    @nn.compact
    def __call__(self, x):
        return self.network(x, self.width)


def _stack(activation, depth=2):
    def network(x, width):
        for _ in range(depth):
            x = activation(nn.Dense(width)(x))
        return nn.Dense(OUTPUTS)(x)

    return network


def _normalised(norm, before):
    def network(x, width):
        for _ in range(2):
            x = nn.Dense(width)(x)
            x = nn.relu(norm()(x)) if before else norm()(nn.relu(x))
        return nn.Dense(OUTPUTS)(x)

    return network


def dropped(x, width):
    for _ in range(2):
        x = nn.relu(nn.Dropout(0.5, deterministic=True)(nn.Dense(width)(x)))
    return nn.Dense(OUTPUTS)(x)


def post_activation(x, width):
    x = nn.Dense(width)(x)
    for _ in range(3):
        x = x + nn.relu(nn.Dense(width)(x))
    return nn.Dense(OUTPUTS)(x)


def activated_sum(x, width):
    x = nn.Dense(width)(x)
    for _ in range(2):
        x = nn.relu(x + nn.Dense(width)(x))
    return nn.Dense(OUTPUTS)(x)


def activated_concatenation(x, width):
    x = nn.silu(nn.Dense(width)(x))
    x = nn.relu(jnp.concatenate([nn.Dense(width)(x), 2.0 * nn.Dense(width // 2)(x)], axis=-1))
    return nn.Dense(OUTPUTS)(nn.relu(nn.Dense(width)(x)))


def gated(x, width):
    for _ in range(2):
        x = nn.glu(nn.Dense(2 * width)(x))
    return nn.Dense(OUTPUTS)(x)


def swiglu(x, width):
    x = nn.Dense(width)(x)
    for _ in range(2):
        x = x + nn.Dense(width)(nn.silu(nn.Dense(width)(x)) * nn.Dense(width)(x))
    return nn.Dense(OUTPUTS)(x)


class Recurrent(nn.Module):
    """The same weights at every step of a sequence."""

    width: int
    activation: Callable
    scanned: bool

    @nn.compact
    def __call__(self, x):
        normal = nn.initializers.normal(1.0)
        u = self.param("u", normal, (x.shape[-1], self.width)) / x.shape[-1] ** 0.5
        w = 1.2 * self.param("w", normal, (self.width, self.width)) / self.width**0.5
        b = 0.1 * self.param("b", normal, (self.width,))

        def step(h, xt):
            return self.activation(xt @ u + h @ w + b[None]), None

        h = jnp.zeros((x.shape[0], self.width), x.dtype)
        steps = jnp.swapaxes(x, 0, 1)
        if self.scanned:
            h, _ = jax.lax.scan(step, h, steps)
        else:
            for xt in steps:
                h, _ = step(h, xt)
        return networks.Dense(OUTPUTS)(h)


def _recurrent(activation, scanned):
    return lambda x, width: Recurrent(width, activation, scanned)(x)


def shared(x, width):
    layer = nn.Dense(width)
    x = nn.Dense(width)(x)
    return nn.Dense(OUTPUTS)(nn.relu(layer(nn.relu(layer(nn.relu(x))))))


def graph(x, width):
    adjacency = jnp.asarray(ADJACENCY, x.dtype)
    for _ in range(2):
        x = nn.silu(jnp.einsum("ij,njc->nic", adjacency, nn.Dense(width)(x)))
    return nn.Dense(OUTPUTS)(x.mean(1))


def deep_set(x, width):
    x = nn.relu(nn.Dense(width)(nn.relu(nn.Dense(width)(x)))).mean(1)
    return nn.Dense(OUTPUTS)(nn.softplus(nn.Dense(width)(x)))


def group_norm(x, width):
    for _ in range(2):
        x = nn.relu(nn.GroupNorm(num_groups=4, epsilon=1e-2)(nn.Conv(width, (3,))(x)))
    return nn.Dense(OUTPUTS)(x.mean(1))


def images(x, width):
    x = nn.silu(nn.Conv(width, (3, 3))(x))
    x = nn.avg_pool(x, (2, 2), strides=(2, 2))
    x = nn.LayerNorm()(nn.elu(nn.Conv(width, (2, 2), padding="VALID")(x)))
    return nn.Dense(OUTPUTS)(x.reshape((x.shape[0], -1)))


class Odd(nn.Module):
    """Channels first, weights in odd layouts, scales in odd places."""

    width: int

    @nn.compact
    def __call__(self, x):
        normal = nn.initializers.normal(1.0)
        h = jnp.einsum("hd,nd->hn", self.param("first", normal, (self.width, x.shape[-1])), x) * 0.5
        h = jnp.where(h > 0, h, 0.1 * h) - 0.2
        w = self.param("second", normal, (2, self.width, self.width // 2))
        h = jnp.einsum("akj,kn->naj", w, h) / jnp.sqrt(jnp.asarray(self.width, x.dtype))
        h = jnp.cos(h.reshape(h.shape[0], self.width)) ** 2 + 0.3 * jnp.maximum(h, -0.5).reshape(h.shape[0], -1)
        last = self.param("last", normal, (OUTPUTS, self.width))
        return jax.lax.dot_general(h, last, (((1,), (1,)), ((), ()))) / self.width**0.5


CASES = {
    "silu": Case(_stack(nn.silu)),
    "mish": Case(_stack(lambda x: x * jnp.tanh(nn.softplus(x)))),
    "tanh gelu": Case(_stack(nn.gelu)),
    "softplus": Case(_stack(nn.softplus)),
    "tanh": Case(_stack(jnp.tanh, 3)),
    "elu": Case(_stack(nn.elu)),
    "relu of tanh": Case(_stack(lambda x: nn.relu(jnp.tanh(x)))),
    "clipped relu": Case(_stack(nn.relu6)),
    "dropout before relu": Case(dropped),
    "layer norm before relu": Case(_normalised(nn.LayerNorm, True)),
    "layer norm after relu": Case(_normalised(nn.LayerNorm, False)),
    "rms norm": Case(_normalised(functools.partial(nn.RMSNorm, epsilon=1e-2), False)),
    "post-activation residual": Case(post_activation),
    "relu of a sum": Case(activated_sum),
    "relu of a concatenation": Case(activated_concatenation),
    "gated linear unit": Case(gated),
    "swiglu": Case(swiglu),
    "scanned tanh": Case(_recurrent(jnp.tanh, True), shape=(3, 4), param_variance=1.0),
    "scanned relu": Case(_recurrent(nn.relu, True), shape=(3, 4), param_variance=1.0),
    "unrolled relu": Case(_recurrent(nn.relu, False), shape=(3, 4), param_variance=1.0),
    "shared layer": Case(shared),
    "graph": Case(graph, shape=(3, 4)),
    "deep set": Case(deep_set, shape=(3, 4)),
    "group norm": Case(group_norm, shape=(4, 3)),
    "images": Case(images, shape=(4, 4, 2), width=256),
    "odd": Case(lambda x, width: Odd(width)(x), param_variance=1.0),
}


def lecun(path: str, shape: tuple[int, ...]) -> float:
    """Variance of kernels; biases and scales stay what they are."""
    return 1 / math.prod(shape[:-1]) if path.endswith("kernel") else 0.0


def unit(path: str, shape: tuple[int, ...]) -> float:
    """That of parameters whose scales are in the network."""
    return 1.0


def gaussian_init(module: nn.Module, variance: Callable[[str, tuple[int, ...]], float]) -> Callable[..., Any]:
    """Draws untruncated normals, for what is far from them in the first layer is so at any width."""

    def init(key, x):
        paths, tree = jax.tree_util.tree_flatten_with_path(module.init(key, x))
        keys = jax.random.split(key, len(paths))
        leaves = []
        for key, (path, leaf) in zip(keys, paths, strict=True):
            v = variance(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape)
            flat = math.sqrt(v) * jax.random.normal(key, (leaf.size,), leaf.dtype)
            leaves.append(flat.reshape(leaf.shape) if v > 0 else leaf)
        return jax.tree.unflatten(tree, leaves)

    return init


def deviations(estimate, nngp, ntk):
    """Largest distance of each kernel from its estimate, in standard errors."""
    return [
        float(jnp.max(abs(found - exact) / error))
        for found, exact, error in (
            (estimate.nngp, nngp, estimate.nngp_error),
            (estimate.ntk, ntk, estimate.ntk_error),
        )
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_within_the_noise_of_an_average(name):
    """The right kernels are, and kernels that are wrong by a twentieth are not."""
    case = CASES[name]
    module = Module(case.network, case.width)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, *case.shape)), jnp.float32)
    variance = lecun if case.param_variance == "lecun" else unit

    @jax.jit
    def simulate(key, x):
        return infinite_width.monte_carlo_kernel(
            gaussian_init(module, variance),
            module.apply,
            x,
            key=key,
            num_samples=case.num_samples,
            param_variance=variance,
        )

    estimate = simulate(jax.random.key(0), x)
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    kernel = infinite_width.kernel_fn(module.apply, params, param_variance=case.param_variance)
    exact = jax.jit(kernel)(x)
    right = deviations(estimate, exact.nngp, exact.ntk)
    wrong = deviations(estimate, exact.nngp, 1.05 * exact.ntk)
    assert max(right) < LIMIT < wrong[1], (right, wrong)
