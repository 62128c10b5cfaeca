"""Claims about sampling with the best prediction, whose errors are those of the steps alone."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import diffusion
from dltheory.typing import PRNGKey
from experiments.claim import Axes, Budget, Claim, Variant
from experiments.claims.diffusion._laws import data, product
from experiments.curves import Curve, estimate
from experiments.judges import AtMost, Mean, Slope

__all__ = ["CLAIMS"]


class _Draw(NamedTuple):
    key: PRNGKey
    budget: int


def _linear(num_steps):
    """Betas of the linear schedule, as the exact noise of its continuous form; good for few steps too."""
    grid = np.linspace(0, 1, num_steps + 1)
    return -np.expm1(-np.diff(0.1 * grid + (20 - 0.1) * grid**2 / 2))


def _cosine(num_steps):
    bar = np.cos((np.arange(num_steps + 1) / num_steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - bar[1:] / bar[:-1], 0.999)


def _jump(num_steps):
    """All of the noise in the middle step."""
    return np.where(np.arange(num_steps) == num_steps // 2, 0.9999, 1e-4)


@functools.partial(jax.jit, static_argnums=0)
def _samples(method, keys, betas, variances):
    schedule = diffusion.schedule_from_betas(betas)
    predict_fn = lambda x, t: diffusion.mixture_prediction(data.library(), x, t, schedule)  # noqa: E731

    def one(key):
        key_start, key_path = jax.random.split(key)
        start = jax.random.normal(key_start, (1,))
        if method == "DDIM":
            return diffusion.ddim_sample(key_path, predict_fn, start, schedule)[0]
        scaled = variances * schedule.posterior_variances
        return diffusion.ancestral_sample(key_path, predict_fn, start, schedule, scaled)[0]

    return jax.vmap(one)(keys)


def _drawn(draw, method, betas, variances=1.0):
    return np.asarray(_samples(method, jax.random.split(draw.key, draw.budget), betas, variances))


# The law of samples.

_CUTS = np.array([-1.8, -1.6, -1.4, -0.7, 0.2, 0.3, 0.4, 0.8, 1.3, 1.7])


def _enough(count):
    """So many steps that their error, which falls like 1 / T, stays below that of the number of samples."""
    return int(9 * np.sqrt(count))


def _shares(variances):
    """Of samples below the cuts."""

    def measure(draw):
        betas = _linear(_enough(draw.budget))
        return {
            name: estimate(_drawn(draw, name, betas, variances)[:, None] <= _CUTS, _CUTS)
            for name in ("ancestral", "DDIM")
        }

    return measure


# With the mean as the sheet prints it.


@jax.jit
def _with_shares(keys, betas, shares):
    """Ancestral sampling with the mean by the noise, and `shares` [T] in the place of alpha-bar."""
    schedule = diffusion.schedule_from_betas(betas)

    def one(key):
        key_start, key_path = jax.random.split(key)

        def step(x, moment):
            t, z = moment
            noise = diffusion.mixture_prediction(data.library(), x, t, schedule).noise
            mean = (x - betas[t - 1] / jnp.sqrt(1 - shares[t - 1]) * noise) / jnp.sqrt(1 - betas[t - 1])
            return mean + jnp.sqrt(schedule.posterior_variances[t]) * z, None

        moments = (jnp.arange(len(betas), 0, -1), jax.random.normal(key_path, (len(betas), 1)))
        return jax.lax.scan(step, jax.random.normal(key_start, (1,)), moments)[0][0]

    return jax.vmap(one)(keys)


def _shares_with(share):
    def measure(draw):
        steps = product(_linear(_enough(draw.budget)))
        keys = jax.random.split(draw.key, draw.budget)
        return estimate(np.asarray(_with_shares(keys, steps.beta[1:], share(steps)[1:]))[:, None] <= _CUTS, _CUTS)

    return measure


# How fast it becomes that of the data: for normal data all is linear, and no draws are needed.

_COUNTS = np.array([128, 256, 512, 1024, 2048, 4096])
_MOST = 4096
_SD = 0.5


@jax.jit
@jax.vmap
def _linear_steps(betas):
    """Factors of the steps of both samplers, and variances of what ancestral sampling adds, for t = 1, ..., T."""
    schedule = diffusion.schedule_from_betas(betas)
    law = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.full((1, 1), _SD**2))
    key, one = jax.random.key(0), jnp.ones(1)

    def at(t):
        prediction = diffusion.mixture_prediction(law, one, t, schedule)
        ancestral = diffusion.ancestral_step(key, prediction, one, t, schedule, jnp.zeros_like(schedule.betas))
        return ancestral[0], diffusion.ddim_step(key, prediction, one, t, schedule)[0]

    return *jax.vmap(at)(jnp.arange(1, _MOST + 1)), schedule.posterior_variances[1:], schedule.betas[1:]


def _deviations(_):
    """Differences of the standard deviation of samples from that of the data."""
    # Steps without noise change nothing: all schedules are made equally long.
    padded = np.stack([np.concatenate([_linear(count), np.zeros(_MOST - count)]) for count in _COUNTS])
    factors, ddim, small, large = (np.asarray(a) for a in _linear_steps(padded))
    large = np.where(np.arange(_MOST) > 0, large, 0.0)  # the last step adds no noise
    curves = {}
    for name, factor, added in (
        ("ancestral, posterior variance", factors, small),
        ("ancestral, variance beta", factors, large),
        ("DDIM", ddim, 0 * small),
    ):
        variance = np.ones(len(_COUNTS))
        for t in range(_MOST - 1, -1, -1):
            variance = factor[:, t] ** 2 * variance + added[:, t]
        curves[name] = Curve(np.abs(np.sqrt(variance) - _SD), _COUNTS)
    return curves


# Schedules.

_SCHEDULES = {"cosine": _cosine, "linear": _linear, "one jump": _jump}


def _quantiles(count):
    levels = (np.arange(count) + 0.5) / count
    knots = np.linspace(-4, 4, 4001)
    return np.interp(levels, data.cdf(knots), knots)


def _distances(reference):
    """Wasserstein distances between samples in forty steps and the data, in units of that of one of the schedules."""

    def measure(draw):
        exact = _quantiles(draw.budget)
        rows = {
            name: np.abs(np.sort(_drawn(draw, "ancestral", make(40))) - exact).mean()
            for name, make in _SCHEDULES.items()
        }
        unit = rows.pop(reference)
        return Curve(np.array(list(rows.values())) / unit, np.arange(len(rows)))

    return measure


CLAIMS = (
    Claim(
        "diffusion.ancestral_sampling",
        says="In many steps with the best prediction both samplers give the data's distribution function.",
        setup=_Draw,
        measure=_shares(1.0),
        predict=lambda _: data.cdf(_CUTS),
        judge=Mean(resolution=0.1, floor=0.07),
        control=Variant("without noise in the steps of ancestral sampling", measure=_shares(0.0)),
        budget=Budget(2_000, 10_000),
        axes=Axes("x", "share below"),
    ),
    Claim(
        "diffusion.ancestral_sampling",
        part="rate",
        says="The error of the steps falls like 1 / T.",
        measure=_deviations,
        predict=lambda _: -1.0,
        judge=Slope(tolerance=0.1),
        control=Variant("like 1 / T^2", predict=lambda _: -2.0),
        axes=Axes("number of steps", "error of the standard deviation"),
    ),
    Claim(
        "diffusion.mu_parametrization@printed",
        part="sampling",
        says="Sampling with the mean as printed, and the best prediction, gives the data's distribution function.",
        setup=_Draw,
        measure=_shares_with(lambda steps: steps.alpha),
        predict=lambda _: data.cdf(_CUTS),
        judge=Mean(resolution=0.1, floor=0.07),
        control=Variant("that of N(0, 1)", predict=lambda _: stats.norm.cdf(_CUTS)),
        corrected=Variant("with bars", measure=_shares_with(lambda steps: steps.bar)),
        budget=Budget(2_000, 10_000),
        axes=Axes("x", "share below"),
    ),
    Claim(
        "diffusion.scheduler",
        says="In forty steps slow schedules err at most a tenth as much as one that takes all of the data at once.",
        setup=_Draw,
        measure=_distances("one jump"),
        predict=lambda _: 0.1,
        judge=AtMost(),
        control=Variant("as one of the slow ones", measure=_distances("cosine")),
        budget=Budget(2_000, 20_000),
        axes=Axes("schedule: cosine, linear", "distance from the data / that of one jump"),
    ),
)
