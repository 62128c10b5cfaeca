"""One row for every public function: how to call it, so that the meta tests can hold it to the conventions.

The rows live beside the chapter's tests, in ``tests/<chapter>/cases.py``, each as the tuple ``CASES``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

__all__ = ["Case"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to call one public function.

    Attributes:
        name: dotted name of the public function that the row is for, e.g. ``dltheory.background.entropy``.
        args: float64 example arguments (arrays or pytrees of arrays; typed keys and integers stay as they are).
        call: the function with its static settings bound; the named function itself by default. For a factory (an
            optimizer, a sampler) a function of arrays that builds it and takes a step.
        wrong: name of the argument a message must mention -> arguments of a wrong shape that must raise ValueError.
            Empty only where every shape is right (elementwise functions).
        grad: positions of arguments in which the function is differentiable at the example; () if in none.
        vmap: whether mapping over a leading axis of every argument makes sense.
        jit: whether it may be traced (False for functions that return callables or Python objects).
        rtol: largest relative difference between float32 and float64.
        label: tells several rows of one function apart.
    """

    name: str
    args: tuple[Any, ...]
    call: Callable[..., Any] | None = None
    wrong: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    grad: tuple[int, ...] = (0,)
    vmap: bool = True
    jit: bool = True
    rtol: float = 1e-4
    label: str = ""

    @property
    def function(self) -> Callable[..., Any]:
        """What the meta tests call."""
        return self.call or resolve(self.name)


def resolve(dotted: str) -> Callable[..., Any]:
    """The object with a dotted name ``package.chapter.name``."""
    module, _, attribute = dotted.rpartition(".")
    return getattr(__import__(module, fromlist=[attribute]), attribute)


def key_args(seed: int, *shapes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Standard normal float64 arrays of the given shapes."""
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    with jax.enable_x64():
        return tuple(jax.random.normal(k, shape, "float64") for k, shape in zip(keys, shapes, strict=True))
