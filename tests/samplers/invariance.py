"""Tests of invariance: a kernel that starts from exact draws must end in the same law.

Many independent chains start from exact draws of what should be their stationary law and make some steps. The last
positions are then independent draws as well, and are tested as such: without burn-in, autocorrelation times or
convergence, and with a false-alarm rate that is known. `smooth_test` is for laws that a map takes to uniform ones,
`geweke` for posteriors of data that are drawn anew in every round.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import linalg, stats

from dltheory import samplers

__all__ = [
    "LEVEL",
    "TARGETS",
    "Target",
    "ends",
    "geweke",
    "grid_draws",
    "linear_law",
    "normal_target",
    "smooth_test",
    "starting_at_replicas",
]

# Of one test: with fewer than a hundred of them, one false alarm among all has a probability below one in a hundred.
LEVEL = 1e-4
_DEGREE = 4


class Target(NamedTuple):
    """A law on the plane.

    Attributes:
        log_density: position [2] -> log density up to a constant, for JAX.
        draw: (generator, n) -> exact draws [n, 2].
        uniform: draws [n, 2] -> [n, 2], independent uniform numbers if they have the law (Rosenblatt's transform).
    """

    log_density: Callable
    draw: Callable
    uniform: Callable


def normal_target(covariance) -> Target:
    """The law N(0, covariance)."""
    factor, precision = np.linalg.cholesky(covariance), np.linalg.inv(covariance)
    return Target(
        log_density=lambda x: -x @ jnp.asarray(precision, x.dtype) @ x / 2,
        draw=lambda rng, n: rng.normal(size=(n, 2)) @ factor.T,
        uniform=lambda x: stats.norm.cdf(linalg.solve_triangular(factor, x.T, lower=True).T),
    )


def _banana() -> Target:
    """x ~ N(0, 1), y ~ N(x^2 - 1, 0.8^2)."""

    def draw(rng, n):
        x, y = rng.normal(size=(2, n))
        return np.stack([x, x**2 - 1 + 0.8 * y], axis=1)

    return Target(
        log_density=lambda x: -(x[0] ** 2) / 2 - ((x[1] - x[0] ** 2 + 1) / 0.8) ** 2 / 2,
        draw=draw,
        uniform=lambda x: stats.norm.cdf(np.stack([x[:, 0], (x[:, 1] - x[:, 0] ** 2 + 1) / 0.8], axis=1)),
    )


def _mixture() -> Target:
    """Two normal components of unequal weights and widths."""
    weights = np.array([0.35, 0.65])
    means, widths = np.array([[-1.5, -0.5], [1.5, 0.5]]), np.array([[1.0, 0.8], [0.7, 1.0]])

    def log_density(x):
        scores = (jnp.expand_dims(x, 0) - jnp.asarray(means, x.dtype)) / jnp.asarray(widths, x.dtype)
        return jax.nn.logsumexp(-jnp.sum(scores**2, axis=1) / 2, b=jnp.asarray(weights / widths.prod(axis=1), x.dtype))

    def draw(rng, n):
        component = rng.choice(2, n, p=weights)
        return means[component] + widths[component] * rng.normal(size=(n, 2))

    def uniform(x):
        scores = (x[:, :1] - means[:, 0]) / widths[:, 0]
        joint = weights / widths[:, 0] * stats.norm.pdf(scores)
        given = joint / joint.sum(axis=1, keepdims=True)
        second = stats.norm.cdf(x[:, 1:], means[:, 1], widths[:, 1])
        return np.stack([stats.norm.cdf(scores) @ weights, (given * second).sum(axis=1)], axis=1)

    return Target(log_density, draw, uniform)


TARGETS = {
    "normal": normal_target(np.array([[1.0, 1.2], [1.2, 2.5]])),
    "banana": _banana(),
    "mixture": _mixture(),
}


def grid_draws(rng, log_density, n, extent=12.0, cells=600):
    """Draws [n, 2] from a density on the plane that is constant on the cells of a fine grid, each as at its middle."""
    width = 2 * extent / cells
    middles = np.linspace(-extent + width / 2, extent - width / 2, cells)
    points = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2)
    values = np.asarray(jax.jit(jax.vmap(log_density))(jnp.asarray(points, jnp.float32)), float)
    weights = np.exp(values - values.max())
    chosen = points[rng.choice(len(points), n, p=weights / weights.sum())]
    return chosen + width * rng.uniform(-0.5, 0.5, size=(n, 2))


def smooth_test(uniforms) -> float:
    """p-value of independent numbers [n, d] being uniform on the cube: Neyman's smooth test.

    The means of the orthonormal polynomials of total degree at most four are independent standard normal numbers, but
    for the factor sqrt(n), and the sum of their squares is compared with its chi-square law.
    """
    uniforms = np.asarray(uniforms, float)
    n, d = uniforms.shape
    legendre = [np.sqrt(2 * k + 1) * np.polynomial.Legendre.basis(k)(2 * uniforms - 1) for k in range(_DEGREE + 1)]
    degrees = [degree for degree in np.ndindex(*(_DEGREE + 1,) * d) if 0 < sum(degree) <= _DEGREE]
    scores = [np.prod([legendre[k][:, i] for i, k in enumerate(degree)], axis=0).mean() for degree in degrees]
    return float(stats.chi2.sf(n * np.sum(np.square(scores)), len(degrees)))


def ends(algorithm, starts, num_steps, seed, start=None):
    """Last states of independent chains.

    Args:
        algorithm: the sampler.
        starts: where chains start, leaves [n, ...].
        num_steps: steps of each.
        seed: of the keys.
        start: one of `starts` -> state; the sampler's `init` by default.
    """
    start = start or algorithm.init

    def chain(key, position):
        keys = jax.random.split(key, num_steps)
        return jax.lax.scan(lambda state, key: (algorithm.step(key, state)[0], None), start(position), keys)[0]

    starts = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), starts)
    keys = jax.random.split(jax.random.key(seed), len(jax.tree.leaves(starts)[0]))
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(chain))(keys, starts))


def starting_at_replicas(algorithm):
    """Parallel tempering that starts with replicas at given positions [k, ...] instead of all at one."""

    def init(positions):
        k = len(jax.tree.leaves(positions)[0])
        everywhere = jax.vmap(algorithm.init)(positions)
        own = jax.tree.map(lambda leaf: leaf[jnp.arange(k), jnp.arange(k)], everywhere.replicas)
        return algorithm.init(jax.tree.map(lambda leaf: leaf[0], positions))._replace(replicas=own)

    return samplers.SamplingAlgorithm(init, algorithm.step)


def linear_law(step, size, num_noises):
    """Stationary covariance of ``z <- step(z, xi)``, linear in both, with xi ~ N(0, I).

    Args:
        step: (z [size], xi [num_noises]) -> z [size], in NumPy.
        size: of z.
        num_noises: of xi.
    """
    transition = np.stack([step(unit, np.zeros(num_noises)) for unit in np.eye(size)], axis=1)
    push = np.stack([step(np.zeros(size), unit) for unit in np.eye(num_noises)], axis=1)
    return linalg.solve_discrete_lyapunov(transition, push @ push.T)


# Geweke's model: theta ~ N(0, I), y_i = theta_1 + x_i theta_2^2 + noise; the posterior has two modes in theta_2.

_POINTS = np.array([-1.0, 0.3, 1.2])


def _location(theta):
    return theta[..., :1] + _POINTS * theta[..., 1:] ** 2


def _log_prior(theta):
    return -jnp.sum(theta**2) / 2


def _functions(theta, y):
    """What is compared of parameters and data, [n, q]."""
    a, b, mean = theta[:, 0], theta[:, 1], y.mean(axis=1)
    columns = [a, b, a**2, b**2, a * b, a * mean, b**2 * mean, np.abs(b), b**4, a**3, np.abs(a * b), *y.T, *(y**2).T]
    return np.stack(columns, axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _rounds(make, keys, theta, noise):
    """Last parameters and data of rounds of one step for the parameters, then new data."""

    def chain(keys, theta, noise):
        points = jnp.asarray(_POINTS, theta.dtype)

        def location(theta):
            cold = theta[0] if theta.ndim == 2 else theta
            return cold[0] + points * cold[1] ** 2

        def round_(pair, random):
            theta, y = pair
            key, noise = random
            algorithm = make(lambda theta: -jnp.sum((y - location(theta)) ** 2) / 2, _log_prior)
            state, _ = algorithm.step(key, algorithm.init(theta))
            replicas = getattr(state, "replicas", None)
            theta = state.position if replicas is None else replicas.position
            return (theta, location(theta) + noise), None

        return jax.lax.scan(round_, (theta, location(theta) + noise[0]), (keys, noise[1:]))[0]

    return jax.vmap(chain)(keys, theta, noise)


def geweke(make, seed, num_replicas=1, n=16_000, num_rounds=12) -> float:
    """p-value of Geweke's joint-distribution test, corrected for the number of functions that are compared.

    Parameters and data are drawn from prior and likelihood (the marginal-conditional simulator); then a step of the
    sampler for the parameters given the data, and new data given the parameters, in turn (the successive-conditional
    simulator), and compared with as many new draws of the first kind.

    Args:
        make: (log likelihood, log prior) -> sampler for the posterior.
        seed: of all random numbers.
        num_replicas: above 1, the sampler has that many replicas, at inverse temperatures 1 and 0 (the prior's).
        n: number of independent simulations.
        num_rounds: steps of each.
    """
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, num_replicas, 2) if num_replicas > 1 else (n, 2)).astype(np.float32)
    noise = rng.normal(size=(n, num_rounds + 1, len(_POINTS))).astype(np.float32)
    keys = jax.random.split(jax.random.key(seed), (n, num_rounds))
    theta, y = (np.asarray(part, float) for part in _rounds(make, keys, theta, noise))
    theta = theta[:, 0] if num_replicas > 1 else theta
    exact = rng.normal(size=(n, 2))
    return family_wise(_functions(theta, y), _functions(exact, _location(exact) + rng.normal(size=(n, len(_POINTS)))))


def family_wise(samples, others) -> float:
    """p-value, by Bonferroni's correction, of two sets of independent draws [n, q] having the same means."""
    error = np.sqrt(samples.var(axis=0, ddof=1) / len(samples) + others.var(axis=0, ddof=1) / len(others))
    z = np.abs(samples.mean(axis=0) - others.mean(axis=0)) / error
    return float(min(1.0, 2 * stats.norm.sf(z.max()) * len(z)))
