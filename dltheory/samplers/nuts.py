"""The No-U-Turn sampler: Hamiltonian trajectories that end where they begin to turn back."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dltheory._checks import require
from dltheory.samplers._mass import mass_factor, mass_for, scaled, scaled_back
from dltheory.samplers._positions import accept_probability, draw, flatten, require_positive, value_and_gradient
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


class _Trajectory(NamedTuple):
    """What the loop over points carries, in few arrays: each costs a copy or a kernel in every round."""

    number: Array  # of the next point, the same in all chains; the initial one is number 0
    any_goes_on: Array  # the same in all chains
    goes_on: Array
    near: Array  # position, gradient and momentum at the end that the last doubling extends, [3, p]
    far: Array  # and at the other one, [3, p]
    starts: Array  # of subtrees: momentum, momentum at the point before, sum of all momenta before, [slots, 3, p]
    momentum_sum: Array  # [p]
    drawn: Array  # from what was there before this doubling: position, gradient, log density and weight, [2 p + 2]
    new_drawn: Array  # from the points of this doubling, [2 p + 2]
    # Log weights of what was there before this doubling, of its points, and of them where the draw from them changes
    # next; sum of acceptance rates, [4]
    weights: Array
    counts: Array  # changes of the draw, points, [2]
    diverges: Array
    turns: Array


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

        def visit(tree):
            """Adds a point to the trajectory."""
            number, goes_on = tree.number, tree.goes_on
            doubling = _bit_length(number) - 1
            is_first, is_last = number & (number - 1) == 0, number & (number + 1) == 0

            forward = is_forward[doubling]
            flips = is_first & (forward != is_forward[jnp.maximum(doubling - 1, 0)])
            near, far = jnp.where(flips, tree.far, tree.near), jnp.where(flips, tree.near, tree.far)
            vector, gradient, momentum_before = near
            length = jnp.where(forward, 1, -1).astype(dtype) * jnp.asarray(step_size, dtype)
            momentum = momentum_before + length / 2 * scaled_back(scale, gradient)
            vector = vector + length * scaled(scale, momentum)
            value, gradient = jax.value_and_grad(flat_fn)(vector)
            momentum = momentum + length / 2 * scaled_back(scale, gradient)

            weight = (energy - _energy(momentum, value)).astype(dtype)
            weight = jnp.where(jnp.isfinite(weight), weight, -jnp.inf)
            diverges = -weight > divergence_threshold
            old_weight, new_weight, next_change, acceptance_sum = tree.weights
            num_changes, num_steps = tree.counts
            # A point is drawn with probability w / (w + weight before): if in between lies a point of a Poisson process
            # of unit rate over the log weight. All doublings use the same numbers, as only the draw of one is kept.
            new_weight = jnp.logaddexp(jnp.where(is_first, -jnp.inf, new_weight), weight)
            changes = is_first | (new_weight > next_change)
            next_change = jnp.where(changes, new_weight - log_change[num_changes % _NUM_CHANGES], next_change)
            new_drawn = jnp.where(changes, _point(vector, gradient, value, weight), tree.new_drawn)

            start = jnp.stack([momentum, momentum_before, tree.momentum_sum])
            slot = jnp.where(number % 2 == 0, _last_slot(number), 0)
            starts = jax.lax.dynamic_update_index_in_dim(tree.starts, start, slot, 0)
            momentum_sum = tree.momentum_sum + momentum
            turns_inside, turns_whole = _turns(number, starts, far[2], momentum, momentum_sum)
            turns_whole = turns_whole | tree.turns

            ends_inside = diverges | turns_inside
            merges = is_last & ~ends_inside
            takes_new = goes_on & merges & (log_merge[doubling] < new_weight - old_weight)
            still_goes_on = goes_on & ~ends_inside & ~(is_last & turns_whole) & (number + 1 < 2**max_num_doublings)
            old_weight = jnp.where(merges, jnp.logaddexp(old_weight, new_weight), old_weight)
            acceptance_sum = acceptance_sum + jnp.where(goes_on, accept_probability(weight), 0)
            # A chain that has ended keeps what it has; the rest may change until all have ended.
            return _Trajectory(
                number=number + 1,
                any_goes_on=_of_any_chain(still_goes_on),
                goes_on=still_goes_on,
                near=jnp.where(goes_on, jnp.stack([vector, gradient, momentum]), tree.near),
                far=far,
                starts=starts,
                momentum_sum=momentum_sum,
                drawn=jnp.where(takes_new, new_drawn, tree.drawn),
                new_drawn=new_drawn,
                weights=jnp.stack([old_weight, new_weight, next_change, acceptance_sum]),
                counts=jnp.stack([num_changes + changes, num_steps + goes_on]),
                diverges=jnp.where(goes_on, diverges, tree.diverges),
                turns=jnp.where(goes_on, turns_whole | turns_inside, tree.turns),
            )

        gradient = ravel_pytree(state.logdensity_grad)[0]
        end, yes = jnp.stack([vector, gradient, momentum]), jnp.asarray(True)
        drawn = _point(vector, gradient, state.logdensity, jnp.zeros((), dtype))
        tree = _Trajectory(
            number=jnp.asarray(1, jnp.int32),
            any_goes_on=yes,
            goes_on=yes,
            near=end,
            far=end,
            starts=jnp.zeros((max_num_doublings, 3, vector.size), dtype),
            momentum_sum=momentum,
            drawn=drawn,
            new_drawn=drawn,
            weights=jnp.zeros(4, dtype),
            counts=jnp.zeros(2, jnp.int32),
            diverges=~yes,
            turns=~yes,
        )
        tree = jax.lax.while_loop(lambda tree: tree.any_goes_on, visit, tree)
        p, num_steps = vector.size, tree.counts[1]
        info = NutsInfo(
            acceptance_rate=tree.weights[3] / num_steps.astype(dtype),
            is_divergent=tree.diverges,
            is_turning=tree.turns & ~tree.diverges,
            energy=energy - tree.drawn[-1],
            num_integration_steps=num_steps,
            num_trajectory_expansions=_bit_length(num_steps),
        )
        value = tree.drawn[2 * p].astype(state.logdensity.dtype)
        return HmcState(unravel(tree.drawn[:p]), value, unravel(tree.drawn[p : 2 * p])), info

    return SamplingAlgorithm(init, step)


@jax.custom_batching.custom_vmap
def _of_any_chain(flag: Array) -> Array:
    """Whether a flag is set in any of the chains that are mapped over together.

    A loop that asks this goes on in all chains together. What does not depend on the chain, such as the number of the
    point, then stays one number, by which arrays are changed in place; under a condition of its own for every chain,
    `vmap` would copy all that the loop carries in every round.
    """
    return flag


@_of_any_chain.def_vmap
def _(axis_size, in_batched, flag):  # noqa: ARG001  (as `custom_vmap` calls it)
    return _of_any_chain(jnp.any(flag)), False


def _turns(number, starts, far_momentum, momentum, momentum_sum):
    """Whether a subtree within this doubling turns, and whether the whole trajectory does, as far as they now show.

    The points are numbered from 0, the initial one, in the order in which they are visited; those of a doubling are
    2**j to 2**(j + 1) - 1. A subtree is a run of 2**k points from a multiple of 2**k on. The starts of those that are
    not complete at a point are its number with the lowest set bits cleared, one after the other; each is in the slot
    that counts its set bits less one, until an odd point completes them: as many as it has trailing set bits, from the
    last slot down. Slot 0 is for the whole trajectory, whose start is the far end.
    """
    last = _last_slot(number)
    first = last + 1 - _num_trailing_ones(number)
    # At an even point, which begins the second half of a subtree, the first half with this point.
    last_asked = jnp.where(number % 2 == 0, last - 1, last)
    first_asked = jnp.maximum(jnp.minimum(first, last_asked), 1)

    def look(carry):
        slot, inside, whole = carry
        start_momentum, before, sum_before = starts[slot]
        total = momentum_sum - sum_before
        # The second half with the point before it; that of the smallest subtrees is all of them.
        half_turns = (slot > first) & (slot <= last) & _turned(before, momentum, total + before)
        inside = inside | _turned(start_momentum, momentum, total) | (half_turns & (slot > 1))
        return slot + 1, inside, whole | (half_turns & (slot == 1))

    whole_asked = (number & (number - 1) == 0) | (number & (number + 1) == 0)
    whole = whole_asked & _turned(far_momentum, momentum, momentum_sum)
    start = (first_asked, jnp.zeros_like(whole), whole)
    return jax.lax.while_loop(lambda carry: carry[0] <= last_asked, look, start)[1:]


def _turned(first: Array, last: Array, total: Array) -> Array:
    """Betancourt's criterion over the last axis."""
    return ~((jnp.sum(first * total, axis=-1) > 0) & (jnp.sum(last * total, axis=-1) > 0))


def _point(vector: Array, gradient: Array, value: Array, weight: Array) -> Array:
    return jnp.concatenate([vector, gradient, jnp.stack([value, weight]).astype(vector.dtype)])


def _energy(momentum: Array, value: Array) -> Array:
    """H of a momentum of unit mass [p] at a log density."""
    return jnp.sum(momentum**2) / 2 - value


def _bit_length(number: Array) -> Array:
    return 32 - jax.lax.clz(number)


def _last_slot(number: Array) -> Array:
    """Of the starts of subtrees that are not complete, see `_turns`."""
    return jax.lax.population_count(number >> 1)


def _num_trailing_ones(number: Array) -> Array:
    return jax.lax.population_count((number ^ (number + 1)) >> 1)
