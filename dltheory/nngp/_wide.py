r"""Moments of functions of Gaussian pairs of any variance, by quadrature on the scale of the functions.

A function changes on its own scale, however large the variance. What it is far from zero, in smooth form, has moments
in closed form, and the rest has its support near zero, where the rule for it lies:

.. math:: E f(u) g(v) = E A_f(u) A_g(v) + E A_f(u) r_g(v) + E r_f(u) A_g(v) + E r_f(u) r_g(v)

The last term is an integral over u of the mean given u. The two before it are integrals in one dimension, since the
mean of a smooth form given the other variable is known.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

from dltheory._numerics import safe_sqrt
from dltheory.nngp._angles import angle, magnitude, safe_ratio
from dltheory.nngp._panels import density, integral, over_panels, radius
from dltheory.nngp._profiles import Profile, derivative, profile, times_derivative
from dltheory.nngp.covariances import PairCovariance, correlation
from dltheory.typing import Array

__all__ = ["mean", "moment", "own_moment", "own_moments", "price_moment", "radial_slope", "slope"]

_SHIFT = 20.0  # standard deviations from zero beyond which a rule need not become finer towards zero
_FINER = 30.0  # by which panels become narrower towards zero
_AROUND = (-6.0, -2.0, 2.0, 6.0)  # standard deviations around a smoothed kink where panels end


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def moment(f: Profile, g: Profile, pairs: PairCovariance) -> Array:
    """E f(u) g(v), differentiable also where the functions have kinks; NaN where a variance is too large."""
    pairs = PairCovariance(*jnp.broadcast_arrays(*pairs))
    p, q = _scaled(f, pairs.variance1), _scaled(g, pairs.variance2)
    r, residual = pairs.covariance / (f.width * g.width), pairs.residual
    narrow = _is_narrow(f, p), _is_narrow(g, q)  # then there is no need to take anything out, which would cost digits
    value = jnp.where(narrow[0] | narrow[1], 0.0, _far_product(f, g, p, q, r, residual))
    if f is g:  # both ways at once
        both = (jnp.stack(x) for x in ((p, q), (q, p), (r, r), (residual, residual), narrow[::-1]))
        mixed = _mixed(f, f, *both)
    else:
        mixed = (
            _mixed(f, g, p, q, r, residual, narrow[1]),
            _mixed(g, f, q, p, r, residual, narrow[0]),
        )
    value = value + jnp.where(narrow[0], 0.0, mixed[0]) + jnp.where(narrow[1], 0.0, mixed[1])
    return value + _near_product(f, g, p, q, r, residual, narrow)


@moment.defjvp
def _moment_jvp(f: Profile, g: Profile, primals, tangents):
    (pairs,), (dots,) = primals, tangents
    value = moment(f, g, pairs)
    total = sum(change * dot for change, dot in zip(_derivatives(f, g, pairs), dots, strict=False))
    return value, jnp.broadcast_to(total, value.shape)


def _derivatives(f: Profile, g: Profile, pairs: PairCovariance) -> tuple[Array, Array, Array]:
    r"""By both variances and the covariance (Price 1958), with second derivatives integrated by parts.

    .. math:: K_{11} \, E f''(u) g(v) = E u f'(u) g(v) - K_{12} E f'(u) g'(v)
    """
    both = price_moment(f, g, pairs)
    first = _radial_moment(f, g, pairs) - pairs.covariance * both
    second = _radial_moment(g, f, _swapped(pairs)) - pairs.covariance * both
    return safe_ratio(first, 2 * pairs.variance1), safe_ratio(second, 2 * pairs.variance2), both


def price_moment(f: Profile, g: Profile, pairs: PairCovariance) -> Array:
    """The derivative of `moment` by the covariance: E f'(u) g'(v), with what jumps add to it."""
    value = moment(slope(f), slope(g), pairs)
    if any(f.jumps):
        value = value + _at_jumps(f, slope(g), pairs)
    if any(g.jumps):
        value = value + _at_jumps(g, slope(f), _swapped(pairs))
    sine = safe_sqrt(pairs.residual)
    s1, s2 = safe_sqrt(pairs.variance1), safe_sqrt(pairs.variance2)
    for (x, jump), (y, other) in itertools.product(_jumps(f), _jumps(g)):
        across = safe_ratio(_standardized(y, s2) - correlation(pairs) * _standardized(x, s1), sine)
        there = safe_ratio(density(_standardized(x, s1)) * density(across), s1 * s2 * sine)
        value = value + jump * other * there
    return value


def _radial_moment(f: Profile, g: Profile, pairs: PairCovariance) -> Array:
    """E u f'(u) g(v), with what jumps add to it."""
    value = moment(radial_slope(f), g, pairs)
    return value + _at_jumps(f, g, pairs, radial=True) if any(f.jumps) else value


def _at_jumps(f: Profile, g: Profile, pairs: PairCovariance, *, radial: bool = False) -> Array:
    """Sum over jumps of f: the jump (times the place if `radial`), the density of u and the mean of g(v) there."""
    s1, across = safe_sqrt(pairs.variance1), safe_sqrt(pairs.variance2) * safe_sqrt(pairs.residual)
    total = jnp.zeros_like(pairs.covariance)
    for place, jump in _jumps(f):
        there = safe_ratio(density(_standardized(place, s1)), s1)
        given = _conditional_mean(g, safe_ratio(pairs.covariance, pairs.variance1) * place, across)
        total = total + (jump * place if radial else jump) * there * given
    return total


def _jumps(f: Profile) -> list[tuple[float, float]]:
    return [(place, jump) for place, jump in zip(f.kinks, f.jumps, strict=True) if jump]


@functools.cache
def slope(f: Profile) -> Profile:
    """The profile of f'."""
    return profile(derivative(f.fn), f.kinks, f.width)


@functools.cache
def radial_slope(f: Profile) -> Profile:
    """The profile of u f'(u)."""
    return profile(times_derivative(f.fn), f.kinks, f.width)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def own_moment(f: Profile, g: Profile, variance: Array) -> Array:
    """E f(u) g(u) of functions with the same width and kinks, where they do not jump both."""
    return own_moments([(f, g)], variance)[0]


@own_moment.defjvp
def _own_moment_jvp(f: Profile, g: Profile, primals, tangents):
    (variance,), (dot,) = primals, tangents
    change = own_moment(radial_slope(f), g, variance) + own_moment(f, radial_slope(g), variance)
    for one, other in ((f, g), (g, f)):
        change = change + _mean_at_jumps(one, variance, other.fn)
    return own_moment(f, g, variance), safe_ratio(change, 2 * variance) * dot


def own_moments(products: Sequence[tuple[Profile, Profile]], variance: Array) -> list[Array]:
    """E f(u) g(u) of several f and g as of `own_moment` in one loop, not differentiable where they have kinks."""
    p = functools.reduce(jnp.minimum, [_scaled(f, variance) for f in itertools.chain(*products)])
    narrow = [_is_narrow(f, p) & _is_narrow(g, p) for f, g in products]

    def rests(x: Array) -> list[Array]:
        return [
            f.fn(f.width * x) * g.fn(g.width * x) - jnp.where(within, 0.0, f.far(x) * g.far(x))
            for (f, g), within in zip(products, narrow, strict=True)
        ]

    edges = {edge for f in itertools.chain(*products) for edge in f.support(p.dtype).edges}
    near = integral(rests, p, sorted(edges))
    far = [_far_product(f, g, p, p, p, jnp.zeros_like(p)) for f, g in products]
    sums = [jnp.where(n, 0.0, a) + b for n, a, b in zip(narrow, far, near, strict=True)]
    # Exactly, for what is divided by a moment that is as good as 0 is not a number.
    origin = jnp.zeros((), p.dtype)
    return [
        jnp.where(variance == 0, f.fn(origin) * g.fn(origin), value)
        for (f, g), value in zip(products, sums, strict=True)
    ]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def mean(f: Profile, variance: Array) -> Array:
    """E f(u)."""
    p = _scaled(f, variance)
    narrow = _is_narrow(f, p)
    far = jnp.where(narrow, 0.0, f.level + f.bend * p * (2 / jnp.pi) ** 0.5 / jnp.sqrt(1 + p))
    return far + integral(lambda x: f.rest(x, narrow), p, f.support(p.dtype).edges)


@mean.defjvp
def _mean_jvp(f: Profile, primals, tangents):
    (variance,), (dot,) = primals, tangents
    change = mean(radial_slope(f), variance) + _mean_at_jumps(f, variance, jnp.ones_like)
    return mean(f, variance), safe_ratio(change, 2 * variance) * dot


def _mean_at_jumps(f: Profile, variance: Array, other: Callable[[Array], Array]) -> Array:
    """Sum over jumps of f: the jump times the place, the density and another function there."""
    total = jnp.zeros_like(variance)
    for place, jump in _jumps(f):
        size = safe_sqrt(variance)
        there = safe_ratio(density(_standardized(place, size)), size)
        total = total + jump * place * there * other(jnp.full_like(size, place))
    return total


# The smooth forms


def _far_product(f: Profile, g: Profile, p: Array, q: Array, r: Array, residual: Array) -> Array:
    inverse_p, inverse_q = 1 / jnp.sqrt(1 + p), 1 / jnp.sqrt(1 + q)
    step = (2 / jnp.pi) ** 0.5  # slope of erf(x / sqrt 2) at 0
    value = f.level * g.level + f.slope * g.slope * r
    value = value + step * (f.slope * g.step * inverse_q + f.step * g.slope * inverse_p) * r
    value = value + step * (f.level * g.bend * q * inverse_q + f.bend * g.level * p * inverse_p)
    if not (f.step * g.step or f.bend * g.bend):
        return value
    root = jnp.sqrt(1 + p + q + p * q * residual)
    sine, cosine = r * inverse_p * inverse_q, root * inverse_p * inverse_q
    acute = angle(magnitude(sine), cosine)
    arcsine = jnp.where(sine >= 0, acute, -acute)
    rational = sine**2 / root + (p / (1 + p)) * (q / (1 + q)) * root
    return value + 2 / jnp.pi * (f.step * g.step * arcsine + f.bend * g.bend * (rational + r * arcsine))


def _smoothed(f: Profile, x: Array, t: Array) -> Array:
    """Mean of the smooth form of a function of a Gaussian with mean x and standard deviation t."""
    if not (f.step or f.bend):
        return f.level + f.slope * x
    (a, b), (c, d) = f.sides
    inverse = 1 / jnp.sqrt(1 + t**2)
    sign = erf(x * inverse * 0.5**0.5)
    outside = (a + b * x) * ((1 - sign) / 2) + (c + d * x) * ((1 + sign) / 2)
    value = jnp.where(jnp.abs(x) > 2, outside, f.level + f.slope * x + (f.step + f.bend * x) * sign)
    return value + 2 * f.bend * t * (t * inverse) * density(x * inverse)


def _mixed(f: Profile, g: Profile, p: Array, q: Array, r: Array, residual: Array, whole: Array) -> Array:
    """The smooth form of f(u) times the rest (or the whole) of g(v): an integral over v."""
    if not (f.level or f.slope or f.step or f.bend):
        return jnp.zeros_like(r)
    steepness, across = r / q, safe_sqrt(p) * safe_sqrt(residual)
    edges: list[Array | float] = list(g.support(q.dtype).edges)
    if f.step or f.bend:  # which change on a smaller scale than g does, where v follows a much larger u
        scale = jnp.sqrt(1 + across**2) / jnp.maximum(magnitude(steepness), float(jnp.finfo(r.dtype).tiny))
        finest = jnp.minimum(scale, 1.0)
        for power in range(5):
            edges += [sign * 8.0 * finest * _FINER**power for sign in (-1, 1)]
    return integral(lambda y: _smoothed(f, steepness * y, across) * g.rest(y, whole), q, edges)


# The rests


def _near_product(
    f: Profile, g: Profile, p: Array, q: Array, r: Array, residual: Array, whole: tuple[Array, Array]
) -> Array:
    """The rests (or wholes) of f(u) and g(v): an integral over the wider of the two of the other's mean given it."""
    same, swap = f is g, q > p
    wide, narrow = jnp.maximum(p, q), jnp.minimum(p, q)
    steepness, across = r / wide, jnp.sqrt(narrow) * safe_sqrt(residual)
    of_outer, of_inner = jnp.where(swap, whole[1], whole[0]), jnp.where(swap, whole[0], whole[1])

    def outer(x: Array) -> Array:
        return f.rest(x, of_outer) if same else jnp.where(swap, g.rest(x, of_outer), f.rest(x, of_outer))

    def inner(y: Array) -> Array:
        return g.rest(y, of_inner) if same else jnp.where(swap, f.rest(y, of_inner), g.rest(y, of_inner))

    supports = [h.support(r.dtype) for h in (f, g)]
    panels = sorted({edge for support in supports for edge in support.edges})
    cuts = sorted({cut for support in supports for cut in support.cuts})
    deviation = jnp.sqrt(wide)
    half = same and f.parity != 0
    ends = jnp.maximum(-radius(r) * deviation, panels[0]), jnp.minimum(radius(r) * deviation, panels[-1])
    edges: list[Array | float] = [edge for edge in panels if edge >= 0 or not half]
    if cuts:
        inverse = 1 / jnp.where(magnitude(steepness) > 1e-30, steepness, 1e-30)
        kinks = {kink / h.width for h in (f, g) for kink in h.kinks}
        for cut in cuts:
            offsets = (0.0, *_AROUND) if any(abs(cut - kink) < 1e-6 for kink in kinks) else (0.0,)
            edges += [(cut + offset * across) * inverse for offset in offsets]

    def integrand(x: Array) -> Array:
        there = _near_mean(inner, steepness * x, across, panels)
        return density(x / deviation) / deviation * outer(x) * there

    low = jnp.zeros_like(ends[0]) if half else ends[0]
    return (2 if half else 1) * over_panels(integrand, edges, low, ends[1])


def _near_mean(function: Callable[[Array], Array], x: Array, t: Array, panels: Sequence[float]) -> Array:
    """Mean of a function of a Gaussian of mean x and standard deviation t; the function is 0 beyond the panels."""
    t = jnp.maximum(t, float(jnp.finfo(t.dtype).tiny) ** 0.5)
    # Offsets from a base that is 0 unless x is far from it: neither large x nor small t costs digits.
    shift = jnp.clip(x, -_SHIFT * t, _SHIFT * t)
    base = x - shift
    low, high = shift - radius(t) * t, shift + radius(t) * t
    return over_panels(lambda d: density((d - shift) / t) / t * function(base + d), panels, low, high, base)


def _conditional_mean(f: Profile, centre: Array, deviation: Array) -> Array:
    """E f(v) of a Gaussian with a mean and a standard deviation."""
    x, t = jnp.broadcast_arrays(centre / f.width, deviation / f.width)
    return _smoothed(f, x, t) + _near_mean(f.rest, x, t, f.support(x.dtype).edges)


def _is_narrow(f: Profile, p: Array) -> Array:
    """Whether a Gaussian of a variance lies within the support of the rest of a function."""
    return radius(p) * jnp.sqrt(p) <= f.support(p.dtype).reach


def _scaled(f: Profile, variance: Array) -> Array:
    """A variance on the scale of a function, which can be divided by; NaN if it is too large."""
    p = jnp.maximum(variance / f.width**2, 1e2 * float(jnp.finfo(variance.dtype).tiny))
    limit = f.support(variance.dtype).limit
    return p if limit == float("inf") else jnp.where(p <= limit**2, p, jnp.nan)


def _standardized(place: float, deviation: Array) -> Array:
    far = deviation * 40 <= abs(place)
    return jnp.where(far, 40.0, place / jnp.where(far, 1.0, deviation))


def _swapped(pairs: PairCovariance) -> PairCovariance:
    return PairCovariance(pairs.variance2, pairs.variance1, pairs.covariance, pairs.residual)
