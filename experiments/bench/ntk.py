"""The empirical neural tangent kernel of small networks, against neural-tangents and against explicit Jacobians."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.bench.case import Absent, Case, Contender

__all__ = ["CASES"]


class Dense(nn.Module):
    """Fully connected, ReLU."""

    outputs: int
    width: int = 1024
    depth: int = 3

    @nn.compact
    def __call__(self, x):
        """Maps [n, d] to [n, outputs]."""
        for _ in range(self.depth):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.outputs)(x)


class Convolutional(nn.Module):
    """Convolutions of 3 x 3 with ReLU, then global average pooling or flattening."""

    channels: int = 64
    depth: int = 4
    flatten: bool = False

    @nn.compact
    def __call__(self, x):
        """Maps [n, height, width, c] to [n, 10]."""
        for _ in range(self.depth):
            x = nn.relu(nn.Conv(self.channels, (3, 3))(x))
        return nn.Dense(10)(x.reshape(len(x), -1) if self.flatten else x.mean((1, 2)))


class Residual(nn.Module):
    """A convolution and two residual blocks of two convolutions, then global average pooling."""

    channels: int = 32

    @nn.compact
    def __call__(self, x):
        """Maps [n, height, width, c] to [n, 10]."""
        x = nn.Conv(self.channels, (3, 3))(x)
        for _ in range(2):
            h = nn.Conv(self.channels, (3, 3))(nn.relu(x))
            x = x + nn.Conv(self.channels, (3, 3))(nn.relu(h))
        return nn.Dense(10)(nn.relu(x).mean((1, 2)))


class Transformer(nn.Module):
    """Attention and a perceptron, each after a layer norm and beside a skip connection; then a mean over tokens."""

    @nn.compact
    def __call__(self, x):
        """Maps [n, t, d] to [n, 10]."""
        width = x.shape[-1]
        x = x + nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x))
        x = x + nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x))))
        return nn.Dense(10)(x.mean(1))


class Embedding(nn.Module):
    """Tokens embedded, a hidden layer, a mean over tokens."""

    vocabulary: int = 2000
    width: int = 64

    @nn.compact
    def __call__(self, tokens):
        """Maps token ids [n, t] to [n, 10]."""
        x = nn.Embed(self.vocabulary, self.width)(tokens)
        return nn.Dense(10)(nn.relu(nn.Dense(self.width)(x)).mean(1))


class Scanned(nn.Module):
    """Hidden layers whose weights are stacked and scanned over."""

    width: int = 256
    depth: int = 8

    @nn.compact
    def __call__(self, x):
        """Maps [n, width] to [n, 10]."""
        w = self.param("w", nn.initializers.normal(self.width**-0.5), (self.depth, self.width, self.width))
        x, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, w)
        return nn.Dense(10)(x)


def _data(module: nn.Module, shape: tuple[int, ...], tokens: int = 0) -> tuple[Any, Any]:
    """Variables of the module and a batch of inputs: Gaussian, or token ids."""
    key_params, key_x = jax.random.split(jax.random.key(0))
    x = jax.random.randint(key_x, shape, 0, tokens) if tokens else jax.random.normal(key_x, shape)
    return jax.jit(module.init)(key_params, x[:1]), x


def _ours(module: nn.Module, traced: bool, **settings: Any) -> Callable[..., Any]:
    try:
        from dltheory import ntk

        empirical_ntk = ntk.empirical_ntk
    except (ImportError, AttributeError) as error:
        raise Absent(str(error)) from None
    apply: Any = module.apply
    return lambda params, x: empirical_ntk(apply, params, x, trace_axes=(-1,) if traced else (), **settings)


def _neural_tangents(module: nn.Module, traced: bool, implementation: int, batch: int = 0) -> Callable[..., Any]:
    from dltheory.interop import neural_tangents

    try:
        nt = neural_tangents.load()
    except ImportError as error:
        raise Absent(str(error)) from None
    kernel_fn = nt.empirical_ntk_fn(
        module.apply, trace_axes=(-1,) if traced else (), vmap_axes=0, implementation=implementation
    )
    if batch:
        kernel_fn = nt.batch(kernel_fn, batch_size=batch, device_count=0)
    return lambda params, x: kernel_fn(x, None, params)


def _jacobians(module: nn.Module, traced: bool) -> Callable[..., Any]:
    """The textbook: all Jacobians by reverse mode, contracted."""

    def kernel(params: Any, x: Any) -> Any:
        jacobian = jax.vmap(jax.jacrev(lambda p, x: module.apply(p, x[None])[0]), in_axes=(None, 0))(params, x)
        n, k = jax.tree.leaves(jacobian)[0].shape[:2]
        rows = [leaf.reshape(n, k, -1) for leaf in jax.tree.leaves(jacobian)]
        if traced:
            return sum(jnp.einsum("ikp,jkp->ij", row, row) for row in rows) / k
        return sum(jnp.einsum("ikp,jlp->ijkl", row, row) for row in rows)

    return kernel


def _probe(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def _view(kernel: np.ndarray, *_: Any) -> np.ndarray:
    """The kernel times a fixed vector, in which every entry has its part."""
    if kernel.ndim == 2:
        return kernel.astype(np.float64) @ _probe(kernel.shape[1:])
    n, k = kernel.shape[1:3]
    return np.einsum("ijkl,jl->ik", kernel.astype(np.float64), _probe((n, k)))


def _reference(module: nn.Module, traced: bool, params: Any, x: Any) -> np.ndarray:
    """The same product without a kernel: vector-Jacobian and Jacobian-vector products."""

    @jax.jit
    def times(params: Any, x: Any, vector: Any) -> Any:
        def network(params: Any) -> Any:
            return module.apply(params, x)

        return jax.jvp(network, (params,), jax.vjp(network, params)[1](vector))[1]

    n, k = jax.eval_shape(module.apply, params, x).shape
    if not traced:
        return times(params, x, _probe((n, k)))
    probe = _probe((n,))[:, None]
    return np.mean([times(params, x, probe * unit)[:, place] for place, unit in enumerate(np.eye(k))], axis=0)


def _dense_gflop(inputs: int, n: int, k: int, traced: bool, width: int = 1024, depth: int = 3) -> float:
    """Forward pass, pull-back of the outputs, and the Gram matrices of every layer's inputs and cotangents."""
    hidden = (depth - 1) * width**2
    forward = 2 * n * (inputs * width + hidden + width * k)
    backward = 2 * n * k * (hidden + width * k)
    inputs_gram = 2 * n**2 * (inputs + depth * width)
    cotangents_gram = 2 * n**2 * (k if traced else k**2) * depth * width
    return (forward + backward + inputs_gram + cotangents_gram) / 1e9


def _convolutional_gflop(
    channels: int, convolutions: int, n: int, traced: bool, positions: int = 256, k: int = 10
) -> float:
    """Forward pass, pull-back of the outputs, gradients of the weights for each output, and their Gram matrix."""
    first, hidden = 9 * 3 * channels, 9 * channels**2 * (convolutions - 1)
    forward = 2 * n * positions * (first + hidden)
    backward = 2 * n * k * positions * hidden
    gradients = 2 * n * k * positions * (first + hidden)
    gram = 2 * n**2 * (k if traced else k**2) * (first + hidden)
    return (forward + backward + gradients + gram) / 1e9


def _case(
    name: str,
    title: str,
    module: nn.Module,
    shape: tuple[int, ...],
    *,
    traced: bool = False,
    tokens: int = 0,
    contenders: Sequence[Contender] | None = None,
    **settings: Any,
) -> Case:
    return Case(
        f"ntk.{name}",
        title,
        data=functools.partial(_data, module, shape, tokens),
        contenders=contenders or _contenders(module, traced),
        view=_view,
        reference=functools.partial(_reference, module, traced),
        **settings,
    )


def _contenders(module: nn.Module, traced: bool) -> list[Contender]:
    implementations = {"structured": 3, "Jacobian contraction": 1, "NTK-vector products": 2}
    return [
        Contender("dltheory", functools.partial(_ours, module, traced), ours=True),
        *(
            Contender(f"neural-tangents, {words}", functools.partial(_neural_tangents, module, traced, implementation))
            for words, implementation in implementations.items()
        ),
        Contender("vmap(jacrev) and a contraction", functools.partial(_jacobians, module, traced)),
    ]


def _blocked(module: nn.Module) -> list[Contender]:
    structured = functools.partial(_neural_tangents, module, False, 3)
    return [
        Contender("dltheory, in one piece", functools.partial(_ours, module, False), ours=True),
        Contender("dltheory, blocks of 32", functools.partial(_ours, module, False, block_size=32), ours=True),
        Contender("neural-tangents, structured, in one piece", structured),
        Contender("neural-tangents, structured, nt.batch of 32", functools.partial(structured, batch=32), jit=False),
    ]


_FC, _CNN, _IMAGE = "fully connected, 784-1024-1024-1024", "4 convolutions, 64 channels, 16 × 16 × 3", (16, 16, 3)

CASES = (
    _case("fc_1", f"{_FC}-1, n = 256", Dense(1), (256, 784), target=2, gflop=_dense_gflop(784, 256, 1, False)),
    _case("fc_10", f"{_FC}-10, n = 256", Dense(10), (256, 784), target=2, gflop=_dense_gflop(784, 256, 10, False)),
    _case(
        "fc_10_traced",
        f"{_FC}-10, n = 256, traced",
        Dense(10),
        (256, 784),
        traced=True,
        target=2,
        gflop=_dense_gflop(784, 256, 10, True),
    ),
    _case(
        "fc_1_blocks",
        f"{_FC}-1, n = 256, in blocks of 32",
        Dense(1),
        (256, 784),
        contenders=_blocked(Dense(1)),
        gflop=_dense_gflop(784, 256, 1, False),
    ),
    _case(
        "cnn",
        f"{_CNN}, global pooling, n = 32, 10 outputs",
        Convolutional(),
        (32, *_IMAGE),
        target=1.5,
        gflop=_convolutional_gflop(64, 4, 32, False),
    ),
    _case(
        "cnn_traced",
        f"{_CNN}, global pooling, n = 32, 10 outputs, traced",
        Convolutional(),
        (32, *_IMAGE),
        traced=True,
        target=1.5,
        gflop=_convolutional_gflop(64, 4, 32, True),
    ),
    _case(
        "cnn_flat",
        f"{_CNN}, flattened, n = 32, 10 outputs",
        Convolutional(flatten=True),
        (32, *_IMAGE),
        target=1.5,
        gflop=_convolutional_gflop(64, 4, 32, False),
    ),
    _case(
        "residual",
        "residual, 5 convolutions, 32 channels, 16 × 16 × 3, global pooling, n = 16, 10 outputs",
        Residual(),
        (16, *_IMAGE),
        target=1.5,
        gflop=_convolutional_gflop(32, 5, 16, False),
    ),
    _case(
        "transformer",
        "transformer block, 32 tokens, width 64, n = 16, 10 outputs",
        Transformer(),
        (16, 32, 64),
        target=1.5,
    ),
    _case(
        "embedding",
        "embedding of 2000 words, 64 tokens, width 64, n = 32, 10 outputs",
        Embedding(),
        (32, 64),
        tokens=2000,
        target=1,
    ),
    _case("scanned", "8 scanned layers of width 256, n = 64, 10 outputs", Scanned(), (64, 256), target=1),
)
