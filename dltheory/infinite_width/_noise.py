"""Random numbers that a network draws, such as those of dropout."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._axes import ELEMENTWISE
from dltheory._programs import Equation
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._known import Known, is_concrete
from dltheory.infinite_width._values import Noise, Value
from dltheory.typing import Array

__all__ = ["DRAWN", "draw", "transform_noise", "two_values"]

DRAWN = (
    "random numbers that a network draws have a rule only as dropout of activations, with numbers of their own for all "
    "examples and channels"
)


_BITWISE = {"bitcast_convert_type", "shift_left", "shift_right_arithmetic", "shift_right_logical"}
_GRID = 2**10


def draw(equation: Equation, operands: Sequence[Value], shape: tuple[int, ...]) -> Noise:
    """Random bits, told from others by their key."""
    (key,) = operands
    if not isinstance(key, Known) or key.batched or not is_concrete(key.arrays[0]):
        raise UnsupportedError("the key of random numbers must be known while the network is read")
    with jax.ensure_compile_time_eval():
        data = np.asarray(jax.random.key_data(key.arrays[0])).tobytes()
    bits = equation.params["bit_width"]
    return Noise((data, shape, bits), shape, bits, lambda bits: bits)


def transform_noise(equation: Equation, operands: Sequence[Value], shape: tuple[int, ...]) -> Noise:
    """An elementwise function of noise and of numbers."""
    noise = next(v for v in operands if isinstance(v, Noise))
    if equation.name == "broadcast_in_dim" and equation.params["broadcast_dimensions"] == tuple(range(len(shape))):
        return noise
    numbers = [v for v in operands if isinstance(v, Known) and v.is_static]
    if equation.name not in ELEMENTWISE | _BITWISE or len(numbers) < len(operands) - 1:
        raise UnsupportedError(DRAWN)
    params = equation.primitive.get_bind_params(equation.params)

    def fn(bits: Array) -> Array:
        arrays = [v.fn(bits) if isinstance(v, Noise) else jnp.reshape(v.arrays[0], ()) for v in operands]  # pyright: ignore
        return equation.primitive.bind(*(jnp.broadcast_to(a, bits.shape) for a in arrays), **params)

    return noise._replace(fn=fn)


def two_values(noise: Noise) -> tuple[tuple[float, float], float]:
    """The values of noise below and above a threshold of its bits, and the probability of the first."""
    first, last = 0, 2**noise.bits - 1
    values: tuple[float, float] | None = None
    while last - first > 1:
        grid = [first + (last - first) * i // _GRID for i in range(_GRID + 1)]
        with jax.ensure_compile_time_eval():
            entries = np.asarray(noise.fn(jnp.asarray(np.array(grid, f"uint{noise.bits}"))), float)
        values = values or (float(entries[0]), float(entries[-1]))
        changes = np.flatnonzero(np.diff(entries))
        if len(changes) != 1 or not np.all(np.isin(entries, values)):
            raise UnsupportedError(DRAWN)
        first, last = grid[changes[0]], grid[changes[0] + 1]
    assert values is not None
    return values, last / 2**noise.bits
