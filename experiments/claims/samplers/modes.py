"""Claims about targets with several modes: what keeps Hamiltonian Monte Carlo in one, and tempering, which does not."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from dltheory import samplers
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.samplers._chains import advance, many_keys, mixture, mixture_draws, normal, trapezoid
from experiments.curves import estimate, frequency
from experiments.judges import Mean, ProbabilityAtMost, Slope

__all__ = ["CLAIMS"]

_DISTANCES = np.array([2.0, 2.375, 2.75, 3.125, 3.5])


def _sampler(a):
    return samplers.hmc(mixture(a), 0.2, 20, jitter=0.0)


def _crossings(draw):
    """Whether each of many transitions from exact draws ends on the other side, at each distance of the modes."""
    rng = generator(draw.key)
    events = []
    for number, a in enumerate(_DISTANCES):
        start = mixture_draws(rng, a, draw.budget)
        end = advance(_sampler, 1, jax.random.fold_in(draw.key, number), start, a)[0].position
        events.append(np.sign(start) != np.sign(end))
    return np.stack(events, axis=1)


def _potential(t, a):
    return -np.logaddexp(-((t - a) ** 2) / 2, -((t + a) ** 2) / 2)


def _above(barrier):
    """P(H >= barrier(a)) by quadrature over positions: momenta are normal."""

    def predict(_):
        rows = []
        for a in _DISTANCES:
            t = np.linspace(-a - 10, a + 10, 4001)
            density = np.exp(-_potential(t, a))
            missing = np.maximum(barrier(a) - _potential(t, a), 0)
            rows.append(trapezoid(density * special.erfc(np.sqrt(missing)), t) / trapezoid(density, t))
        return np.array(rows)

    return predict


def _saddle(a):
    return _potential(0.0, a)


# Chains that all start in the left mode.

_FAR, _NEAR, _STEPS = 6.0, 1.5, 200


def _share_on_the_right(a, make=_sampler):
    """Share of chains on the right at a few times; all start at the left mode."""

    def measure(draw):
        state, shares, times = np.full(draw.budget, -a), [], []
        for leg in range(3):
            key = jax.random.fold_in(draw.key, leg)
            state = np.asarray(advance(make, _STEPS, key, state, a)[0].position)
            shares.append(state > 0)
            times.append((leg + 1) * _STEPS)
        return estimate(np.stack(shares, axis=1), np.array(times))

    return measure


# The same chains with replicas at higher temperatures.

_LADDER = np.array([1.0, 0.45, 0.2, 0.09, 0.04])


def _tempered(a, inverse_temperatures=_LADDER):
    return samplers.parallel_tempering(
        mixture(a), lambda f, beta: samplers.hmc(f, 0.4 / jnp.sqrt(beta), 5), inverse_temperatures
    )


def _alone(a):
    return _tempered(a, _LADDER[:1])


# Swaps: a normal law in d dimensions, whose replicas' laws can be drawn from.

_DIMENSIONS = (1, 4, 16)
_RATIOS = np.array([1.2, 1.5, 2.0, 3.0, 5.0])


def _swaps(ratio):
    return samplers.parallel_tempering(
        normal, lambda f, _: samplers.random_walk_metropolis(f, 1.0), jnp.stack([1.0, 1 / ratio])
    )


@jax.jit
def _swap_rates(keys, cold, hot, ratio):
    """Probabilities of the swaps [n] of replicas at `cold` and `hot` [n, d]."""

    def one(key, cold, hot):
        algorithm = _swaps(ratio)
        state = algorithm.init(cold)
        positions = jnp.stack([cold, hot])
        replicas = samplers.MetropolisState(positions, jax.vmap(normal)(positions) * jnp.stack([1.0, 1 / ratio]))
        return algorithm.step(key, state._replace(replicas=replicas))[1].swap_acceptance_rate[0]

    return jax.vmap(one)(keys, cold, hot)


def _swap_acceptance(draw):
    rng, curves = generator(draw.key), {}
    for d in _DIMENSIONS:
        rates = []
        for number, ratio in enumerate(_RATIOS):
            keys = many_keys(jax.random.fold_in(draw.key, 100 * d + number), (draw.budget,))
            cold, hot = rng.normal(size=(2, draw.budget, d))
            rates.append(np.asarray(_swap_rates(keys, cold, np.sqrt(ratio) * hot, ratio)))
        curves[f"d = {d}"] = estimate(np.stack(rates, axis=1), _RATIOS)
    return curves


def _beta_law(dimension_of):
    """2 P(E_1 > E_2) for energies of laws Gamma(d/2, beta_j): the regularised incomplete beta function."""

    def predict(_):
        return {
            f"d = {d}": 2 * special.betainc(dimension_of(d) / 2, dimension_of(d) / 2, 1 / (1 + _RATIOS))
            for d in _DIMENSIONS
        }

    return predict


CLAIMS = (
    Claim(
        "samplers.hmc_mode_claim",
        says="A transition crosses to the other mode at most as often as the energy exceeds the saddle between them.",
        measure=lambda draw: frequency(_crossings(draw), _DISTANCES),
        predict=_above(_saddle),
        judge=ProbabilityAtMost(),
        control=Variant("a saddle as high as between modes farther apart", predict=_above(lambda a: _saddle(a + 0.5))),
        budget=Budget(150_000, 1_000_000),
        axes=Axes("half the distance of the modes", "probability of a crossing", "y"),
    ),
    Claim(
        "samplers.hmc_mode_claim",
        part="rate",
        says="The rate of crossings falls like exp(-a^2 / 2), the height of the saddle.",
        measure=lambda draw: estimate(_crossings(draw), _DISTANCES**2 / 2),
        predict=lambda _: -1.0,
        judge=Slope(tolerance=0.15, log="y"),
        control=Variant("like exp(-a^2 / 4)", predict=lambda _: -0.5),
        budget=Budget(150_000, 1_000_000),
        axes=Axes("height of the saddle, a²/2", "rate of crossings", "y"),
    ),
    Claim(
        "samplers.hmc_mode_claim@printed",
        says="Chains that start in one of two modes, twelve standard deviations apart, are soon in either with equal "
        "probability.",
        measure=_share_on_the_right(_FAR),
        predict=lambda _: np.full(3, 0.5),
        judge=Mean(resolution=0.3),
        control=Variant("all chains on the right", predict=lambda _: np.ones(3)),
        corrected=Variant("three standard deviations apart, with a low saddle", measure=_share_on_the_right(_NEAR)),
        budget=Budget(2_000, 20_000),
        axes=Axes("transition", "share of chains in the other mode"),
    ),
    Claim(
        "samplers.hmc_mode_claim",
        part="tempering",
        says="With replicas at higher temperatures, which swap, chains that start in one of two modes, twelve standard "
        "deviations apart, are soon in either with equal probability.",
        measure=_share_on_the_right(_FAR, _tempered),
        predict=lambda _: np.full(3, 0.5),
        judge=Mean(resolution=0.3),
        control=Variant("at one temperature", measure=_share_on_the_right(_FAR, _alone)),
        budget=Budget(2_000, 20_000),
        axes=Axes("transition", "share of chains in the other mode"),
    ),
    Claim(
        "samplers.hmc_mode_claim",
        part="swaps",
        says="Replicas of a normal law in d dimensions swap with probability 2 I(d/2, d/2), the incomplete beta "
        "function at 1 / (1 + ratio of the temperatures): ladders need more rungs in more dimensions.",
        measure=_swap_acceptance,
        predict=_beta_law(lambda d: d),
        judge=Mean(resolution=0.1, floor=0.02),
        control=Variant("as in one dimension", predict=_beta_law(lambda _: 1)),
        budget=Budget(8_000, 400_000),
        axes=Axes("ratio of the temperatures", "acceptance of swaps"),
    ),
)
