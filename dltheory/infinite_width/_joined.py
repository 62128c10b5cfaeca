"""Weights side by side, of which every part acts as if it were alone.

Layers that share their inputs are often one product with their weights side by side, which is then taken apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from dltheory._axes import ELEMENTWISE
from dltheory._programs import Equation, Program
from dltheory.infinite_width._beside import beside
from dltheory.infinite_width._context import Context
from dltheory.infinite_width._entries import elementwise
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._layout import slice_axis
from dltheory.infinite_width._products import dot_general
from dltheory.infinite_width._values import Joined, Random, Value, Weights
from dltheory.infinite_width._weights import move_weights

__all__ = ["join", "joined"]


def join(equation: Equation, parts: Sequence[Weights]) -> Joined:
    """Weights side by side along an axis that they have."""
    axis = equation.params.get("dimension")
    if axis is None or any(not part.axes[axis] for part in parts):
        raise UnsupportedError("weights side by side along a new axis, or one of size 1, have no rule")
    return Joined(axis, tuple(parts))


def joined(context: Context, program: Program, equation: Equation, operands: Sequence[Value]) -> list[Value]:
    """An equation one of whose operands is several weights side by side."""
    name = equation.name
    places = [i for i, value in enumerate(operands) if isinstance(value, Joined)]
    (place, *more) = places
    whole = operands[place]
    assert isinstance(whole, Joined)
    shape = program.shapes[equation.outputs[0]].shape
    if more:
        raise UnsupportedError("weights side by side are combined with others, which has no rule")
    if len(operands) == 1 and name in {"convert_element_type", "copy", "reduce_precision"}:
        return [whole]
    if name in {"split", "slice"}:
        return _parts(equation, whole)
    if name in {"reshape", "squeeze", "expand_dims", "broadcast_in_dim", "transpose"}:
        axis = _moved_axis(program, equation, whole.axis)
        parts = [move_weights(equation, part, _with_size(shape, axis, size)) for part, size in _sized(whole)]
        return [Joined(axis, tuple(parts))]
    if name == "dot_general":
        axis = _made_axis(program, equation, place, whole.axis)

        def product(part: Weights, start: int, stop: int) -> Value:
            resized = _resized(program, {equation.inputs[place]: (whole.axis, stop - start)})
            return dot_general(context, resized, equation, [part if i == place else v for i, v in enumerate(operands)])

        return [_beside(axis, whole, product)]
    if name in ELEMENTWISE and len(operands) == 2:
        other, axis = operands[1 - place], whole.axis

        def entries(part: Weights, start: int, stop: int) -> Value:
            own = slice_axis(other, axis, start, stop) if isinstance(other, Random) else other
            pair: list[Value] = [part, part]
            pair[1 - place] = own
            return elementwise(context, equation, pair)

        return [_beside(axis, whole, entries)]
    raise UnsupportedError("there is no rule for this primitive on weights side by side")


def _sized(whole: Joined) -> list[tuple[Weights, int]]:
    return [(part, part.size(whole.axis)) for part in whole.parts]


def _beside(axis: int, whole: Joined, function: Callable[[Weights, int, int], Value]) -> Value:
    """What a function makes of every part, from a first to a last entry, side by side."""
    ends = [0, *itertools.accumulate(size for _, size in _sized(whole))]
    values = [function(part, *where) for part, where in zip(whole.parts, itertools.pairwise(ends), strict=True)]
    if all(isinstance(value, Weights) for value in values):
        return whole._replace(parts=tuple(values))  # pyright: ignore[reportArgumentType]
    if all(isinstance(value, Known) and value.is_number(0.0) for value in values):
        return values[0]
    random = [value for value in values if isinstance(value, Random)]
    if len(random) < len(values):
        raise UnsupportedError("known and random channels side by side have no rule")
    return beside(axis, random)


def _parts(equation: Equation, whole: Joined) -> list[Value]:
    """The parts that something is cut into."""
    ends = [0, *itertools.accumulate(size for _, size in _sized(whole))]
    if equation.name == "split":
        cuts = itertools.pairwise([0, *itertools.accumulate(equation.params["sizes"])])
        along = equation.params["axis"]
    else:
        starts, stops = equation.params["start_indices"], equation.params["limit_indices"]
        cuts, along = [(starts[whole.axis], stops[whole.axis])], whole.axis
        sizes = [ends[-1] if a == along else whole.parts[0].size(a) for a in range(len(starts))]
        full = all((starts[a], stops[a]) == (0, size) for a, size in enumerate(sizes) if a != along)
        along = along if full and equation.params["strides"] in (None, (1,) * len(starts)) else -1
    pieces = dict(zip(itertools.pairwise(ends), whole.parts, strict=True))
    found = [pieces.get((start, stop)) for start, stop in cuts]
    if along != whole.axis or any(part is None for part in found):
        raise UnsupportedError("weights side by side are taken apart in another way than they were put together")
    return [part for part in found if part is not None]


def _moved_axis(program: Program, equation: Equation, axis: int) -> int:
    """Where an axis is after the others have been moved, or axes of size 1 put in between."""
    before, after = program.shape(equation.inputs[0]), program.shapes[equation.outputs[0]].shape
    if equation.name == "transpose":
        return equation.params["permutation"].index(axis)
    if equation.name == "broadcast_in_dim":
        return equation.params["broadcast_dimensions"][axis]
    if [n for n in before if n > 1] != [n for n in after if n > 1]:
        raise UnsupportedError("weights side by side are reshaped")
    return int(np.flatnonzero(np.array(after) > 1)[sum(n > 1 for n in before[:axis])])


def _made_axis(program: Program, equation: Equation, place: int, axis: int) -> int:
    """The axis of a product that one of the weights becomes."""
    contract, batch = equation.params["dimension_numbers"]
    free = [
        [a for a in range(len(program.shape(atom))) if a not in contract[i] and a not in batch[i]]
        for i, atom in enumerate(equation.inputs)
    ]
    if axis not in free[place]:
        raise UnsupportedError("weights side by side are summed over the axis along which they are")
    return len(batch[0]) + (len(free[0]) if place else 0) + free[place].index(axis)


def _with_size(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return tuple(size if a == axis else n for a, n in enumerate(shape))


def _resized(program: Program, sizes: dict) -> Program:
    """A program in which some arrays are smaller along an axis."""
    shapes = dict(program.shapes)
    for number, (axis, size) in sizes.items():
        old = shapes[number]
        shapes[number] = jax.ShapeDtypeStruct(_with_size(old.shape, axis, size), old.dtype)
    return program._replace(shapes=shapes)
