"""Claims about the densities that samplers are given: the posterior, and its lift to phase space."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import samplers
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.samplers._chains import (
    advance,
    integrate,
    metropolised,
    mixture,
    mixture_draws,
    mixture_second_moment,
    trapezoid,
)
from experiments.curves import Curve, estimate
from experiments.judges import Equal, Mean

__all__ = ["CLAIMS"]


# The posterior as a Gibbs distribution: a normal mean with a normal prior.

_PRIOR_MEAN, _PRIOR_SD, _NOISE = 0.5, 1.5, 0.8


class _Observed(NamedTuple):
    x: np.ndarray  # [n]
    grid: np.ndarray  # of the parameter


def _observed(key, _):
    rng = generator(key)
    return _Observed(rng.normal(_PRIOR_SD * rng.normal() + _PRIOR_MEAN, _NOISE, size=4), np.linspace(-12, 13, 1001))


def _log_likelihood(x):
    return lambda theta: jnp.sum(jax.scipy.stats.norm.logpdf(x, theta, _NOISE))


def _log_prior(theta):
    return jax.scipy.stats.norm.logpdf(theta, _PRIOR_MEAN, _PRIOR_SD)


def _by_quadrature(log_prior):
    """Weights exp(-f) on a grid, and their sum."""

    def measure(problem):
        f = samplers.potential(_log_likelihood(jnp.asarray(problem.x)), log_prior)
        weights = np.exp(-np.asarray(jax.jit(jax.vmap(f))(problem.grid)))
        evidence = trapezoid(weights, problem.grid)
        near = _near(problem)
        return {"posterior": Curve((weights / evidence)[near], problem.grid[near]), "evidence": evidence}

    return measure


def _near(problem):
    mean, sd = _conjugate(problem)
    return np.abs(problem.grid - mean) < 3 * sd


def _conjugate(problem):
    precision = len(problem.x) / _NOISE**2 + 1 / _PRIOR_SD**2
    return (problem.x.sum() / _NOISE**2 + _PRIOR_MEAN / _PRIOR_SD**2) / precision, precision**-0.5


def _conjugate_posterior(problem):
    n = len(problem.x)
    shift, covariance = problem.x - _PRIOR_MEAN, _NOISE**2 * np.eye(n) + _PRIOR_SD**2
    return {
        "posterior": stats.norm.pdf(problem.grid[_near(problem)], *_conjugate(problem)),
        "evidence": np.exp(-shift @ np.linalg.solve(covariance, shift) / 2)
        / np.sqrt(np.linalg.det(2 * np.pi * covariance)),
    }


# The lift: H = y^2 / 2m + f, with two modes.

_MASSES = (0.5, 1.0, 4.0)
_MODE = 1.5
_POSITIONS, _MOMENTA = np.linspace(-9, 9, 181), np.linspace(-25, 25, 401)


def _marginal(mass_at):
    """The marginal density of positions under exp(-H), for masses that may depend on the position."""

    @jax.jit
    @jax.vmap
    def weights(mass, position):
        def weight(momentum):
            inverse = 1 / mass_at(mass, position)
            return jnp.exp(-samplers.hamiltonian(mixture(_MODE), position, momentum, inverse_mass_matrix=inverse))

        return jax.vmap(weight)(jnp.asarray(_MOMENTA))

    def measure(_):
        curves = {}
        for mass in _MASSES:
            marginal = trapezoid(np.asarray(weights(np.full(len(_POSITIONS), mass), _POSITIONS)), _MOMENTA)
            curves[f"m = {mass:g}"] = Curve(marginal / trapezoid(marginal, _POSITIONS), _POSITIONS)
        return curves

    return measure


def _target(_):
    return (stats.norm.pdf(_POSITIONS - _MODE) + stats.norm.pdf(_POSITIONS + _MODE)) / 2


# Momenta.

_MASS = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])
_UPPER = np.triu_indices(3)
_SCALED = np.linspace(-8, 8, 101)  # momenta, in units of their standard deviation
_SHOWN = slice(25, -25)


def _conditional_density(_):
    """exp(-H) at fixed positions as a density of momenta."""

    @jax.jit
    def weights(mass, position, momenta):
        def weight(momentum):
            return jnp.exp(-samplers.hamiltonian(mixture(_MODE), position, momentum, inverse_mass_matrix=1 / mass))

        return jax.vmap(weight)(momenta)

    curves = {}
    for mass in _MASSES:
        momenta = mass**0.5 * _SCALED
        for position in (0.0, 2.0):
            density = np.asarray(weights(mass, position, momenta))
            density = density / trapezoid(density, momenta)
            curves[f"m = {mass:g}, position {position:g}"] = Curve(density[_SHOWN], momenta[_SHOWN])
    return curves


def _normal_density(variance):
    def predict(_):
        return {
            f"m = {mass:g}, position {position:g}": stats.norm.pdf(
                mass**0.5 * _SCALED[_SHOWN], scale=variance(mass) ** 0.5
            )
            for mass in _MASSES
            for position in (0.0, 2.0)
        }

    return predict


@jax.jit
def _momenta(keys, inverse):
    return jax.vmap(lambda key: samplers.sample_momentum(key, jnp.zeros(3), inverse_mass_matrix=inverse))(keys)


def _momentum_products(draw):
    y = np.asarray(_momenta(jax.random.split(draw.key, draw.budget), np.linalg.inv(_MASS)))
    return estimate(y[:, _UPPER[0]] * y[:, _UPPER[1]], np.arange(len(_UPPER[0])))


def _kernel(log_step, mass, momentum_sd):
    return metropolised(mixture(_MODE), integrate("leapfrog"), jnp.exp(log_step), 8, 1 / mass, momentum_sd)


def _with_momenta(momentum_sd):
    """Mean squares of positions after ten transitions from exact draws, at each mass."""

    def measure(draw):
        rng = generator(draw.key)
        rows = []
        for mass in _MASSES:
            start = mixture_draws(rng, _MODE, draw.budget)
            key = jax.random.fold_in(draw.key, int(10 * mass))
            rows.append(advance(_kernel, 10, key, start, np.log(0.3 * mass**0.5), mass, momentum_sd(mass))[0] ** 2)
        return estimate(np.stack(rows, axis=1), np.array(_MASSES))

    return measure


CLAIMS = (
    Claim(
        "samplers.gibbs_distribution",
        says="exp(-f), integrated over the parameter, is the evidence; divided by it, it is the posterior.",
        setup=_observed,
        measure=_by_quadrature(_log_prior),
        predict=_conjugate_posterior,
        judge=Equal(rtol=1e-8, atol=1e-12),
        control=Variant("a potential without the prior", measure=_by_quadrature(lambda theta: 0 * theta)),
        axes=Axes("parameter", "density"),
    ),
    Claim(
        "samplers.hmc_lift",
        says="Integrated over the momentum, exp(-H) is the posterior, for every mass.",
        measure=_marginal(lambda mass, position: mass),  # noqa: ARG005
        predict=_target,
        judge=Equal(rtol=1e-8, atol=1e-12),
        control=Variant(
            "a mass that grows with the position", measure=_marginal(lambda mass, position: mass * (1 + position**2))
        ),
        axes=Axes("position", "density"),
    ),
    Claim(
        "samplers.hmc_momentum",
        says="At every position exp(-H) is the density of N(0, m) in the momentum.",
        measure=_conditional_density,
        predict=_normal_density(lambda mass: mass),
        judge=Equal(rtol=1e-8, atol=1e-12),
        control=Variant("N(0, 1/m)", predict=_normal_density(lambda mass: 1 / mass)),
        axes=Axes("momentum", "density"),
    ),
    Claim(
        "samplers.hmc_momentum",
        part="sampling",
        says="Momenta drawn for a mass matrix have it as their covariance.",
        measure=_momentum_products,
        predict=lambda _: _MASS[_UPPER],
        judge=Mean(resolution=0.1, floor=0.05),
        control=Variant("its inverse", predict=lambda _: np.linalg.inv(_MASS)[_UPPER]),
        budget=Budget(40_000, 1_000_000),
        axes=Axes("entry", "mean product"),
    ),
    Claim(
        "samplers.hmc_momentum",
        part="invariance",
        says="Hamiltonian Monte Carlo with momenta of variance m keeps the mean square of a target with two modes.",
        measure=_with_momenta(lambda mass: mass**0.5),
        predict=lambda _: np.full(len(_MASSES), mixture_second_moment(_MODE)),
        judge=Mean(resolution=0.1),
        control=Variant("momenta of variance 1/m", measure=_with_momenta(lambda mass: mass**-0.5)),
        budget=Budget(6_000, 200_000),
        axes=Axes("mass", "mean square of the position", "x"),
    ),
)
