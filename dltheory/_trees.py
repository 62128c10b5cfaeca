"""Operations on pytrees of parameters that `optax.tree` does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from dltheory._numerics import safe_norm
from dltheory.typing import Array, PRNGKey, PyTree

__all__ = ["strongly_typed", "trained_part", "tree_norm", "tree_normal_like", "tree_unit"]


def strongly_typed(tree: PyTree) -> PyTree:
    """Leaves as arrays that keep their dtype in a loop, where weakly typed ones would be promoted.

    >>> strongly_typed(jnp.asarray(1.0)).weak_type
    False
    """

    def typed(leaf):
        array = jnp.asarray(leaf)
        return array.astype(array.dtype)

    return jax.tree.map(typed, tree)


def trained_part(params: PyTree) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """What of `params` is trained, and how to put it back among what is not.

    Of a mapping with the key "params", such as the variables of a Flax module, that collection is trained, and the
    others are constants; of any other tree, all of it.

    >>> trained, rebuild = trained_part({"params": {"w": 1.0}, "batch_stats": {"mean": 2.0}})
    >>> trained, rebuild({"w": 3.0})
    ({'w': 1.0}, {'batch_stats': {'mean': 2.0}, 'params': {'w': 3.0}})
    """
    if not (isinstance(params, Mapping) and "params" in params):
        return params, lambda trained: trained
    collections, structure = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda node: node is not params)

    def rebuild(trained):
        return structure.unflatten([trained if path[0].key == "params" else tree for path, tree in collections])

    return next(tree for path, tree in collections if path[0].key == "params"), rebuild


def tree_norm(tree: PyTree) -> Array:
    """Euclidean norm of all entries of `tree` together, shape []; zero gradient at the zero tree.

    >>> tree_norm({"a": jnp.array([3.0]), "b": jnp.array(4.0)})
    Array(5., dtype=float32)
    """
    norms = [safe_norm(leaf) for leaf in jax.tree.leaves(tree)]
    return safe_norm(jnp.stack(norms)) if norms else jnp.zeros(())


def tree_unit(tree: PyTree) -> PyTree:
    """`tree` divided by its norm, in the dtypes of its leaves; the zero tree stays zero.

    >>> tree_unit(jnp.array([0.0, 2.0]))
    Array([0., 1.], dtype=float32)
    """
    norm = tree_norm(tree)
    norm = jnp.where(norm > 0, norm, 1.0)
    return jax.tree.map(lambda leaf: (leaf / norm).astype(leaf.dtype), tree)


def tree_normal_like(key: PRNGKey, tree: PyTree) -> PyTree:
    """Independent standard normal entries with the structure, shapes and dtypes of `tree`.

    >>> tree_normal_like(jax.random.key(0), jnp.zeros(2)).shape
    (2,)
    """
    return optax.tree.random_like(key, tree, sampler=jax.random.normal)
