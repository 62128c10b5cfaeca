"""Training: losses of a batch, one scanned loop over any optax transformation, and averages along it."""

from dltheory.training.averaging import EmaState, ema_params, with_ema
from dltheory.training.loop import Fit, fit
from dltheory.training.losses import (
    accuracy,
    mean_squared_error,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    squared_error,
)

__all__ = [
    "EmaState",
    "Fit",
    "accuracy",
    "ema_params",
    "fit",
    "mean_squared_error",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "squared_error",
    "with_ema",
]
