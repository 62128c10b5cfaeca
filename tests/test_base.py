"""The base layer: checks of shapes and values, safe numerics, tree algebra, debug mode."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from jax.experimental import checkify

from dltheory._checks import require, shapes
from dltheory._noise import normal
from dltheory._numerics import jittered_cholesky, psd_sqrt, safe_log, safe_norm
from dltheory._trees import trained_part, tree_norm, tree_normal_like, tree_unit
from dltheory.debug import checked


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ({"x": (np.ones((5, 3)), "n d"), "y": (np.ones(3), "d")}, {"n": 5, "d": 3}),
        ({"t": (1.0, "")}, {}),
        ({"t": (2, "")}, {}),
        ({"x": (np.ones((4, 2, 3)), "... d")}, {"d": 3}),
        ({"x": (np.ones(3), "... d")}, {"d": 3}),
        ({"x": (np.ones((4, 2)), "* 2")}, {}),
        ({"x": (np.ones((0, 2)), "n d")}, {"n": 0, "d": 2}),
        ({"a": (np.ones((2, 2)), "d d")}, {"d": 2}),
    ],
)
def test_shapes_that_fit(arguments, sizes):
    assert shapes(**arguments) == sizes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"x": (np.ones((5, 3)), "n d"), "mean": (np.zeros(4), "d")},
            "`mean` must have shape [d] with d = 3 (from `x`), got [4]",
        ),
        ({"x": (np.ones(5), "n d")}, "`x` must have shape [n, d], got [5]"),
        ({"a": (np.ones((2, 3)), "d d")}, "`a` must have shape [d, d], got [2, 3]"),
        ({"t": (np.ones(1), "")}, "`t` must have shape [], got [1]"),
        ({"x": (np.ones((4, 3)), "* 2")}, "`x` must have shape [*, 2], got [4, 3]"),
        (
            {"x": (np.ones(3), "d"), "y": (np.ones((2, 4)), "... d")},
            "`y` must have shape [..., d] with d = 3 (from `x`), got [2, 4]",
        ),
        ({"x": ([1.0, 2.0], "n")}, "`x` must be an array of shape [n], got list"),
        ({"x": (None, "n")}, "`x` must be an array of shape [n], got NoneType"),
    ],
)
def test_shapes_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        shapes(**arguments)
    assert str(error.value) == message


def test_shapes_under_transformations():
    def mean(x):
        shapes(x=(x, "n"))
        return jnp.mean(x)

    for transformed, argument in (
        (jax.jit(mean), jnp.array(1.0)),
        (jax.grad(mean), jnp.array(1.0)),
        (jax.vmap(mean), jnp.ones(3)),
    ):
        with pytest.raises(ValueError, match=r"`x` must have shape \[n\], got \[\]"):
            transformed(argument)


def _root(x):
    require(x >= 0, "`x` must be non-negative, as in {x: x >= 0}")
    return jnp.sqrt(jnp.sum(x))


def test_require_refuses_a_setting_at_once():
    require(True, "fine")
    require(np.bool_(True), "fine")
    with pytest.raises(ValueError, match="`momentum` must be below 1"):
        require(1.5 < 1, "`momentum` must be below 1")
    with pytest.raises(ValueError, match="too big"):
        require(np.bool_(False), "too big")


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.vmap, lambda f: jax.jit(jax.vmap(f))])
def test_values_are_checked_only_in_debug_mode(transform):
    bad, good = jnp.array([[1.0, -3.0]]), jnp.array([[1.0, 3.0]])
    fn = transform(_root)
    fn(bad)
    with pytest.raises(ValueError, match=r"`x` must be non-negative, as in \{x: x >= 0\}") as error:
        checked(fn)(bad)
    assert isinstance(error.value, checkify.JaxRuntimeError)
    np.testing.assert_allclose(checked(fn)(good), fn(good))


@pytest.mark.parametrize(
    "fn",
    [
        jax.grad(lambda x: _root(x[0])),
        jax.hessian(lambda x: _root(x[0])),
        lambda x: jax.lax.scan(lambda total, row: (total + _root(row), None), 0.0, x)[0],
        lambda x: jax.lax.cond(x.sum() < 0, lambda x: _root(x[0]), lambda x: 0.0, x),
    ],
)
def test_checked_reaches_through_gradients_and_control_flow(fn):
    with pytest.raises(ValueError, match="`x` must be non-negative"):
        checked(fn)(jnp.array([[1.0, -3.0]]))


def test_safe_log_and_its_gradient_at_zero(x64):
    x = jnp.array([0.0, 0.5, 2.0, -1.0])
    np.testing.assert_allclose(safe_log(x), [-np.inf, np.log(0.5), np.log(2.0), -np.inf])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(safe_log)))(x), [0.0, 2.0, 0.5, 0.0])


# One program for all scales.
_norms = jax.jit(lambda x: (jax.value_and_grad(safe_norm)(x), safe_norm(x, axis=1)))


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_safe_norm_neither_overflows_nor_underflows(scale, x64):
    x = scale * np.random.default_rng(0).normal(size=(3, 4))
    expected = scale * np.linalg.norm(x / scale)
    (norm, gradient), of_rows = _norms(x)
    np.testing.assert_allclose(norm, expected, rtol=1e-14)
    np.testing.assert_allclose(gradient, x / expected, rtol=1e-13)
    rows = scale * np.linalg.norm(x / scale, axis=1)
    np.testing.assert_allclose(of_rows, rows, rtol=1e-14)


def test_safe_norm_at_zero_and_of_nothing():
    assert float(safe_norm(jnp.zeros(0))) == 0.0

    @jax.jit
    def derivatives(x):
        return safe_norm(x), jax.grad(safe_norm)(x), jax.hessian(safe_norm)(x)

    assert float(derivatives(jnp.array([1.0, -jnp.inf]))[0]) == np.inf
    assert np.isnan(derivatives(jnp.array([1.0, jnp.nan]))[0])
    _, gradient, hessian = derivatives(jnp.zeros(2))
    np.testing.assert_array_equal(gradient, np.zeros(2))
    np.testing.assert_array_equal(hessian, np.zeros((2, 2)))


def test_psd_sqrt(x64):
    factor = np.random.default_rng(0).normal(size=(5, 3))
    matrix = jnp.asarray(factor @ factor.T)  # rank 3
    root = np.asarray(jax.jit(psd_sqrt)(matrix))
    np.testing.assert_allclose(root @ root, matrix, atol=1e-12)
    np.testing.assert_allclose(root, root.T, atol=1e-12)
    assert np.linalg.eigvalsh(root).min() > -1e-7


def test_jittered_cholesky(x64):
    definite = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    jittered = jax.jit(jittered_cholesky)
    factor, jitter = jittered(definite)
    assert float(jitter) == 0.0
    np.testing.assert_allclose(factor, np.linalg.cholesky(definite))
    singular = jnp.ones((6, 6))
    factor, jitter = jittered(singular)
    assert 0 < float(jitter) < 1e-12
    np.testing.assert_allclose(factor @ factor.T, singular, atol=1e-12)
    factor, _ = jittered(-jnp.eye(2))
    assert np.isnan(factor).any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_jitter_mends_rounding_and_nothing_more(dtype, x64):
    jittered = jax.jit(jittered_cholesky)
    factor, jitter = jittered(jnp.ones((30, 30), dtype))
    assert np.isfinite(factor).all()
    assert float(jitter) < 1e-2 * float(jnp.finfo(dtype).eps) ** 0.5
    factor, _ = jittered(jnp.array([[1.0, 2.0], [2.0, 1.0]], dtype))
    assert np.isnan(factor).any()


def test_trees():
    tree = {"a": jnp.array([3.0, 0.0]), "b": (jnp.array(4.0),)}

    @jax.jit
    def norms(tree):
        return tree_norm(tree), tree_norm(tree_unit(tree)), jax.grad(tree_norm)(tree)["a"]

    assert norms(tree)[:2] == (5.0, pytest.approx(1.0))
    _, unit, gradient = norms(jax.tree.map(jnp.zeros_like, tree))
    assert float(unit) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros(2))
    like = {"a": jnp.zeros(2000, jnp.bfloat16), "b": jnp.zeros(2000)}
    noise = jax.jit(tree_normal_like)(jax.random.key(0), like)
    assert noise["a"].dtype == jnp.bfloat16
    assert abs(np.std(noise["b"]) - 1) < 5 / np.sqrt(2 * 2000)
    assert abs(np.corrcoef(np.asarray(noise["a"], float), noise["b"])[0, 1]) < 5 / np.sqrt(2000)


@pytest.mark.parametrize("mapping", [dict, collections.OrderedDict, FrozenDict])
def test_trained_part_of_flax_variables_is_put_back_in_its_place(mapping):
    variables = mapping({"params": {"w": 1.0, "a": 2.0}, "batch_stats": {"mean": 3.0}})
    trained, rebuild = trained_part(variables)
    assert dict(trained) == {"w": 1.0, "a": 2.0}
    rebuilt = rebuild(jax.tree.map(lambda leaf: leaf + 1, trained))
    assert type(rebuilt) is mapping
    assert rebuilt == mapping({"params": {"w": 2.0, "a": 3.0}, "batch_stats": {"mean": 3.0}})


def test_all_of_other_trees_is_trained():
    trained, rebuild = trained_part([1.0, {"params": 2.0}])
    assert rebuild(trained) == trained == [1.0, {"params": 2.0}]


@pytest.mark.parametrize(
    ("impl", "dtype"), [("threefry2x32", "bfloat16"), ("threefry2x32", "complex64"), ("rbg", "float32")]
)
def test_normal_numbers_are_those_of_jax(impl, dtype):
    key = jax.random.key(1, impl=impl)
    got, wanted = normal(key, (3, 5), dtype), jax.random.normal(key, (3, 5), dtype)
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)
