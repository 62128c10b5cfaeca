"""Networks as their libraries' own examples write them go in unchanged."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from dltheory import networks, ntk
from tests.ntk.test_empirical import close, reference

pytestmark = [pytest.mark.slow, pytest.mark.statement("ntk.kernel")]


class ResidualBlock(linen.Module):
    filters: int
    conv: Callable
    norm: Callable
    strides: tuple[int, int] = (1, 1)

    @linen.compact
    def __call__(self, x):
        residual = x
        y = linen.relu(self.norm()(self.conv(self.filters, (3, 3), self.strides)(x)))
        y = self.norm(scale_init=linen.initializers.zeros_init())(self.conv(self.filters, (3, 3))(y))
        if residual.shape != y.shape:
            residual = self.norm(name="norm_proj")(self.conv(self.filters, (1, 1), self.strides, name="conv_proj")(x))
        return linen.relu(residual + y)


class ResNet(linen.Module):
    stages: tuple[int, ...]
    classes: int
    filters: int = 4

    @linen.compact
    def __call__(self, x, train=True):
        conv = partial(linen.Conv, use_bias=False)
        norm = partial(linen.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, axis_name="batch")
        x = conv(self.filters, (7, 7), (2, 2), padding=[(3, 3), (3, 3)], name="conv_init")(x)
        x = linen.max_pool(linen.relu(norm(name="bn_init")(x)), (3, 3), strides=(2, 2), padding="SAME")
        for i, blocks in enumerate(self.stages):
            for j in range(blocks):
                strides = (2, 2) if i > 0 and j == 0 else (1, 1)
                x = ResidualBlock(self.filters * 2**i, conv, norm, strides)(x)
        return linen.Dense(self.classes)(jnp.mean(x, axis=(1, 2)))


def test_flax_resnet(x64):
    model = ResNet(stages=(2, 1), classes=3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16, 16, 3)))
    variables = model.init(jax.random.key(0), x, train=False)
    noise = iter(jax.random.split(jax.random.key(1), 100))
    variables = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.uniform(next(noise), leaf.shape, x.dtype), variables)
    apply = partial(model.apply, train=False)
    kernel, expected = jax.jit(lambda v, x: (ntk.empirical_ntk(apply, v, x), reference(apply, v, x)))(variables, x)
    close(kernel, expected)


class Cnn(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 4, kernel_size=(3, 3), rngs=rngs)
        self.batch_norm1 = nnx.BatchNorm(4, rngs=rngs)
        self.dropout1 = nnx.Dropout(rate=0.025, rngs=rngs)
        self.conv2 = nnx.Conv(4, 6, kernel_size=(3, 3), rngs=rngs)
        self.avg_pool = partial(nnx.avg_pool, window_shape=(2, 2), strides=(2, 2))
        self.linear1 = nnx.Linear(24, 8, rngs=rngs)
        self.dropout2 = nnx.Dropout(rate=0.025, rngs=rngs)
        self.linear2 = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = self.avg_pool(nnx.relu(self.batch_norm1(self.dropout1(self.conv1(x)))))
        x = self.avg_pool(nnx.relu(self.conv2(x)))
        x = x.reshape(x.shape[0], -1)
        return self.linear2(nnx.relu(self.dropout2(self.linear1(x))))


def test_nnx_module(x64):
    network = networks.from_nnx(Cnn(rngs=nnx.Rngs(0)))
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), network.params)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 1)))
    kernel, expected = jax.jit(
        lambda p, x: (ntk.empirical_ntk(network.apply, p, x), reference(network.apply, p, x))
    )(params, x)
    close(kernel, expected, 1e-6)  # the module multiplies in its own precision, single
