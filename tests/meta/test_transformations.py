"""Every public function composes with jit, vmap and grad, keeps dtypes, and refuses wrong shapes by name."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta._public import cases
from tests.meta._rows import STEP, Row, cast, floats, weighted

ROWS = [Row(case) for case in cases()]


def _traced(row: Row, part: str):
    """Raises what a part of the row's program raised while it was traced."""
    if part in row.known.errors:
        raise row.known.errors[part]


def jit_traces_once_and_repeats_itself(row: Row):
    known = row.known
    assert known.traces == 1, f"traced {known.traces} times"
    chex.assert_trees_all_close(known.again, known.first, rtol=0, atol=0)


def jit_equals_eager(row: Row):
    chex.assert_trees_all_close(row.known.first, row.eager(), rtol=1e-9, atol=1e-12)


def vmap_equals_stack(row: Row):
    known = row.known
    _traced(row, "mapped")
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), known.first, *known.scaled)
    chex.assert_trees_all_close(known.mapped, stacked, rtol=1e-8, atol=1e-11)


def gradient_equals_finite_differences(row: Row):
    known = row.known
    _traced(row, "gradient")
    chex.assert_tree_all_finite(known.gradient)
    slopes = zip(jax.tree.leaves(known.gradient), jax.tree.leaves(known.direction), strict=True)
    analytic = sum(np.sum(slope * along) for slope, along in slopes)
    # Richardson's combination of two central differences: error O(step^4).
    values = {steps: weighted(result) for steps, result in known.moved.items()}
    coarse, fine = ((values[n] - values[-n]) / (2 * n * STEP) for n in (2, 1))
    assert analytic == pytest.approx((4 * fine - coarse) / 3, rel=1e-5, abs=1e-7)


def dtype_is_kept_and_float32_agrees(row: Row):
    _traced(row, "single")
    single, double = floats(row.known.single), floats(row.known.first)
    assert {str(leaf.dtype) for leaf in double} <= {"float64"}
    assert {str(leaf.dtype) for leaf in single} <= {"float32"}
    if not row.has_key:  # random draws differ between precisions
        for low, high in zip(single, double, strict=True):
            scale = float(np.max(np.abs(np.where(np.isfinite(high), high, 0)), initial=1e-3))
            np.testing.assert_allclose(low, high, rtol=row.case.rtol, atol=row.case.rtol * scale)


def keys_are_not_reused_and_decide_the_result(row: Row):
    function = row.case.function
    with jax.debug_key_reuse(True):  # which reads the traced program; a new function, as an old one's trace is kept
        jax.jit(lambda *args: function(*args)).trace(*cast(row.case.args, jnp.float32))
    pairs = zip(jax.tree.leaves(row.known.first), jax.tree.leaves(row.known.rekeyed), strict=True)
    assert not all(np.array_equal(a, b) for a, b in pairs), "another key gives the same result"


def wrong_shape_raises_value_error_that_names_the_argument(row: Row):
    for argument, wrong in row.case.wrong.items():
        wrong = cast(wrong, jnp.float32)
        with pytest.raises(ValueError, match=f"`{argument}`") as eager:
            row.case.function(*wrong)
        if row.case.jit:
            with pytest.raises(ValueError, match=f"`{argument}`") as traced:
                jax.jit(row.case.function)(*wrong)
            assert str(eager.value) == str(traced.value)


def checks(row: Row):
    """The checks that concern a row."""
    case = row.case
    if case.jit:
        yield jit_traces_once_and_repeats_itself
        yield jit_equals_eager
        yield dtype_is_kept_and_float32_agrees
        if case.vmap:
            yield vmap_equals_stack
        if case.grad:
            yield gradient_equals_finite_differences
        if row.has_key:
            yield keys_are_not_reused_and_decide_the_result
    if case.wrong:
        yield wrong_shape_raises_value_error_that_names_the_argument


# Row by row, so that one worker has all the checks of a row and compiles it once.
@pytest.mark.parametrize(
    ("row", "check"),
    [
        pytest.param(
            row, check, id=f"{row}-{check.__name__}", marks=[pytest.mark.slow] if check is jit_equals_eager else []
        )
        for row in ROWS
        for check in checks(row)
    ],
)
def test_row(row: Row, check):
    check(row)
