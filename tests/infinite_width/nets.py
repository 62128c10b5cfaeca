"""Networks as a user of Flax writes them, each with its counterpart in the `stax` dialect of neural-tangents."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dltheory import networks

__all__ = ["NETS", "Net", "inputs"]

WIDTH = 8
ROOT2 = 2**0.5
ADJACENCY = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
MIXING = np.random.default_rng(7).normal(size=(3, 4))


@dataclasses.dataclass(frozen=True)
class Net:
    """A network in both languages.

    Attributes:
        module: the Flax module.
        stax: (the module `neural_tangents.stax`) -> a layer, whose third entry is the kernel function.
        shape: of one input.
        param_variance: of the module's leaves; None for what Flax draws.
        kwargs: (n1, n2) -> what their kernel function wants besides the inputs.
    """

    module: nn.Module
    stax: Callable[[Any], Any]
    shape: tuple[int, ...] = (5,)
    param_variance: Any = None
    kwargs: Callable[[int, int], dict[str, Any]] = lambda n1, n2: {}


def inputs(net: Net, dtype: Any = float) -> tuple[jax.Array, jax.Array]:
    """Four inputs and three others."""
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(4, *net.shape)), dtype), jnp.asarray(rng.normal(size=(3, *net.shape)), dtype)


class Mlp(nn.Module):
    """Dense layers as Flax draws them."""

    activation: Callable = nn.relu
    depth: int = 2

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            x = self.activation(nn.Dense(WIDTH)(x))
        return nn.Dense(2)(x)


def _mlp(layer, depth=2):
    """The same in stax."""
    return lambda stax: stax.serial(*[stax.Dense(1), layer(stax)] * depth, stax.Dense(1))


class Ntk(nn.Module):
    """Dense layers of this library, whose scales are in view."""

    activation: Callable = nn.relu
    depth: int = 2
    sigma_w: float = ROOT2
    sigma_b: float = 0.3

    @nn.compact
    def __call__(self, x):
        dense = functools.partial(networks.Dense, sigma_w=self.sigma_w, sigma_b=self.sigma_b)
        for _ in range(self.depth):
            x = self.activation(dense(WIDTH)(x))
        return dense(2)(x)


def _ntk(layer, depth=2, sigma_w=ROOT2, sigma_b=0.3):
    def build(stax):
        dense = stax.Dense(1, W_std=sigma_w, b_std=sigma_b)
        return stax.serial(*[dense, layer(stax)] * depth, dense)

    return build


class Images(nn.Module):
    """Convolutions, then whatever follows them."""

    head: Callable
    activation: Callable = nn.relu
    depth: int = 2
    window: tuple[int, ...] = (3, 3)
    strides: tuple[int, ...] | int = 1
    padding: Any = "SAME"

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            x = self.activation(nn.Conv(WIDTH, self.window, self.strides, padding=self.padding)(x))
        return nn.Dense(2)(self.head(x))


def flatten(x):
    return x.reshape((x.shape[0], -1))


def global_mean(x):
    return jnp.mean(x, axis=range(1, x.ndim - 1))


def _images(head, depth=2, window=(3, 3), strides=None, padding="SAME", activation=None):
    def build(stax):
        conv = stax.Conv(1, window, strides, padding)
        layer = stax.Relu() if activation is None else activation(stax)
        return stax.serial(*[conv, layer] * depth, head(stax), stax.Dense(1))

    return build


class Myrtle(nn.Module):
    """Pooling between convolutions, as in Shankar et al. 2020, with the scales of this library."""

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(networks.Conv, WIDTH, (3, 3), sigma_w=ROOT2)
        x = nn.relu(conv()(x))
        x = nn.avg_pool(nn.relu(conv()(x)), (2, 2), strides=(2, 2))
        x = nn.relu(conv()(x))
        x = nn.avg_pool(x, (2, 2), strides=(2, 2), padding="SAME")
        return networks.Dense(2, sigma_w=ROOT2)(flatten(x))


def _myrtle(stax):
    conv = stax.Conv(1, (3, 3), padding="SAME", W_std=ROOT2)
    pool = stax.AvgPool((2, 2), (2, 2))
    padded = stax.AvgPool((2, 2), (2, 2), "SAME")
    layers = [conv, stax.Relu(), conv, stax.Relu(), pool, conv, stax.Relu(), padded, stax.Flatten()]
    return stax.serial(*layers, stax.Dense(1, W_std=ROOT2))


class SumPooled(nn.Module):
    """A pooling that does not divide, of overlapping windows; then a sum over all positions."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(WIDTH, (3, 3))(x))
        x = nn.pooling.pool(x, 0.0, jax.lax.add, (3, 2), (1, 2), "VALID")
        x = nn.relu(nn.Conv(WIDTH, (2, 2), padding="VALID")(x))
        return nn.Dense(2)(x.sum((1, 2)))


def _sum_pooled(stax):
    first, second = stax.Conv(1, (3, 3), padding="SAME"), stax.Conv(1, (2, 2), padding="VALID")
    pool = stax.SumPool((3, 2), (1, 2))
    return stax.serial(first, stax.Relu(), pool, second, stax.Relu(), stax.GlobalSumPool(), stax.Dense(1))


class Residual(nn.Module):
    """Sums of pre-activations, with a scale beside the branch."""

    blocks: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(WIDTH)(x)
        for _ in range(self.blocks):
            x = x + nn.Dense(WIDTH)(nn.relu(x))
        return nn.Dense(2)(nn.relu(x))


def _residual(stax, blocks=3):
    branch = stax.serial(stax.Relu(), stax.Dense(1))
    block = stax.serial(stax.FanOut(2), stax.parallel(branch, stax.Identity()), stax.FanInSum())
    return stax.serial(stax.Dense(1), *[block] * blocks, stax.Relu(), stax.Dense(1))


class ResidualImages(nn.Module):
    """A block that keeps its shape and one with strides and a projection; global average pooling."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(WIDTH, (3, 3))(x)
        y = nn.Conv(WIDTH, (3, 3))(nn.relu(x))
        x += nn.Conv(WIDTH, (3, 3))(nn.relu(y))
        y = nn.Conv(WIDTH, (3, 3), strides=(2, 2))(nn.relu(x))
        y = nn.Conv(WIDTH, (3, 3))(nn.relu(y))
        x = nn.Conv(WIDTH, (1, 1), strides=(2, 2))(x) + y
        return nn.Dense(2)(nn.relu(x).mean((1, 2)))


def _residual_images(stax):
    def block(strides, shortcut):
        first, second = stax.Conv(1, (3, 3), strides, "SAME"), stax.Conv(1, (3, 3), padding="SAME")
        branch = stax.serial(stax.Relu(), first, stax.Relu(), second)
        return stax.serial(stax.FanOut(2), stax.parallel(branch, shortcut), stax.FanInSum())

    return stax.serial(
        stax.Conv(1, (3, 3), padding="SAME"),
        block((1, 1), stax.Identity()),
        block((2, 2), stax.Conv(1, (1, 1), (2, 2), "SAME")),
        stax.Relu(),
        stax.GlobalAvgPool(),
        stax.Dense(1),
    )


class Branches(nn.Module):
    """Two branches of different widths side by side."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(WIDTH)(x))
        left = nn.relu(nn.Dense(WIDTH)(x))
        right = jax.lax.erf(nn.Dense(2 * WIDTH)(jax.lax.erf(nn.Dense(WIDTH)(x))))
        return nn.Dense(2)(jnp.concatenate([left, right], axis=-1))


def _branches(stax):
    left = stax.serial(stax.Dense(WIDTH), stax.Relu())
    right = stax.serial(stax.Dense(WIDTH), stax.Erf(), stax.Dense(2 * WIDTH), stax.Erf())
    branches = stax.serial(stax.FanOut(2), stax.parallel(left, right), stax.FanInConcat(-1))
    return stax.serial(stax.Dense(WIDTH), stax.Relu(), branches, stax.Dense(1))


class Densely(nn.Module):
    """Every layer sees the outputs of all layers before it (Huang et al. 2017)."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(WIDTH)(x))
        for _ in range(2):
            x = jnp.concatenate([x, nn.relu(nn.Dense(WIDTH)(x))], axis=-1)
        return nn.Dense(2)(x)


def _densely(stax):
    layer = stax.serial(stax.Dense(WIDTH), stax.Relu())
    block = stax.serial(stax.FanOut(2), stax.parallel(stax.Identity(), layer), stax.FanInConcat(-1))
    return stax.serial(layer, block, block, stax.Dense(1))


class Normalised(nn.Module):
    """Layer norms between dense layers and their activations."""

    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.Dense(WIDTH)(x)
            x = nn.relu(nn.LayerNorm(epsilon=self.epsilon)(x))
        return nn.Dense(2)(x)


def _normalised(stax, epsilon=1e-3):
    return stax.serial(*[stax.Dense(1), stax.LayerNorm(eps=epsilon), stax.Relu()] * 2, stax.Dense(1))


class NormalisedImages(nn.Module):
    """Layer norms over channels, and over channels and positions."""

    @nn.compact
    def __call__(self, x):
        plain = functools.partial(nn.LayerNorm, use_scale=False, use_bias=False)
        x = nn.relu(plain(epsilon=1e-3)(nn.Conv(WIDTH, (3, 3))(x)))
        x = nn.relu(plain(epsilon=1e-2, reduction_axes=(1, 2, 3))(nn.Conv(WIDTH, (3, 3))(x)))
        return nn.Dense(2)(flatten(x))


def _normalised_images(stax):
    conv = stax.Conv(1, (3, 3), padding="SAME")
    first = [conv, stax.LayerNorm(eps=1e-3), stax.Relu()]
    return stax.serial(*first, conv, stax.LayerNorm((1, 2, 3), eps=1e-2), stax.Relu(), stax.Flatten(), stax.Dense(1))


class DroppedOut(nn.Module):
    """Dropout of features, when it is over."""

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.Dense(WIDTH)(x))
            x = nn.Dropout(0.4, deterministic=True)(x)
        return nn.Dense(2)(x)


def _dropped_out(stax):
    return stax.serial(*[stax.Dense(1), stax.Relu(), stax.Dropout(0.6, "test")] * 2, stax.Dense(1))


class Dropping(nn.Module):
    """The same while it goes on, with a convolution and other masks in every layer."""

    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = nn.relu(nn.Conv(WIDTH, (3,))(x))
            x = nn.Dropout(0.4, deterministic=False)(x, rng=jax.random.key(i))
        return nn.Dense(2)(flatten(x))


def _dropping(stax):
    layers = [stax.Conv(1, (3,), padding="SAME"), stax.Relu(), stax.Dropout(0.6, "train")]
    return stax.serial(*layers * 2, stax.Flatten(), stax.Dense(1))


class Graph(nn.Module):
    """A graph network (Kipf and Welling 2017) that ends in a sum over nodes."""

    @nn.compact
    def __call__(self, x):
        adjacency = jnp.asarray(ADJACENCY, x.dtype)
        for _ in range(2):
            x = nn.relu(nn.Dense(WIDTH)(jnp.einsum("ij,njc->nic", adjacency, x)))
        return nn.Dense(2)(x.mean(1))


def _graph(stax):
    aggregate = stax.Aggregate(aggregate_axis=1, batch_axis=0, channel_axis=2)
    layers = [aggregate, stax.Dense(1), stax.Relu()] * 2
    return stax.serial(*layers, stax.GlobalAvgPool(), stax.Dense(1))


def _patterns(n1, n2):
    return {"pattern": (np.stack([ADJACENCY.T] * n1), np.stack([ADJACENCY.T] * n2))}


class Product(nn.Module):
    """A product of two branches with weights of their own."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(WIDTH)(x))
        x = nn.relu(nn.Dense(WIDTH)(x)) * jnp.sin(nn.Dense(WIDTH)(x))
        return nn.Dense(2)(x)


def _product(stax):
    branches = stax.parallel(stax.serial(stax.Dense(1), stax.Relu()), stax.serial(stax.Dense(1), stax.Sin()))
    return stax.serial(stax.Dense(1), stax.Relu(), stax.FanOut(2), branches, stax.FanInProd(), stax.Dense(1))


class Bilinear(nn.Module):
    """A product of pre-activations, one of them shared with a third branch."""

    @nn.compact
    def __call__(self, x):
        x = jax.lax.erf(nn.Dense(WIDTH)(x))
        return nn.Dense(2)(nn.Dense(WIDTH)(x) * nn.Dense(WIDTH)(x) * nn.Dense(WIDTH)(x))


def _bilinear(stax):
    branches = stax.parallel(*[stax.Dense(1)] * 3)
    return stax.serial(stax.Dense(1), stax.Erf(), stax.FanOut(3), branches, stax.FanInProd(), stax.Dense(1))


class Picked(nn.Module):
    """Some positions of a sequence, then one of them."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(WIDTH, (3,))(x))[:, 1:6:2]
        x = nn.relu(nn.Conv(WIDTH, (2,))(x))
        return nn.Dense(2)(x[:, -1])


def _picked(stax):
    convs = [stax.Conv(1, (size,), padding="SAME") for size in (3, 2)]
    some, last = stax.Index(stax.Slice[:, 1:6:2]), stax.Index(stax.Slice[:, -1])
    return stax.serial(convs[0], stax.Relu(), some, convs[1], stax.Relu(), last, stax.Dense(1))


class Transposed(nn.Module):
    """A convolution that widens, between two that do not."""

    padding: str = "SAME"

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(WIDTH, (3, 3), strides=2)(x))
        x = nn.relu(nn.ConvTranspose(WIDTH, (3, 3), strides=(2, 2), padding=self.padding)(x))
        return nn.Dense(2)(flatten(x))


def _transposed(stax):
    down = stax.Conv(1, (3, 3), (2, 2), "SAME")
    up = stax.ConvTranspose(1, (3, 3), (2, 2), "SAME")
    return stax.serial(down, stax.Relu(), up, stax.Relu(), stax.Flatten(), stax.Dense(1))


class Mixed(nn.Module):
    """Positions multiplied by a known matrix."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(WIDTH)(x))
        x = jnp.asarray(MIXING, x.dtype) @ x
        return nn.Dense(2)(flatten(nn.relu(nn.Dense(WIDTH)(x))))


def _mixed(stax):
    mix = stax.DotGeneral(rhs=MIXING.T, dimension_numbers=(((1,), (0,)), ((), ())))  # channels come before positions
    layers = [stax.Dense(1), stax.Relu(), mix, stax.Dense(1, channel_axis=1), stax.Relu(), stax.Flatten()]
    return stax.serial(*layers, stax.Dense(1))


class Resized(nn.Module):
    """Images made larger by linear interpolation, alike along both axes, which theirs confuses after a convolution."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(WIDTH, (3, 3))(x))
        x = jax.image.resize(x, (x.shape[0], 7, 7, x.shape[3]), "linear")
        return nn.Dense(2)(nn.relu(nn.Conv(WIDTH, (3, 3))(x)).mean((1, 2)))


def _resized(stax):
    conv, resize = stax.Conv(1, (3, 3), padding="SAME"), stax.ImageResize((-1, 7, 7, -1), "linear")
    return stax.serial(conv, stax.Relu(), resize, conv, stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))


class Untied(nn.Module):
    """A convolution with a filter for every position."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(WIDTH, (3,))(x))
        x = nn.relu(nn.ConvLocal(WIDTH, (3,), padding="SAME")(x))
        return nn.Dense(2)(flatten(x))


def _untied(stax):
    conv, local = stax.Conv(1, (3,), padding="SAME"), stax.ConvLocal(1, (3,), padding="SAME")
    return stax.serial(conv, stax.Relu(), local, stax.Relu(), stax.Flatten(), stax.Dense(1))


class UntiedImages(nn.Module):
    """Such filters on inputs, with strides, and pooled."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.ConvLocal(WIDTH, (3, 2), padding="VALID")(x))
        x = nn.ConvLocal(WIDTH, (2, 3), strides=(2, 1), padding="SAME")(x)
        return nn.Dense(2)(nn.relu(nn.Conv(WIDTH, (3, 3))(nn.relu(x))).mean((1, 2)))


def _untied_images(stax):
    first, second = stax.ConvLocal(1, (3, 2)), stax.ConvLocal(1, (2, 3), (2, 1), "SAME")
    layers = [first, stax.Relu(), second, stax.Relu(), stax.Conv(1, (3, 3), padding="SAME"), stax.Relu()]
    return stax.serial(*layers, stax.GlobalAvgPool(), stax.Dense(1))


def _untied_variance(path: str, shape: tuple[int, ...]) -> float:
    if path.endswith("bias"):
        return 0.0
    return 1 / shape[-2] if "ConvLocal" in path else 1 / int(np.prod(shape[:-1]))


class Stacked(nn.Module):
    """Hidden layers whose weights are the slices of one array, which `jax.lax.scan` runs through."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(WIDTH)(x)
        w = self.param("w", nn.initializers.normal(WIDTH**-0.5), (3, WIDTH, WIDTH))
        x, _ = jax.lax.scan(lambda h, w: (nn.relu(h) @ w, None), x, w)
        return nn.Dense(2)(jax.lax.erf(x))


def _stacked(stax):
    return stax.serial(stax.Dense(1), *[stax.Relu(), stax.Dense(1)] * 3, stax.Erf(), stax.Dense(1))


def _rbf(gamma):
    return lambda x: ROOT2 * jnp.sin((2 * gamma) ** 0.5 * x + jnp.pi / 4)


_IMAGE = (5, 5, 3)

NETS: dict[str, Net] = {
    "linear": Net(Mlp(depth=0), _mlp(lambda s: s.Relu(), 0)),
    "relu_1": Net(Mlp(depth=1), _mlp(lambda s: s.Relu(), 1)),
    "relu_4": Net(Mlp(depth=4), _mlp(lambda s: s.Relu(), 4)),
    "relu_biases": Net(Ntk(depth=3), _ntk(lambda s: s.Relu(), 3), param_variance=1.0),
    "relu_library": Net(
        networks.MLP((WIDTH, WIDTH, 1), sigma_w=1.1, sigma_b=0.2),
        _ntk(lambda s: s.Relu(), 2, 1.1, 0.2),
        param_variance=1.0,
    ),
    "erf": Net(Mlp(jax.lax.erf), _mlp(lambda s: s.Erf())),
    "erf_biases": Net(
        Ntk(lambda x: 0.8 * jax.scipy.special.erf(1.2 * x) + 0.3, 2),
        _ntk(lambda s: s.Erf(0.8, 1.2, 0.3), 2),
        param_variance=1.0,
    ),
    "gelu": Net(Ntk(functools.partial(nn.gelu, approximate=False), 3), _ntk(lambda s: s.Gelu(), 3), param_variance=1.0),
    "leaky_relu": Net(
        Mlp(functools.partial(nn.leaky_relu, negative_slope=0.2)),
        _mlp(lambda s: s.LeakyRelu(0.2)),
    ),
    "abrelu": Net(
        Mlp(lambda x: jnp.where(x >= 0, 0.9 * x, 0.3 * x)),
        _mlp(lambda s: s.ABRelu(0.3, 0.9)),
    ),
    "abs": Net(Mlp(jnp.abs), _mlp(lambda s: s.Abs())),
    "sin": Net(Mlp(lambda x: 0.8 * jnp.sin(1.2 * x + 0.3)), _mlp(lambda s: s.Sin(0.8, 1.2, 0.3))),
    "cos": Net(Mlp(jnp.cos), _mlp(lambda s: s.Cos())),
    "exp": Net(Mlp(lambda x: 0.8 * jnp.exp(0.4 * x)), _mlp(lambda s: s.Exp(0.8, 0.4))),
    "sign": Net(Ntk(jnp.sign), _ntk(lambda s: s.Sign()), param_variance=1.0),
    "rbf": Net(Ntk(_rbf(0.7)), _ntk(lambda s: s.Rbf(0.7)), param_variance=1.0),
    "gaussian": Net(Mlp(lambda x: jnp.exp(-(x**2))), _mlp(lambda s: s.Gaussian())),
    "gabor": Net(Mlp(lambda x: jnp.exp(-(x**2)) * jnp.sin(x)), _mlp(lambda s: s.Gabor())),
    "cube": Net(Mlp(lambda x: x**3), _mlp(lambda s: s.Monomial(3))),
    "polynomial": Net(Mlp(lambda x: 0.2 - 0.3 * x + 0.5 * x**2), _mlp(lambda s: s.Polynomial([0.2, -0.3, 0.5]))),
    "rectified_square": Net(
        Mlp(lambda x: nn.relu(x) ** 2, 1),
        _mlp(lambda s: s.RectifiedMonomial(2), 1),
    ),
    "conv_1d": Net(
        Images(flatten, jax.lax.erf, window=(3,), padding="SAME"),
        _images(lambda s: s.Flatten(), window=(3,), activation=lambda s: s.Erf()),
        (6, 3),
    ),
    "conv_1d_circular": Net(
        Images(global_mean, window=(3,), padding="CIRCULAR"),
        _images(lambda s: s.GlobalAvgPool(), window=(3,), padding="CIRCULAR"),
        (6, 3),
    ),
    "conv_flatten": Net(Images(flatten), _images(lambda s: s.Flatten()), _IMAGE),
    "conv_pooled": Net(Images(global_mean), _images(lambda s: s.GlobalAvgPool()), _IMAGE),
    "conv_valid": Net(
        Images(flatten, window=(3, 2), padding="VALID"),
        _images(lambda s: s.Flatten(), window=(3, 2), padding="VALID"),
        _IMAGE,
    ),
    "conv_strides": Net(
        Images(global_mean, window=(3, 3), strides=(2, 1)),
        _images(lambda s: s.GlobalAvgPool(), strides=(2, 1)),
        _IMAGE,
    ),
    "conv_circular": Net(
        Images(global_mean, padding="CIRCULAR"),
        _images(lambda s: s.GlobalAvgPool(), padding="CIRCULAR"),
        _IMAGE,
    ),
    "conv_3d": Net(
        Images(global_mean, window=(2, 3, 2), depth=2),
        _images(lambda s: s.GlobalAvgPool(), window=(2, 3, 2)),
        (3, 4, 3, 2),
    ),
    "conv_library": Net(
        networks.CNN((WIDTH, WIDTH), sigma_w=ROOT2, sigma_b=0.1, activation=jax.lax.erf),
        lambda s: s.serial(
            *[s.Conv(1, (3, 3), padding="SAME", W_std=ROOT2, b_std=0.1), s.Erf()] * 2,
            s.GlobalAvgPool(),
            s.Dense(1, W_std=ROOT2, b_std=0.1),
        ),
        _IMAGE,
        param_variance=1.0,
    ),
    "myrtle": Net(Myrtle(), _myrtle, _IMAGE, param_variance=1.0),
    "sum_pooled": Net(SumPooled(), _sum_pooled, _IMAGE),
    "residual": Net(Residual(), _residual),
    "residual_images": Net(ResidualImages(), _residual_images, _IMAGE),
    "branches": Net(Branches(), _branches),
    "densely_connected": Net(Densely(), _densely),
    "layer_norm": Net(Normalised(), _normalised),
    "layer_norm_images": Net(NormalisedImages(), _normalised_images, _IMAGE),
    "dropout": Net(DroppedOut(), _dropped_out),
    "dropout_training": Net(Dropping(), _dropping, (4, 3)),
    "graph": Net(Graph(), _graph, (4, 3), kwargs=_patterns),
    "product": Net(Product(), _product),
    "bilinear": Net(Bilinear(), _bilinear),
    "picked": Net(Picked(), _picked, (7, 3)),
    "transposed": Net(Transposed(), _transposed, _IMAGE),
    "mixed": Net(Mixed(), _mixed, (4, 3)),
    "resized": Net(Resized(), _resized, _IMAGE),
    "untied": Net(Untied(), _untied, (5, 3), param_variance=_untied_variance),
    "untied_images": Net(UntiedImages(), _untied_images, _IMAGE, param_variance=_untied_variance),
    "stacked": Net(Stacked(), _stacked),
}
