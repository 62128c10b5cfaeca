"""Random networks of finite width, in NumPy, and the kernel of one of them in the limit."""

from __future__ import annotations

import jax
import numpy as np

from dltheory import nngp

__all__ = ["INPUTS", "conditional_layers", "gram", "relu_kernel"]

INPUTS = np.array([[1.0, 0.2, -0.5], [0.3, -0.8, 0.6], [-0.4, 0.9, 1.1]])


@jax.jit
def relu_kernel(x, sigma_w):
    """Kernel of a ReLU network with one hidden layer and without biases."""
    return nngp.kernel(x, depth=1, sigma_w=sigma_w, sigma_b=0.0, activation="relu")


def gram(x: np.ndarray) -> np.ndarray:
    """Mean products of the inputs' coordinates."""
    return x @ x.T / x.shape[1]


def conditional_layers(rng, x, activation, *, width, networks, depth, sigma_w, sigma_b=0.0):
    """Mean products of pre-activations over the units of each layer, [networks, depth + 1, n, n], layer 0 exactly.

    Given the layer below, the units of a layer with Gaussian weights are independent Gaussian vectors whose covariance
    is the mean product of the features below: drawing those is drawing the network, without its weights.
    """
    n = len(x)
    covariance = np.broadcast_to(sigma_w**2 * gram(x) + sigma_b**2, (networks, n, n))
    layers = [covariance]
    for _ in range(depth):
        roots = np.linalg.cholesky(covariance + 1e-12 * np.eye(n))
        units = rng.normal(size=(networks, width, n)) @ np.swapaxes(roots, 1, 2)
        features = activation(units)
        covariance = sigma_w**2 * np.swapaxes(features, 1, 2) @ features / width + sigma_b**2
        layers.append(covariance)
    return np.stack(layers, axis=1)
