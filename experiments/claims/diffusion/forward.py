"""Claims about the forward process: its steps, its law at every time, and its end."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import diffusion
from dltheory.typing import PRNGKey
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.diffusion._laws import Steps, integral, product, random_steps
from experiments.curves import Curve, estimate
from experiments.judges import Equal, Mean, Slope

__all__ = ["CLAIMS"]


class _Problem(NamedTuple):
    key: PRNGKey
    budget: int
    steps: Steps


def _problem(key, budget):
    return _Problem(key, budget, random_steps(key))


@jax.jit
def _paths(keys, x0, betas):
    schedule = diffusion.schedule_from_betas(betas)
    return jax.vmap(lambda key, x: diffusion.forward_path(key, x, schedule))(keys, x0)


def _simulated(problem, x0):
    """Paths of the forward process [n, T], without their start."""
    keys = jax.random.split(problem.key, problem.budget)
    return np.asarray(_paths(keys, np.asarray(x0), problem.steps.beta[1:]))[:, 1:]


def _times(problem):
    return np.arange(1, len(problem.steps.beta))


# Steps: data of unit variance keep it.


def _squares(problem):
    signs = generator(problem.key).choice([-1.0, 1.0], problem.budget)
    return estimate(_simulated(problem, signs) ** 2, _times(problem))


def _squares_without_shrinking(problem):
    rng = generator(problem.key)
    x, rows = rng.choice([-1.0, 1.0], problem.budget), []
    for beta in problem.steps.beta[1:]:
        x = x + np.sqrt(beta) * rng.normal(size=problem.budget)
        rows.append(x**2)
    return estimate(np.stack(rows, axis=1), _times(problem))


_AT, _FROM = 3, np.array([-2.0, 0.0, 1.0])


@jax.jit
def _one_step(keys, betas):
    schedule = diffusion.schedule_from_betas(betas)
    step = jax.vmap(lambda key: diffusion.forward_step(key, jnp.asarray(_FROM), _AT, schedule))
    return step(keys)


def _one_step_moments(problem):
    after = np.asarray(_one_step(jax.random.split(problem.key, problem.budget), problem.steps.beta[1:]))
    centred = after - after.mean(0)
    return {"mean": estimate(after, _FROM), "variance": estimate(centred**2, _FROM)}


def _kernel_moments(variance):
    def predict(problem):
        beta = problem.steps.beta[_AT]
        return {"mean": np.sqrt(1 - beta) * _FROM, "variance": np.full(3, variance(beta))}

    return predict


# The law at every time.

_START, _FREQUENCY = 1.5, 2.0


def _library_moments(problem):
    schedule = jax.jit(diffusion.schedule_from_betas)(problem.steps.beta[1:])
    times = np.arange(len(problem.steps.beta))
    return {
        "share of the data": Curve(np.sqrt(schedule.alpha_bars), times),
        "variance of the noise": Curve(schedule.one_minus_alpha_bars, times),
    }


def _moment_recursion(shrink):
    """Mean (of a start at 1) and variance, step by step."""

    def predict(problem):
        mean, variance, means, variances = 1.0, 0.0, [1.0], [0.0]
        for beta in problem.steps.beta[1:]:
            mean, variance = shrink(beta) * mean, shrink(beta) ** 2 * variance + beta
            means.append(mean)
            variances.append(variance)
        return {"share of the data": np.array(means), "variance of the noise": np.array(variances)}

    return predict


@jax.jit
def _at_once(keys, x0, betas):
    schedule = diffusion.schedule_from_betas(betas)
    times = jnp.arange(1, len(betas) + 1)

    def samples(key):
        keys = jax.random.split(key, len(betas))
        return jax.vmap(lambda key, t: diffusion.forward_sample(key, x0, t, schedule)[0])(keys, times)

    return jax.vmap(samples)(keys)


def _waves(problem):
    """Mean of cos(2 x_t), which sees more of a law than its moments."""
    start = np.full(problem.budget, _START)
    keys = jax.random.split(problem.key, problem.budget)
    jump = np.asarray(_at_once(keys, _START, problem.steps.beta[1:]))
    return {
        "step by step": estimate(np.cos(_FREQUENCY * _simulated(problem, start)), _times(problem)),
        "at once": estimate(np.cos(_FREQUENCY * jump), _times(problem)),
    }


def _characteristic(share):
    """Of N(sqrt(s) x_0, 1 - s)."""

    def predict(problem):
        s = share(problem.steps)[1:]
        wave = np.exp(-(_FREQUENCY**2) * (1 - s) / 2) * np.cos(_FREQUENCY * np.sqrt(s) * _START)
        return {"step by step": wave, "at once": wave}

    return predict


# The end.

_POINT = np.array([1.5, -0.5])
_LENGTH = 100_000


class _Long(NamedTuple):
    x0: np.ndarray
    betas: dict[str, np.ndarray]


def _falling(x0):
    """Schedules whose betas have an infinite sum."""

    def setup(_key, _budget):
        t = np.arange(1, 2001)
        return _Long(x0, {"1/20": np.full(2000, 0.05), "1/(t+1)": 1 / (t + 1), "1/sqrt(t+3)": 1 / np.sqrt(t + 3)})

    return setup


def _with_finite_sum(_key, _budget):
    t = np.arange(1, _LENGTH + 1)
    return _Long(_POINT, {"1/20": np.full(_LENGTH, 0.05), "1/(t+1)": 1 / (t + 1), "2^-(t+1)": 0.5 ** (t + 1)})


@jax.jit
def _divergences(x0, betas):
    schedule = diffusion.schedule_from_betas(betas)
    times = jnp.arange(len(betas) + 1)
    return jax.vmap(lambda t: diffusion.prior_kl(x0, t, schedule))(times)


@jax.jit
def _last_divergence(x0, betas):
    return diffusion.prior_kl(x0, len(betas), diffusion.schedule_from_betas(betas))


def _approach(problem):
    curves = {}
    for name, betas in problem.betas.items():
        bar = product(betas).bar
        kl = np.asarray(_divergences(problem.x0, betas))
        chosen = np.searchsorted(-bar, -np.logspace(-1.3, np.log10(max(bar[-1], 1e-8)), 12), side="left")
        chosen = np.unique(np.minimum(chosen, len(bar) - 1))
        curves[f"beta = {name}"] = Curve(kl[chosen], bar[chosen])
    return curves


def _at_the_end(problem):
    return {f"beta = {name}": _last_divergence(problem.x0, betas) for name, betas in problem.betas.items()}


def _left_over(problem):
    curves = {}
    for name, betas in problem.betas.items():
        bar = np.exp(np.sum(np.log1p(-betas)))
        curves[f"beta = {name}"] = (bar * np.sum(_POINT**2) - 2 * bar - 2 * np.log1p(-bar)) / 2
    return curves


# The term of the bound that compares the end with the prior.

_SCALES = np.array([0.6, 0.8, 1.0, 1.25, 1.6, 2.0])


def _prior_divergences(num_steps):
    """KL of q(x_T | x_0) from N(0, s^2), by quadrature, with the first steps of the linear schedule of Ho et al."""

    def measure(_):
        steps = product(np.linspace(1e-4, 0.02, 1000)[:num_steps])
        schedule = jax.jit(diffusion.schedule_from_betas)(steps.beta[1:])
        grid = np.linspace(-9, 9, 2001)
        end = stats.norm(float(np.sqrt(schedule.alpha_bars[-1])), float(np.sqrt(schedule.one_minus_alpha_bars[-1])))
        kl = [integral(end.pdf(grid) * (end.logpdf(grid) - stats.norm.logpdf(grid, scale=s)), grid) for s in _SCALES]
        return Curve(np.array(kl), _SCALES)

    return measure


def _of_pure_noise(_):
    return np.log(_SCALES) + (1 / _SCALES**2 - 1) / 2


_PATHS = Budget(10_000, 400_000)

CLAIMS = (
    Claim(
        "diffusion.forward_step",
        says="Data of unit variance have unit variance after every step.",
        setup=_problem,
        measure=_squares,
        predict=lambda problem: np.ones(len(_times(problem))),
        judge=Mean(resolution=0.1),
        control=Variant("steps that add noise without shrinking", measure=_squares_without_shrinking),
        budget=_PATHS,
        axes=Axes("step", "variance"),
    ),
    Claim(
        "diffusion.forward_step",
        part="kernel",
        says="A step from x has mean sqrt(1 - beta) x and variance beta.",
        setup=_problem,
        measure=_one_step_moments,
        predict=_kernel_moments(lambda beta: beta),
        judge=Mean(resolution=0.1, floor=0.05),
        control=Variant("standard deviation beta", predict=_kernel_moments(lambda beta: beta**2)),
        budget=_PATHS,
        axes=Axes("x before the step", "mean, variance"),
    ),
    Claim(
        "diffusion.forward_marginal",
        says="The product of the alphas gives the mean and the variance that follow step by step.",
        setup=_problem,
        measure=_library_moments,
        predict=_moment_recursion(lambda beta: np.sqrt(1 - beta)),
        judge=Equal(rtol=1e-12),
        control=Variant("steps that shrink by 1 - beta", predict=_moment_recursion(lambda beta: 1 - beta)),
        axes=Axes("time", "factor, variance"),
    ),
    Claim(
        "diffusion.forward_marginal",
        part="law",
        says="Step by step or at once, x_t is normal with mean sqrt(alpha-bar) x_0 and variance 1 - alpha-bar.",
        setup=_problem,
        measure=_waves,
        predict=_characteristic(lambda steps: steps.bar),
        judge=Mean(resolution=0.1, floor=0.06),
        control=Variant("alpha without the bar", predict=_characteristic(lambda steps: steps.alpha)),
        budget=_PATHS,
        axes=Axes("time", "mean of cos(2 x)"),
    ),
    Claim(
        "diffusion.forward_limit",
        says="If the sum of the betas diverges, the divergence from N(0, I) vanishes like alpha-bar.",
        setup=_falling(_POINT),
        measure=_approach,
        predict=lambda _: 1.0,
        judge=Slope(tolerance=0.05),
        control=Variant("from the origin, where it vanishes like its square", setup=_falling(np.zeros(2))),
        axes=Axes("alpha-bar", "divergence from N(0, I) in nats"),
    ),
    Claim(
        "diffusion.forward_limit@printed",
        says="Whatever the schedule, nothing is left of the data after many steps.",
        setup=_with_finite_sum,
        measure=_at_the_end,
        predict=lambda _: 0.0,
        judge=Equal(rtol=0.0, atol=1e-4),
        control=Variant("one nat is left", predict=lambda _: 1.0),
        corrected=Variant("what the product of the alphas leaves", predict=_left_over),
        axes=Axes("", "divergence from N(0, I) in nats"),
    ),
    Claim(
        "diffusion.prior_term",
        says="After a thousand steps L_T is the divergence of N(0, 1) from the prior, whatever the prior.",
        measure=_prior_divergences(1000),
        predict=_of_pure_noise,
        judge=Equal(rtol=0.0, atol=1e-4),
        control=Variant("a hundred steps", measure=_prior_divergences(100)),
        axes=Axes("standard deviation of the prior", "L_T in nats"),
    ),
)
