"""Fully connected and convolutional networks, plain and residual, in the three parametrisations of the layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from dltheory._checks import require
from dltheory.networks.layers import Conv, Dense, Parametrized
from dltheory.typing import Array

__all__ = ["CNN", "MLP", "ResidualCNN", "ResidualMLP"]

Activation = Callable[[Array], Array]
Pooling = Literal["global_average", "flatten"]


class MLP(Parametrized):
    """A fully connected network: affine layers with an activation between them.

    Maps [..., d] to [..., k]; as in Flax, other axes than the last are examples, so images must be flattened first.

    Attributes:
        features: widths of the hidden layers, then the number k of outputs.
        activation: applied to every entry of every hidden layer.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import networks
    >>> network, x = networks.MLP((64, 64, 1), sigma_w=2**0.5, sigma_b=0.1), jnp.ones((5, 3))
    >>> variables = network.init(jax.random.key(0), x)
    >>> network.apply(variables, x).shape
    (5, 1)
    """

    features: Sequence[int] = (64, 64, 1)
    activation: Activation = nn.relu

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs [..., k] at inputs [..., d]."""
        require(len(self.features) >= 1, "`features` must name at least the number of outputs")
        *widths, num_outputs = self.features
        for width in widths:
            x = self.activation(Dense(width, **self.settings())(x))
        return Dense(num_outputs, output_layer=True, **self.settings())(x)


class CNN(Parametrized):
    """A convolutional network: convolutions with activations, a pooling, and an affine output layer.

    Maps [n, ..., c] to [n, k], with as many axes in between as `kernel_size` has.

    Attributes:
        channels: numbers of channels after each convolution.
        num_outputs: k.
        kernel_size, strides, padding: of every convolution, as of `Conv`.
        activation: applied to every entry after every convolution.
        pooling: what goes into the output layer: "global_average" over all positions, or all positions side by side,
            "flatten".

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import networks
    >>> network, images = networks.CNN((16, 16), num_outputs=10, pooling="flatten"), jnp.ones((2, 8, 8, 3))
    >>> network.apply(network.init(jax.random.key(0), images), images).shape
    (2, 10)
    """

    channels: Sequence[int] = (64, 64)
    num_outputs: int = 1
    kernel_size: Sequence[int] = (3, 3)
    strides: int | Sequence[int] = 1
    padding: str | Sequence[tuple[int, int]] = "SAME"
    activation: Activation = nn.relu
    pooling: Pooling = "global_average"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs [n, k] at inputs [n, ..., c]."""
        for channels in self.channels:
            conv = Conv(channels, self.kernel_size, self.strides, self.padding, **self.settings())
            x = self.activation(conv(x))
        return Dense(self.num_outputs, output_layer=True, **self.settings())(_pool(x, self.pooling))


class ResidualMLP(Parametrized):
    r"""A fully connected network whose hidden layers add to what they are given.

    .. math:: h_0 = A_0 x, \qquad h_{l+1} = h_l + \alpha A_l \phi(h_l), \qquad f = A_{out} \phi(h_L)

    with affine layers A. Maps [..., d] to [..., k].

    Attributes:
        width: of every h.
        num_blocks: L.
        num_outputs: k.
        activation: phi.
        branch_scale: alpha; 1 / sqrt(L) keeps the variances bounded as L grows.

    Source: He, Zhang, Ren and Sun 2016, section 3 (full pre-activation).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import networks
    >>> network, x = networks.ResidualMLP(width=64, num_blocks=4, num_outputs=1, branch_scale=0.5), jnp.ones((5, 3))
    >>> network.apply(network.init(jax.random.key(0), x), x).shape
    (5, 1)
    """

    width: int = 64
    num_blocks: int = 2
    num_outputs: int = 1
    activation: Activation = nn.relu
    branch_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs [..., k] at inputs [..., d]."""
        h = Dense(self.width, **self.settings())(x)
        for _ in range(self.num_blocks):
            h += self.branch_scale * Dense(self.width, **self.settings())(self.activation(h))
        return Dense(self.num_outputs, output_layer=True, **self.settings())(self.activation(h))


class ResidualCNN(Parametrized):
    r"""A wide residual network without normalisation: stages of residual blocks, a pooling, an affine output layer.

    A block adds two convolutions, each after an activation, to what it is given:

    .. math:: h \mapsto P h + \alpha A_2 \phi(A_1 \phi(h))

    The first convolution is A_0. Every stage but the first halves each position axis and starts with a block whose
    shortcut P is a convolution with window 1; P is the identity wherever shapes allow. Maps [n, ..., c] to [n, k].

    Attributes:
        channels: number of channels in each stage.
        num_outputs: k.
        blocks_per_stage: number of blocks in each stage.
        kernel_size: of all convolutions but shortcuts.
        padding: "SAME" (zeros) or "CIRCULAR" (the border wraps round): a block keeps its positions.
        activation: phi.
        pooling: "global_average" or "flatten", as of `CNN`.
        branch_scale: alpha.

    Source: Zagoruyko and Komodakis 2016, section 2; He, Zhang, Ren and Sun 2016, section 3.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import networks
    >>> network, images = networks.ResidualCNN((8, 16), num_outputs=10), jnp.ones((2, 8, 8, 3))
    >>> network.apply(network.init(jax.random.key(0), images), images).shape
    (2, 10)
    """

    channels: Sequence[int] = (16, 32, 64)
    num_outputs: int = 1
    blocks_per_stage: int = 1
    kernel_size: Sequence[int] = (3, 3)
    padding: Literal["SAME", "CIRCULAR"] = "SAME"
    activation: Activation = nn.relu
    pooling: Pooling = "global_average"
    branch_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs [n, k] at inputs [n, ..., c]."""
        require(len(self.channels) >= 1, "`channels` must name at least one stage")
        require(self.padding in ("SAME", "CIRCULAR"), f"`padding` must be 'SAME' or 'CIRCULAR', got {self.padding!r}")

        def conv(channels: int, h: Array, strides: int = 1) -> Array:
            return Conv(channels, self.kernel_size, strides, self.padding, **self.settings())(h)

        h = conv(self.channels[0], x)
        for stage, channels in enumerate(self.channels):
            for block in range(self.blocks_per_stage):
                strides = 2 if stage > 0 and block == 0 else 1
                branch = conv(channels, self.activation(h), strides)
                branch = conv(channels, self.activation(branch))
                if branch.shape != h.shape:
                    h = Conv(channels, (1,) * len(self.kernel_size), strides, **self.settings())(h)
                h += self.branch_scale * branch
        pooled = _pool(self.activation(h), self.pooling)
        return Dense(self.num_outputs, output_layer=True, **self.settings())(pooled)


def _pool(x: Array, pooling: Pooling) -> Array:
    """[n, ..., c] -> [n, c], or [n, all positions times c]."""
    known = pooling in ("global_average", "flatten")
    require(known, f"`pooling` must be 'global_average' or 'flatten', got {pooling!r}")
    return jnp.mean(x, axis=range(1, x.ndim - 1)) if pooling == "global_average" else x.reshape(x.shape[0], -1)
