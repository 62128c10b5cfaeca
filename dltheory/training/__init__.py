"""Training: losses of a batch, and one scanned loop over any optax transformation."""

from dltheory.training.loop import Fit, fit
from dltheory.training.losses import (
    accuracy,
    mean_squared_error,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    squared_error,
)

__all__ = [
    "Fit",
    "accuracy",
    "fit",
    "mean_squared_error",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "squared_error",
]
