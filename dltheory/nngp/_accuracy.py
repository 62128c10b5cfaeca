"""Up to which variance the Hermite series of a function is accurate: measured on the function before it is used."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory.typing import Array

__all__ = ["UNLIMITED", "Accuracy", "measure"]

_LENGTHS = (64, 256, 1024)
_SIZES = 2.0 ** np.arange(-5.0, 7.5, 0.5)  # standard deviations at which a function is tried
_ENOUGH = 4.0  # a variance up to which a series should be accurate, at the price of more terms
_RADIUS = 12.0
_PANELS = 64
_TOLERANCE = 2e-3, 2e-2  # of second moments of the function and of its derivative, relative to the largest
_FINE = 1e-9, 1e-8  # the same where a longer series can take the place of a series
_COARSE = 1e-5, 1e-3  # the same where quadrature can, at a hundred times the price
_LONGER = 1e-6, 1e-3  # the same of the longer series
_OFF_CENTRE = 16.0  # up to which tails of ramps off centre, exact at equal variances alone, are accurate enough
_ORDINARY = 1.0  # up to which variance the series stays anyway, for its speed
_MEAN_TOLERANCE = 1e-2  # of the mean square that a rule for means does not resolve
_LARGEST = 1e150  # whose square is a number
_FLOOR = 1e-3  # of the mean square at variances up to 1: what is smaller needs no accuracy of its own
_CORRELATIONS = 1 - np.geomspace(1e-5, 0.5, 40)


class Accuracy(NamedTuple):
    """How many terms a function needs, and how far they reach.

    Attributes:
        num_terms: number of terms of its series.
        variance: the largest variance at which second moments have errors below 0.2 % (of derivatives: 2 %) of the mean
            square, at any correlation; infinite if no larger one that was tried was too large.
        mean_variance: the same of its mean.
        fine, coarse: the same with errors below 1e-9 (of derivatives: 1e-8), and below 1e-5 (1e-3), at least 1.
        longer: the same of a series of four times as many terms, with errors below 1e-6 (1e-3); `fine` if there is
            none.
    """

    num_terms: int
    variance: float
    mean_variance: float
    fine: float
    coarse: float
    longer: float


UNLIMITED = Accuracy(_LENGTHS[0], np.inf, np.inf, np.inf, np.inf, np.inf)


def measure(
    fn: Callable[[Array], Array], kinks: Sequence[float], jumps: Sequence[float], slope_jumps: Sequence[float]
) -> Accuracy:
    """Compares truncated series of a function and of its derivative with ones that are longer.

    Args:
        fn: the function.
        kinks: where it is not smooth.
        jumps: by how much the value jumps there, which is treated exactly, so that only the rest counts.
        slope_jumps: the same of the slope.

    Returns:
        The shortest series that is accurate up to variance 4, or the next one if its errors are small up to there; else
        the longest.
    """
    nodes, weights = _half_rule()
    dtype = jnp.result_type(float)
    x = _SIZES[:, None] * np.concatenate([-nodes, nodes])
    x = np.asarray(x, dtype).astype(np.float64)

    def both(x: Array) -> tuple[Array, Array]:
        return jax.jvp(fn, (x,), (jnp.ones_like(x),))

    values, slopes = (np.asarray(y, np.float64) for y in jax.jit(both)(jnp.asarray(x, dtype)))
    smooth, smooth_slopes = values.copy(), slopes.copy()
    for kink, jump, slope_jump in zip(kinks, jumps, slope_jumps, strict=True):
        beyond = x > kink
        smooth -= beyond * (jump + slope_jump * (x - kink))
        smooth_slopes -= beyond * slope_jump
    finite = np.all((np.abs(values) < _LARGEST) & (np.abs(slopes) < _LARGEST), axis=-1)  # false for NaN
    values, slopes, smooth, smooth_slopes = (
        np.where(finite[:, None], y, 0.0) for y in (values, slopes, smooth, smooth_slopes)
    )
    density = np.tile(weights * np.exp(-(nodes**2) / 2) / (2 * np.pi) ** 0.5, 2)
    ends = np.tile(nodes, 2) > _RADIUS - 1

    def captured(sizes: np.ndarray) -> np.ndarray:
        """Whether what lies beyond the radius does not count."""
        means = sizes @ density
        least = _FLOOR * np.max(np.where(finite & (_SIZES <= 1), means, 0.0), axis=-1, initial=0.0, keepdims=True)
        return np.all(sizes @ (density * ends) <= 1e-6 * np.maximum(means, least), axis=0) & finite

    squares = np.stack([values, slopes]) ** 2
    usable, usable_mean = captured(squares), captured(np.abs(values)[None])
    totals = squares @ density
    floors = _FLOOR * np.max(np.where(usable & (_SIZES <= 1), totals, 0.0), axis=-1, initial=0.0, keepdims=True)
    scales = np.maximum(np.maximum(totals, floors), 1e-300)
    rest = np.stack([smooth, smooth_slopes])
    right, left = rest[..., len(nodes) :], rest[..., : len(nodes)]
    parts = (right + left) / 2, (right - left) / 2

    def accurate(errors: np.ndarray, tolerance: tuple[float, float]) -> np.ndarray:
        return usable & np.all(errors <= np.array(tolerance)[:, None] * scales, axis=0)

    def described(length: int) -> Accuracy:
        errors, beyond = _truncation(parts, length)
        reach, fine, coarse = (_reach(accurate(errors, tolerance)) for tolerance in (_TOLERANCE, _FINE, _COARSE))
        good_mean = usable_mean & (beyond[0] <= _MEAN_TOLERANCE * scales[0])
        fine, coarse = max(fine, _ORDINARY), max(coarse, _ORDINARY)
        return Accuracy(length, reach, _reach(good_mean), fine, coarse, fine)

    found = UNLIMITED
    for length in _LENGTHS:
        found = described(length)
        if min(found.variance, found.mean_variance) >= _ENOUGH:
            break
    if found.coarse < _ENOUGH and found.num_terms == _LENGTHS[0]:
        longer = described(_LENGTHS[1])
        found = longer if longer.coarse >= _ENOUGH else found
    if 4 * found.num_terms in _LENGTHS:
        errors, _ = _truncation(parts, 4 * found.num_terms)
        found = found._replace(longer=max(_reach(accurate(errors, _LONGER)), found.fine))
    if any(kink and (jump or slope) for kink, jump, slope in zip(kinks, jumps, slope_jumps, strict=True)):
        coarse, longer = min(found.coarse, _OFF_CENTRE), min(found.longer, _OFF_CENTRE)
        found = found._replace(fine=_ORDINARY, coarse=coarse, longer=longer)
    return found


def _truncation(parts: Sequence[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors of series that end with all the rest at their first missing power, and mean squares far beyond the end."""
    _, weights = _half_rule()
    longer = 4 * length
    table = _hermite_functions(longer)
    envelope = table[0]
    powers = np.arange(length, longer)
    error = np.zeros(parts[0].shape[:-1])
    total_beyond = np.zeros_like(error)
    for parity, part in enumerate(parts):
        squares = (2 * (part * (weights * envelope)) @ table[parity::2].T) ** 2
        total = 2 * np.sum(part**2 * (weights * envelope**2), axis=-1)
        beyond = np.maximum(total - np.sum(squares, axis=-1), 0.0)
        late = np.concatenate([squares[..., length // 2 :], beyond[..., None]], axis=-1)
        exponents = np.append(powers[parity::2], 4 * longer)
        lost = _CORRELATIONS[:, None] ** (length + parity) - _CORRELATIONS[:, None] ** exponents
        error += np.max(late @ lost.T, axis=-1)
        total_beyond += beyond
    return error, total_beyond


def _reach(good: np.ndarray) -> float:
    """The largest variance before the first failure."""
    if good.all():
        return np.inf
    first = int(np.argmin(good))
    return float(_SIZES[first - 1] ** 2) if first else 0.0


@functools.cache
def _half_rule() -> tuple[np.ndarray, np.ndarray]:
    points, weights = np.polynomial.legendre.leggauss(16)
    half = _RADIUS / _PANELS / 2
    return (half * (2 * np.arange(_PANELS)[:, None] + 1 + points)).ravel(), np.tile(half * weights, _PANELS)


@functools.cache
def _hermite_functions(count: int) -> np.ndarray:
    """Orthonormal Hermite polynomials times the root of the normal density, [count, nodes]."""
    nodes, _ = _half_rule()
    table = np.empty((count, len(nodes)))
    table[0] = np.exp(-(nodes**2) / 4) / (2 * np.pi) ** 0.25
    table[1] = nodes * table[0]
    for k in range(1, count - 1):
        table[k + 1] = (nodes * table[k] - k**0.5 * table[k - 1]) / (k + 1) ** 0.5
    return table
