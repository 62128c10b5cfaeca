"""Predictions with a constant kernel: flow, descent, any loss."""

# NumPy arrays stand in for JAX arrays throughout.
# pyright: reportArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from dltheory import ntk
from dltheory.debug import checked

PREDICTOR = pytest.mark.statement("ntk.predictor")
FLOW = pytest.mark.statement("ntk.function_space_flow")
RNG = np.random.default_rng(0)
N, M, K, P = 5, 3, 2, 14
FEATURES = RNG.normal(size=(N, K, P))
FEATURES[1] = FEATURES[0]  # a repeated input with two labels: K is singular
TEST_FEATURES = RNG.normal(size=(M, K, P))
Y, F0, G0 = RNG.normal(size=(N, K)), RNG.normal(size=(N, K)), RNG.normal(size=(M, K))
TIMES = np.array([0.0, 0.1, 3.0, 50.0])


def full(rows, columns):
    return np.einsum("nkp,mlp->nmkl", rows, columns)


def by_output(rows, columns):
    return np.einsum("nkp,mkp->nmk", rows, columns)


FORMS = {
    "full": (full(FEATURES, FEATURES), full(TEST_FEATURES, FEATURES)),
    "by output": (by_output(FEATURES, FEATURES), by_output(TEST_FEATURES, FEATURES)),
    "shared": (by_output(FEATURES, FEATURES)[:, :, 0], by_output(TEST_FEATURES, FEATURES)[:, :, 0]),
}


def as_full(kernel):
    """Any form of a kernel as a matrix [rows k, columns k]."""
    if kernel.ndim == 2:
        kernel = np.repeat(kernel[:, :, None], K, 2)
    if kernel.ndim == 3:
        kernel = kernel[:, :, :, None] * np.eye(K)
    return np.moveaxis(kernel, 2, 1).reshape(kernel.shape[0] * K, -1)


# One program for all arguments of the same shapes: eagerly their operations are compiled one by one.
predict, predict_steps = jax.jit(ntk.predict), jax.jit(ntk.predict_steps)
kernel_modes, kernel_regression = jax.jit(ntk.kernel_modes), jax.jit(ntk.kernel_regression)


def solved(train, cross, time, ridge=0.0):
    """Outputs by the matrix exponential of the whole system: residual at training and movement at test inputs."""
    n, m = N * K, M * K
    rate, cross = as_full(train), as_full(cross)
    # The dual coefficients a of f = f0 + K a: da/dt = (y - f0 - K a) - ridge a, with the constant as one more state.
    system = np.zeros((n + 1, n + 1))
    system[:n, :n] = -(rate + ridge * np.eye(n))
    system[:n, n] = (Y - F0).ravel()
    dual = scipy.linalg.expm(time * system)[:n, n]
    return F0 + (rate @ dual).reshape(N, K), G0 + (cross @ dual).reshape(m // K, K)


@PREDICTOR
@pytest.mark.parametrize("form", FORMS)
def test_flow_equals_the_matrix_exponential_at_all_times(x64, form):
    learned = predict(*FORMS[form], Y, F0, G0, time=TIMES)
    for i, time in enumerate(TIMES):
        train, test = solved(*FORMS[form], time)
        np.testing.assert_allclose(learned.train[i], train, atol=1e-10)
        np.testing.assert_allclose(learned.test[i], test, atol=1e-10)


@PREDICTOR
@pytest.mark.parametrize("form", FORMS)
def test_infinite_time_is_the_pseudo_inverse(x64, form):
    train, cross = FORMS[form]
    learned = predict(train, cross, Y, F0, G0, time=np.inf)
    dual = np.linalg.pinv(as_full(train), rcond=1e-12) @ (Y - F0).ravel()
    np.testing.assert_allclose(learned.test, G0 + (as_full(cross) @ dual).reshape(M, K), atol=1e-9)
    np.testing.assert_allclose(learned.train, F0 + (as_full(train) @ dual).reshape(N, K), atol=1e-9)
    late = predict(train, cross, Y, F0, G0, time=1e300)
    np.testing.assert_array_equal(late.test, learned.test)
    regression = kernel_regression(train, Y - F0, ridge=0.0)
    np.testing.assert_array_equal(regression.rank, learned.rank)
    assert int(np.sum(learned.rank)) == {"full": 8, "by output": 8, "shared": 4}[form]


@PREDICTOR
def test_with_a_ridge_the_flow_forgets_towards_ridge_regression(x64):
    train, cross = FORMS["full"]
    times = np.append(TIMES, np.inf)
    learned = predict(train, cross, Y, F0, G0, time=times, ridge=0.7)
    for i, time in enumerate([*TIMES, 1e3]):
        expected = solved(train, cross, time, ridge=0.7)
        np.testing.assert_allclose(learned.train[i], expected[0], atol=1e-10)
        np.testing.assert_allclose(learned.test[i], expected[1], atol=1e-10)
    dual = kernel_regression(train, Y - F0, ridge=0.7).coefficients
    np.testing.assert_allclose(learned.test[-1], G0 + np.einsum("mnkl,nl->mk", cross, dual), atol=1e-11)


@PREDICTOR
@pytest.mark.parametrize("learning_rate", [0.01, 0.03, 0.1])
def test_steps_equal_descent_on_the_parameters_of_the_linearised_network(x64, learning_rate):
    """Also beyond the stable learning rate, where modes alternate and grow."""
    num_steps = np.array([0, 1, 2, 7, 60])
    predicted = predict_steps(*FORMS["full"], Y, F0, G0, learning_rate=learning_rate, num_steps=num_steps)
    flat, shift, at = FEATURES.reshape(N * K, P), np.zeros(P), 0
    stable = learning_rate < 2 / np.linalg.norm(flat, 2) ** 2
    for i, steps in enumerate(num_steps):
        for _ in range(at, steps):
            shift = shift - learning_rate * flat.T @ (flat @ shift - (Y - F0).ravel())
        at = steps
        np.testing.assert_allclose(predicted.train[i], F0 + FEATURES @ shift, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(predicted.test[i], G0 + TEST_FEATURES @ shift, rtol=1e-9, atol=1e-9)
    assert stable == (np.linalg.norm(predicted.train[-1]) < 10)


@PREDICTOR
def test_small_steps_are_the_flow(x64):
    train, cross = FORMS["full"]
    flow = predict(train, cross, Y, F0, G0, time=1.0).test
    errors = [
        np.max(np.abs(predict_steps(train, cross, Y, F0, G0, learning_rate=1 / s, num_steps=s).test - flow))
        for s in (1000, 2000)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.05)


@PREDICTOR
def test_modes_decay_at_their_eigenvalues_however_small_they_get(x64):
    train, cross = FORMS["full"]
    times = np.array([0.0, 1.0, 5.0, 5.0])
    learned = predict(train, cross, Y, F0, G0, time=times)
    eigenvalues = np.linalg.eigvalsh(as_full(train))[::-1]
    np.testing.assert_allclose(learned.eigenvalues, np.where(eigenvalues > 1e-9, eigenvalues, 0), atol=1e-11)
    decayed = np.asarray(learned.mode_residuals[0]) * np.exp(-times[:, None] * np.asarray(learned.eigenvalues))
    np.testing.assert_allclose(learned.mode_residuals, decayed, rtol=1e-12)
    assert np.min(np.abs(learned.mode_residuals[2, :8])) < 1e-40  # far below the rounding of the outputs
    np.testing.assert_array_equal(learned.mode_residuals[:, 8:], learned.mode_residuals[[0, 0, 0, 0], 8:])


@PREDICTOR
@pytest.mark.parametrize("form", FORMS)
def test_modes_are_those_of_the_residual(x64, form):
    train, cross = FORMS[form]
    learned = predict(train, cross, Y, F0, G0, time=TIMES)
    residual = Y - np.asarray(learned.train)
    eigenvalues, modes = kernel_modes(train, residual)
    np.testing.assert_allclose(learned.eigenvalues, eigenvalues, atol=1e-12)
    np.testing.assert_allclose(learned.mode_residuals, modes, atol=1e-10)
    assert modes.shape == ((4, N * K) if form == "full" else (4, N, K))
    same = (1, 2) if form == "full" else 1  # outputs that do not mix keep their norms
    np.testing.assert_allclose(np.sum(modes**2, 1), np.sum(residual**2, same), rtol=1e-10)
    one = by_output(FEATURES, FEATURES)[:, :, 0]
    np.testing.assert_allclose(kernel_modes(one, Y[:, 0])[1], kernel_modes(one, Y)[1][:, 0], atol=1e-13)


@PREDICTOR
def test_null_modes_neither_divide_by_zero_nor_drift_with_rounding():
    """In single precision the kernel's null space is only null to rounding, which long times would amplify."""
    train, cross = (jnp.asarray(kernel, "float32") for kernel in FORMS["full"])
    y, f0, g0 = (jnp.asarray(a, "float32") for a in (Y, F0, G0))
    times = jnp.array([0.0, 10.0, 1e3, 1e6, 1e12, 1e30, jnp.inf])
    learned = predict(train, cross, y, f0, g0, time=times)
    exact = np.linalg.pinv(as_full(FORMS["full"][0]), rcond=1e-12) @ (Y - F0).ravel()
    expected = G0 + (as_full(FORMS["full"][1]) @ exact).reshape(M, K)
    for late in learned.test[2:]:
        np.testing.assert_allclose(late, expected, atol=5e-3)
    zero = predict(jnp.zeros((2, 2)), jnp.zeros((1, 2)), jnp.ones(2), time=times)
    assert np.all(zero.train == 0)
    assert np.all(zero.test == 0)


@PREDICTOR
def test_an_exactly_null_mode_drifts_linearly_where_the_cross_kernel_says_so(x64):
    moved = predict(jnp.diag(jnp.array([1.0, 0.0])), jnp.ones((1, 2)), jnp.ones(2), time=jnp.array([0.5, 2.0])).test
    np.testing.assert_allclose(moved[:, 0], 1 - np.exp([-0.5, -2.0]) + [0.5, 2.0], rtol=1e-14)


@PREDICTOR
@pytest.mark.parametrize("time", [0.0, 0.3, 20.0, np.inf])
def test_gradients_are_right_where_eigenvalues_coincide_and_vanish(x64, time):
    """Orthonormal features, one input repeated; the perturbation keeps it repeated."""
    features = np.concatenate([np.eye(4), np.eye(4)[:1]])
    direction, test = RNG.normal(size=features.shape), RNG.normal(size=(3, 4))
    direction[4] = direction[0]

    def outcome(features, time):
        learned = ntk.predict(features @ features.T, test @ features.T, Y[:, 0], F0[:, 0], time=time)
        return jnp.sum(jnp.sin(learned.test)) + jnp.sum(jnp.cos(learned.train)) + jnp.sum(learned.eigenvalues)

    gradient = jax.jit(jax.grad(outcome))(features, time)
    step = 1e-5
    moved = jax.jit(jax.vmap(outcome, in_axes=(0, None)))(
        jnp.stack([features + step * direction, features - step * direction]), time
    )
    assert np.all(np.isfinite(gradient))
    assert float(jnp.sum(gradient * direction)) == pytest.approx(float(moved[0] - moved[1]) / (2 * step), rel=1e-6)


@PREDICTOR
def test_second_derivatives_where_eigenvalues_differ(x64):
    root, test = RNG.normal(size=(4, 4)), RNG.normal(size=(2, 4))

    def outcome(scale):
        features = root + scale * np.diag(np.arange(4.0))
        return jnp.sum(jnp.sin(ntk.predict(features @ features.T, test @ features.T, Y[:4, 0], time=0.7).test))

    slope = jax.jit(jax.grad(outcome))
    second = jax.jit(jax.grad(jax.grad(outcome)))(0.1)
    assert float(second) == pytest.approx(float(slope(0.1 + 1e-5) - slope(0.1 - 1e-5)) / 2e-5, rel=1e-4)


@PREDICTOR
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_largest_learning_rate_divides_convergence_from_divergence(x64, momentum):
    train = FORMS["full"][0]
    kernel = as_full(train) + 0.5 * np.eye(N * K)
    limit = float(jax.jit(ntk.max_learning_rate)(jnp.asarray(kernel), momentum))

    def run(rate):
        before = now = (Y - F0).ravel()
        for _ in range(2000):
            if np.max(np.abs(now)) > 1e6:
                break
            before, now = now, now - rate * kernel @ now + momentum * (now - before)
        return np.linalg.norm(now)

    assert run(0.99 * limit) < 1e-3 * np.linalg.norm(Y - F0)
    assert run(1.01 * limit) > 1e3 * np.linalg.norm(Y - F0)
    assert float(jax.jit(ntk.max_learning_rate)(train)) == pytest.approx(
        2 / np.linalg.eigvalsh(as_full(train))[-1], rel=1e-12
    )
    assert float(jax.jit(ntk.max_learning_rate)(FORMS["by output"][0])) == pytest.approx(
        2 / np.linalg.eigvalsh(as_full(FORMS["by output"][0]))[-1], rel=1e-12
    )


@PREDICTOR
def test_learning_rates_at_the_edge():
    assert float(ntk.max_learning_rate(jnp.zeros((2, 2)))) == np.inf
    for momentum in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match="`momentum` must lie in"):
            ntk.max_learning_rate(jnp.eye(2), momentum)
    assert np.isnan(float(ntk.max_learning_rate(jnp.eye(2), jnp.array(1.0))))


BAD_VALUES = {
    "indefinite": ({"kernel_train": np.diag([1.0, -1.0])}, "must be symmetric positive semi-definite"),
    "not symmetric": ({"kernel_train": np.triu(np.ones((2, 2)))}, "must be symmetric positive semi-definite"),
    "negative time": ({"time": jnp.array([-1.0])}, "`time` must be non-negative"),
    "NaN time": ({"time": jnp.array([np.nan])}, "`time` must be non-negative"),
}


@PREDICTOR
@pytest.mark.parametrize("name", BAD_VALUES)
def test_bad_values_give_nan_and_an_error_when_checked(name):
    wrong, message = BAD_VALUES[name]
    arguments = {
        "kernel_train": np.eye(2),
        "kernel_test_train": np.ones((1, 2)),
        "y": np.ones(2),
        "time": jnp.array([1.0]),
    }
    arguments |= wrong
    learned = predict(**arguments)
    assert np.all(np.isnan(learned.test))
    assert np.all(np.isnan(learned.train))
    with pytest.raises(ValueError, match=message):
        checked(predict)(**arguments)


@PREDICTOR
def test_numbers_of_steps_must_be_natural():
    arguments = np.eye(2), np.ones((1, 2)), np.ones(2)
    with pytest.raises(ValueError, match="`num_steps` must be integer"):
        ntk.predict_steps(*arguments, learning_rate=0.1, num_steps=1.5)
    assert np.all(np.isnan(predict_steps(*arguments, learning_rate=0.1, num_steps=np.array([-1, -1, -1])).train))
    whole = predict_steps(*arguments, learning_rate=1.0, num_steps=np.array([0, 1, 5]))  # at once
    np.testing.assert_array_equal(whole.train, [[0, 0], [1, 1], [1, 1]])


BAD_SHAPES = {
    "y": {"y": np.ones((3, 2))},
    "kernel_test_train": {"kernel_test_train": np.ones((1, 2, 1))},
    "outputs_train": {"outputs_train": np.ones(1)},
    "outputs_test": {"outputs_test": np.ones(2)},
    "ridge": {"ridge": np.ones(2)},
    "rcond": {"rcond": np.ones(2)},
    "kernel_train": {"kernel_train": np.ones(2)},
}


@PREDICTOR
@pytest.mark.parametrize("name", BAD_SHAPES)
def test_shapes_that_do_not_fit_are_refused(name):
    arguments = {"kernel_train": np.eye(2), "kernel_test_train": np.ones((1, 2)), "y": np.ones(2)}
    with pytest.raises(ValueError, match=f"`{name}`"):
        ntk.predict(**arguments | BAD_SHAPES[name])


@PREDICTOR
def test_an_empty_training_set_is_refused_and_an_empty_test_set_is_not():
    with pytest.raises(ValueError, match="`y` must not be empty"):
        ntk.predict(np.ones((0, 0)), np.ones((1, 0)), np.ones(0))
    assert predict(np.eye(2), np.ones((0, 2)), np.ones((2, 3))).test.shape == (0, 3)


@pytest.mark.statement("ntk.kernel_machine")
def test_scalar_and_absent_outputs_at_the_start(x64):
    train, cross = FORMS["shared"]
    one = predict(train, cross, Y, 1.0, 1.0, time=2.0)
    two = predict(train, cross, Y, np.ones_like(Y), np.ones((M, K)), time=2.0)
    np.testing.assert_array_equal(one.test, two.test)
    none = predict(train, cross, Y, time=2.0)
    np.testing.assert_allclose(none.test, predict(train, cross, 2 * Y, time=2.0).test / 2, rtol=1e-12)


# Any loss.


def squared(outputs):
    return jnp.sum((outputs - Y) ** 2) / 2


def cross_entropy(outputs):
    return -jnp.sum(jax.nn.log_softmax(outputs)[jnp.arange(N), jnp.array([0, 1, 1, 0, 1])])


@FLOW
@pytest.mark.parametrize("form", FORMS)
def test_of_the_squared_loss_the_solver_finds_the_closed_form(x64, form):
    train, cross = FORMS[form]
    tight = {"rtol": 1e-9, "atol": 1e-11}
    solve = jax.jit(lambda kernel, cross: ntk.predict_loss(squared, kernel, cross, F0, G0, TIMES, **tight))
    later, exact = solve(train, cross), predict(train, cross, Y, F0, G0, time=TIMES)
    assert bool(later.converged)
    np.testing.assert_allclose(later.train, exact.train, atol=1e-7)
    np.testing.assert_allclose(later.test, exact.test, atol=1e-7)


@FLOW
@pytest.mark.parametrize(("momentum", "order"), [(None, 1), pytest.param(0.0, 2, marks=pytest.mark.slow), (0.6, 2)])
def test_the_flow_follows_descent_on_the_linear_model_to_its_order(x64, momentum, order):
    """Cross-entropy, parameters of the linear model moved step by step in NumPy."""

    def run(rate, num_steps):
        shift, before = np.zeros(P), np.zeros(P)
        for _ in range(num_steps):
            slope = np.asarray(gradient(F0 + FEATURES @ shift))
            step = -rate * np.einsum("nkp,nk->p", FEATURES, slope) + (momentum or 0.0) * (shift - before)
            shift, before = shift + step, shift
        return G0 + TEST_FEATURES @ shift

    def flow(rate):
        settings = {} if momentum is None else {"momentum": momentum, "learning_rate": rate}
        times = jnp.array([0.4])
        later = ntk.predict_loss(cross_entropy, *FORMS["full"], F0, G0, times, rtol=1e-9, atol=1e-11, **settings)
        return later.test[0], later.converged

    gradient, flow = jax.jit(jax.grad(cross_entropy)), jax.jit(flow)
    errors = []
    for num_steps in (200, 400):
        predicted, converged = flow(0.4 / num_steps)
        assert bool(converged)
        errors.append(np.max(np.abs(predicted - run(0.4 / num_steps, num_steps))))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.slow
@FLOW
def test_gradients_through_the_solver_are_those_of_the_closed_form(x64):
    def features_to_kernels(features):
        return features @ features.T, TEST_FEATURES[:, 0] @ features.T

    @jax.jit
    @jax.grad
    def by_solver(features):
        later = ntk.predict_loss(
            lambda f: jnp.sum((f - Y) ** 2) / 2, *features_to_kernels(features), F0, G0, jnp.array([0.1]),
            rtol=1e-8, atol=1e-10, max_steps=64,
        )  # fmt: skip
        return jnp.sum(jnp.sin(later.test))

    @jax.jit
    @jax.grad
    def in_closed_form(features):
        return jnp.sum(jnp.sin(ntk.predict(*features_to_kernels(features), Y, F0, G0, time=0.1).test))

    features = FEATURES[:, 0]
    np.testing.assert_allclose(by_solver(features), in_closed_form(features), rtol=1e-5, atol=1e-7)


@FLOW
def test_a_solver_that_runs_out_of_steps_says_so():
    @jax.jit
    def solve(scale):
        arguments = scale * jnp.eye(2), jnp.eye(2), jnp.ones(2), jnp.ones(2), jnp.array([10.0])
        return ntk.predict_loss(lambda f: jnp.sum(f**2), *arguments, max_steps=20)

    later = solve(100.0)
    assert not bool(later.converged)
    assert not np.any(np.isfinite(later.test))


@FLOW
def test_times_out_of_order_give_nan_and_an_error_when_checked():
    @jax.jit
    def solve(times):
        return ntk.predict_loss(lambda f: jnp.sum(f**2), jnp.eye(2), jnp.eye(2), jnp.ones(2), jnp.ones(2), times)

    for times in ([1.0, 1.0], [-1.0, 1.0], [1.0, np.inf], [np.nan, 1.0]):
        later = solve(jnp.array(times))
        assert np.all(np.isnan(later.train))
        assert not bool(later.converged)
    with pytest.raises(ValueError, match="`times` must be increasing"):
        checked(solve)(jnp.array([1.0, 0.5]))


BAD_SETTINGS = {
    "momentum": {"momentum": 0.5},
    "`momentum` must lie": {"momentum": 1.0, "learning_rate": 0.1},
    "learning_rate": {"momentum": 0.5, "learning_rate": 0.0},
    "rtol": {"rtol": 0.0},
    "atol": {"atol": 0.0},
    "max_steps": {"max_steps": 0},
    "`times` must hold": {"times": np.ones(0)},
    "loss_fn": {"loss_fn": lambda f: f},
    "outputs_test": {"outputs_test": np.ones((2, 1))},
}


@FLOW
@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_settings_of_the_solver_out_of_range_are_refused(name):
    arguments = {
        "loss_fn": lambda f: jnp.sum(f**2),
        "kernel_train": np.eye(2),
        "kernel_test_train": np.eye(2),
        "outputs_train": np.ones(2),
        "outputs_test": np.ones(2),
        "times": np.ones(1),
    }
    with pytest.raises(ValueError, match=name):
        ntk.predict_loss(**arguments | BAD_SETTINGS[name])
