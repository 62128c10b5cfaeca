"""What `kernel_fn` is given: inputs that are no numbers, rows that mix, variances that do not fit, truth values."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import infinite_width

pytestmark = pytest.mark.statement("nngp.kernel_recursion")
X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
SHAPES = {"v": jax.ShapeDtypeStruct((16, 1), jnp.float32), "w": jax.ShapeDtypeStruct((3, 16), jnp.float32)}


def network(before=lambda x: x, phi=jnp.tanh):
    return lambda params, x: phi(before(x) @ params["w"]) @ params["v"] / 4


def kernel(apply_fn, param_variance: Any = 1.0, params: Any = SHAPES, x=X):
    return infinite_width.kernel_fn(apply_fn, params, param_variance=param_variance)(x)


def test_what_is_not_a_number_stays_so():
    for found, whole in zip(kernel(network(), x=X.at[1, 0].set(jnp.nan)), kernel(network()), strict=True):
        there = np.arange(4) != 1
        assert np.isnan(found[1]).all()
        assert np.isnan(found[:, 1]).all()
        np.testing.assert_allclose(found[np.ix_(there, there)], whole[np.ix_(there, there)], rtol=1e-6)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x - x[:1],
        lambda x: jnp.sort(x, axis=0),
        lambda x: x[::-1],
        lambda x: jnp.take(x, np.array([1, 0]), axis=0),
        lambda x: jnp.roll(x, 1, axis=0),
        lambda x: x - x.mean(0, keepdims=True),
    ],
    ids=["first", "sort", "reverse", "gather", "roll", "mean"],
)
def test_rows_that_mix_are_refused(mix):
    with pytest.raises(ValueError, match="must treat every input by itself"):
        kernel(network(mix))


@pytest.mark.parametrize("mix", [lambda x: x[:, ::-1], lambda x: jnp.sort(x, axis=1), lambda x: jnp.roll(x, 1, axis=1)])
def test_coordinates_may_mix(mix):
    for found, expected in zip(kernel(network(mix)), kernel(network(), x=mix(X)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("variance", "message"),
    [
        (-1.0, "must be non-negative"),
        (float("nan"), "must be non-negative"),
        (lambda name, shape: "lecun", "one number for v"),
        (lambda name, shape: jnp.ones(shape), "one number for v"),
        ({"v": 1.0, "w": jnp.ones((3, 16))}, "one number for w"),
    ],
)
def test_variances_are_numbers(variance, message):
    with pytest.raises(ValueError, match=message):
        kernel(network(), variance)


@pytest.mark.parametrize("factor", [1e-2, 2**0.5, 2.0])
@pytest.mark.parametrize("width", [100, 1000])
def test_values_of_another_variance_are_refused(factor, width):
    """Also of He's initialisation, and of leaves with few entries."""
    keys = jax.random.split(jax.random.key(0))
    params = {
        "w": jax.random.normal(keys[0], (3, width)) / 3**0.5,
        "v": factor * jax.random.normal(keys[1], (width, 1)) / width**0.5,
    }
    apply_fn = lambda params, x: jax.nn.relu(x @ params["w"]) @ params["v"]  # noqa: E731
    with pytest.raises(ValueError, match="mean square"):
        kernel(apply_fn, "lecun", params)
    kernel(apply_fn, "lecun", params | {"v": params["v"] / factor})


def test_parameters_that_are_called_like_statistics_are_random():
    apply_fn = lambda variables, x: network()({"w": variables["params"]["mean"], "v": variables["params"]["var"]}, x)  # noqa: E731
    shapes = {"params": {"mean": SHAPES["w"], "var": SHAPES["v"]}}
    np.testing.assert_array_equal(kernel(apply_fn, params=shapes).ntk, kernel(network()).ntk)


def test_a_number_that_is_known_is_a_constant():
    """The slope of a rectifier, which is no random weight."""

    def leaky(params, x):
        return nn.leaky_relu(x @ params["w"], params["slope"]) @ params["v"]

    def plain(params, x):
        return nn.leaky_relu(x @ params["w"], 0.25) @ params["v"]

    found = kernel(leaky, None, SHAPES | {"slope": jnp.array(0.25)})
    np.testing.assert_allclose(found.ntk, kernel(plain, None).ntk, rtol=1e-6)


def test_weights_of_variance_zero_that_multiply_are_refused():
    """They would leave nothing: most likely their values are not known."""

    def scaled(params, x):
        return params["scaling"] * jnp.tanh(x @ params["w"]) @ params["v"]

    for shape in [(), (1, 16)]:
        with pytest.raises(NotImplementedError, match=r"`mul` at .*variance 0 that multiply leave nothing"):
            kernel(scaled, "lecun", SHAPES | {"scaling": jax.ShapeDtypeStruct(shape, jnp.float32)})


def test_known_numbers_choose_between_branches():
    """Each input follows the branch that it chooses, so that inputs of different branches are uncorrelated."""

    def branches(params, x):
        h = jnp.where(x[:, :1] > 0, x @ params["w"], nn.relu(x @ params["u"]))
        return h @ params["v"]

    first, second = (kernel(lambda p, x, phi=phi: phi(x @ p["w"]) @ p["v"], "lecun") for phi in (lambda h: h, nn.relu))
    chosen = np.asarray(X[:, 0] > 0)
    assert 0 < chosen.sum() < len(X)
    found = kernel(branches, "lecun", SHAPES | {"u": SHAPES["w"]})
    for one, linear, rectified in zip(found, first, second, strict=True):
        expected = np.outer(chosen, chosen) * linear + np.outer(~chosen, ~chosen) * rectified
        np.testing.assert_allclose(one, expected, atol=1e-6)


# Truth values, in place of `where`.


@pytest.mark.parametrize(
    ("phi", "same"),
    [
        pytest.param(lambda h: h * (h > 0), jax.nn.relu, id="gate"),
        pytest.param(
            lambda h: (h > 0).astype(h.dtype) + (h > 1).astype(h.dtype),
            lambda h: jnp.where(h > 1, 2.0, 1.0 * (h > 0)),
            id="stairs",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda h: h * ((h > 0) & (h < 1)).astype(h.dtype),
            lambda h: jnp.where(h > 0, jnp.where(h < 1, h, 0.0), 0.0),
            id="window",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_truth_values_become_numbers(phi, same):
    for found, expected in zip(kernel(network(phi=phi)), kernel(network(phi=same)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    sampled = np.random.default_rng(1).multivariate_normal(np.zeros(4), np.asarray(X @ X.T), 200_000)
    products = np.asarray(phi(jnp.asarray(sampled)))
    np.testing.assert_allclose(kernel(network(phi=phi)).nngp, products.T @ products / len(products), atol=0.05)


# Rules of derivatives that a user has written.


def _with_rule(slope):
    @jax.custom_jvp
    def phi(x):
        return jnp.tanh(x)

    phi.defjvp(lambda primals, tangents: (phi(*primals), slope(*primals) * tangents[0]))
    return phi


def test_the_right_rule_changes_nothing():
    right = _with_rule(lambda x: 1 - jnp.tanh(x) ** 2)
    np.testing.assert_allclose(kernel(network(phi=right)).ntk, kernel(network()).ntk, rtol=1e-5)


def test_a_rule_that_is_no_derivative_is_refused():
    with pytest.raises(NotImplementedError, match="derivative rule differs"):
        kernel(network(phi=_with_rule(jnp.ones_like)))
