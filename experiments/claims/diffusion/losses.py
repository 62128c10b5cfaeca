"""Claims about the losses: the bound as an error of the noise, the simple loss, and the last term of the bound."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import diffusion
from dltheory.typing import PRNGKey
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.diffusion._laws import Steps, product, random_steps
from experiments.curves import Curve, estimate
from experiments.judges import Equal, Mean

__all__ = ["CLAIMS"]


class _Point(NamedTuple):
    steps: Steps
    x0: np.ndarray  # [d]
    noise: np.ndarray  # [d]


def _point(key, _budget):
    rng = generator(key)
    return _Point(random_steps(key), rng.normal(size=4) + 1, rng.normal(size=4))


def _guess(x):
    """Some network."""
    return 0.3 * x + 0.5


# Terms of the bound as errors of the noise.


@jax.jit
def _library(x0, noise, betas):
    """For t = 2, ..., T the divergence of the posterior from the model's step, and the weight of the noise's error."""
    schedule = diffusion.schedule_from_betas(betas)

    def at(t):
        xt = jnp.sqrt(schedule.alpha_bars[t]) * x0 + jnp.sqrt(schedule.one_minus_alpha_bars[t]) * noise
        exact = diffusion.posterior(x0, xt, t, schedule)
        mean = diffusion.posterior_mean_from_noise(_guess(xt), xt, t, schedule)
        return jnp.sum((exact.mean - mean) ** 2) / (2 * exact.variance)

    return jax.vmap(at)(jnp.arange(2, len(betas) + 1)), diffusion.vlb_weights(schedule)[2:]


def _divergences(problem):
    divergence, _ = _library(problem.x0, problem.noise, problem.steps.beta[1:])
    return Curve(divergence, np.arange(2, len(divergence) + 2))


def _weights(problem):
    _, weights = _library(problem.x0, problem.noise, problem.steps.beta[1:])
    return Curve(weights, np.arange(2, len(weights) + 2))


def _prefactor(beta, alpha, bar, before):
    """As printed, which is right: (1 - alpha)^2 / (2 alpha (1 - alpha-bar) beta-tilde)."""
    return beta**2 / (2 * alpha * (1 - bar) * (1 - before) / (1 - bar) * beta)


def _error_of_noise(share, weigh=_prefactor):
    """Weighted error of the noise for an input with `share` of the data."""

    def predict(problem):
        beta, alpha, bar = (values[2:] for values in problem.steps)
        s = share(problem.steps)[2:, None]
        error = problem.noise - _guess(np.sqrt(s) * problem.x0 + np.sqrt(1 - s) * problem.noise)
        return weigh(beta, alpha, bar, problem.steps.bar[1:-1]) * np.sum(error**2, axis=1)

    return predict


def _snr_steps(problem):
    ratio = problem.steps.bar[1:] / (1 - problem.steps.bar[1:])
    return (ratio[:-1] - ratio[1:]) / (2 * ratio[1:])


def _barred(steps):
    return steps.bar


def _bare(steps):
    return steps.alpha


# The simple loss: normal data of variance v, noise predicted as a multiple of x_t.

_STEPS = product(np.linspace(0.02, 0.4, 20))
_TIMES = np.arange(1, 21)
_BAR = _STEPS.bar[1:]
_VARIANCE, _DIM = 4.0, 2
_BEST = np.sqrt(1 - _BAR) / (_BAR * _VARIANCE + 1 - _BAR)


class _Draw(NamedTuple):
    key: PRNGKey
    budget: int


@jax.jit
def _losses(keys, slopes):
    schedule = diffusion.schedule_from_betas(jnp.asarray(_STEPS.beta[1:]))

    def at(key, t, slope):
        key_data, key_noise = jax.random.split(key)
        x0 = jnp.sqrt(_VARIANCE) * jax.random.normal(key_data, (_DIM,))
        predict_fn = lambda x, t: diffusion.prediction_from_noise(slope * x, x, t, schedule)  # noqa: E731
        return diffusion.denoising_loss(key_noise, predict_fn, x0, t, schedule)

    def all_times(key):
        return jax.vmap(at)(jax.random.split(key, len(_TIMES)), jnp.asarray(_TIMES), slopes)

    return jax.vmap(all_times)(keys)


def _mean_losses(slopes):
    def measure(draw):
        return estimate(np.asarray(_losses(jax.random.split(draw.key, draw.budget), slopes)), _TIMES)

    return measure


@jax.jit
def _distances(keys, slopes):
    schedule = diffusion.schedule_from_betas(jnp.asarray(_STEPS.beta[1:]))
    law = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, _DIM)), jnp.full((1, _DIM), _VARIANCE))

    def at(key, t, slope):
        predict_fn = lambda x, t: diffusion.prediction_from_noise(slope * x, x, t, schedule)  # noqa: E731
        return diffusion.excess_loss(key, predict_fn, law, t, schedule)

    def all_times(key):
        return jax.vmap(at)(jax.random.split(key, len(_TIMES)), jnp.asarray(_TIMES), slopes)

    return jax.vmap(all_times)(keys)


def _excess(draw):
    """What another multiple costs beyond the best, with the same noise; and how far it is from the best."""
    keys = jax.random.split(draw.key, draw.budget)
    differences = np.asarray(_losses(keys, _OTHER)) - np.asarray(_losses(keys, _BEST))
    return {"losses": estimate(differences, _TIMES), "predictions": estimate(_distances(keys, _OTHER), _TIMES)}


_OTHER = _BEST + 0.4
_HALF = np.full(len(_TIMES), 0.5)


def _least_loss(_):
    return _DIM * _BAR * _VARIANCE / (_BAR * _VARIANCE + 1 - _BAR)


def _distance(_):
    """E |(c - c*) x_t|^2."""
    return _DIM * (_OTHER - _BEST) ** 2 * (_BAR * _VARIANCE + 1 - _BAR)


def _loss_of_half(share):
    """E |noise - x_t / 2|^2 for an input with `share` of the data."""

    def predict(_):
        second_moment = share(_STEPS)[1:] * _VARIANCE + 1 - _BAR
        return _DIM * (1 - np.sqrt(1 - _BAR) + second_moment / 4)

    return predict


# The term L_0.


@jax.jit
def _first_steps(x0, noise, betas):
    """Divided by twice the variance of the last step: the squared distance of the data from where it leads."""
    schedule = diffusion.schedule_from_betas(betas)
    beta, alpha = schedule.betas[1], schedule.alphas[1]
    x1 = jnp.sqrt(alpha) * x0 + jnp.sqrt(beta) * noise
    prediction = diffusion.prediction_from_noise(_guess(x1), x1, 1, schedule)
    mean = diffusion.posterior(prediction.data, x1, 1, schedule).mean
    return (x0 - mean) ** 2 / (2 * beta)


def _reconstruction(problem):
    return _first_steps(problem.x0, problem.noise, problem.steps.beta[1:])


def _first_error(weight):
    """The error of the noise at t = 1, weighed."""

    def predict(problem):
        beta, alpha = problem.steps.beta[1], problem.steps.alpha[1]
        x1 = np.sqrt(alpha) * problem.x0 + np.sqrt(beta) * problem.noise
        return weight(alpha) * (problem.noise - _guess(x1)) ** 2

    return predict


_LEVELS = np.linspace(-1, 1, 256)
_WIDTHS = np.array([0.0005, 0.002, 0.01, 0.05, 0.3, 2.0])
_CENTRE = 0.3


@jax.jit
def _bins(widths):
    log_likelihood = functools.partial(diffusion.discretized_gaussian_log_likelihood, mean=jnp.array(_CENTRE))
    return jax.vmap(lambda std: jnp.exp(jax.vmap(lambda x: log_likelihood(x, std=std))(jnp.asarray(_LEVELS))))(widths)


def _sum_of_bins(_):
    return Curve(np.asarray(_bins(_WIDTHS)).sum(axis=1), _WIDTHS)


def _sum_of_densities(_):
    z = (_LEVELS - _CENTRE) / _WIDTHS[:, None]
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) / _WIDTHS[:, None]
    return Curve(density.sum(axis=1) * (_LEVELS[1] - _LEVELS[0]), _WIDTHS)


_ERRORS = np.array([0.5, 1.0, 2.0, 3.0])


@jax.jit
def _erring_at_first(keys, errors):
    """Simple losses of a network that knows the data, all of them at 0, but errs at t = 1."""
    schedule = diffusion.schedule_from_betas(jnp.asarray(_STEPS.beta[1:]))

    def loss(key, error):
        def predict_fn(x, t):
            noise = x / jnp.sqrt(schedule.one_minus_alpha_bars[t]) + jnp.where(t == 1, error, 0.0)
            return diffusion.prediction_from_noise(noise, x, t, schedule)

        return diffusion.simple_loss(key, predict_fn, jnp.zeros(1), schedule)

    return jax.vmap(jax.vmap(loss, (None, 0)), (0, None))(keys, errors)


def _loss_from_first(draw):
    return estimate(np.asarray(_erring_at_first(jax.random.split(draw.key, draw.budget), _ERRORS)), _ERRORS)


_LOSS = Axes("time", "loss")

CLAIMS = (
    Claim(
        "diffusion.l0_term",
        says="But for a constant, L_0 of a normal density is the error of the noise at t = 1 times 1 / (2 alpha).",
        setup=_point,
        measure=_reconstruction,
        predict=_first_error(lambda alpha: 1 / (2 * alpha)),
        judge=Equal(rtol=1e-9),
        control=Variant("times 1 / 2", predict=_first_error(lambda _alpha: 0.5)),
        axes=Axes("", "nats"),
    ),
    Claim(
        "diffusion.l0_term",
        part="bins",
        says="Probabilities of the 256 bins sum to 1, however narrow or wide the normal law.",
        measure=_sum_of_bins,
        predict=lambda _: np.ones(len(_WIDTHS)),
        judge=Equal(rtol=1e-10),
        control=Variant("densities at the centres", measure=_sum_of_densities),
        axes=Axes("standard deviation", "sum", "x"),
    ),
    Claim(
        "diffusion.l0_term@printed",
        says="The loss that is used in practice ignores L_0: it does not see errors at t = 1.",
        setup=_Draw,
        measure=_loss_from_first,
        predict=lambda _: np.zeros(len(_ERRORS)),
        judge=Mean(resolution=0.1, floor=0.05),
        control=Variant("it sees nothing else", predict=lambda _: _ERRORS**2),
        corrected=Variant("it sees them in one draw of T", predict=lambda _: _ERRORS**2 / len(_TIMES)),
        budget=Budget(100_000, 1_000_000),
        axes=Axes("error of the noise at t = 1", "simple loss"),
    ),
    Claim(
        "diffusion.loss_reparametrized",
        says="For t = 2, ..., T the divergence is the squared error of the noise, weighed.",
        setup=_point,
        measure=_divergences,
        predict=_error_of_noise(_barred),
        judge=Equal(rtol=1e-8),
        control=Variant(
            "weights with alpha-bar at t",
            predict=_error_of_noise(_barred, lambda beta, alpha, bar, _before: beta / (2 * alpha * (1 - bar))),
        ),
        axes=Axes("time", "nats", "y"),
    ),
    Claim(
        "diffusion.loss_reparametrized@printed",
        says="The divergence is the error of the noise predicted from sqrt(alpha) x_0 + sqrt(1 - alpha) noise.",
        setup=_point,
        measure=_divergences,
        predict=_error_of_noise(_bare),
        judge=Equal(rtol=1e-8),
        control=Variant("unweighed", predict=_error_of_noise(_barred, lambda *_: 1.0)),
        corrected=Variant("predicted from x_t", predict=_error_of_noise(_barred)),
        axes=Axes("time", "nats", "y"),
    ),
    Claim(
        "diffusion.loss_reparametrized",
        part="weights",
        says="The weight is half the relative step of the ratio of signal to noise.",
        setup=_point,
        measure=_weights,
        predict=_snr_steps,
        judge=Equal(rtol=1e-8),
        control=Variant("all of it", predict=lambda problem: 2 * _snr_steps(problem)),
        axes=Axes("time", "weight", "y"),
    ),
    Claim(
        "diffusion.loss_simple",
        says="The best prediction for normal data leaves the loss that theory gives, at every time.",
        setup=_Draw,
        measure=_mean_losses(_BEST),
        predict=_least_loss,
        judge=Mean(resolution=0.1, floor=0.05),
        control=Variant("none", predict=lambda _: np.zeros(len(_TIMES))),
        budget=Budget(10_000, 400_000),
        axes=_LOSS,
    ),
    Claim(
        "diffusion.loss_simple",
        part="excess",
        says="Any other prediction costs its mean squared distance from the best.",
        setup=_Draw,
        measure=_excess,
        predict=_distance,
        judge=Mean(resolution=0.2),
        control=Variant("half of it", predict=lambda _: _distance(_) / 2),
        budget=Budget(10_000, 400_000),
        axes=Axes("time", "difference of losses, distance of predictions"),
    ),
    Claim(
        "diffusion.loss_simple@printed",
        says="The network is given sqrt(alpha) x_0 + sqrt(1 - alpha-bar) noise.",
        setup=_Draw,
        measure=_mean_losses(_HALF),
        predict=_loss_of_half(_bare),
        judge=Mean(resolution=0.1, floor=0.05),
        control=Variant("no data at all", predict=_loss_of_half(lambda steps: 0 * steps.bar)),
        corrected=Variant("sqrt(alpha-bar) x_0 + sqrt(1 - alpha-bar) noise", predict=_loss_of_half(_barred)),
        budget=Budget(10_000, 400_000),
        axes=_LOSS,
    ),
)
