"""The checks that public functions make in one line: shapes, settings, values.

A wrong shape or a wrong static setting is a `ValueError` that names the argument, the same eagerly and under `jit`.
A wrong value inside an array cannot stop a compiled program; it is checked only under `dltheory.debug.checked`.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from dltheory.typing import Array, ArrayLike, PyTree

__all__ = ["alike", "leading_axis", "require", "shapes"]

_ARRAY_TYPES = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)


def shapes(**arguments: tuple[ArrayLike, str]) -> dict[str, int]:
    """Checks the shapes of named arguments against patterns and returns the sizes that the patterns name.

    Args:
        **arguments: ``name=(array, pattern)``. A pattern is a row of sizes separated by blanks: a letter stands for the
            same size wherever it occurs, a number for itself, ``*`` for any size, a leading ``...`` for any number of
            leading axes. The empty pattern is a scalar.

    Returns:
        The size that each letter stands for.

    Raises:
        ValueError: if an argument is not an array or its shape does not fit; the message names the argument.

    >>> shapes(x=(jnp.ones((5, 3)), "n d"), mean=(jnp.zeros(3), "d"))
    {'n': 5, 'd': 3}
    >>> shapes(x=(jnp.ones((5, 3)), "n d"), mean=(jnp.zeros(4), "d"))
    Traceback (most recent call last):
    ...
    ValueError: `mean` must have shape [d] with d = 3 (from `x`), got [4]
    """
    sizes: dict[str, int] = {}
    origin: dict[str, str] = {}
    for name, (array, pattern) in arguments.items():
        symbols = pattern.split()
        if not isinstance(array, _ARRAY_TYPES):
            kind = type(array).__name__
            raise ValueError(f"`{name}` must be an array of shape {_brackets(symbols)}, got {kind}")
        actual = jnp.shape(array)
        known = dict(sizes)
        aligned = zip(reversed(symbols), reversed(actual), strict=False)  # from the right, so that `...` may lead
        for symbol, size in reversed(list(aligned)):
            if symbol.isidentifier():
                known.setdefault(symbol, size)
        try:
            chex.assert_shape(array, [_expected(symbol, known) for symbol in symbols])
        except AssertionError:
            clauses = [f"{s} = {sizes[s]} (from `{origin[s]}`)" for s in dict.fromkeys(symbols) if s in sizes]
            where = f" with {', '.join(clauses)}" if clauses else ""
            raise ValueError(f"`{name}` must have shape {_brackets(symbols)}{where}, got {_brackets(actual)}") from None
        origin |= dict.fromkeys(known.keys() - sizes.keys(), name)
        sizes = known
    return sizes


def alike(**trees: PyTree) -> None:
    """Checks that pytrees have the structure and the shapes of the first of them.

    Raises:
        ValueError: names the first tree that differs.

    >>> alike(params={"w": jnp.ones(3)}, vector={"w": jnp.ones(2)})
    Traceback (most recent call last):
    ...
    ValueError: `vector` must have the shapes of `params`, {'w': [3]}, got {'w': [2]}
    """
    (reference, first), *others = trees.items()
    wanted = _tree_shapes(first)
    for name, tree in others:
        if (got := _tree_shapes(tree)) != wanted:
            raise ValueError(f"`{name}` must have the shapes of `{reference}`, {wanted}, got {got}")


def leading_axis(**trees: PyTree) -> int:
    """Checks that all leaves of a pytree (or of several) share their leading axis, and returns its size.

    Raises:
        ValueError: names the first tree with a leaf that differs, or whose leading axis is empty.

    >>> leading_axis(points={"w": jnp.ones((5, 3)), "b": jnp.ones(5)})
    5
    """
    sizes: set[int] = set()
    for name, tree in trees.items():
        leaves = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
        sizes |= {shape[0] if shape else 0 for shape in leaves}
        if len(sizes) != 1 or 0 in sizes:
            got = ", ".join(map(_brackets, leaves))
            raise ValueError(f"leaves of `{name}` must share one leading axis of at least 1, got shapes {got}")
    return sizes.pop()


def require(condition: bool | np.bool_ | Array, message: str) -> None:
    """Demands a condition on a setting: at once if it is a Python truth value, under `debug.checked` if it is an array.

    Args:
        condition: a Python or NumPy truth value (a static setting), or a boolean JAX array of any shape (a value).
        message: the demand, with the argument's name in backquotes.

    Raises:
        ValueError: if a static condition is false.

    >>> require(0.9 < 1, "`momentum` must be below 1")
    """
    if isinstance(condition, bool | np.bool_):
        if not condition:
            raise ValueError(message)
    else:
        # `debug_check` formats its message; braces of the caller are meant literally.
        checkify.debug_check(jnp.all(condition), message.replace("{", "{{").replace("}", "}}"))


def _expected(symbol: str, sizes: dict[str, int]) -> object:
    if symbol == "...":
        return ...
    if symbol == "*":
        return None
    return sizes.get(symbol) if symbol.isidentifier() else int(symbol)


def _tree_shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: list(jnp.shape(leaf)), tree)


def _brackets(sizes: object) -> str:
    return "[" + ", ".join(map(str, sizes)) + "]"  # pyright: ignore[reportArgumentType]
