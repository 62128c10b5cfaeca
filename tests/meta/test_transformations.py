"""Every public function composes with jit, vmap and grad, keeps dtypes, and refuses wrong shapes by name."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases import Case
from tests.meta._public import cases

CASES = cases()
_STEP = 1e-5


def _id(case: Case) -> str:
    return case.name.removeprefix("dltheory.") + (f"-{case.label}" if case.label else "")


def _where(**conditions: bool):
    """The rows whose fields have the given truth values."""
    return [case for case in CASES if all(bool(getattr(case, field)) == value for field, value in conditions.items())]


def _rows(rows: list[Case]):
    return pytest.mark.parametrize("case", rows, ids=_id)


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _has_key(case: Case) -> bool:
    return any(map(_is_key, jax.tree.leaves(case.args)))


def _cast(tree, dtype):
    """Floating-point leaves in `dtype`; keys, integers and truth values as they are."""

    def cast(leaf):
        if _is_key(leaf):
            return leaf
        array = np.asarray(leaf)
        return jnp.asarray(array, dtype) if np.issubdtype(array.dtype, np.floating) else jnp.asarray(array)

    return jax.tree.map(cast, tree)


def _floats(tree) -> list[jax.Array]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)]


def _plain(tree):
    """Typed keys as integers, so that results can be compared."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


@_rows(_where(jit=True))
def test_jit_equals_eager_and_traces_once(case: Case, x64):
    args = _cast(case.args, jnp.float64)
    # Eagerly first: what a function imports lazily may change JAX's settings, and so the trace around that import.
    eager = case.function(*args)
    chex.clear_trace_counter()  # it counts by source line, and rows may share one
    jitted = jax.jit(chex.assert_max_traces(case.function, n=1))
    first = jitted(*args)
    chex.assert_trees_all_close(_plain(jitted(*args)), _plain(first), rtol=0, atol=0)
    chex.assert_trees_all_close(_plain(first), _plain(eager), rtol=1e-9, atol=1e-12)


@_rows([case for case in _where(jit=True) if case.vmap])
def test_vmap_equals_stack(case: Case, x64):
    args = _cast(case.args, jnp.float64)

    def copies(leaf):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.stack([leaf, 0.95 * leaf, leaf])
        return jnp.stack([leaf, leaf, leaf])

    mapped = jax.jit(jax.vmap(case.function))(*jax.tree.map(copies, args))
    function = jax.jit(case.function)
    singles = [function(*jax.tree.map(lambda leaf, i=i: copies(leaf)[i], args)) for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(_plain, singles))
    chex.assert_trees_all_close(_plain(mapped), stacked, rtol=1e-8, atol=1e-11)


@_rows([case for case in _where(jit=True) if case.grad])
def test_gradient_equals_finite_differences(case: Case, x64):
    args = _cast(case.args, jnp.float64)

    def scalar(*differentiated):
        full = list(args)
        for position, value in zip(case.grad, differentiated, strict=True):
            full[position] = value
        outputs = _floats(case.function(*full))
        weights = np.random.default_rng(0)
        return sum(jnp.sum(out * weights.uniform(0.5, 1.5, jnp.shape(out))) for out in outputs)

    point = tuple(args[position] for position in case.grad)
    direction = jax.tree.map(lambda leaf: jnp.asarray(np.random.default_rng(1).normal(size=leaf.shape)), point)
    value_and_grad = jax.jit(jax.value_and_grad(scalar, argnums=tuple(range(len(point)))))
    _, gradient = value_and_grad(*point)
    chex.assert_tree_all_finite(gradient)
    analytic = sum(jnp.sum(g * d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True))

    def at(step):
        moved = jax.tree.map(lambda leaf, d: leaf + step * d, point, direction)
        return value_and_grad(*moved)[0]

    # Richardson's combination of two central differences: error O(step^4).
    coarse, fine = ((at(h) - at(-h)) / (2 * h) for h in (2 * _STEP, _STEP))
    numeric = (4 * fine - coarse) / 3
    assert float(analytic) == pytest.approx(float(numeric), rel=1e-5, abs=1e-7)


@_rows(_where(jit=True))
def test_dtype_is_kept_and_float32_agrees(case: Case, x64):
    double = jax.jit(case.function)(*_cast(case.args, jnp.float64))
    single = jax.jit(case.function)(*_cast(case.args, jnp.float32))
    assert {str(leaf.dtype) for leaf in _floats(double)} <= {"float64"}
    assert {str(leaf.dtype) for leaf in _floats(single)} <= {"float32"}
    if not _has_key(case):  # random draws differ between precisions
        for low, high in zip(_floats(single), _floats(double), strict=True):
            scale = float(np.max(np.abs(np.where(np.isfinite(high), high, 0)), initial=1e-3))
            np.testing.assert_allclose(low, high, rtol=case.rtol, atol=case.rtol * scale)


@_rows([case for case in CASES if _has_key(case)])
def test_keys_are_not_reused_and_decide_the_result(case: Case):
    args = _cast(case.args, jnp.float32)
    with jax.debug_key_reuse(True):
        first = jax.jit(case.function)(*args)
    other = case.function(*jax.tree.map(lambda leaf: jax.random.fold_in(leaf, 1) if _is_key(leaf) else leaf, args))
    pairs = zip(jax.tree.leaves(_plain(first)), jax.tree.leaves(_plain(other)), strict=True)
    assert not all(bool(jnp.array_equal(a, b)) for a, b in pairs), "another key gives the same result"


@_rows([case for case in CASES if case.wrong])
def test_wrong_shape_raises_value_error_that_names_the_argument(case: Case):
    for argument, wrong in case.wrong.items():
        wrong = _cast(wrong, jnp.float32)
        with pytest.raises(ValueError, match=f"`{argument}`") as eager:
            case.function(*wrong)
        if case.jit:
            with pytest.raises(ValueError, match=f"`{argument}`") as traced:
                jax.jit(case.function)(*wrong)
            assert str(eager.value) == str(traced.value)
