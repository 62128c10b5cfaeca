"""The tangent kernel of an infinitely wide fully connected network."""

from __future__ import annotations

from dltheory.nngp.activations import Activation
from dltheory.nngp.recursion import fully_connected_kernels
from dltheory.typing import Array, ArrayLike

__all__ = ["analytic_ntk"]


def analytic_ntk(
    x1: Array,
    x2: Array | None = None,
    *,
    depth: int,
    sigma_w: ArrayLike,
    sigma_b: ArrayLike,
    activation: Activation,
) -> tuple[Array, Array]:
    r"""Gaussian-process and tangent kernel of a fully connected network with infinitely wide hidden layers.

    .. math::
        K^0 &= \Theta^0 = \sigma_w^2 \frac{\langle x, x' \rangle}{d} + \sigma_b^2 \\
        K^{l} &= \sigma_w^2 \, E[\phi(u) \phi(v)] + \sigma_b^2, \qquad (u, v) \sim \mathcal N(0, K^{l-1}) \\
        \Theta^{l} &= K^{l} + \sigma_w^2 \, \Theta^{l-1} \odot E[\phi'(u) \phi'(v)]

    The network has `depth` hidden layers and a linear output, all parameters are N(0, 1), and every layer computes
    :math:`\sigma_w W x / \sqrt{\text{fan-in}} + \sigma_b b` (NTK parametrisation).

    Args:
        x1: inputs, shape [n, d].
        x2: inputs, shape [m, d]; `x1` by default, whose equality with itself is then exact.
        depth: number of hidden layers; 0 is a linear model.
        sigma_w: scale of the weights of every layer, shape [].
        sigma_b: scale of the biases of every layer, shape [].
        activation: phi, by name ("relu", "erf", "tanh", ...), as a function, or as its `dltheory.nngp.Dual`; see
            `dltheory.nngp.dual_activation`.

    Returns:
        Covariance of the outputs K^depth and tangent kernel Theta^depth, each of shape [n, m].

    Raises:
        ValueError: if shapes disagree, `depth` is negative, or the activation's name is unknown.

    Statement: ntk.analytic_recursion, ntk.init_convergence.  Source: Jacot, Gabriel and Hongler 2018, Theorem 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> nngp, tangent = ntk.analytic_ntk(jnp.eye(2), depth=1, sigma_w=2.0**0.5, sigma_b=0.0, activation="relu")
    >>> tangent.round(1)
    Array([[2. , 0.3],
           [0.3, 2. ]], dtype=float32)
    """
    kernels = fully_connected_kernels(x1, x2, depth=depth, sigma_w=sigma_w, sigma_b=sigma_b, activation=activation)
    return kernels.nngp.covariance, kernels.ntk
