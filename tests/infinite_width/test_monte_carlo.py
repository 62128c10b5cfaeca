"""Averages over random networks: against loops in NumPy, and against kernels that are known."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import infinite_width, networks, ntk

pytestmark = pytest.mark.statement("nngp.clt_limit", "ntk.init_convergence")
RNG = np.random.default_rng(0)
X1, X2 = (jnp.asarray(RNG.normal(size=(n, 5)), jnp.float32) for n in (3, 2))
KEY = jax.random.key(0)
NETWORK = networks.MLP((32, 3), sigma_w=1.2, sigma_b=0.4, activation=jnp.tanh)


class Standard(nn.Module):
    """The same network in the parametrisation of Flax."""

    @nn.compact
    def __call__(self, x):
        normal, bias = nn.initializers.variance_scaling(1.2**2, "fan_in", "normal"), nn.initializers.normal(0.4)
        x = jnp.tanh(nn.Dense(32, kernel_init=normal, bias_init=bias)(x))
        return nn.Dense(3, kernel_init=normal, bias_init=bias)(x)


def variance(path, shape):
    return 1.2**2 / shape[0] if path.endswith("kernel") else 0.4**2


def explicit(module, x1, x2, num_samples, variance):
    """Kernels of every network, from its Jacobians, and their statistics in NumPy."""
    nngps, ntks = [], []
    for key in jax.random.split(KEY, num_samples):
        params = module.init(key, x1)
        f1, f2 = (np.asarray(module.apply(params, x), np.float64) for x in (x1, x2))
        nngps.append(f1 @ f2.T / f1.shape[1])
        first, second = (jax.tree.leaves(jax.jacrev(module.apply)(params, x)) for x in (x1, x2))
        paths = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in jax.tree.leaves_with_path(params)]
        total = 0.0
        for path, a, b in zip(paths, first, second, strict=True):
            rows_a, rows_b = (np.asarray(j, np.float64).reshape(*j.shape[:2], -1) for j in (a, b))
            total = total + variance(path, a.shape[2:]) * np.einsum("nkp,mkp->nm", rows_a, rows_b) / a.shape[1]
        ntks.append(total)
    means = [np.mean(kernels, axis=0) for kernels in (nngps, ntks)]
    errors = [np.std(kernels, axis=0, ddof=1) / math.sqrt(num_samples) for kernels in (nngps, ntks)]
    return [*means, *errors]


@pytest.mark.parametrize("batch_size", [pytest.param(size, marks=pytest.mark.slow) for size in (1, 4, 100)])
@pytest.mark.parametrize(
    ("module", "param_variance", "weights"),
    [
        pytest.param(NETWORK, 1.0, lambda path, shape: 1.0, id="unit", marks=pytest.mark.slow),
        pytest.param(Standard(), variance, variance, id="standard"),
    ],
)
def test_equals_a_loop_over_networks(module, param_variance, weights, batch_size):
    found = jax.jit(
        lambda key, x1, x2: infinite_width.monte_carlo_kernel(
            module.init,
            module.apply,
            x1,
            x2,
            key=key,
            num_samples=10,
            batch_size=batch_size,
            param_variance=param_variance,
        )
    )(KEY, X1, X2)
    for ours, expected in zip(found, explicit(module, X1, X2, 10, weights), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-5)


def test_linear_networks_have_one_tangent_kernel():
    """Whatever the weights: no noise. The other kernel has the noise of a sample variance."""
    layer = networks.Dense(1)
    found = infinite_width.monte_carlo_kernel(layer.init, layer.apply, X1, key=KEY, num_samples=400, batch_size=50)
    exact = np.asarray(X1 @ X1.T / 5)
    np.testing.assert_allclose(found.ntk, exact, rtol=1e-5)
    assert found.ntk_error.max() < 1e-6
    expected_error = np.sqrt((np.outer(np.diag(exact), np.diag(exact)) + exact**2) / 400)
    np.testing.assert_allclose(found.nngp_error, expected_error, rtol=0.2)
    assert jnp.max(abs(found.nngp - exact) / expected_error) < 4


@pytest.mark.slow
def test_errors_cover_the_limit_of_wide_networks():
    network = networks.MLP((2048, 64), sigma_w=1.2, sigma_b=0.4, activation=jnp.tanh)
    found = infinite_width.monte_carlo_kernel(network.init, network.apply, X1, X2, key=KEY, num_samples=50)
    exact = ntk.analytic_ntk(X1, X2, depth=1, sigma_w=1.2, sigma_b=0.4, activation="tanh")
    for mean, error, limit in zip(found[:2], found[2:], exact, strict=True):
        assert jnp.max(abs(mean - limit) / error) < 4
        assert jnp.max(abs(mean - 1.25 * limit) / error) > 6


def test_forms_of_the_variances_agree():
    params = jax.eval_shape(Standard().init, KEY, X1)
    tree = jax.tree_util.tree_map_with_path(
        lambda path, leaf: variance(jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape), params
    )
    found = [
        infinite_width.monte_carlo_kernel(
            Standard().init, Standard().apply, X1, key=KEY, num_samples=2, param_variance=form
        )
        for form in (tree, variance)
    ]
    np.testing.assert_array_equal(found[0].ntk, found[1].ntk)


def test_lecun_is_one_over_fan_in():
    network = nn.Conv(2, (3,), padding="VALID")
    x = X1[:, :3, None] * jnp.ones((1, 1, 4))
    found = infinite_width.monte_carlo_kernel(
        network.init, network.apply, x, key=KEY, num_samples=2, param_variance="lecun"
    )
    np.testing.assert_allclose(found.ntk, np.einsum("nic,mic->nm", x, x) / 12, rtol=1e-5)


def test_leaves_without_variance_and_other_collections_do_not_count():
    """Statistics of batch normalisation are constants; a fixed bias adds to the outputs, not to the tangents."""

    class Counted(nn.Module):
        @nn.compact
        def __call__(self, x):
            count = self.variable("counts", "steps", lambda: jnp.asarray(3))
            return nn.Dense(2, bias_init=nn.initializers.ones)(x) * count.value

    settings = {"key": KEY, "num_samples": 3, "param_variance": lambda path, shape: float(path.endswith("kernel"))}
    found = infinite_width.monte_carlo_kernel(Counted().init, Counted().apply, X1, **settings)
    np.testing.assert_allclose(found.ntk, 9 * X1 @ X1.T, rtol=1e-5)


def test_every_axis_of_the_outputs_is_used():
    """[n] and [n, a, b] give the same as [n, k]."""
    network = networks.MLP((16, 4))
    settings = {"key": KEY, "num_samples": 3}
    flat = infinite_width.monte_carlo_kernel(network.init, network.apply, X1, **settings)
    apply: Any = network.apply
    folded = infinite_width.monte_carlo_kernel(
        network.init, lambda params, x: apply(params, x).reshape(-1, 2, 2), X1, **settings
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), flat, folded)
    first = infinite_width.monte_carlo_kernel(network.init, lambda p, x: apply(p, x)[:, 0], X1, **settings)
    assert first.ntk.shape == (3, 3)


def test_double_precision(x64):
    layer = networks.Dense(2)
    x = jnp.asarray(X1, jnp.float64)
    found = infinite_width.monte_carlo_kernel(layer.init, layer.apply, x, key=KEY, num_samples=2)
    assert all(array.dtype == jnp.float64 for array in found)
    np.testing.assert_allclose(found.ntk, x @ x.T / 5, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 1}, "`num_samples` must be at least 2, got 1"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"x1": jnp.ones((0, 5))}, "`x1`"),
        ({"x2": jnp.ones((2, 4))}, "`x2`"),
        ({"param_variance": -1.0}, "`param_variance` must be non-negative"),
        ({"param_variance": 0.0}, "`param_variance` must be positive for some leaf"),
        ({"param_variance": {"kernel": 1.0}}, "`param_variance` must have the structure of `params`"),
        ({"param_variance": "wide"}, "`param_variance` must be 'lecun', numbers or a function"),
        ({"param_variance": "unit"}, "`param_variance` must be 'lecun' or numbers"),
        ({"apply_fn": lambda params, x: {"a": x}}, "`apply_fn` must return one array"),
        ({"apply_fn": lambda params, x: jnp.sum(x)}, "`apply_fn` must return a row for each row"),
    ],
)
def test_bad_input(change, message):
    given = {"x1": X1, "x2": None, "key": KEY, "num_samples": 3, "apply_fn": NETWORK.apply} | change
    x1, x2, apply_fn = (given.pop(name) for name in ("x1", "x2", "apply_fn"))
    with pytest.raises(ValueError, match=message):
        infinite_width.monte_carlo_kernel(NETWORK.init, apply_fn, x1, x2, **given)
