"""Duals of smooth activations with a closed form: erf, GELU, sines, exponentials, Gaussians."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from dltheory._numerics import safe_sqrt
from dltheory.nngp._angles import angle, magnitude, safe_ratio
from dltheory.nngp._features import threshold
from dltheory.nngp.covariances import (
    PairCovariance,
    correlation,
    correlation_gap,
    half_squared_distance,
    pair_covariance,
    require_broadcast,
)
from dltheory.nngp.dual import Dual, smooth_dual
from dltheory.typing import Array, ArrayLike

__all__ = [
    "erf_dual",
    "erf_kernel",
    "exponential_dual",
    "gabor_dual",
    "gaussian_dual",
    "gelu_dual",
    "normalized_exponential_dual",
    "rbf_dual",
    "sigmoid_like_dual",
    "sine_dual",
]


def erf_kernel(k11: Array, k12: Array, k22: Array) -> Array:
    r"""Mean product of the error functions of two jointly Gaussian variables.

    .. math:: E[\operatorname{erf}(u) \operatorname{erf}(v)] =
              \frac2\pi \arcsin \frac{2 k_{12}}{\sqrt{(1 + 2 k_{11})(1 + 2 k_{22})}}

    Args:
        k11, k12, k22: variance of u, covariance, variance of v; shapes that broadcast, of the same rank.

    Returns:
        Mean products, of the broadcast shape. Correlations beyond +-1 are clipped.

    Raises:
        ValueError: if the shapes do not broadcast.

    Statement: nngp.arccos_recursion.  Source: Williams 1997, equation 11.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.erf_kernel(*jnp.array([0.5, 0.5, 0.5])).round(6)
    Array(0.333333, dtype=float32)
    """
    require_broadcast(k11=k11, k12=k12, k22=k22)
    return erf_dual().kernel(pair_covariance(k11, k22, k12)).covariance


def erf_dual(amplitude: ArrayLike = 1.0, rate: ArrayLike = 1.0, offset: ArrayLike = 0.0) -> Dual:
    r"""Dual of an error function.

    .. math::
        \phi(x) &= a \operatorname{erf}(b x) + c, \qquad
        D = (1 + 2 b^2 K_{11})(1 + 2 b^2 K_{22}) - 4 b^4 K_{12}^2 \\
        T &= \frac{2 a^2}{\pi} \arctan \frac{2 b^2 K_{12}}{\sqrt D} + c^2, \qquad
        \dot T = \frac{4 a^2 b^2}{\pi \sqrt D}

    Args:
        amplitude: a, shape [].
        rate: b, shape [].
        offset: c, shape [].

    Returns:
        The dual.

    Statement: nngp.arccos_recursion.  Source: Williams 1997, equation 11.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.erf_dual().derivative(nngp.pair_covariance(*jnp.array([0.0, 0.0, 0.0]))) * jnp.pi
    Array(4., dtype=float32)
    """

    def scaled(q: Array) -> Array:
        return jnp.square(rate) * q

    odd = _is_zero(offset)

    def arcsines(pairs: PairCovariance) -> _Arcsines:
        folded = pairs._replace(covariance=magnitude(pairs.covariance)) if odd else pairs
        return _arcsines(folded, 2 * jnp.square(rate))

    def variance(q: Array) -> Array:
        return 2 / jnp.pi * jnp.square(amplitude) * _own_arcsine(2 * scaled(q)) + jnp.square(offset)

    def product(pairs: PairCovariance) -> Array:
        cross = arcsines(pairs).cross
        cross = jnp.where(pairs.covariance >= 0, cross, -cross) if odd else cross
        return 2 / jnp.pi * jnp.square(amplitude) * cross + jnp.square(offset)

    def distance(pairs: PairCovariance) -> Array:
        return 2 / jnp.pi * jnp.square(amplitude) * _arcsine_gap(pairs, arcsines(pairs), 2 * jnp.square(rate))

    def derivative(pairs: PairCovariance) -> Array:
        return 4 / jnp.pi * jnp.square(amplitude) * jnp.square(rate) / arcsines(pairs).root

    return smooth_dual(variance, product, derivative, parity=-1 if odd else 0, distance=distance)


def sigmoid_like_dual() -> Dual:
    r"""Dual of the error function nearest to the logistic sigmoid.

    .. math:: \phi(x) = \tfrac12 \operatorname{erf}\left( \frac{x}{2.4020563531719796} \right) + \tfrac12

    It differs from the sigmoid by at most 0.017.

    Returns:
        The dual.

    Statement: nngp.arccos_recursion.  Source: Williams 1997, equation 11.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> pairs = nngp.pair_covariance(*jnp.array([0.0, 0.0, 0.0]))
    >>> nngp.sigmoid_like_dual().kernel(pairs).covariance
    Array(0.25, dtype=float32)
    """
    return erf_dual(0.5, 1 / 2.4020563531719796, 0.5)


def gelu_dual() -> Dual:
    r"""Dual of the exact Gaussian error linear unit.

    .. math::
        \phi(x) &= x \, \Phi(x), \qquad h = (1 + K_{11})(1 + K_{22}), \quad \delta^2 = h - K_{12}^2 \\
        T &= \frac{K_{12}}{4} + \frac{1}{2 \pi} \left[ \frac{K_{12}^2 + K_{11} K_{22} \delta^2}{h \, \delta}
             + K_{12} \arctan \frac{K_{12}}{\delta} \right] \\
        \dot T &= \frac14 + \frac{1}{2 \pi} \arctan \frac{K_{12}}{\delta} + \frac{K_{12}}{2 \pi \delta}
             \left[ \frac{1}{\delta^2} + \frac{1 - K_{11} K_{22}}{h} + 1 \right]

    Returns:
        The dual.

    Statement: nngp.arccos_recursion.  Source: Tsuchida, Pearce, van der Heide, Roosta and Gallagher 2021, Section 3.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.gelu_dual().derivative(nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.0])))
    Array(0.25, dtype=float32)
    """

    def variance(q: Array) -> Array:
        root = jnp.sqrt(1 + 2 * q)
        return q * (0.25 + (q / ((1 + q) * root) + _own_arcsine(q) / 2) / jnp.pi)

    def product(pairs: PairCovariance) -> Array:
        arcsines, c = _arcsines(pairs, 1.0), pairs.covariance
        sines = arcsines.sine1 * arcsines.sine2
        rational = arcsines.sine**2 / arcsines.root + sines * arcsines.root
        return c / 4 + (rational + c * arcsines.cross) / (2 * jnp.pi)

    def derivative(pairs: PairCovariance) -> Array:
        arcsines = _arcsines(pairs, 1.0)
        inverse = 1 / arcsines.root
        # (1 - q1 q2) / h + 1 = (2 + q1 + q2) / h = 1 / (1 + q1) + 1 / (1 + q2)
        bracket = inverse**2 + 1 / (1 + pairs.variance1) + 1 / (1 + pairs.variance2)
        return 0.25 + (arcsines.cross + pairs.covariance * inverse * bracket) / (2 * jnp.pi)

    def distance(pairs: PairCovariance) -> Array:
        # Every difference of means and geometric means, written as a sum of what makes it positive.
        q1, q2, c, residual = pairs
        arcsines = _arcsines(pairs, 1.0)
        own1, own2, delta = arcsines.own1, arcsines.own2, arcsines.root
        scale = safe_sqrt(q1) * safe_sqrt(q2)
        apart = (safe_sqrt(q1) - safe_sqrt(q2)) ** 2 / 2 + scale * residual * safe_ratio(scale, scale + magnitude(c))
        turned = (q1 - q2) * (own1 - own2) / 4 + apart * (own1 + own2) / 2 + c * _arcsine_gap(pairs, arcsines, 1.0)
        root1, root2 = jnp.sqrt(1 + 2 * q1), jnp.sqrt(1 + 2 * q2)
        inverse1, inverse2 = 1 / root1, 1 / root2
        mean, wide = (root1 + root2) / 2, (root1 - root2) ** 2 / 4
        excess = (wide + q1 * q2 * residual) / (delta + mean)  # delta - mean
        sums1, sums2 = root1 + inverse1, root2 + inverse2
        sine1, sine2, inverse = arcsines.sine1, arcsines.sine2, 1 / delta
        rational = (sine1 - sine2) ** 2 / 4 * (sums1 + sums2)
        rational = rational + (sine1 - sine2) * (sine1 + sine2) * (sums1 - sums2) / 4
        inner = residual * inverse - excess + (mean * excess + wide) * (inverse1 * inverse2) * inverse
        return apart / 4 + (rational + sine1 * sine2 * inner + turned) / (2 * jnp.pi)

    return smooth_dual(variance, product, derivative, distance=distance)


def sine_dual(amplitude: ArrayLike = 1.0, frequency: ArrayLike = 1.0, phase: ArrayLike = 0.0) -> Dual:
    r"""Dual of a sine wave; the phase pi/2 makes it a cosine.

    .. math::
        \phi(x) &= a \sin(b x + c) \\
        T &= \frac{a^2}{2} \left[ e^{-b^2 (K_{11} + K_{22} - 2 K_{12}) / 2}
             - e^{-b^2 (K_{11} + K_{22} + 2 K_{12}) / 2} \cos 2c \right] \\
        \dot T &= \frac{a^2 b^2}{2} \left[ e^{-b^2 (K_{11} + K_{22} - 2 K_{12}) / 2}
             + e^{-b^2 (K_{11} + K_{22} + 2 K_{12}) / 2} \cos 2c \right]

    Args:
        amplitude: a, shape [].
        frequency: b, shape [].
        phase: c, shape [].

    Returns:
        The dual.

    Statement: nngp.arccos_recursion.  Source: Louart, Liao and Couillet 2018, Table 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.0]))
    >>> nngp.sine_dual(phase=jnp.pi / 2).derivative(pairs)
    Array(0., dtype=float32)
    """

    def scaled(q: Array) -> Array:
        return jnp.square(frequency) * q

    def even() -> Array:  # 1 - cos(2c): 0 for a sine, 2 for a cosine
        return 2 * jnp.square(jnp.sin(phase))

    def exponents(pairs: PairCovariance) -> tuple[Array, Array]:
        opposite = pairs._replace(covariance=-pairs.covariance)
        return -scaled(half_squared_distance(pairs)), -scaled(half_squared_distance(opposite))

    def variance(q: Array) -> Array:
        decay = -2 * scaled(q)
        return jnp.square(amplitude) / 2 * (even() * jnp.exp(decay) - jnp.expm1(decay))

    def product(pairs: PairCovariance) -> Array:
        minus, plus = exponents(pairs)
        odd = jnp.exp(jnp.maximum(minus, plus)) * -jnp.expm1(-2 * scaled(magnitude(pairs.covariance)))
        odd = jnp.where(pairs.covariance >= 0, odd, -odd)  # e^minus - e^plus
        return jnp.square(amplitude) / 2 * (odd + even() * jnp.exp(plus))

    def derivative(pairs: PairCovariance) -> Array:
        minus, plus = exponents(pairs)
        return jnp.square(amplitude) / 2 * scaled(jnp.exp(minus) + (1 - even()) * jnp.exp(plus))

    return smooth_dual(variance, product, derivative, parity=-1 if _is_zero(phase) else 0)


def rbf_dual(gamma: ArrayLike = 1.0) -> Dual:
    r"""Dual of the wave whose random features have the Gaussian (radial basis function) kernel.

    .. math:: \phi(x) = \sqrt2 \sin\left( \sqrt{2 \gamma} \, x + \frac\pi4 \right), \qquad
              T = e^{-\gamma (K_{11} + K_{22} - 2 K_{12})}, \qquad \dot T = 2 \gamma T

    Args:
        gamma: inverse squared length, shape [].

    Returns:
        The dual.

    Statement: nngp.arccos_recursion.  Source: Rahimi and Recht 2007, Section 3.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.rbf_dual(0.5).derivative(nngp.pair_covariance(*jnp.array([1.0, 1.0, 1.0])))
    Array(1., dtype=float32)
    """

    def exponent(pairs: PairCovariance) -> Array:
        return -2 * jnp.multiply(gamma, half_squared_distance(pairs))

    def kernel(pairs: PairCovariance) -> PairCovariance:
        first, second = (jnp.ones_like(q) for q in (pairs.variance1, pairs.variance2))
        return PairCovariance(first, second, jnp.exp(exponent(pairs)), -jnp.expm1(2 * exponent(pairs)))

    def derivative(pairs: PairCovariance) -> Array:
        return 2 * jnp.multiply(gamma, jnp.exp(exponent(pairs)))

    return Dual(kernel, derivative)


def exponential_dual(amplitude: ArrayLike = 1.0, rate: ArrayLike = 1.0) -> Dual:
    r"""Dual of an exponential function.

    .. math:: \phi(x) = a e^{b x}, \qquad T = a^2 e^{b^2 (K_{11} + K_{22} + 2 K_{12}) / 2}, \qquad \dot T = b^2 T

    Args:
        amplitude: a, shape [].
        rate: b, shape [].

    Returns:
        The dual.

    Statement: nngp.arccos_recursion.  Source: Daniely, Frostig and Singer 2016, Table 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.exponential_dual().derivative(nngp.pair_covariance(*jnp.array([0.0, 0.0, 0.0])))
    Array(1., dtype=float32)
    """

    def scaled(q: Array) -> Array:
        return jnp.square(rate) * q

    def kernel(pairs: PairCovariance) -> PairCovariance:
        q1, q2 = pairs.variance1, pairs.variance2
        value = jnp.square(amplitude) * jnp.exp(scaled((q1 + q2) / 2 + pairs.covariance))
        first, second = (jnp.square(amplitude) * jnp.exp(2 * scaled(q)) for q in (q1, q2))
        return PairCovariance(first, second, value, -jnp.expm1(-2 * scaled(half_squared_distance(pairs))))

    def derivative(pairs: PairCovariance) -> Array:
        return scaled(kernel(pairs).covariance)

    return Dual(kernel, derivative)


def normalized_exponential_dual(gamma: ArrayLike = 1.0, shift: ArrayLike = -1.0) -> Dual:
    r"""The exponential kernel of the cosine, homogeneous of degree 1: a kernel without an activation of its own.

    .. math:: T = \sqrt{K_{11} K_{22}} \, e^{\gamma (\rho + s)}, \qquad \dot T = \gamma e^{\gamma (\rho + s)}

    Args:
        gamma: sharpness, non-negative, shape [].
        shift: s, shape []; -1 keeps variances.

    Returns:
        The dual.

    Statement: nngp.arccos_recursion.  Source: Shankar et al. 2020, Section 3.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 4.0, 2.0]))
    >>> nngp.normalized_exponential_dual().kernel(pairs).covariance
    Array(2., dtype=float32)
    """

    def kernel(pairs: PairCovariance) -> PairCovariance:
        peak = jnp.exp(jnp.multiply(gamma, jnp.add(1, shift)))
        scale = safe_sqrt(pairs.variance1) * safe_sqrt(pairs.variance2)
        exponent = jnp.multiply(gamma, correlation_gap(pairs))
        value = scale * peak * jnp.exp(-exponent)
        return PairCovariance(peak * pairs.variance1, peak * pairs.variance2, value, -jnp.expm1(-2 * exponent))

    def derivative(pairs: PairCovariance) -> Array:
        return jnp.multiply(gamma, jnp.exp(jnp.multiply(gamma, jnp.add(correlation(pairs), shift))))

    return Dual(kernel, derivative)


def gaussian_dual(amplitude: ArrayLike = 1.0, rate: ArrayLike = -1.0) -> Dual:
    r"""Dual of a Gaussian bump.

    .. math::
        \phi(x) &= a e^{b x^2}, \qquad G = (1 - 2 b K_{11})(1 - 2 b K_{22}) - 4 b^2 K_{12}^2 \\
        T &= \frac{a^2}{\sqrt G}, \qquad \dot T = \frac{4 a^2 b^2 K_{12}}{G^{3/2}}

    Args:
        amplitude: a, shape [].
        rate: b, negative, shape [].

    Returns:
        The dual; NaN or infinite where b is positive and the mean does not exist.

    Statement: nngp.arccos_recursion.  Source: Williams 1997, Section 3.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 1.0]))
    >>> nngp.gaussian_dual(rate=-2.0).kernel(pairs).variance1
    Array(0.33333334, dtype=float32)
    """

    def determinant(pairs: PairCovariance) -> Array:
        q1, q2 = jnp.multiply(rate, pairs.variance1), jnp.multiply(rate, pairs.variance2)
        return 1 - 2 * (q1 + q2) + 4 * (q1 * q2) * pairs.residual

    def variance(q: Array) -> Array:
        return jnp.square(amplitude) / jnp.sqrt(1 - 4 * jnp.multiply(rate, q))

    def product(pairs: PairCovariance) -> Array:
        return jnp.square(amplitude) / jnp.sqrt(determinant(pairs))

    def derivative(pairs: PairCovariance) -> Array:
        return 4 * jnp.square(jnp.multiply(amplitude, rate)) * pairs.covariance / determinant(pairs) ** 1.5

    return smooth_dual(variance, product, derivative, parity=1)


def gabor_dual() -> Dual:
    r"""Dual of a wave packet.

    .. math::
        \phi(x) &= e^{-x^2} \sin x, \qquad s = K_{11} + K_{22}, \quad D = 4 (K_{11} K_{22} - K_{12}^2), \quad
        d = 1 + 2 s + D \\
        T &= \frac{e^{-(s + D + 2 K_{12}) / 2d}}{2 \sqrt d} \left( e^{2 K_{12} / d} - 1 \right)

    Returns:
        The dual.

    Statement: nngp.arccos_recursion.  Source: Simon, Anand and DeWeese 2022, Appendix.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.gabor_dual().derivative(nngp.pair_covariance(*jnp.array([0.0, 0.0, 0.0])))
    Array(1., dtype=float32)
    """

    def parts(pairs: PairCovariance) -> tuple[Array, Array, Array, Array]:
        total = pairs.variance1 + pairs.variance2
        determinant = 4 * (pairs.variance1 * pairs.variance2) * pairs.residual
        d = 1 + 2 * total + determinant
        return total, determinant, d, jnp.exp(-(total + determinant + 2 * pairs.covariance) / (2 * d))

    def variance(q: Array) -> Array:
        d = 1 + 4 * q
        return -jnp.expm1(-2 * q / d) / (2 * jnp.sqrt(d))

    def product(pairs: PairCovariance) -> Array:
        _, _, d, envelope = parts(pairs)
        return envelope * jnp.expm1(2 * pairs.covariance / d) / (2 * jnp.sqrt(d))

    def derivative(pairs: PairCovariance) -> Array:
        total, determinant, d, envelope = parts(pairs)
        even = 1 + 2 * total + 4 * (pairs.covariance**2 + pairs.variance1 * pairs.variance2)
        odd = 4 * pairs.covariance * (determinant + 3 * total + 2)
        growth = jnp.exp(2 * pairs.covariance / d)
        return envelope / 2 * ((even - odd) + growth * (even + odd)) / d**2.5

    return smooth_dual(variance, product, derivative, parity=-1)


class _Arcsines(NamedTuple):
    """Angles of the arcsine kernel of pairs with second moments b K_11 = p, b K_22 = q and b K_12 = r.

    Attributes:
        sine1, sine2: p / (1 + p) and q / (1 + q).
        own1, own2: the arcsines of these.
        root: the root of h - r^2, where h = (1 + p) (1 + q).
        sine, cosine: r and that root over the root of h.
        cross: the arcsine of the former.
    """

    sine1: Array
    sine2: Array
    own1: Array
    own2: Array
    root: Array
    sine: Array
    cosine: Array
    cross: Array


def _own_arcsine(q: Array) -> Array:
    return angle(q / (1 + q), jnp.sqrt(1 + 2 * q) / (1 + q))


def _arcsines(pairs: PairCovariance, factor: ArrayLike) -> _Arcsines:
    q1, q2, c = (jnp.multiply(factor, x) for x in pairs[:3])
    inverse = 1 / (jnp.sqrt(1 + q1) * jnp.sqrt(1 + q2))
    root = jnp.sqrt(1 + q1 + q2 + q1 * q2 * pairs.residual)
    sine, cosine = c * inverse, root * inverse
    acute = angle(magnitude(sine), cosine)
    cross = jnp.where(sine >= 0, acute, -acute)
    return _Arcsines(q1 / (1 + q1), q2 / (1 + q2), _own_arcsine(q1), _own_arcsine(q2), root, sine, cosine, cross)


def _arcsine_gap(pairs: PairCovariance, arcsines: _Arcsines, factor: ArrayLike) -> Array:
    r"""Mean of the own arcsines A and B less the mixed one C, relatively accurate where that is small.

    .. math:: \tan\left(\tfrac{A + B}{2} - C\right) = \frac{2 X}{\sin(A + B) + \sin 2C}, \qquad
              h X = \tfrac14 (\sqrt{1 + 2p} - \sqrt{1 + 2q})^2 + p q (1 - \rho^2)

    Both follow from :math:`\cos 2C = \cos(A + B) + 2 X`.
    """
    q1, q2 = (jnp.multiply(factor, x) for x in pairs[:2])
    root1, root2 = jnp.sqrt(1 + 2 * q1), jnp.sqrt(1 + 2 * q2)
    inverse1, inverse2 = 1 / (1 + q1), 1 / (1 + q2)
    x = ((root1 - root2) ** 2 / 4 + q1 * q2 * pairs.residual) * inverse1 * inverse2
    both = arcsines.sine1 * (root2 * inverse2) + arcsines.sine2 * (root1 * inverse1)
    tangent = safe_ratio(x, both / 2 + arcsines.sine * arcsines.cosine)
    square = tangent**2
    small = tangent * (1 - square / 3 + square**2 / 5)
    limit = 4 * threshold(tangent)
    plain = (arcsines.own1 + arcsines.own2) / 2 - arcsines.cross
    return jnp.where((arcsines.sine >= 0) & (tangent < limit), small, plain)


def _is_zero(setting: ArrayLike) -> bool:
    return isinstance(setting, int | float) and setting == 0
