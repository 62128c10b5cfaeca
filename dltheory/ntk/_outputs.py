"""The three forms of a kernel of a network with k outputs, and their common form: blocks of matrices.

=================  ======================================  ===================================  =========
kernel             meaning                                 blocks [b, rows, columns]            targets
=================  ======================================  ===================================  =========
``[n, m]``         one kernel, each output by itself       b = 1, n x m, k columns at once      [m, k], [m]
``[n, m, k]``      a kernel for each output                b = k, n x m                         [m, k]
``[n, m, k, k]``   outputs drive one another               b = 1, n k x m k                     [m, k]
=================  ======================================  ===================================  =========
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from dltheory._checks import require
from dltheory.typing import Array, ArrayLike

__all__ = [
    "as_blocks",
    "as_columns",
    "floating",
    "from_blocks",
    "from_columns",
    "kernel_pattern",
    "modes_from_columns",
    "of_outputs",
    "output_pattern",
]


def kernel_pattern(name: str, kernel: ArrayLike, rows: str = "n", columns: str = "n") -> str:
    """The pattern for `shapes` that fits the form of a kernel, which its number of axes decides."""
    ndim = jnp.ndim(kernel)
    forms = ", ".join(f"[{rows}, {columns}{outputs}]" for outputs in ("", ", k", ", k, k"))
    require(2 <= ndim <= 4, f"`{name}` must have one of the shapes {forms}, got {list(jnp.shape(kernel))}")
    return f"{rows} {columns}" + " k" * (ndim - 2)


def output_pattern(kernel: ArrayLike, y: ArrayLike, rows: str = "n") -> str:
    """The pattern of the targets: with a kernel for single outputs they may lack the axis of outputs."""
    return rows if jnp.ndim(kernel) == 2 and jnp.ndim(y) < 2 else f"{rows} k"


def as_blocks(kernel: Array) -> Array:
    """A kernel of any form as matrices [b, rows, columns]."""
    if kernel.ndim == 2:
        return kernel[None]
    if kernel.ndim == 3:
        return jnp.moveaxis(kernel, 2, 0)
    n, m, k, _ = kernel.shape
    return jnp.swapaxes(kernel, 1, 2).reshape(1, n * k, m * k)


def from_blocks(blocks: Array, ndim: int, k: int) -> Array:
    """Matrices [..., b, rows, columns] as a kernel with `ndim` axes, behind the same leading axes."""
    if ndim == 2:
        return jnp.squeeze(blocks, -3)
    if ndim == 3:
        return jnp.moveaxis(blocks, -3, -1)
    *leading, _, rows, columns = blocks.shape
    return jnp.swapaxes(blocks.reshape(*leading, rows // k, k, columns // k, k), -3, -2)


def as_columns(values: Array, ndim: int) -> Array:
    """Outputs [n, k] or [n] as columns [b, rows, c] for the blocks of a kernel with `ndim` axes."""
    if ndim == 2:
        return values.reshape(1, values.shape[0], -1)
    return values.T[:, :, None] if ndim == 3 else values.reshape(1, -1, 1)


def from_columns(columns: Array, ndim: int, outputs: tuple[int, ...]) -> Array:
    """Columns [..., b, rows, c] as outputs [..., n, *outputs], where `outputs` is (k,) or ()."""
    leading = columns.shape[:-3]
    if ndim == 3:
        return jnp.moveaxis(columns[..., 0], -2, -1)
    return columns.reshape(*leading, -1, *outputs)


def modes_from_columns(columns: Array, ndim: int, outputs: tuple[int, ...]) -> Array:
    """Columns [..., b, modes, c] in an eigenbasis: [..., n, *outputs], or [..., n k] where outputs mix."""
    if ndim == 4:
        return columns[..., 0, :, 0]
    return from_columns(columns, ndim, outputs)


def of_outputs(values: Array, ndim: int) -> Array:
    """A number for each block [b]: for each output [k] where these have their own kernels, else []."""
    return values if ndim == 3 else values[0]


def floating(*arrays: ArrayLike) -> tuple[Any, ...]:
    """The arrays in their common floating-point dtype."""
    dtype = jnp.result_type(*arrays)
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    return tuple(jnp.asarray(array, dtype) for array in arrays)
