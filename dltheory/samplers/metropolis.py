"""Metropolis-Hastings: any proposal, made invariant by an acceptance rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dltheory._checks import require, shapes
from dltheory._trees import strongly_typed
from dltheory.samplers._positions import (
    accept_probability,
    choose,
    draw,
    floating,
    require_like,
    scalar_log_density,
)
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import Array, ArrayLike, LogDensityFn, PRNGKey, PyTree, Scalar

__all__ = [
    "MetropolisInfo",
    "MetropolisState",
    "acceptance_probability",
    "independence_sampler",
    "metropolis_hastings",
    "random_walk_metropolis",
    "transition_matrix",
]


class MetropolisState(NamedTuple):
    """Where a chain is.

    Attributes:
        position: theta, any pytree.
        logdensity: log density there, shape [].
    """

    position: PyTree
    logdensity: Array


class MetropolisInfo(NamedTuple):
    """How a step went.

    Attributes:
        acceptance_rate: probability with which the proposal was accepted, shape [].
        is_accepted: whether it was, shape [].
    """

    acceptance_rate: Array
    is_accepted: Array


def acceptance_probability(
    logdensity: ArrayLike, proposed_logdensity: ArrayLike, log_forward: ArrayLike = 0.0, log_backward: ArrayLike = 0.0
) -> Array:
    r"""The probability with which Metropolis and Hastings accept a proposal theta' made at theta.

    .. math:: \min\!\left\{1, \frac{r(\theta \mid \theta')\, e^{f(\theta) - f(\theta')}}{r(\theta' \mid \theta)}\right\}

    with f = -logdensity. Computed in logs, so that neither densities nor their ratio overflow.

    Args:
        logdensity: -f(theta), shape [...].
        proposed_logdensity: -f(theta'), shape [...].
        log_forward: log r(theta' | theta), of the proposal that was made, shape [...].
        log_backward: log r(theta | theta'), of the proposal that would lead back, shape [...].

    Returns:
        The probability, shape [...]; 0 where the ratio is not a number or the proposed log density is infinite, and 1
        where a chain can leave a point of density zero.

    Statement: samplers.metropolis_hastings.  Source: Hastings 1970, equation 6.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.acceptance_probability(jnp.log(2.0), jnp.log(1.0))
    Array(0.5, dtype=float32)
    """
    logdensity, proposed_logdensity = jnp.asarray(logdensity), jnp.asarray(proposed_logdensity)
    log_ratio = (proposed_logdensity - logdensity) + (jnp.asarray(log_backward) - jnp.asarray(log_forward))
    usable = jnp.isfinite(proposed_logdensity)
    return jnp.where(usable, accept_probability(jnp.asarray(log_ratio)), 0.0)


def metropolis_hastings(
    log_density_fn: LogDensityFn,
    proposal_sample: Callable[[PRNGKey, PyTree], PyTree],
    proposal_log_density: Callable[[PyTree, PyTree], Array] | None = None,
) -> SamplingAlgorithm:
    r"""Metropolis-Hastings with any proposal.

    .. math::
        \theta' \sim r(\cdot \mid \theta), \qquad \theta \leftarrow \theta' \text{ with probability }
        \min\!\left\{1, \frac{r(\theta \mid \theta')\, p(\theta')}{r(\theta' \mid \theta)\, p(\theta)}\right\}

    The kernel is reversible with respect to p. It converges to p where the proposal can reach all of its support.

    Args:
        log_density_fn: log p up to a constant, position -> shape [].
        proposal_sample: (key, theta) -> theta', like theta; positions may be of any dtype.
        proposal_log_density: (theta', theta) -> log r(theta' | theta), shape []; None for a symmetric proposal, whose
            ratio is 1.

    Returns:
        The sampler; its states are `MetropolisState`, its infos `MetropolisInfo`. A proposal whose log density is NaN
        or infinite is rejected.

    Raises:
        ValueError: if `log_density_fn` does not return a floating-point scalar, or a proposal is not like the position.

    Statement: samplers.metropolis_hastings.  Source: Hastings 1970, section 2.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> gamma = lambda x: 2 * jnp.log(x) - x  # Gamma(3, 1), proposals log-normal
    >>> sample = lambda key, x: x * jnp.exp(jax.random.normal(key))
    >>> log_density = lambda to, at: -jnp.log(to) - jnp.log(to / at) ** 2 / 2
    >>> chain = samplers.metropolis_hastings(gamma, sample, log_density)
    >>> chain.step(jax.random.key(0), chain.init(jnp.array(3.0)))[1].is_accepted.dtype
    dtype('bool')
    """

    def init(position):
        position = strongly_typed(position)
        scalar_log_density(log_density_fn, position)
        return MetropolisState(position, log_density_fn(position))

    def step(key, state):
        key_proposal, key_accept = jax.random.split(key)
        proposal = proposal_sample(key_proposal, state.position)
        require_like(state.position, proposal, "`proposal_sample`")
        forward = backward = 0.0
        if proposal_log_density is not None:
            forward = proposal_log_density(proposal, state.position)
            backward = proposal_log_density(state.position, proposal)
        # Numbers of 16 bits are zero too often: each zero accepts what it should not.
        uniform = jax.random.uniform(key_accept, dtype=jnp.promote_types(state.logdensity.dtype, jnp.float32))
        return _accept(uniform, state, MetropolisState(proposal, log_density_fn(proposal)), forward, backward)

    return SamplingAlgorithm(init, step)


def random_walk_metropolis(log_density_fn: LogDensityFn, scale: Scalar | Array) -> SamplingAlgorithm:
    r"""Metropolis with normal steps around the present point.

    .. math:: \theta' = \theta + L \xi, \quad \xi \sim N(0, I), \qquad
        \theta \leftarrow \theta' \text{ with probability } \min\{1, p(\theta') / p(\theta)\}

    In many dimensions it is fastest where it accepts 0.234 of its proposals, with steps of 2.38 / sqrt(p) standard
    deviations of the target.

    Args:
        log_density_fn: log p up to a constant, position -> shape [].
        scale: standard deviation of the steps: one number, one for each coordinate [p], or a matrix L [p, p] for steps
            of covariance L L^T.

    Returns:
        The sampler; its states are `MetropolisState`, its infos `MetropolisInfo`.

    Raises:
        ValueError: if a position is not floating-point, `log_density_fn` does not return a floating-point scalar,
            `scale` does not fit the position, or a static one is not positive.

    Statement: samplers.metropolis_hastings.  Source: Metropolis et al. 1953; Roberts, Gelman and Gilks 1997 (the
    scale).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> chain = samplers.random_walk_metropolis(lambda x: -jnp.sum(x**2) / 2, scale=1.0)
    >>> state, info = chain.step(jax.random.key(0), chain.init(jnp.zeros(2)))
    >>> state.position.shape, info.acceptance_rate.shape
    ((2,), ())
    """
    if isinstance(scale, int | float):
        require(scale > 0, f"`scale` must be positive, got {scale}")

    def init(position):
        position = floating(position)
        scalar_log_density(log_density_fn, position)
        vector, _ = ravel_pytree(position)
        p = vector.size
        pattern = {0: "", 1: f"{p}", 2: f"{p} {p}"}.get(jnp.ndim(scale), f"{p}")
        shapes(scale=(scale, pattern))
        return MetropolisState(position, log_density_fn(position))

    def step(key, state):
        vector, unravel = ravel_pytree(state.position)
        noise, (uniform,) = draw(key, vector.size, 1, vector.dtype)
        factor = jnp.asarray(scale, vector.dtype)
        proposal = unravel(vector + (factor @ noise if factor.ndim == 2 else factor * noise))
        return _accept(uniform, state, MetropolisState(proposal, log_density_fn(proposal)))

    return SamplingAlgorithm(init, step)


def independence_sampler(
    log_density_fn: LogDensityFn,
    proposal_sample: Callable[[PRNGKey], PyTree],
    proposal_log_density: LogDensityFn,
) -> SamplingAlgorithm:
    r"""Metropolis-Hastings whose proposals do not depend on where the chain is.

    .. math:: \theta' \sim r, \qquad \theta \leftarrow \theta' \text{ with probability }
        \min\{1, w(\theta') / w(\theta)\}, \quad w = p / r

    It converges geometrically, at rate 1 - 1 / sup w, exactly if w is bounded: the proposal needs tails at least as
    heavy as the target's.

    Args:
        log_density_fn: log p up to a constant, position -> shape [].
        proposal_sample: key -> theta'.
        proposal_log_density: theta' -> log r(theta') up to a constant, shape [].

    Returns:
        The sampler; its states are `MetropolisState`, its infos `MetropolisInfo`.

    Raises:
        ValueError: as `metropolis_hastings`.

    Statement: samplers.metropolis_hastings.  Source: Mengersen and Tweedie 1996, theorem 2.1.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> normal = lambda x: -(x**2) / 2
    >>> chain = samplers.independence_sampler(normal, jax.random.normal, normal)
    >>> float(chain.step(jax.random.key(0), chain.init(jnp.array(0.0)))[1].acceptance_rate)
    1.0
    """
    return metropolis_hastings(
        log_density_fn, lambda key, _: proposal_sample(key), lambda proposal, _: proposal_log_density(proposal)
    )


def transition_matrix(log_density: ArrayLike, proposal: ArrayLike) -> Array:
    r"""The transition matrix of Metropolis-Hastings on finitely many states.

    .. math:: P_{ij} = \min\{r_{ij}, r_{ji}\, \pi_j / \pi_i\} \;(i \ne j), \qquad P_{ii} = 1 - \sum_{j \ne i} P_{ij}

    It satisfies detailed balance, pi_i P_ij = pi_j P_ji, hence pi P = pi, whatever the proposal.

    Args:
        log_density: log pi up to a constant, shape [k]; minus infinity for states of probability zero.
        proposal: r_ij, the probability of proposing j at i, rows sum to 1, shape [k, k].

    Returns:
        P, rows sum to 1, shape [k, k].

    Raises:
        ValueError: if shapes disagree.

    Statement: samplers.metropolis_hastings.  Source: Hastings 1970, section 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.transition_matrix(jnp.log(jnp.array([1.0, 2.0])), jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    Array([[0. , 1. ],
           [0.5, 0.5]], dtype=float32)
    """
    k = shapes(log_density=(log_density, "k"), proposal=(proposal, "k k"))["k"]
    log_density, proposal = jnp.asarray(log_density), jnp.asarray(proposal)
    rows = jnp.sum(proposal, axis=1)
    proper = jnp.all(proposal >= 0) & jnp.all(jnp.abs(rows - 1) < 1e-3)
    require(proper, "`proposal` must be non-negative with rows that sum to 1")
    possible = (proposal > 0) & (proposal.T > 0)
    log_proposal = jnp.log(jnp.where(possible, proposal, 1.0))
    accepted = acceptance_probability(
        jnp.expand_dims(log_density, 1), jnp.expand_dims(log_density, 0), log_proposal, log_proposal.T
    )
    moves = jnp.where(possible, proposal * accepted, 0.0) * (1 - jnp.eye(k, dtype=proposal.dtype))
    return moves + jnp.diag(1 - jnp.sum(moves, axis=1))


def _accept(uniform, state, proposed, log_forward: Scalar = 0.0, log_backward: Scalar = 0.0):
    rate = acceptance_probability(state.logdensity, proposed.logdensity, log_forward, log_backward)
    accepted = uniform < rate
    return choose(accepted, proposed, state), MetropolisInfo(acceptance_rate=rate, is_accepted=accepted)
