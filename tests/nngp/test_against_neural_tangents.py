"""Both kernels of wide networks against neural-tangents, for every activation that it has."""

import importlib
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import nngp
from dltheory.interop import neural_tangents
from dltheory.ntk import analytic_ntk

INSTALLED = all(importlib.util.find_spec(name) for name in ("neural_tangents", "frozendict"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("unoptimized"),
    pytest.mark.skipif(
        not INSTALLED, reason="neural-tangents is not installed (pip install --no-deps neural-tangents frozendict)"
    ),
    # It warns whenever it assumes unit variance or integrates numerically.
    pytest.mark.filterwarnings("ignore:Inputs to this layer are assumed", "ignore:Numerical Activation Layer"),
    pytest.mark.statement("nngp.arccos_recursion", "nngp.kernel_recursion"),
]
_RNG = np.random.default_rng(0)
X1, X2 = _RNG.normal(size=(4, 5)), _RNG.normal(size=(3, 5))
SIGMA_W, SIGMA_B = 1.1, 0.2

# name -> our dual, their layer
LAYERS = {
    "ABRelu": (lambda: nngp.rectifier_dual(0.3, 0.9), lambda stax: stax.ABRelu(0.3, 0.9)),
    "Relu": (nngp.rectifier_dual, lambda stax: stax.Relu()),
    "LeakyRelu": (lambda: nngp.rectifier_dual(0.2), lambda stax: stax.LeakyRelu(0.2)),
    "Abs": (lambda: nngp.rectifier_dual(-1.0), lambda stax: stax.Abs()),
    "Sign": (nngp.sign_dual, lambda stax: stax.Sign()),
    "Erf": (lambda: nngp.erf_dual(0.8, 1.2, 0.3), lambda stax: stax.Erf(0.8, 1.2, 0.3)),
    "Sigmoid_like": (nngp.sigmoid_like_dual, lambda stax: stax.Sigmoid_like()),
    "Gelu": (nngp.gelu_dual, lambda stax: stax.Gelu()),
    "Sin": (lambda: nngp.sine_dual(0.8, 1.2, 0.3), lambda stax: stax.Sin(0.8, 1.2, 0.3)),
    "Cos": (lambda: nngp.dual_activation("cos"), lambda stax: stax.Cos()),
    "Rbf": (lambda: nngp.rbf_dual(0.7), lambda stax: stax.Rbf(0.7)),
    "Exp": (lambda: nngp.exponential_dual(0.8, 0.4), lambda stax: stax.Exp(0.8, 0.4)),
    "ExpNormalized": (lambda: nngp.normalized_exponential_dual(0.7), lambda stax: stax.ExpNormalized(0.7)),
    "Gaussian": (lambda: nngp.gaussian_dual(0.8, -0.6), lambda stax: stax.Gaussian(0.8, -0.6)),
    "Gabor": (nngp.gabor_dual, lambda stax: stax.Gabor()),
    "Monomial": (lambda: nngp.polynomial_dual([0, 0, 0, 1.0]), lambda stax: stax.Monomial(3)),
    "RectifiedMonomial": (lambda: nngp.rectified_monomial_dual(2), lambda stax: stax.RectifiedMonomial(2)),
    "Polynomial": (lambda: nngp.polynomial_dual([0.2, -0.3, 0.5]), lambda stax: stax.Polynomial([0.2, -0.3, 0.5])),
    "ElementwiseNumerical": (
        lambda: nngp.dual_activation("tanh"),
        lambda stax: stax.ElementwiseNumerical(jnp.tanh, deg=60, df=lambda x: 1 / jnp.cosh(x) ** 2),
    ),
}


@pytest.fixture(scope="module")
def stax():
    neural_tangents.load()
    return importlib.import_module("neural_tangents.stax")


@pytest.mark.parametrize("name", LAYERS)
def test_hidden_layers(name, stax, x64):
    dual, layer = LAYERS[name]
    depth = 1 if name == "RectifiedMonomial" else 2  # of which theirs has no variance: NaN from the second layer on
    dense = stax.Dense(1, W_std=SIGMA_W, b_std=SIGMA_B)
    _, _, kernel_fn = stax.serial(dense, *[layer(stax), dense] * depth)
    expected = kernel_fn(jnp.asarray(X1), jnp.asarray(X2), ("nngp", "ntk"))
    settings = {"depth": depth, "sigma_w": SIGMA_W, "sigma_b": SIGMA_B, "activation": dual()}
    found = jax.jit(lambda x1, x2: analytic_ntk(x1, x2, **settings))(jnp.asarray(X1), jnp.asarray(X2))
    tolerance = 1e-6 if name == "ElementwiseNumerical" else 1e-9  # that of their quadrature
    for ours, theirs in zip(found, (expected.nngp, expected.ntk), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(np.asarray(theirs)).max())


def test_hermite_polynomials_at_unit_variance(stax, x64):
    """neural-tangents states this dual for variance 1 only: inputs on the sphere, one hidden layer."""
    x = X1 / np.linalg.norm(X1, axis=1, keepdims=True) * np.sqrt(5)
    dense = stax.Dense(1, W_std=1.0)
    _, _, kernel_fn = stax.serial(dense, stax.Hermite(3), dense)
    expected = kernel_fn(jnp.asarray(x), None, ("nngp", "ntk"))
    dual = nngp.polynomial_dual([0.0, -3 / 6**0.5, 0.0, 1 / 6**0.5])
    found = jax.jit(lambda x: analytic_ntk(x, depth=1, sigma_w=1.0, sigma_b=0.0, activation=dual))(jnp.asarray(x))
    np.testing.assert_allclose(found[0], expected.nngp, atol=1e-12)
    np.testing.assert_allclose(found[1], expected.ntk, atol=1e-12)
