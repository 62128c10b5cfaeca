"""Claims about the Kullback-Leibler divergence and entropy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize, special

from dltheory import background
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.background._problems import random_laws
from experiments.curves import Curve
from experiments.judges import AtLeast, AtMost, Equal, Mean

__all__ = ["CLAIMS"]

_kl = jax.jit(jax.vmap(background.kl_discrete))
_entropy = jax.jit(jax.vmap(background.entropy))

# Divergence against total variation, on the way from p to q.

_MIXTURES = np.linspace(0.05, 1, 20)


def _pinsker_ratios(draw):
    """For each number of outcomes and mixture the smallest KL / TV^2 among random pairs of laws."""
    rng = generator(draw.key)
    result = {}
    for n in (2, 10, 100):
        p, q = random_laws(rng, draw.budget, n), random_laws(rng, draw.budget, n)
        mixed = p + _MIXTURES[:, None, None] * (q - p)
        divergence = np.asarray(_kl(mixed.reshape(-1, n), np.tile(p, (_MIXTURES.size, 1))))
        variation = np.abs(mixed - p).sum(2) / 2
        ratio = divergence.reshape(_MIXTURES.size, -1) / variation**2
        result[f"{n} outcomes"] = Curve(ratio.min(1), _MIXTURES)
    return result


_HEADS = np.linspace(0.05, 0.95, 19)


def _asymmetric(_):
    """Divergences between a fair coin and others, both ways."""
    fair, coin = np.full((_HEADS.size, 2), 0.5), np.stack([_HEADS, 1 - _HEADS], axis=1)
    return {"KL(fair, p)": Curve(_kl(fair, coin), _HEADS), "KL(p, fair)": Curve(_kl(coin, fair), _HEADS)}


def _fair_divergences(_):
    entropy = -special.xlogy(_HEADS, _HEADS) - special.xlogy(1 - _HEADS, 1 - _HEADS)
    return {"KL(fair, p)": -np.log(4 * _HEADS * (1 - _HEADS)) / 2, "KL(p, fair)": np.log(2) - entropy}


_CELLS = np.array([1, 2, 4, 8, 16, 32, 64])


def _merged_ratios(draw, *, same):
    """The largest share of the divergence that is left when 64 outcomes are merged to fewer."""
    rng = generator(draw.key)
    q, p = random_laws(rng, draw.budget, 64), random_laws(rng, draw.budget, 64)
    shuffled = q if same else q[:, rng.permutation(64)]
    full, left = special.rel_entr(q, p).sum(1), []
    for cells in _CELLS:
        coarse = [law.reshape(-1, cells, 64 // cells).sum(2) for law in (shuffled, p)]
        padded = [np.pad(law, ((0, 0), (0, 64 - cells))) for law in coarse]  # one shape, compiled once
        left.append(np.max(np.asarray(_kl(*padded)) / full))
    return Curve(left, _CELLS)


_OUTCOME = np.arange(1, 9)
_gradients = jax.jit(jax.grad(background.kl_discrete, argnums=(0, 1)))
_coin_slopes = jax.jit(jax.vmap(jax.grad(background.kl_bernoulli, argnums=(0, 1)), in_axes=(0, None)))


def _pair(key, _):
    return random_laws(generator(key), 2, 8)


def _kl_gradients(pair):
    in_q, in_p = _gradients(*pair)
    return {"in q": Curve(in_q, _OUTCOME), "in p": Curve(in_p, _OUTCOME)}


def _kl_slopes(pair):
    q, p = pair
    return {"in q": np.log(q / p) + 1, "in p": -q / p}


def _coin_gradients(_):
    in_q, in_p = _coin_slopes(_HEADS, 0.3)
    return {"in q": Curve(in_q, _HEADS), "in p": Curve(in_p, _HEADS)}


def _coin_derivatives(_):
    return {"in q": special.logit(_HEADS) - special.logit(0.3), "in p": (0.3 - _HEADS) / (0.3 * 0.7)}


def _exchanged(slopes):
    return {"in q": slopes["in p"], "in p": slopes["in q"]}


_BOUNDS = np.geomspace(1e-4, 2, 25)
_OBSERVED = (0.0, 0.02, 0.2, 0.6)

_inverse = jax.jit(jax.vmap(background.kl_bernoulli_inverse, in_axes=(None, 0)))


def _inverses(_):
    return {f"q = {q:g}": Curve(_inverse(q, _BOUNDS), _BOUNDS) for q in _OBSERVED}


def _root(q, bound):
    """The probability above q at divergence `bound`, by bracketing."""

    def excess(p):
        return special.rel_entr(q, p) + special.rel_entr(1 - q, 1 - p) - bound

    return optimize.brentq(excess, q, np.nextafter(1, 0), xtol=1e-15)


def _bracketed(_):
    return {f"q = {q:g}": np.array([_root(q, bound) for bound in _BOUNDS]) for q in _OBSERVED}


_OFFSETS = np.linspace(0.2, 2, 10)


@jax.jit
def _estimates(samples):
    def estimate(offset):
        return background.kl_monte_carlo(lambda x: -(x**2) / 2, lambda x: -((x - offset) ** 2) / 2, samples)

    return jax.vmap(estimate)(jnp.asarray(_OFFSETS))


def _estimated(draw, mean):
    estimate = _estimates(mean + generator(draw.key).normal(size=draw.budget))
    return Curve(estimate.mean, _OFFSETS, estimate.standard_error)


# Entropy, on the way from the uniform law to a certain outcome.

_PURITIES = np.linspace(0, 1, 21)
_OUTCOMES = (2, 10, 100)


def _laws(key, _):
    """For each number of outcomes a way from the uniform law to a certain outcome, and a random law."""
    rng = generator(key)
    return {n: (1 / n + _PURITIES[:, None] * (np.eye(n)[0] - 1 / n), random_laws(rng, 1, n)[0]) for n in _OUTCOMES}


_cross_entropies = jax.jit(jax.vmap(background.cross_entropy, in_axes=(0, None)))


def _cross(laws):
    return {f"{n} outcomes": Curve(_cross_entropies(p, q), _PURITIES) for n, (p, q) in laws.items()}


def _sums(laws, *, forward):
    result = {}
    for n, (p, q) in laws.items():
        other = np.tile(q, (_PURITIES.size, 1))
        result[f"{n} outcomes"] = np.asarray(_entropy(p)) + np.asarray(_kl(p, other) if forward else _kl(other, p))
    return result


def _entropies(laws):
    """Entropies as a share of their maximum."""
    return {f"{n} outcomes": Curve(np.asarray(_entropy(p)) / np.log(n), _PURITIES) for n, (p, _) in laws.items()}


def _between(laws):
    """The entropy of the mixture of a uniform law and a certain outcome, as a share of log n."""
    result = {}
    for n in laws:
        top = 1 / n + _PURITIES * (1 - 1 / n)
        rest = 1 - top
        result[f"{n} outcomes"] = -(special.xlogy(top, top) + special.xlogy(rest, rest / (n - 1))) / np.log(n)
    return result


_WEIGHTS = np.linspace(0, 1, 21)


def _arithmetic(p, q):
    return p + _WEIGHTS[:, None, None] * (q - p)


def _geometric(p, q):
    mixture = np.exp(_arithmetic(np.log(p), np.log(q)))
    return mixture / mixture.sum(2, keepdims=True)


def _concavity(draw, mixture):
    """The smallest excess of the entropy of a mixture over the mixed entropies, among random pairs of laws."""
    rng = generator(draw.key)
    result = {}
    for n in (2, 10):
        p, q = (random_laws(rng, draw.budget, n, concentration=0.5) for _ in range(2))
        mixed = np.asarray(_entropy(mixture(p, q).reshape(-1, n))).reshape(_WEIGHTS.size, -1)
        chord = mixed[0] + _WEIGHTS[:, None] * (mixed[-1] - mixed[0])
        result[f"{n} outcomes"] = Curve((mixed - chord).min(1), _WEIGHTS)
    return result


_entropy_gradient = jax.jit(jax.grad(background.entropy))


CLAIMS = (
    Claim(
        "background.kl_divergence",
        says="It is at least twice the squared total variation, so zero only for equal laws.",
        measure=_pinsker_ratios,
        predict=lambda _: 2.0,
        judge=AtLeast(),
        control=Variant("four times", predict=lambda _: 4.0),
        budget=Budget(quick=1_000, full=50_000),
        axes=Axes("weight of q in the first law", "smallest $KL / TV^2$", log="y"),
    ),
    Claim(
        "background.kl_divergence",
        part="asymmetry",
        says="Between a fair and another coin it is one closed form in one direction and another one in the other.",
        measure=_asymmetric,
        predict=_fair_divergences,
        judge=Equal(atol=1e-14),
        control=Variant(
            "the same in both directions",
            predict=lambda _: dict.fromkeys(("KL(fair, p)", "KL(p, fair)"), _fair_divergences(_)["KL(fair, p)"]),
        ),
        axes=Axes("p", "divergence (nats)"),
    ),
    Claim(
        "background.kl_divergence",
        part="data processing",
        says="Merging outcomes of both laws alike never increases it.",
        measure=lambda draw: _merged_ratios(draw, same=True),
        predict=lambda _: 1.0,
        judge=AtMost(),
        control=Variant("different outcomes merged", measure=lambda draw: _merged_ratios(draw, same=False)),
        budget=Budget(quick=1_000, full=50_000),
        axes=Axes("outcomes after merging 64", "largest share left", log="x"),
    ),
    Claim(
        "background.kl_divergence",
        part="gradient",
        says="Its derivatives are log(q/p) + 1 in q and -q/p in p.",
        setup=_pair,
        measure=_kl_gradients,
        predict=_kl_slopes,
        judge=Equal(),
        control=Variant("the two arguments exchanged", predict=lambda pair: _exchanged(_kl_slopes(pair))),
        axes=Axes("outcome", "derivative (nats)"),
    ),
    Claim(
        "background.kl_divergence",
        part="gradient for coins",
        says="For coins they are the difference of the logits of q and p, and (p - q) / (p (1 - p)).",
        measure=_coin_gradients,
        predict=_coin_derivatives,
        judge=Equal(atol=1e-14),
        control=Variant("the two arguments exchanged", predict=lambda _: _exchanged(_coin_derivatives(_))),
        axes=Axes("q, for p = 0.3", "derivative (nats)"),
    ),
    Claim(
        "background.kl_divergence",
        part="inverse",
        says="The largest probability within a divergence of an observed one is the root that bracketing finds.",
        measure=_inverses,
        predict=_bracketed,
        judge=Equal(),
        control=Variant(
            "the root of Pinsker's bound",
            predict=lambda _: {f"q = {q:g}": q + np.sqrt(_BOUNDS / 2) for q in _OBSERVED},
        ),
        axes=Axes("divergence (nats)", "probability", log="x"),
    ),
    Claim(
        "background.kl_divergence",
        part="Monte Carlo",
        says="The mean log ratio over samples of Q estimates the divergence of two normal laws.",
        measure=lambda draw: _estimated(draw, 0.0),
        predict=lambda _: _OFFSETS**2 / 2,
        judge=Mean(resolution=0.5),
        control=Variant("samples with a mean of 1", measure=lambda draw: _estimated(draw, 1.0)),
        budget=Budget(quick=20_000, full=1_000_000),
        axes=Axes("distance of the means", "divergence (nats)"),
    ),
    Claim(
        "background.entropy",
        says="It runs from log n for the uniform law to 0 for a certain outcome, as the formula says in between.",
        setup=_laws,
        measure=_entropies,
        predict=_between,
        judge=Equal(atol=1e-14),
        control=Variant("linearly", predict=lambda _: 1 - _PURITIES),
        axes=Axes("weight of the certain outcome", "entropy / log n"),
    ),
    Claim(
        "background.entropy",
        part="range",
        says="No random law has more entropy than the uniform one.",
        setup=lambda key, budget: {n: random_laws(generator(key), budget, n) for n in _OUTCOMES},
        measure=lambda laws: {f"{n} outcomes": Curve(np.sort(_entropy(p)), np.arange(len(p))) for n, p in laws.items()},
        predict=lambda _: {f"{n} outcomes": np.log(n) for n in _OUTCOMES},
        judge=AtMost(),
        control=Variant("than a certain outcome", predict=lambda _: 0.0),
        budget=Budget(quick=300, full=10_000),
        axes=Axes("law, sorted", "entropy (nats)"),
    ),
    Claim(
        "background.entropy",
        part="cross-entropy",
        says="The cross-entropy is the entropy plus the divergence.",
        setup=_laws,
        measure=_cross,
        predict=lambda laws: _sums(laws, forward=True),
        judge=Equal(),
        control=Variant("the divergence the other way", predict=lambda laws: _sums(laws, forward=False)),
        axes=Axes("weight of the certain outcome", "cross-entropy (nats)"),
    ),
    Claim(
        "background.entropy",
        part="concavity",
        says="Mixing laws never gives less than the mixed entropies.",
        measure=lambda draw: _concavity(draw, _arithmetic),
        predict=lambda _: 0.0,
        judge=AtLeast(atol=1e-12),
        control=Variant("geometric mixtures", measure=lambda draw: _concavity(draw, _geometric)),
        budget=Budget(quick=500, full=50_000),
        axes=Axes("weight of the second law", "smallest excess (nats)"),
    ),
    Claim(
        "background.entropy",
        part="gradient",
        says="The automatic derivative equals -log p - 1.",
        setup=_pair,
        measure=lambda pair: Curve(_entropy_gradient(pair[0]), _OUTCOME),
        predict=lambda pair: -np.log(pair[0]) - 1,
        judge=Equal(),
        control=Variant("of the law in another order", predict=lambda pair: -np.log(pair[0][::-1]) - 1),
        axes=Axes("outcome", "derivative (nats)"),
    ),
)
