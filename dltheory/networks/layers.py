r"""Affine layers whose initialisation and scales are in view, in three parametrisations.

A sum over n = fan_in inputs computes at initialisation z = sigma_w / sqrt(n) W x + sigma_b b with W, b ~ N(0, 1), in
every parametrisation. They differ in what counts as the parameter, and hence in how gradient descent moves it. With
s = sigma_w / sqrt(n), and eta independent of the width:

============  ======================================  ===================  ============================  =============
name          parameters                              hidden layers        output layer                  learning rate
============  ======================================  ===================  ============================  =============
``ntk``       W, b ~ N(0, 1)                          s W x + sigma_b b    s W x + sigma_b b             eta
``standard``  W ~ N(0, s^2), b ~ N(0, sigma_b^2)      W x + b              W x + b                       eta / width
``mup``       W, b ~ N(0, 1)                          s W x + sigma_b b    (s W x + sigma_b b) / sqrt n  eta * width
============  ======================================  ===================  ============================  =============

- ``ntk`` (Jacot et al. 2018): the tangent kernel has a limit; features move by O(1 / sqrt(width)).
- ``standard`` is what deep-learning libraries do: the same function at initialisation, a tangent kernel that grows like
  the width. The rate that this forces all but freezes the first layer, whose sums are not wide.
- ``mup``, the maximal-update parametrisation of Yang and Hu 2021: features move by an amount independent of the width.
  Their table 1 has weights n^-a w with w ~ N(0, n^-2b) and the rate eta n^-c, where a = (-1/2, 0, ..., 0, 1/2),
  b = (1/2, ..., 1/2), c = 0; their symmetry (a, b, c) -> (a + 1/2, b - 1/2, c - 1) makes of it the unit-variance form
  used here, a = (0, 1/2, ..., 1/2, 1), b = 0, c = -1.

The learning rates are those of gradient descent on a loss of order 1. Adam, which ignores the scale of a gradient,
needs in this form of ``mup`` the rate eta / sqrt(width) for kernels between two wide layers, eta * sqrt(width) for the
bias of the output layer, and eta for all else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.typing import DTypeLike

from dltheory._checks import require
from dltheory.typing import Array, PRNGKey, Scalar

__all__ = ["Conv", "Dense", "Parametrization", "Parametrized"]

Parametrization = Literal["ntk", "standard", "mup"]


class Parametrized(nn.Module, kw_only=True):
    """The settings that all layers and networks of this package share, as keyword arguments.

    Attributes:
        parametrization: "ntk", "standard" or "mup"; see the table of `dltheory.networks.layers`.
        sigma_w: standard deviation of the weights times the square root of fan_in, non-negative.
        sigma_b: standard deviation of the biases, non-negative.
        use_bias: whether layers have a bias. In "ntk" and "mup" sigma_b also scales the bias in the forward pass; if it
            is the number 0, the bias could neither act nor learn, and there is no such parameter. In "standard" it is
            then a bias that starts at zero and learns.
    """

    parametrization: Parametrization = "ntk"
    sigma_w: Scalar = 1.0
    sigma_b: Scalar = 0.0
    use_bias: bool = True

    def settings(self) -> dict[str, Any]:
        """What a network hands on to its layers."""
        return {
            "parametrization": self.parametrization,
            "sigma_w": self.sigma_w,
            "sigma_b": self.sigma_b,
            "use_bias": self.use_bias,
        }


class Dense(Parametrized):
    r"""A fully connected layer: every output is a weighted sum over the last axis of the input.

    .. math:: z = \frac{\sigma_w}{\sqrt{d}} W x + \sigma_b b, \qquad W_{ij}, b_i \sim N(0, 1)

    in "ntk"; for "standard" and "mup" see the table of `dltheory.networks.layers`. Maps [..., d] to [..., features].
    The parameters ``kernel`` [d, features] and ``bias`` [features] take the dtype of the input that initialises them,
    and have the names and layouts of `flax.linen.Dense`, which "standard" equals.

    Attributes:
        features: number k of outputs.
        output_layer: whether the network ends here, where "mup" divides by one more sqrt(fan_in).

    Source: Jacot, Gabriel and Hongler 2018, section 2; Yang and Hu 2021, table 1.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import networks
    >>> layer, x = networks.Dense(3, sigma_w=2**0.5, sigma_b=0.1), jnp.ones((5, 2))
    >>> variables = layer.init(jax.random.key(0), x)
    >>> jax.tree.map(jnp.shape, variables)
    {'params': {'bias': (3,), 'kernel': (2, 3)}}
    >>> layer.apply(variables, x).shape
    (5, 3)
    """

    features: int
    output_layer: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs [..., features] at inputs [..., d]."""
        require(jnp.ndim(x) >= 1, f"`x` must have shape [..., d], got {list(jnp.shape(x))}")
        return _affine(self, jnp.matmul, x, (jnp.shape(x)[-1], self.features), self.output_layer)


class Conv(Parametrized):
    r"""A convolution: at every position, a weighted sum over a window of positions and over the channels.

    .. math:: z_t = \frac{\sigma_w}{\sqrt{c \, |\mathrm{window}|}} \sum_u W_u x_{t + u} + \sigma_b b

    in "ntk"; fan_in is the number c of channels times the number of positions in the window, also where it overlaps the
    border. Maps [n, ..., c] to [n, ..., features], with as many axes in between as `kernel_size` has. The parameters
    ``kernel`` [*kernel_size, c, features] and ``bias`` [features] are those of `flax.linen.Conv`.

    Attributes:
        features: number of output channels.
        kernel_size: the window, one number per position axis.
        strides: steps between windows, one number or one per position axis.
        padding: "SAME" (zeros), "VALID" (none), "CIRCULAR" (the border wraps round), or the zeros (before, after) to
            add along each position axis.

    Source: Novak et al. 2019, section 2; Arora et al. 2019, section 4.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import networks
    >>> layer, images = networks.Conv(4, kernel_size=(3, 3), strides=2), jnp.ones((5, 8, 8, 1))
    >>> layer.apply(layer.init(jax.random.key(0), images), images).shape
    (5, 4, 4, 4)
    """

    features: int
    kernel_size: Sequence[int]
    strides: int | Sequence[int] = 1
    padding: str | Sequence[tuple[int, int]] = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Outputs [n, ..., features] at inputs [n, ..., c]."""
        window = tuple(self.kernel_size)
        axes = ", ".join(f"d{i + 1}" for i in range(len(window)))
        require(jnp.ndim(x) == len(window) + 2, f"`x` must have shape [n, {axes}, c], got {list(jnp.shape(x))}")
        strides = (self.strides,) * len(window) if isinstance(self.strides, int) else tuple(self.strides)
        require(len(strides) == len(window), f"`strides` must be one number or {len(window)}, got {list(strides)}")
        positions = "".join(chr(ord("0") + i) for i in range(len(window)))
        layout = (f"N{positions}C", f"{positions}IO", f"N{positions}C")

        def convolve(x: Array, kernel: Array) -> Array:
            padding = self.padding
            if padding == "CIRCULAR":
                wrapped = [(0, 0), *(((size - 1) // 2, size // 2) for size in window), (0, 0)]
                x, padding = jnp.pad(x, wrapped, mode="wrap"), "VALID"
            return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout)

        return _affine(self, convolve, x, (*window, jnp.shape(x)[-1], self.features))


def _affine(
    layer: Parametrized,
    product: Callable[[Array, Array], Array],
    x: Array,
    kernel_shape: tuple[int, ...],
    output_layer: bool = False,
) -> Array:
    """``product(x, kernel) + bias`` with the parameters and the scales of the layer's parametrisation."""
    known = layer.parametrization in ("ntk", "standard", "mup")
    require(known, f"`parametrization` must be 'ntk', 'standard' or 'mup', got {layer.parametrization!r}")
    require(layer.sigma_w >= 0, "`sigma_w` must be non-negative")
    require(layer.sigma_b >= 0, "`sigma_b` must be non-negative")
    *summed, features = kernel_shape
    fan_in = math.prod(summed)
    require(fan_in > 0, f"`x` must have at least one feature, got shape {list(jnp.shape(x))}")
    dtype = jnp.result_type(x, float)  # integers, such as the bytes of an image, become floating-point numbers
    std_w, std_b = layer.sigma_w / math.sqrt(fan_in), layer.sigma_b
    scales = None
    if layer.parametrization != "standard":
        shrink = math.sqrt(fan_in) if output_layer and layer.parametrization == "mup" else 1
        scales, (std_w, std_b) = (std_w / shrink, std_b / shrink), (1.0, 1.0)
    inert = scales is not None and isinstance(layer.sigma_b, int | float) and layer.sigma_b == 0

    kernel = layer.param("kernel", _normal(std_w), kernel_shape, dtype)
    bias = None
    if layer.use_bias and not inert:
        bias = layer.param("bias", _normal(std_b), (features,), dtype)
    x, kernel, bias = promote_dtype(x, kernel, bias)
    z = product(x, kernel)
    if scales is not None:
        z *= jnp.asarray(scales[0], z.dtype)
    if bias is not None:
        if scales is not None:
            bias *= jnp.asarray(scales[1], z.dtype)
        z += jnp.expand_dims(bias, range(z.ndim - 1))
    return z


def _normal(stddev: Scalar) -> Callable[..., Array]:
    """An initialiser of independent normal entries, equal to `flax.linen.initializers.normal`."""

    def init(key: PRNGKey, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        if isinstance(stddev, int | float) and stddev == 0:
            return jnp.zeros(shape, dtype)
        # Drawn along one axis the same numbers compile up to eight times faster than along four.
        flat = jax.random.normal(key, (math.prod(shape),), dtype)
        return jnp.asarray(stddev, dtype) * flat.reshape(shape)

    return init
