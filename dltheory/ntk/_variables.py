"""What of a network's variables is differentiated, and the shapes that a network must have."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import alike, leading_axis, require
from dltheory._trees import trained_part
from dltheory.typing import ApplyFn, Array, PyTree

__all__ = ["TrainedPart", "example", "require_outputs", "same_trainable", "trainable"]


class TrainedPart(NamedTuple):
    """A network as a function of the parameters that are trained.

    Attributes:
        fn: (trained parameters, inputs) -> outputs; everything else is closed over.
        params: the trained parameters.
        rebuild: trained parameters -> variables as the network takes them.
    """

    fn: Callable[[PyTree, PyTree], Array]
    params: PyTree
    rebuild: Callable[[PyTree], PyTree]


def trainable(apply_fn: ApplyFn, params: PyTree, name: str = "params") -> TrainedPart:
    """Separates what is trained: of a mapping with the key "params" that collection, of any other tree all of it."""
    trained, rebuild = trained_part(params)
    for path, leaf in jax.tree.leaves_with_path(trained):
        dtype = jnp.result_type(leaf)
        real = jnp.issubdtype(dtype, jnp.floating)
        require(real, f"`{name}` must hold real floating-point arrays to differentiate by, {_name(path)} is {dtype}")
    require(len(jax.tree.leaves(trained)) > 0, f"`{name}` must hold at least one array")
    return TrainedPart(fn=lambda tree, x: apply_fn(rebuild(tree), x), params=trained, rebuild=rebuild)


def same_trainable(apply_fn: ApplyFn, reference: PyTree, name: str, params: PyTree, reference_name: str) -> PyTree:
    """The trained part of `params`, which must be like that of `reference`."""
    first = trainable(apply_fn, reference, reference_name).params
    second = trainable(apply_fn, params, name).params
    same = jax.tree.structure(first) == jax.tree.structure(second)
    require(same, f"`{name}` must have the structure of `{reference_name}`")
    alike(**{reference_name: first, name: second})
    return second


def require_outputs(net: TrainedPart, x: PyTree, name: str = "x") -> tuple[int, int]:
    """Demands outputs [n, k] for inputs [n, ...]; returns n and k."""
    n = leading_axis(**{name: x})
    output = jax.eval_shape(net.fn, net.params, x)
    shape = getattr(output, "shape", None)
    fits = shape is not None and len(shape) == 2 and shape[0] == n
    got = "no array" if shape is None else list(shape)
    require(fits, f"`apply_fn` must return shape [n, k] with n = {n} (from `{name}`), got {got}")
    return shape  # pyright: ignore[reportReturnType]


def example(x: PyTree) -> PyTree:
    """One input as a batch of one."""
    return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), x)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path) or "it"
