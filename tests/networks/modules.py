"""Flax modules as two plain functions, compiled as a whole."""

from typing import Any

import flax.linen as nn
import jax

__all__ = ["init", "outputs"]


def init(module: nn.Module, x, seed: int = 0) -> Any:
    """The variables of `module`."""
    return jax.jit(module.init)(jax.random.key(seed), x)


def outputs(module: nn.Module, variables, x) -> jax.Array:
    """What `module` makes of `x`."""
    return jax.jit(module.apply)(variables, x)  # pyright: ignore[reportReturnType]
