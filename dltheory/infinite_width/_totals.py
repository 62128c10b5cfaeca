"""Sums over channels before they are divided by what they grow with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from dltheory._programs import Equation, Program
from dltheory.infinite_width._constants import evaluate_known
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._gaussians import Feature
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._values import Random, Total, Value, Vanishing

__all__ = ["divide", "largest_factor", "require_limit", "settle", "still_vanishing", "total_of", "vanish"]

_ROUGHLY = 1.1  # such as the width that is reduced by 1


_SMALL = 1e-3  # what is added so that nothing is divided by 0
_HOMOGENEOUS = {
    *("reshape", "squeeze", "expand_dims", "broadcast_in_dim", "transpose", "slice", "convert_element_type", "copy"),
    *("reduce_precision", "real", "neg", "abs", "reduce_sum", "reduce_max", "reduce_min"),
}


_JUMPING = {"lt", "le", "gt", "ge", "eq", "ne", "sign", "argmax", "argmin", "sort", "round", "floor", "ceil"}
_ZERO_AT_ZERO = _HOMOGENEOUS | {"square", "sqrt", "tanh", "sin", "erf", "max", "min", "add", "sub"}


_UNDIVIDED = (
    "a sum over channels grows with the width, by which it must be divided before anything else is done with it; "
    "divided by its root (as scores of attention are) it still grows"
)


def vanish(program: Program, equation: Equation, operands: list[Value]) -> Value:
    """Operations after which a sum of terms of mean 0 still vanishes, until it is divided."""
    value = next(v for v in operands if isinstance(v, Vanishing))
    others = [v for v in operands if isinstance(v, Known)]
    if equation.name in {"reshape", "squeeze", "broadcast_in_dim", "transpose", "convert_element_type", "neg"}:
        (zeros,) = evaluate_known(program, equation, [value.zeros])
        return Vanishing(value.width, zeros)
    if equation.name in {"mul", "div"} and len(others) == 1 and others[0].is_static:
        number = float(np.asarray(others[0].arrays[0]).reshape(()))
        number = 1 / number if equation.name == "div" else number
        if abs(number) * value.width <= 1.01:
            return dataclasses.replace(value.zeros, width=value.width)
    raise UnsupportedError(
        "a sum of independent terms of mean 0 over channels vanishes beside the width, by which it must be divided at "
        "once; divided by its root (as scores of attention are) it stays random, and there is no rule for what follows"
    )


def require_limit(equation: Equation, operands: Sequence[Value]) -> None:
    """Refuses what is not continuous where an average of terms of mean 0 has its limit."""
    widths = [v.width if isinstance(v, Known) else 0 for v in operands]
    if not any(widths):
        return
    name = equation.name
    itself = len(operands) == 2 and operands[0] is operands[1]  # as what looks for NaN compares
    jumps = name in _JUMPING and all(_is_small(v) for v in operands) and not itself
    singular = (name in {"div", "rem"} and widths[1]) or name in {"log", "rsqrt"}
    singular = singular or (name == "integer_pow" and equation.params["y"] < 0)
    numbers = [abs(float(v.scalar())) for v in operands if isinstance(v, Known) and v.is_static and not v.width]
    grows = name == "mul" and any(number >= 0.99 * max(widths) ** 0.5 for number in numbers)
    if jumps or singular or grows:
        raise UnsupportedError(
            "an average of independent terms of mean 0 vanishes as the width grows, but its sign and its size beside "
            "one over the root of the width stay random, and there is no rule for what follows"
        )


def still_vanishing(equation: Equation, operands: Sequence[Known], result: Known) -> Known:
    """The result of an equation, marked if it is the limit of what vanishes."""
    name = equation.name
    if name == "mul":
        vanishes = any(v.width for v in operands)
    elif name == "div":
        vanishes = bool(operands[0].width)
    else:
        vanishes = (name in _ZERO_AT_ZERO and all(_is_small(v) for v in operands)) or name == "integer_pow"
    return dataclasses.replace(result, width=max(v.width for v in operands)) if vanishes else result


def _is_small(value: Value) -> bool:
    """Whether it vanishes, or is a number as small as those that are added so that nothing is divided by 0."""
    return isinstance(value, Known) and bool(value.width or (value.is_static and abs(value.scalar()) <= _SMALL))


def largest_factor(feature: Feature) -> float:
    """The largest number by which the functions in a feature are multiplied, at most 1."""
    factors = [abs(float(term.factor.scalar())) if term.factor.is_static else 1.0 for term in feature.terms]
    return min(1.0, max(factors, default=1.0))


def settle(value: Total) -> Value:
    """What a sum is once it has been divided by what it grows with."""
    size = abs(value.factor) * value.width**value.power
    done = value.power == 0 or (size <= _ROUGHLY if value.power > 0 else size >= 1 / _ROUGHLY)
    return value.known if done else value


def divide(equation: Equation, operands: Sequence[Value]) -> list[Value] | None:
    """The operands of a division of an array by its norm."""
    powers = [v.power if isinstance(v, Total) else 0.0 for v in operands]
    if not any(isinstance(v, Random) for v in operands):
        return None
    by_norm = (equation.name == "div" and powers == [0.0, 0.5]) or (equation.name == "mul" and sum(powers) == -0.5)
    if not by_norm:
        raise UnsupportedError(_UNDIVIDED)
    return [v.known if isinstance(v, Total) else v for v in operands]


def total_of(program: Program, equation: Equation, operands: Sequence[Value]) -> Value:
    """Operations after which it is known with which power of the width a sum grows."""
    name, totals = equation.name, [v for v in operands if isinstance(v, Total)]
    others = [v for v in operands if isinstance(v, Known)]
    if len(totals) + len(others) < len(operands):
        raise UnsupportedError(_UNDIVIDED)
    numbers = [float(v.scalar()) for v in others if v.is_static]
    first = totals[0]
    known = [v.known if isinstance(v, Total) else v for v in operands]
    (result,) = evaluate_known(program, equation, known)  # pyright: ignore[reportArgumentType]
    found = first._replace(known=result, width=max(v.width for v in totals))
    if name in _HOMOGENEOUS and len(operands) == 1:
        return found
    if name in {"mul", "div"}:
        signs = (1, -1 if name == "div" else 1)
        power, factor = 0.0, 1.0
        for v, sign in zip(operands, signs, strict=True):
            if isinstance(v, Total):
                power, factor = power + sign * v.power, factor * v.factor**sign
            elif numbers:
                factor = factor * numbers[0] ** sign if numbers[0] else 0.0
        return settle(found._replace(power=power, factor=factor))
    exponents = {"sqrt": 0.5, "rsqrt": -0.5, "square": 2.0, "integer_pow": equation.params.get("y")}
    exponent = numbers[0] if name == "pow" and numbers and operands[0] is first else exponents.get(name)
    if exponent is not None:
        return settle(found._replace(power=first.power * exponent, factor=abs(first.factor) ** exponent))
    alike = all(v.power == first.power and v.factor == first.factor for v in totals)
    small = len(numbers) == len(others) and all(abs(number) <= _SMALL for number in numbers)
    if name in {"add", "add_any", "sub", "max"} and first.power > 0 and alike and small:
        return found
    raise UnsupportedError(_UNDIVIDED)
