"""Every sampler leaves its law invariant, and tests that find what does not."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dltheory import samplers
from experiments.claims.samplers._chains import integrate, metropolised
from tests.samplers.invariance import (
    LEVEL,
    TARGETS,
    ends,
    family_wise,
    geweke,
    grid_draws,
    linear_law,
    normal_target,
    smooth_test,
    starting_at_replicas,
)

CHAINS, STEPS = 20_000, 15
DIAGONAL, DENSE = jnp.array([0.6, 1.7]), jnp.array([[1.0, 0.6], [0.6, 1.5]])


class Point(NamedTuple):
    position: Any


def _with_positions(algorithm):
    """States that are positions as states that have them."""

    def step(key, state):
        position, info = algorithm.step(key, state.position)
        return Point(position), info

    return samplers.SamplingAlgorithm(Point, step)


def towards(key, x):
    """Proposals that are drawn to a point, and are not symmetric."""
    return x / 2 + 0.3 + 1.2 * jax.random.normal(key, x.shape, x.dtype)


def log_towards(to, at):
    return -jnp.sum(((to - at / 2 - 0.3) / 1.2) ** 2) / 2


def blockwise(log_density_fn, scan="systematic"):
    """Metropolis for one coordinate, Hamiltonian Monte Carlo for the other; positions are pairs."""

    def joint(blocks):
        return log_density_fn(jnp.stack(blocks))

    kernels = (
        samplers.block_kernel(joint, 0, lambda f: samplers.random_walk_metropolis(f, 1.3)),
        samplers.block_kernel(joint, 1, lambda f: samplers.hmc(f, 0.6, 3)),
    )
    algorithm = samplers.gibbs(kernels, scan=scan)
    return samplers.SamplingAlgorithm(lambda x: algorithm.init((x[0], x[1])), algorithm.step)


SAMPLERS = {
    "random walk": lambda f: samplers.random_walk_metropolis(f, jnp.array([[0.9, 0.0], [0.5, 0.7]])),
    "independence": lambda f: samplers.independence_sampler(
        f, lambda key: 2.5 * jax.random.normal(key, (2,)), lambda x: -jnp.sum((x / 2.5) ** 2) / 2
    ),
    "asymmetric": lambda f: samplers.metropolis_hastings(f, towards, log_towards),
    "HMC": lambda f: samplers.hmc(f, 0.5, 4),
    "HMC, diagonal mass": lambda f: samplers.hmc(f, 0.5, 4, inverse_mass_matrix=DIAGONAL),
    "HMC, dense mass": lambda f: samplers.hmc(f, 0.5, 4, inverse_mass_matrix=DENSE, jitter=0.0),
    "NUTS": lambda f: samplers.nuts(f, 0.4, max_num_doublings=4),
    "NUTS, dense mass": lambda f: samplers.nuts(f, 0.4, inverse_mass_matrix=DENSE, max_num_doublings=3),
    "MALA": lambda f: samplers.mala(f, 0.25),
    "Gibbs": blockwise,
    "Gibbs, random scan": lambda f: blockwise(f, "random"),
}


def positions(state):
    """Positions [n, 2] of chains, also where they are pairs."""
    return state.position if isinstance(state.position, np.ndarray) else np.stack(state.position, axis=1)


def p_value(make, target, num_steps=STEPS, seed=0):
    starts = target.draw(np.random.default_rng(seed), CHAINS)
    last = positions(ends(make(target.log_density), starts, num_steps, seed))
    assert np.mean(np.any(last != starts.astype(np.float32), axis=1)) > 0.5, "chains do not move"
    return smooth_test(target.uniform(last))


CHEAP = {("random walk", "mixture"), ("HMC, dense mass", "banana")}


@pytest.mark.statement("samplers.metropolis_hastings", "samplers.hmc", "samplers.hmc_momentum", "samplers.ula")
@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param(name, target, marks=[] if (name, target) in CHEAP else [pytest.mark.slow])
        for name in SAMPLERS
        for target in TARGETS
    ],
)
def test_chains_from_exact_draws_keep_their_law(name, target):
    assert p_value(SAMPLERS[name], TARGETS[target]) > LEVEL


BETAS = (1.0, 0.5, 0.2)


@pytest.mark.slow
@pytest.mark.statement("samplers.hmc_mode_claim")
@pytest.mark.parametrize("target", list(TARGETS))
def test_tempered_replicas_keep_their_laws(target):
    log_density, rng = TARGETS[target].log_density, np.random.default_rng(1)
    draws = [grid_draws(rng, lambda x, b=beta: b * log_density(x), CHAINS) for beta in BETAS]
    algorithm = samplers.parallel_tempering(log_density, lambda f, b: samplers.hmc(f, 0.5 / jnp.sqrt(b), 3), BETAS)
    state = ends(starting_at_replicas(algorithm), np.stack(draws, axis=1), STEPS, 1)
    assert smooth_test(TARGETS[target].uniform(state.position)) > LEVEL
    assert np.mean(state.replica_index[:, 0] != 0) > 0.3, "replicas do not swap"


@pytest.mark.slow
@pytest.mark.statement("samplers.hmc_mode_claim")
def test_replicas_of_other_temperatures_are_found():
    covariance = np.array([[1.0, 1.2], [1.2, 2.5]])
    target, rng = normal_target(covariance), np.random.default_rng(1)
    draws = np.stack([target.draw(rng, CHAINS) / np.sqrt(beta) for beta in BETAS], axis=1)
    # The temperatures of the swaps are not those that the replicas start at.
    algorithm = samplers.parallel_tempering(
        target.log_density, lambda f, b: samplers.random_walk_metropolis(f, 1.0), (1.0, 0.8, 0.6)
    )
    state = ends(starting_at_replicas(algorithm), draws, STEPS, 1)
    assert smooth_test(target.uniform(state.position)) < LEVEL


def wrong_momenta(f):
    """Momenta of variance 1 for a mass of 1 / 1.6."""
    return _with_positions(metropolised(f, integrate("leapfrog"), 0.4, 4, 1.6, momentum_sd=1.0))


def right_momenta(f):
    return _with_positions(metropolised(f, integrate("leapfrog"), 0.4, 4, 1.6))


def naive(variance, friction, inverse_mass=1.0, on_velocity=True):
    """Momenta kicked by noisy gradients, with the friction and noise that are given."""

    def make(f):
        def step(key, state):
            position = state.position + DT / 2 * inverse_mass * state.momentum
            key_gradient, key_noise = jax.random.split(key)
            gradient = jax.grad(f)(position)
            gradient = gradient + jnp.sqrt(variance) * jax.random.normal(key_gradient, position.shape, position.dtype)
            drag = friction * (inverse_mass if on_velocity else 1.0) * state.momentum
            noise = jnp.sqrt(2 * friction * DT) * jax.random.normal(key_noise, position.shape, position.dtype)
            momentum = state.momentum + DT * (gradient - drag) + noise
            return state._replace(position=position + DT / 2 * inverse_mass * momentum, momentum=momentum), ()

        def init(x):  # a position and a momentum
            return samplers.UnderdampedState(x[:2], x[2:], x[:2])

        return samplers.SamplingAlgorithm(init, step)

    return make


DT = 0.1


def p_value_with_momenta(make, mass, num_steps):
    """The target is the correlated normal law, the momenta start as N(0, mass)."""
    rng, target = np.random.default_rng(2), TARGETS["normal"]
    starts = np.concatenate([target.draw(rng, CHAINS), np.sqrt(mass) * rng.normal(size=(CHAINS, 2))], axis=1)
    return smooth_test(target.uniform(ends(make(target.log_density), starts, num_steps, 2).position))


@pytest.mark.statement("samplers.metropolis_hastings")
def test_a_proposal_without_its_ratio_is_found():
    make = lambda f: samplers.metropolis_hastings(f, towards)  # noqa: E731
    assert p_value(make, TARGETS["mixture"]) < LEVEL


@pytest.mark.slow
@pytest.mark.statement("samplers.hmc_momentum")
@pytest.mark.parametrize("target", list(TARGETS))
def test_momenta_of_the_wrong_variance_are_found(target):
    assert p_value(right_momenta, TARGETS[target]) > LEVEL
    assert p_value(wrong_momenta, TARGETS[target]) < LEVEL


@pytest.mark.slow
@pytest.mark.statement("samplers.hmc_stochastic_gradient")
def test_noisy_gradients_without_friction_are_found():
    assert p_value_with_momenta(naive(4.0, 0.0), 1.0, 60) < LEVEL
    assert p_value_with_momenta(naive(0.0, 0.0), 1.0, 60) > LEVEL  # the same without noise, but for O(dt^2)


@pytest.mark.slow
@pytest.mark.statement("samplers.sghmc")
def test_friction_on_the_momentum_is_found():
    assert p_value_with_momenta(naive(0.0, 1.0, inverse_mass=0.5, on_velocity=False), 2.0, 60) < LEVEL


@pytest.mark.slow
@pytest.mark.statement("samplers.ula")
@pytest.mark.parametrize(("target", "step_size"), [("normal", 0.2), ("banana", 0.04), ("mixture", 0.2)])
def test_the_bias_of_unadjusted_steps_is_found(target, step_size):
    assert p_value(lambda f: samplers.ula(f, step_size), TARGETS[target], num_steps=40) < LEVEL


# Unadjusted samplers of the correlated normal law, which turn it into another normal law, exactly known.

COVARIANCE = np.array([[1.0, 1.2], [1.2, 2.5]])
PRECISION = np.linalg.inv(COVARIANCE)
ETA, FRICTION, MASS = 0.12, 1.3, np.array([1.5, 0.7])
NOISE = np.array([3.0, 1.0])  # variances of the gradient's entries
SCALES = np.array([0.5, 2.0])  # of a preconditioner
KNOWN = ETA * NOISE / 2


def noisy_estimator(f):
    def estimate(key, position, _cache):
        noise = jnp.asarray(np.sqrt(NOISE), position.dtype) * jax.random.normal(key, (2,), position.dtype)
        return jax.grad(f)(position) + noise

    return samplers.GradientEstimator(lambda _: (), estimate)


def ula_step(x, xi):
    return x - ETA * PRECISION @ x + np.sqrt(2 * ETA) * xi


def sgld_step(x, xi):
    return x + ETA * (-PRECISION @ x + np.sqrt(NOISE) * xi[2:]) + np.sqrt(2 * ETA) * xi[:2]


def psgld_step(x, xi):
    return x + ETA * SCALES * (-PRECISION @ x + np.sqrt(NOISE) * xi[2:]) + np.sqrt(2 * ETA * SCALES) * xi[:2]


def euler_step(z, xi, known: Any = 0.0):
    x, y = z[:2], z[2:]
    noise = np.sqrt(NOISE) * xi[2:] if len(xi) == 4 else 0.0
    y = y + ETA * (-PRECISION @ x + noise - FRICTION / MASS * y) + np.sqrt(2 * (FRICTION - known) * ETA) * xi[:2]
    return np.concatenate([x + ETA * y / MASS, y])


def _thermostat(y, xi, known: Any = 0.0):
    kept = np.exp(-FRICTION / MASS * ETA)
    return kept * y + np.sqrt(MASS * (1 - known / FRICTION) * (1 - kept**2)) * xi


def baoab_step(z, xi):
    x, y = z[:2], z[2:]
    y = y - ETA / 2 * PRECISION @ x
    x = x + ETA / 2 * y / MASS
    y = _thermostat(y, xi)
    x = x + ETA / 2 * y / MASS
    return np.concatenate([x, y - ETA / 2 * PRECISION @ x])


def aboba_step(z, xi):
    x, y = z[:2], z[2:]
    x = x + ETA / 2 * y / MASS
    kick = ETA / 2 * (-PRECISION @ x + np.sqrt(NOISE) * xi[2:])
    y = _thermostat(y + kick, xi[:2], KNOWN) + kick
    return np.concatenate([x + ETA / 2 * y / MASS, y])


def _underdamped(integrator):
    return lambda f: samplers.underdamped_langevin(
        f, ETA, FRICTION, inverse_mass_matrix=jnp.asarray(1 / MASS), integrator=integrator
    )


def _sghmc(integrator):
    settings = {"inverse_mass_matrix": jnp.asarray(1 / MASS), "noise_estimate": jnp.asarray(KNOWN)}
    return lambda f: samplers.sghmc(noisy_estimator(f), ETA, FRICTION, integrator=integrator, **settings)


UNADJUSTED = {
    "ULA": (lambda f: samplers.ula(f, ETA), ula_step, 2),
    "SGLD": (lambda f: samplers.sgld(noisy_estimator(f), ETA), sgld_step, 4),
    "pSGLD": (lambda f: samplers.psgld(noisy_estimator(f), ETA, num_adaptation_steps=1), psgld_step, 4),
    "BAOAB": (_underdamped("baoab"), baoab_step, 2),
    "Euler": (_underdamped("euler"), euler_step, 2),
    "SGHMC, ABOBA": (_sghmc("aboba"), aboba_step, 4),
    "SGHMC, Euler": (_sghmc("euler"), lambda z, xi: euler_step(z, xi, KNOWN), 4),
}


def _start(algorithm, name):
    """From a vector of a position, and a momentum if there is one, to a state."""

    def start(z):
        state = algorithm.init(z[:2])
        if name == "pSGLD":  # as after its adaptation
            moment = jnp.asarray((1 / SCALES - 1e-5) ** 2, z.dtype)
            return state._replace(step_count=state.step_count + 1, second_moment=moment)
        if z.size == 4:
            state = state._replace(momentum=z[2:])
        return state

    return start


@pytest.mark.slow
@pytest.mark.statement("samplers.ula", "samplers.sghmc")
@pytest.mark.parametrize("name", list(UNADJUSTED))
def test_unadjusted_samplers_keep_the_law_that_their_bias_makes(name):
    make, step, num_noises = UNADJUSTED[name]
    size = 2 if name in ("ULA", "SGLD", "pSGLD") else 4
    law = linear_law(step, size, num_noises)
    rng, algorithm = np.random.default_rng(3), make(TARGETS["normal"].log_density)
    starts = rng.normal(size=(CHAINS, size)) @ np.linalg.cholesky(law).T
    state = ends(algorithm, starts, STEPS, 3, _start(algorithm, name))
    parts = [state.position, state.momentum] if size == 4 else [state.position]
    for number, part in enumerate(parts):
        block = law[2 * number : 2 * number + 2, 2 * number : 2 * number + 2]
        assert smooth_test(normal_target(block).uniform(part)) > LEVEL
        assert smooth_test(normal_target(1.2 * block).uniform(part)) < LEVEL
    if name == "BAOAB":
        np.testing.assert_allclose(law[:2, :2], COVARIANCE, rtol=1e-10)  # without bias in positions
    else:
        assert np.abs(law[:2, :2] - COVARIANCE).max() > 1e-4


# Geweke's test.


def _posterior(make):
    return lambda log_likelihood, log_prior: make(lambda theta: log_likelihood(theta) + log_prior(theta))


def arrays(make):
    """Blocks of a sampler as one array, which the next round starts from."""

    def with_arrays(f):
        algorithm = make(f)

        def step(key, state):
            state, info = algorithm.step(key, state)
            return Point(jnp.stack(state.position)), info

        return samplers.SamplingAlgorithm(algorithm.init, step)

    return with_arrays


def _tempered(log_likelihood, log_prior):
    return starting_at_replicas(
        samplers.parallel_tempering(
            log_likelihood,
            lambda f, _: samplers.random_walk_metropolis(f, 0.7),
            (1.0, 0.0),
            log_reference_fn=log_prior,
        )
    )


POSTERIORS = {
    "random walk": (_posterior(lambda f: samplers.random_walk_metropolis(f, 0.7)), 1),
    "independence": (_posterior(SAMPLERS["independence"]), 1),
    "asymmetric": (_posterior(SAMPLERS["asymmetric"]), 1),
    "HMC": (_posterior(lambda f: samplers.hmc(f, 0.35, 5)), 1),
    "HMC, diagonal mass": (_posterior(lambda f: samplers.hmc(f, 0.35, 5, inverse_mass_matrix=DIAGONAL)), 1),
    "HMC, dense mass": (_posterior(lambda f: samplers.hmc(f, 0.3, 5, inverse_mass_matrix=DENSE)), 1),
    "NUTS": (_posterior(lambda f: samplers.nuts(f, 0.3, max_num_doublings=4)), 1),
    "MALA": (_posterior(lambda f: samplers.mala(f, 0.15)), 1),
    "Gibbs": (_posterior(arrays(blockwise)), 1),
    "tempering": (_tempered, 2),
}


@pytest.mark.slow
@pytest.mark.statement("samplers.metropolis_hastings", "samplers.hmc", "samplers.ula", "samplers.hmc_mode_claim")
@pytest.mark.parametrize("name", list(POSTERIORS))
def test_the_joint_law_of_parameters_and_data_is_kept(name):
    make, num_replicas = POSTERIORS[name]
    assert geweke(make, 4, num_replicas) > LEVEL


WRONG = {
    "without the ratio of proposals": lambda f: samplers.metropolis_hastings(f, towards),
    "momenta of the wrong variance": wrong_momenta,
    "unadjusted": lambda f: samplers.ula(f, 0.15),
    "twice the log density": lambda f: samplers.hmc(lambda theta: 2 * f(theta), 0.3, 5),
    "conditionals of another law": lambda f: samplers.mala(lambda theta: f(theta) + 0.25 * theta[0], 0.15),
}


@pytest.mark.slow
@pytest.mark.statement("samplers.metropolis_hastings", "samplers.hmc_momentum")
@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_sampler_breaks_the_joint_law(name):
    assert geweke(_posterior(WRONG[name]), 4) < LEVEL


# That the tests have the level that they claim.


@pytest.mark.parametrize("target", list(TARGETS))
def test_p_values_of_exact_draws_are_uniform(target):
    rng = np.random.default_rng(5)
    values = [smooth_test(TARGETS[target].uniform(TARGETS[target].draw(rng, 2_000))) for _ in range(200)]
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    shifted = smooth_test(TARGETS[target].uniform(TARGETS[target].draw(rng, CHAINS) + 0.05))
    assert shifted < LEVEL


def test_the_family_wise_level_is_kept_and_nearly_used():
    rng = np.random.default_rng(6)
    alarms = np.mean([family_wise(*rng.normal(size=(2, 500, 17))) < 0.05 for _ in range(2_000)])
    assert 0.03 < alarms < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 2_000)


def test_draws_on_a_grid_are_those_of_the_density():
    for target in TARGETS.values():
        draws = grid_draws(np.random.default_rng(7), target.log_density, CHAINS)
        assert smooth_test(target.uniform(draws)) > LEVEL
