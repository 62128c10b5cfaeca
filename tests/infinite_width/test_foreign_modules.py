"""Modules as Flax's documentation writes them go in unchanged, or are told why they cannot."""

import functools
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dltheory import infinite_width, networks, nngp
from dltheory.ntk import analytic_ntk

pytestmark = pytest.mark.statement("nngp.kernel_recursion", "ntk.analytic_recursion")
HERE = Path(__file__).name


class MLP(nn.Module):
    """The multi-layer perceptron of Flax's quick start, with a name for its layers."""

    features: tuple[int, ...] = (16, 16, 4)

    @nn.compact
    def __call__(self, inputs):
        x = inputs
        for i, feat in enumerate(self.features):
            x = nn.Dense(feat, name=f"layers_{i}")(x)
            if i != len(self.features) - 1:
                x = nn.relu(x)
        return x


class ExplicitMLP(nn.Module):
    """The same with its layers made in `setup`."""

    features: tuple[int, ...] = (16, 16, 4)

    def setup(self):
        self.layers = [nn.Dense(feat) for feat in self.features]

    def __call__(self, inputs):
        x = inputs
        for i, lyr in enumerate(self.layers):
            x = lyr(x)
            if i != len(self.layers) - 1:
                x = nn.relu(x)
        return x


class CNN(nn.Module):
    """The network of Flax's tutorial on MNIST."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(features=32, kernel_size=(3, 3))(x)
        x = nn.relu(x)
        x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = nn.Conv(features=64, kernel_size=(3, 3))(x)
        x = nn.relu(x)
        x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))  # flatten
        x = nn.Dense(features=256)(x)
        x = nn.relu(x)
        return nn.Dense(features=10)(x)


class MaxPooled(nn.Module):
    """The same with the pooling that has no closed kernel."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(features=32, kernel_size=(3, 3))(x))
        x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        return nn.Dense(features=10)(x.reshape((x.shape[0], -1)))


class ResNetBlock(nn.Module):
    """The residual block of Flax's example on ImageNet."""

    filters: int
    conv: Any
    norm: Any
    act: Callable
    strides: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, x):
        residual = x
        y = self.conv(self.filters, (3, 3), self.strides)(x)
        y = self.norm()(y)
        y = self.act(y)
        y = self.conv(self.filters, (3, 3))(y)
        y = self.norm()(y)
        if residual.shape != y.shape:
            residual = self.conv(self.filters, (1, 1), self.strides, name="conv_proj")(residual)
            residual = self.norm(name="norm_proj")(residual)
        return self.act(residual + y)


class ResNet(nn.Module):
    """The network of Flax's example on ImageNet, but for the pooling by maxima, and small."""

    num_classes: int = 4
    num_filters: int = 8

    @nn.compact
    def __call__(self, x, train: bool = True):
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        x = conv(self.num_filters, (3, 3), (1, 1), name="conv_init")(x)
        x = nn.relu(norm(name="bn_init")(x))
        for i in range(2):
            strides = (2, 2) if i > 0 else (1, 1)
            x = ResNetBlock(self.num_filters * 2**i, strides=strides, conv=conv, norm=norm, act=nn.relu)(x)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.num_classes)(x)


class EncoderBlock(nn.Module):
    """The block of Flax's vision transformers."""

    @nn.compact
    def __call__(self, inputs):
        x = nn.LayerNorm()(inputs)
        x = nn.MultiHeadDotProductAttention(num_heads=4, deterministic=True)(x)
        x = x + inputs
        y = nn.LayerNorm()(x)
        y = nn.Dense(32)(nn.gelu(nn.Dense(64)(y)))
        return nn.Dense(4)((x + y).mean(1))


class Mixer(nn.Module):
    """The feed-forward half of that block, after an embedding of the patches."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(32, (2, 2), strides=(2, 2), padding="VALID", name="embedding")(x)
        x = x.reshape((x.shape[0], -1, x.shape[-1]))
        for _ in range(2):
            y = nn.LayerNorm()(x)
            x = x + nn.Dense(32)(nn.gelu(nn.Dense(64)(y)))
        return nn.Dense(4, name="head")(nn.LayerNorm()(x).mean(1))


class Autoencoder(nn.Module):
    """Modules made of modules: an encoder and a decoder."""

    @nn.compact
    def __call__(self, x):
        z = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(16)])(x)
        return nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(5), nn.sigmoid])(z)


class AutoencoderLogits(nn.Module):
    """The same without the function of its outputs."""

    @nn.compact
    def __call__(self, x):
        z = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(16)])(x)
        return nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(5)])(z)


class Sequence(nn.Module):
    """A recurrent network over a sequence, from the cells of Flax."""

    @nn.compact
    def __call__(self, x):
        steps: Any = nn.RNN(nn.SimpleCell(16))(x)
        return nn.Dense(4)(steps[:, -1])


class Recurrent(nn.Module):
    """A recurrent network whose gates tie together many Gaussians."""

    cell: Any

    @nn.compact
    def __call__(self, x):
        steps: Any = nn.RNN(self.cell(16))(x)
        return nn.Dense(1)(steps[:, -1])


class SideBySide(nn.Module):
    """Two layers laid side by side, one of which goes on, with or without the other."""

    alone: bool

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(16)(x))
        first, second = nn.relu(nn.Dense(16)(x)), nn.silu(nn.Dense(16)(x))
        picked = second if self.alone else jnp.stack([first, second], axis=1)[:, 1]
        return nn.Dense(1)(nn.sigmoid(picked - 0.5))


def _inputs(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def _kernel(module, x, **call):
    params = jax.eval_shape(functools.partial(module.init, **call), jax.random.key(0), x)
    return infinite_width.kernel_fn(functools.partial(module.apply, **call), params)


@pytest.mark.parametrize("module", [MLP(), ExplicitMLP()])
def test_perceptrons_have_the_kernels_of_the_recursion(module):
    x = _inputs(4, 5)
    found = jax.jit(_kernel(module, x))(x)
    expected = nngp.fully_connected_kernels(x, depth=2, sigma_w=1.0, sigma_b=0.0, activation="relu")
    np.testing.assert_allclose(found.nngp, expected.nngp.covariance, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-5, atol=1e-6)


def test_a_bottleneck_is_a_layer_like_others():
    """Every hidden layer is taken to be wide."""
    x = _inputs(4, 5)
    found = jax.jit(_kernel(AutoencoderLogits(), x))(x)
    relu, linear = ({"activation": nngp.rectifier_dual(slope), "sigma_w": 1.0, "sigma_b": 0.0} for slope in (0.0, 1.0))
    kernels = nngp.fully_connected_kernels(x, depth=1, **relu)
    for settings in (linear, relu):
        kernels = nngp.network_kernel_step(kernels, **settings)
    np.testing.assert_allclose(found.ntk, kernels.ntk, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "shape", "call"),
    [
        (CNN(), (8, 8, 1), {}),
        (ResNet(), (6, 6, 3), {"train": False}),
        (Mixer(), (4, 4, 3), {}),
        (Sequence(), (3, 4), {}),
    ],
    ids=["CNN", "ResNet", "Mixer", "Sequence"],
)
def test_kernels_of_modules_are_covariances(module, shape, call):
    """Both are symmetric and positive definite, of blocks that agree, and the tangent kernel is the larger."""
    x = _inputs(4, *shape)
    kernel = _kernel(module, x, **call)
    own, cross = jax.jit(lambda x: (kernel(x), kernel(x[:3], x[1:])))(x)
    for whole, block in zip(own, cross, strict=True):
        scale = float(jnp.abs(whole).max())
        np.testing.assert_allclose(whole, whole.T, atol=1e-6 * scale)
        # After pooling, equal inputs are known to be equal only where `x` is given alone.
        np.testing.assert_allclose(whole[:3, 1:], block, atol=1e-4 * scale)
        assert np.linalg.eigvalsh(np.asarray(whole, np.float64)).min() > 0
    difference = np.asarray(own.ntk - own.nngp, np.float64)
    assert np.linalg.eigvalsh(difference).min() > -1e-5 * np.abs(difference).max()


@pytest.mark.slow
def test_what_is_picked_from_a_stack_is_what_it_was():
    x = _inputs(3, 5)
    found, expected = (_kernel(SideBySide(alone), x)(x) for alone in (False, True))
    np.testing.assert_allclose(found.nngp, expected.nngp, rtol=1e-6)
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-6)


def _gated(params, x, joined):
    """Layers that gate others of the same inputs: two products, or one that is taken apart."""
    for first, second in params[:-1]:
        if joined:
            kernel, bias = (jnp.concatenate([first[name], second[name]], axis=-1) for name in ("kernel", "bias"))
            gate, value = jnp.split(x @ kernel + bias.reshape(1, -1), [16], axis=-1)
        else:
            gate, value = (x @ layer["kernel"] + layer["bias"] for layer in (first, second))
        x = nn.sigmoid(gate) * value
    return x @ params[-1]


@pytest.mark.slow
def test_joined_weights_are_those_of_their_parts():
    x, leaf = _inputs(3, 5), jax.ShapeDtypeStruct
    params: list[Any] = [
        [{"kernel": leaf((n, m), jnp.float32), "bias": leaf((1, m), jnp.float32)} for m in (16, 16)]
        for n in (5, 16)
    ]
    params.append(leaf((16, 1), jnp.float32))

    def variance(name, shape):
        return 0.3 if name.endswith("bias") else 1.5 / shape[0]

    def kernels(joined):
        apply = functools.partial(_gated, joined=joined)
        return jax.jit(infinite_width.kernel_fn(apply, params, param_variance=variance))(x)

    for found, expected in zip(kernels(True), kernels(False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


SIZES = (("a", 8), ("b", 24))


class JoinedPerceptron(nn.Module):
    """A hidden layer whose weights are put together of two."""

    @nn.compact
    def __call__(self, x):
        a, b = (self.param(f"{n}_kernel", nn.initializers.lecun_normal(), (5, width)) for n, width in SIZES)
        return nn.Dense(1)(nn.relu(x @ jnp.concatenate([a, b], -1)))


def test_a_layer_of_joined_weights_is_a_layer():
    x = _inputs(4, 5)
    found = jax.jit(_kernel(JoinedPerceptron(), x))(x)
    expected = nngp.fully_connected_kernels(x, depth=1, sigma_w=1.0, sigma_b=0.0, activation="relu")
    np.testing.assert_allclose(found.nngp, expected.nngp.covariance, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-5, atol=1e-6)


class Averaged(nn.Module):
    """A mean over positions, or a product with a constant matrix; both with a layer of constant inputs."""

    product: bool

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(16)(x))
        x = jnp.einsum("ij,njc->nic", jnp.full((2, 4), 1 / 4), x)[:, 0] if self.product else x.mean(1)
        return nn.Dense(1)(x) + nn.Dense(1)(jnp.ones((1, 7)))


@pytest.mark.slow
def test_constant_arrays_have_their_sizes():
    x = _inputs(3, 4, 5)
    found, expected = (_kernel(Averaged(product), x)(x) for product in (True, False))
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-5)
    relu = nngp.rectifier_dual().kernel(nngp.input_covariance(x.reshape(12, 5))).covariance
    np.testing.assert_allclose(expected.nngp, relu.reshape(3, 4, 3, 4).mean((1, 3)) + 1, rtol=1e-5)


class NnxCNN(nnx.Module):
    """The network of nnx's tutorial on MNIST, but for its pooling by maxima."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 32, kernel_size=(3, 3), rngs=rngs)
        self.batch_norm1 = nnx.BatchNorm(32, rngs=rngs)
        self.dropout1 = nnx.Dropout(rate=0.025, rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, kernel_size=(3, 3), rngs=rngs)
        self.avg_pool = functools.partial(nnx.avg_pool, window_shape=(2, 2), strides=(2, 2))
        self.linear1 = nnx.Linear(256, 256, rngs=rngs)
        self.dropout2 = nnx.Dropout(rate=0.025, rngs=rngs)
        self.linear2 = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x):
        x = self.avg_pool(nnx.relu(self.batch_norm1(self.dropout1(self.conv1(x)))))
        x = self.avg_pool(nnx.relu(self.conv2(x)))
        x = x.reshape(x.shape[0], -1)
        return self.linear2(nnx.relu(self.dropout2(self.linear1(x))))


@pytest.mark.slow
def test_nnx_and_linen_agree():
    """The running statistics of a fresh module change nothing but by the epsilon of its normalisation."""
    x = _inputs(3, 8, 8, 1)
    network = networks.from_nnx(NnxCNN(rngs=nnx.Rngs(0)))
    found = jax.jit(infinite_width.kernel_fn(network.apply, network.params))(x)
    expected = jax.jit(_kernel(CNN(), x))(x)
    np.testing.assert_allclose(found.nngp, expected.nngp, rtol=1e-4)
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-4)


@pytest.mark.slow
def test_functions_without_a_library():
    """A plain function of nested dictionaries, as tutorials of JAX write it."""

    def predict(params, inputs):
        activations = inputs
        for w, b in params[:-1]:
            activations = jnp.tanh(jnp.dot(activations, w) + b[None])
        final_w, final_b = params[-1]
        return jnp.dot(activations, final_w) + final_b[None]

    sizes = (5, 64, 64, 3)
    leaf = jax.ShapeDtypeStruct
    params = [(leaf((m, n), jnp.float32), leaf((n,), jnp.float32)) for m, n in itertools.pairwise(sizes)]
    x = _inputs(4, 5)
    found = jax.jit(infinite_width.kernel_fn(predict, params))(x)
    nngp_kernel, ntk_kernel = analytic_ntk(x, depth=2, sigma_w=1.0, sigma_b=0.0, activation="tanh")
    np.testing.assert_allclose(found.nngp, nngp_kernel, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.ntk, ntk_kernel, rtol=1e-4, atol=1e-6)


class NoisyInputs(nn.Module):
    """Dropout of inputs, of which there are few."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.relu(nn.Dense(32)(nn.Dropout(0.4, deterministic=False)(x))))


class SharedMask(nn.Module):
    """Dropout of all channels at once."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.Dropout(0.4, broadcast_dims=(1,), deterministic=False)(nn.relu(nn.Dense(32)(x))))


class SharedExamples(nn.Module):
    """Dropout of the same channels for all inputs."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.Dropout(0.4, broadcast_dims=(0,), deterministic=False)(nn.relu(nn.Dense(32)(x))))


class Blurred(nn.Module):
    """A convolution with filters that are known."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3,))(x))
        x = jax.lax.conv_general_dilated(
            x, jnp.ones((3, 1, 8)) / 3, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=8
        )
        return nn.Dense(1)(nn.relu(nn.Conv(8, (3,))(x)).mean(1))


class ManyMasks(nn.Module):
    """A sum of so many masked terms that the function of it has too many cases."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8)(x)
        for _ in range(6):
            x = x + nn.Dropout(0.1, deterministic=False)(nn.Dense(8)(jax.lax.erf(x)))
        return nn.Dense(1)(x)


class GaussianNoise(nn.Module):
    """Noise that is not a mask."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(32)(x)
        return nn.Dense(1)(nn.relu(x + jax.random.normal(self.make_rng("dropout"), x.shape)))


class TiedAutoencoder(nn.Module):
    """A decoder that is the transpose of the encoder."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (32, 32))
        return nn.Dense(1)(nn.relu(nn.Dense(32)(x) @ kernel) @ kernel.T)


class Rescaled(nn.Module):
    """A sum over channels that stays random."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(64)(x)
        return nn.Dense(1)(x * (x.sum(-1, keepdims=True) / 8))


MASKS = {"rngs": {"dropout": jax.random.key(3)}}
REFUSED = {
    "weights and their transpose": (TiedAutoencoder(), (5,), {}, {}),
    "a random sum": (Rescaled(), (5,), {}, {}),
    "dropout of inputs": (NoisyInputs(), (5,), {}, MASKS),
    "one mask for all channels": (SharedMask(), (5,), {}, MASKS),
    "one mask for all inputs": (SharedExamples(), (5,), {}, MASKS),
    "many masks": (ManyMasks(), (5,), {}, MASKS),
    "known filters": (Blurred(), (6, 3), {}, {}),
    "noise": (GaussianNoise(), (5,), {}, MASKS),
    "LSTM": (Recurrent(nn.LSTMCell), (3, 4), {}, {}),
    "LSTM with joined weights": (Recurrent(nn.OptimizedLSTMCell), (3, 4), {}, {}),
    "GRU": (Recurrent(nn.GRUCell), (3, 4), {}, {}),
    "softmax attention": (EncoderBlock(), (6, 32), {}, {}),
    "max pooling": (MaxPooled(), (6, 6, 3), {}, {}),
    "a batch normalisation in training": (ResNet(), (6, 6, 3), {"train": True}, {"mutable": ["batch_stats"]}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_primitive_and_the_line(name):
    module, shape, call, settings = REFUSED[name]
    x = _inputs(3, *shape)
    params = jax.eval_shape(functools.partial(module.init, **call), jax.random.key(0), x)

    def apply(params, x):
        outputs = module.apply(params, x, **call, **settings)
        return outputs[0] if isinstance(outputs, tuple) else outputs

    with pytest.raises((ValueError, NotImplementedError)) as caught:
        infinite_width.kernel_fn(apply, params)(x)
    message = str(caught.value)
    assert re.search(r"`[a-z_]+`", message), message
    assert re.search(rf"{re.escape(HERE)}:\d+", message), message
    mixes_rows = "every input by itself" in message  # such a network has no kernel at any width
    assert mixes_rows or "monte_carlo_kernel" in message


class Readout(nn.Module):
    """Weights after the outputs of another module."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(Autoencoder()(x))


def test_a_nonlinearity_of_the_outputs():
    """Its moments are those that one more layer of weights sees, less the tangents of these weights."""
    x = _inputs(3, 5)
    found, seen = jax.jit(lambda x: (_kernel(Autoencoder(), x)(x), _kernel(Readout(), x)(x)))(x)
    np.testing.assert_allclose(found.nngp, seen.nngp, rtol=1e-5)
    np.testing.assert_allclose(found.ntk, seen.ntk - seen.nngp, rtol=1e-4, atol=1e-6)
