"""Reads an infinitely wide network off its program, equation by equation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._axes import ELEMENTWISE
from dltheory._programs import Atom as Operand
from dltheory._programs import Constant, Equation, Program, evaluate
from dltheory.infinite_width._averages import reduce_sum
from dltheory.infinite_width._beside import concatenate, scan_slice, split, stack
from dltheory.infinite_width._constants import evaluate_known
from dltheory.infinite_width._context import Context, location
from dltheory.infinite_width._convolutions import convolution
from dltheory.infinite_width._copies import copy_entries, linear_map
from dltheory.infinite_width._entries import elementwise
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._joined import join, joined
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._layout import broadcast, reshape, transpose
from dltheory.infinite_width._moments import Moments
from dltheory.infinite_width._noise import draw, transform_noise
from dltheory.infinite_width._products import dot_general, lookup
from dltheory.infinite_width._totals import divide, require_limit, still_vanishing, total_of, vanish
from dltheory.infinite_width._values import Joined, Noise, Random, Total, Value, Vanishing, Weights
from dltheory.infinite_width._weights import move_weights
from dltheory.typing import Array

__all__ = ["Interpreter"]


class Interpreter:
    """Interprets programs.

    Attributes:
        context: what rules know of the network.
        drawn: the numbers of a program that are random bits of their own for every example.
    """

    def __init__(
        self,
        moments: Moments,
        variance: Callable[[Hashable, int | None], Array | float],
        drawn: Collection[int] = (),
    ) -> None:
        self.context = Context(moments, variance)
        self.drawn = drawn

    def run(self, program: Program, inputs: Sequence[Value]) -> list[Value]:
        """The outputs of a program."""
        values: dict[int, Value] = {n: Known.constant(array) for n, array in program.constants.items()}
        values |= zip(program.inputs, inputs, strict=True)

        def read(atom: Operand) -> Value:
            return Known.constant(atom.value) if isinstance(atom, Constant) else values[atom]

        for equation in program.equations:
            operands = [read(atom) for atom in equation.inputs]
            try:
                results = self.step(program, equation, operands)
            except UnsupportedError as error:
                raise error.at(location(equation)) from None
            values |= zip(equation.outputs, results, strict=True)
        return [read(atom) for atom in program.outputs]

    def step(self, program: Program, equation: Equation, operands: list[Value]) -> Sequence[Value]:
        """The outputs of one equation."""
        name = equation.name
        shape = program.shapes[equation.outputs[0]].shape
        if equation.outputs[0] in self.drawn:
            return [draw(equation, operands, shape)]
        masked = name in ELEMENTWISE and any(isinstance(v, Random) for v in operands)
        if any(isinstance(v, Noise) for v in operands) and equation.body is None and not masked:
            return [transform_noise(equation, operands, shape)]
        require_limit(equation, operands)
        known = [value for value in operands if isinstance(value, Known)]
        if len(known) == len(operands):
            vanishing = any(value.width for value in known)
            if vanishing and equation.body is not None and name != "scan":
                return self.run(equation.body, operands)
            results = evaluate_known(program, equation, known)
            return [still_vanishing(equation, known, result) for result in results] if vanishing else results
        if any(isinstance(value, Vanishing) for value in operands):
            return [vanish(program, equation, operands)]
        if equation.body is not None and name != "scan":
            _require_own_derivative(program, equation)
            return self.run(equation.body, operands)
        if name == "scan":
            return self._scan(equation, operands)
        if name == "concatenate" and all(isinstance(value, Weights) for value in operands):
            return [join(equation, operands)]  # pyright: ignore[reportArgumentType]
        if any(isinstance(value, Joined) for value in operands):
            return joined(self.context, program, equation, operands)
        if any(isinstance(value, Total) for value in operands):
            divided = divide(equation, operands)
            if divided is None:
                return [total_of(program, equation, operands)]
            operands = divided
        if name == "dot_general":
            return [dot_general(self.context, program, equation, operands)]
        if name == "conv_general_dilated":
            return [convolution(self.context, program, equation, operands)]
        if name in ELEMENTWISE:
            return [elementwise(self.context, equation, operands)]
        if name in {"concatenate", "stack"}:
            return [concatenate(self.context, equation, operands)]
        if name == "split":
            return split(equation, operands)
        (value, *others) = operands
        if name == "gather" and isinstance(value, Weights) and isinstance(others[0], Known):
            return [lookup(self.context, program, equation, value, others[0])]
        if isinstance(value, Weights):
            return [move_weights(equation, value, shape)]
        if not isinstance(value, Random) or not all(isinstance(other, Known) for other in others):
            raise UnsupportedError("no rule for operands of these kinds")
        if name in {"reshape", "squeeze", "expand_dims"}:
            return [reshape(value, shape)]
        if name == "transpose":
            return [transpose(value, equation.params["permutation"])]
        if name == "broadcast_in_dim":
            return [broadcast(value, shape, equation.params["broadcast_dimensions"])]
        if name in {"slice", "rev", "pad", "gather", "dynamic_slice"}:
            return [copy_entries(program, equation, value, others)]  # pyright: ignore[reportArgumentType]
        if name == "reduce_sum":
            return [reduce_sum(self.context, equation, value)]
        if name in {"reduce_window_sum", "cumsum"}:
            return [linear_map(equation, value, shape)]
        if name in {"reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "argmax", "argmin", "sort"}:
            raise UnsupportedError("the largest of several Gaussians has no closed form")
        raise UnsupportedError("there is no rule for this primitive")

    def _scan(self, equation: Equation, operands: list[Value]) -> list[Value]:
        first, second = equation.carry
        body, length = equation.body, equation.params["length"]
        assert body is not None
        constants, carry, stacked = operands[:first], operands[first:second], operands[second:]
        order = range(length - 1, -1, -1) if equation.params["reverse"] else range(length)
        outputs: dict[int, list[Value]] = {}
        for i in order:
            results = self.run(body, [*constants, *carry, *(scan_slice(value, i) for value in stacked)])
            carry, outputs[i] = results[: len(carry)], results[len(carry) :]
        columns = zip(*(outputs[i] for i in range(length)), strict=True)
        return [*carry, *(stack(list(column)) for column in columns)]


def _require_own_derivative(program: Program, equation: Equation) -> None:
    """Demands that a function's derivative rule agrees with the derivative of what it computes, as JAX's own do."""
    body, called = equation.body, equation.params["call_jaxpr"]
    assert body is not None
    if "/jax/_src/" in str(called.jaxpr.debug_info.func_filename).replace("\\", "/"):
        return
    rng, shapes = np.random.default_rng(0), [program.shape(atom) for atom in equation.inputs]
    dtypes = [aval.dtype for aval in called.in_avals]
    floating = [jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes]

    def by_rule(*values: Array) -> Any:
        with equation.context.manager:
            return equation.primitive.bind(*values, **equation.primitive.get_bind_params(equation.params))

    def by_program(*values: Array) -> Any:
        return evaluate(body, values)[0]

    with jax.ensure_compile_time_eval():
        values = [jnp.asarray(rng.normal(size=shape), dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]

        def gradients(fn: Callable[..., Any]) -> list[Array]:
            def of_floats(*floats: Array) -> Any:
                rest = iter(floats)
                return fn(*(next(rest) if f else v for f, v in zip(floating, values, strict=True)))

            outputs, pull_back = jax.vjp(of_floats, *(v for f, v in zip(floating, values, strict=True) if f))
            return pull_back([jnp.ones_like(output) for output in outputs])

        pairs = zip(gradients(by_rule), gradients(by_program), strict=True)
        alike = all(np.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs)
    if not alike:
        raise UnsupportedError("its derivative rule differs from the derivative of what it computes")
