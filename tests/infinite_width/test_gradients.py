"""Kernels as functions of the scales of a network, and twice differentiated by its inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import infinite_width, networks
from dltheory.ntk import analytic_ntk

pytestmark = pytest.mark.statement("nngp.kernel_recursion", "ntk.analytic_recursion")
X = np.random.default_rng(0).normal(size=(3, 2))
STEP = 1e-5


def _module(sigma_w, sigma_b):
    return networks.MLP((8, 1), sigma_w=sigma_w, sigma_b=sigma_b, activation=jax.lax.erf)


def _params(x):
    return jax.eval_shape(_module(1.0, 1.0).init, jax.random.key(0), x)


def _by_scales(x, sigma_w, sigma_b):
    return infinite_width.kernel_fn(_module(sigma_w, sigma_b).apply, _params(x), param_variance=1.0)(x)


def _by_variances(x, sigma_w, sigma_b):
    def variance(path, leaf):
        return sigma_b**2 if path[-1].key == "bias" else sigma_w**2

    params = _params(x)
    variances = jax.tree.map_with_path(variance, params)
    return infinite_width.kernel_fn(_module(1.0, 1.0).apply, params, param_variance=variances)(x)


def _by_recursion(x, sigma_w, sigma_b):
    return analytic_ntk(x, depth=1, sigma_w=sigma_w, sigma_b=sigma_b, activation="erf")


def _total(kernels, sigmas):
    nngp, ntk = kernels(jnp.asarray(X, float), *sigmas)
    return jnp.sum(jnp.sin(nngp)) + jnp.sum(jnp.cos(ntk))


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [_by_scales, pytest.param(_by_variances, marks=pytest.mark.slow)])
def test_gradients_by_scales_are_those_of_the_recursion(x64, kernels):
    sigmas = jnp.array([[1.3, 0.2], [0.7, 0.0]])  # at a bias of 0 the gradient is 0
    found = jax.jit(jax.vmap(jax.grad(lambda s: _total(kernels, s))))(sigmas)
    expected = jax.vmap(jax.grad(lambda s: _total(_by_recursion, s)))(sigmas)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    steps = STEP * np.concatenate([np.eye(2), -np.eye(2)])
    values = jax.jit(jax.vmap(lambda s: _total(kernels, s)))(sigmas[:1] + steps)
    np.testing.assert_allclose(found[0], (values[:2] - values[2:]) / (2 * STEP), rtol=1e-7)


@pytest.mark.slow
def test_a_traced_variance_of_all_parameters(x64):
    """It is the square of both scales."""
    x = jnp.asarray(X, float)

    def tangents(v):
        return infinite_width.kernel_fn(_module(1.3, 0.2).apply, _params(x), param_variance=v)(x).ntk

    found = jax.jit(jax.jacfwd(tangents))(1.5)
    expected = jax.jacfwd(lambda v: _by_recursion(x, 1.3 * v**0.5, 0.2 * v**0.5)[1])(1.5)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.slow
def test_second_derivatives_by_inputs(x64):
    """Also at equal inputs, where the residual of a correlation vanishes."""

    def kernels(x1, x2):
        kernel = infinite_width.kernel_fn(_module(1.3, 0.2).apply, _params(x1), param_variance=1.0)
        return jnp.stack(kernel(x1, x2))[:, 0, 0]

    x1, x2 = jnp.asarray(X[:1], float), jnp.asarray([X[0], X[1]], float)[:, None]
    slopes = jax.jacfwd(kernels, argnums=1)
    curvature, ahead, behind = jax.jit(
        lambda x1, x2: (
            jax.vmap(jax.jacfwd(slopes, argnums=1), (None, 0))(x1, x2),
            jax.vmap(slopes, (None, 0))(x1, x2 + STEP),
            jax.vmap(slopes, (None, 0))(x1, x2 - STEP),
        )
    )(x1, x2)
    np.testing.assert_allclose(curvature.sum((-1, -2)), (ahead - behind) / (2 * STEP), rtol=1e-5, atol=1e-7)
