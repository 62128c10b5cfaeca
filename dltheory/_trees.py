"""Vector-space operations on pytrees that `optax.tree` does not have."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from dltheory._numerics import safe_norm
from dltheory.typing import Array, PRNGKey, PyTree

__all__ = ["tree_norm", "tree_normal_like", "tree_unit"]


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
