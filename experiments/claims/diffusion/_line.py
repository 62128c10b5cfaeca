"""A mixture on the line whose laws under the variance-preserving equation are known, and solvers driven by hand."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate, optimize, stats

from dltheory import diffusion
from experiments.claim import generator

__all__ = [
    "FINE",
    "MEANS",
    "MODELS",
    "SDE",
    "STDS",
    "WEIGHTS",
    "cdf",
    "draws",
    "driven",
    "expectation",
    "mixture",
    "model",
    "moments",
    "pdf",
    "quantile_map",
    "random_models",
    "score",
    "score_on",
]

WEIGHTS, MEANS, STDS = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.5, 0.4])
BETA_MIN, BETA_MAX = 0.1, 8.0
SDE = diffusion.vp_sde(BETA_MIN, BETA_MAX)
FINE = np.linspace(-9.0, 9.0, 4001)  # on which the trapezoidal rule is exact to rounding
MODELS = 20


def mixture():
    """The data for the library."""
    return diffusion.GaussianMixture(*map(jnp.asarray, (np.log(WEIGHTS), MEANS[:, None], STDS[:, None] ** 2)))


def score(x, t):
    """Score of the data at a time of the equation, entry by entry of x [...]."""
    law = diffusion.diffused(mixture(), *SDE.marginal_prob(jnp.ones(()), t))
    return jax.vmap(lambda x: diffusion.mixture_score(law, x[None])[0])(x.ravel()).reshape(x.shape)


def moments(t):
    """Means and standard deviations of the components at a time, without the library."""
    integral = BETA_MIN * t + (BETA_MAX - BETA_MIN) * t**2 / 2
    return np.exp(-integral / 2) * MEANS, np.sqrt(np.exp(-integral) * STDS**2 + 1 - np.exp(-integral))


def pdf(x, t):
    means, stds = moments(t)
    return stats.norm.pdf(np.asarray(x)[..., None], means, stds) @ WEIGHTS


def cdf(x, t):
    means, stds = moments(t)
    return stats.norm.cdf(np.asarray(x)[..., None], means, stds) @ WEIGHTS


def draws(rng, t, size):
    """Exact draws from the law at a time."""
    means, stds = moments(t)
    component = rng.choice(2, size, p=WEIGHTS)
    return means[component] + stds[component] * rng.normal(size=size)


def quantile_map(x, start, stop):
    """Where the probability flow leads: on the line it keeps the order of points, and so their quantiles."""
    return np.array([optimize.brentq(lambda y, p=p: cdf(y, stop) - p, -20, 20, xtol=1e-13) for p in cdf(x, start)])


def expectation(function, t):
    """The mean of a function under the law at a time, by quadrature."""
    return integrate.quad(lambda x: float(function(x)) * float(pdf(x, t)), -12, 12, limit=200, epsabs=1e-11)[0]


@functools.partial(jax.jit, static_argnums=0)
def driven(solver, x, times, noise):
    """The solution at the last of the times with noise [t-1, m, ...] of one's own."""

    def step(x, inputs):
        return solver.step(x, *inputs), None

    return jax.lax.scan(step, x, (times[:-1], times[1:], noise))[0]


def score_on(points, means, stds):
    """Score of a mixture of the same weights, without the library."""
    peaks = WEIGHTS * stats.norm.pdf(points[:, None], means, stds)
    return np.sum(-peaks * (points[:, None] - means) / stds**2, axis=1) / np.sum(peaks, axis=1)


def random_models(key):
    """Weights [models, 3, 6] of random scores s(x) = sum_h v_h tanh(u_h x + c_h)."""
    return generator(key).normal(size=(MODELS, 3, 6)) * np.array([1.0, 1.5, 1.0])[:, None]


def model(weights):
    """One of the random scores."""
    return lambda x: weights[0] @ jnp.tanh(weights[1] * x + weights[2])
