"""Predictions against those of neural-tangents, whose time is in units of the learning rate over the mean loss."""

# NumPy arrays stand in for JAX arrays throughout.
# pyright: reportArgumentType=false

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import ntk
from dltheory.interop import neural_tangents

INSTALLED = all(importlib.util.find_spec(name) for name in ("neural_tangents", "frozendict"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not INSTALLED, reason="neural-tangents is not installed (pip install --no-deps neural-tangents frozendict)"
    ),
]
RNG = np.random.default_rng(0)
N, M, K = 6, 3, 2
FEATURES, TEST_FEATURES = RNG.normal(size=(N, 30)), RNG.normal(size=(M, 30))
TRAIN, CROSS = FEATURES @ FEATURES.T, TEST_FEATURES @ FEATURES.T
Y, F0, G0 = RNG.normal(size=(N, K)), RNG.normal(size=(N, K)), RNG.normal(size=(M, K))
TIMES = np.array([0.0, 0.3, 4.0])


@pytest.fixture(scope="module")
def nt():
    return neural_tangents.load()


@pytest.mark.statement("ntk.predictor")
@pytest.mark.parametrize("traced", [True, False])
def test_flow_on_the_squared_loss(nt, x64, traced):
    full = TRAIN[:, :, None, None] * np.eye(K), CROSS[:, :, None, None] * np.eye(K)
    kernels = (TRAIN, CROSS) if traced else full
    theirs_at = nt.predict.gradient_descent_mse(kernels[0], Y, trace_axes=(-1,) if traced else ())
    theirs = theirs_at(N * K * TIMES, F0, G0, kernels[1])
    ours = ntk.predict(*kernels, Y, F0, G0, time=TIMES)
    np.testing.assert_allclose(ours.train, theirs[0], atol=1e-10)
    np.testing.assert_allclose(ours.test, theirs[1], atol=1e-10)


@pytest.mark.statement("ntk.function_space_flow")
def test_flow_on_cross_entropy(nt, x64):
    labels = np.eye(K)[np.arange(N) % K]

    def loss(outputs, y):
        return -jnp.sum(jax.nn.log_softmax(outputs) * y)

    theirs = nt.predict.gradient_descent(loss, TRAIN, labels, trace_axes=(-1,))(TIMES, F0, G0, CROSS)
    ours = ntk.predict_loss(lambda f: loss(f, labels), TRAIN, CROSS, F0, G0, TIMES, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(ours.train, theirs[0], atol=1e-6)
    np.testing.assert_allclose(ours.test, theirs[1], atol=1e-6)


@pytest.mark.statement("ntk.predictor")
def test_largest_learning_rate(nt, x64):
    ours = N * K * ntk.max_learning_rate(TRAIN, 0.9)
    assert float(ours) == pytest.approx(float(nt.predict.max_learning_rate(TRAIN, Y.size, 0.9)), rel=1e-5)


@pytest.mark.statement("ntk.ensemble_distribution")
def test_moments_of_the_infinite_ensemble(nt, x64):
    stax = nt.stax
    _, _, kernel_fn = stax.serial(stax.Dense(1, 1.5, 0.1), stax.Erf(), stax.Dense(1, 1.5, 0.1))
    x, x_test = RNG.normal(size=(N, 3)), RNG.normal(size=(M, 3))
    theirs_at = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, Y, diag_reg=0.0)
    both = {name: kernel_fn(a, b, ("nngp", "ntk")) for name, (a, b) in
            {"train": (x, x), "cross": (x_test, x), "test": (x_test, x_test)}.items()}  # fmt: skip
    for time in (0.0, 0.7, None):
        mean, cov = theirs_at(None if time is None else N * K * time, x_test, "ntk", compute_cov=True)
        ours = ntk.ensemble_moments(
            both["train"].ntk, both["cross"].ntk, both["train"].nngp, both["cross"].nngp, both["test"].nngp, Y,
            time=np.inf if time is None else time,
        )  # fmt: skip
        np.testing.assert_allclose(ours.mean, mean, atol=1e-8)
        np.testing.assert_allclose(ours.covariance, cov, atol=1e-8)
