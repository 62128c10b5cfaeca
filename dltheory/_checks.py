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

from dltheory.typing import Array, ArrayLike

__all__ = ["require", "shapes"]

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


def require(condition: bool | Array, message: str) -> None:
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


def _brackets(sizes: object) -> str:
    return "[" + ", ".join(map(str, sizes)) + "]"  # pyright: ignore[reportArgumentType]
