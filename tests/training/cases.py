"""Rows of the package `training`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dltheory import training
from tests.cases import Case

_RNG = np.random.default_rng(0)
OUTPUTS, TARGETS = _RNG.normal(size=(6, 3)), _RNG.normal(size=(6, 3))
LABELS = np.array([0, 2, 1, 1, 0, 2])
ODDS = np.array([0.1, 0.8, 0.5, 0.0, 1.0, 0.3])


def _loss(w, batch):
    x, y = batch
    return training.mean_squared_error(jnp.tanh(x @ w), y)


def _fit(key, w, x, y, rate):
    return training.fit(
        _loss, w, optax.sgd(rate), (x, y), 6, key=key, batch_size=2, trace_fn=lambda w: w**2, trace_every=3
    )


def _averaged(w, x, y, rate, decay, warmup):
    run = training.fit(_loss, w, training.with_ema(optax.sgd(rate), decay, warmup), (x, y), 3)
    return training.ema_params(run.state, run.params)


def _averages(w, decay):
    return training.ema_params(training.with_ema(optax.sgd(0.1), decay).init(w), w)


CASES = (
    *(
        Case(
            f"dltheory.training.{name}",
            args=(OUTPUTS, TARGETS),
            wrong={"targets": (OUTPUTS, TARGETS[:, :1])},
            grad=(0, 1),
        )
        for name in ("squared_error", "mean_squared_error")
    ),
    Case(
        "dltheory.training.softmax_cross_entropy",
        args=(OUTPUTS, LABELS),
        wrong={"logits": (OUTPUTS[0], LABELS), "labels": (OUTPUTS, LABELS[:2])},
    ),
    Case(
        "dltheory.training.sigmoid_cross_entropy",
        args=(OUTPUTS[:, 0], ODDS),
        wrong={"labels": (OUTPUTS, ODDS)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.training.accuracy",
        args=(OUTPUTS, LABELS),
        wrong={"logits": (OUTPUTS[0], LABELS), "labels": (OUTPUTS, LABELS[:2])},
        grad=(),
    ),
    Case(
        "dltheory.training.fit",
        call=_fit,
        args=(jax.random.key(0), TARGETS[:3, 0], OUTPUTS, ODDS, np.array(0.1)),
        wrong={"data": (jax.random.key(0), TARGETS[:3, 0], OUTPUTS, ODDS[:2], np.array(0.1))},
        grad=(1, 2, 3, 4),
    ),
    Case(
        "dltheory.training.with_ema",
        call=_averaged,
        args=(TARGETS[:3, 0], OUTPUTS, ODDS, np.array(0.1), np.array(0.6), np.array(0.7)),
        wrong={"decay": (TARGETS[:3, 0], OUTPUTS, ODDS, np.array(0.1), ODDS, np.array(0.7))},
        grad=(0, 1, 2, 3, 4, 5),
    ),
    Case(
        "dltheory.training.ema_params",
        call=_averages,
        args=(TARGETS[:3, 0], np.array(0.6)),
        wrong={"decay": (TARGETS[:3, 0], ODDS)},
    ),
)
