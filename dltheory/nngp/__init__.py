"""Wide networks as Gaussian processes: dual activations, kernel recursions, and regression with the kernels."""

from dltheory.nngp.activations import Activation, dual_activation
from dltheory.nngp.covariances import (
    PairCovariance,
    affine_covariance,
    correlation,
    half_squared_distance,
    input_covariance,
    linear_kernel,
    pair_covariance,
)
from dltheory.nngp.dual import Dual, smooth_dual
from dltheory.nngp.moments import excess_kurtosis
from dltheory.nngp.quadrature import quadrature_dual
from dltheory.nngp.rectifiers import arccos_kernel, rectified_monomial_dual, rectifier_dual, sign_dual
from dltheory.nngp.recursion import (
    NetworkKernels,
    fully_connected_kernels,
    kernel,
    kernel_step,
    network_kernel_step,
)
from dltheory.nngp.regression import GpEvidence, GpPosterior, gp_condition, gp_evidence
from dltheory.nngp.series import SeriesError, hermite_coefficients, polynomial_dual, series_dual, series_error
from dltheory.nngp.smooth import (
    erf_dual,
    erf_kernel,
    exponential_dual,
    gabor_dual,
    gaussian_dual,
    gelu_dual,
    normalized_exponential_dual,
    rbf_dual,
    sigmoid_like_dual,
    sine_dual,
)

__all__ = [
    "Activation",
    "Dual",
    "GpEvidence",
    "GpPosterior",
    "NetworkKernels",
    "PairCovariance",
    "SeriesError",
    "affine_covariance",
    "arccos_kernel",
    "correlation",
    "dual_activation",
    "erf_dual",
    "erf_kernel",
    "excess_kurtosis",
    "exponential_dual",
    "fully_connected_kernels",
    "gabor_dual",
    "gaussian_dual",
    "gelu_dual",
    "gp_condition",
    "gp_evidence",
    "half_squared_distance",
    "hermite_coefficients",
    "input_covariance",
    "kernel",
    "kernel_step",
    "linear_kernel",
    "network_kernel_step",
    "normalized_exponential_dual",
    "pair_covariance",
    "polynomial_dual",
    "quadrature_dual",
    "rbf_dual",
    "rectified_monomial_dual",
    "rectifier_dual",
    "series_dual",
    "series_error",
    "sigmoid_like_dual",
    "sign_dual",
    "sine_dual",
    "smooth_dual",
]
