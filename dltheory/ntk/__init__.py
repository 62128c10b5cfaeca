"""The neural tangent kernel: what gradient descent does to a wide network, at finite width and in the limit."""

from dltheory.ntk.analytic import analytic_ntk
from dltheory.ntk.dynamics import NtkDynamics, kernel_drift, ntk_dynamics
from dltheory.ntk.empirical import empirical_nngp, empirical_ntk, ntk_matvec
from dltheory.ntk.ensembles import EnsembleMoments, ensemble_moments
from dltheory.ntk.hessian import HessianNorm, LazyRatio, hessian_operator_norm, lazy_ratio
from dltheory.ntk.linearization import (
    dual_to_primal,
    function_velocity,
    gram,
    jacobian,
    linearize,
    linearized_loss,
    parameter_velocity,
    squared_loss,
    tangent_features,
    taylor_expand,
)
from dltheory.ntk.prediction import (
    LossPrediction,
    Prediction,
    kernel_modes,
    max_learning_rate,
    predict,
    predict_loss,
    predict_steps,
)
from dltheory.ntk.regression import KernelRegression, kernel_regression

__all__ = [
    "EnsembleMoments",
    "HessianNorm",
    "KernelRegression",
    "LazyRatio",
    "LossPrediction",
    "NtkDynamics",
    "Prediction",
    "analytic_ntk",
    "dual_to_primal",
    "empirical_nngp",
    "empirical_ntk",
    "ensemble_moments",
    "function_velocity",
    "gram",
    "hessian_operator_norm",
    "jacobian",
    "kernel_drift",
    "kernel_modes",
    "kernel_regression",
    "lazy_ratio",
    "linearize",
    "linearized_loss",
    "max_learning_rate",
    "ntk_dynamics",
    "ntk_matvec",
    "parameter_velocity",
    "predict",
    "predict_loss",
    "predict_steps",
    "squared_loss",
    "tangent_features",
    "taylor_expand",
]
