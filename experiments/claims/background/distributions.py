"""Claims about the exponential, Bernoulli, binomial and Poisson distributions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import background
from experiments.claim import Axes, Claim, Variant
from experiments.claims.background._problems import legendre_grid
from experiments.curves import Curve
from experiments.judges import AtMost, Equal, Slope

__all__ = ["CLAIMS"]

_RATES = np.linspace(0.25, 4, 16)
_HEADS = np.linspace(0, 1, 21)
_TRIALS = 30


def _on_grid(logpdf):
    """Probabilities [parameters, outcomes] from one log probability, at all parameters and outcomes."""
    return jax.jit(lambda x, p: jnp.exp(jax.vmap(jax.vmap(logpdf, in_axes=(0, None)), in_axes=(None, 0))(x, p)))


_exponential = _on_grid(background.exponential_logpdf)
_bernoulli = _on_grid(background.bernoulli_logpmf)
_binomial = _on_grid(lambda x, p: background.binomial_logpmf(x, jnp.asarray(_TRIALS), p))
_poisson = _on_grid(background.poisson_logpmf)


def _moments(outcomes, probabilities, parameters):
    """Total probability, mean and variance of laws with probabilities [parameters, outcomes]."""
    probabilities = np.asarray(probabilities)
    mean = probabilities @ outcomes
    variance = np.sum(probabilities * (outcomes - mean[:, None]) ** 2, axis=1)
    moments = {"total": probabilities.sum(1), "mean": mean, "variance": variance}
    return {name: Curve(values, parameters) for name, values in moments.items()}


def _exponential_moments(_):
    x, weights = legendre_grid(0, 240, 240)
    return _moments(x, weights * np.asarray(_exponential(x, _RATES)), _RATES)


def _bernoulli_moments(_):
    return _moments(np.arange(2), _bernoulli(np.arange(2), _HEADS), _HEADS)


def _binomial_moments(_):
    return _moments(np.arange(_TRIALS + 1), _binomial(np.arange(_TRIALS + 1), _HEADS), _HEADS)


def _binomial_formulae(power):
    return {"total": 1.0, "mean": _TRIALS * _HEADS, "variance": _TRIALS**power * _HEADS * (1 - _HEADS)}


def _poisson_moments(_):
    return _moments(np.arange(80), _poisson(np.arange(80), _RATES), _RATES)


# Sums of coins.

_SUMMANDS = (3, 10, 30)
_OUTCOMES = np.arange(_SUMMANDS[-1] + 1)

_binomials = jax.jit(
    jax.vmap(
        jax.vmap(lambda x, n, p: jnp.exp(background.binomial_logpmf(x, n, p)), in_axes=(0, None, None)),
        in_axes=(None, 0, 0),
    )
)


def _sums_of_coins(spread):
    """The law of the number of heads of n coins, whose probabilities of heads are spread around 0.3."""
    result = {}
    for n in _SUMMANDS:
        coins = np.asarray(_bernoulli(np.arange(2), 0.3 + spread * np.linspace(-1, 1, _SUMMANDS[-1])))
        law = functools.reduce(np.convolve, coins[np.linspace(0, len(coins) - 1, n).astype(int)])
        result[f"n = {n}"] = Curve(law, np.arange(n + 1))
    return result


def _binomial_laws(_):
    laws = np.asarray(_binomials(_OUTCOMES, np.array(_SUMMANDS), np.full(len(_SUMMANDS), 0.3)))
    return {f"n = {n}": law[: n + 1] for n, law in zip(_SUMMANDS, laws, strict=True)}


# Rare events.

_MEANS = (0.5, 1.0, 3.0)
_SIZES = 2 ** np.arange(3, 13)


def _variations(sizes):
    """Total variation between binomial laws of n trials and the Poisson law of the same mean."""
    x = np.arange(61)  # more events than that have no probability to speak of
    result = {}
    poisson = np.asarray(_poisson(x, np.array(_MEANS)))
    for mean, limit in zip(_MEANS, poisson, strict=True):
        binomial = np.asarray(_binomials(x, _SIZES, mean / _SIZES))
        variation = np.abs(binomial - limit).sum(1) / 2
        result[f"mean {mean:g}"] = Curve(variation[np.isin(_SIZES, sizes)], sizes)
    return result


def _le_cam(power):
    return {f"mean {mean:g}": mean**2 / _SIZES**power for mean in _MEANS}


CLAIMS = (
    Claim(
        "background.exponential",
        says="The density integrates to one, with mean 1/rate and variance 1/rate^2.",
        measure=_exponential_moments,
        predict=lambda _: {"total": 1.0, "mean": 1 / _RATES, "variance": 1 / _RATES**2},
        judge=Equal(),
        control=Variant(
            "the rate read as the mean", predict=lambda _: {"total": 1.0, "mean": _RATES, "variance": _RATES**2}
        ),
        axes=Axes("rate", "moment", log="y"),
    ),
    Claim(
        "background.bernoulli",
        says="The probabilities sum to one, with mean p and variance p(1 - p), at p = 0 and 1 too.",
        measure=_bernoulli_moments,
        predict=lambda _: {"total": 1.0, "mean": _HEADS, "variance": _HEADS * (1 - _HEADS)},
        judge=Equal(atol=1e-14),
        control=Variant(
            "p read as the probability of 0",
            predict=lambda _: {"total": 1.0, "mean": 1 - _HEADS, "variance": _HEADS * (1 - _HEADS)},
        ),
        axes=Axes("p", "moment"),
    ),
    Claim(
        "background.binomial",
        says="The probabilities sum to one, with mean np and variance np(1 - p), at p = 0 and 1 too.",
        measure=_binomial_moments,
        predict=lambda _: _binomial_formulae(power=1),
        judge=Equal(atol=1e-12),
        control=Variant("the variance of n times one coin", predict=lambda _: _binomial_formulae(power=2)),
        axes=Axes("p", "moment"),
    ),
    Claim(
        "background.binomial",
        part="sum of coins",
        says="It is the law of a sum of independent Bernoulli variables, by convolution.",
        measure=lambda _: _sums_of_coins(spread=0.0),
        predict=_binomial_laws,
        judge=Equal(atol=1e-15),
        control=Variant("coins with different p, the same on average", measure=lambda _: _sums_of_coins(spread=0.25)),
        axes=Axes("number of heads", "probability"),
    ),
    Claim(
        "background.poisson",
        says="The probabilities sum to one, with mean and variance equal to the rate.",
        measure=_poisson_moments,
        predict=lambda _: {"total": 1.0, "mean": _RATES, "variance": _RATES},
        judge=Equal(),
        control=Variant(
            "the variance of an exponential law",
            predict=lambda _: {"total": 1.0, "mean": _RATES, "variance": _RATES**2},
        ),
        axes=Axes("rate", "moment"),
    ),
    Claim(
        "background.poisson",
        part="rare events",
        says="The binomial law with the same mean is within mean^2 / n of it in total variation (Le Cam).",
        measure=lambda _: _variations(_SIZES),
        predict=lambda _: _le_cam(power=1),
        judge=AtMost(),
        control=Variant("mean^2 / n^2", predict=lambda _: _le_cam(power=2)),
        axes=Axes("n", "total variation", log="xy"),
    ),
    Claim(
        "background.poisson",
        part="rate",
        says="That distance decays like 1/n.",
        measure=lambda _: _variations(_SIZES[3:]),
        predict=lambda _: -1.0,
        judge=Slope(tolerance=0.1),
        control=Variant("like the square root of 1/n, as in the central limit theorem", predict=lambda _: -0.5),
        axes=Axes("n", "total variation", log="xy"),
    ),
)
