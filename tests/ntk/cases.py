"""Rows of the chapter Neural tangent kernel."""

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import ntk
from tests.cases import Case

_RNG = np.random.default_rng(0)
X, X_TEST = _RNG.normal(size=(4, 3)), _RNG.normal(size=(2, 3))
Y, OUTPUTS, TEST_OUTPUTS = _RNG.normal(size=(4, 2)), _RNG.normal(size=(4, 2)), _RNG.normal(size=(2, 2))
PARAMS = {"v": _RNG.normal(size=(5, 2)), "w": _RNG.normal(size=(3, 5))}
OTHER = {"v": _RNG.normal(size=(5, 2)), "w": _RNG.normal(size=(3, 5))}
FEATURES, TEST_FEATURES = _RNG.normal(size=(4, 2, 12)), _RNG.normal(size=(2, 2, 12))  # [n, k, p]
PRIOR, TEST_PRIOR = _RNG.normal(size=(4, 9)), _RNG.normal(size=(2, 9))
KERNEL, CROSS, TEST = np.eye(4), np.ones((2, 4)), np.eye(2)
TIMES = np.array([0.3, 2.0])
RATE = np.array(0.02)
KEY = jax.random.key(1)
LONG = np.ones((5, 2))


def _network(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def _of_network(function, **settings):
    """The function of parameters and inputs that is left when the network is given."""
    return lambda *args: function(_network, *args, **settings)


def _full(rows, columns):
    return jnp.einsum("nkp,mlp->nmkl", rows, columns)


def _by_output(rows, columns):
    return jnp.einsum("nkp,mkp->nmk", rows, columns)


def _from_features(function, kernel, *fields, **settings):
    """A prediction from features, whose kernels stay symmetric when they are perturbed."""

    def call(features, test_features, *args):
        outcome = function(kernel(features, features), kernel(test_features, features), *args, **settings)
        return tuple(getattr(outcome, field) for field in fields or ("train", "test", "eigenvalues"))

    return call


def _at(function, setting, **settings):
    """The last argument as a setting."""
    return lambda *args: function(*args[:-1], **{setting: args[-1]}, **settings)


def _modes(kernel, residual):
    """Up to the signs of eigenvectors."""
    eigenvalues, coefficients = ntk.kernel_modes(kernel, residual)
    return eigenvalues, jnp.abs(coefficients)


def _loss(outputs):
    return jnp.sum(jnp.logaddexp(0.0, -outputs * jnp.asarray(np.sign(Y), outputs.dtype)))


def _moments(features, test_features, prior, test_prior, y, time):
    train, cross, _ = _gram(features, test_features)
    return ntk.ensemble_moments(train, cross, *_gram(prior, test_prior), y, time=time)


def _gram(rows, others):
    return rows @ rows.T, others @ rows.T, others @ others.T


def _run(params, x, y, x_test, learning_rate):
    run = ntk.ntk_dynamics(_network, params, x, y, x_test, learning_rate=learning_rate, num_steps=4, record_every=2)
    return run._replace(mode_residuals=jnp.abs(run.mode_residuals), linear_mode_residuals=run.steps)


def _analytic(x1, x2, sigma_w, sigma_b):
    return ntk.analytic_ntk(x1, x2, depth=2, sigma_w=sigma_w, sigma_b=sigma_b, activation="relu")


CASES = (
    Case(
        "dltheory.ntk.analytic_ntk",
        call=_analytic,
        args=(X, X[:2], np.array(1.3), np.array(0.2)),
        wrong={"x2": (X, np.ones((2, 7)), np.array(1.3), np.array(0.2)), "sigma_b": (X, X, np.array(1.3), np.ones(2))},
        grad=(2, 3),
    ),
    Case(
        "dltheory.ntk.empirical_ntk",
        call=_of_network(ntk.empirical_ntk, block_size=3),
        args=(PARAMS, X, X_TEST),
        wrong={"x1": (PARAMS, np.array(1.0), X_TEST), "x2": (PARAMS, X, np.ones((2, 7)))},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.ntk.empirical_ntk",
        label="traced",
        call=_of_network(ntk.empirical_ntk, trace_axes=(-1,)),
        args=(PARAMS, X),
        wrong={"x1": (PARAMS, np.ones((0, 3)))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.ntk.empirical_nngp",
        call=_of_network(ntk.empirical_nngp, trace_axes=(-1,)),
        args=(PARAMS, X, X_TEST),
        wrong={"x1": (PARAMS, np.array(1.0), X_TEST), "x2": (PARAMS, X, np.ones((2, 7)))},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.ntk.ntk_matvec",
        call=lambda params, x, y, vector: ntk.ntk_matvec(_network, params, x, y)(vector),
        args=(PARAMS, X, X_TEST, TEST_OUTPUTS),
        wrong={
            "x1": (PARAMS, np.array(1.0), X_TEST, TEST_OUTPUTS),
            "x2": (PARAMS, X, np.ones((2, 7)), TEST_OUTPUTS),
            "vector": (PARAMS, X, X_TEST, LONG),
        },
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.ntk.tangent_features",
        call=_of_network(ntk.tangent_features),
        args=(PARAMS, X[0]),
        wrong={"apply_fn": (PARAMS, np.ones((2, 3)))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.ntk.jacobian",
        call=_of_network(ntk.jacobian),
        args=(PARAMS, X),
        wrong={"x": (PARAMS, np.array(1.0)), "apply_fn": (PARAMS, np.ones((2, 2, 3)))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.ntk.gram",
        call=_of_network(ntk.gram),
        args=(PARAMS, X),
        wrong={"x": (PARAMS, np.array(1.0)), "apply_fn": (PARAMS, np.ones((2, 2, 3)))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.ntk.linearize",
        call=lambda params0, params, x: ntk.linearize(_network, params0)(params, x),
        args=(PARAMS, OTHER, X),
        wrong={"params": (PARAMS, {**OTHER, "v": LONG.T}, X)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.ntk.taylor_expand",
        call=lambda params0, params, x: ntk.taylor_expand(_network, params0, 2)(params, x),
        args=(PARAMS, OTHER, X),
        wrong={"params": (PARAMS, {**OTHER, "v": LONG.T}, X)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.ntk.squared_loss",
        call=_of_network(ntk.squared_loss),
        args=(PARAMS, X, Y),
        wrong={"y": (PARAMS, X, LONG), "x": (PARAMS, np.array(1.0), Y), "apply_fn": (PARAMS, X[None], Y)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.ntk.parameter_velocity",
        call=_of_network(ntk.parameter_velocity),
        args=(PARAMS, X, Y),
        wrong={"y": (PARAMS, X, LONG), "x": (PARAMS, np.array(1.0), Y), "apply_fn": (PARAMS, X[None], Y)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.ntk.function_velocity",
        args=(_RNG.normal(size=(3, 4, 2, 2)), OUTPUTS, Y),
        wrong={
            "kernel": (np.ones((3, 4, 2, 3)), OUTPUTS, Y),
            "outputs": (CROSS, LONG, Y),
            "y": (CROSS, OUTPUTS, np.ones((4, 3))),
        },
        grad=(0, 1, 2),
    ),
    Case("dltheory.ntk.function_velocity", label="shared", args=(CROSS, OUTPUTS, Y), grad=(0, 1, 2)),
    Case(
        "dltheory.ntk.linearized_loss",
        args=(_RNG.normal(size=12), FEATURES, Y),
        wrong={
            "vartheta": (np.ones((2, 6)), FEATURES, Y),
            "jacobian": (np.ones(6), FEATURES, Y),
            "residual0": (np.ones(12), FEATURES, LONG),
        },
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.ntk.dual_to_primal",
        args=(FEATURES, Y),
        wrong={"jacobian": (FEATURES[0], Y), "coefficients": (FEATURES, LONG)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.ntk.kernel_regression",
        call=lambda features, y, ridge: ntk.kernel_regression(_full(features, features), y, ridge=ridge),
        args=(FEATURES, Y, np.array(0.1)),
        wrong={"residual": (FEATURES, LONG, np.array(0.1)), "ridge": (FEATURES, Y, TIMES)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.ntk.kernel_regression",
        label="shared",
        args=(3 * KERNEL, Y),
        wrong={"kernel": (CROSS, Y), "residual": (KERNEL, LONG)},
        grad=(1,),
    ),
    Case(
        "dltheory.ntk.predict",
        label="full",
        call=_from_features(_at(ntk.predict, "time"), _full),
        args=(FEATURES, TEST_FEATURES, Y, OUTPUTS, TEST_OUTPUTS, TIMES),
        wrong={
            "kernel_test_train": (FEATURES, TEST_FEATURES[:, :1], Y, OUTPUTS, TEST_OUTPUTS, TIMES),
            "y": (FEATURES, TEST_FEATURES, LONG, OUTPUTS, TEST_OUTPUTS, TIMES),
            "outputs_train": (FEATURES, TEST_FEATURES, Y, LONG, TEST_OUTPUTS, TIMES),
            "outputs_test": (FEATURES, TEST_FEATURES, Y, OUTPUTS, LONG, TIMES),
        },
        grad=(0, 1, 2, 3, 4, 5),
    ),
    Case(
        "dltheory.ntk.predict",
        label="by output, for ever, with a ridge",
        call=_from_features(_at(ntk.predict, "ridge"), _by_output),
        args=(FEATURES, TEST_FEATURES, Y, OUTPUTS, TEST_OUTPUTS, np.array(0.2)),
        wrong={"ridge": (FEATURES, TEST_FEATURES, Y, OUTPUTS, TEST_OUTPUTS, TIMES)},
        grad=(0, 1, 2, 3, 4, 5),
    ),
    Case(
        "dltheory.ntk.predict_steps",
        call=_from_features(_at(ntk.predict_steps, "learning_rate", num_steps=np.array([1, 7])), _full),
        args=(FEATURES, TEST_FEATURES, Y, OUTPUTS, TEST_OUTPUTS, RATE),
        wrong={
            "y": (FEATURES, TEST_FEATURES, LONG, OUTPUTS, TEST_OUTPUTS, RATE),
            "learning_rate": (FEATURES, TEST_FEATURES, Y, OUTPUTS, TEST_OUTPUTS, TIMES),
        },
        grad=(0, 1, 2, 3, 4, 5),
    ),
    Case(
        "dltheory.ntk.kernel_modes",
        call=_modes,
        args=(np.array([[3.0, 1.0], [1.0, 2.0]]), np.array([[1.0, 2.0], [0.5, -1.0]])),
        wrong={"kernel": (CROSS, Y), "residual": (KERNEL, LONG)},
        grad=(1,),
    ),
    Case(
        "dltheory.ntk.max_learning_rate",
        call=lambda features, momentum: ntk.max_learning_rate(_full(features, features), momentum),
        args=(FEATURES, np.array(0.5)),
        wrong={"momentum": (FEATURES, TIMES)},
        grad=(0, 1),
    ),
    Case("dltheory.ntk.max_learning_rate", label="of a kernel", args=(KERNEL,), wrong={"kernel": (CROSS,)}, grad=()),
    Case(
        "dltheory.ntk.predict_loss",
        call=_from_features(
            lambda train, cross, *args: ntk.predict_loss(_loss, train, cross, *args, max_steps=64),
            _full,
            "train",
            "test",
            "converged",
        ),
        args=(FEATURES, TEST_FEATURES, OUTPUTS, TEST_OUTPUTS, TIMES),
        wrong={
            "kernel_test_train": (FEATURES, TEST_FEATURES[:, :1], OUTPUTS, TEST_OUTPUTS, TIMES),
            "outputs_train": (FEATURES, TEST_FEATURES, LONG, TEST_OUTPUTS, TIMES),
            "outputs_test": (FEATURES, TEST_FEATURES, OUTPUTS, np.ones((2, 3)), TIMES),
            "times": (FEATURES, TEST_FEATURES, OUTPUTS, TEST_OUTPUTS, RATE),
        },
        grad=(),
    ),
    Case(
        "dltheory.ntk.ensemble_moments",
        call=_moments,
        args=(FEATURES[:, 0], TEST_FEATURES[:, 0], PRIOR, TEST_PRIOR, Y, TIMES),
        wrong={
            "y": (FEATURES[:, 0], TEST_FEATURES[:, 0], PRIOR, TEST_PRIOR, LONG, TIMES),
            "nngp_train": (FEATURES[:, 0], TEST_FEATURES[:, 0], PRIOR[1:], TEST_PRIOR, Y, TIMES),
            "nngp_test_train": (FEATURES[:, 0], TEST_FEATURES[:, 0], PRIOR, TEST_PRIOR[1:], Y, TIMES),
        },
        grad=(0, 1, 2, 3, 4, 5),
    ),
    Case(
        "dltheory.ntk.ensemble_moments",
        label="of kernels",
        args=(KERNEL, CROSS, KERNEL, CROSS, TEST, Y),
        wrong={
            "ntk_train": (CROSS, CROSS, KERNEL, CROSS, TEST, Y),
            "ntk_test_train": (KERNEL, CROSS[:, 1:], KERNEL, CROSS, TEST, Y),
            "nngp_test": (KERNEL, CROSS, KERNEL, CROSS, KERNEL, Y),
        },
        grad=(1, 3, 5),
    ),
    Case(
        "dltheory.ntk.kernel_drift",
        call=_of_network(ntk.kernel_drift),
        args=(PARAMS, OTHER, X),
        wrong={"x": (PARAMS, OTHER, np.array(1.0)), "params1": (PARAMS, {**OTHER, "v": LONG.T}, X)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.ntk.ntk_dynamics",
        call=_run,
        args=(PARAMS, X, Y, X_TEST, RATE),
        wrong={
            "y": (PARAMS, X, LONG, X_TEST, RATE),
            "x": (PARAMS, np.array(1.0), Y, X_TEST, RATE),
            "x_test": (PARAMS, X, Y, np.array(1.0), RATE),
            "learning_rate": (PARAMS, X, Y, X_TEST, TIMES),
        },
        grad=(),
    ),
    Case(
        "dltheory.ntk.hessian_operator_norm",
        call=lambda key, params, x: ntk.hessian_operator_norm(key, _network, params, x)._replace(residual=key),
        args=(KEY, PARAMS, X[0]),
        wrong={"apply_fn": (KEY, PARAMS, X)},
        grad=(),
    ),
    Case(
        "dltheory.ntk.lazy_ratio",
        call=lambda key, params, x, y: ntk.lazy_ratio(key, _network, params, x, y),
        args=(KEY, PARAMS, X[0], Y[0]),
        wrong={"y": (KEY, PARAMS, X[0], np.ones(3)), "apply_fn": (KEY, PARAMS, X, Y[0])},
        grad=(),
    ),
)
