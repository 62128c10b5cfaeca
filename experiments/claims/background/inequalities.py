"""Claims about the inequalities of Markov, Chernoff, Hoeffding, Hölder and Jensen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import background
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.background._problems import hermite_grid, random_laws
from experiments.curves import Curve, frequency
from experiments.judges import AtLeast, AtMost, Equal, ProbabilityAtMost

__all__ = ["CLAIMS"]

# Markov and Chernoff: three laws of mean 3, by their tails P(X >= a), log-MGFs and the parameters of those.

_THRESHOLDS = np.arange(0.5, 15.5, 0.5)
_LAWS = {
    "exponential": (stats.expon(scale=3).sf(_THRESHOLDS), background.exponential_log_mgf, (1 / 3,)),
    "Poisson": (stats.poisson(3).sf(np.ceil(_THRESHOLDS) - 1), background.poisson_log_mgf, (3.0,)),
    "binomial": (stats.binom(12, 0.25).sf(np.ceil(_THRESHOLDS) - 1), background.binomial_log_mgf, (12, 0.25)),
}


def _tails(_):
    return {name: Curve(tail, _THRESHOLDS) for name, (tail, _, _) in _LAWS.items()}


_markov = jax.jit(jax.vmap(background.markov_bound))


def _markov_bounds(mean):
    return {name: _markov(jnp.full(_THRESHOLDS.size, mean), jnp.asarray(_THRESHOLDS)) for name in _LAWS}


def _normal_tails(_):
    return dict.fromkeys(_LAWS, Curve(stats.norm.sf(_THRESHOLDS), _THRESHOLDS))


def _two_point_tails(low):
    """P(X >= a) and the mean of laws on {low a, a} that give the upper value the probability 1/(a + 1)."""
    thresholds = _THRESHOLDS[:, None]
    values = np.concatenate([low * thresholds, thresholds], axis=1)
    weights = np.concatenate([thresholds, np.ones_like(thresholds)], axis=1) / (thresholds + 1)
    tails = np.sum(weights * (values >= thresholds), axis=1)
    return Curve(tails, _THRESHOLDS), np.sum(weights * values, axis=1)


@jax.jit
def _chernoff(thresholds):
    def bound(log_mgf, parameters):
        return jax.vmap(lambda a: background.chernoff_bound(lambda t: log_mgf(*parameters, t), a))(thresholds)

    return {name: bound(log_mgf, parameters) for name, (_, log_mgf, parameters) in _LAWS.items()}


def _chernoff_bounds(power):
    return {name: np.asarray(bound) ** power for name, bound in _chernoff(jnp.asarray(_THRESHOLDS)).items()}


# Hoeffding.

_DEVIATIONS = np.linspace(0.02, 0.5, 25)
_COINS = ((5, 0.5), (20, 0.1), (20, 0.5), (80, 0.5), (200, 0.5), (200, 0.9))
_BERNOULLI = {f"n = {n}, p = {p}": (n, p) for n, p in _COINS}


def _binomial_tail(n, p, deviation):
    """Exact probability that the mean of n Bernoulli(p) variables exceeds p by the deviation."""
    return stats.binom.sf(np.ceil(n * (p + deviation) - 1e-9) - 1, n, p)


def _binomial_tails(_):
    return {name: Curve(_binomial_tail(n, p, _DEVIATIONS), _DEVIATIONS) for name, (n, p) in _BERNOULLI.items()}


_hoeffding = jax.jit(jax.vmap(background.hoeffding_bound, in_axes=(None, 0)))


def _binomial_bounds(power):
    widths = {name: np.ones(n) for name, (n, _) in _BERNOULLI.items()}
    return {name: np.asarray(_hoeffding(width, _DEVIATIONS)) ** power for name, width in widths.items()}


_WIDTHS = np.geomspace(0.1, 2.0, 12)
_MEAN_DEVIATIONS = np.linspace(0.05, 0.3, 11)


def _frequencies(means):
    return frequency(means[:, None] >= _MEAN_DEVIATIONS, x=_MEAN_DEVIATIONS)


def _independent(draw):
    uniform = generator(draw.key).uniform(-0.5, 0.5, (draw.budget, _WIDTHS.size))
    return _frequencies(uniform @ _WIDTHS / _WIDTHS.size)


def _dependent(draw):
    return _frequencies(np.mean(_WIDTHS) / 2 * generator(draw.key).choice([-1.0, 1.0], draw.budget))


_PRECISIONS = np.linspace(0.01, 0.2, 20)
_RISKS = (0.1, 1e-3, 1e-6)

_sample_sizes = jax.jit(jax.vmap(background.hoeffding_sample_size, in_axes=(0, None, None)))


def _tails_at_sample_size(fraction):
    """Tails of the mean of as many fair coins as the sample size says, or of a fraction of them."""
    result = {}
    for risk in _RISKS:
        n = np.ceil(fraction * np.asarray(_sample_sizes(_PRECISIONS, risk, 1.0)))
        result[f"risk {risk:g}"] = Curve(_binomial_tail(n, 0.5, _PRECISIONS), _PRECISIONS)
    return result


# Hölder.

_EXPONENTS = np.array([1.0, 1.2, 2.0, 5.0, np.inf])
_DIMENSIONS = 2 ** np.arange(1, 9)


def _holder_ratios(draw):
    """For each exponent and dimension the largest |u v|_1 / (|v|_p |u|_p*) among random pairs of vectors."""
    rng = generator(draw.key)
    ratios = np.empty((_EXPONENTS.size, _DIMENSIONS.size))
    for j, d in enumerate(_DIMENSIONS):
        u, v = rng.normal(size=(2, draw.budget, d)) ** 3  # a heavy tail, so that few entries carry a norm
        product = np.abs(u * v).sum(1)
        for i, p in enumerate(_EXPONENTS):
            dual = np.inf if p == 1 else 1.0 if p == np.inf else p / (p - 1)
            norms = np.linalg.norm(v, p, axis=1) * np.linalg.norm(u, dual, axis=1)
            ratios[i, j] = np.max(product / norms)
    return {f"p = {p:g}": Curve(ratio, _DIMENSIONS) for p, ratio in zip(_EXPONENTS, ratios, strict=True)}


def _cubic_norms(_):
    """The ratio for vectors of ones with both exponents 3, whose reciprocals sum to 2/3."""
    return {f"p = {p:g}": Curve(_DIMENSIONS / _DIMENSIONS ** (2 / 3), _DIMENSIONS) for p in _EXPONENTS}


@jax.jit
def _pairings(v, exponents):
    """<u, v> and |v|_p |u|_p* - |u v|_1 for the extremal u."""
    u = jax.vmap(background.holder_extremal, in_axes=(None, 0))(v, exponents)
    return u @ v, jax.vmap(background.holder_gap, in_axes=(0, None, 0))(u, v, exponents)


_EXPONENT_GRID = np.concatenate([np.linspace(1, 6, 26), [np.inf]])


def _extremal(draw):
    pairing, gap = _pairings(generator(draw.key).normal(size=10), _EXPONENT_GRID)
    x = np.where(np.isinf(_EXPONENT_GRID), 0.0, 1 / _EXPONENT_GRID)
    return {"norm of v as a maximum": Curve(pairing, x), "gap": Curve(gap, x)}


def _norms(draw, exponents):
    v = generator(draw.key).normal(size=10)
    return {"norm of v as a maximum": np.array([np.linalg.norm(v, p) for p in exponents]), "gap": 0.0}


# Jensen.

_SPREADS = np.linspace(0, 2, 21)
_CONVEX = ("exp", "square", "absolute value", "-log", "log-sum-exp")


def _convex(x):
    first = x[0]
    return jnp.stack([jnp.exp(first), first**2, jnp.abs(first), -jnp.log(first + 10), jax.nn.logsumexp(x)])


@jax.jit
def _smallest_gaps(atoms, weights, sign):
    """For each spread and function the smallest gap among random laws."""
    gaps = jax.vmap(lambda x, w: background.jensen_gap(lambda atom: sign * _convex(atom), x, w))
    return jax.lax.map(lambda spread: jnp.min(gaps(spread * atoms, weights), axis=0), jnp.asarray(_SPREADS))


def _jensen_gaps(draw, sign):
    rng = generator(draw.key)
    gaps = _smallest_gaps(rng.uniform(-3, 3, (draw.budget, 4, 3)), random_laws(rng, draw.budget, 4), sign)
    return {name: Curve(gap, _SPREADS) for name, gap in zip(_CONVEX, np.asarray(gaps).T, strict=True)}


_DEVIATION_GRID = np.linspace(0, 2, 21)


@jax.jit
def _gaussian_gaps(nodes, weights):
    def gap(f, mean):
        return jax.vmap(lambda s: background.jensen_gap(f, mean + s * nodes, weights))(jnp.asarray(_DEVIATION_GRID))

    exponential = {f"exp, mean {mean}": gap(jnp.exp, mean) for mean in (-1, 0, 1)}
    return exponential | {"affine": gap(lambda x: 3 * x - 1, 1.0)}


def _measured_gaussian_gaps(_):
    nodes, weights = hermite_grid(40, 1)
    return {name: Curve(gap, _DEVIATION_GRID) for name, gap in _gaussian_gaps(nodes[:, 0], weights).items()}


def _predicted_gaussian_gaps(excess):
    return {f"exp, mean {mean}": np.exp(mean) * excess for mean in (-1, 0, 1)} | {"affine": 0.0}


CLAIMS = (
    Claim(
        "background.hoeffding",
        says="Exact binomial tails stay below the bound.",
        measure=_binomial_tails,
        predict=lambda _: _binomial_bounds(power=1),
        judge=AtMost(),
        control=Variant("exponent doubled", predict=lambda _: _binomial_bounds(power=2)),
        axes=Axes("deviation t", "tail probability", log="y"),
    ),
    Claim(
        "background.hoeffding",
        part="different ranges",
        says="Tail frequencies of a mean of independent uniform variables on twelve different intervals stay below it.",
        measure=_independent,
        predict=lambda _: _hoeffding(_WIDTHS, _MEAN_DEVIATIONS),
        judge=ProbabilityAtMost(),
        control=Variant("the variables share one sign (independence violated)", measure=_dependent),
        budget=Budget(quick=200_000, full=5_000_000),
        axes=Axes("deviation t", "tail probability", log="y"),
    ),
    Claim(
        "background.hoeffding",
        part="sample size",
        says="With the number of observations that the bound asks for, a deviation is as improbable as wanted.",
        measure=lambda _: _tails_at_sample_size(1.0),
        predict=lambda _: {f"risk {risk:g}": risk for risk in _RISKS},
        judge=AtMost(),
        control=Variant("half as many observations", measure=lambda _: _tails_at_sample_size(0.5)),
        axes=Axes("deviation t", "tail probability", log="y"),
    ),
    Claim(
        "background.holder",
        says="No random pair of vectors breaks the inequality.",
        measure=_holder_ratios,
        predict=lambda _: 1.0,
        judge=AtMost(),
        control=Variant("both exponents 3, vectors of ones", measure=_cubic_norms),
        budget=Budget(quick=1_000, full=20_000),
        axes=Axes("dimension", "largest $|u v|_1 / (|v|_p |u|_{p^*})$", log="x"),
    ),
    Claim(
        "background.holder",
        part="equality",
        says="At the extremal vector of unit dual norm the inequality is an equality.",
        measure=_extremal,
        predict=lambda draw: _norms(draw, _EXPONENT_GRID),
        judge=Equal(atol=1e-12),
        control=Variant("the norm with twice the exponent", predict=lambda draw: _norms(draw, 2 * _EXPONENT_GRID)),
        axes=Axes("1/p", "value"),
    ),
    Claim(
        "background.jensen",
        says="The gap is non-negative for convex functions and any of many random laws on four atoms.",
        measure=lambda draw: _jensen_gaps(draw, 1.0),
        predict=lambda _: 0.0,
        judge=AtLeast(atol=1e-12),
        control=Variant("concave functions: the same with a minus", measure=lambda draw: _jensen_gaps(draw, -1.0)),
        budget=Budget(quick=1_000, full=100_000),
        axes=Axes("spread of the law", "smallest gap"),
    ),
    Claim(
        "background.jensen",
        part="normal law",
        says="For exp and a normal variable the gap is the closed form; for an affine function it is zero.",
        measure=_measured_gaussian_gaps,
        predict=lambda _: _predicted_gaussian_gaps(np.expm1(_DEVIATION_GRID**2 / 2)),
        judge=Equal(atol=1e-12),
        control=Variant(
            "its second-order approximation", predict=lambda _: _predicted_gaussian_gaps(_DEVIATION_GRID**2 / 2)
        ),
        axes=Axes("standard deviation", "gap"),
    ),
    Claim(
        "background.markov",
        says="Exact tails of non-negative variables of mean 3 stay below the bound.",
        measure=_tails,
        predict=lambda _: _markov_bounds(3.0),
        judge=AtMost(),
        control=Variant(
            "a standard normal variable (not non-negative)",
            measure=_normal_tails,
            predict=lambda _: _markov_bounds(0.0),
        ),
        axes=Axes("threshold a", "tail probability", log="y"),
    ),
    Claim(
        "background.markov",
        part="attained",
        says="The law on 0 and a attains the bound.",
        measure=lambda _: _two_point_tails(low=0.0)[0],
        predict=lambda _: _markov(_two_point_tails(low=0.0)[1], _THRESHOLDS),
        judge=Equal(),
        control=Variant("the law on a/2 and a", predict=lambda _: _markov(_two_point_tails(low=0.5)[1], _THRESHOLDS)),
        axes=Axes("threshold a", "tail probability"),
    ),
    Claim(
        "background.markov",
        part="Chernoff",
        says="Exact tails stay below the bound for the exponential of the variable.",
        measure=_tails,
        predict=lambda _: _chernoff_bounds(power=1),
        judge=AtMost(),
        control=Variant("exponent doubled", predict=lambda _: _chernoff_bounds(power=2)),
        axes=Axes("threshold a", "tail probability", log="y"),
    ),
)
