"""The neural tangent kernel: what gradient descent does to a wide network, at finite width and in the limit."""

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

__all__ = [
    "dual_to_primal",
    "function_velocity",
    "gram",
    "jacobian",
    "linearize",
    "linearized_loss",
    "parameter_velocity",
    "squared_loss",
    "tangent_features",
    "taylor_expand",
]
