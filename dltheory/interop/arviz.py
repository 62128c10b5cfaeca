"""Chains in the form that ArviZ reads, for its plots, summaries and comparisons of models."""

from __future__ import annotations

import importlib
import types
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dltheory.typing import PyTree

__all__ = ["to_inference_data"]

# ArviZ's names for what infos say; others keep theirs.
_NAMES = {
    "is_accepted": "accepted",
    "is_divergent": "diverging",
    "is_turning": "turning",
    "num_integration_steps": "n_steps",
    "num_trajectory_expansions": "tree_depth",
}


def to_inference_data(chains: Any, infos: Any = None, **groups: Mapping[str, Any]) -> Any:
    """Chains as ArviZ's `InferenceData`, or from its version 1 on as the `xarray.DataTree` that took its place.

    The variables of the group `posterior` are named by where they are in the position, such as
    ``params.Dense_0.kernel``; a position that is a single array is called ``x``. In `sample_stats` are the infos, under
    ArviZ's names: `acceptance_rate`, `accepted`, `diverging`, `energy`, `n_steps`, `tree_depth`, and their own where it
    has none. Of thinned chains a draw is diverging if a step that led to it was.

    Args:
        chains: what `dltheory.samplers.run` returns, or the draws alone, a pytree with leaves [c, s, ...].
        infos: how the steps went, a pytree with leaves [c, s, ...]; those of `chains` by default.
        **groups: further groups of ArviZ's, each a mapping of names to arrays, such as
            ``log_likelihood={"y": values}`` [c, s, n] and ``observed_data={"y": y}`` [n].

    Returns:
        The data, whose arrays are NumPy's.

    Raises:
        ImportError: if ArviZ is not installed; the message says how to install it.
        ValueError: if the leaves of `chains` or of `infos` do not share their two leading axes, or two of them have
            the same name.

    A helper.
    """
    library = _library()
    fields = getattr(chains, "_asdict", dict)()
    if {"positions", "infos"} <= set(fields):
        chains, infos = fields["positions"], fields["infos"] if infos is None else infos
    posterior = _named(chains, "chains")
    if not posterior:
        raise ValueError("`chains` must hold at least one array")
    data: dict[str, Mapping[str, Any]] = {"posterior": posterior}
    if stats := _named(infos, "infos"):
        data["sample_stats"] = {_NAMES.get(name, name): values for name, values in stats.items()}
        if "diverging" in data["sample_stats"]:
            data["sample_stats"]["diverging"] = data["sample_stats"]["diverging"] > 0
    leading = {values.shape[:2] for group in data.values() for values in group.values()}
    if len(leading) > 1 or any(len(shape) < 2 for shape in leading):
        raise ValueError(f"leaves of `chains` and `infos` must be [chains, draws, ...], got {sorted(leading)}")
    data |= {group: {name: np.asarray(values) for name, values in given.items()} for group, given in groups.items()}
    # Since version 1 the groups are one mapping, before they were one argument each.
    return library.from_dict(data) if _major(library) >= 1 else library.from_dict(**data)


def _library() -> types.ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the last version before 1 announces it at every import
            return importlib.import_module("arviz")
    except ImportError as error:
        raise ImportError("this needs ArviZ: pip install arviz") from error


def _major(library: types.ModuleType) -> int:
    return int(library.__version__.split(".")[0])


def _named(tree: PyTree, argument: str) -> dict[str, np.ndarray]:
    """Leaves as arrays by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator=".") or "x": np.asarray(leaf) for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError(f"two leaves of `{argument}` have the same name, among {sorted(named)}")
    return named
