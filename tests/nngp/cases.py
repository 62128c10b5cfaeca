"""Rows of the chapter on networks as Gaussian processes."""

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import nngp
from tests.cases import Case

_RNG = np.random.default_rng(0)
X1, X2 = _RNG.normal(size=(4, 3)), _RNG.normal(size=(2, 3))
NARROW = np.ones((2, 2))
Q1, Q2 = np.array([[0.8], [1.5], [0.3]]), np.array([[1.1, 0.6]])
COVARIANCE = np.array([[0.5, -0.3], [0.9, 0.6], [-0.4, 0.1]])
FEATURES = _RNG.normal(size=(6, 8))
GRAM = FEATURES @ FEATURES.T
TARGETS = _RNG.normal(size=(4, 2))
NOISE = np.array(0.3)
SIGMA_W, SIGMA_B = np.array(1.3), np.array(0.2)
VECTOR = np.ones(2)
MISFIT = np.ones((5, 2))


def _dual_case(name, *settings, label="", grad=(0, 1, 2), **fields):
    """Both functions of a dual, at pairs of covariances; its settings are arguments too."""

    def both(variance1, variance2, covariance, *settings):
        dual = getattr(nngp, name)(*settings)
        pairs = nngp.pair_covariance(variance1, variance2, covariance)
        return dual.kernel(pairs), dual.derivative(pairs)

    args = (Q1, Q2, COVARIANCE, *settings)
    return Case(f"dltheory.nngp.{name}", call=both, args=args, grad=grad, label=label, **fields)


def _static_case(name, make, label="", **fields):
    def both(variance1, variance2, covariance):
        dual = make()
        pairs = nngp.pair_covariance(variance1, variance2, covariance)
        return dual.kernel(pairs), dual.derivative(pairs)

    return Case(f"dltheory.nngp.{name}", call=both, args=(Q1, Q2, COVARIANCE), grad=(0, 1, 2), label=label, **fields)


def _square():
    return nngp.smooth_dual(
        lambda q: 3 * q**2,
        lambda pairs: pairs.variance1 * pairs.variance2 + 2 * pairs.covariance**2,
        lambda pairs: 4 * pairs.covariance,
        parity=1,
    )


def _of_pairs(function):
    return lambda q1, q2, covariance, *rest: function(nngp.pair_covariance(q1, q2, covariance), *rest)


def _network_step(q1, q2, covariance, sigma_w, sigma_b):
    kernels = nngp.NetworkKernels(nngp.pair_covariance(q1, q2, covariance), covariance)
    return nngp.network_kernel_step(kernels, "relu", sigma_w, sigma_b)


def _full(function, activation):
    def call(x1, x2, sigma_w, sigma_b):
        return function(x1, x2, depth=2, sigma_w=sigma_w, sigma_b=sigma_b, activation=activation)

    return call


def _symmetric(matrix):
    """A covariance stays one when an entry is perturbed; what is not square is left to the function to refuse."""
    return (matrix + matrix.T) / 2 if matrix.shape[0] == matrix.shape[1] else matrix


def _condition(gram, y, noise):
    gram = _symmetric(gram)
    return nngp.gp_condition(gram[:4, :4], gram[4:, :4], gram[4:, 4:], y, noise=noise)


_NETWORK = (X1, X2, SIGMA_W, SIGMA_B)
_NETWORK_WRONG = {"x2": (X1, NARROW, SIGMA_W, SIGMA_B), "sigma_w": (X1, X2, VECTOR, SIGMA_B)}
_SETTING = np.array(0.7)

CASES = (
    Case(
        "dltheory.nngp.linear_kernel",
        call=lambda x1, x2, gamma: nngp.linear_kernel(x1, x2, gamma=gamma),
        args=(X1, X2, SIGMA_W),
        wrong={"x2": (X1, NARROW, SIGMA_W), "gamma": (X1, X2, VECTOR)},
        grad=(0, 1, 2),
    ),
    Case("dltheory.nngp.input_covariance", args=(X1, X2), wrong={"x2": (X1, NARROW)}, grad=(0, 1)),
    Case("dltheory.nngp.input_covariance", args=(X1,), wrong={"x1": (VECTOR,)}, label="one set"),
    Case(
        "dltheory.nngp.pair_covariance",
        args=(Q1, Q2, COVARIANCE),
        wrong={"covariance": (Q1, Q2, MISFIT), "variance2": (Q1, VECTOR, COVARIANCE)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.nngp.affine_covariance",
        call=_of_pairs(nngp.affine_covariance),
        args=(Q1, Q2, COVARIANCE, SIGMA_W, SIGMA_B),
        grad=(0, 1, 2, 3, 4),
    ),
    Case("dltheory.nngp.correlation", call=_of_pairs(nngp.correlation), args=(Q1, Q2, COVARIANCE), grad=(0, 1, 2)),
    Case(
        "dltheory.nngp.half_squared_distance",
        call=_of_pairs(nngp.half_squared_distance),
        args=(Q1, Q2, COVARIANCE),
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.nngp.kernel_step",
        call=_of_pairs(lambda pairs, w, b: nngp.kernel_step(pairs, jax.nn.relu, w, b)),
        args=(Q1, Q2, COVARIANCE, SIGMA_W, SIGMA_B),
        grad=(0, 1, 2, 3, 4),
    ),
    Case(
        "dltheory.nngp.network_kernel_step",
        call=_network_step,
        args=(Q1, Q2, COVARIANCE, SIGMA_W, SIGMA_B),
        grad=(0, 1, 2, 3, 4),
    ),
    Case(
        "dltheory.nngp.fully_connected_kernels",
        call=_full(nngp.fully_connected_kernels, "erf"),
        args=_NETWORK,
        wrong=_NETWORK_WRONG,
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.nngp.kernel",
        call=_full(nngp.kernel, "relu"),
        args=_NETWORK,
        wrong=_NETWORK_WRONG,
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.nngp.arccos_kernel",
        args=(Q1, COVARIANCE, Q2),
        wrong={"k12": (Q1, MISFIT, Q2), "k22": (Q1, COVARIANCE, VECTOR)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.nngp.erf_kernel",
        args=(Q1, COVARIANCE, Q2),
        wrong={"k12": (Q1, MISFIT, Q2), "k22": (Q1, COVARIANCE, VECTOR)},
        grad=(0, 1, 2),
    ),
    _dual_case("rectifier_dual", _SETTING, np.array(1.2), grad=(0, 1, 2, 3, 4)),
    _static_case("sign_dual", nngp.sign_dual),
    _static_case("rectified_monomial_dual", lambda: nngp.rectified_monomial_dual(3)),
    _static_case("rectified_monomial_dual", lambda: nngp.rectified_monomial_dual(0), label="step"),
    _dual_case("erf_dual", _SETTING, np.array(1.2), np.array(0.3), grad=(0, 1, 2, 3, 4, 5)),
    _static_case("sigmoid_like_dual", nngp.sigmoid_like_dual),
    _static_case("gelu_dual", nngp.gelu_dual),
    _dual_case("sine_dual", _SETTING, np.array(1.2), np.array(0.3), grad=(0, 1, 2, 3, 4, 5)),
    _dual_case("rbf_dual", _SETTING, grad=(0, 1, 2, 3)),
    _dual_case("exponential_dual", _SETTING, np.array(0.4), grad=(0, 1, 2, 3, 4)),
    _dual_case("normalized_exponential_dual", _SETTING, np.array(-0.9), grad=(0, 1, 2, 3, 4)),
    _dual_case("gaussian_dual", _SETTING, np.array(-0.4), grad=(0, 1, 2, 3, 4)),
    _static_case("gabor_dual", nngp.gabor_dual),
    _static_case("polynomial_dual", lambda: nngp.polynomial_dual([0.2, -0.5, 0.3, 0.1])),
    _static_case("series_dual", lambda: nngp.series_dual(jnp.tanh, num_terms=32)),
    _static_case("quadrature_dual", lambda: nngp.quadrature_dual(jnp.tanh)),
    _static_case("smooth_dual", _square),
    _static_case("dual_activation", lambda: nngp.dual_activation("cos")),
    Case(
        "dltheory.nngp.hermite_coefficients",
        call=lambda variance: nngp.hermite_coefficients(jnp.tanh, variance, num_terms=8),
        args=(Q2,),
    ),
    Case(
        "dltheory.nngp.series_error",
        call=lambda variance: nngp.series_error(lambda x: jnp.abs(x) * x, variance, num_terms=4, kinks=(0.0,)),
        args=(Q2,),
        grad=(),  # homogeneous: the fraction does not depend on the variance
    ),
    Case("dltheory.nngp.excess_kurtosis", args=(_RNG.normal(size=7),), wrong={"samples": (X1,)}),
    Case(
        "dltheory.nngp.gp_condition",
        call=_condition,
        args=(GRAM, TARGETS, NOISE),
        wrong={"y": (GRAM, np.ones((3, 2)), NOISE), "noise": (GRAM, TARGETS, VECTOR)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.nngp.gp_evidence",
        call=lambda k_train, y, noise: nngp.gp_evidence(_symmetric(k_train), y, noise=noise),
        args=(GRAM[:4, :4], TARGETS, NOISE),
        wrong={"k_train": (X1, TARGETS, NOISE), "y": (GRAM[:4, :4], np.ones(3), NOISE)},
        grad=(0, 1, 2),
    ),
)
