"""Overdamped Langevin dynamics, discretised: unadjusted, and corrected by Metropolis's rule."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dltheory.samplers._positions import (
    accept_probability,
    choose,
    draw,
    flatten,
    require_positive,
    value_and_gradient,
)
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import Array, LogDensityFn, PyTree, Scalar

__all__ = ["MalaInfo", "MalaState", "UlaInfo", "UlaState", "mala", "ula"]


class UlaState(NamedTuple):
    """Where a chain is.

    Attributes:
        position: x, any pytree.
        logdensity_grad: gradient of the log density there, like the position.
    """

    position: PyTree
    logdensity_grad: PyTree


class UlaInfo(NamedTuple):
    """How a step went.

    Attributes:
        is_divergent: whether the new position or the gradient there is not finite, shape [].
    """

    is_divergent: Array


class MalaState(NamedTuple):
    """Where a chain is.

    Attributes:
        position: x, any pytree.
        logdensity: log density there, shape [].
        logdensity_grad: its gradient, like the position.
    """

    position: PyTree
    logdensity: Array
    logdensity_grad: PyTree


class MalaInfo(NamedTuple):
    """How a step went.

    Attributes:
        acceptance_rate: probability with which the proposal was accepted, shape [].
        is_accepted: whether it was, shape [].
    """

    acceptance_rate: Array
    is_accepted: Array


def ula(log_density_fn: LogDensityFn, step_size: Scalar) -> SamplingAlgorithm:
    r"""The unadjusted Langevin algorithm: Langevin dynamics by the method of Euler and Maruyama.

    .. math::
        dx = \nabla \log p(x)\, dt + \sqrt2\, dW, \qquad
        x_{t+1} = x_t + \eta \nabla \log p(x_t) + \sqrt{2 \eta}\, \xi_t, \quad \xi_t \sim N(0, I)

    The stationary law of the equation is p; that of the algorithm differs from it by O(eta). For p = N(0, sigma^2) it
    is normal with variance sigma^2 / (1 - eta / (2 sigma^2)), and there is none once eta >= 2 sigma^2. (A step of
    Welling and Teh, who write eta / 2 and N(0, eta), is one of half their step size.)

    Args:
        log_density_fn: log p up to a constant, position -> shape [].
        step_size: eta, the time step, positive, shape [].

    Returns:
        The sampler; its states are `UlaState`, its infos `UlaInfo`. It evaluates the gradient alone; at the start,
        where the log density is not finite, the gradient of the state is NaN.

    Raises:
        ValueError: if a static `step_size` is not positive, a position is not floating-point, or `log_density_fn` does
            not return a floating-point scalar.

    Statement: samplers.ula.  Source: Roberts and Tweedie 1996, section 1.4.1; Durmus and Moulines 2017.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> chain = samplers.ula(lambda x: -(x**2) / 2, step_size=0.1)
    >>> state, _ = chain.step(jax.random.key(0), chain.init(jnp.array(1.0)))
    >>> bool(state.logdensity_grad == -state.position)
    True
    """
    require_positive(step_size=step_size)

    def init(position):
        position, value, gradient = value_and_gradient(log_density_fn, position)
        known = jnp.isfinite(value)
        return UlaState(position, jax.tree.map(lambda leaf: jnp.where(known, leaf, jnp.nan), gradient))

    def step(key, state):
        vector, unravel, flat_fn = flatten(log_density_fn, state.position)
        noise, _ = draw(key, vector.size, 0, vector.dtype)
        eta = jnp.asarray(step_size, vector.dtype)
        vector = vector + eta * ravel_pytree(state.logdensity_grad)[0] + jnp.sqrt(2 * eta) * noise
        gradient = jax.grad(flat_fn)(vector)
        return UlaState(unravel(vector), unravel(gradient)), UlaInfo(~jnp.all(jnp.isfinite(vector + gradient)))

    return SamplingAlgorithm(init, step)


def mala(log_density_fn: LogDensityFn, step_size: Scalar) -> SamplingAlgorithm:
    r"""The Metropolis-adjusted Langevin algorithm: a Langevin step as proposal.

    .. math::
        x' \sim r(\cdot \mid x) = N(x + \eta \nabla \log p(x),\, 2 \eta I), \qquad
        x \leftarrow x' \text{ with probability }
        \min\!\left\{1, \frac{p(x')\, r(x \mid x')}{p(x)\, r(x' \mid x)}\right\}

    Its stationary law is p, whatever the step size. In many dimensions it is fastest where it accepts 0.574 of its
    proposals.

    Args:
        log_density_fn: log p up to a constant, position -> shape [].
        step_size: eta, the time step of ``dx = grad log p dt + sqrt(2) dW``, positive, shape [].

    Returns:
        The sampler; its states are `MalaState`, its infos `MalaInfo`. Proposals whose log density or gradient is not
        finite are rejected.

    Raises:
        ValueError: as `ula`.

    Statement: samplers.ula.  Source: Roberts and Tweedie 1996, section 1.4.2; Roberts and Rosenthal 1998 (0.574).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> chain = samplers.mala(lambda x: -jnp.sum(x**2) / 2, step_size=0.1)
    >>> _, info = chain.step(jax.random.key(0), chain.init(jnp.ones(2)))
    >>> bool(info.acceptance_rate > 0.9)
    True
    """
    require_positive(step_size=step_size)

    def init(position):
        return MalaState(*value_and_gradient(log_density_fn, position))

    def step(key, state):
        vector, unravel, flat_fn = flatten(log_density_fn, state.position)
        gradient = ravel_pytree(state.logdensity_grad)[0]
        noise, (uniform,) = draw(key, vector.size, 1, vector.dtype)
        eta = jnp.asarray(step_size, vector.dtype)
        proposal = vector + eta * gradient + jnp.sqrt(2 * eta) * noise
        value, new_gradient = jax.value_and_grad(flat_fn)(proposal)
        # x - x' - eta g(x') = -sqrt(2 eta) noise - eta (g(x) + g(x')), free of the cancellation in x - x'.
        back = noise + jnp.sqrt(eta / 2) * (gradient + new_gradient)
        log_ratio = value - state.logdensity + jnp.sum(noise**2 - back**2) / 2
        rate = accept_probability(jnp.where(jnp.isfinite(value), log_ratio, -jnp.inf))
        accepted = uniform < rate
        proposed = MalaState(unravel(proposal), value, unravel(new_gradient))
        return choose(accepted, proposed, state), MalaInfo(acceptance_rate=rate, is_accepted=accepted)

    return SamplingAlgorithm(init, step)
