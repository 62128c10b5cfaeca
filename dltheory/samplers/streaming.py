"""The statistics of the draws of many chains, without the draws."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh

from dltheory.samplers._loop import advance, chain_axis, sharded
from dltheory.samplers._outcomes import counts, sizes, started, warn_of
from dltheory.samplers._welford import Sum, Welford, add, centred, start, update
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import Array, PRNGKey, PyTree

__all__ = ["ChainStatistics", "run_statistics"]


class ChainStatistics(NamedTuple):
    """What is known of many chains without their draws.

    Attributes:
        states: the last state of every chain, leaves [c, ...].
        mean: mean of all draws, like one quantity.
        variance: unbiased variance of all draws about that mean, like one quantity.
        covariance: unbiased covariance matrix of the quantity as a flat vector, shape [p, p]; None if not asked for.
        rhat: split R-hat, like one quantity.
        chain_means: mean of every chain, leaves [c, ...].
        chain_variances: unbiased variance of every chain about its own mean, leaves [c, ...].
        acceptance_rate: mean over the steps of every chain, shape [c]; NaN if the sampler's infos have none.
        num_divergent: number of divergent steps of every chain, shape [c]; 0 if the infos tell of none.
    """

    states: Any
    mean: PyTree
    variance: PyTree
    covariance: Array | None
    rhat: PyTree
    chain_means: PyTree
    chain_variances: PyTree
    acceptance_rate: Array
    num_divergent: Array


def run_statistics(
    key: PRNGKey,
    algorithm: SamplingAlgorithm,
    positions: PyTree,
    num_steps: int,
    *,
    quantity_fn: Callable[[PyTree], PyTree] = lambda position: position,
    covariance: bool = False,
    progress: bool = False,
    mesh: Mesh | None = None,
) -> ChainStatistics:
    r"""Mean, variance, R-hat, acceptance and divergences of the draws that `run` would return, in constant memory.

    .. math::
        \bar x_t = \bar x_{t-1} + \frac{x_t - \bar x_{t-1}}{t}, \qquad
        S_t = S_{t-1} + (x_t - \bar x_{t-1})(x_t - \bar x_t)

    for both halves of every chain; halves are joined by the formula of Chan, Golub and LeVeque. The R-hat is that of
    these halves of length n, without ranks, which would need all draws:

    .. math:: \hat R^2 = \frac{n - 1}{n} + \frac{\operatorname{Var}_m(\bar x_m)}{\operatorname{mean}_m(s^2_m)}

    It does not see chains that differ in spread alone, and means little without a variance. Means and sums carry what
    their rounding costs with them, so that single precision does not bound the number of steps.

    Args:
        key: PRNG key.
        algorithm: the sampler of one chain; its states have a field `position`.
        positions: where the chains start, leaves [c, ...].
        num_steps: number of steps of every chain, at least 1; all of them count.
        quantity_fn: what to take statistics of, position -> pytree of arrays, p numbers in all; the position itself by
            default.
        covariance: whether to compute the covariance matrix, which takes p^2 numbers.
        progress: whether to print now and then to the standard error stream how far the chains are.
        mesh: devices to spread the chains over, as for `run`.

    Returns:
        The statistics. Of an odd number of steps the middle one does not count for R-hat; R-hat is NaN with fewer than
        four steps, and where nothing moves.

    Raises:
        ValueError: as `run`.

    Warns:
        RuntimeWarning: as `run`.

    A helper.  Source: Welford 1962; Chan, Golub and LeVeque 1983; Gelman and Rubin 1992; Kahan 1965 (rounding).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> algorithm = samplers.hmc(lambda x: -((x - 7) ** 2) / 2, step_size=0.5, num_steps=4)
    >>> known = samplers.run_statistics(jax.random.key(0), algorithm, jnp.full(8, 7.0), 500)
    >>> print(round(float(known.mean), 1), round(float(known.variance)), bool(known.rhat < 1.01))
    7.0 1 True
    """
    num_chains, num_steps, _ = sizes(positions, num_steps, 1)
    axis = chain_axis(mesh, num_chains)
    states = started(algorithm, positions)
    flat, unravel = _flat(quantity_fn, states.position)

    def sums(keys, states, report):
        first = _nothing(algorithm, keys, states, flat, covariance)

        def take(tally, index, states, infos):
            return _with_one_more(tally, index, num_steps, flat(states.position), infos), ()

        states, tally, _ = advance(algorithm, keys, states, num_steps, 1, take, first, report)
        return states, tally

    states, tally = sharded(sums, mesh, axis, num_steps, progress)(jax.random.split(key, num_chains), states)
    warn_of("run_statistics", states, tally.counted, num_steps)
    return _statistics(states, tally, num_steps, unravel)


class _Tally(NamedTuple):
    """What is added up. A chain has three parts: its halves, and the middle draw between them if there is one."""

    moments: Welford  # [c, 3, p]
    products: Sum | None  # of deviations, summed over the chains of a shard, [1, p, p]
    rate: Sum | None  # of acceptance, [c, ...]
    counted: dict[str, Array]  # of divergent and accepted steps, [c, ...]


def _flat(quantity_fn, positions):
    """Quantities of all chains as vectors [c, p], and the way back from such vectors."""

    def floats(position):
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x, float)), quantity_fn(position))

    one = jax.eval_shape(lambda positions: floats(jax.tree.map(lambda leaf: leaf[0], positions)), positions)
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), one))
    return jax.vmap(lambda position: ravel_pytree(floats(position))[0]), unravel


def _nothing(algorithm, keys, states, flat, covariance) -> _Tally:
    x = jax.eval_shape(flat, states.position)
    _, infos = jax.eval_shape(jax.vmap(algorithm.step), keys, states)
    c, p = x.shape
    zeros = start(jnp.zeros((c, 3, p), x.dtype))
    rate = getattr(infos, "acceptance_rate", None)
    return _Tally(
        moments=Welford(zeros, zeros),
        products=start(jnp.zeros((1, p, p), x.dtype)) if covariance else None,
        rate=None if rate is None else start(jnp.zeros(rate.shape, rate.dtype)),
        counted=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(counts, infos)),
    )


def _with_one_more(tally: _Tally, index, num_steps, x, infos) -> _Tally:
    half = num_steps // 2
    part = jnp.where(index < half, 0, jnp.where(index < num_steps - half, 1, 2))
    begins = jnp.array([0, half, num_steps - half])[part]
    one = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, part, 1, keepdims=False), tally.moments)
    one, before, after = update(one, index - begins + 1, x)
    products, rate = tally.products, tally.rate
    if products is not None:
        product = jnp.matmul(before.T, after, precision=jax.lax.Precision.HIGHEST)
        products = add(products, jnp.expand_dims(product, 0))
    if rate is not None:
        rate = add(rate, infos.acceptance_rate)
    put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=part, axis=1)
    return _Tally(
        moments=jax.tree.map(put, tally.moments, one),
        products=products,
        rate=rate,
        counted=jax.tree.map(jnp.add, tally.counted, counts(infos)),
    )


def _statistics(states, tally: _Tally, num_steps, unravel) -> ChainStatistics:
    half = num_steps // 2
    mean, squares = tally.moments.mean, tally.moments.squares.high
    num_chains, _, p = squares.shape
    dtype = squares.dtype
    lengths = jnp.expand_dims(jnp.array([half, num_steps - 2 * half, half], dtype), (0, 2))
    # Means as differences to one of them, which are exact where the chains have mixed.
    base = jax.tree.map(lambda leaf: leaf[:1, 2:], mean)

    def whole(difference):
        return base.high[0] + (base.low[0] + difference)

    means = centred(mean.high, base) + mean.low
    of_chains, within = _joined(means, squares, lengths, axes=(1,))
    of_all, total = _joined(means, squares, lengths, axes=(0, 1))
    halves, inner = means[:, ::2].reshape(-1, p), squares[:, ::2].reshape(-1, p) / jnp.array(half - 1, dtype)
    between = jnp.var(halves, axis=0, ddof=1)
    rhat = jnp.sqrt((half - 1) / half + between / jnp.mean(inner, axis=0)) if half > 1 else jnp.full(p, jnp.nan, dtype)
    size = num_chains * num_steps
    matrix = None
    if tally.products is not None:
        apart = means - of_all
        outer = jnp.einsum("cgp,cgq->pq", lengths * apart, apart, precision=jax.lax.Precision.HIGHEST)
        product = jnp.sum(tally.products.high, axis=0) + outer
        matrix = (product + product.T) / (2 * (size - 1))
    rate, divergent = tally.rate, tally.counted.get("is_divergent")
    return ChainStatistics(
        states=states,
        mean=unravel(whole(of_all[0])[0]),
        variance=unravel(total[0, 0] / (size - 1)),
        covariance=matrix,
        rhat=unravel(rhat),
        chain_means=jax.vmap(unravel)(whole(of_chains[:, 0])),
        chain_variances=jax.vmap(unravel)(within[:, 0] / (num_steps - 1)),
        acceptance_rate=jnp.full(num_chains, jnp.nan, dtype) if rate is None else rate.high / num_steps,
        num_divergent=jnp.zeros(num_chains, int) if divergent is None else divergent,
    )


def _joined(means, squares, lengths, axes):
    """The mean and the sum of squared deviations of groups together, from those of each."""
    weights = jnp.broadcast_to(lengths, means.shape)
    mean = jnp.sum(weights * means, axes, keepdims=True) / jnp.sum(weights, axes, keepdims=True)
    return mean, jnp.sum(squares + weights * (means - mean) ** 2, axes, keepdims=True)
