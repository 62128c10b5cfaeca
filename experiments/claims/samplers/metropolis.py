"""Claims about Metropolis and Hastings's rule, and about what every sampler built on it must pass."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import samplers
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.samplers._chains import advance, many_keys
from experiments.curves import Curve, estimate
from experiments.judges import Equal, Mean

__all__ = ["CLAIMS"]


# Ten states, a random proposal.

_STATES = 10


class _Finite(NamedTuple):
    probability: np.ndarray  # [k]
    proposal: np.ndarray  # [k, k], rows sum to 1


def _finite(key, _):
    rng = generator(key)
    return _Finite(rng.dirichlet(np.ones(_STATES)), rng.dirichlet(np.ones(_STATES), _STATES))


def _flux(problem, proposal):
    """pi_i P_ij of the library's transition matrix, and its stationary law by powers of the matrix."""
    matrix = np.asarray(jax.jit(samplers.transition_matrix)(np.log(problem.probability), proposal))
    matrix = np.where(np.eye(_STATES) == 1, matrix, problem.proposal / proposal * matrix)
    matrix = matrix + np.diag(1 - matrix.sum(axis=1))
    flux = problem.probability[:, None] * matrix
    order = np.argsort(_least_flux(problem)[_PAIRS])
    index = np.arange(len(order))
    return {
        "from i to j": Curve(flux[_PAIRS][order], index),
        "from j to i": Curve(flux.T[_PAIRS][order], index),
        "in the long run": Curve(np.linalg.matrix_power(matrix, 2**16)[0], np.arange(_STATES)),
    }


_PAIRS = np.triu_indices(_STATES, 1)


def _least_flux(problem):
    proposed = problem.probability[:, None] * problem.proposal
    return np.minimum(proposed, proposed.T)


def _balance(problem):
    flux = np.sort(_least_flux(problem)[_PAIRS])
    return {"from i to j": flux, "from j to i": flux, "in the long run": problem.probability}


def _as_if_symmetric(problem):
    """Without the ratio of proposals: the matrix for a uniform proposal, used with the real one."""
    return _flux(problem, np.full((_STATES, _STATES), 1 / _STATES))


# Log-normal proposals for Gamma(3, 1).


def _gamma(x):
    return 2 * jnp.log(x) - x


def _multiply(key, x):
    return x * jnp.exp(jax.random.normal(key, jnp.shape(x)))


def _log_normal(to, at):
    return -jnp.log(to) - jnp.log(to / at) ** 2 / 2


def _hastings(weight):
    return samplers.metropolis_hastings(_gamma, _multiply, lambda to, at: weight * _log_normal(to, at))


def _gamma_moments(weight):
    def measure(draw):
        x = np.asarray(advance(_hastings, 60, draw.key, np.full(draw.budget, 3.0), weight)[0].position)
        return estimate(np.stack([x, x**2 / 4, x**3 / 20], axis=1), np.arange(1, 4))

    return measure


def _moments_of_gamma(shape):
    """E x, E x^2 / 4 and E x^3 / 20 under Gamma(shape, 1)."""
    return np.array([shape, shape * (shape + 1) / 4, shape * (shape + 1) * (shape + 2) / 20])


# Geweke's joint distribution: parameters and data in turn, each given the other.

_ROUNDS = 12
_POINTS = np.array([-1.0, 0.3, 1.2])


def _location(theta):
    return theta[0] + _POINTS * theta[1] ** 2


def _log_posterior(y):
    return lambda theta: -jnp.sum(theta**2) / 2 - jnp.sum((y - _location(theta)) ** 2) / 2


def _blockwise(f):
    """Each coordinate of theta given the other."""

    def joint(blocks):
        return f(jnp.stack(blocks))

    algorithm = samplers.gibbs(
        (
            samplers.block_kernel(joint, 0, lambda f: samplers.random_walk_metropolis(f, 0.8)),
            samplers.block_kernel(joint, 1, lambda f: samplers.hmc(f, 0.35, 3)),
        )
    )

    def step(key, state):
        state, info = algorithm.step(key, state)
        return samplers.GibbsState(jnp.stack(state.position)), info

    return samplers.SamplingAlgorithm(lambda theta: algorithm.init((theta[0], theta[1])), step)


_SAMPLERS = {
    "random walk": lambda f: samplers.random_walk_metropolis(f, 0.7),
    "MALA": lambda f: samplers.mala(f, 0.15),
    "HMC": lambda f: samplers.hmc(f, 0.35, 5),
    "NUTS": lambda f: samplers.nuts(f, 0.35, max_num_doublings=3),
    "Gibbs": _blockwise,
}


@functools.partial(jax.jit, static_argnums=0)
def _successive(make, keys, noise, theta):
    """Last (theta, y) of rounds of one step of a sampler for theta, then new data; `theta` [n, 2] is from the prior."""

    def one(keys, noise, theta):
        def step(pair, random):
            key, noise = random
            algorithm = make(_log_posterior(pair[1]))
            theta = algorithm.step(key, algorithm.init(pair[0]))[0].position
            return (theta, _location(theta) + noise), None

        return jax.lax.scan(step, (theta, _location(theta) + noise[0]), (keys, noise[1:]))[0]

    return jax.vmap(one)(keys, noise, theta)


def _joint(**kinds):
    """Moments of the joint law of parameters and data that each sampler leads to."""

    def measure(draw):
        rng = generator(draw.key)
        curves = {}
        for number, (name, make) in enumerate(kinds.items()):
            keys = many_keys(jax.random.fold_in(draw.key, number), (draw.budget, _ROUNDS))
            noise = rng.normal(size=(draw.budget, _ROUNDS + 1, len(_POINTS)))
            theta, y = map(np.asarray, _successive(make, keys, noise, rng.normal(size=(draw.budget, 2))))
            mean = y.mean(axis=1)
            moments = [theta[:, 0] ** 2, theta[:, 1] ** 2, theta[:, 0] * theta[:, 1], theta[:, 0] * mean]
            moments += [theta[:, 1] ** 2 * mean, np.abs(theta[:, 1]), mean]
            curves[name] = estimate(np.stack(moments, axis=1), np.arange(len(moments)))
        return curves

    return measure


def _unadjusted(f):
    return samplers.ula(f, 0.15)


def _prior_moments(_):
    """Of theta ~ N(0, I) and y_i = theta_1 + x_i theta_2^2 + noise."""
    slope = _POINTS.mean()
    return np.array([1, 1, 0, 1, 3 * slope, np.sqrt(2 / np.pi), slope])


CLAIMS = (
    Claim(
        "samplers.metropolis_hastings",
        says="On ten states and for a random proposal as much probability flows from i to j as back, the lesser of "
        "what is proposed; so the chain converges to the target.",
        setup=_finite,
        measure=lambda problem: _flux(problem, problem.proposal),
        predict=_balance,
        judge=Equal(rtol=1e-9, atol=1e-13),
        control=Variant("without the ratio of the proposals", measure=_as_if_symmetric),
        axes=Axes("pair of states, by flux", "probability"),
    ),
    Claim(
        "samplers.metropolis_hastings",
        part="sampling",
        says="With log-normal proposals the chains follow Gamma(3, 1).",
        measure=_gamma_moments(1.0),
        predict=lambda _: _moments_of_gamma(3),
        judge=Mean(resolution=0.2),
        control=Variant("without the ratio of the proposals", measure=_gamma_moments(0.0)),
        budget=Budget(8_000, 200_000),
        axes=Axes("moment", "mean of the power, scaled"),
    ),
    Claim(
        "samplers.metropolis_hastings",
        part="wrong ratio",
        says="Without the ratio of the proposals the same chains follow Gamma(2, 1).",
        measure=_gamma_moments(0.0),
        predict=lambda _: _moments_of_gamma(2),
        judge=Mean(resolution=0.2),
        control=Variant("Gamma(3, 1)", predict=lambda _: _moments_of_gamma(3)),
        budget=Budget(8_000, 200_000),
        axes=Axes("moment", "mean of the power, scaled"),
    ),
    Claim(
        "samplers.metropolis_hastings",
        part="joint distribution",
        says="Drawing parameters by a sampler and data given the parameters in turn keeps the joint law "
        "(Geweke's test).",
        measure=_joint(**_SAMPLERS),
        predict=_prior_moments,
        judge=Mean(resolution=0.15, floor=0.15),
        control=Variant("an unadjusted sampler", measure=_joint(ULA=_unadjusted)),
        budget=Budget(16_000, 200_000),
        axes=Axes("moment", "mean"),
    ),
)
