"""Rows of the chapter Diffusion models."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import diffusion
from tests.cases import Case
from tests.diffusion import cases_sde

_RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
X = np.array([0.7, -0.4])
THREE = np.zeros(3)
SCALE, STD = np.array(0.8), np.array(0.6)
_LAW: Any = (np.log([0.2, 0.5, 0.3]), _RNG.normal(size=(3, 2)), _RNG.uniform(0.2, 1.5, size=(3, 2)))
MIXTURE = diffusion.GaussianMixture(*_LAW)
SKEWED = MIXTURE._replace(variances=np.ones((2, 2)))
BETAS = _RNG.uniform(0.05, 0.4, 5)
_BARS = np.concatenate([[1.0], np.cumprod(1 - BETAS)])
_ARRAYS: Any = {
    "betas": np.concatenate([[0.0], BETAS]),
    "alphas": np.concatenate([[1.0], 1 - BETAS]),
    "alpha_bars": _BARS,
    "one_minus_alpha_bars": 1 - _BARS,
    "posterior_variances": np.concatenate([[0.0], BETAS * (1 - _BARS[:-1]) / (1 - _BARS[1:])]),
}
SCHEDULE = diffusion.Schedule(**_ARRAYS)
UNEVEN = SCHEDULE._replace(alphas=np.ones(3))
XT = np.array([0.2, 0.9])
T = np.array(3)
WHOLE = np.array([1, 2])
SIX, FIVE = np.linspace(0.1, 0.6, 6), np.ones(5)
PREDICTION = diffusion.Prediction(*_RNG.normal(size=(4, 2)))
NARROW = diffusion.Prediction(*_RNG.normal(size=(4, 3)))


def _predict_fn(schedule):
    """Some network that predicts the noise."""
    return lambda x, t: diffusion.prediction_from_noise(jnp.sin(x) / (1 + t).astype(x.dtype), x, t, schedule)


def _with_model(function):
    """(key, x, schedule, more...) of a function that takes a model after the key."""
    return lambda key, x, schedule, *more: function(key, _predict_fn(schedule), x, schedule, *more)


def _converted(name):
    function = getattr(diffusion, f"prediction_from_{name}")
    return Case(
        f"dltheory.diffusion.prediction_from_{name}",
        (X, XT, T, SCHEDULE),
        call=lambda estimate, xt, t, schedule: function(estimate, xt, t, schedule),
        wrong={"xt": (X, THREE, T, SCHEDULE), "t": (X, XT, WHOLE, SCHEDULE), name: (WHOLE, XT, T, SCHEDULE)},
        grad=(0, 1, 3),
    )


CASES = (
    Case(
        "dltheory.diffusion.mixture_log_density",
        (MIXTURE, X),
        wrong={"x": (MIXTURE, THREE), "variances": (SKEWED, X)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.diffusion.mixture_score",
        (MIXTURE, X),
        wrong={"x": (MIXTURE, THREE), "variances": (SKEWED, X)},
        grad=(0, 1),
    ),
    Case("dltheory.diffusion.mixture_moments", (MIXTURE,), wrong={"variances": (SKEWED,)}),
    Case(
        "dltheory.diffusion.mixture_sample",
        (KEY, MIXTURE),
        call=lambda key, mixture: diffusion.mixture_sample(key, mixture, (4,)),
        wrong={"variances": (KEY, SKEWED)},
        grad=(),
    ),
    Case("dltheory.diffusion.diffused", (MIXTURE, SCALE, STD), wrong={"std": (MIXTURE, SCALE, X)}, grad=(0, 1, 2)),
    Case(
        "dltheory.diffusion.mixture_posterior",
        (MIXTURE, X, SCALE, STD),
        wrong={"x": (MIXTURE, THREE, SCALE, STD), "scale": (MIXTURE, X, X, STD)},
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.diffusion.mixture_denoiser",
        (MIXTURE, X, SCALE, STD),
        wrong={"x": (MIXTURE, THREE, SCALE, STD), "scale": (MIXTURE, X, X, STD)},
        grad=(0, 1, 2, 3),
    ),
    Case("dltheory.diffusion.schedule_from_betas", (BETAS,), wrong={"betas": (np.ones((2, 2)),)}),
    Case(
        "dltheory.diffusion.schedule_from_log_snr", (np.array([2.0, 0.0, -3.0]),), wrong={"log_snr": (np.array(1.0),)}
    ),
    Case(
        "dltheory.diffusion.linear_schedule",
        (np.array(0.2), np.array(3.0)),
        call=lambda low, high: diffusion.linear_schedule(5, low, high),
        wrong={"beta_min": (X, np.array(3.0)), "beta_max": (np.array(0.2), X)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.diffusion.cosine_schedule",
        (np.array(0.01), np.array(0.9)),
        call=lambda offset, most: diffusion.cosine_schedule(5, offset, most),
        wrong={"offset": (X, np.array(0.9)), "max_beta": (np.array(0.01), X)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.diffusion.sigmoid_schedule",
        (np.array(-2.0), np.array(3.0), np.array(0.7), np.array(0.9)),
        call=lambda start, end, temperature, most: diffusion.sigmoid_schedule(5, start, end, temperature, most),
        wrong={
            "start": (X, np.array(3.0), np.array(0.7), np.array(0.9)),
            "end": (np.array(-2.0), X, np.array(0.7), np.array(0.9)),
            "temperature": (np.array(-2.0), np.array(3.0), X, np.array(0.9)),
            "max_beta": (np.array(-2.0), np.array(3.0), np.array(0.7), X),
        },
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.diffusion.respaced",
        (SCHEDULE, np.array([2, 5])),
        wrong={"times": (SCHEDULE, np.array(2)), "alphas": (UNEVEN, WHOLE)},
    ),
    Case("dltheory.diffusion.signal_to_noise", (SCHEDULE,), wrong={"alphas": (UNEVEN,)}, grad=()),
    Case("dltheory.diffusion.check_schedule", (SCHEDULE,), wrong={"alphas": (UNEVEN,)}, grad=()),
    Case(
        "dltheory.diffusion.forward_step",
        (KEY, X, T, SCHEDULE),
        wrong={"x": (KEY, WHOLE, T, SCHEDULE), "t": (KEY, X, WHOLE, SCHEDULE)},
        grad=(1, 3),
    ),
    Case(
        "dltheory.diffusion.forward_path",
        (KEY, X, SCHEDULE),
        wrong={"x0": (KEY, WHOLE, SCHEDULE)},
        grad=(1,),
    ),
    Case(
        "dltheory.diffusion.forward_sample",
        (KEY, X, T, SCHEDULE),
        wrong={"x0": (KEY, WHOLE, T, SCHEDULE), "t": (KEY, X, WHOLE, SCHEDULE)},
        grad=(1, 3),
    ),
    Case(
        "dltheory.diffusion.prior_kl",
        (X, T, SCHEDULE),
        wrong={"x0": (WHOLE, T, SCHEDULE), "t": (X, WHOLE, SCHEDULE)},
        grad=(0, 2),
    ),
    Case(
        "dltheory.diffusion.posterior",
        (X, XT, T, SCHEDULE),
        wrong={"xt": (X, THREE, T, SCHEDULE), "t": (X, XT, WHOLE, SCHEDULE)},
        grad=(0, 1, 3),
    ),
    Case(
        "dltheory.diffusion.posterior_mean_from_noise",
        (X, XT, T, SCHEDULE),
        wrong={"xt": (X, THREE, T, SCHEDULE), "t": (X, XT, WHOLE, SCHEDULE)},
        grad=(0, 1, 3),
    ),
    *map(_converted, diffusion.Prediction._fields),
    Case(
        "dltheory.diffusion.classifier_free_guidance",
        (PREDICTION, diffusion.Prediction(*_RNG.normal(size=(4, 2))), np.array(1.5)),
        wrong={"unconditional": (PREDICTION, NARROW, np.array(1.5)), "strength": (PREDICTION, PREDICTION, X)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.diffusion.mixture_marginal",
        (MIXTURE, T, SCHEDULE),
        wrong={"t": (MIXTURE, WHOLE, SCHEDULE), "variances": (SKEWED, T, SCHEDULE)},
        grad=(0, 2),
    ),
    Case(
        "dltheory.diffusion.mixture_reverse_kernel",
        (MIXTURE, X, T, SCHEDULE),
        wrong={"x": (MIXTURE, THREE, T, SCHEDULE), "t": (MIXTURE, X, WHOLE, SCHEDULE)},
        grad=(0, 1, 3),
    ),
    Case(
        "dltheory.diffusion.mixture_prediction",
        (MIXTURE, X, T, SCHEDULE),
        wrong={"xt": (MIXTURE, THREE, T, SCHEDULE), "t": (MIXTURE, X, WHOLE, SCHEDULE)},
        grad=(0, 1, 3),
    ),
    Case(
        "dltheory.diffusion.excess_loss",
        (KEY, MIXTURE, T, SCHEDULE),
        call=lambda key, mixture, t, s: diffusion.excess_loss(key, _predict_fn(s), mixture, t, s),
        wrong={"t": (KEY, MIXTURE, WHOLE, SCHEDULE), "variances": (KEY, SKEWED, T, SCHEDULE)},
        grad=(3,),
    ),
    Case(
        "dltheory.diffusion.path_log_weight",
        (KEY, X, SCHEDULE, SIX),
        call=_with_model(diffusion.path_log_weight),
        wrong={"x0": (KEY, WHOLE, SCHEDULE, SIX), "variances": (KEY, X, SCHEDULE, FIVE)},
        grad=(1, 3),
        rtol=1e-3,
    ),
    Case(
        "dltheory.diffusion.vlb_terms",
        (KEY, X, SCHEDULE, SIX),
        call=_with_model(diffusion.vlb_terms),
        wrong={"x0": (KEY, WHOLE, SCHEDULE, SIX), "variances": (KEY, X, SCHEDULE, FIVE)},
        grad=(1, 2, 3),
    ),
    Case(
        "dltheory.diffusion.discretized_gaussian_log_likelihood",
        (np.array([-1.0, 0.2, 1.0]), np.array([-0.8, 0.1, 0.7]), np.array(0.3)),
        call=lambda x, mean, std: diffusion.discretized_gaussian_log_likelihood(x, mean, std, 11),
        wrong={"mean": (X, THREE, STD), "std": (X, X, X), "x": (WHOLE, X, STD)},
        grad=(1, 2),
        vmap=False,
    ),
    Case(
        "dltheory.diffusion.denoising_loss",
        (KEY, X, T, SCHEDULE),
        call=lambda key, x, t, schedule: diffusion.denoising_loss(key, _predict_fn(schedule), x, t, schedule),
        wrong={"x0": (KEY, WHOLE, T, SCHEDULE), "t": (KEY, X, WHOLE, SCHEDULE)},
        grad=(1, 3),
    ),
    Case(
        "dltheory.diffusion.simple_loss",
        (KEY, X, SCHEDULE, SIX),
        call=_with_model(diffusion.simple_loss),
        wrong={"x0": (KEY, WHOLE, SCHEDULE, SIX), "weights": (KEY, X, SCHEDULE, FIVE)},
        grad=(1, 3),
    ),
    Case(
        "dltheory.diffusion.vlb_weights",
        (SCHEDULE,),
        wrong={"one_minus_alpha_bars": (SCHEDULE._replace(one_minus_alpha_bars=FIVE),)},
        grad=(),
    ),
    Case(
        "dltheory.diffusion.min_snr_weights",
        (SCHEDULE, np.array(2.0)),
        wrong={"max_snr": (SCHEDULE, X), "alphas": (UNEVEN, np.array(2.0))},
        grad=(1,),
    ),
    Case(
        "dltheory.diffusion.ancestral_step",
        (KEY, PREDICTION, X, T, SCHEDULE),
        wrong={"xt": (KEY, PREDICTION, THREE, T, SCHEDULE), "t": (KEY, PREDICTION, X, WHOLE, SCHEDULE)},
        grad=(1, 2, 4),
    ),
    Case(
        "dltheory.diffusion.ancestral_sample",
        (KEY, X, SCHEDULE, SIX),
        call=_with_model(diffusion.ancestral_sample),
        wrong={"noise": (KEY, WHOLE, SCHEDULE, SIX), "variances": (KEY, X, SCHEDULE, FIVE)},
        grad=(1, 2, 3),
    ),
    Case(
        "dltheory.diffusion.ddim_step",
        (KEY, PREDICTION, X, T, SCHEDULE, np.array(0.5)),
        wrong={
            "xt": (KEY, PREDICTION, THREE, T, SCHEDULE, np.array(0.5)),
            "eta": (KEY, PREDICTION, X, T, SCHEDULE, X),
        },
        grad=(1, 2, 4, 5),
    ),
    Case(
        "dltheory.diffusion.ddim_sample",
        (KEY, X, SCHEDULE, np.array([2, 4, 5]), np.array(0.5)),
        call=_with_model(diffusion.ddim_sample),
        wrong={
            "noise": (KEY, WHOLE, SCHEDULE, WHOLE, np.array(0.5)),
            "times": (KEY, X, SCHEDULE, np.array(2), np.array(0.5)),
            "eta": (KEY, X, SCHEDULE, WHOLE, X),
        },
        grad=(1, 2, 4),
    ),
    *cases_sde.CASES,
)
