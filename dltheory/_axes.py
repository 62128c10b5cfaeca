"""Which axes of a program's values keep the entries of an input apart.

Following an axis answers two questions about a network: does row i of the outputs depend on row i of the inputs alone,
and does a channel reach the outputs only through itself.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping

from dltheory._programs import Atom, Constant, Equation, Program

__all__ = ["ELEMENTWISE", "Lost", "follow_axis", "step_axis"]


class Lost(enum.Enum):
    """Why there is no axis that keeps the entries apart."""

    MIXED = "entries are combined"
    UNKNOWN = "no rule says what becomes of the axis"


Axis = int | Lost

# Each entry of the output depends on one entry of each input.
_ONE_BY_ONE = """
abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp convert_element_type copy cos cosh digamma
div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le lgamma log log1p logistic lt max min mul
ne neg nextafter not or pow real reduce_precision rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub
tan tanh xor
"""
ELEMENTWISE = frozenset(_ONE_BY_ONE.split())
_REDUCTIONS = "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin"
_ALONG_ONE_AXIS = "cumsum cumprod cummax cummin cumlogsumexp"


def follow_axis(program: Program, start: Mapping[int, int]) -> tuple[dict[int, Axis], Equation | None]:
    """Follows axes of some values through a program.

    Args:
        program: the program.
        start: the axis to follow, of each number that has it.

    Returns:
        For every number that depends on those in `start` the axis along which its entries depend on theirs one by one,
        or why there is none; and the first equation that combines entries.

    >>> from dltheory._programs import trace
    >>> import jax.numpy as jnp
    >>> program, _ = trace(lambda x: jnp.tanh(x).sum(1), jnp.ones((2, 3)))
    >>> axes, mixing = follow_axis(program, {program.inputs[0]: 0})
    >>> axes[program.outputs[0]], mixing
    (0, None)
    """
    axes: dict[int, Axis] = dict(start)
    mixing = None
    for equation in program.equations:
        held = {i: axes[atom] for i, atom in enumerate(equation.inputs) if isinstance(atom, int) and atom in axes}
        if not held:
            continue
        found = step_axis(program, equation, held)
        if mixing is None and Lost.MIXED in found and Lost.MIXED not in held.values():
            mixing = equation
        axes |= {number: axis for number, axis in zip(equation.outputs, found, strict=True) if axis is not None}
    return axes, mixing


def step_axis(program: Program, equation: Equation, held: Mapping[int, Axis]) -> list[Axis | None]:
    """What one equation makes of the axes of its inputs, by position; None where an output does not depend on them."""
    lost = [axis for axis in held.values() if isinstance(axis, Lost)]
    if lost:
        return [Lost.MIXED if Lost.MIXED in lost else Lost.UNKNOWN] * len(equation.outputs)
    axes = {position: axis for position, axis in held.items() if isinstance(axis, int)}
    if equation.name == "scan":
        return _scan(equation, axes)
    if equation.name in {"custom_jvp_call", "custom_vjp_call"} and equation.body is not None:
        return _call(equation.body, axes)
    shapes = [program.shape(atom) for atom in equation.inputs]
    out = program.shapes[equation.outputs[0]].shape
    found = _rule(equation, axes, shapes, out)
    found = found if isinstance(found, Lost) else int(found)  # JAX writes some axes as NumPy integers, e.g. under vmap
    return [found] * len(equation.outputs)


def _rule(equation: Equation, axes: Mapping[int, int], shapes: list[tuple[int, ...]], out: tuple[int, ...]) -> Axis:
    """The axis of the output of an equation with one output, or several alike."""
    name, params = equation.name, equation.params
    position, axis = next(iter(axes.items()))
    shape = shapes[position]
    if name in ELEMENTWISE:
        same = len(set(axes.values())) == 1 and len(shape) == len(out) and all(
            shapes[i][axis] == out[axis] for i in axes
        )
        return axis if same else Lost.UNKNOWN
    if name == "dot_general":
        return _product(params, axes, shapes)
    if name == "conv_general_dilated":
        return _convolution(params, axes)
    if name == "concatenate":
        return axis if len(set(axes.values())) == 1 and params["dimension"] != axis else Lost.UNKNOWN
    if len(axes) > 1:
        return Lost.UNKNOWN
    if name in _REDUCTIONS.split():
        reduced = tuple(params["axes"])
        return Lost.MIXED if axis in reduced else axis - sum(a < axis for a in reduced)
    if name in _ALONG_ONE_AXIS.split():
        return Lost.MIXED if params["axis"] == axis else axis
    if name == "gather":
        numbers = params["dimension_numbers"]
        if position == 0 and axis in numbers.start_index_map and params["slice_sizes"][axis] < shape[axis]:
            return Lost.MIXED
        batch = [a for a in range(len(out)) if a not in numbers.offset_dims]
        return batch[axis] if position == 1 and axis < len(batch) else Lost.UNKNOWN
    if name == "transpose":
        return params["permutation"].index(axis)
    if name == "reshape":
        return _reshaped(shape, axis, out)
    if name == "squeeze":
        return Lost.UNKNOWN if axis in params["dimensions"] else axis - sum(a < axis for a in params["dimensions"])
    if name == "broadcast_in_dim":
        moved = params["broadcast_dimensions"][axis]
        return moved if out[moved] == shape[axis] else Lost.UNKNOWN
    if name in {"slice", "rev", "pad", "split", "dynamic_slice", "sort"} or name.startswith("reduce_window"):
        if position == 0 and _untouched(name, params, axis, shape, out):
            return axis
        return Lost.UNKNOWN if position > 0 or name == "pad" else Lost.MIXED
    return Lost.UNKNOWN


def _product(params: Mapping, axes: Mapping[int, int], shapes: list[tuple[int, ...]]) -> Axis:
    """The axis of a matrix product: batch axes come first, then the free axes of the left, then those of the right."""
    contract, batch = params["dimension_numbers"]
    if any(axis in contract[position] for position, axis in axes.items()):
        return Lost.MIXED
    found = set()
    for position, axis in axes.items():
        if axis in batch[position]:
            found.add(tuple(batch[position]).index(axis))
            continue
        free = [
            [a for a in range(len(shapes[side])) if a not in contract[side] and a not in batch[side]] for side in (0, 1)
        ]
        found.add(len(batch[0]) + (len(free[0]) if position == 1 else 0) + free[position].index(axis))
    return found.pop() if len(found) == 1 else Lost.MIXED


def _convolution(params: Mapping, axes: Mapping[int, int]) -> Axis:
    """The axis of a convolution: that of its images; what was mapped over filters may be its groups or its channels."""
    numbers, groups = params["dimension_numbers"], params["batch_group_count"]
    if axes == {0: numbers.lhs_spec[0]} and groups == 1:
        return numbers.out_spec[0]
    mapped = groups > 1 or params["feature_group_count"] > 1 or axes == {1: numbers.rhs_spec[0]}
    return Lost.UNKNOWN if mapped else Lost.MIXED


def _reshaped(shape: tuple[int, ...], axis: int, out: tuple[int, ...]) -> Axis:
    """Where a reshape leaves an axis, if it leaves it alone."""
    before = math.prod(shape[:axis])
    for candidate, size in enumerate(out):
        if size == shape[axis] and math.prod(out[:candidate]) == before:
            return candidate
    return Lost.UNKNOWN


def _untouched(name: str, params: Mapping, axis: int, shape: tuple[int, ...], out: tuple[int, ...]) -> bool:
    """Whether an equation that works along some axes leaves this one alone."""
    if name == "rev":
        return axis not in params["dimensions"]
    if name == "sort":
        return params["dimension"] != axis
    if name == "split":
        return params["axis"] != axis
    if name == "pad":
        return tuple(params["padding_config"][axis]) == (0, 0, 0)
    if name.startswith("reduce_window"):
        return params["window_dimensions"][axis] == params["window_strides"][axis] == 1 and shape[axis] == out[axis]
    return shape[axis] == out[axis]  # a slice of the whole


def _call(body: Program, axes: Mapping[int, int]) -> list[Axis | None]:
    """The axes of the outputs of a function."""
    followed, _ = follow_axis(body, {body.inputs[position]: axis for position, axis in axes.items()})
    return [_at(followed, atom) for atom in body.outputs]


def _scan(equation: Equation, axes: Mapping[int, int]) -> list[Axis | None]:
    """The axes after a scan: the steps hand theirs on in the carry, the axis of the steps comes first in slices."""
    body = equation.body
    assert body is not None
    first, second = equation.carry
    if any(axis == 0 for position, axis in axes.items() if position >= second):
        return [Lost.UNKNOWN] * len(equation.outputs)
    inner = {position: axis - 1 if position >= second else axis for position, axis in axes.items()}
    while True:
        found = _call(body, inner)
        carried = dict(enumerate(found[: second - first], start=first))
        if any(isinstance(axis, Lost) for axis in carried.values()):
            lost = Lost.MIXED if Lost.MIXED in carried.values() else Lost.UNKNOWN
            return [lost] * len(equation.outputs)
        new = {position: axis for position, axis in carried.items() if isinstance(axis, int) and position not in inner}
        if not new:
            break
        inner |= new
    if any(inner[position] != axis for position, axis in carried.items() if axis is not None):
        return [Lost.UNKNOWN] * len(equation.outputs)
    slices = [axis + 1 if isinstance(axis, int) else axis for axis in found[second - first :]]
    return [*(inner.get(position) for position in range(first, second)), *slices]


def _at(axes: Mapping[int, Axis], atom: Atom) -> Axis | None:
    return None if isinstance(atom, Constant) else axes.get(atom)
