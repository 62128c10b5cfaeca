"""What is done to parameters before they are used, and what their axes become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from dltheory._programs import Equation
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._layout import regroup
from dltheory.infinite_width._values import Axes, Factor, Value, Weights, join_channels

__all__ = [
    "kept_channels",
    "leaf_order",
    "made_channels",
    "move_weights",
    "paired_axes",
    "require_whole",
    "scale_weights",
]


def move_weights(equation: Equation, value: Weights, shape: tuple[int, ...]) -> Weights:
    """Weights laid out anew."""
    name = equation.name
    if name == "transpose":
        return value._replace(axes=tuple(value.axes[a] for a in equation.params["permutation"]))
    if name in {"reshape", "squeeze", "expand_dims"}:
        return value._replace(axes=tuple(map(tuple, regroup(value.axes, shape, _outer))))
    if name == "broadcast_in_dim":
        source = {d: i for i, d in enumerate(equation.params["broadcast_dimensions"])}
        return value._replace(axes=tuple(value.axes[source[d]] if d in source else () for d in range(len(shape))))
    raise UnsupportedError("there is no rule for this primitive on weights")


def _outer(label: Any, inner: int) -> tuple[int, int]:
    number, stride = label if isinstance(label, tuple) else (label, 1)
    return number, stride * inner


def scale_weights(name: str, operands: list[Value]) -> Value:
    """Weights times or divided by a number."""
    weights = [v for v in operands if isinstance(v, Weights)]
    others = [v for v in operands if isinstance(v, Known)]
    if name == "neg" and len(weights) == 1:
        return weights[0]._replace(scale=Known.apply(jnp.negative, weights[0].scale))
    if len(weights) == 1 and len(others) == 1 and others[0].is_scalar:
        number = Known.apply(lambda a: jnp.reshape(a, ()), others[0])
        if name == "mul":
            return weights[0]._replace(scale=weights[0].scale * number)
        if name == "div" and isinstance(operands[0], Weights):
            return weights[0]._replace(scale=Known.apply(jnp.divide, weights[0].scale, number))
        if name in {"add", "sub"} and others[0].is_number(0.0):
            first = name == "add" or isinstance(operands[0], Weights)
            return weights[0] if first else scale_weights("neg", [weights[0]])
    raise UnsupportedError("weights are combined entry by entry with something other than a number")


def leaf_order(factor: tuple[Any, int]) -> tuple[int, int]:
    """Sorts parts of the axes of a leaf in the order in which they are in it."""
    number, stride = factor[0] if isinstance(factor[0], tuple) else (factor[0], 1)
    return number, -stride


def made_channels(weights: Weights, axes: Sequence[int]) -> list[tuple[Factor, ...]]:
    """The channels that axes of weights become."""
    stride, strides = 1, {}
    for factor in sorted((f for a in axes for f in weights.axes[a]), key=leaf_order, reverse=True):
        strides[factor] = stride
        stride *= factor[1]
    return [join_channels([Factor(True, f[1], strides[f]) for f in weights.axes[a]]) for a in axes]


def kept_channels(axes: Axes, channels: Sequence[Factor], width: int) -> Axes:
    """Axes of which some channels are kept, each of them now so many channels wide."""
    strides = {}
    for f in sorted(channels, key=lambda f: f.stride):
        strides[f] = width
        width *= f.size
    return tuple(tuple(f._replace(stride=strides.get(f, f.stride)) for f in axis) for axis in axes)


def paired_axes(weights: Weights, axes: Sequence[int], others: Sequence[int]) -> tuple[list, list[int]]:
    """The parts of a leaf that axes of weights are, and the axes that these are paired with, in the leaf's order."""
    pairs = sorted(([leaf_order(f) for f in weights.axes[a]], a, b) for a, b in zip(axes, others, strict=True))
    return [weights.axes[a] for _, a, _ in pairs if weights.axes[a]], [b for *_, b in pairs]


def require_whole(weights: Weights, shape: tuple[int, ...], axes: Sequence[int]) -> None:
    """Demands that weights are not copied along an axis."""
    if any(weights.size(a) != shape[a] for a in axes):
        raise UnsupportedError("copies of the same weights along an axis depend on each other")
