"""How the parameters of a network are distributed at initialisation."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import jax
import numpy as np

from dltheory._checks import require
from dltheory.infinite_width._known import Known, is_concrete
from dltheory.infinite_width._param_variance import ParamVariance, given_variances, named_leaves
from dltheory.infinite_width._values import Value, Weights
from dltheory.typing import PyTree

__all__ = ["Variances"]

_INITIAL = {"scale": 1.0, "mean": 0.0, "var": 1.0}  # what libraries call variables that do not start at random
_STATISTICS = {"mean", "var"}  # which are no parameters
_DEVIATIONS = 4.5  # of a leaf's mean square from its variance, at most
_MARGIN = 5.0  # nats by which one convention must explain the values better than the other


class Variances:
    """The variance of every parameter leaf: what `kernel_fn` calls `param_variance`.

    Attributes:
        names: paths of the leaves, such as "params/Dense_0/kernel".
        leaves: the leaves, concrete or abstract.
    """

    def __init__(self, params: PyTree, param_variance: ParamVariance | None) -> None:
        named = named_leaves(params)
        self.names = [name for name, _ in named]
        self.leaves = [leaf for _, leaf in named]
        self.given = given_variances(params, param_variance)
        self.convention = param_variance if isinstance(param_variance, str) else None
        if param_variance is None:
            self.convention = self._likely()

    def _likely(self) -> str:
        """The convention that explains the values best: variances 1 / fan_in or 1."""
        gain = 0.0
        for name, leaf in zip(self.names, self.leaves, strict=True):
            if _is_value(leaf) and np.ndim(leaf) > 1 and not name.endswith("embedding"):  # its rows are not summed
                values = np.asarray(leaf, np.float64)
                square, fan_in = float(np.mean(values**2)), math.prod(values.shape[:-1])
                gain += values.size / 2 * (math.log(fan_in) - square * fan_in + square)
        if all(_is_value(leaf) for leaf in self.leaves):
            clear = abs(gain) > _MARGIN or all(math.prod(np.shape(leaf)[:-1]) == 1 for leaf in self.leaves)
            require(clear, "`param_variance` must be given: the values of `params` do not tell their variance")
        return "lecun" if gain >= 0 else "unit"

    def values(self) -> list[Value]:
        """The leaves as values of a program."""
        return [self._value(i) for i in range(len(self.leaves))]

    def _value(self, i: int) -> Value:
        leaf, name = self.leaves[i], self.names[i]
        collection, last = name.split("/")[0], name.split("/")[-1]
        fixed = "/" in name and collection != "params" and collection in {"batch_stats", "constants", "buffers"}
        if fixed or (last in _INITIAL and not (collection == "params" and last in _STATISTICS)):
            if _is_value(leaf) or not isinstance(leaf, jax.ShapeDtypeStruct):
                return Known.constant(leaf)
            require(last in _INITIAL, f"`params` must hold the values of {name}")
            return Known.constant(np.full(leaf.shape, _INITIAL[last], leaf.dtype))
        if self.given[i] is None and _is_value(leaf):
            values = np.asarray(leaf)
            drawn = values.size == 1 and values.ndim > 0 and values.ravel()[0] not in (0, 1)  # a single random weight
            if values.size and np.all(values == values.ravel()[0]) and not drawn:
                return Known.constant(values)
        axes = tuple(((a, size),) if size > 1 else () for a, size in enumerate(leaf.shape))
        return Weights(i, axes, Known.constant(np.ones(())))

    def __call__(self, leaf: Hashable, fan_in: int | None) -> Any:
        """Variance of the entries of a leaf that are summed over `fan_in` terms, or added (None)."""
        i = leaf
        while isinstance(i, tuple):
            i = i[0]
        assert isinstance(i, int)
        if self.given[i] is not None:
            return self.given[i]
        if self.convention == "unit":
            variance = 1.0
        else:
            variance = 0.0 if fan_in is None else 1 / fan_in
        self._check(i, variance)
        return variance

    def _check(self, i: int, variance: float) -> None:
        if not _is_value(self.leaves[i]):
            return
        values = np.asarray(self.leaves[i], np.float64)
        square = float(np.mean(values**2))
        require(
            abs(_deviation(square, variance, values.size)) <= _DEVIATIONS,
            f"`param_variance` must be given: {self.names[i]} has mean square {square:.3g} where {variance:.3g} is "
            f"expected ('{self.convention}')",
        )


def _deviation(square: float, variance: float, count: int) -> float:
    """Standard deviations by which a mean square is off: the cube root of chi-square is nearly normal (Wilson 1931)."""
    if variance == 0:
        return 0.0 if square == 0 else math.inf
    spread = 2 / (9 * count)
    return (math.cbrt(square / variance) - (1 - spread)) / math.sqrt(spread)


def _is_value(leaf: Any) -> bool:
    return not isinstance(leaf, jax.ShapeDtypeStruct) and is_concrete(leaf)
