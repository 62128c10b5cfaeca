"""A function as a straight-line program: what reads a network's structure off its jaxpr works on this form.

Tracing inlines everything that only groups equations (`jit`, `checkpoint`, `closed_call`) and opens the body of `scan`;
loops of unknown length, branches and functions with derivative rules of their own stay single equations. Values are
numbered, each number is written once, and the numbers of a scan's body differ from those outside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sysconfig
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp

from dltheory.typing import Array, ArrayLike, PyTree

__all__ = ["Atom", "Constant", "Equation", "Program", "evaluate", "trace"]


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """A number or array written into the program."""

    value: ArrayLike


Atom = int | Constant


class Equation(NamedTuple):
    """One primitive applied to values.

    Attributes:
        primitive: the JAX primitive.
        inputs: what it reads.
        outputs: the numbers it writes.
        params: its static parameters.
        body: of a scan the program of one step, which reads [constants, carry, slices] and writes [carry, slices]; of a
            function with a derivative of its own, what it computes.
        context: the settings it was traced under.
        source: where the user wrote it, as ``file:line (function)``.
        carry: of a scan the positions among its inputs at which its carry begins and ends.
    """

    primitive: Any
    inputs: tuple[Atom, ...]
    outputs: tuple[int, ...]
    params: dict[str, Any]
    body: Program | None
    context: Any
    source: str
    carry: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """Name of the primitive."""
        return self.primitive.name

    @property
    def steps(self) -> Program | None:
        """The body, if it is a scan's."""
        return self.body if self.name == "scan" else None


class Program(NamedTuple):
    """A straight-line program.

    Attributes:
        inputs: the numbers that its arguments, flattened, are bound to.
        constants: arrays that the function closed over, by number.
        equations: in order of evaluation; every one is needed for the outputs.
        outputs: the results, flattened.
        shapes: shape and dtype of every number, those of scan bodies included (one step's).
    """

    inputs: tuple[int, ...]
    constants: Mapping[int, ArrayLike]
    equations: tuple[Equation, ...]
    outputs: tuple[Atom, ...]
    shapes: Mapping[int, jax.ShapeDtypeStruct]

    def shape(self, atom: Atom) -> tuple[int, ...]:
        """Shape of a value."""
        return jnp.shape(atom.value) if isinstance(atom, Constant) else self.shapes[atom].shape

    def stacked_shapes(self, lengths: tuple[int, ...] = ()) -> dict[int, jax.ShapeDtypeStruct]:
        """Shape of every number over all steps of the scans around it, as `evaluate` takes shifts and gives records."""
        here = [*self.inputs, *self.constants, *(n for equation in self.equations for n in equation.outputs)]
        found = {n: jax.ShapeDtypeStruct((*lengths, *self.shapes[n].shape), self.shapes[n].dtype) for n in here}
        for equation in self.equations:
            if equation.steps is not None:
                found |= equation.steps.stacked_shapes((*lengths, equation.params["length"]))
        return found

    def numbers(self) -> Iterator[int]:
        """Every number of the program and of the bodies of its scans."""
        yield from self.inputs
        yield from self.constants
        for equation in self.equations:
            yield from equation.outputs
            if equation.steps is not None:
                yield from equation.steps.numbers()


def trace(function: Callable[..., PyTree], *args: PyTree) -> tuple[Program, PyTree]:
    """The program of `function` at arguments like `args` (arrays or `jax.ShapeDtypeStruct`), and shapes of its output.

    >>> program, out = trace(lambda x: jnp.tanh(2 * x).sum(), jnp.ones(3))
    >>> [equation.name for equation in program.equations], out.shape
    (['mul', 'tanh', 'reduce_sum'], ())
    """
    closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
    return _Reader().program(closed), out


def evaluate(
    program: Program,
    args: Sequence[ArrayLike],
    shifts: Mapping[int, Array] | None = None,
    recorded: Collection[int] = (),
) -> tuple[list[Array], dict[int, Array]]:
    """Runs a program, adding `shifts` to the numbers they are given for, and keeps the values of `recorded` numbers.

    A number in the body of a scan has one value for each step: its shift and its record carry the steps as a leading
    axis, in the order of the scan's inputs (one axis for each scan around it).

    Args:
        program: from `trace`.
        args: flattened arguments, as many as the program has inputs.
        shifts: what to add to values, by number.
        recorded: numbers whose values (after their shift) are wanted.

    Returns:
        The outputs, and the recorded values by number.

    >>> program, _ = trace(lambda x: jnp.tanh(2 * x), jnp.ones(1))
    >>> doubled, = program.equations[0].outputs
    >>> outputs, records = evaluate(program, [jnp.ones(1)], {doubled: -2 * jnp.ones(1)}, {doubled})
    >>> outputs[0].item(), records[doubled].item()
    (0.0, 0.0)
    """
    shifts = shifts or {}
    records: dict[int, Array] = {}
    values: dict[int, Any] = dict(program.constants)

    def read(atom: Atom) -> Any:
        return atom.value if isinstance(atom, Constant) else values[atom]

    def write(number: int, value: Any) -> None:
        values[number] = value = value + shifts[number] if number in shifts else value
        if number in recorded:
            records[number] = value

    for number, value in itertools.chain(program.constants.items(), zip(program.inputs, args, strict=True)):
        write(number, value)
    for equation in program.equations:
        inputs = [read(atom) for atom in equation.inputs]
        inside = set(equation.steps.numbers()) & (shifts.keys() | set(recorded)) if equation.steps else set()
        if inside:
            outputs, found = _scan(equation, inputs, {n: shifts[n] for n in inside & shifts.keys()}, inside)
            records |= {number: found[number] for number in inside & set(recorded)}
        else:
            with equation.context.manager:
                outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
            outputs = outputs if equation.primitive.multiple_results else [outputs]
        for number, value in zip(equation.outputs, outputs, strict=True):
            write(number, value)
    return [jnp.asarray(read(atom)) for atom in program.outputs], records


def _scan(
    equation: Equation, inputs: list[Any], shifts: dict[int, Array], recorded: set[int]
) -> tuple[list[Array], dict[int, Array]]:
    """A scan whose steps take their slice of the shifts and give their slice of the records."""
    body, params = equation.steps, equation.params
    assert body is not None
    first, second = equation.carry
    constants, start, slices = inputs[:first], inputs[first:second], inputs[second:]

    def step(carry, xs):
        x, shift = xs
        outputs, records = evaluate(body, [*constants, *carry, *x], shift, recorded)
        return outputs[: len(carry)], (outputs[len(carry) :], records)

    carry, (stacked, records) = jax.lax.scan(
        step, start, (slices, shifts), params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    return [*carry, *stacked], records


class _Reader:
    """Numbers the values of a jaxpr and of everything it calls."""

    def __init__(self) -> None:
        self.counter = itertools.count()
        self.shapes: dict[int, jax.ShapeDtypeStruct] = {}
        self.called_from = "unknown source"

    def number(self, variable: Any) -> int:
        new = next(self.counter)
        self.shapes[new] = jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)
        return new

    def program(self, closed: Any) -> Program:
        jaxpr = closed.jaxpr
        bound: dict[Any, Atom] = {}
        constants: dict[int, ArrayLike] = {}
        inputs = tuple(self.number(variable) for variable in jaxpr.invars)
        bound |= zip(jaxpr.invars, inputs, strict=True)
        equations: list[Equation] = []
        outputs = self.inline(jaxpr, closed.consts, bound, constants, equations)
        needed = {atom for atom in outputs if not isinstance(atom, Constant)}
        kept = []
        for equation in reversed(equations):
            if needed.intersection(equation.outputs):
                kept.append(equation)
                needed |= {atom for atom in equation.inputs if not isinstance(atom, Constant)}
        constants = {number: value for number, value in constants.items() if number in needed}
        return Program(inputs, constants, tuple(reversed(kept)), tuple(outputs), self.shapes)

    def inline(
        self,
        jaxpr: Any,
        consts: Sequence[ArrayLike],
        bound: dict[Any, Atom],
        constants: dict[int, ArrayLike],
        equations: list[Equation],
    ) -> list[Atom]:
        for variable, value in zip(jaxpr.constvars, consts, strict=True):
            bound[variable] = number = self.number(variable)
            constants[number] = value

        def read(atom: Any) -> Atom:
            return Constant(atom.val) if isinstance(atom, jax.extend.core.Literal) else bound[atom]

        for eqn in jaxpr.eqns:
            inputs = tuple(map(read, eqn.invars))
            source = _source(eqn) or self.called_from
            grouped = _grouped(eqn)
            if grouped is not None:
                called, called_consts = grouped
                arguments = dict(zip(called.invars, inputs, strict=True))
                with self._inside(source):
                    results = self.inline(called, called_consts, arguments, constants, equations)
                bound |= zip(eqn.outvars, results, strict=True)
                continue
            outputs = tuple(self.number(variable) for variable in eqn.outvars)
            bound |= zip(eqn.outvars, outputs, strict=True)
            inner = _BODIES.get(eqn.primitive.name)
            with self._inside(source):
                body = None if inner is None else self.program(eqn.params[inner])
            carry = _carry(eqn) if eqn.primitive.name == "scan" else (0, 0)
            equations.append(Equation(eqn.primitive, inputs, outputs, eqn.params, body, eqn.ctx, source, carry))
        return [read(atom) for atom in jaxpr.outvars]

    @contextlib.contextmanager
    def _inside(self, source: str) -> Iterator[None]:
        """Equations that do not know their line have that of the call."""
        before, self.called_from = self.called_from, source
        yield
        self.called_from = before


_BODIES = {"scan": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def _grouped(eqn: Any) -> tuple[Any, Sequence[ArrayLike]] | None:
    """The jaxpr and constants of an equation that only groups others."""
    if eqn.primitive.name in {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}:
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        return (inner.jaxpr, inner.consts) if isinstance(inner, jax.extend.core.ClosedJaxpr) else (inner, ())
    return None


def _carry(eqn: Any) -> tuple[int, int]:
    """Where the carry of a scan begins and ends: read off shapes, as JAX has changed how a scan says it.

    Its steps see constants and the carry as they are, slices without their leading axis.
    """
    inner = eqn.params["jaxpr"].jaxpr

    def whole(outside: Sequence[Any], inside: Sequence[Any]) -> int:
        return sum(len(o.aval.shape) == len(i.aval.shape) for o, i in zip(outside, inside, strict=True))

    end = whole(eqn.invars, inner.invars)
    return end - whole(eqn.outvars, inner.outvars), end


def _source(eqn: Any) -> str | None:
    """Where the user wrote the equation, if JAX recorded it."""
    traceback = getattr(eqn.source_info, "traceback", None)
    frames = traceback.frames if traceback is not None else ()
    for frame in frames:
        path = frame.file_name.replace("\\", "/")
        installed = "site-packages" in path
        if not any(part in path for part in _LIBRARIES) and (installed or not path.startswith(_STANDARD)):
            return f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
    return None


_LIBRARIES = ("/jax/", "/flax/", "/dltheory/")
_STANDARD = sysconfig.get_path("stdlib").replace("\\", "/")
