"""Claims about what a score cannot learn without noise, and what it learns with it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import diffusion
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.diffusion import _line
from experiments.claims.diffusion._line import FINE, MODELS, model, random_models
from experiments.curves import Curve, estimate
from experiments.judges import AtLeast, Equal, Mean, Slope

__all__ = ["CLAIMS"]

# Where there are no data.

_DISTANCES = np.array([7.0, 8.0, 9.0, 10.0, 12.0])  # between the modes, in their standard deviations
_FEATURES = 60
_WIDE = 6.0


def _two_modes(distance, weights=(0.5, 0.5)):
    return diffusion.GaussianMixture(
        jnp.log(jnp.asarray(weights)), jnp.array([[-distance / 2], [distance / 2]]), jnp.ones((2, 1))
    )


@functools.partial(jax.jit, static_argnums=2)
def _fitted_errors(keys, distance, sigma):
    return jax.vmap(lambda key: _errors_of_a_fit(key, distance, sigma))(keys)


def _errors_of_a_fit(key, distance, sigma):
    """Mean squared errors of a fitted score halfway between two modes, and at them.

    The score is a sum of fixed bumps and fitted to samples, by one Newton step as the loss is quadratic, with noise of
    standard deviation sigma, or by the implicit loss if sigma is zero.
    """
    key_data, key_noise = jax.random.split(key)
    data = diffusion.mixture_sample(key_data, _two_modes(distance), (2000,))
    law = diffusion.diffused(_two_modes(distance), 1.0, sigma)
    centres = jnp.linspace(-14.0, 14.0, _FEATURES)

    def model(weights):
        return lambda x: weights @ jnp.exp(-((x - centres) ** 2) / 2)[:, None]

    def loss(weights):
        if sigma:
            fit = diffusion.denoising_score_matching_loss(key_noise, model(weights), data, sigma)
        else:
            fit = diffusion.implicit_score_matching_loss(model(weights), data)
        return fit + 1e-4 * jnp.sum(weights**2)

    start = jnp.zeros(_FEATURES)
    weights = -jnp.linalg.solve(jax.hessian(loss)(start), jax.grad(loss)(start))
    grid = jnp.linspace(-1.0, 1.0, 41)[:, None]
    points = jnp.concatenate([grid - distance / 2, grid, grid + distance / 2])
    truth = lambda x: diffusion.mixture_score(law, x)  # noqa: E731
    edges = distance / 4 * jnp.array([-4.0, -1.0, 1.0, 4.0])
    left, between, right = diffusion.error_profile(truth, model(weights), points, points[:, 0], edges).error
    return between, (left + right) / 2


def _error_ratios(plain, noisy):
    """Of errors between modes to those at them, and the other way round with noise."""

    def measure(draw):
        rows = []
        for key, distance in zip(jax.random.split(draw.key, len(_DISTANCES)), _DISTANCES, strict=True):
            keys = jax.random.split(key, draw.budget)
            (between, at), (noisy_between, noisy_at) = (
                np.mean(_fitted_errors(keys, distance, sigma), axis=1) for sigma in (plain, noisy)
            )
            rows.append((between / at, noisy_at / noisy_between))
        return {name: Curve(ratios, _DISTANCES) for name, ratios in zip(_RATIOS, np.transpose(rows), strict=True)}

    return measure


_RATIOS = ("between / at, without noise", "at / between, with noise")


_HALVES = np.array([4.0, 4.5, 5.0, 5.5, 6.0, 6.5])


def _blindness(_):
    """Fisher divergence between mixtures with weights .2, .8 and .5, .5, by quadrature."""
    points = np.linspace(-15.0, 15.0, 6001)

    @jax.jit
    def divergences(half):
        right, wrong = _two_modes(2 * half, (0.2, 0.8)), _two_modes(2 * half)
        score_fn, model_fn = (functools.partial(diffusion.mixture_score, law) for law in (right, wrong))
        at = jax.vmap(lambda x: diffusion.fisher_divergence(score_fn, model_fn, x[None, None]))
        return at(jnp.asarray(points))

    def density(half):
        return stats.norm.pdf(points[:, None], [-half, half]) @ np.array([0.2, 0.8])

    values = [np.asarray(divergences(half)) @ density(half) * (points[1] - points[0]) for half in _HALVES]
    return Curve(np.array(values), _HALVES**2)


_LADDER = np.geomspace(12.0, 0.3, 120)


@jax.jit
def _share_of_the_left(key, start, levels):
    law = _two_modes(12.0, (0.2, 0.8))

    def score_fn(x, sigma):
        return jax.vmap(lambda x: diffusion.mixture_score(diffusion.diffused(law, 1.0, sigma), x[None])[0])(x)

    return diffusion.annealed_langevin(key, score_fn, start, levels, 20, 0.1) < 0


def _left(levels):
    def measure(draw):
        key_start, key = jax.random.split(draw.key)
        start = 12.0 * jax.random.normal(key_start, (draw.budget,))
        return estimate(np.asarray(_share_of_the_left(key, start, jnp.asarray(levels)))[:, None], [0.0])

    return measure


# Noise.

_SIGMA = 0.7


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None, 0, 0, None))
def _differences(key, weights, clean, other, blur):
    """Denoising losses less divergences to the law with noise `blur`, one for each model."""
    law = diffusion.diffused(_line.mixture(), 1.0, blur)
    truth = lambda x: diffusion.mixture_score(law, x[None])[0]  # noqa: E731

    def one(weights):
        denoising = diffusion.denoising_score_matching_loss(key, model(weights), clean, _SIGMA)
        return denoising - diffusion.fisher_divergence(truth, model(weights), other)

    return jax.vmap(one)(weights)


def _denoising_less_divergence(blur):
    def measure(draw):
        weights = jnp.asarray(random_models(draw.key))
        rng = generator(jax.random.fold_in(draw.key, 1))
        clean = jnp.asarray(_line.draws(rng, 0.0, (draw.budget, 50)))
        other = jnp.asarray(_line.draws(rng, 0.0, (draw.budget, 50)))
        other = other + blur * rng.normal(size=other.shape)
        keys = jax.random.split(draw.key, draw.budget)
        return estimate(_differences(keys, weights, clean, other, blur), np.arange(MODELS))

    return measure


def _denoising_constant(_):
    """1 / sigma^2 - E (d log p_sigma / dx)^2 by quadrature."""
    stds = np.sqrt(_line.STDS**2 + _SIGMA**2)
    mass = stats.norm.pdf(FINE[:, None], _line.MEANS, stds) @ _line.WEIGHTS * (FINE[1] - FINE[0])
    return np.full(MODELS, 1 / _SIGMA**2 - mass @ _line.score_on(FINE, _line.MEANS, stds) ** 2)


_SHOWN = np.linspace(-3.5, 3.5, 41)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
def _tweedie_means(x, sign):
    law = diffusion.diffused(_line.mixture(), 1.0, _SIGMA)
    return diffusion.tweedie_mean(x, sign * diffusion.mixture_score(law, x[None])[0], _SIGMA)


def _tweedie(sign):
    return lambda _: Curve(_tweedie_means(_SHOWN, sign), _SHOWN)


def _posterior_mean(_):
    joint = _line.pdf(FINE, 0.0) * stats.norm.pdf(_SHOWN[:, None], FINE, _SIGMA)
    return joint @ FINE / joint.sum(axis=1)


CLAIMS = (
    Claim(
        "score.low_density",
        says="A fitted score errs 10 times as much between far modes as at them; not if noise joins the modes.",
        measure=_error_ratios(0.0, _WIDE),
        predict=lambda _: dict(zip(_RATIOS, (10.0, 0.1), strict=True)),
        judge=AtLeast(),
        budget=Budget(6, 200),
        control=Variant("noise and none exchanged", measure=_error_ratios(_WIDE, 0.0)),
        axes=Axes("distance of the modes", "ratio of errors", "y"),
    ),
    Claim(
        "score.low_density",
        part="weights",
        says="Wrong weights of modes at -a and a cost a Fisher divergence of order exp(-a^2 / 2), whatever they are.",
        measure=_blindness,
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.05, log="y"),
        control=Variant("none that falls, as that of Kullback and Leibler", predict=lambda _: 0.0),
        axes=Axes("a^2", "Fisher divergence", "y"),
    ),
    Claim(
        "score.low_density",
        part="annealing",
        says="Langevin dynamics over falling noise find modes of weights .2 and .8, twelve standard deviations apart.",
        measure=_left(_LADDER),
        predict=lambda _: np.array([0.2]),
        judge=Mean(resolution=0.25),
        control=Variant("with the least noise alone", measure=_left(np.full_like(_LADDER, _LADDER[-1]))),
        budget=Budget(3_000, 20_000),
        axes=Axes("", "share of the left mode"),
    ),
    Claim(
        "score.noise_conditional",
        says="For twenty models the denoising loss is the Fisher divergence to the blurred law, up to one constant.",
        measure=_denoising_less_divergence(_SIGMA),
        predict=_denoising_constant,
        judge=Mean(resolution=0.5),
        control=Variant("the divergence to the law without noise", measure=_denoising_less_divergence(0.0)),
        budget=Budget(1_500, 10_000),
        axes=Axes("model", "denoising loss - divergence"),
    ),
    Claim(
        "score.noise_conditional",
        part="tweedie",
        says="The score at a noise level gives the mean of the clean sample: x + sigma^2 score.",
        measure=_tweedie(1),
        predict=_posterior_mean,
        judge=Equal(1e-9, atol=1e-9),
        control=Variant("the score's sign flipped", measure=_tweedie(-1)),
        axes=Axes("noisy sample", "mean of the clean one"),
    ),
)
