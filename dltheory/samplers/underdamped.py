"""Underdamped Langevin dynamics: friction and noise on the momenta of Hamiltonian dynamics."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dltheory._checks import require, shapes
from dltheory.samplers._mass import mass_for
from dltheory.samplers._positions import draw, flatten, require_positive, value_and_gradient
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import Array, LogDensityFn, PyTree, Scalar

__all__ = ["UnderdampedInfo", "UnderdampedState", "underdamped_langevin"]


class UnderdampedState(NamedTuple):
    """Where a chain is.

    Attributes:
        position: theta, any pytree.
        momentum: y, like the position.
        logdensity_grad: gradient of the log density at the position, like it.
    """

    position: PyTree
    momentum: PyTree
    logdensity_grad: PyTree


class UnderdampedInfo(NamedTuple):
    """How a step went.

    Attributes:
        is_divergent: whether the new position or the gradient there is not finite, shape [].
    """

    is_divergent: Array


def underdamped_langevin(
    log_density_fn: LogDensityFn,
    step_size: Scalar,
    friction: Scalar,
    *,
    inverse_mass_matrix: Scalar | Array = 1.0,
    integrator: str = "baoab",
) -> SamplingAlgorithm:
    r"""Underdamped (kinetic) Langevin dynamics, unadjusted.

    .. math::
        d\theta = M^{-1} y\, dt, \qquad dy = -\nabla f(\theta)\, dt - B M^{-1} y\, dt + \sqrt{2 B}\, dW

    with f = -log_density_fn. The stationary law of the equation is exp(-f(theta)) N(y; 0, M): the friction must act on
    the velocity M^{-1} y. With friction B y instead, theta would follow exp(-m f) for M = m I.

    The integrator "baoab" splits the equation into half a kick, half a drift, the exact Ornstein-Uhlenbeck step of the
    friction and noise, half a drift and half a kick; positions of a normal target then have exactly the right law, and
    those of others err by O(dt^2). "euler" is y + dt (-grad f - B M^{-1} y) + N(0, 2 B dt), then a drift with the new
    momentum, and errs by O(dt). Each evaluates one gradient a step.

    Args:
        log_density_fn: -f, log density up to a constant, position -> shape [].
        step_size: dt, positive, shape [].
        friction: B, not negative, shape []; with 0 the integrators follow Hamilton's equations.
        inverse_mass_matrix: M^{-1}, a positive number or a diagonal [p].
        integrator: "baoab" or "euler".

    Returns:
        The sampler; its states are `UnderdampedState`, its infos `UnderdampedInfo`. A chain starts at rest, or with any
        momentum that is put into its state.

    Raises:
        ValueError: if a setting is out of its range, a position is not floating-point, the mass is dense or does not
            fit the position, or `log_density_fn` does not return a floating-point scalar.

    Statement: samplers.sghmc, samplers.langevin_noise_convention.  Source: Leimkuhler and Matthews 2013, section 2;
    Chen, Fox and Guestrin 2014, equation 9.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> chain = samplers.underdamped_langevin(lambda x: -(x**2) / 2, 0.1, friction=0.0)
    >>> state, _ = chain.step(jax.random.key(0), chain.init(jnp.array(1.0)))
    >>> print(state.position, state.momentum)
    0.995 -0.09975
    """
    require_positive(step_size=step_size)
    shapes(friction=(friction, ""))
    require(friction >= 0, "`friction` must not be negative")
    require(integrator in _STEPS, f"`integrator` must be one of {', '.join(_STEPS)}, got {integrator!r}")
    rank = jnp.ndim(inverse_mass_matrix)
    require(rank < 2, f"`inverse_mass_matrix` must be a number or a diagonal [p], got {rank} axes")

    def init(position):
        position, value, gradient = value_and_gradient(log_density_fn, position)
        mass_for(inverse_mass_matrix, ravel_pytree(position)[0])
        known = jnp.isfinite(value)
        gradient = jax.tree.map(lambda leaf: jnp.where(known, leaf, jnp.nan), gradient)
        return UnderdampedState(position, jax.tree.map(jnp.zeros_like, position), gradient)

    def step(key, state):
        vector, unravel, flat_fn = flatten(log_density_fn, state.position)
        noise, _ = draw(key, vector.size, 0, vector.dtype)
        dt, drag, inverse = (
            jnp.asarray(setting, vector.dtype) for setting in (step_size, friction, inverse_mass_matrix)
        )
        inverse = jnp.where(inverse > 0, inverse, jnp.nan)  # a negative mass would run, and away
        momentum, gradient = (ravel_pytree(part)[0] for part in (state.momentum, state.logdensity_grad))
        vector, momentum, gradient = _STEPS[integrator](
            jax.grad(flat_fn), dt, drag, inverse, noise, vector, momentum, gradient
        )
        moved = UnderdampedState(unravel(vector), unravel(momentum), unravel(gradient))
        return moved, UnderdampedInfo(~jnp.all(jnp.isfinite(vector + gradient)))

    return SamplingAlgorithm(init, step)


def _baoab(grad_fn, dt, friction, inverse_mass, noise, vector, momentum, gradient):
    momentum = momentum + dt / 2 * gradient
    vector = vector + dt / 2 * inverse_mass * momentum
    exponent = -friction * inverse_mass * dt
    momentum = jnp.exp(exponent) * momentum + jnp.sqrt(-jnp.expm1(2 * exponent) / inverse_mass) * noise
    vector = vector + dt / 2 * inverse_mass * momentum
    gradient = grad_fn(vector)
    return vector, momentum + dt / 2 * gradient, gradient


def _euler(grad_fn, dt, friction, inverse_mass, noise, vector, momentum, gradient):
    momentum = momentum + dt * (gradient - friction * inverse_mass * momentum) + jnp.sqrt(2 * friction * dt) * noise
    vector = vector + dt * inverse_mass * momentum
    return vector, momentum, grad_fn(vector)


_STEPS = {"baoab": _baoab, "euler": _euler}
