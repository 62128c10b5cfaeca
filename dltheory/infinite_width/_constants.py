"""Equations whose operands are all known."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from dltheory._axes import ELEMENTWISE
from dltheory._programs import Atom as Operand
from dltheory._programs import Constant, Equation, Program
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._layout import regroup
from dltheory.typing import Array

__all__ = ["evaluate_known"]


def evaluate_known(program: Program, equation: Equation, operands: list[Known]) -> list[Known]:
    """Evaluates what is known, keeping axes of size 1 where a value is constant."""
    name, params = equation.name, equation.params
    shape = program.shapes[equation.outputs[0]].shape
    rank = len(shape)
    bind = equation.primitive.get_bind_params(params)
    operands = [_as_written(program, atom, value) for atom, value in zip(equation.inputs, operands, strict=True)]
    if name in ELEMENTWISE:

        def fn(*arrays: Array) -> Array:
            size = np.broadcast_shapes(*(np.shape(a) for a in arrays))
            size = (1,) * (rank - len(size)) + size
            return equation.primitive.bind(*(jnp.broadcast_to(jnp.asarray(a), size) for a in arrays), **bind)

        return [Known.apply(fn, *operands)]
    if name == "broadcast_in_dim" and len(operands) == 1:
        source = params["broadcast_dimensions"]

        def widen(array: Array) -> Array:
            size = [1] * rank
            for i, d in enumerate(source):
                size[d] = array.shape[i]
            return jnp.reshape(array, size)

        return [Known.apply(widen, operands[0])]
    if name in {"reshape", "squeeze", "expand_dims"}:
        whole = program.shape(equation.inputs[0])
        actual = operands[0].shape
        axes = [((a == w, w),) if w > 1 else () for a, w in zip(actual, whole, strict=True)]
        try:
            regrouped = regroup(axes, shape)
        except UnsupportedError:
            regrouped = None
        if regrouped is not None and all(len({flag for flag, _ in axis}) <= 1 for axis in regrouped):
            size = [math.prod(n for flag, n in axis if flag) for axis in regrouped]
            return [Known.apply(lambda a: jnp.reshape(a, size), operands[0])]
    if name == "transpose":
        return [Known.apply(lambda a: jnp.transpose(a, params["permutation"]), operands[0])]
    shapes = [program.shape(atom) for atom in equation.inputs]
    if name in {"reduce_sum", "reduce_max", "reduce_min"}:
        sizes = zip(shapes[0], operands[0].shape, strict=True)
        shapes = [tuple(whole if a in params["axes"] else size for a, (whole, size) in enumerate(sizes))]
    results: dict[int, Known] = {}
    count = len(equation.outputs)

    def run(*arrays: Array) -> Any:
        whole = [jnp.broadcast_to(jnp.asarray(a), s) for a, s in zip(arrays, shapes, strict=True)]
        out = equation.primitive.bind(*whole, **bind)
        return tuple(out) if equation.primitive.multiple_results else (out,)

    for i in range(count):
        results[i] = Known.apply(lambda *arrays, i=i: run(*arrays)[i], *operands)
    return [results[i] for i in range(count)]


def _as_written(program: Program, atom: Operand, value: Known) -> Known:
    """A value in the floating-point type that it has in the program."""
    if isinstance(atom, Constant):
        return value
    dtype = program.shapes[atom].dtype
    if value.arrays[0].dtype == dtype or not jnp.issubdtype(dtype, jnp.floating):
        return value
    return Known(tuple(array.astype(dtype) for array in value.arrays), value.batched)
