"""Moments of the draws against exact ones, and against blackjax and numpyro: NUTS and HMC, warm-up included.

A z-score is an error in units of the Monte-Carlo standard error that our own diagnostics report; so a test here fails
for a biased sampler as for a standard error that is too small.
"""

import functools
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC, NUTS

from dltheory import samplers
from tests.samplers.targets import HARD, TARGETS, banana

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("x64")]

CHAINS, WARMUP, DRAWS = 8, 1000, 2000
LARGEST = 4.0


class Sample(NamedTuple):
    """Quantities at every draw, [chains, draws, q], and how many of the draws ended divergent trajectories."""

    quantities: Any
    divergences: int
    energy: Any = None


def scan(step, keys, state, quantities):
    """One chain; the quantities and the infos of every state after the first."""

    def one(state, key):
        state, info = step(key, state)
        return state, (quantities(state.position), info)

    return jax.lax.scan(one, state, keys)[1]


def ours(target, make, key, *, rate=0.8):
    @jax.jit
    def run(key, positions):
        key_warmup, key_draws = jax.random.split(key)
        tuned = samplers.warmup(key_warmup, make, positions, WARMUP, target_acceptance_rate=rate, dense=target.dense)
        step = make(tuned.step_size, tuned.inverse_mass_matrix).step
        keys = jax.random.split(key_draws, (CHAINS, DRAWS))
        return jax.vmap(lambda keys, state: scan(step, keys, state, target.quantities))(keys, tuned.states)

    quantities, infos = run(key, target.start(np.random.default_rng(0), CHAINS))
    return Sample(np.asarray(quantities), int(infos.is_divergent.sum()), np.asarray(infos.energy))


def nuts(target, key, **settings):
    def make(step_size, inverse_mass_matrix):
        return samplers.nuts(target.log_density, step_size, inverse_mass_matrix=inverse_mass_matrix)

    return ours(target, make, key, **settings)


def hmc(target, key):
    def make(step_size, inverse_mass_matrix):
        return samplers.hmc(target.log_density, step_size, 12, inverse_mass_matrix=inverse_mass_matrix, jitter=1.0)

    return ours(target, make, key)


def of_blackjax(target, key):
    warmup: Any = blackjax.window_adaptation(
        blackjax.nuts, target.log_density, is_mass_matrix_diagonal=not target.dense
    )

    @jax.jit
    @jax.vmap
    def run(key, position):
        key_warmup, key_draws = jax.random.split(key)
        (state, parameters), _ = warmup.run(key_warmup, position, WARMUP)
        step = blackjax.nuts(target.log_density, **parameters).step
        return scan(step, jax.random.split(key_draws, DRAWS), state, target.quantities)

    quantities, infos = run(jax.random.split(key, CHAINS), target.start(np.random.default_rng(0), CHAINS))
    return Sample(np.asarray(quantities), int(infos.is_divergent.sum()))


def of_numpyro(target, key):
    kernel = NUTS(potential_fn=lambda x: -target.log_density(x), dense_mass=target.dense)
    chains = MCMC(
        kernel,
        num_warmup=WARMUP,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = jax.tree.map(jnp.asarray, target.start(np.random.default_rng(0), CHAINS))
    chains.run(key, init_params=start, extra_fields=("diverging",))
    quantities = jax.vmap(jax.vmap(target.quantities))(chains.get_samples(group_by_chain=True))
    return Sample(np.asarray(quantities), int(chains.get_extra_fields()["diverging"].sum()))


PEERS = {"blackjax": of_blackjax, "numpyro": of_numpyro}


@jax.jit
def errors(draws):
    return samplers.mcse_mean(draws), samplers.mcse_sd(draws)


def moments(sample):
    """Means and standard deviations, [2, q], and the standard errors of both, [2, q]."""
    draws = sample.quantities
    return np.stack([draws.mean(axis=(0, 1)), draws.std(axis=(0, 1), ddof=1)]), np.stack(errors(jnp.asarray(draws)))


def scores(sample, exact):
    values, standard_errors = moments(sample)
    return np.abs(values - exact) / standard_errors


def exact_moments(target):
    return np.stack([target.mean, target.deviation])


@functools.cache
def drawn(name, sampler):
    """The draws of a sampler from a target, made once for all tests."""
    with jax.enable_x64():
        key = jax.random.key(sum(map(ord, name)))
        return ({"nuts": nuts, "hmc": hmc} | PEERS)[sampler]((TARGETS | HARD)[name](), key)


@pytest.mark.statement("samplers.hmc")
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("sampler", ["nuts", "hmc"])
def test_moments_are_exact(name, sampler):
    target, sample = TARGETS[name](), drawn(name, sampler)
    exact = exact_moments(target)
    assert scores(sample, exact).max() < LARGEST, scores(sample, exact).round(1)
    assert float(np.max(jax.jit(samplers.rhat)(sample.quantities))) < 1.02
    # The same judge sees an error of a sixth of a standard deviation.
    wrong = exact + np.stack([target.deviation, target.deviation]) / 6
    assert (scores(sample, wrong).max(axis=1) > LARGEST).all()


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("peer", PEERS)
def test_moments_are_those_of_the_peers(name, peer):
    (mine, my_errors), (theirs, their_errors) = (moments(drawn(name, sampler)) for sampler in ("nuts", peer))
    differences = np.abs(mine - theirs) / np.hypot(my_errors, their_errors)
    assert differences.max() < LARGEST, differences.round(1)


def test_where_no_step_size_suits_the_bias_is_that_of_the_peers_and_is_reported():
    """Where tau is small the effects need short steps: at one step size for all, the chains hardly go there.

    The standard errors do not know of this bias, so that exact moments cannot be asked for; they hold in the other
    parametrisation, among the targets above. Here the errors are no larger than the peers', and the sampler says so.
    """
    name = "centred eight schools"
    exact, mine = exact_moments(HARD[name]()), drawn(name, "nuts")
    values, standard_errors = moments(mine)
    for peer in PEERS:
        theirs, their_errors = moments(drawn(name, peer))
        allowed = np.abs(theirs - exact) + LARGEST * np.hypot(standard_errors, their_errors)
        assert (np.abs(values - exact) < allowed).all(), peer
    assert mine.divergences > 10


def test_a_funnel_is_reported_by_every_diagnostic_of_energy():
    """Of a funnel nothing else is known: what chains see of it depends on their step size more than on the sampler."""
    mine = drawn("funnel", "nuts")
    assert mine.divergences > 10
    assert float(jnp.min(samplers.ebfmi(mine.energy))) < 0.3
    assert float(jnp.max(samplers.ebfmi(drawn("mixture", "nuts").energy))) > 0.5
    assert drawn("mixture", "nuts").divergences == 0


SHARP = {"banana": lambda: banana(2.0, 0.25), "mixture": TARGETS["mixture"], "funnel": HARD["funnel"]}


@pytest.mark.statement("samplers.hmc")
@pytest.mark.parametrize("step_size", [0.3, 0.9])
@pytest.mark.parametrize("name", SHARP)
def test_independent_draws_stay_exact_at_any_step_size(name, step_size):
    """Ten steps from independent draws of targets that chains explore badly: no diagnostics, no burn-in, no bias."""
    target, chains = SHARP[name](), 10_000
    assert target.independent is not None
    start = target.independent(np.random.default_rng(0), chains)
    algorithm = samplers.nuts(target.log_density, step_size, max_num_doublings=7)

    @jax.jit
    @jax.vmap
    def run(key, x):
        return scan(algorithm.step, jax.random.split(key, 10), algorithm.init(x), target.quantities)

    quantities, infos = run(jax.random.split(jax.random.key(0), chains), start)
    centred = np.asarray(quantities)[:, -1] - target.mean

    def largest(deviation):
        values = np.stack([centred, centred**2 - deviation**2])
        return np.max(np.abs(values.mean(axis=1)) / values.std(axis=1)) * np.sqrt(chains)

    assert largest(target.deviation) < LARGEST
    assert largest(1.07 * target.deviation) > LARGEST
    # Some chains start in the neck of the funnel, where such steps are too long to move at all.
    before = np.asarray(jax.vmap(target.quantities)(start))
    assert np.mean(np.any(np.asarray(quantities)[:, -1] != before, axis=1)) > 0.6
    if step_size == 0.9 and name != "mixture":
        assert infos.is_divergent.any()
