"""Duals of any activation from its expansion in Hermite polynomials."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._checks import require
from dltheory._numerics import safe_sqrt
from dltheory.nngp._angles import magnitude, safe_ratio
from dltheory.nngp._features import features
from dltheory.nngp._orthants import RampProducts, ramp_products, step_products
from dltheory.nngp.covariances import PairCovariance, correlation
from dltheory.nngp.dual import Dual
from dltheory.typing import Array

__all__ = ["SeriesError", "hermite_coefficients", "polynomial_dual", "series_dual", "series_error"]

_RADIUS = 12.0  # standard deviations, beyond which a product of two Hermite functions is below machine epsilon
_NODES = 192
_UNROLL = 8


class SeriesError(NamedTuple):
    """Bounds on what a truncated Hermite series leaves out, relative to the whole.

    Attributes:
        kernel: fraction of E phi(u)^2 beyond the series.
        derivative: fraction of E phi'(u)^2 beyond the series.
    """

    kernel: Array
    derivative: Array


def series_dual(
    fn: Callable[[Array], Array], *, num_terms: int = 64, kinks: Sequence[float] = (), num_nodes: int = _NODES
) -> Dual:
    r"""Dual of any activation by its Hermite series (Mehler's formula), linear in the number of terms.

    .. math::
        T &= \sum_k a_k(K_{11}) \, a_k(K_{22}) \, \rho^k, \qquad
        a_k(q) = E_{z \sim \mathcal N(0, 1)} [\phi(\sqrt q z) \, h_k(z)] \\
        \dot T &= \sum_k \dot a_k(K_{11}) \, \dot a_k(K_{22}) \, \rho^k

    with the orthonormal Hermite polynomials h_k; the second line is the series of the derivative. What the truncated
    series lacks at rho = 1 enters as two more terms, an even and an odd one, so that variances are exact.

    Where phi has a kink, coefficients decay slowly. There the ramp :math:`\kappa (x - t)_+` that makes the kink is
    taken out of the truncated tail and its exact dual put in place, by the bivariate normal distribution.

    Args:
        fn: phi, acting entry by entry, differentiable away from its kinks, of moderate growth.
        num_terms: number of terms K, even.
        kinks: where phi is continuous and its slope jumps.
        num_nodes: number of quadrature nodes for the coefficients.

    Returns:
        The dual. Its accuracy depends on the variance: see `series_error`.

    Raises:
        ValueError: if `num_terms` is odd or not positive.

    Statement: nngp.kernel_recursion.  Source: Daniely, Frostig and Singer 2016, Section 4; Mehler 1866.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.5]))
    >>> nngp.series_dual(jnp.sin).kernel(pairs).covariance - nngp.sine_dual().kernel(pairs).covariance < 1e-6
    Array(True, dtype=bool)
    """
    require(num_terms > 0 and num_terms % 2 == 0, "`num_terms` must be positive and even")
    kinks = tuple(float(kink) for kink in kinks)
    places = sorted({abs(kink) for kink in kinks})

    def slope(x: Array) -> Array:
        return jax.jvp(fn, (x,), (jnp.ones_like(x),))[1]

    def jump(kink: float, dtype) -> Array:
        """Jump of the slope, to second order in the distance from which it is seen."""
        if kink not in kinks:
            return jnp.zeros((), dtype)
        offsets = jnp.asarray([1e-3, -1e-3, 2e-3, -2e-3], dtype)
        return slope(kink + offsets) @ jnp.asarray([2, -2, -1, 1], dtype)

    def ramp_weights(dtype) -> list[tuple[Array, Array]]:
        """For every place t, the squared weights of the even and of the odd ramp that start at +-t."""
        jumps = [(jump(t, dtype), jump(-t, dtype) if t else jnp.zeros((), dtype)) for t in places]
        return [((right + left) ** 2 / 4, (right - left) ** 2 / 4) for right, left in jumps]

    def streams(base: Callable, even: Callable, odd: Callable, pairs: PairCovariance):
        """Coefficients of the function, then those of its ramps, whose truncated tails are taken out."""
        functions = [base]
        weights: list = [1.0]
        for t, squares in zip(places, ramp_weights(pairs.covariance.dtype), strict=True):
            functions += [functools.partial(even, t), functools.partial(odd, t)]
            weights += [-square for square in squares]

        def expand(q: Array) -> list[Array]:
            return [_coefficients(function, q, num_terms, kinks, num_nodes) for function in functions]

        return expand(pairs.variance1), expand(pairs.variance2), weights

    def kernel(pairs: PairCovariance) -> PairCovariance:
        first, second, weights = streams(fn, _even_ramp, _odd_ramp, pairs)
        corrections = [ramp_products(pairs, t) for t in places]
        squares = ramp_weights(pairs.covariance.dtype)
        return _mehler_kernel(first, second, weights, list(zip(squares, corrections, strict=True)), pairs)

    def derivative(pairs: PairCovariance) -> Array:
        first, second, weights = streams(slope, _odd_step, _even_step, pairs)
        rho = correlation(pairs)
        value = _mehler_sum(first, second, weights, rho)
        for t, (even, odd) in zip(places, ramp_weights(rho.dtype), strict=True):
            of_even, of_odd = step_products(pairs, t)
            value = value + even * jnp.where(rho >= 0, of_even, -of_even) + odd * of_odd
        return value

    return Dual(kernel, derivative)


def polynomial_dual(coefficients: Sequence[float]) -> Dual:
    r"""Dual of a polynomial, exact: its Hermite series ends.

    .. math:: \phi(x) = \sum_k c_k x^k, \qquad T = \sum_l r_l(K_{11}) \, r_l(K_{22}) \, \rho^l, \qquad
              r_l(q) = \sum_i \frac{(2 i + l)!}{2^i \, i! \, \sqrt{l!}} \, c_{2i + l} \, q^{(2i + l)/2}

    Args:
        coefficients: c_0, c_1, ..., numbers.

    Returns:
        The dual.

    Raises:
        ValueError: if there are no coefficients.

    Statement: nngp.arccos_recursion.  Source: Daniely, Frostig and Singer 2016, Section 4.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.5]))
    >>> nngp.polynomial_dual([0.0, 0.0, 1.0]).kernel(pairs).covariance  # E u^2 v^2 = 1 + 2 rho^2
    Array(1.5, dtype=float32)
    """
    require(len(coefficients) > 0, "`coefficients` must not be empty")
    slopes = [k * c for k, c in enumerate(coefficients)][1:] or [0.0]

    def kernel(pairs: PairCovariance) -> PairCovariance:
        first, second = (_polynomial_series(coefficients, q) for q in (pairs.variance1, pairs.variance2))
        return _mehler_kernel([first], [second], [1.0], [], pairs)

    def derivative(pairs: PairCovariance) -> Array:
        first, second = (_polynomial_series(slopes, q) for q in (pairs.variance1, pairs.variance2))
        return _mehler_sum([first], [second], [1.0], correlation(pairs))

    return Dual(kernel, derivative)


def hermite_coefficients(
    fn: Callable[[Array], Array],
    variance: Array,
    *,
    num_terms: int = 64,
    kinks: Sequence[float] = (),
    num_nodes: int = _NODES,
) -> Array:
    r"""Coefficients of an activation in orthonormal Hermite polynomials.

    .. math:: a_k(q) = E_{z \sim \mathcal N(0, 1)} [\phi(\sqrt q z) \, h_k(z)], \qquad
              \sum_{k=0}^\infty a_k(q)^2 = E \phi(\sqrt q z)^2

    By Gauss-Legendre quadrature on the intervals between zero, the kinks and their mirror images.

    Args:
        fn: phi, acting entry by entry, of moderate growth.
        variance: q, any shape.
        num_terms: number of coefficients K, even.
        kinks: where phi is not smooth.
        num_nodes: number of quadrature nodes.

    Returns:
        Coefficients, shape [K, ...].

    Raises:
        ValueError: if `num_terms` is odd or not positive.

    Statement: nngp.kernel_recursion.  Source: Daniely, Frostig and Singer 2016, Section 4.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.hermite_coefficients(lambda x: x**3, jnp.array(1.0), num_terms=4).round()  # 3 and the root of 6
    Array([0., 3., 0., 2.], dtype=float32)
    """
    require(num_terms > 0 and num_terms % 2 == 0, "`num_terms` must be positive and even")
    return _coefficients(fn, jnp.asarray(variance), num_terms, tuple(kinks), num_nodes)[:num_terms]


def series_error(
    fn: Callable[[Array], Array],
    variance: Array,
    *,
    num_terms: int = 64,
    kinks: Sequence[float] = (),
    num_nodes: int = _NODES,
) -> SeriesError:
    r"""What a truncated Hermite series leaves out at worst, which is at equal inputs.

    .. math:: 1 - \frac{\sum_{k < K} a_k(q)^2}{E \phi(\sqrt q z)^2}

    At correlation rho the part left out is smaller by :math:`|\rho|^K` or more. `series_dual` makes up for most of it,
    so that this is a bound on its error.

    Args:
        fn: phi, acting entry by entry, of moderate growth.
        variance: q, any shape.
        num_terms: number of terms K, even.
        kinks: where phi is not smooth.
        num_nodes: number of quadrature nodes.

    Returns:
        Fractions for phi and for its derivative, shape of `variance`; rounding limits them from below.

    Raises:
        ValueError: if `num_terms` is odd or not positive.

    Statement: nngp.kernel_recursion.  Source: Daniely, Frostig and Singer 2016, Section 4.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.series_error(jnp.tanh, jnp.array(1.0)).kernel < 1e-6
    Array(True, dtype=bool)
    """
    require(num_terms > 0 and num_terms % 2 == 0, "`num_terms` must be positive and even")

    def fraction(function: Callable[[Array], Array]) -> Array:
        squares = _coefficients(function, jnp.asarray(variance), num_terms, tuple(kinks), num_nodes) ** 2
        return safe_ratio(jnp.sum(squares[num_terms:], axis=0), jnp.sum(squares, axis=0))

    return SeriesError(
        kernel=fraction(fn), derivative=fraction(lambda x: jax.jvp(fn, (x,), (jnp.ones_like(x),))[1])
    )


def _coefficients(
    fn: Callable[[Array], Array], q: Array, num_terms: int, kinks: tuple[float, ...], num_nodes: int
) -> Array:
    """Coefficients [K + 2, ...]; the last two are the roots of what even and odd terms beyond K add to E phi^2."""
    shape, q = q.shape, q.reshape(-1, 1)  # without axes of size 1 in between, which cost time to compile
    nodes, weights = _panels(q, kinks, num_nodes)
    root = safe_sqrt(q)
    right, left = fn(root * nodes), fn(-root * nodes)
    even, odd = (right + left) / 2, (right - left) / 2
    # Hermite functions h_k(z) exp(-z^2/4) stay of order one; the other half of the density weighs the nodes.
    envelope = jnp.exp(-(nodes**2) / 4) / (2 * jnp.pi) ** 0.25
    weights = 2 * weights * envelope
    degrees = jnp.arange(num_terms // 2, dtype=q.dtype)

    def pair_of_terms(carry, j):
        """Hermite functions 2j - 1 and 2j -> two coefficients, and the next two functions."""
        before, now = carry
        following = (nodes * now - jnp.sqrt(2 * j) * before) / jnp.sqrt(2 * j + 1)
        next_even = (nodes * following - jnp.sqrt(2 * j + 1) * now) / jnp.sqrt(2 * j + 2)
        terms = jnp.sum(weights * even * now, axis=-1), jnp.sum(weights * odd * following, axis=-1)
        return (following, next_even), jnp.stack(terms)

    start = (jnp.zeros_like(envelope), envelope)
    _, terms = jax.lax.scan(pair_of_terms, start, degrees)
    totals = jnp.stack([jnp.sum(weights * envelope * part**2, axis=-1) for part in (even, odd)])
    tails = safe_sqrt(totals - jnp.sum(terms**2, axis=0))
    return jnp.concatenate([terms, tails[None]]).reshape(num_terms + 2, *shape)


def _panels(q: Array, kinks: tuple[float, ...], num_nodes: int) -> tuple[Array, Array]:
    """Nodes and weights of Gauss-Legendre rules between 0, the mirrored kinks and the radius, in units of sqrt(q)."""
    places = sorted({abs(kink) for kink in kinks} - {0.0})
    points, weights = np.polynomial.legendre.leggauss(num_nodes // (2 * (len(places) + 1)))
    points, weights = (jnp.asarray(rule, q.dtype).reshape((1,) * (q.ndim - 1) + (-1,)) for rule in (points, weights))
    positive = q > 0
    inverse = jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, q, 1.0)), jnp.inf)
    edges = [jnp.zeros_like(q), *(jnp.minimum(place * inverse, _RADIUS) for place in places)]
    edges.append(jnp.full_like(q, _RADIUS))
    half = [(high - low) / 2 for low, high in itertools.pairwise(edges)]
    nodes = [low + h * (1 + points) for low, h in zip(edges[:-1], half, strict=True)]
    return jnp.concatenate(nodes, axis=-1), jnp.concatenate([h * weights for h in half], axis=-1)


def _polynomial_series(coefficients: Sequence[float], q: Array) -> Array:
    """Hermite coefficients of a polynomial, as many as it needs and two zeros."""
    size = len(coefficients) + len(coefficients) % 2
    root, total = safe_sqrt(q), [jnp.zeros_like(q)] * (size + 2)
    for power, coefficient in enumerate(coefficients):
        for order in range(power % 2, power + 1, 2):
            i = (power - order) // 2
            factor = math.factorial(power) / (2**i * math.factorial(i) * math.sqrt(math.factorial(order)))
            total[order] = total[order] + coefficient * factor * root**power
    return jnp.stack(total)


def _mehler_kernel(
    first: list[Array],
    second: list[Array],
    weights: list,
    ramps: list[tuple[tuple[Array, Array], RampProducts]],
    pairs: PairCovariance,
) -> PairCovariance:
    r"""Second moments with the products c_k of coefficients: the sum of c_k rho^k, and what it lacks of |a| |b|.

    The lack is added up from non-negative terms: :math:`\|a\| \|b\| - \sum_k c_k |\rho|^k` is half the squared distance
    of the unit vectors a/|a| and b/|b|, times the norms, and :math:`\sum_k c_k (1 - |\rho|^k)`.
    """
    variance1, variance2 = (jnp.sum(stream[0] ** 2, axis=0) for stream in (first, second))
    norm1, norm2 = safe_sqrt(variance1), safe_sqrt(variance2)
    rho = correlation(pairs)
    size = magnitude(rho)
    square, rest = 1 - pairs.residual, pairs.residual
    zero = jnp.zeros_like(rho)

    def two_terms(carry, terms):
        (even, even_lack), (odd, odd_lack), distance = carry
        a, b = terms
        c = [sum(w * x[i] * y[i] for w, x, y in zip(weights, a, b, strict=True)) for i in (0, 1)]
        # The lack of sum_j c_j y^j is (1 - y) times the sum over i of y^i (c_(i+1) + c_(i+2) + ...).
        even_lack, odd_lack = even_lack * square + even, odd_lack * square + odd
        unit = [safe_ratio(a[0][i], norm1) - safe_ratio(b[0][i], norm2) for i in (0, 1)]
        return ((even + c[0], even_lack), (odd + c[1], odd_lack), distance + unit[0] ** 2 + unit[1] ** 2), None

    carry = ((zero, zero), (zero, zero), zero)
    carry, _ = jax.lax.scan(two_terms, carry, (_paired(first), _paired(second)), reverse=True, unroll=_UNROLL)
    (even, even_lack), (odd, odd_lack), distance = carry
    even_lack, odd_lack = rest * even_lack, rest * odd_lack
    even_value, odd_value = even - even_lack, size * (odd - odd_lack)
    even_loss, odd_loss = even_lack, size * odd_lack + odd * rest / (1 + size)
    # The tails of ramps off centre point in different directions for different variances: their norms say too little.
    q1, q2 = pairs.variance1, pairs.variance2
    overlap, unlike = zero, jnp.abs(q1 - q2) > 3e-3 * jnp.minimum(q1, q2)
    for j, ((on_even, on_odd), products) in enumerate(ramps):
        for i, weight in ((2 * j + 1, on_even), (2 * j + 2, on_odd)):
            tails = jnp.sum(first[i] * second[i], axis=0) - products.aligned
            overlap = overlap + weight * jnp.where(unlike, jnp.maximum(tails, 0.0), 0.0)
        even_value, odd_value = even_value + on_even * products.even, odd_value + on_odd * products.odd
        even_loss, odd_loss = even_loss + on_even * products.even_loss, odd_loss + on_odd * products.odd_loss
    value = even_value + jnp.where(rho >= 0, odd_value, -odd_value)
    loss = norm1 * norm2 * distance / 2 + overlap + even_loss + odd_loss
    # What is lost is up to |E + O|, or |E - O| at negative correlation, instead of E + O.
    loss = loss + 2 * jnp.where(
        rho >= 0, jnp.minimum(even_value + odd_value, 0.0), jnp.minimum(even_value, odd_value)
    )
    plain = norm1 * norm2 - jnp.abs(value)  # as good where it is not small, and exact where the loss is an estimate
    loss = jnp.where(plain > 0.1 * norm1 * norm2, plain, loss)
    gap = jnp.clip(safe_ratio(loss, norm1 * norm2, 1.0), 0.0, 1.0)
    return features(variance1, variance2, value, gap)


def _mehler_sum(first: list[Array], second: list[Array], weights: list, rho: Array) -> Array:
    def two_terms(total, terms):
        a, b = terms
        c = [sum(w * x[i] * y[i] for w, x, y in zip(weights, a, b, strict=True)) for i in (0, 1)]
        return (total * rho + c[1]) * rho + c[0], None

    terms = _paired(first), _paired(second)
    total, _ = jax.lax.scan(two_terms, jnp.zeros_like(rho), terms, reverse=True, unroll=_UNROLL)
    return total


def _paired(streams: list[Array]) -> list[Array]:
    """Even and odd terms side by side: [K, ...] -> [K/2, 2, ...]."""
    return [stream.reshape(-1, 2, *stream.shape[1:]) for stream in streams]


def _even_ramp(t: float, x: Array) -> Array:
    return jnp.maximum(jnp.abs(x) - t, 0.0)


def _odd_ramp(t: float, x: Array) -> Array:
    return jnp.maximum(x - t, 0.0) - jnp.maximum(-x - t, 0.0)


def _odd_step(t: float, x: Array) -> Array:
    return jnp.where(jnp.abs(x) > t, jnp.sign(x), 0.0)


def _even_step(t: float, x: Array) -> Array:
    return jnp.where(jnp.abs(x) > t, jnp.ones_like(x), 0.0)
