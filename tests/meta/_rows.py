"""What the rows do under JAX's transformations: evaluated once, for all the checks that ask.

Compiling is nearly all that these tests cost, so a row is compiled once: one program holds the function in both
precisions, its mapped form and its gradient, and runs at every point that a check needs. The eager evaluation compiles
its operations one by one, which takes as long again; it is left to the slow tests. Both are compiled quickly, which is
enough to see what a function does under the transformations; how it does in a user's program is for the chapters' own
tests.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.cases import Case

__all__ = ["STEP", "Known", "Row", "cast", "floats", "weighted"]

SCALES = (0.95, 0.98)
STEP = 1e-5


class Known(NamedTuple):
    """The results of a row, in double precision unless said otherwise, with keys as integers.

    Attributes:
        first, again: the result under `jit`, twice.
        traces: how often the function was traced until it had run at every point.
        scaled: the results with the floating-point arguments scaled by each of SCALES.
        mapped: the results of the function mapped over the example and the scaled examples.
        gradient: of `weighted` at the example.
        direction: in which the arguments that `gradient` belongs to are moved.
        moved: multiple of STEP -> the result at the example moved by so many steps.
        rekeyed: the result under another key.
        single: the result under `jit` in single precision.
        errors: what "mapped", "gradient" or "single" raised where it could not be traced.
    """

    first: Any
    again: Any
    traces: int
    scaled: list[Any]
    mapped: Any
    gradient: Any
    direction: Any
    moved: dict[int, Any]
    rekeyed: Any
    single: Any
    errors: dict[str, Exception]


class Row:
    """One row, and its results as the checks ask for them."""

    def __init__(self, case: Case):
        self.case = case

    def __repr__(self) -> str:
        return self.case.name.removeprefix("dltheory.") + (f"-{self.case.label}" if self.case.label else "")

    @property
    def has_key(self) -> bool:
        """Whether an argument is a typed key."""
        return any(map(is_key, jax.tree.leaves(self.case.args)))

    @functools.cached_property
    def known(self) -> Known:
        """All results, computed when the first check asks."""
        with jax.enable_x64():
            return _evaluate(self.case, self.has_key)

    def eager(self) -> Any:
        """The result in double precision without `jit`."""
        with jax.enable_x64(), _unoptimized():
            return _numpy(_keys_as_integers(self.case.function)(*cast(self.case.args, jnp.float64)))


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed key."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def cast(tree: Any, dtype: Any) -> Any:
    """Floating-point leaves in `dtype`; keys, integers and truth values as they are."""

    def one(leaf):
        if is_key(leaf):
            return leaf
        array = np.asarray(leaf)
        return jnp.asarray(array.astype(dtype) if _is_float(array) else array)

    return jax.tree.map(one, tree)


def floats(tree: Any) -> list[Any]:
    """The floating-point leaves."""
    return [leaf for leaf in jax.tree.leaves(tree) if _is_float(leaf)]


def weighted(result: Any) -> Any:
    """A number that moves with every floating-point entry of a result."""
    weights = np.random.default_rng(0)
    return sum((leaf * weights.uniform(0.5, 1.5, np.shape(leaf))).sum() for leaf in map(_array, floats(result)))


def _evaluate(case: Case, has_key: bool) -> Known:
    function = _keys_as_integers(case.function)
    args = cast(case.args, jnp.float64)
    jax.eval_shape(function, *args)  # what it imports lazily may change JAX's settings, and so the trace around that

    errors: dict[str, Exception] = {}
    traces = 0

    def counted(*args):
        nonlocal traces
        traces += 1
        return function(*args)

    def attempt(part, *args):
        """A part that cannot be traced keeps its error for its own check."""
        try:
            return part(*args)
        except Exception as error:
            errors[part.__name__] = error

    def mapped(*examples):
        return jax.vmap(function)(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *examples))

    def gradient(args):
        return jax.grad(lambda *args: weighted(function(*args)), argnums=case.grad)(*args)

    def single(args):
        return function(*args)

    @functools.partial(jax.jit, compiler_options=_quick_options())
    def program(args, others, singles):
        return (
            counted(*args),
            attempt(mapped, args, *others) if case.vmap else None,
            attempt(gradient, args) if case.grad else None,
            attempt(single, singles),
        )

    def at(args):
        return _numpy(program(args, scaled, singles)[0])

    scaled = [_map_floats(lambda leaf, scale=scale: scale * leaf, args) for scale in SCALES]
    singles = cast(case.args, jnp.float32)
    first, copies, slope, low = _numpy(program(args, scaled, singles))
    generator = np.random.default_rng(1)
    direction = tuple(jax.tree.map(lambda leaf: generator.normal(size=leaf.shape), args[i]) for i in case.grad)

    def moved(steps):
        full = list(args)
        for i, along in zip(case.grad, direction, strict=True):
            full[i] = jax.tree.map(lambda leaf, d: jnp.asarray(np.asarray(leaf) + steps * STEP * d), args[i], along)
        return at(tuple(full))

    def rekeyed():
        return at(jax.tree.map(lambda leaf: jax.random.key(2**20 + 1) if is_key(leaf) else leaf, args))

    return Known(
        first=first,
        again=at(args),
        scaled=[at(others) for others in scaled],
        mapped=copies,
        gradient=slope,
        direction=direction,
        moved={steps: moved(steps) for steps in (-2, -1, 1, 2)} if case.grad else {},
        rekeyed=rekeyed() if has_key else None,
        single=low,
        traces=traces,
        errors=errors,
    )


@contextlib.contextmanager
def _unoptimized():
    """Compiles what runs eagerly without optimizing it."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


@functools.cache
def _quick_options() -> dict[str, Any]:
    """Settings under which XLA compiles several times faster, as far as this version knows them.

    They choose how machine code is emitted, not what JAX traces and lowers, which is what the transformations act on.
    """
    wanted = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
    }

    def known(name):
        try:
            jax.jit(lambda: 0, compiler_options={name: wanted[name]}).lower().compile()
        except jax.errors.JaxRuntimeError:
            return False
        return True

    return {name: wanted[name] for name in wanted if known(name)}


def _array(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _is_float(leaf: Any) -> bool:
    return not is_key(leaf) and jnp.issubdtype(_array(leaf).dtype, jnp.floating)


def _map_floats(change, tree):
    return jax.tree.map(lambda leaf: jnp.asarray(change(np.asarray(leaf))) if _is_float(leaf) else leaf, tree)


def _keys_as_integers(function):
    """The function, with typed keys in its result as integers, which can be compared."""

    def call(*args):
        return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, function(*args))

    return call


def _numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)
