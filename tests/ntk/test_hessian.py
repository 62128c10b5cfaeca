"""Curvature of networks in their parameters."""

# NumPy arrays stand in for JAX arrays throughout.
# pyright: reportArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from dltheory import ntk

pytestmark = pytest.mark.statement("ntk.hessian_ratio")
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=3), np.array([1.0, -2.0])


def network(params, x):
    width = params["v"].shape[0]
    return jnp.tanh(x @ params["w"] / np.sqrt(3)) @ params["v"] / np.sqrt(width)


def start(width):
    return {"v": RNG.normal(size=(width, 2)), "w": RNG.normal(size=(3, width))}


def quadratic(hessian):
    """A network whose Hessian is given."""
    return lambda w, x: (w @ jnp.asarray(hessian, w.dtype) @ w / 2) * x


def norm(apply_fn, params, x, **settings):
    return jax.jit(lambda key, p: ntk.hessian_operator_norm(key, apply_fn, p, x, **settings))(KEY, params)


def lazy_ratio(apply_fn, params, x, y):
    return jax.jit(lambda key, p: ntk.lazy_ratio(key, apply_fn, p, x, y))(KEY, params)


@pytest.mark.parametrize("width", [4, 40])
def test_norm_equals_that_of_the_dense_hessian(x64, width):
    params = start(width)
    flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, params))
    dense = jax.jit(jax.hessian(lambda theta: network(unravel(theta), X[None])[0]))(flat)
    found = norm(network, params, X, tolerance=1e-6)
    assert np.all(found.converged)
    np.testing.assert_allclose(found.value, [np.linalg.norm(hessian, 2) for hessian in dense], rtol=1e-8)


def test_one_hidden_layer_has_a_block_for_each_unit(x64):
    """Per unit the Hessian is a rank-two block with the eigenvalues of [[0, a], [a, b]]."""
    params = start(500)
    activation = X @ params["w"] / np.sqrt(3)
    slope, bend = 1 - np.tanh(activation) ** 2, -2 * np.tanh(activation) * (1 - np.tanh(activation) ** 2)
    length = np.linalg.norm(X) / np.sqrt(3)
    cross, own = slope * length / np.sqrt(500), bend[:, None] * params["v"] * length**2 / np.sqrt(500)
    blocks = (np.abs(own) + np.sqrt(own**2 + 4 * cross[:, None] ** 2)) / 2
    found = norm(network, params, X, tolerance=1e-6)
    assert np.all(found.converged)
    np.testing.assert_allclose(found.value, blocks.max(0), rtol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eigenvalues_of_opposite_sign_are_no_obstacle(x64, dtype):
    found = norm(quadratic(np.diag([2.0, -2.0, 1.0, 0.5])), jnp.ones(4, dtype), jnp.ones(1, dtype))
    assert found.value.dtype == dtype
    assert np.all(found.converged)
    assert float(found.value[0]) == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_unit_of_the_outputs_does_not_matter(scale):
    found = norm(quadratic(np.diag([1.0, -3.0])), jnp.ones(2), scale * jnp.ones(1))
    assert np.all(found.converged)
    assert float(found.value[0]) / scale == pytest.approx(3, rel=1e-5)


def test_a_linear_network_has_no_curvature():
    found = norm(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.ones(3))
    assert found.value.tolist() == [0.0, 0.0]
    assert np.all(found.converged)


def test_stopping_early_is_flagged(x64):
    spectrum = np.diag(np.linspace(-1, 1.001, 200))
    found = norm(quadratic(spectrum), jnp.ones(200), jnp.ones(1), max_steps=3)
    assert not np.any(found.converged)
    assert np.min(np.abs(np.diag(spectrum) - np.sign(found.value[0]) * found.value[0])) <= found.residual[0]
    full = norm(quadratic(spectrum), jnp.ones(200), jnp.ones(1), max_steps=300, tolerance=1e-8)
    assert np.all(full.converged)
    assert float(full.value[0]) == pytest.approx(1.001, rel=1e-12)


def test_a_hessian_that_is_not_finite_is_flagged():
    found = norm(lambda w, x: jnp.sum(jnp.sqrt(w)) * x, jnp.zeros(2), jnp.ones(1))
    assert np.all(np.isnan(found.value))
    assert not np.any(found.converged)


def test_lazy_ratio_is_made_of_its_parts_and_has_no_unit(x64):
    params = start(40)
    ratio = lazy_ratio(network, params, X, Y)
    features = np.asarray(jax.jit(lambda p: ntk.tangent_features(network, p, X))(params))
    np.testing.assert_allclose(ratio.gradient_norm, np.linalg.norm(features, axis=1), rtol=1e-12)
    np.testing.assert_allclose(ratio.hessian_norm, norm(network, params, X).value, rtol=1e-12)
    np.testing.assert_allclose(ratio.curvature, ratio.hessian_norm / ratio.gradient_norm**2, rtol=1e-12)
    gap = np.abs(Y - np.asarray(network(params, X[None]))[0])
    np.testing.assert_allclose(ratio.value, gap * ratio.curvature, rtol=1e-12)

    def louder(p, x):
        return 10 * network(p, x)

    scaled = lazy_ratio(louder, params, X, 10 * Y)
    np.testing.assert_allclose(scaled.value, ratio.value, rtol=1e-6)
    np.testing.assert_allclose(scaled.curvature, ratio.curvature / 10, rtol=1e-6)


def test_the_ratio_is_infinite_where_the_gradient_vanishes():
    ratio = lazy_ratio(quadratic(np.eye(2)), jnp.zeros(2), jnp.ones(1), jnp.ones(1))
    assert float(ratio.value[0]) == np.inf


@pytest.mark.parametrize(("setting", "value"), [("max_steps", 0), ("tolerance", 0.0)])
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"`{setting}`"):
        ntk.hessian_operator_norm(KEY, network, start(4), X, **{setting: value})
