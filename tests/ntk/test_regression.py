"""Kernel regression, also where the kernel is singular."""

# NumPy arrays stand in for JAX arrays throughout.
# pyright: reportArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import ntk
from dltheory.debug import checked

pytestmark = pytest.mark.statement("ntk.kernel_regression")
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(5, 2, 14))  # [n, k, p]
RESIDUAL = RNG.normal(size=(5, 2))


solve = jax.jit(ntk.kernel_regression)


def full(features, others=None):
    return np.einsum("nkp,mlp->nmkl", features, features if others is None else others)


def by_output(features):
    return np.einsum("nkp,mkp->nmk", features, features)


def test_coefficients_solve_the_system_in_every_form(x64):
    fit = solve(full(FEATURES), RESIDUAL)
    flat = FEATURES.reshape(10, 14)
    np.testing.assert_allclose(np.ravel(fit.coefficients), np.linalg.solve(flat @ flat.T, RESIDUAL.ravel()), rtol=1e-9)
    assert int(fit.rank) == 10
    assert float(fit.condition) == pytest.approx(np.linalg.cond(flat @ flat.T), rel=1e-9)
    np.testing.assert_allclose(fit.unexplained, 0, atol=1e-12)

    fit = solve(by_output(FEATURES), RESIDUAL)
    expected = [np.linalg.solve(FEATURES[:, c] @ FEATURES[:, c].T, RESIDUAL[:, c]) for c in range(2)]
    np.testing.assert_allclose(fit.coefficients, np.stack(expected, 1), rtol=1e-9)
    assert fit.rank.tolist() == [5, 5]

    one = by_output(FEATURES)[:, :, 0]
    fit = solve(one, RESIDUAL)
    np.testing.assert_allclose(fit.coefficients, np.linalg.solve(one, RESIDUAL), rtol=1e-9)
    alone = solve(one, RESIDUAL[:, 1])
    np.testing.assert_allclose(alone.coefficients, fit.coefficients[:, 1], rtol=1e-12)
    assert fit.rank.shape == fit.condition.shape == ()


def test_conflicting_labels_leave_their_projection_on_the_null_space(x64):
    features = FEATURES.copy()
    features[1] = features[0]
    fit = solve(full(features), RESIDUAL)
    flat = features.reshape(10, 14)
    np.testing.assert_allclose(
        fit.coefficients.reshape(-1), np.linalg.pinv(flat @ flat.T) @ RESIDUAL.ravel(), atol=1e-10
    )
    left = np.zeros((5, 2))
    left[0], left[1] = (RESIDUAL[0] - RESIDUAL[1]) / 2, (RESIDUAL[1] - RESIDUAL[0]) / 2
    np.testing.assert_allclose(fit.unexplained, left, atol=1e-12)
    assert int(fit.rank) == 8


def test_with_a_ridge_it_is_ridge_regression_on_the_features(x64):
    features = FEATURES.copy()
    features[1] = features[0]
    flat = features.reshape(10, 14)
    primal = np.linalg.solve(flat.T @ flat + 0.3 * np.eye(14), flat.T @ RESIDUAL.ravel())
    fit = ntk.kernel_regression(full(features), RESIDUAL, ridge=0.3)
    np.testing.assert_allclose(flat.T @ np.ravel(fit.coefficients), primal, atol=1e-12)
    np.testing.assert_allclose(np.ravel(fit.unexplained), RESIDUAL.ravel() - flat @ primal, atol=1e-12)
    assert int(fit.rank) == 10


def test_single_precision_drops_what_it_cannot_resolve_and_says_so():
    x = np.linspace(0, 1, 30)
    smooth = jnp.asarray(np.exp(-((x[:, None] - x[None]) ** 2) / 2), "float32")
    target = np.sin(3 * x)
    fit = ntk.kernel_regression(smooth, jnp.asarray(target, "float32"))
    assert int(fit.rank) < 10
    assert float(fit.condition) < 1 / (30 * np.finfo("float32").eps)
    vectors = np.linalg.eigh(np.asarray(smooth, "float64"))[1][:, ::-1][:, : int(fit.rank)]
    dropped = target - vectors @ (vectors.T @ target)
    assert np.max(np.abs(dropped)) > 1e-3
    np.testing.assert_allclose(fit.unexplained, dropped, atol=1e-3)
    np.testing.assert_allclose(smooth @ fit.coefficients, target - dropped, atol=1e-2)


def test_the_cutoff_is_relative_to_the_largest_eigenvalue(x64):
    kernel = jnp.diag(jnp.array([1e-3, 1.0, 1e-7]))
    ranks = [int(solve(kernel, jnp.ones(3), rcond=rcond).rank) for rcond in (0.0, 1e-6, 1e-2)]
    assert ranks == [3, 2, 1]
    fit = ntk.kernel_regression(1e-30 * kernel, jnp.ones(3), rcond=1e-6)
    np.testing.assert_allclose(fit.coefficients, [1e33, 1e30, 0.0])


def test_the_zero_kernel_explains_nothing():
    fit = ntk.kernel_regression(jnp.zeros((2, 2)), jnp.array([1.0, -2.0]))
    assert int(fit.rank) == 0
    assert fit.coefficients.tolist() == [0.0, 0.0]
    np.testing.assert_allclose(np.abs(fit.unexplained), [1.0, 2.0])


NO_KERNELS = {
    "indefinite": np.diag([1.0, -0.1]),
    "negative": -np.eye(2),
    "not symmetric": np.array([[1.0, 0.5], [0.0, 1.0]]),
    "NaN": np.array([[1.0, np.nan], [np.nan, 1.0]]),
}


@pytest.mark.parametrize("name", NO_KERNELS)
def test_what_is_no_kernel_gives_nan_and_an_error_when_checked(name):
    kernel = jnp.asarray(NO_KERNELS[name], "float32")
    fit = ntk.kernel_regression(kernel, jnp.ones(2))
    assert np.all(np.isnan(fit.coefficients))
    with pytest.raises(ValueError, match="must be symmetric positive semi-definite"):
        checked(ntk.kernel_regression)(kernel, jnp.ones(2))


def test_a_negative_ridge_gives_nan():
    assert np.all(np.isnan(ntk.kernel_regression(jnp.eye(2), jnp.ones(2), ridge=-0.1).coefficients))


def test_gradients_are_finite_and_right_at_coinciding_and_zero_eigenvalues(x64):
    """Repeated inputs and orthonormal features give both; the perturbation keeps the inputs repeated."""
    features = np.concatenate([np.eye(4), np.eye(4)[:1]])[:, None]
    direction = RNG.normal(size=features.shape)
    direction[4] = direction[0]

    def outcome(features):
        kernel = jnp.einsum("nkp,mlp->nmkl", features, features)
        fit = ntk.kernel_regression(kernel, RESIDUAL[:, :1])
        return jnp.sum(jnp.sin(fit.coefficients)) + jnp.sum(fit.unexplained**2 * jnp.arange(5.0)[:, None])

    gradient = jax.jit(jax.grad(outcome))(features)
    step = 1e-5
    moved = jax.jit(jax.vmap(outcome))(jnp.stack([features + step * direction, features - step * direction]))
    assert float(jnp.sum(gradient * direction)) == pytest.approx(float(moved[0] - moved[1]) / (2 * step), rel=1e-7)


@pytest.mark.parametrize("kernel", [(5,), (5, 4), (5, 5, 3), (5, 5, 2, 3)])
def test_kernels_that_do_not_fit_are_refused(kernel):
    with pytest.raises(ValueError, match=r"`kernel`|`residual`"):
        ntk.kernel_regression(np.ones(kernel), RESIDUAL)
