"""Claims about the process backwards: Bayes's rule, and how near to normal one step is."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import diffusion
from experiments.claim import Axes, Claim, Variant
from experiments.claims.diffusion._laws import Steps, data, integral, random_steps
from experiments.curves import Curve
from experiments.judges import Equal, Slope

__all__ = ["CLAIMS"]

_T = 6
_POINTS = np.array([-1.2, 0.2, 1.4])
_GRID = np.linspace(-7, 7, 1401)
_SHOWN = slice(400, 1001, 20)


class _Problem(NamedTuple):
    steps: Steps


def _problem(key, _budget):
    return _Problem(random_steps(key, 10))


@jax.jit
def _kernel(points, grid, betas):
    """Density of x_{t-1} on a grid, given each of the points at time t."""
    schedule = diffusion.schedule_from_betas(betas)

    def at(point):
        law = diffusion.mixture_reverse_kernel(data.library(), point[None], _T, schedule)
        return jnp.exp(jax.vmap(lambda x: diffusion.mixture_log_density(law, x[None]))(grid))

    return jax.vmap(at)(points)


def _densities(problem):
    rows = np.asarray(_kernel(_POINTS, _GRID, problem.steps.beta[1:]))
    return {f"x_t = {x:g}": Curve(row[_SHOWN], _GRID[_SHOWN]) for x, row in zip(_POINTS, rows, strict=True)}


def _bayes(prior):
    """q(x_t | x_{t-1}) q(x_{t-1}) / q(x_t), with `prior` in the place of the law of x_{t-1}."""

    def predict(problem):
        steps, curves = problem.steps, {}
        for x in _POINTS:
            likelihood = stats.norm.pdf(x, np.sqrt(steps.alpha[_T]) * _GRID, np.sqrt(steps.beta[_T]))
            joint = likelihood * prior(steps)(_GRID)
            curves[f"x_t = {x:g}"] = (joint / integral(joint, _GRID))[_SHOWN]
        return curves

    return predict


def _before(steps):
    return data.noisy(np.sqrt(steps.bar[_T - 1]), 1 - steps.bar[_T - 1]).pdf


def _total(law):
    """The kernel's density of x_{t-1}, integrated over x_t."""

    def measure(problem):
        points = np.linspace(-7, 7, 701)
        kernel = np.asarray(_kernel(points, _GRID[_SHOWN], problem.steps.beta[1:]))
        return Curve(integral(kernel.T * law(problem.steps)(points), points), _GRID[_SHOWN])

    return measure


def _after(steps):
    return data.noisy(np.sqrt(steps.bar[_T]), 1 - steps.bar[_T]).pdf


# How near to normal.

_BETAS = np.logspace(-5, -3, 9)


@jax.jit
@jax.vmap
def _normality(beta):
    """Skewness of x_{t-1} given x_t, and its divergence from the normal law with its mean and variance."""
    schedule = diffusion.schedule_from_betas(jnp.stack([0.1, beta]))
    law = diffusion.mixture_reverse_kernel(data.library(), jnp.array([0.6]), 2, schedule)
    mean, covariance = diffusion.mixture_moments(law)
    sd = jnp.sqrt(covariance[0, 0])
    law = law._replace(means=law.means - mean[None, :])  # which are far closer to each other than to 0
    z = jnp.linspace(-8.5, 8.5, 341)
    weight = jnp.exp(-(z**2) / 2) / jnp.sqrt(2 * jnp.pi) * (z[1] - z[0])
    log_density = jax.vmap(lambda z: diffusion.mixture_log_density(law, sd * z[None]))(z)
    log_ratio = log_density + jnp.log(sd) + z**2 / 2 + jnp.log(2 * jnp.pi) / 2
    excess = jnp.expm1(log_ratio)
    # p log(p/g) - p + g, which has no negative values to lose digits to
    divergence = jnp.sum(weight * (log_ratio * excess - (excess - log_ratio)))
    return jnp.abs(jnp.sum(weight * excess * z**3)), divergence


def _departures(_):
    skewness, divergence = _normality(_BETAS)
    return {"divergence": Curve(divergence, _BETAS), "skewness": Curve(skewness, _BETAS)}


CLAIMS = (
    Claim(
        "diffusion.reverse_bayes",
        says="For data from a mixture the law of x_{t-1} given x_t is that of Bayes's rule.",
        setup=_problem,
        measure=_densities,
        predict=_bayes(_before),
        judge=Equal(rtol=1e-8, atol=1e-11),
        control=Variant("without the law of x_{t-1}", predict=_bayes(lambda _steps: np.ones_like)),
        axes=Axes("x before", "density"),
    ),
    Claim(
        "diffusion.reverse_bayes",
        part="total",
        says="A step back takes the law of x_t to that of x_{t-1}.",
        setup=_problem,
        measure=_total(_after),
        predict=lambda problem: _before(problem.steps)(_GRID[_SHOWN]),
        judge=Equal(rtol=1e-8, atol=1e-11),
        control=Variant("from another law of x_t, N(0, 1)", measure=_total(lambda _steps: stats.norm.pdf)),
        axes=Axes("x before", "density"),
    ),
    Claim(
        "diffusion.reverse_gaussianity",
        says="The skewness of a step back vanishes like beta^(3/2), its divergence from a normal law like beta^3.",
        measure=_departures,
        predict=lambda _: {"divergence": 3.0, "skewness": 1.5},
        judge=Slope(tolerance=0.1),
        control=Variant("like beta and beta^2", predict=lambda _: {"divergence": 2.0, "skewness": 1.0}),
        axes=Axes("beta", "skewness, divergence"),
    ),
)
