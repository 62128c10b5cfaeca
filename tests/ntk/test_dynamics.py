"""Real runs beside their linearisation."""

# NumPy arrays stand in for JAX arrays throughout.
# pyright: reportArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import ntk

LAZY = pytest.mark.statement("ntk.lazy_training")
DRIFT = pytest.mark.statement("ntk.constancy", "ntk.drift_rate")
RNG = np.random.default_rng(0)
X, X_TEST, Y = RNG.normal(size=(4, 3)), RNG.normal(size=(2, 3)), RNG.normal(size=(4, 2))


def network(params, x):
    """One hidden layer in the parametrisation of the chapter."""
    return jnp.tanh(x @ params["w"] / np.sqrt(3)) @ params["v"] / np.sqrt(params["v"].shape[0])


def start(width, seed=0):
    rng = np.random.default_rng(seed)
    return {"v": rng.normal(size=(width, 2)), "w": rng.normal(size=(3, width))}


def run(apply_fn, params, num_steps=12, record_every=4, learning_rate=0.1):
    return jax.jit(
        lambda p: ntk.ntk_dynamics(
            apply_fn, p, X, Y, X_TEST, learning_rate=learning_rate, num_steps=num_steps, record_every=record_every
        )
    )(params)


def kernel_by_hand(params, x):
    hidden = np.tanh(x @ params["w"] / np.sqrt(3))
    slope = (1 - hidden**2)[:, None, :] * params["v"].T[None] / np.sqrt(hidden.shape[1])  # [n, k, h]
    first = np.einsum("nch,meh->nmce", slope, slope) * (x @ x.T / 3)[:, :, None, None]
    return first + (hidden @ hidden.T / hidden.shape[1])[:, :, None, None] * np.eye(2)


@LAZY
def test_the_run_is_gradient_descent_and_its_records_are_of_the_network(x64):
    params = start(16)
    tracked = run(network, params)
    at = {name: jnp.asarray(leaf) for name, leaf in params.items()}
    gradient = jax.jit(jax.grad(lambda p: 0.5 * jnp.sum((network(p, X) - Y) ** 2)))
    kernel0 = kernel_by_hand(params, X)
    values, vectors = np.linalg.eigh(np.moveaxis(kernel0, 2, 1).reshape(8, 8))
    np.testing.assert_allclose(tracked.eigenvalues, values[::-1], rtol=1e-10)
    for i in range(4):
        np.testing.assert_allclose(tracked.outputs_train[i], network(at, X), atol=1e-12)
        np.testing.assert_allclose(tracked.outputs_test[i], network(at, X_TEST), atol=1e-12)
        change = kernel_by_hand(jax.tree.map(np.asarray, at), X) - kernel0
        drift = np.linalg.norm(change) / np.linalg.norm(kernel0)
        assert float(tracked.kernel_drift[i]) == pytest.approx(drift, rel=1e-9, abs=1e-14)
        moved = np.sqrt(sum(np.sum((np.asarray(at[name]) - params[name]) ** 2) for name in params))
        assert float(tracked.parameter_distance[i]) == pytest.approx(moved, rel=1e-10, abs=1e-14)
        modes = vectors[:, ::-1].T @ np.ravel(Y - network(at, X))
        np.testing.assert_allclose(np.abs(tracked.mode_residuals[i]), np.abs(modes), atol=1e-10)
        for _ in range(4 if i < 3 else 0):
            at = jax.tree.map(lambda p, g: p - 0.1 * g, at, gradient(at))
    for name, leaf in at.items():
        np.testing.assert_allclose(tracked.params[name], leaf, atol=1e-12)
    np.testing.assert_array_equal(tracked.steps, [0, 4, 8, 12])


@LAZY
def test_the_linear_run_is_that_of_the_linearised_network(x64):
    """A network that is its own linearisation does as predicted, mode by mode, and its kernel stays."""
    params = start(16)
    tracked = run(network, params)
    linear = run(ntk.linearize(network, params), params)
    np.testing.assert_allclose(linear.outputs_train, tracked.linear_train, atol=1e-11)
    np.testing.assert_allclose(linear.outputs_test, tracked.linear_test, atol=1e-11)
    np.testing.assert_allclose(linear.outputs_train, linear.linear_train, atol=1e-11)
    np.testing.assert_allclose(linear.mode_residuals, linear.linear_mode_residuals, atol=1e-11)
    np.testing.assert_allclose(linear.kernel_drift, 0, atol=1e-12)
    decay = (1 - 0.1 * np.asarray(linear.eigenvalues)) ** np.asarray(linear.steps)[:, None]
    np.testing.assert_allclose(linear.mode_residuals, decay * np.asarray(linear.mode_residuals[0]), atol=1e-10)
    assert np.max(np.abs(tracked.outputs_train - tracked.linear_train)) > 1e-3


@pytest.mark.slow
@LAZY
@DRIFT
def test_wide_networks_are_lazier(x64):
    gaps, drifts = [], []
    for width in (32, 2048):
        starts = jax.tree.map(lambda *leaves: np.stack(leaves), *(start(width, seed) for seed in range(3)))
        runs = jax.jit(jax.vmap(lambda p: run(network, p, 40, 40)))(starts)
        gaps.append(np.mean(np.abs(runs.outputs_test - runs.linear_test)))
        drifts.append(np.mean(runs.kernel_drift[:, -1]))
    assert gaps[1] < gaps[0] / 4  # 64 times wider; the theorem grants a factor of 8
    assert drifts[1] < drifts[0] / 4


@DRIFT
def test_kernel_drift_equals_the_formula(x64):
    first, second = start(16), start(16, seed=1)
    change = kernel_by_hand(second, X) - kernel_by_hand(first, X)
    expected = np.linalg.norm(change) / np.linalg.norm(kernel_by_hand(first, X))
    assert float(ntk.kernel_drift(network, first, second, X)) == pytest.approx(expected, rel=1e-10)
    assert float(ntk.kernel_drift(network, first, first, X)) == 0


@LAZY
def test_no_steps_are_one_record():
    tracked = run(network, start(4), num_steps=0, record_every=3)
    assert tracked.outputs_train.shape == (1, 4, 2)
    assert tracked.kernel_drift.tolist() == [0.0]


BAD_SETTINGS = {
    "`learning_rate` must be positive": {"learning_rate": 0.0},
    "`record_every` must be at least 1": {"record_every": 0},
    "`num_steps` must be a non-negative multiple": {"num_steps": 5},
}


@LAZY
@pytest.mark.parametrize("message", BAD_SETTINGS)
def test_settings_out_of_range_are_refused(message):
    with pytest.raises(ValueError, match=message):
        run(network, start(4), **BAD_SETTINGS[message])


@LAZY
@DRIFT
def test_bad_networks_are_refused():
    with pytest.raises(ValueError, match="`params0` must hold real floating-point"):
        run(network, {**start(4), "v": np.ones((4, 2), int)})
    with pytest.raises(ValueError, match="`apply_fn` must return shape"):
        run(lambda p, x: network(p, x)[:, 0], start(4))
    with pytest.raises(ValueError, match="`params1` must have the structure of `params0`"):
        ntk.kernel_drift(network, start(4), {"v": np.ones((4, 2))}, X)
    with pytest.raises(ValueError, match="`params1` must have the shapes of `params0`"):
        ntk.kernel_drift(network, start(4), start(5), X)
