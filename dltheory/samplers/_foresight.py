"""What a step does with its key alone, split from the rest, so that it can be done for many steps at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.extend

from dltheory.typing import Array, PRNGKey

__all__ = ["foresee"]


def foresee(
    step: Callable[[PRNGKey, Any], Any], key: Any, state: Any
) -> tuple[Callable[[PRNGKey], list[Array]], Callable[[list[Array], Any], Any]]:
    """Two functions that together are `step`: what can be known before the state is, and what is left.

    A generator of random bits and what makes numbers of another law of them cost as much to start as to run when there
    are few of them, so that random numbers are best made for many steps together. Of the equations that read nothing
    but the key, those stay with the rest that also read an array of the function's (such as the examples that a
    mini-batch takes): they would be no cheaper, and larger to keep.

    Args:
        step: (key, state) -> result.
        key, state: what it is called with, or their shapes.

    Returns:
        early: key -> arrays.
        late: (arrays, state) -> result.

    >>> early, late = foresee(lambda key, x: x + jax.random.normal(key), jax.random.key(0), 1.0)
    >>> bool(late(early(jax.random.key(1)), 2.0) == 2 + jax.random.normal(jax.random.key(1)))
    True
    """
    closed, out = jax.make_jaxpr(step, return_shape=True)(key, state)
    jaxpr = closed.jaxpr
    num_keys = len(jax.tree.leaves(key))
    known = dict.fromkeys(jaxpr.invars[:num_keys])  # in order, so that the program is the same every time
    free = set()  # what nothing is read for; both parts make it for themselves
    first, second = [], []
    for equation in jaxpr.eqns:
        read = _variables(equation.invars)
        if equation.effects or not read <= known.keys() | free:
            second.append(equation)
        elif read <= free:
            free.update(equation.outvars)
            first.append(equation)
            second.append(equation)
        else:
            known |= dict.fromkeys(equation.outvars)
            first.append(equation)
    needed = {variable for equation in second for variable in _variables(equation.invars)} | _variables(jaxpr.outvars)
    handed = [variable for variable in known if variable in needed]

    def early(key):
        values = dict(zip(jaxpr.invars[:num_keys], jax.tree.leaves(key), strict=True))
        return _evaluate(first, values, handed)

    def late(arrays, state):
        values = dict(zip(handed, arrays, strict=True))
        values |= zip(jaxpr.invars[num_keys:], jax.tree.leaves(state), strict=True)
        values |= zip(jaxpr.constvars, closed.consts, strict=True)
        return jax.tree.unflatten(jax.tree.structure(out), _evaluate(second, values, jaxpr.outvars))

    return early, late


def _variables(atoms: Iterable[Any]) -> set[Any]:
    return {atom for atom in atoms if not isinstance(atom, jax.extend.core.Literal)}


def _evaluate(equations: Sequence[Any], values: dict[Any, Any], wanted: Sequence[Any]) -> list[Any]:
    def read(atom):
        return atom.val if isinstance(atom, jax.extend.core.Literal) else values[atom]

    for equation in equations:
        inputs = [read(atom) for atom in equation.invars]
        with equation.ctx.manager:
            outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
        outputs = outputs if equation.primitive.multiple_results else [outputs]
        values |= zip(equation.outvars, outputs, strict=True)
    return [read(atom) for atom in wanted]
