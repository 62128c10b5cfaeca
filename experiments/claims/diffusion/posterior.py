"""Claims about one step back given the data, which the sheet prints without some of its bars."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import diffusion
from experiments.claim import Axes, Claim, Variant, generator
from experiments.claims.diffusion._laws import Steps, data, integral, random_steps
from experiments.curves import Curve
from experiments.judges import AtMost, Equal

__all__ = ["CLAIMS"]


class _Problem(NamedTuple):
    steps: Steps
    x0: float
    xt: float


def _problem(key, _budget):
    rng = generator(key)
    return _Problem(random_steps(key), rng.uniform(0.5, 1.5), rng.uniform(-1.5, -0.5))


def _before(values):
    """Entry t - 1 of an array, for t = 1, ..., T."""
    return values[:-1]


@jax.jit
def _library(x0, xt, betas):
    """At every time: mean from the data, from the noise in x_t, and variance."""
    schedule = diffusion.schedule_from_betas(betas)

    def at(t):
        law = diffusion.posterior(x0, xt, t, schedule)
        noise = diffusion.prediction_from_data(x0, xt, t, schedule).noise
        return law.mean, diffusion.posterior_mean_from_noise(noise, xt, t, schedule), law.variance

    return jax.vmap(at)(jnp.arange(1, len(betas) + 1))


def _means(problem):
    from_data, from_noise, _ = _library(problem.x0, problem.xt, problem.steps.beta[1:])
    times = np.arange(1, len(from_data) + 1)
    return {"from the data": Curve(from_data, times), "from the noise": Curve(from_noise, times)}


def _variances(problem):
    variance = _library(problem.x0, problem.xt, problem.steps.beta[1:])[2]
    return Curve(variance, np.arange(1, len(variance) + 1))


def _conditioned(problem):
    """Mean and variance of x_{t-1}, normal given x_0, after x_t was seen: by the rule for two normal variables."""
    steps = problem.steps
    alpha, beta, bar = steps.alpha[1:], steps.beta[1:], _before(steps.bar)
    mean, variance = np.sqrt(bar) * problem.x0, 1 - bar
    gain = np.sqrt(alpha) * variance / (alpha * variance + beta)
    return mean + gain * (problem.xt - np.sqrt(alpha) * mean), variance - gain * np.sqrt(alpha) * variance


def _conditioned_mean(problem):
    return _conditioned(problem)[0]


def _conditioned_variance(problem):
    return _conditioned(problem)[1]


def _mean_formula(share):
    """The formula by the noise, with `share` in the place of alpha-bar."""

    def predict(problem):
        steps, s = problem.steps, share(problem.steps)[1:]
        noise = (problem.xt - np.sqrt(s) * problem.x0) / np.sqrt(1 - s)
        return (problem.xt - steps.beta[1:] / np.sqrt(1 - s) * noise) / np.sqrt(steps.alpha[1:])

    return predict


def _variance_formula(share):
    def predict(problem):
        steps = problem.steps
        return (1 - _before(steps.bar)) / (1 - share(steps)[1:]) * steps.beta[1:]

    return predict


# The factorisation through reverse conditionals.

_T, _X0, _XT = 5, 0.4, -0.3
_GRID = np.linspace(-1.0, 0.8, 91)


@jax.jit
def _factors(grid, betas):
    """On a grid of x_{t-1}: log q(x_0 | x_{t-1}), log q(x_{t-1} | x_t); and log q(x_0 | x_t)."""
    schedule = diffusion.schedule_from_betas(betas)
    x0, xt = jnp.array([_X0]), jnp.array([_XT])

    def given(x, t):
        signal, std = jnp.sqrt(schedule.alpha_bars[t]), jnp.sqrt(schedule.one_minus_alpha_bars[t])
        return diffusion.mixture_log_density(diffusion.mixture_posterior(data.library(), x, signal, std), x0)

    back = diffusion.mixture_reverse_kernel(data.library(), xt, _T, schedule)
    first = jax.vmap(lambda x: given(x[None], _T - 1))(grid)
    second = jax.vmap(lambda x: diffusion.mixture_log_density(back, x[None]))(grid)
    return first, second, given(xt, _T)


def _factorised(signs):
    def measure(problem):
        factors = _factors(_GRID, problem.steps.beta[1:])
        return Curve(np.exp(sum(sign * np.asarray(f) for sign, f in zip(signs, factors, strict=True))), _GRID)

    return measure


def _normal_density(problem):
    mean, variance = (values[_T - 1] for values in _conditioned(problem._replace(x0=_X0, xt=_XT)))
    return stats.norm.pdf(_GRID, mean, np.sqrt(variance))


# Between the variances: data that are a point, and data that are noise.


@jax.jit
def _kernel_variances(betas):
    schedule = diffusion.schedule_from_betas(betas)

    def at(t, variance):
        law = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.full((1, 1), variance))
        return diffusion.mixture_reverse_kernel(law, jnp.ones(1), t, schedule).variances[0, 0]

    return jax.vmap(at, (0, None))(jnp.arange(1, len(betas) + 1), 0.0), jax.vmap(at, (0, None))(
        jnp.arange(1, len(betas) + 1), 1.0
    )


def _extremes(problem):
    point, noise = (np.asarray(v) for v in _kernel_variances(problem.steps.beta[1:]))
    times = np.arange(1, len(point) + 1)
    return {"data at a point": Curve(point, times), "data N(0, 1)": Curve(noise, times)}


def _extreme_formulas(problem):
    return {"data at a point": _conditioned_variance(problem), "data N(0, 1)": problem.steps.beta[1:]}


# The mean of the model.

_FINE = np.linspace(-8, 8, 3201)


@jax.jit
def _best_means(xt, betas):
    schedule = diffusion.schedule_from_betas(betas)

    def at(t):
        best = diffusion.mixture_prediction(data.library(), xt[None], t, schedule)
        return diffusion.posterior_mean_from_noise(best.noise, xt[None], t, schedule)[0]

    return jax.vmap(at)(jnp.arange(1, len(betas) + 1))


def _model_means(problem):
    means = _best_means(problem.xt, problem.steps.beta[1:])
    return Curve(means, np.arange(1, len(means) + 1))


def _reverse_means(problem):
    """E[x_{t-1} | x_t] by Bayes's rule and quadrature."""
    steps, means = problem.steps, []
    for t in range(1, len(steps.beta)):
        prior = data.noisy(np.sqrt(steps.bar[t - 1]), 1 - steps.bar[t - 1]).pdf(_FINE)
        joint = prior * stats.norm.pdf(problem.xt, np.sqrt(steps.alpha[t]) * _FINE, np.sqrt(steps.beta[t]))
        means.append(integral(joint * _FINE, _FINE) / integral(joint, _FINE))
    return np.array(means)


def _model_formula(share):
    """The formula of the model with the best prediction of the noise, and `share` in the place of alpha-bar."""

    def predict(problem):
        steps, means = problem.steps, []
        for t in range(1, len(steps.beta)):
            law = data.noisy(np.sqrt(steps.bar[t]), 1 - steps.bar[t])
            noise = -np.sqrt(1 - steps.bar[t]) * law.score(problem.xt)
            push = steps.beta[t] / np.sqrt(1 - share(steps)[t]) * noise
            means.append((problem.xt - push) / np.sqrt(steps.alpha[t]))
        return np.array(means)

    return predict


def _barred(steps):
    return steps.bar


def _bare(steps):
    return steps.alpha


_MEAN, _VARIANCE = Axes("time", "mean"), Axes("time", "variance")

CLAIMS = (
    Claim(
        "diffusion.ddpm_posterior",
        says="The product of reverse conditionals is exactly a normal density of x_{t-1}, for data from a mixture.",
        setup=_problem,
        measure=_factorised((1, 1, -1)),
        predict=_normal_density,
        judge=Equal(rtol=1e-9, atol=1e-12),
        control=Variant("without the first factor", measure=_factorised((0, 1, 0))),
        axes=Axes("x before", "density"),
    ),
    Claim(
        "diffusion.ddpm_posterior_mean",
        says="The mean, from the data or from the noise, is that of conditioning two normal variables.",
        setup=_problem,
        measure=_means,
        predict=_conditioned_mean,
        judge=Equal(rtol=1e-10, atol=1e-12),
        control=Variant("x_0, its value without bars", predict=lambda problem: problem.x0),
        axes=_MEAN,
    ),
    Claim(
        "diffusion.ddpm_posterior_mean@printed",
        says="The mean is the formula with alpha where alpha-bar belongs.",
        setup=_problem,
        measure=_means,
        predict=_mean_formula(_bare),
        judge=Equal(rtol=1e-10, atol=1e-12),
        control=Variant("x_t", predict=lambda problem: problem.xt),
        corrected=Variant("the formula with bars", predict=_mean_formula(_barred)),
        axes=_MEAN,
    ),
    Claim(
        "diffusion.ddpm_posterior_variance",
        says="The variance is that of conditioning two normal variables.",
        setup=_problem,
        measure=_variances,
        predict=_conditioned_variance,
        judge=Equal(rtol=1e-9, atol=1e-13),
        control=Variant("beta", predict=lambda problem: problem.steps.beta[1:]),
        axes=_VARIANCE,
    ),
    Claim(
        "diffusion.ddpm_posterior_variance@printed",
        says="The variance is (1 - alpha-bar before) / (1 - alpha) beta, which is 1 - alpha-bar before.",
        setup=_problem,
        measure=_variances,
        predict=_variance_formula(_bare),
        judge=Equal(rtol=1e-9, atol=1e-13),
        control=Variant("beta", predict=lambda problem: problem.steps.beta[1:]),
        corrected=Variant("with 1 - alpha-bar in the denominator", predict=_variance_formula(_barred)),
        axes=_VARIANCE,
    ),
    Claim(
        "diffusion.ddpm_posterior_variance",
        part="bound",
        says="It is below the variance beta of the step forward.",
        setup=_problem,
        measure=_variances,
        predict=lambda problem: problem.steps.beta[1:],
        judge=AtMost(),
        control=Variant("half of it", predict=lambda problem: problem.steps.beta[1:] / 2),
        axes=_VARIANCE,
    ),
    Claim(
        "diffusion.ddpm_posterior_variance",
        part="extremes",
        says="A step back has this variance if the data are a point, and beta if they are N(0, 1).",
        setup=_problem,
        measure=_extremes,
        predict=_extreme_formulas,
        judge=Equal(rtol=1e-9, atol=1e-13),
        control=Variant(
            "the other way round",
            predict=lambda problem: dict(
                zip(_extreme_formulas(problem), reversed(_extreme_formulas(problem).values()), strict=True)
            ),
        ),
        axes=_VARIANCE,
    ),
    Claim(
        "diffusion.mu_parametrization",
        says="With the mean of the noise given x_t, mu_theta is the mean of x_{t-1} given x_t.",
        setup=_problem,
        measure=_model_means,
        predict=_reverse_means,
        judge=Equal(rtol=1e-8, atol=1e-10),
        control=Variant("x_t divided by sqrt(alpha)", predict=lambda p: p.xt / np.sqrt(p.steps.alpha[1:])),
        axes=_MEAN,
    ),
    Claim(
        "diffusion.mu_parametrization@printed",
        says="The mean of the step back has sqrt(1 - alpha) in its denominator.",
        setup=_problem,
        measure=lambda problem: Curve(_reverse_means(problem), np.arange(1, len(problem.steps.beta))),
        predict=_model_formula(_bare),
        judge=Equal(rtol=1e-8, atol=1e-10),
        control=Variant("x_t", predict=lambda problem: problem.xt),
        corrected=Variant("sqrt(1 - alpha-bar)", predict=_model_formula(_barred)),
        axes=_MEAN,
    ),
)
