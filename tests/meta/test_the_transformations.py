"""The checks of `test_transformations` see the faults that they are for, and blame no other check."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

from dltheory._checks import shapes
from tests.cases import Case
from tests.meta import test_transformations
from tests.meta._rows import Row

X = np.array([0.5, -1.0, 2.0])
MATRIX = {"x": (np.ones((2, 2)),)}
KEY = jax.random.key(0)
PRECISIONS = [None, "default", "high", "highest", "bfloat16", "tensorfloat32", "float32"]  # more than traces of a row


def _sound(x):
    shapes(x=(x, "n"))
    return jnp.sum(jnp.tanh(x)) ** 2


def _with_slope(function: Callable, slope: Callable) -> Callable:
    """The function with the derivative `slope` (primals, tangents) declared for it."""
    declared = jax.custom_jvp(function)
    declared.defjvp(lambda primals, tangents: (function(*primals), slope(primals, tangents)))
    return declared


def _with_batching(rule: Callable) -> Callable:
    """Twice the argument, and `rule` of it when mapped."""
    doubled = jax.custom_batching.custom_vmap(lambda x: 2 * x)
    doubled.def_vmap(lambda size, batched, x: (rule(x), True))
    return doubled


def _refuse(x):
    raise NotImplementedError("no rule for mapping")


def _restless(x):
    """Leaves another setting behind than it found."""
    now = PRECISIONS.index(jax.config.jax_default_matmul_precision)  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_default_matmul_precision", PRECISIONS[(now + 1) % len(PRECISIONS)])
    return 2 * x


def _until_large(x):
    return jax.lax.while_loop(lambda y: jnp.sum(y) < 10, lambda y: y * y + 1, x)


def _refused_eagerly(x):
    return 2 * x if isinstance(x, Tracer) else _sound(x) * x


def _refused_differently(x):
    if x.ndim > 1:
        raise ValueError(f"`x` is bad: {type(x).__name__}")
    return 2 * x


def _case(call, *args, **fields) -> Case:
    return Case("faulty", args=args or (X,), call=call, **fields)


def _only_double(x):
    if x.dtype != jnp.float64:
        raise TypeError("not of this precision")
    return 2 * x


def _difference(x, y):
    return jnp.sum(jnp.sin(x - y))


def _difference_slope(primals, tangents):
    """Twice the right one, which is 0 where both arguments move alike."""
    (x, y), (dx, dy) = primals, tangents
    return 2 * jnp.sum(jnp.cos(x - y) * (dx - dy))


def _noise(key, x):
    return x * jax.random.normal(key, x.shape, x.dtype)


EAGER, TRACES, VMAP, GRAD, DTYPE, KEYS, SHAPE = (
    "jit_equals_eager",
    "jit_traces_once_and_repeats_itself",
    "vmap_equals_stack",
    "gradient_equals_finite_differences",
    "dtype_is_kept_and_float32_agrees",
    "keys_are_not_reused_and_decide_the_result",
    "wrong_shape_raises_value_error_that_names_the_argument",
)

FAULTS = {
    "none": (_case(_sound, wrong=MATRIX), None),
    "none, with a key": (_case(_noise, KEY, X, grad=(1,)), None),
    "other result when traced": (_case(lambda x: x + (1e-6 if isinstance(x, Tracer) else 0)), EAGER),
    "traced again": (_case(_restless), TRACES),
    "cannot be mapped": (_case(_with_batching(_refuse), grad=()), VMAP),
    "mapped otherwise": (_case(_with_batching(lambda x: (2 + 1e-6) * x), grad=()), VMAP),
    "mixes examples": (_case(_with_batching(lambda x: 2 * jnp.flip(x, 0)), grad=()), VMAP),
    "wrong slope": (_case(_with_slope(jnp.sin, lambda x, t: (1 + 1e-4) * jnp.cos(x[0]) * t[0])), GRAD),
    "wrong slope of a difference": (_case(_with_slope(_difference, _difference_slope), X, -X, grad=(0, 1)), GRAD),
    "no slope": (_case(_until_large), GRAD),
    "infinite slope": (_case(lambda x: jnp.sqrt(jnp.maximum(x, 0)), np.zeros(3)), GRAD),
    "always float64": (_case(lambda x: 2 * x.astype("float64")), DTYPE),
    "always float32": (_case(lambda x: jnp.round(x).astype("float32"), grad=()), DTYPE),
    "only for float64": (_case(_only_double), DTYPE),
    "cancels in float32": (_case(lambda x: (1e6 + x) ** 2 - 1e12, grad=()), DTYPE),
    "reuses a key": (_case(lambda key, x: _noise(key, x) + _noise(key, x**2), KEY, X, grad=(1,)), KEYS),
    "ignores the key": (_case(lambda key, x: _noise(jax.random.key(1), x), KEY, X, grad=(1,)), KEYS),
    "accepts a wrong shape": (_case(lambda x: 2 * x, wrong=MATRIX), SHAPE),
    "refuses a wrong shape by another name": (_case(_sound, wrong={"y": MATRIX["x"]}), SHAPE),
    "refuses a wrong shape only eagerly": (_case(_refused_eagerly, wrong=MATRIX), {EAGER, SHAPE}),
    "refuses a wrong shape in other words": (_case(_refused_differently, wrong=MATRIX), SHAPE),
}


@pytest.fixture
def settings_kept():
    before = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    yield
    jax.config.update("jax_default_matmul_precision", before)


def _fails(check, row) -> bool:
    try:
        check(row)
    except (Exception, pytest.fail.Exception):
        return True
    return False


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_its_check_alone(fault, settings_kept):
    case, blamed = FAULTS[fault]
    row = Row(case)
    failed = {check.__name__ for check in test_transformations.checks(row) if _fails(check, row)}
    assert failed == ({blamed} if isinstance(blamed, str) else blamed or set())
