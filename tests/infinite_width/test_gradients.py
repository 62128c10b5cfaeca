"""Kernels as functions of the scales of a network, and twice differentiated by its inputs."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import infinite_width, networks, nngp
from dltheory.infinite_width._functions import elementwise
from dltheory.infinite_width._pairs import mean, second_moment
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


def test_jumps_move_with_the_variance_and_the_parameters(x64):
    """P(u > p) and P(u > p, v > p): derivatives come from the place of the jump alone."""
    step = elementwise(lambda u, p: jnp.where(u > p, 1.0, 0.0), num_params=1)
    q, p = jnp.array(1.7), jnp.array(0.6)
    found = jax.jit(jax.grad(lambda q, p: mean(step, q, (p,)), argnums=(0, 1)))(q, p)
    density = np.exp(-(0.6**2) / 1.7 / 2) / np.sqrt(2 * np.pi * 1.7)
    np.testing.assert_allclose(found, [0.6 / 1.7 / 2 * density, -density], rtol=1e-9)

    def product(q, p):
        pairs = nngp.pair_covariance(q, q, 0.4 * q)
        return second_moment(step, step, pairs, (p,), (p,))

    found = jax.jit(jax.grad(product, argnums=(0, 1)))(q, p)
    # Given that u is at the jump, v is above it with the probability that a normal variable is above this.
    above = 0.6 * (1 - 0.4) / np.sqrt(1.7 * (1 - 0.4**2))
    change = -2 * density * math.erfc(above / 2**0.5) / 2
    np.testing.assert_allclose(found, [-change * 0.6 / 1.7 / 2, change], rtol=1e-6)


class _Normalised(nn.Module):
    """A kink in a sum of a rectified variable and a bias: functions of two Gaussians."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.LayerNorm()(nn.relu(nn.Dense(8, use_bias=False)(x))))
        return nn.Dense(1, use_bias=False)(x)


@pytest.mark.slow
def test_gradients_of_functions_of_two_gaussians(x64):
    module, x = _Normalised(), jnp.asarray(X[:2], float)
    params = jax.eval_shape(module.init, jax.random.key(0), x)

    def kernel(bias, weights):
        def variance(name, shape):
            return bias if name.endswith("bias") else weights

        return infinite_width.kernel_fn(module.apply, params, param_variance=variance)(x).ntk[0, 1]

    here, steps = jnp.array([0.02, 0.3]), 1e-5 * np.concatenate([np.eye(2), -np.eye(2)])
    found = jax.jit(jax.jacfwd(lambda v: kernel(*v)))(here)
    values = jax.jit(jax.vmap(lambda v: kernel(*v)))(here[None] + steps)
    np.testing.assert_allclose(found, (values[:2] - values[2:]) / 2e-5, rtol=1e-5)
