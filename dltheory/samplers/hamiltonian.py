"""Hamiltonian dynamics: energies, momenta, the leapfrog integrator, and the Monte-Carlo method built of them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dltheory._checks import alike, require, shapes
from dltheory.samplers._mass import Mass, mass_for
from dltheory.samplers._positions import (
    accept_probability,
    choose,
    draw,
    flatten,
    floating,
    require_positive,
    scalar_log_density,
    value_and_gradient,
)
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import Array, LogDensityFn, PRNGKey, PyTree, Scalar

__all__ = [
    "HmcInfo",
    "HmcState",
    "IntegratorState",
    "hamiltonian",
    "hmc",
    "kinetic_energy",
    "leapfrog",
    "sample_momentum",
]


class IntegratorState(NamedTuple):
    """A point of phase space.

    Attributes:
        position: theta, any pytree.
        momentum: y, like the position.
        logdensity: log density at the position, shape [].
        logdensity_grad: its gradient, like the position.
    """

    position: PyTree
    momentum: PyTree
    logdensity: Array
    logdensity_grad: PyTree


class HmcState(NamedTuple):
    """Where a chain is.

    Attributes:
        position: theta, any pytree.
        logdensity: log density there, shape [].
        logdensity_grad: its gradient, like the position.
    """

    position: PyTree
    logdensity: Array
    logdensity_grad: PyTree


class HmcInfo(NamedTuple):
    """How a step went.

    Attributes:
        acceptance_rate: probability with which the end of the trajectory was accepted, shape [].
        is_accepted: whether it was, shape [].
        is_divergent: whether the energy rose by more than the threshold, or was not finite, shape [].
        energy: H of the state that the step ended in, shape [].
        energy_error: H at the end of the trajectory less H at its start, shape [].
        num_integration_steps: leapfrog steps taken, shape [].
    """

    acceptance_rate: Array
    is_accepted: Array
    is_divergent: Array
    energy: Array
    energy_error: Array
    num_integration_steps: Array


def kinetic_energy(momentum: PyTree, *, inverse_mass_matrix: Scalar | Array = 1.0) -> Array:
    r"""The kinetic energy of a momentum.

    .. math:: K(y) = \tfrac12 y^T M^{-1} y

    Args:
        momentum: y, any pytree of floating-point arrays, p numbers in all.
        inverse_mass_matrix: M^{-1}: a positive number, a diagonal [p], or a symmetric positive definite matrix [p, p];
            coordinates in the order of `jax.flatten_util.ravel_pytree`.

    Returns:
        K, shape []; NaN if a dense matrix is not positive definite.

    Raises:
        ValueError: if `inverse_mass_matrix` does not fit the momentum, or a static one is not positive.

    Statement: samplers.hmc_lift.  Source: Neal 2011, section 5.2.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.kinetic_energy(jnp.array([3.0, 4.0]), inverse_mass_matrix=0.5)
    Array(6.25, dtype=float32)
    """
    vector, _ = ravel_pytree(floating(momentum, "momentum"))
    return _kinetic(vector, mass_for(inverse_mass_matrix, vector))


def hamiltonian(
    log_density_fn: LogDensityFn, position: PyTree, momentum: PyTree, *, inverse_mass_matrix: Scalar | Array = 1.0
) -> Array:
    r"""The energy whose Gibbs distribution is the target for positions, and normal for momenta.

    .. math:: H(\theta, y) = f(\theta) + \tfrac12 y^T M^{-1} y, \qquad p(\theta, y) \propto e^{-H(\theta, y)}

    with f = -log_density_fn. Integrated over y, exp(-H) is proportional to exp(-f).

    Args:
        log_density_fn: -f, position -> shape [].
        position: theta, any pytree of floating-point arrays, p numbers in all.
        momentum: y, like the position.
        inverse_mass_matrix: M^{-1}, a positive number, a diagonal [p] or a positive definite matrix [p, p].

    Returns:
        H in nats, shape [].

    Raises:
        ValueError: if the momentum is not like the position, `inverse_mass_matrix` does not fit them, a position is not
            floating-point, or `log_density_fn` does not return a floating-point scalar.

    Statement: samplers.hmc_lift.  Source: Neal 2011, equation 5.6.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.hamiltonian(lambda x: -(x**2) / 2, jnp.array(1.0), jnp.array(2.0), inverse_mass_matrix=0.25)
    Array(1., dtype=float32)
    """
    position = floating(position)
    alike(position=position, momentum=momentum)
    scalar_log_density(log_density_fn, position)
    return kinetic_energy(momentum, inverse_mass_matrix=inverse_mass_matrix) - log_density_fn(position)


def sample_momentum(key: PRNGKey, like: PyTree, *, inverse_mass_matrix: Scalar | Array = 1.0) -> PyTree:
    r"""A momentum from its conditional distribution, which does not depend on the position.

    .. math:: y \sim N(0, M)

    Its covariance is the mass matrix, not the inverse: exp(-y^2 / (2 m)) has variance m.

    Args:
        key: random key.
        like: the position, any pytree of floating-point arrays, p numbers in all.
        inverse_mass_matrix: M^{-1}, a positive number, a diagonal [p] or a positive definite matrix [p, p].

    Returns:
        y, like the position; NaN if a matrix is not positive definite.

    Raises:
        ValueError: if `inverse_mass_matrix` does not fit the position, or that is not floating-point.

    Statement: samplers.hmc_momentum.  Source: Neal 2011, section 5.3.1.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> momenta = samplers.sample_momentum(jax.random.key(0), jnp.zeros(10_000), inverse_mass_matrix=0.25)
    >>> print(round(float(momenta.var()), 1))
    4.0
    """
    vector, unravel = ravel_pytree(floating(like, "like"))
    noise, _ = draw(key, vector.size, 0, vector.dtype)
    return unravel(mass_for(inverse_mass_matrix, vector).momentum(noise))


def leapfrog(
    log_density_fn: LogDensityFn,
    position: PyTree,
    momentum: PyTree,
    step_size: Scalar,
    num_steps: int | Array,
    *,
    inverse_mass_matrix: Scalar | Array = 1.0,
) -> IntegratorState:
    r"""Hamilton's equations by the leapfrog method.

    .. math::
        y &\leftarrow y - \tfrac{\varepsilon}{2} \nabla f(\theta) \\
        \theta &\leftarrow \theta + \varepsilon M^{-1} y \\
        y &\leftarrow y - \tfrac{\varepsilon}{2} \nabla f(\theta)

    It approximates d theta/dt = M^{-1} y, dy/dt = -grad f(theta). Every step preserves volume, and is undone by the
    same step with the momentum reversed; its error in the energy is O(eps^2). It is stable while eps < 2 /
    sqrt(lambda), lambda the largest eigenvalue of M^{-1} times the Hessian of f.

    Args:
        log_density_fn: -f, position -> shape [].
        position: theta, any pytree of floating-point arrays, p numbers in all.
        momentum: y, like the position.
        step_size: eps, shape []; negative to go back in time.
        num_steps: number of steps, at least 0. A Python number makes the loop differentiable in reverse mode.
        inverse_mass_matrix: M^{-1}, a positive number, a diagonal [p] or a positive definite matrix [p, p].

    Returns:
        The point reached, with the log density there and its gradient.

    Raises:
        ValueError: if the momentum is not like the position, `step_size` is not a scalar, a static `num_steps` is
            negative, `inverse_mass_matrix` does not fit, a position is not floating-point, or `log_density_fn` does not
            return a floating-point scalar.

    Statement: samplers.hmc.  Source: Neal 2011, equations 5.18 to 5.20.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> end = samplers.leapfrog(lambda x: -(x**2) / 2, jnp.array(1.0), jnp.array(0.0), 0.5, 1)
    >>> end.position, end.momentum
    (Array(0.875, dtype=float32), Array(-0.46875, dtype=float32))
    """
    position = floating(position)
    alike(position=position, momentum=momentum)
    scalar_log_density(log_density_fn, position)
    shapes(step_size=(step_size, ""), num_steps=(num_steps, ""))
    if isinstance(num_steps, int):
        require(num_steps >= 0, f"`num_steps` must be non-negative, got {num_steps}")
    vector, unravel, flat_fn = flatten(log_density_fn, position)
    start = ravel_pytree(momentum)[0].astype(vector.dtype)
    gradient = jax.grad(flat_fn)(vector)
    mass, step_size = mass_for(inverse_mass_matrix, vector), jnp.asarray(step_size, vector.dtype)
    end = jax.lax.fori_loop(
        0, num_steps, lambda _, point: _step(flat_fn, mass, step_size, *point), (vector, start, gradient)
    )
    value, gradient = jax.value_and_grad(flat_fn)(end[0])
    return IntegratorState(unravel(end[0]), unravel(end[1]), value, unravel(gradient))


def hmc(
    log_density_fn: LogDensityFn,
    step_size: Scalar,
    num_steps: int,
    *,
    inverse_mass_matrix: Scalar | Array = 1.0,
    jitter: float = 0.5,
    divergence_threshold: float = 1000.0,
) -> SamplingAlgorithm:
    r"""Hamiltonian Monte Carlo.

    .. math::
        y \sim N(0, M), \qquad (\theta', y') = \text{leapfrog}^L_{\varepsilon u}(\theta, y), \qquad
        \theta \leftarrow \theta' \text{ with probability } \min\{1, e^{H(\theta, y) - H(\theta', y')}\}

    with u uniform on [1 - jitter, 1] in every step. A trajectory whose length nears a period of the target comes back
    to where it started, and the chain does not mix in that direction; random lengths do away with this resonance. Steps
    are only ever shortened, so that none leaves the range in which the integrator is stable. All p + 2 random numbers
    of a step come from one call of the generator.

    Args:
        log_density_fn: -f, log density up to a constant, position -> shape [].
        step_size: eps, the longest step of the integrator, positive, shape [].
        num_steps: L, number of integrator steps, at least 1.
        inverse_mass_matrix: M^{-1}, a positive number, a diagonal [p] or a positive definite matrix [p, p]; best near
            the covariance of the target.
        jitter: how much of the path length is random, from 0 (a fixed length) to 1.
        divergence_threshold: rise of energy in nats from which on a trajectory counts as divergent.

    Returns:
        The sampler; its states are `HmcState`, its infos `HmcInfo`. A trajectory whose energy is not finite is
        rejected.

    Raises:
        ValueError: if a static setting is out of its range, a position is not floating-point, `inverse_mass_matrix`
            does not fit it, or `log_density_fn` does not return a floating-point scalar.

    Statement: samplers.hmc.  Source: Duane et al. 1987; Neal 2011, sections 5.3.2 and 5.4.2.2 (random step sizes).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> chain = samplers.hmc(lambda x: -jnp.sum(x**2) / 2, step_size=0.1, num_steps=10)
    >>> state, info = chain.step(jax.random.key(0), chain.init(jnp.ones(3)))
    >>> bool(info.acceptance_rate > 0.99), int(info.num_integration_steps)
    (True, 10)
    """
    require_positive(step_size=step_size)
    require(num_steps >= 1, f"`num_steps` must be at least 1, got {num_steps}")
    require(0 <= jitter <= 1, f"`jitter` must lie between 0 and 1, got {jitter}")
    require(divergence_threshold > 0, f"`divergence_threshold` must be positive, got {divergence_threshold}")

    def init(position):
        state = HmcState(*value_and_gradient(log_density_fn, position))
        mass_for(inverse_mass_matrix, ravel_pytree(state.position)[0])
        return state

    def step(key, state):
        vector, unravel, flat_fn = flatten(log_density_fn, state.position)
        gradient = ravel_pytree(state.logdensity_grad)[0]
        mass = mass_for(inverse_mass_matrix, vector)
        noise, (uniform_accept, uniform_length) = draw(key, vector.size, 2, vector.dtype)
        momentum = mass.momentum(noise)
        length = jnp.asarray(step_size, vector.dtype) * (1 - jitter * uniform_length)
        before = _kinetic(momentum, mass) - state.logdensity
        # All half steps but the first and the last come in pairs; what the last needs beside the gradient is the value.
        momentum = momentum + length / 2 * gradient
        inner = (vector, momentum)
        if num_steps > 1:
            inner = jax.lax.fori_loop(0, num_steps - 1, lambda _, point: _kick(flat_fn, mass, length, *point), inner)
        vector = inner[0] + length * mass.velocity(inner[1])
        value, gradient = jax.value_and_grad(flat_fn)(vector)
        momentum = inner[1] + length / 2 * gradient
        after = _kinetic(momentum, mass) - value
        error = after - before
        error = jnp.where(jnp.isfinite(error), error, jnp.inf)
        rate = accept_probability(-error)
        accepted = uniform_accept < rate
        info = HmcInfo(
            acceptance_rate=rate,
            is_accepted=accepted,
            is_divergent=error > divergence_threshold,
            energy=jnp.where(accepted, after, before),
            energy_error=error,
            num_integration_steps=jnp.asarray(num_steps),
        )
        return choose(accepted, HmcState(unravel(vector), value, unravel(gradient)), state), info

    return SamplingAlgorithm(init, step)


def _kinetic(momentum: Array, mass: Mass) -> Array:
    return jnp.sum(momentum * mass.velocity(momentum)) / 2


def _kick(flat_fn, mass, step_size, vector, momentum):
    """A step of the positions, then one of the momenta."""
    vector = vector + step_size * mass.velocity(momentum)
    return vector, momentum + step_size * jax.grad(flat_fn)(vector)


def _step(flat_fn, mass, step_size, vector, momentum, gradient):
    """One step of the integrator."""
    momentum = momentum + step_size / 2 * gradient
    vector = vector + step_size * mass.velocity(momentum)
    gradient = jax.grad(flat_fn)(vector)
    return vector, momentum + step_size / 2 * gradient, gradient
