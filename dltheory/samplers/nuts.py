"""The No-U-Turn sampler: Hamiltonian trajectories that end where they begin to turn back."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dltheory._checks import require
from dltheory.samplers._mass import mass_factor, mass_for, scaled, scaled_back
from dltheory.samplers._positions import accept_probability, choose, draw, flatten, require_positive, value_and_gradient
from dltheory.samplers.hamiltonian import HmcState
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import Array, LogDensityFn, Scalar

__all__ = ["NutsInfo", "nuts"]

# How many times the draw from a subtree can change before its random numbers repeat. Each time, the weight that has
# been passed grows by a factor of e on average: 32 times are e^32, seven what a thousand points of equal weight take.
_NUM_CHANGES = 32


class NutsInfo(NamedTuple):
    """How a step went.

    Attributes:
        acceptance_rate: min(1, exp(H(start) - H)), averaged over the points of the trajectory, shape [].
        is_divergent: whether the energy rose by more than the threshold, or was not finite, shape [].
        is_turning: whether the trajectory ended because it turned back, shape [].
        energy: H of the state that the step ended in, shape [].
        num_integration_steps: leapfrog steps taken, shape [].
        num_trajectory_expansions: how often the trajectory was doubled, a last attempt included, shape [].
    """

    acceptance_rate: Array
    is_divergent: Array
    is_turning: Array
    energy: Array
    num_integration_steps: Array
    num_trajectory_expansions: Array


class _Point(NamedTuple):
    vector: Array  # [p]
    gradient: Array  # [p]
    value: Array  # log density, []
    log_weight: Array  # H(start) - H, []


class _Ends(NamedTuple):
    vector: Array  # [2, p], the earlier end and the later one
    momentum: Array  # [2, p]
    gradient: Array  # [2, p]


class _Starts(NamedTuple):
    """Where those subtrees begin that are not complete, in the order of time of this doubling."""

    momentum: Array  # at the first point, [slots, p]
    before: Array  # momentum at the point before it, [slots, p]
    momentum_sum: Array  # of the trajectory without the subtree, [slots, p]


class _Trajectory(NamedTuple):
    size: Array  # points, the initial one included
    ends: _Ends
    starts: _Starts
    momentum_sum: Array  # [p]
    drawn: _Point  # from what was there before this doubling
    log_weight: Array  # of what was there before this doubling
    new_drawn: _Point  # from the points of this doubling
    new_log_weight: Array  # of the points of this doubling
    next_change: Array  # weight of the points of this doubling at which the draw from them changes
    num_changes: Array
    acceptance_sum: Array
    diverges: Array
    turns: Array
    goes_on: Array


def nuts(
    log_density_fn: LogDensityFn,
    step_size: Scalar,
    *,
    inverse_mass_matrix: Scalar | Array = 1.0,
    max_num_doublings: int = 10,
    divergence_threshold: float = 1000.0,
) -> SamplingAlgorithm:
    r"""The No-U-Turn sampler, with multinomial draws from trajectories.

    A trajectory of leapfrog steps is doubled forwards or backwards in time, at random, until it turns: until for one of
    its subtrees, with first and last momenta y and y' and the sum of all its momenta rho,

    .. math:: y^T M^{-1} \rho \le 0 \quad\text{or}\quad y'^T M^{-1} \rho \le 0.

    The same is asked of the first half of every subtree with the point that follows it, and of the second with the
    point before it, lest a trajectory run through whole periods unseen. The new state is a point of the trajectory: of
    a new half each point with probability proportional to exp(-H), and this instead of one of the old half with
    probability min(1, w_new / w_old) of their total weights. A half with a turn or a divergence inside is thrown away.

    The cost of a step is one gradient for each point but the first. Many chains under `vmap` take as many steps as the
    one with the longest trajectory.

    Args:
        log_density_fn: -f, log density up to a constant, position -> shape [].
        step_size: eps, step of the integrator, positive, shape [].
        inverse_mass_matrix: M^{-1}, a positive number, a diagonal [p] or a positive definite matrix [p, p]; best near
            the covariance of the target.
        max_num_doublings: the trajectory has at most 2**max_num_doublings points, from 1 to 24.
        divergence_threshold: rise of energy in nats from which on a trajectory counts as divergent.

    Returns:
        The sampler; its states are `HmcState`, its infos `NutsInfo`. Points whose energy is not finite are never drawn.

    Raises:
        ValueError: if a static setting is out of its range, a position is not floating-point, `inverse_mass_matrix`
            does not fit it, or `log_density_fn` does not return a floating-point scalar.

    Statement: samplers.hmc.  Source: Hoffman and Gelman 2014; Betancourt 2017, appendix A (multinomial draws and the
    criterion); Phan, Pradhan and Jankowiak 2019 (the iterative form); Stan's reference manual (halves with a point).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> chain = samplers.nuts(lambda x: -jnp.sum(x**2) / 2, step_size=0.5)
    >>> state, info = chain.step(jax.random.key(0), chain.init(jnp.ones(3)))
    >>> bool(info.acceptance_rate > 0.9), bool(info.is_turning), bool(info.is_divergent)
    (True, True, False)
    """
    require_positive(step_size=step_size)
    require(1 <= max_num_doublings <= 24, f"`max_num_doublings` must lie between 1 and 24, got {max_num_doublings}")
    require(divergence_threshold > 0, f"`divergence_threshold` must be positive, got {divergence_threshold}")
    factor = mass_factor(inverse_mass_matrix)  # here and not in `step`: a loop over steps need not factorise again
    num_slots = max_num_doublings - 1

    def init(position):
        state = HmcState(*value_and_gradient(log_density_fn, position))
        mass_for(inverse_mass_matrix, ravel_pytree(state.position)[0])
        return state

    def step(key, state):
        vector, unravel, flat_fn = flatten(log_density_fn, state.position)
        dtype, scale = vector.dtype, factor.astype(vector.dtype)
        # Momenta are those of unit mass; see `mass_factor`.
        momentum, uniforms = draw(key, vector.size, 2 * max_num_doublings + _NUM_CHANGES, dtype)
        is_forward = uniforms[:max_num_doublings] < 0.5
        log_uniforms = jnp.log(uniforms[max_num_doublings:])
        log_merge, log_change = log_uniforms[:max_num_doublings], log_uniforms[max_num_doublings:]
        energy = _energy(momentum, state.logdensity).astype(dtype)
        slots = jnp.arange(1, num_slots + 1)

        def visit(tree):
            """Adds one point, number `tree.size` of the trajectory."""
            number = tree.size
            doubling = _bit_length(number) - 1
            is_first, is_last = number & (number - 1) == 0, number & (number + 1) == 0

            forward = is_forward[doubling]
            near = jax.tree.map(lambda pair: jnp.where(forward, pair[1], pair[0]), tree.ends)
            far_momentum = jnp.where(forward, tree.ends.momentum[0], tree.ends.momentum[1])
            length = jnp.where(forward, 1, -1).astype(dtype) * jnp.asarray(step_size, dtype)
            momentum = near.momentum + length / 2 * scaled_back(scale, near.gradient)
            vector = near.vector + length * scaled(scale, momentum)
            value, gradient = jax.value_and_grad(flat_fn)(vector)
            momentum = momentum + length / 2 * scaled_back(scale, gradient)
            is_near = jnp.expand_dims(jnp.stack([~forward, forward]), 1)
            ends = jax.tree.map(
                lambda pair, end: jnp.where(is_near, jnp.expand_dims(end, 0), pair),
                tree.ends,
                _Ends(vector, momentum, gradient),
            )

            log_weight = (energy - _energy(momentum, value)).astype(dtype)
            log_weight = jnp.where(jnp.isfinite(log_weight), log_weight, -jnp.inf)
            diverges = -log_weight > divergence_threshold
            point = _Point(vector, gradient, value, log_weight)
            passed = jnp.logaddexp(jnp.where(is_first, -jnp.inf, tree.new_log_weight), log_weight)
            changes = is_first | (passed > tree.next_change)
            new_drawn = choose(changes, point, tree.new_drawn)
            next_change = jnp.where(changes, passed - log_change[tree.num_changes % _NUM_CHANGES], tree.next_change)

            momentum_sum = tree.momentum_sum + momentum
            turns_inside, turns_whole = _turns(number, slots, tree.starts, far_momentum, momentum, momentum_sum)
            turns_whole = turns_whole | tree.turns
            is_start = jnp.expand_dims((slots == _num_starts(number)) & (number % 2 == 0), 1)
            starts = jax.tree.map(
                lambda kept, start: jnp.where(is_start, jnp.expand_dims(start, 0), kept),
                tree.starts,
                _Starts(momentum, near.momentum, tree.momentum_sum),
            )

            ends_inside = diverges | turns_inside
            merges = is_last & ~ends_inside
            takes_new = merges & (log_merge[doubling] < passed - tree.log_weight)
            return _Trajectory(
                size=number + 1,
                ends=ends,
                starts=starts,
                momentum_sum=momentum_sum,
                drawn=choose(takes_new, new_drawn, tree.drawn),
                log_weight=jnp.where(merges, jnp.logaddexp(tree.log_weight, passed), tree.log_weight),
                new_drawn=new_drawn,
                new_log_weight=passed,
                next_change=next_change,
                num_changes=tree.num_changes + changes,
                acceptance_sum=tree.acceptance_sum + accept_probability(log_weight),
                diverges=diverges,
                turns=turns_whole | turns_inside,
                goes_on=~ends_inside & ~(is_last & turns_whole) & (number + 1 < 2**max_num_doublings),
            )

        zero, no = jnp.zeros((), dtype), jnp.asarray(False)
        gradient = ravel_pytree(state.logdensity_grad)[0]
        start = _Point(vector, gradient, state.logdensity, zero)
        none = jnp.zeros((num_slots, vector.size), dtype)
        tree = _Trajectory(
            size=jnp.asarray(1, jnp.int32),
            ends=_Ends(*(jnp.stack([part, part]) for part in (vector, momentum, gradient))),
            starts=_Starts(none, none, none),
            momentum_sum=momentum,
            drawn=start,
            log_weight=zero,
            new_drawn=start,
            new_log_weight=zero,
            next_change=zero,
            num_changes=jnp.asarray(0, jnp.int32),
            acceptance_sum=zero,
            diverges=no,
            turns=no,
            goes_on=~no,
        )
        tree = jax.lax.while_loop(lambda tree: tree.goes_on, visit, tree)
        num_steps = tree.size - 1
        info = NutsInfo(
            acceptance_rate=tree.acceptance_sum / num_steps.astype(dtype),
            is_divergent=tree.diverges,
            is_turning=tree.turns & ~tree.diverges,
            energy=energy - tree.drawn.log_weight,
            num_integration_steps=num_steps,
            num_trajectory_expansions=_bit_length(num_steps),
        )
        drawn = tree.drawn
        return HmcState(unravel(drawn.vector), drawn.value, unravel(drawn.gradient)), info

    return SamplingAlgorithm(init, step)


def _turns(number, slots, starts, far_momentum, momentum, momentum_sum):
    """Whether a subtree within this doubling turns, and whether the whole trajectory does, as far as they now show.

    The points are numbered from 0, the initial one, in the order in which they are visited; those of a doubling are
    2**j to 2**(j + 1) - 1. A subtree is a run of 2**k points from a multiple of 2**k on. The starts of those that are
    not complete at a point are its number with the lowest set bits cleared, one after the other; each is in the slot
    that counts its set bits less one, until an odd point completes them: as many as it has trailing set bits, from the
    last slot down. Slot 0 is for the whole trajectory, whose start is the far end.
    """
    last = _num_starts(number)
    first = last + 1 - _num_trailing_ones(number)
    total = jnp.expand_dims(momentum_sum, 0) - starts.momentum_sum
    now = jnp.expand_dims(momentum, 0)
    # Complete subtrees; and at an even point, which begins the second half of one, the first half with this point.
    begun = jnp.where(number % 2 == 0, last - 1, last)
    asked = (slots >= jnp.minimum(first, begun)) & (slots <= begun)
    turns = asked & _turned(starts.momentum, now, total)
    # The second halves of all complete subtrees but the smallest, with the point before them.
    is_half = (slots > first) & (slots <= last)
    half_turns = is_half & _turned(starts.before, now, total + starts.before)
    whole_asked = (number & (number - 1) == 0) | (number & (number + 1) == 0)
    whole_turns = whole_asked & _turned(far_momentum, momentum, momentum_sum)
    is_whole_half = is_half & (slots == 1)
    inside = jnp.any(turns | (half_turns & ~is_whole_half))
    return inside, whole_turns | jnp.any(half_turns & is_whole_half)


def _turned(first: Array, last: Array, total: Array) -> Array:
    """Betancourt's criterion over the last axis."""
    return ~((jnp.sum(first * total, axis=-1) > 0) & (jnp.sum(last * total, axis=-1) > 0))


def _energy(momentum: Array, value: Array) -> Array:
    """H of a momentum of unit mass [p] at a log density."""
    return jnp.sum(momentum**2) / 2 - value


def _bit_length(number: Array) -> Array:
    return 32 - jax.lax.clz(number)


def _num_starts(number: Array) -> Array:
    """Set bits of the number but the last bit, less one for the bit of the doubling: the slot of the last start."""
    return jax.lax.population_count(number >> 1)


def _num_trailing_ones(number: Array) -> Array:
    return jax.lax.population_count((number ^ (number + 1)) >> 1)
