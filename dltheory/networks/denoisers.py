"""Networks that are told a time: what a diffusion model learns, for vectors and for images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from dltheory._checks import require, shapes
from dltheory.networks.layers import Dense, _normal
from dltheory.typing import Array, Scalar

__all__ = ["TimeMLP", "UNet", "sinusoidal_embedding"]

Activation = Callable[[Array], Array]


def sinusoidal_embedding(t: Array, num_features: int, max_period: Scalar = 10_000.0) -> Array:
    r"""Times as waves of many lengths, which a network can tell apart whatever their scale.

    .. math:: \cos(\omega_i t), \; \sin(\omega_i t), \qquad \omega_i = P^{-2i/m}, \quad i = 0, \dots, m/2 - 1

    The shortest wave has length 2 pi: whole steps are told apart, times in [0, 1] hardly. Multiply those by 1000 first.

    Args:
        t: times, whole numbers or not, any shape.
        num_features: m, positive and even.
        max_period: P, above 1; the longest wave is about 2 pi P long, shape [].

    Returns:
        Cosines, then sines, shape [..., m], in the dtype of `t`, or the default floating-point one if `t` is whole.

    Raises:
        ValueError: if `num_features` is not positive and even, or `max_period` is not a scalar.

    A helper.  Source: Vaswani et al. 2017; Ho et al. 2020.

    >>> import jax.numpy as jnp
    >>> from dltheory import networks
    >>> networks.sinusoidal_embedding(jnp.array([0, 3]), 4).shape
    (2, 4)
    >>> networks.sinusoidal_embedding(jnp.array(0.0), 4)
    Array([1., 1., 0., 0.], dtype=float32)
    """
    shapes(t=(t, "..."), max_period=(max_period, ""))
    even = num_features > 0 and num_features % 2 == 0
    require(even, f"`num_features` must be positive and even, got {num_features}")
    require(max_period > 1, "`max_period` must be above 1")
    dtype = jnp.result_type(t, float)
    wide = jnp.promote_types(dtype, jnp.float32)  # half precision cannot count to a thousand
    half = num_features // 2
    frequencies = jnp.exp(-jnp.log(jnp.asarray(max_period, wide)) * (jnp.arange(half, dtype=wide) / half))
    angles = jnp.expand_dims(jnp.asarray(t, wide), -1) * jnp.expand_dims(frequencies, range(jnp.ndim(t)))
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1).astype(dtype)


class TimeMLP(nn.Module):
    r"""A fully connected network of a vector and a time, of the shape of the vector.

    .. math:: h_{l+1} = \phi\big( (1 + a_l(t, c)) \odot W_l h_l + b_l(t, c) \big), \qquad f = W_{out} h_L

    with scales a and shifts b that are affine in an embedding of the time t and, if there are any, the label c. The
    output layer and the scales start at zero. Maps x [..., d] and t [...] to [..., d], in the dtype of x; a single time
    [] goes with any number of vectors.

    Attributes:
        widths: of the hidden layers.
        time_features: number of features that embed the time, even.
        time_scale: what times are multiplied with first: 1 for whole steps, 1000 for times in [0, 1].
        num_classes: number k of labels that the network may be given, in {0, ..., k - 1}; the label k, or no labels at
            all, stands for "unknown", which classifier-free guidance needs. 0 for a network without labels.
        activation: phi.

    Source: Ho et al. 2020; Perez et al. 2018 (scales and shifts).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import networks
    >>> network, x, t = networks.TimeMLP((64, 64)), jnp.ones((5, 2)), jnp.arange(5)
    >>> output, params = jax.eval_shape(network.init_with_output, jax.random.key(0), x, t)
    >>> output.shape
    (5, 2)
    """

    widths: Sequence[int] = (256, 256, 256)
    time_features: int = 64
    time_scale: float = 1.0
    num_classes: int = 0
    activation: Activation = nn.silu

    @nn.compact
    def __call__(self, x: Array, t: Array, labels: Array | None = None) -> Array:
        """Outputs [..., d] at inputs [..., d], times [...] or [], and labels like the times."""
        shapes(x=(x, "... d"))
        require(len(self.widths) >= 1, "`widths` must name at least one hidden layer")
        x = jnp.asarray(x, jnp.result_type(x, float))
        context = _Context(self.time_features, self.time_scale, self.num_classes)(x, t, labels, x.shape[:-1])
        h = x
        for width in self.widths:
            h = self.activation(_Modulation(width)(_dense(width)(h), context))
        return _dense(x.shape[-1], zero=True)(h)


class UNet(nn.Module):
    r"""A small U-net of an image and a time, of the shape of the image.

    Levels of residual blocks halve the image on the way down and double it on the way up, where every block is also
    given what the block beside it on the way down had found. A block adds to its input, or to an affine map of it at
    every pixel where the number of channels changes,

    .. math:: A_2\, \phi\big( (1 + a(t, c)) \odot N(A_1 \phi(N(h))) + b(t, c) \big)

    with group normalisations N, 3 by 3 convolutions A, and scales a and shifts b affine in an embedding of the time t
    and, if there are any, the label c. The second convolution of every block, the last layer, attention's output and
    the scales and shifts start at zero. Images shrink by means over 2 by 2 pixels and grow by repetition. Maps x
    [..., h, w, c] and t [...] to [..., h, w, c], in the dtype of x; a single time [] goes with any number of images.

    Attributes:
        channels: number of channels at each level, multiples of `num_groups`.
        blocks_per_level: number of blocks at each level on the way down, as many as on the way up.
        attention: whether pixels of the lowest level attend to each other.
        num_groups: number of groups of channels that are normalised together.
        time_features: number of features that embed the time, even.
        time_scale: what times are multiplied with first: 1 for whole steps, 1000 for times in [0, 1].
        num_classes: number k of labels that the network may be given, in {0, ..., k - 1}; the label k, or no labels at
            all, stands for "unknown", which classifier-free guidance needs. 0 for a network without labels.
        activation: phi.

    Source: Ho et al. 2020; Dhariwal and Nichol 2021 (scales and shifts).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import networks
    >>> network, images, t = networks.UNet((8, 16)), jnp.ones((2, 8, 8, 1)), jnp.array([1, 50])
    >>> output, params = jax.eval_shape(network.init_with_output, jax.random.key(0), images, t)
    >>> output.shape
    (2, 8, 8, 1)
    """

    channels: Sequence[int] = (32, 64)
    blocks_per_level: int = 1
    attention: bool = False
    num_groups: int = 8
    time_features: int = 64
    time_scale: float = 1.0
    num_classes: int = 0
    activation: Activation = nn.silu

    @nn.compact
    def __call__(self, x: Array, t: Array, labels: Array | None = None) -> Array:
        """Outputs [..., h, w, c] at inputs [..., h, w, c], times [...] or [], and labels like the times."""
        shapes(x=(x, "... h w c"))
        self._check(x)
        batch, image = x.shape[:-3], x.shape[-3:]
        x = jnp.asarray(x, jnp.result_type(x, float))
        context = _Context(self.time_features, self.time_scale, self.num_classes)(x, t, labels, batch)
        size = math.prod(batch)  # may be zero
        x = x.reshape(size, *image)
        context = jnp.broadcast_to(context, (*batch, context.shape[-1])).reshape(size, context.shape[-1])

        def block(channels: int, h: Array) -> Array:
            return _Block(channels, self.num_groups, self.activation)(h, context)

        h = _Conv(self.channels[0])(x)
        passed = []
        for level, channels in enumerate(self.channels):
            h = h if level == 0 else _halved(h)
            for _ in range(self.blocks_per_level):
                h = block(channels, h)
                passed.append(h)
        h = block(self.channels[-1], h)
        if self.attention:
            h = _Attention(self.num_groups)(h)
        for level, channels in reversed(list(enumerate(self.channels))):
            for _ in range(self.blocks_per_level):
                h = block(channels, jnp.concatenate([h, passed.pop()], axis=-1))
            h = h if level == 0 else _doubled(h)
        h = self.activation(_normalisation(self.num_groups, h)(h))
        return _Conv(image[-1], zero=True)(h).reshape(*batch, *image)

    def _check(self, x: Array) -> None:
        require(len(self.channels) >= 1, "`channels` must name at least one level")
        require(self.blocks_per_level >= 1, f"`blocks_per_level` must be positive, got {self.blocks_per_level}")
        require(self.num_groups >= 1, f"`num_groups` must be positive, got {self.num_groups}")
        fits = all(channels > 0 and channels % self.num_groups == 0 for channels in self.channels)
        wanted = f"multiples of `num_groups`, {self.num_groups}"
        require(fits, f"`channels` must be positive {wanted}, got {list(self.channels)}")
        factor = 2 ** (len(self.channels) - 1)
        divides = x.shape[-3] % factor == 0 and x.shape[-2] % factor == 0
        size = list(x.shape[-3:-1])
        require(divides, f"`x` must have height and width divisible by {factor}, as each level halves them, got {size}")


class _Context(nn.Module):
    """A time and a label as one vector [..., m]."""

    features: int
    time_scale: float
    num_classes: int

    @nn.compact
    def __call__(self, x: Array, t: Any, labels: Any, batch: tuple[int, ...]) -> Array:
        _check_condition("t", t, batch)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        waves = sinusoidal_embedding(jnp.asarray(t, wide) * jnp.asarray(self.time_scale, wide), self.features)
        context = _dense(self.features)(waves.astype(x.dtype))
        if self.num_classes == 0:
            require(labels is None, "`labels` must be None, as the network was made without `num_classes`")
        else:
            if labels is None:
                labels = jnp.full(jnp.shape(t), self.num_classes)
            _check_condition("labels", labels, batch)
            whole = jnp.issubdtype(jnp.result_type(labels), jnp.integer)
            require(whole, f"`labels` must be integers, got {jnp.result_type(labels)}")
            inside = (labels >= 0) & (labels <= self.num_classes)
            require(inside, f"`labels` must lie in {{0, ..., {self.num_classes}}}")
            table = self.param("labels", _normal(1.0), (self.num_classes + 1, self.features), x.dtype)
            chosen = jnp.where(jnp.expand_dims(inside, -1), table[jnp.where(inside, labels, 0)], jnp.nan)
            chosen = chosen.astype(x.dtype)
            axes = max(context.ndim, chosen.ndim)  # one of them may be for all
            context, chosen = (jnp.expand_dims(part, range(axes - part.ndim)) for part in (context, chosen))
            context = context + chosen
        return nn.silu(_dense(self.features)(nn.silu(context)))


class _Modulation(nn.Module):
    """Scales and shifts the last axis by what the context says; at first the identity."""

    features: int

    @nn.compact
    def __call__(self, h: Array, context: Array) -> Array:
        scale, shift = jnp.split(_dense(2 * self.features, zero=True)(context), 2, axis=-1)
        between = range(context.ndim - 1, h.ndim - 1)
        return h * (1 + jnp.expand_dims(scale, between)) + jnp.expand_dims(shift, between)


class _Conv(nn.Module):
    """The 3 by 3 convolution of [n, h, w, c] with zeros around it, of the parameters of `Conv`, by one matrix product.

    XLA:CPU runs the gradients of its own convolutions up to thirty times slower inside a loop, where training is, than
    outside of it. Here three rows of pixels go into the product, which gives what each adds to three columns.
    """

    features: int
    zero: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n, height, width, c = x.shape
        kernel = self.param(
            "kernel", _normal(0.0 if self.zero else 1 / math.sqrt(9 * c)), (3, 3, c, self.features), x.dtype
        )
        bias = self.param("bias", nn.initializers.zeros, (self.features,), x.dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias)
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
        rows = jnp.concatenate([padded[:, i : i + height] for i in range(3)], axis=-1)
        weights = jnp.transpose(kernel, (0, 2, 1, 3)).reshape(3 * c, 3 * self.features)
        parts = (rows.reshape(-1, 3 * c) @ weights).reshape(n, height, width, 3, self.features)
        parts = jnp.pad(parts, ((0, 0), (0, 0), (1, 1), (0, 0), (0, 0)))
        return sum(parts[:, :, j : j + width, j] for j in range(3)) + jnp.expand_dims(bias, range(3))


class _Block(nn.Module):
    """A residual block of a U-net, [n, h, w, c] -> [n, h, w, channels]."""

    channels: int
    num_groups: int
    activation: Activation

    @nn.compact
    def __call__(self, h: Array, context: Array) -> Array:
        branch = _Conv(self.channels)(self.activation(_normalisation(self.num_groups, h)(h)))
        branch = _Modulation(self.channels)(_normalisation(self.num_groups, branch)(branch), context)
        branch = _Conv(self.channels, zero=True)(self.activation(branch))
        return branch + (h if h.shape == branch.shape else _dense(self.channels)(h))


class _Attention(nn.Module):
    """Attention among all pixels, with one head, added to what it is given."""

    num_groups: int

    @nn.compact
    def __call__(self, h: Array) -> Array:
        n, height, width, c = h.shape
        pixels = _normalisation(self.num_groups, h)(h).reshape(n, height * width, c)
        query, key, value = jnp.split(_dense(3 * c)(pixels), 3, axis=-1)
        weights = nn.softmax(jnp.einsum("nqc,nkc->nqk", query, key) / math.sqrt(c))
        mixed = jnp.einsum("nqk,nkc->nqc", weights, value)
        return h + _dense(c, zero=True)(mixed).reshape(h.shape)


def _dense(features: int, zero: bool = False) -> Dense:
    return Dense(features, parametrization="standard", sigma_w=0.0 if zero else 1.0)


def _normalisation(num_groups: int, h: Array) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups, param_dtype=h.dtype)


def _halved(h: Array) -> Array:
    n, height, width, c = h.shape
    return jnp.mean(h.reshape(n, height // 2, 2, width // 2, 2, c), axis=(2, 4))


def _doubled(h: Array) -> Array:
    n, height, width, c = h.shape
    repeated = jnp.broadcast_to(h[:, :, None, :, None], (n, height, 2, width, 2, c))
    return repeated.reshape(n, 2 * height, 2 * width, c)


def _check_condition(name: str, values: Any, batch: tuple[int, ...]) -> None:
    shapes(**{name: (values, "...")})
    got = jnp.shape(values)
    wanted = f"[] or {list(batch)}, the shape of the examples in `x`" if batch else "[], as `x` is one example"
    require(got in ((), batch), f"`{name}` must have shape {wanted}, got {list(got)}")
