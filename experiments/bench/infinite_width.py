"""The kernels of infinitely wide networks, read off Flax modules, against the kernels of neural-tangents' `stax`."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.bench.case import Absent, Case, Contender

__all__ = ["CASES"]

Array = np.ndarray
Pair = tuple[Array, Array]
Layer = Callable[[Any], list[Any]]


class Dense(nn.Module):
    """Fully connected."""

    activation: Callable[..., Any]
    depth: int

    @nn.compact
    def __call__(self, x):
        """Maps [n, d] to [n, 1]."""
        for _ in range(self.depth):
            x = self.activation(nn.Dense(512)(x))
        return nn.Dense(1)(x)


class ResidualDense(nn.Module):
    """Fully connected, with skip connections between pre-activations."""

    depth: int

    @nn.compact
    def __call__(self, x):
        """Maps [n, d] to [n, 1]."""
        x = nn.Dense(512)(x)
        for _ in range(self.depth):
            x = x + nn.Dense(512)(nn.relu(x))
        return nn.Dense(1)(nn.relu(x))


class Convolutional(nn.Module):
    """Convolutions of 3 x 3 with ReLU, then global average pooling or flattening."""

    depth: int
    flatten: bool

    @nn.compact
    def __call__(self, x):
        """Maps [n, height, width, c] to [n, 1]."""
        for _ in range(self.depth):
            x = nn.relu(nn.Conv(128, (3, 3))(x))
        return nn.Dense(1)(x.reshape(x.shape[0], -1) if self.flatten else x.mean((1, 2)))


def he_variance(path: str, shape: tuple[int, ...]) -> float:
    """2 / fan_in for weights, so that deep networks keep their scale; biases are zero."""
    return 2 / math.prod(shape[:-1]) if path.endswith("kernel") else 0.0


def _data(shape: tuple[int, ...]) -> tuple[Any]:
    return (jax.random.normal(jax.random.key(0), shape),)


def _ours(module: nn.Module, shape: tuple[int, ...]) -> Callable[..., Any]:
    try:
        from dltheory import infinite_width

        kernel_fn = infinite_width.kernel_fn
    except (ImportError, AttributeError) as error:
        raise Absent(str(error)) from None
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *shape[1:])))
    apply: Any = module.apply
    kernel = kernel_fn(apply, params, param_variance=he_variance)
    return lambda x: tuple(kernel(x))


def _neural_tangents(layers: Layer) -> Callable[..., Any]:
    from dltheory.interop import neural_tangents

    try:
        neural_tangents.load()
    except ImportError as error:
        raise Absent(str(error)) from None
    stax = importlib.import_module("neural_tangents.stax")
    _, _, kernel_fn = stax.serial(*layers(stax))

    def kernels(x: Any) -> Any:
        kernel = kernel_fn(x, None, ("nngp", "ntk"))
        return kernel.nngp, kernel.ntk

    return kernels


def _dense_layers(activation: str, depth: int) -> Layer:
    def layers(stax: Any) -> list[Any]:
        dense = stax.Dense(1, W_std=2**0.5)
        return [*[dense, getattr(stax, activation)()] * depth, dense]

    return layers


def _residual_layers(depth: int) -> Layer:
    def layers(stax: Any) -> list[Any]:
        dense = stax.Dense(1, W_std=2**0.5)
        branch = stax.serial(stax.Relu(), dense)
        block = stax.serial(stax.FanOut(2), stax.parallel(branch, stax.Identity()), stax.FanInSum())
        return [dense, *[block] * depth, stax.Relu(), dense]

    return layers


def _convolutional_layers(depth: int, flatten: bool) -> Layer:
    def layers(stax: Any) -> list[Any]:
        conv = stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5)
        head = stax.Flatten() if flatten else stax.GlobalAvgPool()
        return [*[conv, stax.Relu()] * depth, head, stax.Dense(1, W_std=2**0.5)]

    return layers


def _view(kernels: Any, *_: Any) -> Array:
    """Both kernels times a fixed vector, in which every entry has its part."""
    probe = np.random.default_rng(0).normal(size=kernels[0].shape[1])
    return np.concatenate([np.asarray(kernel, np.float64) @ probe for kernel in kernels])


def _analytic(activation: str, depth: int, x: Array) -> Array:
    """By the recursion for fully connected networks."""
    from dltheory import ntk

    return _view(ntk.analytic_ntk(jnp.asarray(x), depth=depth, sigma_w=2**0.5, sigma_b=0.0, activation=activation))


def _relu(kernels: Pair, deviations: Pair) -> Pair:
    """Twice the moments of ReLU and of its derivative in NumPy (Cho and Saul 2009)."""
    nngp, ntk = kernels
    scale = deviations[0] * deviations[1]
    cosine = np.clip(nngp / scale, -1, 1)
    slope = 1 - np.arccos(cosine) / np.pi
    return scale * (np.sqrt(1 - cosine**2) / np.pi + cosine * slope), ntk * slope


def _residual(depth: int, x: Array) -> Array:
    """By hand, in NumPy."""

    def activated(kernels: Pair) -> Pair:
        deviation = np.sqrt(np.diag(kernels[0]))
        nngp, tangent = _relu(kernels, (deviation[:, None], deviation[None]))
        return nngp, nngp + tangent

    nngp = 2 * x @ x.T / x.shape[1]
    kernels = nngp, nngp
    for _ in range(depth):
        branch = activated(kernels)
        kernels = kernels[0] + branch[0], kernels[1] + branch[1]
    return _view(activated(kernels))


def _windows(kernel: Array, axes: tuple[tuple[int, ...], ...]) -> Array:
    """Means over the 3 x 3 windows, zero outside; those of the two inputs move together."""
    for together in axes:
        padded = np.pad(kernel, [(1, 1) if axis in together else (0, 0) for axis in range(kernel.ndim)])
        kernel = np.zeros_like(kernel)
        for shift in range(3):
            index = tuple(
                slice(shift, shift + size) if axis in together else slice(None)
                for axis, size in enumerate(kernel.shape)
            )
            kernel = kernel + padded[index] / 3
    return kernel


def _convolutional(depth: int, flatten: bool, x: Array) -> Array:
    """By hand, in NumPy: covariances at equal positions suffice before flattening, pooling needs those of all pairs."""
    channels = x.shape[-1]
    if flatten:
        axes, nngp = ((2,), (3,)), 2 * np.einsum("nabc,mabc->nmab", x, x) / channels
    else:
        axes, nngp = ((2, 4), (3, 5)), 2 * np.einsum("nabc,mdec->nmabde", x, x) / channels
    ntk = np.zeros_like(nngp)
    for _ in range(depth):
        nngp, ntk = _windows(nngp, axes), _windows(ntk, axes)
        ntk = ntk + nngp
        equal = np.einsum("nnab->nab" if flatten else "nnabab->nab", nngp)
        both = (
            (equal[:, None], equal[None]) if flatten else (equal[:, None, :, :, None, None], equal[None, :, None, None])
        )
        nngp, ntk = _relu((nngp, ntk), (np.sqrt(both[0]), np.sqrt(both[1])))
    positions = tuple(range(2, nngp.ndim))
    nngp, ntk = nngp.mean(positions), ntk.mean(positions)
    return _view((nngp, nngp + ntk))


def _case(
    name: str,
    title: str,
    module: nn.Module,
    layers: Layer,
    shape: tuple[int, ...],
    reference: Callable[..., Any],
    **settings: Any,
) -> Case:
    return Case(
        f"infinite_width.{name}",
        f"{title}, n = {shape[0]}",
        data=functools.partial(_data, shape),
        contenders=(
            Contender("dltheory, from the Flax module", functools.partial(_ours, module, shape), ours=True),
            Contender("neural-tangents, stax", functools.partial(_neural_tangents, layers)),
        ),
        view=_view,
        reference=reference,
        tolerance=2e-3,  # a rectifier's tangent kernel has half the digits near its diagonal in the peer
        **settings,
    )


def _dense_case(
    name: str, title: str, activation: Callable[..., Any], peer: str, depth: int, n: int, target: float = 2
) -> Case:
    module, layers = Dense(activation, depth), _dense_layers(peer, depth)
    reference = functools.partial(_analytic, name.partition("_")[2].rstrip("_0123456789"), depth)
    return _case(
        name, f"fully connected, {depth} hidden layers, {title}", module, layers, (n, 784), reference, target=target
    )


def _convolutional_case(name: str, head: str, flatten: bool, shape: tuple[int, ...]) -> Case:
    title = f"8 convolutions, {shape[1]} × {shape[2]} × {shape[3]}, {head}"
    reference = functools.partial(_convolutional, 8, flatten)
    layers = _convolutional_layers(8, flatten)
    return _case(f"cnn_{name}", title, Convolutional(8, flatten), layers, shape, reference, target=2 if flatten else 15)


_exact_gelu = functools.partial(nn.gelu, approximate=False)

CASES = (
    _dense_case("fc_relu", "ReLU", nn.relu, "Relu", 3, 2048),
    _dense_case("fc_erf", "erf", jax.lax.erf, "Erf", 3, 2048),
    _dense_case("fc_gelu", "GELU", _exact_gelu, "Gelu", 3, 2048),
    _dense_case("fc_relu_20", "ReLU", nn.relu, "Relu", 20, 1024, target=15),
    _case(
        "residual",
        "fully connected, 8 residual blocks, ReLU",
        ResidualDense(8),
        _residual_layers(8),
        (1024, 784),
        functools.partial(_residual, 8),
        target=2,
    ),
    _convolutional_case("flat", "flattened", True, (48, 16, 16, 3)),
    _convolutional_case("pooled", "global pooling", False, (12, 8, 8, 3)),
)
