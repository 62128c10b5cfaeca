"""Where functions are not smooth, read off their programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import _programs
from dltheory._numerics import safe_sqrt
from dltheory.infinite_width._elementwise import Elementwise
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.nngp._angles import safe_ratio
from dltheory.typing import Array

__all__ = ["RADIUS", "find_kinks", "switch_points"]

RADIUS = 12.0  # standard deviations beyond which nothing counts
_REACH = 50.0  # how far from zero kinks are looked for
_MOST_KINKS = 12
_COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne", "max", "min"}
_STAIRS = {"floor", "ceil", "round", "rem", "nextafter"}


def find_kinks(fn: Callable[[Array], Array]) -> tuple[tuple[float, ...], ...]:
    """Places where the function is not smooth, each with the jumps of the value and of the first two derivatives."""
    dtype = jnp.result_type(float)
    double = dtype.itemsize >= 8
    program, _ = _programs.trace(fn, jax.ShapeDtypeStruct((), dtype))
    differences = jax.jit(jax.vmap(lambda x: _switches(program, [x])))
    grid = np.linspace(-_REACH, _REACH, 4001)
    signs = np.sign(np.asarray(differences(jnp.asarray(grid, dtype))))
    if not signs.shape[1]:
        return ()
    finite = np.isfinite(signs)
    index, which = np.nonzero((signs[1:] != signs[:-1]) & finite[1:] & finite[:-1])
    few = 4 * _MOST_KINKS * max(signs.shape[1], 1)
    if len(index) > few:
        raise UnsupportedError(f"the function has more than {_MOST_KINKS} kinks")
    if not len(index):
        return ()
    low, high, start = grid[index], grid[index + 1], signs[index, which]
    size = 2 ** math.ceil(math.log2(len(index)))  # few different shapes to compile for
    for _ in range(46 if double else 20):
        middle = (low + high) / 2
        here = np.sign(np.asarray(differences(jnp.asarray(np.resize(middle, size), dtype))))
        left = here[np.arange(len(index)), which] == start
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    places = (low + high) / 2
    precision = 8 * float(jnp.finfo(dtype).eps) * np.maximum(np.abs(places), 1.0)
    rounded = np.round(places * 64) / 64 + 0.0
    places = np.where(np.abs(places - rounded) < precision, rounded, places)
    kinks: list[float] = []
    for place in sorted(float(p) for p in places):
        if not kinks or place - kinks[-1] > 4 * float(np.max(precision)):
            kinks.append(place)
    descriptions = [(kink, *_jumps(fn, kink, dtype)) for kink in kinks]
    kept = tuple(tuple(numbers) for *numbers, rough in descriptions if rough)
    if len(kept) > _MOST_KINKS:
        raise UnsupportedError(f"the function has more than {_MOST_KINKS} kinks")
    return kept


def _jumps(fn: Callable[[Array], Array], place: float, dtype: Any) -> tuple[float, float, float, bool]:
    """Jumps of the value, the slope and the second derivative (0 if within rounding), and whether there are any."""
    step = 2e-4 if jnp.dtype(dtype).itemsize >= 8 else 4e-3
    offsets = np.array([-3, -2, -1, 1, 2, 3])

    def slope(x: Array) -> Array:
        return jax.jvp(fn, (x,), (jnp.ones_like(x),))[1]

    points = jnp.asarray(place + step * offsets, dtype)
    bends = jax.jvp(slope, (points,), (jnp.ones_like(points),))[1]
    curves = [np.asarray(values, np.float64) for values in (fn(points), slope(points), bends)]
    extrapolation = np.array([-1, 3, -3, 3, -3, 1])  # from both sides, exact for parabolas
    jumps = [float(extrapolation @ d) for d in curves]
    eps = float(jnp.finfo(dtype).eps)
    scale = max(1e-30, *(float(np.max(np.abs(d))) for d in curves))
    tolerance = 64 * eps * scale * max(1.0, abs(place)) + 20 * step**3 * scale
    value, slope_jump, bend = (jump if abs(jump) > tolerance else 0.0 for jump in jumps)
    bend = bend if abs(bend) > 1e-3 * scale else 0.0
    return value, slope_jump, bend, bool(value or slope_jump or bend) or not np.isfinite(scale)


def switch_points(function: Elementwise, q: Array, params: Sequence[Array]) -> Array:
    """First and last root of the difference that every comparison of the function makes, in standard deviations.

    They move with the variance and the parameters, and their derivatives are those of implicit functions.
    """
    scalar = jax.ShapeDtypeStruct((), q.dtype)
    program, _ = _programs.trace(function.fn, *[scalar] * (1 + len(params)))

    def switches(z: Array, q: Array, *params: Array) -> Array:
        return _switches(program, [safe_sqrt(q) * z, *params])

    count = jax.eval_shape(switches, *[scalar] * (2 + len(params))).shape[0]
    if not count:
        return jnp.zeros((*q.shape, 0), q.dtype)
    grid = jnp.linspace(-8.0, 8.0, 65, dtype=q.dtype)
    steps = 50 if q.dtype.itemsize >= 8 else 24

    @jax.custom_jvp
    def roots(q: Array, *params: Array) -> Array:
        signs = jnp.sign(jax.vmap(lambda z: switches(z, q, *params))(grid))
        changes = signs[1:] != signs[:-1]
        any_change = jnp.any(changes, axis=0)
        places = jnp.stack([jnp.argmax(changes, axis=0), len(grid) - 2 - jnp.argmax(changes[::-1], axis=0)])
        low, high = grid[places], grid[places + 1]
        index = jnp.arange(count)
        start = jnp.take_along_axis(signs, places, axis=0)

        def halve(_, interval):
            low, high = interval
            middle = (low + high) / 2
            here = jax.vmap(jax.vmap(lambda z, j: jnp.sign(switches(z, q, *params)[j])), in_axes=(0, None))(
                middle, index
            )
            left = here == start
            return jnp.where(left, middle, low), jnp.where(left, high, middle)

        low, high = jax.lax.fori_loop(0, steps, halve, (low, high))
        return jnp.where(any_change[None, :], (low + high) / 2, RADIUS).reshape(-1)

    @roots.defjvp
    def _(primals, tangents):
        places = roots(*primals)

        def move(place: Array, j: Array) -> Array:
            _, change = jax.jvp(lambda *args: switches(place, *args)[j], primals, tangents)
            _, slope = jax.jvp(lambda z: switches(z, *primals)[j], (place,), (jnp.ones_like(place),))
            return -safe_ratio(change, slope)

        moves = jax.vmap(move)(places, jnp.tile(jnp.arange(count), 2))
        return places, jnp.where(places < RADIUS, moves, 0.0)

    flat = jax.vmap(roots)(q.reshape(-1), *(p.reshape(-1) for p in params))
    return flat.reshape(*q.shape, -1)


def _switches(program: _programs.Program, args: Sequence[Any]) -> Array:
    """Differences of the operands of every comparison that depends on the first argument, [comparisons]."""
    found: list[Array] = []
    _follow(program, args, [True] + [False] * (len(args) - 1), found)
    return jnp.stack(found) if found else jnp.zeros(0, jnp.result_type(args[0]))


def _follow(
    program: _programs.Program, args: Sequence[Any], varying: Sequence[bool], found: list[Array]
) -> tuple[list[Any], list[bool]]:
    values: dict[int, Any] = dict(program.constants) | dict(zip(program.inputs, args, strict=True))
    moving = {number for number, varies in zip(program.inputs, varying, strict=True) if varies}

    def varies(atom: _programs.Atom) -> bool:
        return not isinstance(atom, _programs.Constant) and atom in moving

    def read(atom: _programs.Atom) -> Any:
        return atom.value if isinstance(atom, _programs.Constant) else values[atom]

    for equation in program.equations:
        inputs = [read(atom) for atom in equation.inputs]
        flags = [varies(atom) for atom in equation.inputs]
        if equation.body is not None and equation.steps is None:
            outputs, results = _follow(equation.body, inputs, flags, found)
        else:
            if any(flags):
                _note(equation, inputs, found)
            with equation.context.manager:
                outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
            outputs = outputs if equation.primitive.multiple_results else [outputs]
            results = [any(flags)] * len(outputs)
        for number, value, flag in zip(equation.outputs, outputs, results, strict=True):
            values[number] = value
            if flag:
                moving.add(number)
    return [read(atom) for atom in program.outputs], [varies(atom) for atom in program.outputs]


def _note(equation: _programs.Equation, inputs: list[Any], found: list[Array]) -> None:
    floating = jnp.issubdtype(jnp.result_type(inputs[0]), jnp.floating)
    if equation.name == "convert_element_type" and floating:
        stairs = jnp.issubdtype(equation.params["new_dtype"], jnp.integer)
    else:
        stairs = equation.name in _STAIRS
    if stairs:
        raise UnsupportedError(f"the function has infinitely many jumps: `{equation.name}`")
    if not floating:
        return
    if equation.name in _COMPARISONS:
        found.append(inputs[0] - inputs[1])
    elif equation.name in {"abs", "sign"}:
        found.append(inputs[0])
    elif equation.name == "clamp":
        found.extend([inputs[1] - inputs[0], inputs[1] - inputs[2]])
