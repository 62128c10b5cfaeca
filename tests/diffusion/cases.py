"""Rows of the chapter Diffusion models."""

import jax
import numpy as np

from dltheory import diffusion
from tests.cases import Case
from tests.diffusion import cases_sde

_RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
X = np.array([0.7, -0.4])
THREE = np.zeros(3)
SCALE, STD = np.array(0.8), np.array(0.6)
MIXTURE = diffusion.GaussianMixture(
    log_weights=np.log([0.2, 0.5, 0.3]),
    means=_RNG.normal(size=(3, 2)),
    variances=_RNG.uniform(0.2, 1.5, size=(3, 2)),
)
SKEWED = MIXTURE._replace(variances=np.ones((2, 2)))

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
    *cases_sde.CASES,
)
