"""Claims about the variational bound: for a linear model of normal data every part of it is known."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import diffusion
from dltheory.typing import PRNGKey
from experiments.claim import Axes, Budget, Claim, Variant
from experiments.claims.diffusion._laws import Steps, product
from experiments.curves import estimate
from experiments.judges import Mean, MeanAtMost

__all__ = ["CLAIMS"]

_STEPS: Steps = product(np.linspace(0.02, 0.4, 20))
_T = 20
_POINTS = np.array([-1.6, -0.8, 0.0, 0.6, 1.2])
# Noise predicted as a multiple of x_t: the best one for data of this variance.
_DATA_VARIANCE = 0.5
_SLOPES = np.sqrt(1 - _STEPS.bar) / (_STEPS.bar * _DATA_VARIANCE + 1 - _STEPS.bar)


class _Problem(NamedTuple):
    key: PRNGKey
    budget: int


def _model(schedule):
    slopes = jnp.asarray(_SLOPES)
    return lambda x, t: diffusion.prediction_from_noise(slopes[t] * x, x, t, schedule)


@jax.jit
def _log_weights(keys, points):
    schedule = diffusion.schedule_from_betas(jnp.asarray(_STEPS.beta[1:]))
    weight = lambda key, x: diffusion.path_log_weight(key, _model(schedule), x, schedule)  # noqa: E731
    return jax.vmap(jax.vmap(weight, (None, 0)), (0, None))(keys, points)


@jax.jit
def _terms(keys, point):
    schedule = diffusion.schedule_from_betas(jnp.asarray(_STEPS.beta[1:]))
    terms = jax.vmap(lambda key: diffusion.vlb_terms(key, _model(schedule), point, schedule))(keys)
    return jnp.concatenate([terms.reconstruction[:, None], terms.steps, terms.prior[:, None]], axis=1)


# Theory: the model is the Markov chain x_{t-1} = a_t x_t + sigma_t z, so that all its variables are jointly normal.


def _chain():
    """a_t and sigma_t^2 for t = 0, ..., T (entry 0 without meaning)."""
    beta, alpha, bar = _STEPS
    noise = 1 - bar
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (1 - beta / np.sqrt(noise) * _SLOPES) / np.sqrt(alpha)
        variance = np.concatenate([[0.0], beta[1:] * noise[:-1] / noise[1:]])
    variance[1] = beta[1]
    return slope, variance


def _model_covariance():
    """Of x_0, ..., x_T under the model."""
    slope, variance = _chain()
    marginal = np.ones(_T + 1)
    for t in range(_T, 0, -1):
        marginal[t - 1] = slope[t] ** 2 * marginal[t] + variance[t]
    covariance = np.diag(marginal)
    for late in range(_T + 1):
        for early in range(late - 1, -1, -1):
            covariance[early, late] = covariance[late, early] = slope[early + 1] * covariance[early + 1, late]
    return covariance


def _log_likelihood():
    variance = _model_covariance()[0, 0]
    return -(np.log(2 * np.pi * variance) + _POINTS**2 / variance) / 2


def _gaps():
    """KL(q(x_1, ..., x_T | x_0) || p(x_1, ..., x_T | x_0)) at each of the points."""
    joint = _model_covariance()
    gain = joint[1:, 0] / joint[0, 0]
    p = joint[1:, 1:] - np.outer(gain, joint[0, 1:])
    bar = _STEPS.bar[1:]
    early, late = np.minimum.outer(np.arange(_T), np.arange(_T)), np.maximum.outer(np.arange(_T), np.arange(_T))
    q = np.sqrt(bar[late] / bar[early]) * (1 - bar[early])
    log_ratio = np.linalg.slogdet(p)[1] - np.linalg.slogdet(q)[1]
    spread = (np.trace(np.linalg.solve(p, q)) - _T + log_ratio) / 2
    shift = np.sqrt(bar) - gain  # of the means, for x_0 = 1
    return spread + shift @ np.linalg.solve(p, shift) * _POINTS**2 / 2


def _bound(times):
    return lambda _: _log_likelihood() - times * _gaps()


def _expected_terms(order):
    """L_0, ..., L_{T-1} at the last point, each in closed form; `order` rearranges them."""

    def predict(_):
        beta, alpha, bar = _STEPS
        slope, variance = _chain()
        x, terms = _POINTS[-1], []
        for t in range(1, _T + 1):
            noise = 1 - bar[t]
            if t == 1:
                offset, factor = 1.0, -slope[1]
                constant = np.log(2 * np.pi * variance[1]) / 2
            else:
                offset = np.sqrt(bar[t - 1]) * beta[t] / noise
                factor, constant = np.sqrt(alpha[t]) * (1 - bar[t - 1]) / noise - slope[t], 0.0
            square = ((offset + factor * np.sqrt(bar[t])) * x) ** 2 + factor**2 * noise
            terms.append(constant + square / (2 * variance[t]))
        return order(np.array(terms))

    return predict


def _measured_weights(problem):
    return np.asarray(_log_weights(jax.random.split(problem.key, problem.budget), _POINTS))


def _likelihood_ratio(problem):
    return estimate(np.exp(_measured_weights(problem) - _log_likelihood()), _POINTS)


def _measured_terms(problem):
    terms = np.asarray(_terms(jax.random.split(problem.key, problem.budget), _POINTS[-1]))
    return estimate(terms[:, :-1], np.arange(_T))


def _measured_sum(skipped):
    """The mean of -L_T - ... - L_0, but for the terms `skipped`."""

    def measure(problem):
        keys = jax.random.split(problem.key, problem.budget)
        kept = np.delete(np.arange(_T + 1), skipped)
        rows = [-np.asarray(_terms(keys, x))[:, kept].sum(axis=1) for x in _POINTS]
        return estimate(np.stack(rows, axis=1), _POINTS)

    return measure


_AXES = Axes("data", "nats")

CLAIMS = (
    Claim(
        "diffusion.vlb",
        says="The mean log ratio of the model to the forward process is below the model's log-likelihood.",
        setup=_Problem,
        measure=lambda problem: estimate(_measured_weights(problem), _POINTS),
        predict=_bound(0),
        judge=MeanAtMost(),
        control=Variant("below it by twice the divergence", predict=_bound(2)),
        budget=Budget(12_000, 200_000),
        axes=_AXES,
    ),
    Claim(
        "diffusion.vlb",
        part="gap",
        says="It is below by the divergence of the forward process from the model's posterior.",
        setup=_Problem,
        measure=lambda problem: estimate(_measured_weights(problem), _POINTS),
        predict=_bound(1),
        judge=Mean(resolution=0.1, floor=0.1),
        control=Variant("not at all", predict=_bound(0)),
        budget=Budget(12_000, 200_000),
        axes=_AXES,
    ),
    Claim(
        "diffusion.vlb",
        part="weights",
        says="The mean of the ratio itself is the model's likelihood.",
        setup=_Problem,
        measure=_likelihood_ratio,
        predict=lambda _: np.ones(len(_POINTS)),
        judge=Mean(resolution=0.1),
        control=Variant("the exponential of the bound", predict=lambda _: np.exp(-_gaps())),
        budget=Budget(12_000, 500_000),
        axes=Axes("data", "ratio to the likelihood"),
    ),
    Claim(
        "diffusion.vlb_decomposition",
        says="Each of the terms L_0, ..., L_{T-1} has the mean that theory gives it for a linear model.",
        setup=_Problem,
        measure=_measured_terms,
        predict=_expected_terms(lambda terms: terms),
        judge=Mean(resolution=0.1, floor=0.02),
        control=Variant("one step later", predict=_expected_terms(lambda terms: np.roll(terms, 1))),
        budget=Budget(20_000, 500_000),
        axes=Axes("term", "nats"),
    ),
    Claim(
        "diffusion.vlb_decomposition",
        part="sum",
        says="Their sum is the bound: log-likelihood less the divergence of whole paths.",
        setup=_Problem,
        measure=_measured_sum([]),
        predict=_bound(1),
        judge=Mean(resolution=0.1, floor=0.1),
        control=Variant("without L_0", measure=_measured_sum([0])),
        budget=Budget(10_000, 100_000),
        axes=_AXES,
    ),
)
