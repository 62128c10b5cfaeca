"""Kernels of infinitely wide fully connected networks, layer by layer."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.nngp.activations import Activation, dual_activation
from dltheory.nngp.covariances import PairCovariance, affine_covariance, input_covariance
from dltheory.typing import Array, ArrayLike

__all__ = ["NetworkKernels", "fully_connected_kernels", "kernel", "kernel_step", "network_kernel_step"]


class NetworkKernels(NamedTuple):
    """The two kernels of a wide network after some layer.

    Attributes:
        nngp: second moments of the pre-activations at pairs of inputs, as `PairCovariance`.
        ntk: tangent kernel, shape of the covariances.
    """

    nngp: PairCovariance
    ntk: Array


def kernel_step(
    pairs: PairCovariance, activation: Activation, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0
) -> PairCovariance:
    r"""Covariance of one layer's pre-activations from that of the layer below.

    .. math:: K^l_{\mu\nu} = \sigma_w^2 \, E_{(u, v) \sim \mathcal N(0, K^{l-1})} [\phi(u) \phi(v)] + \sigma_b^2

    Args:
        pairs: second moments of the pre-activations below, any shapes that broadcast.
        activation: phi, by name, as a function, or as its `Dual`; see `dual_activation`.
        sigma_w: scale of the weights, whose variance is sigma_w^2 / fan-in; shape [].
        sigma_b: scale of the biases, shape [].

    Returns:
        Second moments of the next pre-activations.

    Raises:
        ValueError: if the activation's name is unknown.

    Statement: nngp.kernel_recursion.  Source: Lee et al. 2018, equations 4 and 5.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.0]))
    >>> nngp.kernel_step(pairs, "relu", jnp.sqrt(2.0)).covariance * jnp.pi
    Array(1., dtype=float32)
    """
    return affine_covariance(dual_activation(activation).kernel(pairs), sigma_w, sigma_b)


def network_kernel_step(
    kernels: NetworkKernels, activation: Activation, sigma_w: ArrayLike, sigma_b: ArrayLike = 0.0
) -> NetworkKernels:
    r"""Both kernels after one more hidden layer: a nonlinearity and a dense layer.

    .. math::
        K^{l} &= \sigma_w^2 \, T(K^{l-1}) + \sigma_b^2 \\
        \Theta^{l} &= K^{l} + \sigma_w^2 \, \Theta^{l-1} \odot \dot T(K^{l-1})

    Args:
        kernels: kernels of the pre-activations below.
        activation: phi, by name, as a function, or as its `Dual`; see `dual_activation`.
        sigma_w: scale of the weights, shape [].
        sigma_b: scale of the biases, shape [].

    Returns:
        Kernels of the next pre-activations.

    Raises:
        ValueError: if the activation's name is unknown.

    Statement: nngp.kernel_recursion.  Source: Jacot, Gabriel and Hongler 2018, Theorem 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 1.0]))
    >>> nngp.network_kernel_step(nngp.NetworkKernels(pairs, pairs.covariance), "relu", 2.0**0.5).ntk
    Array(2., dtype=float32)
    """
    dual = dual_activation(activation)
    nngp = affine_covariance(dual.kernel(kernels.nngp), sigma_w, sigma_b)
    slope = jnp.square(sigma_w) * dual.derivative(kernels.nngp)
    return NetworkKernels(nngp=nngp, ntk=nngp.covariance + slope * kernels.ntk)


def fully_connected_kernels(
    x1: Array,
    x2: Array | None = None,
    *,
    depth: int,
    sigma_w: ArrayLike,
    sigma_b: ArrayLike,
    activation: Activation,
) -> NetworkKernels:
    r"""Kernels of a fully connected network with `depth` infinitely wide hidden layers and a linear output.

    .. math:: K^0 = \Theta^0 = \sigma_w^2 \frac{\langle x, x' \rangle}{d} + \sigma_b^2

    and `depth` times `network_kernel_step`. The layers are one `lax.scan`, so that compiling does not grow with depth.

    Args:
        x1: inputs, shape [n, d].
        x2: inputs, shape [m, d]; `x1` by default.
        depth: number of hidden layers; 0 is a linear model.
        sigma_w: scale of the weights of every layer, shape [].
        sigma_b: scale of the biases of every layer, shape [].
        activation: phi, by name, as a function, or as its `Dual`; see `dual_activation`.

    Returns:
        Both kernels: `ntk` and `nngp.covariance` have shape [n, m].

    Raises:
        ValueError: if shapes disagree, `depth` is negative, or the activation's name is unknown.

    Statement: nngp.kernel_recursion.  Source: Jacot, Gabriel and Hongler 2018, Theorem 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> x = jnp.eye(2)
    >>> nngp.fully_connected_kernels(x, depth=3, sigma_w=2.0**0.5, sigma_b=0.0, activation="relu").ntk[0, 0]
    Array(4., dtype=float32)
    """
    require(depth >= 0, "`depth` must be non-negative")
    shapes(x1=(x1, "n d"), x2=(x1 if x2 is None else x2, "m d"), sigma_w=(sigma_w, ""), sigma_b=(sigma_b, ""))
    dual = dual_activation(activation)
    inputs = input_covariance(x1, x2)
    dtype = inputs.covariance.dtype
    sigma_w, sigma_b = jnp.asarray(sigma_w, dtype), jnp.asarray(sigma_b, dtype)
    first = affine_covariance(inputs, sigma_w, sigma_b)

    def layer(kernels: NetworkKernels, _) -> tuple[NetworkKernels, None]:
        return network_kernel_step(kernels, dual, sigma_w, sigma_b), None

    kernels, _ = jax.lax.scan(layer, NetworkKernels(first, first.covariance), length=depth)
    return kernels


def kernel(
    x1: Array,
    x2: Array | None = None,
    *,
    depth: int,
    sigma_w: ArrayLike,
    sigma_b: ArrayLike,
    activation: Activation,
) -> Array:
    r"""Covariance of the outputs of a random fully connected network with infinitely wide hidden layers.

    .. math:: K^0 = \sigma_w^2 \frac{\langle x, x' \rangle}{d} + \sigma_b^2, \qquad
              K^l = \sigma_w^2 \, E_{(u, v) \sim \mathcal N(0, K^{l-1})} [\phi(u) \phi(v)] + \sigma_b^2

    Args:
        x1: inputs, shape [n, d].
        x2: inputs, shape [m, d]; `x1` by default.
        depth: number of hidden layers; 0 is a linear model.
        sigma_w: scale of the weights of every layer, shape [].
        sigma_b: scale of the biases of every layer, shape [].
        activation: phi, by name, as a function, or as its `Dual`; see `dual_activation`.

    Returns:
        Covariances, shape [n, m].

    Raises:
        ValueError: if shapes disagree, `depth` is negative, or the activation's name is unknown.

    Statement: nngp.clt_limit, nngp.kernel_recursion.  Source: Lee et al. 2018, Section 2.3.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.kernel(jnp.eye(2), depth=1, sigma_w=2.0**0.5, sigma_b=0.0, activation="relu").round(1)
    Array([[1. , 0.3],
           [0.3, 1. ]], dtype=float32)
    """
    kernels = fully_connected_kernels(x1, x2, depth=depth, sigma_w=sigma_w, sigma_b=sigma_b, activation=activation)
    return kernels.nngp.covariance
