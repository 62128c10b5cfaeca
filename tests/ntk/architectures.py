"""Small networks of every kind, with random parameters and inputs in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["ARCHITECTURES", "Architecture", "random_network"]

_KEY = jax.random.key(0)


class Architecture(NamedTuple):
    """A network, the shape of one input, and how many weights are left whole, because nothing factorises there."""

    module: nn.Module
    shape: tuple[int, ...]
    whole: int
    vocabulary: int | None = None


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(6)(x))
        x = x - nn.tanh(nn.Dense(6)(x))
        return nn.Dense(3)(-x)


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Conv(4, (3, 3), strides=2)(x))
        x = nn.tanh(nn.Conv(4, (3, 2), feature_group_count=2, kernel_dilation=(1, 2), padding="VALID")(x))
        x = nn.tanh(nn.ConvTranspose(3, (2, 2), strides=(2, 2), use_bias=False)(x))
        return nn.Dense(2)(x.reshape(x.shape[0], -1))


class PooledResidual(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), padding="CIRCULAR")(x)
        y = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(nn.tanh(x)))
        x = nn.avg_pool(nn.tanh(x + y), (2, 2), (2, 2))
        return nn.Dense(3)(nn.gelu(nn.Dense(5)(x.mean((1, 2)))))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.tanh(nn.LayerNorm(use_scale=False, use_bias=False)(nn.Dense(x.shape[-1])(x))), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        blocks = nn.scan(nn.remat(Block), variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        x, _ = blocks()(x, None)
        return nn.Dense(2)(x)


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(jnp.asarray(nn.RNN(nn.GRUCell(4, param_dtype=x.dtype))(x))[:, -1])


class Unrolled(nn.Module):
    @nn.compact
    def __call__(self, x):
        cell, state = nn.SimpleCell(4), jnp.zeros((x.shape[0], 4), x.dtype)
        for t in range(x.shape[1]):
            state, _ = cell(state, x[:, t])
        return nn.Dense(2)(state)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 8)(tokens)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        return nn.Dense(3)(x.mean(1))


class Tied(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        embedding = nn.Embed(11, 4)
        return embedding.attend(nn.tanh(nn.Dense(4)(embedding(tokens)))).mean(1)


ARCHITECTURES = {
    "mlp": Architecture(Mlp(), (4,), 0),
    "cnn": Architecture(Cnn(), (7, 6, 4), 0),
    "pooled residual, frozen batch norm": Architecture(PooledResidual(), (4, 6, 2), 0),
    "scanned, remat, layer norm": Architecture(Scanned(), (4,), 0),
    "recurrent": Architecture(Recurrent(), (3, 2), 0),
    "unrolled, shared weights": Architecture(Unrolled(), (3, 2), 0),
    "embedding, attention": Architecture(Attention(), (5,), 0, vocabulary=11),
    "tied embedding": Architecture(Tied(), (5,), 1, vocabulary=11),
}


def random_network(name: str, n: int = 4) -> tuple[Callable, Any, jax.Array]:
    """Apply function, variables with every entry random, and `n` inputs; call it under x64."""
    architecture = ARCHITECTURES[name]
    rng = np.random.default_rng(0)
    if architecture.vocabulary is None:
        x = jnp.asarray(rng.normal(size=(n, *architecture.shape)))
    else:
        x = jnp.asarray(rng.integers(0, architecture.vocabulary, (n, *architecture.shape)))
    variables = jax.eval_shape(architecture.module.init, _KEY, x[:1])

    def draw(leaf):
        return jnp.asarray(rng.uniform(0.5, 1, leaf.shape) * rng.choice([-1, 1], leaf.shape) * leaf.size ** (-1 / 4))

    variables = jax.tree.map(draw, variables)
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.5, variables["batch_stats"])
    return architecture.module.apply, variables, x
