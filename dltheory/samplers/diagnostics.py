"""How far to trust draws of Markov chains: R-hat, effective sample sizes, Monte-Carlo standard errors, E-BFMI.

All of them take draws [chains, draws, ...] and treat every quantity in [...] by itself. They agree with ArviZ, but
for `mcse_sd`. A quantity with a NaN among its draws has NaN everywhere. A quantity that never moves has NaN as its
R-hat, all of its draws as effective sample size, zero as the standard error of its mean and of its quantiles and NaN as
that of its standard deviation, NaN as its autocorrelation and as its E-BFMI: nothing in the draws tells a chain that
has converged to a constant from one that is stuck. Chains that are stuck at different places have an infinite R-hat.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.typing import Array, ArrayLike

__all__ = [
    "autocorrelation",
    "ebfmi",
    "ess_bulk",
    "ess_mean",
    "ess_quantile",
    "ess_tail",
    "mcse_mean",
    "mcse_quantile",
    "mcse_sd",
    "rhat",
]

# Blom's offset, which makes expected normal order statistics of ranks.
_BLOM = 3 / 8
# The normal probabilities of minus one and of one standard deviation, to the digits that Stan and ArviZ use.
_ONE_SIGMA = (0.1586553, 0.8413447)


def rhat(draws: ArrayLike) -> Array:
    r"""Rank-normalised split R-hat: how much wider all chains together are than each half of a chain.

    .. math::
        \hat R = \max(\hat R(z), \hat R(z^*)), \qquad
        \hat R(z)^2 = \frac{n - 1}{n} + \frac{\operatorname{Var}_m(\bar z_m)}{\operatorname{mean}_m(s^2_m)}

    over the 2 c halves of length n, with z the normal scores of the draws among all of them and z* those of their
    distances to the median, which see chains that agree in location and differ in spread. Scores make it exist for
    heavy tails too. Chains that have mixed have values below 1.01.

    Args:
        draws: shape [c, n, ...], at least two chains and four draws; of an odd number the middle one is left out.

    Returns:
        R-hat of every quantity, shape [...]; NaN with a NaN among the draws, and where no draw differs from another.

    Raises:
        ValueError: if there are fewer chains or draws.

    A helper.  Source: Vehtari, Gelman, Simpson, Carpenter and Buerkner 2021, section 4.

    >>> import jax
    >>> from dltheory import samplers
    >>> draws = jax.random.normal(jax.random.key(0), (4, 1000))
    >>> bool(samplers.rhat(draws) < 1.01), bool(samplers.rhat(draws.at[0].add(1.0)) > 1.05)
    (True, True)
    """

    def of_one(x):
        halves = _split(x)
        return jnp.fmax(_rhat(_scores(halves)), _rhat(_scores(jnp.abs(halves - jnp.median(halves)))))

    return _each(draws, of_one, min_chains=2)


def ess_bulk(draws: ArrayLike) -> Array:
    r"""Effective sample size in the bulk: that of the mean of the rank-normalised draws.

    Args:
        draws: shape [c, n, ...], at least four draws.

    Returns:
        Number of independent draws that would tell the location as well, shape [...]; at most c n log10(c n), which
        chains with negative autocorrelations approach.

    Raises:
        ValueError: if there are no chains, or fewer draws.

    A helper.  Source: Vehtari et al. 2021, section 4.1; see `ess_mean` for the estimator.

    >>> import jax
    >>> from dltheory import samplers
    >>> 3000 < float(samplers.ess_bulk(jax.random.normal(jax.random.key(0), (4, 1000)))) < 5000
    True
    """
    return _each(draws, lambda x: _ess(_scores(_split(x))))


def ess_tail(draws: ArrayLike, probability: ArrayLike = 0.05) -> Array:
    r"""Effective sample size in the tails: the smaller of those of two outer quantiles.

    Args:
        draws: shape [c, n, ...], at least four draws.
        probability: of one tail, in (0, 1), shape []; the quantiles are at it and at one minus it.

    Returns:
        Number of independent draws that would tell both quantiles as well, shape [...].

    Raises:
        ValueError: if there are no chains, or fewer draws, or `probability` is no scalar.

    A helper.  Source: Vehtari et al. 2021, section 4.3.

    >>> import jax
    >>> from dltheory import samplers
    >>> 3000 < float(samplers.ess_tail(jax.random.normal(jax.random.key(0), (4, 1000)))) < 5000
    True
    """
    shapes(probability=(probability, ""))
    low, high = (ess_quantile(draws, p) for p in (probability, 1 - probability))
    return jnp.minimum(low, high)


def ess_mean(draws: ArrayLike) -> Array:
    r"""Effective sample size of the mean.

    .. math::
        n_{\mathrm{eff}} = \frac{c\, n}{\tau}, \qquad
        \tau = -1 + 2 \sum_{j < J} \min_{i \le j} P_i + \rho_{2J}, \qquad P_j = \rho_{2j} + \rho_{2j+1}

    with the autocorrelations rho of halves of chains, which count differences between halves as correlation, and
    Geyer's initial monotone sequence: pairs up to the first J that is not positive, none larger than its predecessor.
    tau is at least 1 / log10(c n).

    Args:
        draws: shape [c, n, ...], at least four draws, with finite variance; of an odd number the middle one is left
            out.

    Returns:
        Number of independent draws that would tell the mean as well, shape [...].

    Raises:
        ValueError: if there are no chains, or fewer draws.

    A helper.  Source: Geyer 1992, section 3.3; Vehtari et al. 2021, section 3.2.

    >>> import jax
    >>> from dltheory import samplers
    >>> 3000 < float(samplers.ess_mean(jax.random.normal(jax.random.key(0), (4, 1000)))) < 5000
    True
    """
    return _each(draws, lambda x: _ess(_split(x)))


def ess_quantile(draws: ArrayLike, probability: ArrayLike) -> Array:
    r"""Effective sample size of a quantile: that of the mean of the indicator of the draws up to it.

    Args:
        draws: shape [c, n, ...], at least four draws.
        probability: of the quantile, in [0, 1], shape [].

    Returns:
        Number of independent draws that would tell the quantile as well, shape [...]. If no draw lies above the
        quantile, the indicator is constant, and the number is c n.

    Raises:
        ValueError: if there are no chains, or fewer draws, or `probability` is no scalar.

    A helper.  Source: Vehtari et al. 2021, section 4.3.

    >>> import jax
    >>> from dltheory import samplers
    >>> 3000 < float(samplers.ess_quantile(jax.random.normal(jax.random.key(0), (4, 1000)), 0.5)) < 5000
    True
    """
    probability = _probability(probability, draws)
    return _each(draws, lambda x: _ess_quantile(x, probability))


def mcse_mean(draws: ArrayLike) -> Array:
    r"""Monte-Carlo standard error of the mean of all draws.

    .. math:: s / \sqrt{n_{\mathrm{eff}}}

    Args:
        draws: shape [c, n, ...], at least four draws.

    Returns:
        Standard error in the units of the draws, shape [...].

    Raises:
        ValueError: if there are no chains, or fewer draws.

    A helper.  Source: Vehtari et al. 2021, section 4.4.

    >>> import jax
    >>> from dltheory import samplers
    >>> round(float(samplers.mcse_mean(jax.random.normal(jax.random.key(0), (4, 1000)))), 3)
    0.016
    """
    return _each(draws, lambda x: jnp.sqrt(_variance(x.ravel()) / _ess(_split(x))))


def mcse_sd(draws: ArrayLike) -> Array:
    r"""Monte-Carlo standard error of the standard deviation of all draws, by the delta method.

    .. math:: \frac{1}{2 s} \sqrt{\frac{\mathbb E (x - \bar x)^4 - s^4}{n_{\mathrm{eff}}((x - \bar x)^2)}}

    Args:
        draws: shape [c, n, ...], at least four draws.

    Returns:
        Standard error in the units of the draws, shape [...].

    Raises:
        ValueError: if there are no chains, or fewer draws.

    A helper.  Source: Vehtari et al. 2021, section 4.4. (ArviZ takes the effective size of x for that of its squares.)

    >>> import jax
    >>> from dltheory import samplers
    >>> round(float(samplers.mcse_sd(jax.random.normal(jax.random.key(0), (4, 1000)))), 3)
    0.011
    """

    def of_one(x):
        squares = (x - _mean(x.ravel())) ** 2
        variance = jnp.mean(squares)
        return jnp.sqrt((jnp.mean(squares**2) - variance**2) / _ess(_split(squares)) / (4 * variance))

    return _each(draws, of_one)


def mcse_quantile(draws: ArrayLike, probability: ArrayLike) -> Array:
    r"""Monte-Carlo standard error of a quantile: half the width of its central 68 % interval.

    With the effective number of draws of the quantile at p, the probability below it is distributed as
    Beta(n_eff p + 1, n_eff (1 - p) + 1); the ends of the interval are the order statistics at that law's quantiles.

    Args:
        draws: shape [c, n, ...], at least four draws.
        probability: of the quantile, in [0, 1], shape [].

    Returns:
        Standard error in the units of the draws, shape [...].

    Raises:
        ValueError: if there are no chains, or fewer draws, or `probability` is no scalar.

    A helper.  Source: Vehtari et al. 2021, section 4.4.

    >>> import jax
    >>> from dltheory import samplers
    >>> round(float(samplers.mcse_quantile(jax.random.normal(jax.random.key(0), (4, 1000)), 0.5)), 2)
    0.02
    """
    p = _probability(probability, draws)

    def of_one(x):
        size = _ess_quantile(x, p)
        ends = _beta_quantiles(jnp.asarray(_ONE_SIGMA, x.dtype), size * p + 1, size * (1 - p) + 1) * x.size - 1
        low, high = jnp.floor(jnp.maximum(ends[0], 0)), jnp.ceil(jnp.minimum(ends[1], x.size - 1))
        low, high = jnp.sort(x.ravel())[jnp.stack([low, high]).astype(int)]
        return (high - low) / 2

    return _each(draws, of_one)


def autocorrelation(draws: ArrayLike) -> Array:
    r"""Autocorrelation of every chain at every lag, by the fast Fourier transform.

    .. math:: \hat\rho_t = \frac{\sum_{i=1}^{n-t} (x_i - \bar x)(x_{i+t} - \bar x)}{\sum_{i=1}^n (x_i - \bar x)^2}

    The sum of fewer terms is not scaled up: that biases long lags towards zero and keeps the sequence positive
    semi-definite.

    Args:
        draws: shape [c, n, ...], at least four draws.

    Returns:
        Autocorrelations at lags 0 to n - 1, the shape of `draws`; NaN for a chain that does not move.

    Raises:
        ValueError: if there are no chains, or fewer draws.

    A helper.  Source: Geyer 1992, section 3.3.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.autocorrelation(jnp.array([[1.0, -1.0, 1.0, -1.0]]))
    Array([[ 1.  , -0.75,  0.5 , -0.25]], dtype=float32)
    """
    moved = jnp.moveaxis(_checked(draws, 1), 1, -1)
    covariance = _autocovariance(moved)
    return jnp.moveaxis(covariance / covariance[..., :1], -1, 1)


def ebfmi(energy: ArrayLike) -> Array:
    r"""Estimated Bayesian fraction of missing information of Hamiltonian Monte Carlo.

    .. math:: \frac{\frac{1}{n-1} \sum_{i=2}^n (H_i - H_{i-1})^2}{\frac{1}{n-1} \sum_{i=1}^n (H_i - \bar H)^2}

    What refreshing the momentum changes of the energy, against how much it varies: below 0.3 the chain moves between
    levels of the energy by a slow random walk, as heavy tails and funnels make it do.

    Args:
        energy: H at every draw, shape [c, n, ...], at least four draws.

    Returns:
        The fraction of every chain, shape [c, ...]; NaN for a constant energy.

    Raises:
        ValueError: if there are no chains, or fewer draws.

    A helper.  Source: Betancourt 2016, section 3.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.ebfmi(jnp.array([[0.0, 1.0, 2.0, 3.0]]))
    Array([0.6], dtype=float32)
    """
    moved = jnp.moveaxis(_checked(energy, 1), 1, -1)
    return jnp.mean(jnp.diff(moved) ** 2, axis=-1) / _variance(moved)


def _checked(draws: ArrayLike, min_chains: int) -> Array:
    shapes(draws=(draws, "... * *") if jnp.ndim(draws) < 2 else (draws, "..."))
    chains, length = jnp.shape(draws)[:2]
    require(
        chains >= min_chains and length >= 4,
        f"`draws` must be [chains, draws, ...] with at least {min_chains} chains and 4 draws, got {chains}, {length}",
    )
    return jnp.asarray(draws, _precision(draws))


def _precision(draws: ArrayLike) -> Any:
    """That of the draws, but single for half precision, whose digits do not do for sums."""
    return jnp.promote_types(jnp.result_type(draws, float), jnp.float32)


def _probability(probability: ArrayLike, draws: ArrayLike) -> Array:
    shapes(probability=(probability, ""))
    probability = jnp.asarray(probability, _precision(draws))
    require((probability >= 0) & (probability <= 1), "`probability` must lie in [0, 1]")
    return probability


def _each(draws: ArrayLike, of_one: Callable[[Array], Array], min_chains: int = 1) -> Array:
    """A statistic of [c, n] for every quantity of [c, n, ...]; NaN where the draws hold NaN."""
    draws = _checked(draws, min_chains)
    columns = jnp.moveaxis(draws.reshape(*draws.shape[:2], -1), -1, 0)
    values = jax.vmap(lambda x: jnp.where(jnp.any(jnp.isnan(x)), jnp.nan, of_one(x)))(columns)
    return values.reshape(draws.shape[2:])


def _split(x: Array) -> Array:
    """Chains [c, n] as their halves [2 c, n // 2]."""
    half = x.shape[1] // 2
    return jnp.concatenate([x[:, :half], x[:, -half:]])


def _scores(x: Array) -> Array:
    """Normal scores of the ranks among all entries; equal entries share the mean of their ranks."""
    ranks = jax.scipy.stats.rankdata(x, axis=None).reshape(x.shape).astype(x.dtype)
    return jax.scipy.special.ndtri((ranks - _BLOM) / (x.size - 2 * _BLOM + 1))


def _mean(x: Array) -> Array:
    """Mean over the last axis; exact for constants, which a plain sum would round."""
    first = x[..., :1]
    return first[..., 0] + jnp.mean(x - first, axis=-1)


def _centred(x: Array) -> Array:
    return x - jnp.expand_dims(_mean(x), -1)


def _variance(x: Array) -> Array:
    """Unbiased variance over the last axis."""
    return jnp.sum(_centred(x) ** 2, axis=-1) / (x.shape[-1] - 1)


def _rhat(x: Array) -> Array:
    length = x.shape[-1]
    return jnp.sqrt(_variance(_mean(x)) / jnp.mean(_variance(x)) + (length - 1) / length)


def _autocovariance(x: Array) -> Array:
    """Over the last axis at lags 0 to n - 1, divided by n."""
    length = x.shape[-1]
    padded = 1 << (2 * length - 1).bit_length()
    spectrum = jnp.fft.rfft(_centred(x), padded)
    return jnp.fft.irfft(jnp.abs(spectrum) ** 2, padded)[..., :length] / length


def _ess(x: Array) -> Array:
    """Effective sample size of the mean of chains [c, n]; all of them if nothing moves."""
    chains, length = x.shape
    covariance = jnp.mean(_autocovariance(x), axis=0)
    within = covariance[0] * length / (length - 1)
    total = covariance[0] + _variance(_mean(x)) if chains > 1 else covariance[0]
    moves = jnp.max(x) > jnp.min(x)
    rho = (1 - (within - covariance) / jnp.where(moves, total, 1.0)).at[0].set(1.0)

    # Pair j is looked at if all before it are positive; the last one looked at counts with its first half only.
    last = max(0, (length - 3) // 2)
    pairs = rho[0 : 2 * last + 2 : 2] + rho[1 : 2 * last + 2 : 2]
    stop = jnp.minimum(jnp.sum(jnp.cumprod(pairs > 0)), last)
    decreasing = jax.lax.cummin(pairs)
    remainder = jnp.where((pairs[stop] >= 0) | (rho[2 * stop] > 0), rho[2 * stop], 0.0)
    tau = -1 + 2 * jnp.sum(jnp.where(jnp.arange(last + 1) < stop, decreasing, 0.0)) + remainder
    tau = jnp.where(jnp.isnan(jnp.sum(rho[: 2 * last + 2])), jnp.nan, tau)
    return jnp.where(moves | jnp.isnan(tau), x.size / jnp.maximum(tau, 1 / math.log10(x.size)), x.size)


def _ess_quantile(x: Array, probability: Array) -> Array:
    ordered = jnp.sort(x.ravel())
    place = probability * (x.size - 1)
    below = jnp.clip(jnp.floor(place), 0, x.size - 2).astype(int)
    # In this form rounding never puts the quantile below the draw that it starts from.
    quantile = ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])
    return _ess(_split((x <= quantile).astype(x.dtype)))


def _beta_quantiles(probabilities: Array, a: Array, b: Array) -> Array:
    """Quantiles of Beta(a, b) by bisection, to the precision of the dtype."""

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        under = jax.scipy.special.betainc(a, b, middle) < probabilities
        return jnp.where(under, middle, low), jnp.where(under, high, middle)

    start = jnp.zeros_like(probabilities), jnp.ones_like(probabilities)
    low, high = jax.lax.fori_loop(0, jnp.finfo(probabilities.dtype).nmant + 1, halve, start)
    return (low + high) / 2
