"""Checks of values inside compiled programs, switched on where they are wanted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from jax.experimental import checkify

__all__ = ["checked"]

P = ParamSpec("P")
R = TypeVar("R")


def checked(fn: Callable[P, R]) -> Callable[P, R]:
    """Runs `fn` with the library's value checks switched on.

    The functions of this library state what values they accept (a probability lies in [0, 1], a step size is positive).
    A compiled program cannot stop at a bad value, so those checks cost nothing and do nothing until this wrapper
    discharges them. `fn` may be jitted, but the wrapper itself must be called outside of `jit`. JAX drops checks inside
    a `lax.scan` that is differentiated in reverse mode: check such a function before differentiating it.

    Args:
        fn: any function that calls the library.

    Returns:
        The same function; calling it raises `jax.experimental.checkify.JaxRuntimeError`, which is a `ValueError`, with
        the message of the first check that failed.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> background.entropy(jnp.array([0.5, 0.75]))  # not a distribution: unchecked unless asked for
    Array(0.5623351, dtype=float32)
    >>> checked(background.entropy)(jnp.array([0.5, 0.75]))
    Traceback (most recent call last):
    ...
    jax...JaxRuntimeError: `p` must be non-negative and sum to 1 (`check` failed)
    """

    @functools.wraps(fn)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        error, result = checkify.checkify(fn, errors=checkify.user_checks)(*args, **kwargs)
        error.throw()
        return result

    return run
