"""Names for the types that signatures use: arrays, keys, pytrees and the callables that users hand in.

Shapes in docstrings are written as ``[n, d]`` with fixed letters: n, m samples; d inputs; k outputs; h width;
l depth; t time; p parameters.
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
from jax.typing import ArrayLike

__all__ = ["ApplyFn", "Array", "ArrayLike", "KernelFn", "LogDensityFn", "ObjectiveFn", "PRNGKey", "PyTree", "Scalar"]

Array = jax.Array
PRNGKey = jax.Array
PyTree = Any
Scalar = float | Array  # a number, or an array of shape []


class ObjectiveFn(Protocol):
    """A differentiable objective f: parameters -> R."""

    def __call__(self, params: PyTree, /) -> Array:
        """Value at `params` (any pytree of arrays), shape []."""
        ...


class LogDensityFn(Protocol):
    """A log density, known up to an additive constant."""

    def __call__(self, position: PyTree, /) -> Array:
        """Log density in nats at one `position` (any pytree of arrays), shape []."""
        ...


class KernelFn(Protocol):
    """A positive semi-definite kernel between two sets of inputs."""

    def __call__(self, x1: Array, x2: Array, /) -> Array:
        """Gram matrix [n, m] of inputs `x1` [n, d] and `x2` [m, d]."""
        ...


class ApplyFn(Protocol):
    """A network: row i of the output depends on row i of the input alone."""

    def __call__(self, params: PyTree, x: Any, /) -> Any:
        """Outputs [n, k] of the network with parameters `params` at inputs `x` [n, ...], or pytrees of such."""
        ...
