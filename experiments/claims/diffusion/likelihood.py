"""Claims about likelihoods by the probability flow, in single precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from dltheory import diffusion
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.curves import Curve, estimate
from experiments.judges import Equal, Mean

__all__ = ["CLAIMS"]


def _cloud(key, d):
    """A mixture of three in d dimensions: weights, means and standard deviations."""
    rng = generator(jax.random.fold_in(key, d))
    return np.array([0.2, 0.5, 0.3]), 0.7 * rng.normal(size=(3, d)), rng.uniform(0.5, 0.9, size=(3, d))


_DIMENSIONS = (2, 10)


def _points(draw, d):
    weights, means, stds = _cloud(draw.key, d)
    rng = generator(jax.random.fold_in(draw.key, 100 + d))
    component = rng.choice(3, draw.budget, p=weights)
    points = means[component] + stds[component] * rng.normal(size=(draw.budget, d))
    return points[np.argsort(np.asarray(_log_density(draw, d, points)))].astype(np.float32)


def _log_density(draw, d, points):
    weights, means, stds = _cloud(draw.key, d)
    terms = stats.norm.logpdf(points[:, None, :], means, stds).sum(-1) + np.log(weights)
    return special.logsumexp(terms, axis=1)


def _log_densities(draw):
    return {f"d = {d}": _log_density(draw, d, _points(draw, d).astype(float)) for d in _DIMENSIONS}


def _model(cloud, sign):
    """The equation with its law at time 1 for the prior, and the score, of a mixture."""
    weights, means, stds = cloud
    sde = diffusion.vp_sde()
    data = diffusion.GaussianMixture(jnp.log(weights), means, stds**2)

    def law(t):
        return diffusion.diffused(data, *sde.marginal_prob(jnp.ones((), means.dtype), t))

    last = law(jnp.ones((), means.dtype))
    sde = sde._replace(prior_logp=lambda z: diffusion.mixture_log_density(last, z))
    return sde, lambda x, t: sign * diffusion.mixture_score(law(t), x)


@jax.jit
def _exact_traces(cloud, sign, points):
    sde, score_fn = _model(cloud, sign)
    return jax.vmap(lambda x: diffusion.flow_log_likelihood(sde, score_fn, x).log_likelihood)(points)


@jax.jit
def _estimated_traces(cloud, factor, keys, points):
    """Likelihoods [trials, points], with the integral of the divergence multiplied by a factor."""
    sde, score_fn = _model(cloud, 1.0)

    def one(key, x):
        result = diffusion.flow_log_likelihood_hutchinson(key, sde, score_fn, x)
        prior = sde.prior_logp(result.latent)
        return prior + factor * (result.log_likelihood - prior)

    return jax.vmap(jax.vmap(one), in_axes=(0, None))(keys, points)


def _single(cloud):
    return tuple(jnp.asarray(array, jnp.float32) for array in cloud)


def _likelihoods(sign):
    def measure(draw):
        curves = {}
        for d in _DIMENSIONS:
            values = _exact_traces(_single(_cloud(draw.key, d)), jnp.float32(sign), _points(draw, d))
            curves[f"d = {d}"] = Curve(values, np.arange(draw.budget))
        return curves

    return measure


_PROBED = np.linspace(-1.0, 1.0, 5)


def _on_a_line_through(draw):
    return np.asarray(_PROBED[:, None] * generator(draw.key).normal(size=_DIMENSIONS[1]), np.float32)


def _estimated(factor):
    def measure(draw):
        keys = jax.random.split(draw.key, (draw.budget, len(_PROBED)))
        cloud = _single(_cloud(draw.key, _DIMENSIONS[1]))
        return estimate(_estimated_traces(cloud, jnp.float32(factor), keys, _on_a_line_through(draw)), _PROBED)

    return measure


CLAIMS = (
    Claim(
        "sde.reverse",
        part="likelihood",
        says="The log-likelihood of the probability flow, in single precision, is the exact one to 1e-3 nats.",
        measure=_likelihoods(1.0),
        predict=_log_densities,
        judge=Equal(rtol=0.0, atol=1e-3),
        control=Variant("the score's sign flipped", measure=_likelihoods(-1.0)),
        budget=Budget(40, 400),
        axes=Axes("point", "log density"),
    ),
    Claim(
        "sde.reverse",
        part="estimated likelihood",
        says="With Hutchinson's estimate of the divergence the log-likelihood has the exact mean.",
        measure=_estimated(1.0),
        predict=lambda draw: _log_density(draw, _DIMENSIONS[1], _on_a_line_through(draw).astype(float)),
        judge=Mean(resolution=0.1, floor=0.5),
        control=Variant("the divergence counted twice", measure=_estimated(2.0)),
        budget=Budget(800, 4_000),
        axes=Axes("place", "log density"),
    ),
)
