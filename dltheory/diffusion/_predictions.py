"""What a model predicts, checked, and in the precision of the points, whatever that of the network is."""

from __future__ import annotations

import jax.numpy as jnp

from dltheory._checks import require
from dltheory.diffusion.parametrizations import PredictFn, Prediction
from dltheory.typing import Array

__all__ = ["conform", "predicted"]


def predicted(predict_fn: PredictFn, xt: Array, t: Array) -> Prediction:
    """The prediction of a model at a point and a time."""
    return conform(predict_fn(xt, t), xt, "predict_fn")


def conform(prediction: Prediction, xt: Array, name: str = "prediction") -> Prediction:
    """A prediction whose parts all have the shape of the point, in the precision of the point."""
    known = isinstance(prediction, Prediction)
    require(known, f"`{name}` must be (or return) a `Prediction`, got {type(prediction).__name__}")
    for part, values in prediction._asdict().items():
        wanted, got = list(jnp.shape(xt)), list(jnp.shape(values))
        require(got == wanted, f"`{name}` must predict in the shape of `xt`, {wanted}, got {got} for its {part}")
    return Prediction(*(jnp.asarray(values, jnp.result_type(xt)) for values in prediction))
