"""The argument `param_variance`: variances of the entries of parameter leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from dltheory._checks import require
from dltheory.infinite_width._known import is_concrete
from dltheory.typing import PyTree

__all__ = ["ParamVariance", "given_variances", "named_leaves"]

ParamVariance = str | float | PyTree | Callable[[str, tuple[int, ...]], Any]


def named_leaves(params: PyTree) -> list[tuple[str, Any]]:
    """Leaves and their paths, such as "params/Dense_0/kernel"."""
    leaves = jax.tree.leaves_with_path(params, is_leaf=lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def given_variances(params: PyTree, param_variance: ParamVariance | None) -> list[Any]:
    """The variance of every leaf, None where a convention (a string, or None) has to say it."""
    named = named_leaves(params)
    if param_variance is None or isinstance(param_variance, str):
        known = param_variance in (None, "lecun", "unit")
        require(known, f"`param_variance` must be 'lecun', numbers or a function, got {param_variance!r}")
        return [None] * len(named)
    if callable(param_variance):
        variances = [param_variance(name, tuple(leaf.shape)) for name, leaf in named]
    elif isinstance(param_variance, int | float) or getattr(param_variance, "shape", None) == ():
        variances = [param_variance] * len(named)
    else:
        same = jax.tree.structure(param_variance) == jax.tree.structure(params)
        require(same, "`param_variance` must have the structure of `params`")
        variances = jax.tree.leaves(param_variance)
    for (name, _), variance in zip(named, variances, strict=True):
        _require_variance(name, variance)
    return variances


def _require_variance(name: str, variance: Any) -> None:
    if variance is None:
        return
    number = isinstance(variance, int | float) or getattr(variance, "shape", None) == ()
    require(number, f"`param_variance` must be one number for {name}, got {variance!r}")
    if is_concrete(variance):
        require(0 <= float(variance) < math.inf, f"`param_variance` must be non-negative, got {variance} for {name}")
