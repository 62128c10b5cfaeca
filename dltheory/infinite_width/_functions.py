"""Elementwise functions of jointly Gaussian variables: means, and second moments of two functions.

A function is recognised by its values where its moments have a closed form. All others are expanded in Hermite
polynomials (Mehler's formula); where a function is not smooth is read off its program.

The series of a function is as long as it must be for variances up to 4. One that converges at variances up to 1 in no
more than 1024 terms has moments, which are NaN at variances too large for it; any other is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from dltheory import _programs, nngp
from dltheory.infinite_width._accuracy import UNLIMITED, Accuracy, measure
from dltheory.nngp._angles import angle, magnitude, safe_ratio, safe_sqrt
from dltheory.nngp.covariances import PairCovariance, correlation
from dltheory.nngp.dual import Dual
from dltheory.typing import Array

__all__ = [
    "Elementwise",
    "elementwise",
    "mean",
    "plane_mean",
    "plane_second_moment",
    "plane_slope_moments",
    "second_moment",
    "slope_moment",
]

_RADIUS = 12.0  # standard deviations
_EDGES = (-12.0, -6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0, 12.0)
_PANEL = 32  # nodes between two edges
_PLANE_EDGES = (-9.0, -4.0, -1.5, 0.0, 1.5, 4.0, 9.0)
_PLANE_PANEL = 16
_PLANE_BATCH = 64  # inputs whose coefficients in the plane are computed at once
_FAR = 80.0  # stands for an infinite exponent or argument
_TERMS = 64
_CONVERGED = 0.6  # correlation below which 64 terms are exact
_PLANE_TERMS = 32
_REACH = 50.0  # how far from zero kinks are looked for
_MOST_KINKS = 12
_COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne", "max", "min"}
_REFUSED = 1.0  # a function must have accurate moments at least up to this variance
_UNRESOLVED = 0.1, 0.9  # mean square beyond a series: of two functions (geometric mean), and of one of them
_TAME = {"relu", "identity", "abs", "rectifier", "levels", "polynomial", "rectified_power"}
_STAIRS = {"floor", "ceil", "round", "rem", "nextafter"}


@dataclasses.dataclass(frozen=True, eq=False)
class Elementwise:
    """An elementwise function of one Gaussian u and of known parameters.

    Attributes:
        fn: ``fn(u, *params)``; parameters broadcast against u at the same rank.
        num_params: how many parameters there are.
        kinks: where the function or its derivatives jump; known only without parameters.
        jumps: by how much the value jumps at each of the kinks.
        slope_jumps: by how much the slope jumps at each of the kinks.
        bends: by how much the second derivative jumps at each of the kinks.
        dual: second moments of the function with itself; None with parameters.
        name: the same for functions recognised as the same, None for all others.
    """

    fn: Callable[..., Array]
    num_params: int = 0
    kinks: tuple[float, ...] = ()
    jumps: tuple[float, ...] = ()
    slope_jumps: tuple[float, ...] = ()
    bends: tuple[float, ...] = ()
    dual: Dual | None = None
    name: str | None = None

    @functools.cached_property
    def accuracy(self) -> Accuracy:
        """How many terms its series has, and up to which variance it is accurate."""
        if self.num_params or (self.name or "").split("(")[0] in _TAME:
            return UNLIMITED
        with jax.ensure_compile_time_eval():
            return measure(self.fn, self.kinks, self.jumps, self.slope_jumps)


def elementwise(fn: Callable[..., Array], num_params: int = 0) -> Elementwise:
    """Describes an elementwise function: recognises a closed form by its values, else finds where it is not smooth.

    Functions without parameters are evaluated here, also while an outer function is being traced; they must not depend
    on traced values.

    Args:
        fn: ``fn(u, *params)``, acting entry by entry.
        num_params: number of parameters.

    Returns:
        The function, with its dual if it has no parameters.

    Raises:
        NotImplementedError: if the function has infinitely many jumps (`floor`, `round`, `mod`) or more than 12 kinks,
            or if it is infinite or undefined somewhere. Its moments raise it if it is too steep, or oscillates or grows
            too fast, at variance 1.

    >>> elementwise(lambda x: x * (x > 0)).name
    'relu'
    """
    if num_params:
        return Elementwise(fn, num_params)
    with jax.ensure_compile_time_eval():
        found = _recognise(fn)
        kinks = _find_kinks(fn)
    kinks, jumps, slope_jumps, bends = zip(*kinks, strict=True) if kinks else ((), (), (), ())
    if found is not None:
        return Elementwise(fn, 0, kinks, jumps, slope_jumps, bends, found[1], found[0])
    function = Elementwise(fn, 0, kinks, jumps, slope_jumps, bends)
    num_terms, reach, _ = function.accuracy
    if any(jumps):
        dual = _jumping_dual(function)
    else:
        num_nodes = max(128 * (1 + len({abs(kink) for kink in kinks} - {0.0})), 192) * _density_of_nodes(num_terms)
        dual = nngp.series_dual(fn, num_terms=num_terms, kinks=kinks, num_nodes=num_nodes)
    if math.isfinite(reach):
        dual = _limited_dual(dual, reach)
    known = dataclasses.replace(function, dual=dual)
    known.__dict__["accuracy"] = function.accuracy
    return known


def _refuse(reason: str) -> NoReturn:
    from dltheory.infinite_width._gaussians import UnsupportedError  # which is made of these functions

    raise UnsupportedError(reason)


def _require_reach(reach: float) -> None:
    if reach < _REFUSED:
        _refuse(
            "the function is too steep, oscillates too fast or grows too fast for its moments to be computed at "
            f"variances of {_REFUSED:g}"
        )


def _within(q: Array, reach: float) -> Array:
    """Variances, NaN where they are too large."""
    return jnp.where(q <= reach, q, jnp.nan) if math.isfinite(reach) else q


def _limited_dual(dual: Dual, reach: float) -> Dual:
    def limited(pairs: PairCovariance) -> PairCovariance:
        _require_reach(reach)
        return pairs._replace(variance1=_within(pairs.variance1, reach), variance2=_within(pairs.variance2, reach))

    return Dual(lambda pairs: dual.kernel(limited(pairs)), lambda pairs: dual.derivative(limited(pairs)))


def _density_of_nodes(num_terms: int) -> int:
    """How many times as many nodes series of more than 64 terms need."""
    return math.isqrt(num_terms // _TERMS)


def mean(function: Elementwise, q: Array, params: Sequence[Array] = ()) -> Array:
    r"""Mean of a function of a centred Gaussian of variance q.

    .. math:: E_{z \sim \mathcal N(0, 1)} f(\sqrt q z)

    Args:
        function: f.
        q: variances, any shape.
        params: parameters of f, which broadcast against `q`.

    Returns:
        Means, shape of `q` and the parameters; NaN for functions without parameters that are too steep for a variance.

    >>> mean(elementwise(jnp.exp), jnp.array(2.0)).round(3).item()  # e
    2.718
    """
    q, params = _broadcast(q, params)
    num_terms, _, reach = function.accuracy
    _require_reach(reach)
    nodes, weights = _rule(function, q, params, num_points=_PANEL * _density_of_nodes(num_terms))
    q = _within(q, reach)
    values = function.fn(safe_sqrt(q)[..., None] * nodes, *(p[..., None] for p in params))
    return jnp.sum(weights * jnp.exp(-(nodes**2) / 2) * values, axis=-1) / (2 * jnp.pi) ** 0.5


def second_moment(
    f: Elementwise,
    g: Elementwise,
    pairs: PairCovariance,
    f_params: Sequence[Array] = (),
    g_params: Sequence[Array] = (),
) -> Array:
    r"""Second moment of two functions of a Gaussian pair.

    .. math:: E f(u) g(v) = \sum_k a_k(K_{11}) \, b_k(K_{22}) \, \rho^k, \qquad
              a_k(q) = E_{z \sim \mathcal N(0, 1)} [f(\sqrt q z) \, h_k(z)]

    The series ends after 64 terms, or more for steep functions. What it lacks is extrapolated from its second half with
    the power law of kinks, so that :math:`E f(u)^2` is exact; kinks of functions without parameters count exactly.

    Args:
        f, g: the functions.
        pairs: second moments of (u, v).
        f_params: parameters of f, which broadcast against the variances of u.
        g_params: parameters of g, which broadcast against the variances of v.

    Returns:
        Second moments, shape of the covariances; NaN where a function is too steep for a variance.

    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.5]))
    >>> second_moment(elementwise(lambda u: u), elementwise(jax.nn.relu), pairs)
    Array(0.25, dtype=float32)
    """
    if _same(f, g):
        assert f.dual is not None
        return f.dual.kernel(pairs).covariance
    return _moment(f, g, pairs, f_params, g_params, slope=False)


def slope_moment(
    f: Elementwise,
    g: Elementwise,
    pairs: PairCovariance,
    f_params: Sequence[Array] = (),
    g_params: Sequence[Array] = (),
) -> Array:
    r"""Second moment of the derivatives of two functions of a Gaussian pair.

    .. math:: E f'(u) g'(v)

    As `second_moment`. Derivatives are those of automatic differentiation: 0 at a jump.

    Args:
        f, g: the functions.
        pairs: second moments of (u, v).
        f_params: parameters of f, which broadcast against the variances of u.
        g_params: parameters of g, which broadcast against the variances of v.

    Returns:
        Second moments, shape of the covariances.

    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.5]))
    >>> slope_moment(elementwise(lambda u: u), elementwise(jax.nn.relu), pairs).round(4)
    Array(0.5, dtype=float32)
    """
    if _same(f, g):
        assert f.dual is not None
        return f.dual.derivative(pairs)
    return _moment(f, g, pairs, f_params, g_params, slope=True)


def plane_mean(function: Elementwise, q1: Array, q2: Array, params: Sequence[Array] = ()) -> Array:
    r"""Mean of a function of two independent centred Gaussians u and w.

    .. math:: E f(\sqrt{q_u} z, \sqrt{q_w} y), \qquad z, y \sim \mathcal N(0, 1)

    Args:
        function: f; its first parameter is the second Gaussian: ``fn(u, w, *params)``.
        q1, q2: variances of u and w, which broadcast at the same rank.
        params: further parameters, which broadcast against the variances.

    Returns:
        Means, of the broadcast shape.

    >>> larger = elementwise(jnp.maximum, num_params=1)
    >>> (plane_mean(larger, jnp.array(1.0), jnp.array(1.0)) ** 2 * jnp.pi).round(4)
    Array(1., dtype=float32)
    """
    return _plane_map(function, function.fn, _plane_average, q1, q2, params)[0]


def plane_second_moment(
    f: Elementwise,
    g: Elementwise,
    first: PairCovariance,
    second: PairCovariance,
    f_params: Sequence[Array] = (),
    g_params: Sequence[Array] = (),
) -> Array:
    r"""Second moment of functions of two independent Gaussian pairs (u, v) and (w, x).

    .. math:: E f(u, w) g(v, x) = \sum_{k, l} a_{kl} \, b_{kl} \, \rho_u^k \, \rho_w^l, \qquad
              a_{kl} = E[f(\sqrt{q_u} z, \sqrt{q_w} y) \, h_k(z) \, h_l(y)]

    With 32 terms in either direction, and what they lack extrapolated from the last ones, so that :math:`E f(u, w)^2`
    is exact.

    Args:
        f, g: the functions; their first parameter is the second Gaussian: ``fn(u, w, *params)``.
        first: second moments of (u, v).
        second: second moments of (w, x), of the same shapes.
        f_params: further parameters of f, which broadcast against the variances of u.
        g_params: further parameters of g, which broadcast against the variances of v.

    Returns:
        Second moments, shape of the covariances.

    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.5]))
    >>> product = elementwise(lambda u, w: u * w, num_params=1)
    >>> plane_second_moment(product, product, pairs, pairs).round(4)
    Array(0.25, dtype=float32)
    """
    a, b = _plane_expand_both(f, g, first, second, f_params, g_params, f.fn, g.fn)
    return _plane_mehler(a, b, first, second, 2.5)


def plane_slope_moments(
    f: Elementwise,
    g: Elementwise,
    first: PairCovariance,
    second: PairCovariance,
    f_params: Sequence[Array] = (),
    g_params: Sequence[Array] = (),
) -> tuple[Array, Array]:
    r"""Second moments of the partial derivatives of functions of two independent Gaussian pairs (u, v) and (w, x).

    .. math:: E \, \partial_u f(u, w) \, \partial_v g(v, x), \qquad E \, \partial_w f(u, w) \, \partial_x g(v, x)

    As `plane_second_moment`.

    Args:
        f, g: the functions; their first parameter is the second Gaussian: ``fn(u, w, *params)``.
        first: second moments of (u, v).
        second: second moments of (w, x), of the same shapes.
        f_params: further parameters of f, which broadcast against the variances of u.
        g_params: further parameters of g, which broadcast against the variances of v.

    Returns:
        Second moments of the derivatives in the first Gaussian and in the second, shape of the covariances.

    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.5]))
    >>> product = elementwise(lambda u, w: u * w, num_params=1)
    >>> [moment.round(4).item() for moment in plane_slope_moments(product, product, pairs, pairs)]
    [0.5, 0.5]
    """
    results = []
    for position in (0, 1):
        slopes = [_partial(function.fn, position) for function in (f, g)]
        a, b = _plane_expand_both(f, g, first, second, f_params, g_params, *slopes)
        results.append(_plane_mehler(a, b, first, second, 1.5))
    return results[0], results[1]


def _partial(fn: Callable[..., Array], position: int) -> Callable[..., Array]:
    def derivative(*args: Array) -> Array:
        def along(x: Array) -> Array:
            return fn(*args[:position], x, *args[position + 1 :])

        return jax.jvp(along, (args[position],), (jnp.ones_like(args[position]),))[1]

    return derivative


def _same(f: Elementwise, g: Elementwise) -> bool:
    return f.dual is not None and (f is g or f.fn is g.fn or (f.name is not None and f.name == g.name))


# The series


def _moment(
    f: Elementwise,
    g: Elementwise,
    pairs: PairCovariance,
    f_params: Sequence[Array],
    g_params: Sequence[Array],
    *,
    slope: bool,
) -> Array:
    """Mehler's series, in which jumps and the ramps that make kinks are replaced by their exact moments."""
    rho = correlation(pairs)
    for function in (f, g):
        _require_reach(function.accuracy.variance)
    num_terms = max(f.accuracy.num_terms, g.accuracy.num_terms)
    num_points = _PANEL * _density_of_nodes(num_terms)
    q1, f_params = _broadcast(_within(pairs.variance1, f.accuracy.variance), f_params)
    q2, g_params = _broadcast(_within(pairs.variance2, g.accuracy.variance), g_params)
    breaks = _breaks(f, q1, f_params, slope), _breaks(g, q2, g_params, slope)
    rules = _rule(f, q1, f_params, num_points=num_points), _rule(g, q2, g_params, num_points=num_points)
    functions = [_derivative(function.fn) if slope else function.fn for function in (f, g)]
    first = _expand(functions[0], q1, f_params, rules[0], num_terms)
    second = _expand(functions[1], q2, g_params, rules[1], num_terms)
    value, late = _mehler(first, second, rho)
    if not all(len(place) for place, _, _ in breaks):
        rough = [any(function.jumps) or slope for function in (f, g)]
        power = ((3 if rough[0] else 5) + (3 if rough[1] else 5)) / 4
        rests = first.rest, second.rest
        tail = _tail(late, (first.late, second.late), rests, rho, pairs.residual, power, num_terms)
        return jnp.where(_resolved(first, second, rests), value + tail, jnp.nan)
    broken1, broken2 = (
        _project(_broken_part(broken, nodes), nodes, node_weights, num_terms)
        for broken, (nodes, node_weights) in zip(breaks, rules, strict=True)
    )
    broken_value, _ = _mehler(broken1, broken2, rho)
    correction = _broken_product(*breaks, pairs) - broken_value
    rests = first.rest - broken1.rest, second.rest - broken2.rest
    tail = _tail(late, (first.late, second.late), rests, rho, pairs.residual, 2.5, num_terms)
    value = value + jnp.where(jnp.abs(rho) < _CONVERGED, 0.0, correction + tail)
    return jnp.where(_resolved(first, second, rests), value, jnp.nan)


def _resolved(first: _Series, second: _Series, rests: tuple[Array, Array]) -> Array:
    """Whether the series hold most of the mean squares of their functions."""
    parts = []
    for series, rest in zip((first, second), rests, strict=True):
        total = jnp.sum(series.terms**2, axis=0) + jnp.sum(series.rest, axis=0)
        parts.append(jnp.sum(jnp.abs(rest), axis=0) / jnp.where(total > 0, total, 1.0))
    one, two = parts
    return (one * two <= _UNRESOLVED[0] ** 2) & (jnp.maximum(one, two) <= _UNRESOLVED[1])


def _tail(
    late: Array,
    squares: tuple[Array, Array],
    rests: tuple[Array, Array],
    rho: Array,
    residual: Array,
    power: float,
    num_terms: int,
) -> Array:
    """What follows the series, [parity, ...] in all arguments: as aligned as the products `late` of the second half."""
    alignment = late * safe_ratio(jnp.ones_like(late), safe_sqrt(squares[0]) * safe_sqrt(squares[1]))
    first, second = rests
    size = safe_sqrt(jnp.abs(first)) * safe_sqrt(jnp.abs(second))
    size = jnp.where(first * second > 0, jnp.sign(first) * size, 0.0)
    even, odd = jax.lax.stop_gradient(jnp.clip(alignment, -1.0, 1.0) * size)
    odd = odd * _power_tail(residual, num_terms, power)
    return even * _power_tail(residual, num_terms - 1, power) + jnp.where(rho >= 0, odd, -odd)


def _derivative(fn: Callable[..., Array]) -> Callable[..., Array]:
    def derivative(u: Array, *params: Array) -> Array:
        return jax.jvp(lambda u: fn(u, *params), (u,), (jnp.ones_like(u),))[1]

    return derivative


_Breaks = tuple[Array, Array, Array]  # [breaks, ...]: place in standard deviations, jump, jump of the derivative by it


def _breaks(function: Elementwise, q: Array, params: Sequence[Array], slope: bool) -> _Breaks:
    """Where the function or its slope breaks, and how."""
    orders = (1, 2) if slope else (0, 1)
    if function.num_params:
        place = jax.lax.stop_gradient(_switch_points(function, q, params))
        jumps = [_jump_at(function, q, params, place, order) for order in orders]
        place, jump, slope_jump = (jnp.moveaxis(x, -1, 0) for x in (place, *jumps))
    else:
        strengths = [(function.jumps, function.slope_jumps, function.bends)[order] for order in orders]
        kinks = [i for i in range(len(function.kinks)) if strengths[0][i] or strengths[1][i]]
        place = [jnp.clip(_standardized(function.kinks[i], q, _RADIUS), -_RADIUS, _RADIUS) for i in kinks]
        place = jnp.stack(place) if kinks else jnp.zeros((0, *q.shape), q.dtype)
        jump, slope_jump = (
            jnp.broadcast_to(jnp.asarray([x[i] for i in kinks], q.dtype).reshape(-1, *(1,) * q.ndim), place.shape)
            for x in strengths
        )
    return place, jump, slope_jump * safe_sqrt(q)[None]


def _jump_at(function: Elementwise, q: Array, params: Sequence[Array], place: Array, order: int) -> Array:
    """Jumps of a derivative of some order at places [..., places]; a place that occurs again counts once."""
    step = 5e-4 if q.dtype.itemsize >= 8 else 4e-3
    offsets = jnp.asarray([-2, -1, 1, 2], q.dtype).reshape((1,) * place.ndim + (-1,))
    u = safe_sqrt(q)[..., None, None] * (place[..., None] + step * offsets)
    again = jnp.abs(place[..., :, None] - place[..., None, :]) < 4 * step
    earlier = jnp.tril(jnp.ones((place.shape[-1],) * 2, bool), -1)
    usable = ~jnp.any(again & earlier.reshape((1,) * (place.ndim - 1) + earlier.shape), axis=-1)
    fn = function.fn
    for _ in range(order):
        fn = _derivative(fn)
    values = jnp.broadcast_to(fn(u, *(p[..., None, None] for p in params)), u.shape)
    jump = values @ jnp.asarray([1, -2, 2, -1], q.dtype)
    real = usable & (jnp.abs(place) < 8) & (jnp.abs(jump) > 1e-3 * jnp.max(jnp.abs(values), axis=-1))
    return jax.lax.stop_gradient(jnp.where(real, jump, 0.0))


def _broken_part(breaks: _Breaks, nodes: Array) -> Array:
    """Sum of steps and ramps at the nodes [..., nodes]."""
    total = jnp.zeros_like(nodes)
    for place, jump, ramp in zip(*breaks, strict=True):
        beyond = nodes - place[..., None]
        total = total + jnp.where(beyond > 0, jump[..., None] + ramp[..., None] * beyond, 0.0)
    return total


def _broken_product(first: _Breaks, second: _Breaks, pairs: PairCovariance) -> Array:
    """Mean product of sums of steps and ramps."""
    sizes = len(first[0]), len(second[0])
    one, two = (x.reshape(-1) for x in np.indices(sizes))
    rho, residual = correlation(pairs), pairs.residual

    def add(total: Array, breaks: tuple[Array, ...]) -> tuple[Array, None]:
        h, jump_h, ramp_h, k, jump_k, ramp_k = breaks

        def product(_) -> Array:
            return _break_moment(h, k, jump_h, ramp_h, jump_k, ramp_k, rho, residual)

        some = jnp.any((jump_h != 0) | (ramp_h != 0)) & jnp.any((jump_k != 0) | (ramp_k != 0))
        return total + jax.lax.cond(some, product, lambda _: jnp.zeros_like(rho), None), None

    stacked = (*(x[one] for x in first), *(x[two] for x in second))
    return jax.lax.scan(add, jnp.zeros_like(rho), stacked)[0]


def _break_moment(
    h: Array, k: Array, jump_h: Array, ramp_h: Array, jump_k: Array, ramp_k: Array, rho: Array, residual: Array
) -> Array:
    r"""Mean product of :math:`[j + r (x - h)] 1[x > h]` and :math:`[j' + r' (y - k)] 1[y > k]`, x and y standard."""
    sine = safe_sqrt(residual)
    gap = jnp.where(rho > 0, residual / (1 + jnp.abs(rho)), 1 - rho)

    def excess(h: Array, k: Array) -> Array:  # (k - rho h) / sine
        distance = k - h + gap * h
        return jnp.where(sine > 0, safe_ratio(distance, sine), jnp.sign(distance) * _FAR)

    at_h, at_k = excess(h, k), excess(k, h)
    both = _orthant_probability(h, k, rho, residual)
    density_h, density_k = _density(h), _density(k)
    tail_h, tail_k = density_h * ndtr(-at_h), density_k * ndtr(-at_k)
    # Moments of x, y and x y over the orthant.
    x, y = tail_h + rho * tail_k, rho * tail_h + tail_k
    xy = rho * both + rho * (h * tail_h + k * tail_k) + sine * density_h * _density(at_h)
    ramps = xy - k * x - h * y + h * k * both
    return (
        jump_h * jump_k * both
        + jump_h * ramp_k * (y - k * both)
        + ramp_h * jump_k * (x - h * both)
        + ramp_h * ramp_k * ramps
    )


def _orthant_probability(h: Array, k: Array, rho: Array, residual: Array) -> Array:
    r"""P(x > h, y > k), from equal (or opposite) x and y by the integral over the angle.

    .. math:: P = \Phi(-\max(h, k)) - \frac{1}{2 \pi} \int_0^\vartheta
              \exp\left(-\frac{(h - k)^2}{2 \sin^2 t} - \frac{h k}{1 + \cos t}\right) dt
    """
    folded = jnp.where(rho >= 0, k, -k)
    theta = angle(safe_sqrt(residual), magnitude(rho))

    def add_node(total: Array, rule: tuple[Array, Array]) -> tuple[Array, None]:
        node, weight = rule
        t = jnp.maximum(theta * node, 1e-12)
        exponent = ((h - folded) / jnp.sin(t)) ** 2 / 2 + h * folded / (1 + jnp.cos(t))
        return total + weight * jnp.exp(-jnp.minimum(exponent, _FAR)), None

    points, weights = np.polynomial.legendre.leggauss(24 if rho.dtype.itemsize >= 8 else 16)
    points = (1 + points) / 2
    nodes, weights = points**2, points * weights  # denser at equal x and y, where the integrand may start late
    rule = jnp.asarray(nodes, rho.dtype), jnp.asarray(weights, rho.dtype)
    total, _ = jax.lax.scan(add_node, jnp.zeros_like(rho), rule)
    like = ndtr(-jnp.maximum(h, folded)) - theta * total / (2 * jnp.pi)
    return jnp.where(rho >= 0, like, ndtr(-h) - like)


def _density(x: Array) -> Array:
    return jnp.exp(-jnp.minimum(x**2, 2 * _FAR) / 2) / (2 * jnp.pi) ** 0.5


class _Series(NamedTuple):
    """A Hermite series.

    Attributes:
        terms: coefficients [K, ...].
        late: sums of squares of the even and of the odd ones in the second half, [2, ...].
        rest: the same of those that follow, from the mean square of the function.
    """

    terms: Array
    late: Array
    rest: Array


def _expand(
    fn: Callable[..., Array], q: Array, params: Sequence[Array], rule: tuple[Array, Array], num_terms: int = _TERMS
) -> _Series:
    nodes, weights = rule
    values = fn(safe_sqrt(q)[..., None] * nodes, *(p[..., None] for p in params))
    return _project(jnp.broadcast_to(values, nodes.shape), nodes, weights, num_terms)


def _project(values: Array, nodes: Array, weights: Array, num_terms: int) -> _Series:
    # Hermite functions h_k(z) exp(-z^2/4) stay of order one; the other half of the density weighs the nodes.
    envelope = jnp.exp(-(nodes**2) / 4) / (2 * jnp.pi) ** 0.25
    weighted = weights * envelope * values

    def pair_of_terms(carry, j):
        before, now = carry
        following = (nodes * now - jnp.sqrt(2 * j) * before) / jnp.sqrt(2 * j + 1)
        next_even = (nodes * following - jnp.sqrt(2 * j + 1) * now) / jnp.sqrt(2 * j + 2)
        terms = jnp.sum(weighted * now, axis=-1), jnp.sum(weighted * following, axis=-1)
        return (following, next_even), jnp.stack(terms)

    start = (jnp.zeros_like(envelope), envelope)
    _, terms = jax.lax.scan(pair_of_terms, start, jnp.arange(num_terms // 2, dtype=nodes.dtype))
    mirrored = values[..., ::-1]  # the nodes are symmetric
    parts = jnp.stack([(values + mirrored) / 2, (values - mirrored) / 2])
    totals = jnp.sum((weights * envelope**2)[None] * parts**2, axis=-1)
    rest = totals - jnp.sum(terms**2, axis=0)
    rest = jnp.where(rest > 16 * jnp.finfo(rest.dtype).eps * jnp.sum(totals, axis=0)[None], rest, 0.0)
    late = jnp.sum(terms[num_terms // 4 :] ** 2, axis=0)
    return _Series(terms.reshape(num_terms, *values.shape[:-1]), late, rest)


def _mehler(first: _Series, second: _Series, rho: Array) -> tuple[Array, Array]:
    r"""Sum of the terms :math:`a_k b_k \rho^k`, and those of the second half without the powers, even and odd."""
    num_terms = len(first.terms)

    def two_terms(carry, xs):
        total, even, odd = carry
        late, a, b = xs
        products = a[0] * b[0], a[1] * b[1]
        return (
            (total * rho + products[1]) * rho + products[0],
            even + late * products[0],
            odd + late * products[1],
        ), None

    late = jnp.asarray(np.arange(num_terms // 2) >= num_terms // 4, rho.dtype)
    zero = jnp.zeros_like(rho)
    paired = (series.terms.reshape(-1, 2, *series.terms.shape[1:]) for series in (first, second))
    (total, even, odd), _ = jax.lax.scan(two_terms, (zero, zero, zero), (late, *paired), reverse=True, unroll=4)
    return total, jnp.stack([even, odd])


def _power_tail(residual: Array, start: int, power: float) -> Array:
    r""":math:`\int_K^\infty k^{-s} |\rho|^k dk`, relative to its value at |rho| = 1, for s = 3/2, 5/2 or between."""
    x = -start / 2 * jnp.log1p(-jnp.clip(residual, 0.0, 0.99))
    root = safe_sqrt(x)
    decay = jnp.exp(-x)
    steps = jnp.maximum(decay - jnp.pi**0.5 * root * jax.lax.erfc(root), 0.0)
    ramps = jnp.maximum(decay - 2 * x * steps, 0.0)
    return (2.5 - power) * steps + (power - 1.5) * ramps


def _plane_expand_both(
    f: Elementwise,
    g: Elementwise,
    first: PairCovariance,
    second: PairCovariance,
    f_params: Sequence[Array],
    g_params: Sequence[Array],
    f_fn: Callable[..., Array],
    g_fn: Callable[..., Array],
) -> tuple[Array, Array]:
    a = _plane_expand(f, f_fn, first.variance1, second.variance1, f_params)
    same = f is g and not f_params and first.variance1 is first.variance2 and second.variance1 is second.variance2
    return a, a if same else _plane_expand(g, g_fn, first.variance2, second.variance2, g_params)


def _plane_expand(
    function: Elementwise, fn: Callable[..., Array], q1: Array, q2: Array, params: Sequence[Array]
) -> Array:
    """Hermite coefficients [K L + 1, ...] in the plane; by the last one the late ones must be scaled."""
    return _plane_map(function, fn, _plane_project, q1, q2, params)


def _plane_map(
    function: Elementwise,
    fn: Callable[..., Array],
    reduce: Callable[..., Array],
    q1: Array,
    q2: Array,
    params: Sequence[Array],
) -> Array:
    """Values of `fn` at the nodes of a rule in the plane, reduced to an array [r], for each input: [r, ...]."""
    shape = jnp.broadcast_shapes(jnp.shape(q1), jnp.shape(q2), *(jnp.shape(p) for p in params))
    dtype = jnp.result_type(q1)
    arrays = tuple(jnp.broadcast_to(jnp.asarray(x, dtype), shape).reshape(-1) for x in (q1, q2, *params))
    swapped = Elementwise(lambda w, u, *params: function.fn(u, w, *params), 1 + len(params))
    plain = Elementwise(fn)

    def one(arrays: tuple[Array, ...]) -> Array:
        q1, q2, *params = arrays
        nodes, weights = _rule(plain, q1, (), _PLANE_EDGES, _PLANE_PANEL)
        u = safe_sqrt(q1) * nodes
        inner_q, inner_params = _broadcast(q2, [u, *(jnp.broadcast_to(p, u.shape) for p in params)])
        across, across_weights = _rule(swapped, inner_q, inner_params, _PLANE_EDGES, _PLANE_PANEL)
        arguments = (p[:, None] for p in inner_params)
        values = fn(next(arguments), safe_sqrt(q2) * across, *arguments)
        return reduce(jnp.broadcast_to(values, across.shape), (nodes, weights), (across, across_weights))

    flat = jax.lax.map(one, arrays, batch_size=_PLANE_BATCH)
    return flat.T.reshape(-1, *shape)


def _plane_average(values: Array, along: tuple[Array, Array], across: tuple[Array, Array]) -> Array:
    return jnp.sum(along[1] * _density(along[0]) * jnp.sum(across[1] * _density(across[0]) * values, axis=-1))[None]


def _plane_project(values: Array, along: tuple[Array, Array], across: tuple[Array, Array]) -> Array:
    total = _plane_average(values**2, along, across)[0]
    rows = _project(values, *across, _PLANE_TERMS).terms
    nodes, weights = (jnp.broadcast_to(x, rows.shape) for x in along)
    terms = _project(rows, nodes, weights, _PLANE_TERMS).terms  # [along, across]
    rest = total - jnp.sum(terms**2)
    rest = jnp.where(rest > 16 * jnp.finfo(rest.dtype).eps * total, rest, 0.0)
    early = jnp.sum(terms[: _PLANE_TERMS // 2, : _PLANE_TERMS // 2] ** 2)
    growth = safe_sqrt(safe_ratio(rest, jnp.sum(terms**2) - early))
    return jnp.append(terms.reshape(-1), jax.lax.stop_gradient(growth))


def _plane_mehler(a: Array, b: Array, first: PairCovariance, second: PairCovariance, power: float) -> Array:
    size = _PLANE_TERMS
    growth = a[-1] * b[-1]
    rho_u, rho_w = correlation(first), correlation(second)
    zero = jnp.zeros(jnp.broadcast_shapes(rho_u.shape, rho_w.shape, growth.shape), rho_u.dtype)
    late = jnp.arange(size) >= size // 2

    def tails(residual: Array, rho: Array) -> tuple[Array, Array]:
        odd = _power_tail(residual, size, power)
        return _power_tail(residual, size - 1, power), jnp.where(rho >= 0, odd, -odd)

    tail_u, tail_w = (
        jnp.stack(jnp.broadcast_arrays(*tails(p.residual, correlation(p)), zero)) for p in (first, second)
    )
    parity = jnp.arange(size) % 2

    def row(k_terms):
        def step(carry, xs):
            total, early, beyond = carry
            x, y, is_late, odd = xs
            product = x * y
            beyond = beyond + jnp.where(is_late, product * tail_w[odd], 0.0)
            return (total * rho_w + product, early * rho_w + jnp.where(is_late, 0.0, product), beyond), None

        return jax.lax.scan(step, (zero, zero, zero), (*k_terms, late, parity), reverse=True)[0]

    def outer(carry, xs):
        total, beyond_w, beyond_u = carry
        x, y, is_late, odd = xs
        whole, early, beyond = row((x, y))
        total = total * rho_u + whole
        beyond_w = beyond_w * rho_u + jnp.where(is_late, 0.0, beyond)
        return (total, beyond_w, beyond_u + jnp.where(is_late, (early + beyond) * tail_u[odd], 0.0)), None

    grids = [terms[:-1].reshape(size, size, *terms.shape[1:]) for terms in (a, b)]
    (total, beyond_w, beyond_u), _ = jax.lax.scan(outer, (zero, zero, zero), (*grids, late, parity), reverse=True)
    return total + growth * (beyond_w + beyond_u)


def _jumping_dual(function: Elementwise) -> Dual:
    def kernel(pairs: PairCovariance) -> PairCovariance:
        def square(q: Array) -> Array:
            nodes, weights = _rule(function, q, (), num_points=_PANEL * _density_of_nodes(function.accuracy.num_terms))
            values = function.fn(safe_sqrt(q)[..., None] * nodes) ** 2
            return jnp.sum(weights * jnp.exp(-(nodes**2) / 2) * values, axis=-1) / (2 * jnp.pi) ** 0.5

        covariance = _moment(function, function, pairs, (), (), slope=False)
        return nngp.pair_covariance(square(pairs.variance1), square(pairs.variance2), covariance)

    return Dual(kernel, lambda pairs: _moment(function, function, pairs, (), (), slope=True))


# Quadrature


def _broadcast(q: Array, params: Sequence[Array]) -> tuple[Array, tuple[Array, ...]]:
    q = jnp.asarray(q)
    shape = jnp.broadcast_shapes(q.shape, *(jnp.shape(p) for p in params))
    return jnp.broadcast_to(q, shape), tuple(jnp.broadcast_to(jnp.asarray(p, q.dtype), shape) for p in params)


def _rule(
    function: Elementwise,
    q: Array,
    params: Sequence[Array],
    fixed: tuple[float, ...] = _EDGES,
    num_points: int = _PANEL,
) -> tuple[Array, Array]:
    """Nodes and weights [..., nodes] of Gauss-Legendre rules between the places where the function is not smooth.

    The nodes are symmetric about zero.
    """
    edges = jnp.broadcast_to(jnp.asarray(fixed, q.dtype).reshape((1,) * q.ndim + (-1,)), (*q.shape, len(fixed)))
    radius = fixed[-1]
    extra = [_standardized(kink, q, radius) for kink in function.kinks if kink]
    if extra:
        edges = jnp.concatenate([edges, jnp.stack([*extra, *(-place for place in extra)], axis=-1)], axis=-1)
    if function.num_params:
        extra = jax.lax.stop_gradient(_switch_points(function, q, params))
        edges = jnp.concatenate([edges, extra, -extra], axis=-1)
    edges = jnp.sort(jnp.clip(edges, -radius, radius), axis=-1)[..., None]
    low, half = edges[..., :-1, :], (edges[..., 1:, :] - edges[..., :-1, :]) / 2
    points, weights = (
        jnp.asarray(x, q.dtype).reshape((1,) * (q.ndim + 1) + (-1,))
        for x in np.polynomial.legendre.leggauss(num_points)
    )
    return (low + half * (1 + points)).reshape(*q.shape, -1), (half * weights).reshape(*q.shape, -1)


def _standardized(kink: float, q: Array, radius: float) -> Array:
    positive = q > 0
    inverse = jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, q, 1.0)), 0.0)
    return jnp.where(positive, kink * inverse, math.copysign(radius, kink) if kink else 0.0)


def _switch_points(function: Elementwise, q: Array, params: Sequence[Array]) -> Array:
    """First and last root of the difference that every comparison of the function makes, in standard deviations."""
    scalar = jax.ShapeDtypeStruct((), q.dtype)
    program, _ = _programs.trace(function.fn, *[scalar] * (1 + len(params)))

    def switches(z: Array, q: Array, *params: Array) -> Array:
        return _switches(program, [safe_sqrt(q) * z, *params])

    count = jax.eval_shape(switches, *[scalar] * (2 + len(params))).shape[0]
    if not count:
        return jnp.zeros((*q.shape, 0), q.dtype)
    grid = jnp.linspace(-8.0, 8.0, 65, dtype=q.dtype)
    steps = 50 if q.dtype.itemsize >= 8 else 24

    def roots(q: Array, *params: Array) -> Array:
        signs = jnp.sign(jax.vmap(lambda z: switches(z, q, *params))(grid))
        changes = signs[1:] != signs[:-1]
        any_change = jnp.any(changes, axis=0)
        places = jnp.stack([jnp.argmax(changes, axis=0), len(grid) - 2 - jnp.argmax(changes[::-1], axis=0)])
        low, high = grid[places], grid[places + 1]
        index = jnp.arange(count)
        start = jnp.take_along_axis(signs, places, axis=0)

        def halve(_, interval):
            low, high = interval
            middle = (low + high) / 2
            here = jax.vmap(jax.vmap(lambda z, j: jnp.sign(switches(z, q, *params)[j])), in_axes=(0, None))(
                middle, index
            )
            left = here == start
            return jnp.where(left, middle, low), jnp.where(left, high, middle)

        low, high = jax.lax.fori_loop(0, steps, halve, (low, high))
        return jnp.where(any_change[None, :], (low + high) / 2, _RADIUS).reshape(-1)

    flat = jax.vmap(roots)(q.reshape(-1), *(p.reshape(-1) for p in params))
    return flat.reshape(*q.shape, -1)


# Where a function is not smooth


def _switches(program: _programs.Program, args: Sequence[Any]) -> Array:
    """Differences of the operands of every comparison that depends on the first argument, [comparisons]."""
    found: list[Array] = []
    _follow(program, args, [True] + [False] * (len(args) - 1), found)
    return jnp.stack(found) if found else jnp.zeros(0, jnp.result_type(args[0]))


def _follow(
    program: _programs.Program, args: Sequence[Any], varying: Sequence[bool], found: list[Array]
) -> tuple[list[Any], list[bool]]:
    values: dict[int, Any] = dict(program.constants) | dict(zip(program.inputs, args, strict=True))
    moving = {number for number, varies in zip(program.inputs, varying, strict=True) if varies}

    def varies(atom: _programs.Atom) -> bool:
        return not isinstance(atom, _programs.Constant) and atom in moving

    def read(atom: _programs.Atom) -> Any:
        return atom.value if isinstance(atom, _programs.Constant) else values[atom]

    for equation in program.equations:
        inputs = [read(atom) for atom in equation.inputs]
        flags = [varies(atom) for atom in equation.inputs]
        if equation.body is not None and equation.steps is None:
            outputs, results = _follow(equation.body, inputs, flags, found)
        else:
            if any(flags):
                _note(equation, inputs, found)
            with equation.context.manager:
                outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
            outputs = outputs if equation.primitive.multiple_results else [outputs]
            results = [any(flags)] * len(outputs)
        for number, value, flag in zip(equation.outputs, outputs, results, strict=True):
            values[number] = value
            if flag:
                moving.add(number)
    return [read(atom) for atom in program.outputs], [varies(atom) for atom in program.outputs]


def _note(equation: _programs.Equation, inputs: list[Any], found: list[Array]) -> None:
    floating = jnp.issubdtype(jnp.result_type(inputs[0]), jnp.floating)
    if equation.name == "convert_element_type" and floating:
        stairs = jnp.issubdtype(equation.params["new_dtype"], jnp.integer)
    else:
        stairs = equation.name in _STAIRS
    if stairs:
        _refuse(f"the function has infinitely many jumps: `{equation.name}`")
    if not floating:
        return
    if equation.name in _COMPARISONS:
        found.append(inputs[0] - inputs[1])
    elif equation.name in {"abs", "sign"}:
        found.append(inputs[0])
    elif equation.name == "clamp":
        found.extend([inputs[1] - inputs[0], inputs[1] - inputs[2]])


def _find_kinks(fn: Callable[[Array], Array]) -> tuple[tuple[float, ...], ...]:
    """Places where the function is not smooth, each with the jumps of the value and of the first two derivatives."""
    dtype = jnp.result_type(float)
    double = dtype.itemsize >= 8
    program, _ = _programs.trace(fn, jax.ShapeDtypeStruct((), dtype))
    differences = jax.jit(jax.vmap(lambda x: _switches(program, [x])))
    grid = np.linspace(-_REACH, _REACH, 4001)
    signs = np.sign(np.asarray(differences(jnp.asarray(grid, dtype))))
    if not signs.shape[1]:
        return ()
    finite = np.isfinite(signs)
    index, which = np.nonzero((signs[1:] != signs[:-1]) & finite[1:] & finite[:-1])
    few = 4 * _MOST_KINKS * max(signs.shape[1], 1)
    if len(index) > few:
        _refuse(f"the function has more than {_MOST_KINKS} kinks")
    if not len(index):
        return ()
    low, high, start = grid[index], grid[index + 1], signs[index, which]
    size = 2 ** math.ceil(math.log2(len(index)))  # few different shapes to compile for
    for _ in range(46 if double else 20):
        middle = (low + high) / 2
        here = np.sign(np.asarray(differences(jnp.asarray(np.resize(middle, size), dtype))))
        left = here[np.arange(len(index)), which] == start
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    places = (low + high) / 2
    precision = 8 * float(jnp.finfo(dtype).eps) * np.maximum(np.abs(places), 1.0)
    rounded = np.round(places * 64) / 64 + 0.0
    places = np.where(np.abs(places - rounded) < precision, rounded, places)
    kinks: list[float] = []
    for place in sorted(float(p) for p in places):
        if not kinks or place - kinks[-1] > 4 * float(np.max(precision)):
            kinks.append(place)
    descriptions = [(kink, *_jumps(fn, kink, dtype)) for kink in kinks]
    kept = tuple(tuple(numbers) for *numbers, rough in descriptions if rough)
    if len(kept) > _MOST_KINKS:
        _refuse(f"the function has more than {_MOST_KINKS} kinks")
    return kept


def _jumps(fn: Callable[[Array], Array], place: float, dtype: Any) -> tuple[float, float, float, bool]:
    """Jumps of the value, the slope and the second derivative (0 if within rounding), and whether there are any."""
    step = 2e-4 if jnp.dtype(dtype).itemsize >= 8 else 4e-3
    offsets = np.array([-3, -2, -1, 1, 2, 3])

    def slope(x: Array) -> Array:
        return jax.jvp(fn, (x,), (jnp.ones_like(x),))[1]

    points = jnp.asarray(place + step * offsets, dtype)
    bends = jax.jvp(slope, (points,), (jnp.ones_like(points),))[1]
    curves = [np.asarray(values, np.float64) for values in (fn(points), slope(points), bends)]
    extrapolation = np.array([-1, 3, -3, 3, -3, 1])  # from both sides, exact for parabolas
    jumps = [float(extrapolation @ d) for d in curves]
    eps = float(jnp.finfo(dtype).eps)
    scale = max(1e-30, *(float(np.max(np.abs(d))) for d in curves))
    tolerance = 64 * eps * scale * max(1.0, abs(place)) + 20 * step**3 * scale
    value, slope_jump, bend = (jump if abs(jump) > tolerance else 0.0 for jump in jumps)
    bend = bend if abs(bend) > 1e-3 * scale else 0.0
    return value, slope_jump, bend, bool(value or slope_jump or bend) or not np.isfinite(scale)


# Closed forms


def _recognise(fn: Callable[[Array], Array]) -> tuple[str, Dual] | None:
    """Name and dual of the family that has the values of the function."""
    dtype = jnp.result_type(float)
    positive = np.concatenate([np.geomspace(1e-6, 1e6, 97), np.linspace(0.1, 8.0, 80), [1.0, 2.0]])
    x = np.unique(np.concatenate([-positive, [0.0], positive])).astype(dtype)
    y = np.asarray(jax.jit(fn)(jnp.asarray(x)))
    if not np.isfinite(y[np.abs(x) <= 1]).all() or np.isnan(y[np.abs(x) <= 8]).any():
        _refuse("the function is infinite or undefined somewhere")
    if y.shape != x.shape or not np.issubdtype(y.dtype, np.floating):
        return None

    def derivatives(x: np.ndarray) -> np.ndarray:
        points = jnp.asarray(x, dtype)
        slope = _derivative(fn)
        return np.asarray(jnp.stack([fn(points), slope(points), _derivative(slope)(points)]), np.float64)

    sample = _Sample(x.astype(np.float64), y.astype(np.float64), float(jnp.finfo(y.dtype).eps), derivatives)
    with np.errstate(all="ignore"):
        for family in _FAMILIES:
            found = family(sample)
            if found is not None:
                return found
    return None


class _Sample:
    """Values y of a function at points x of all sizes, from machine precision of eps, and how to have derivatives."""

    def __init__(self, x: np.ndarray, y: np.ndarray, eps: float, derivatives: Callable[[np.ndarray], np.ndarray]):
        self.x, self.y, self.eps, self.derivatives = x, y, eps, derivatives

    def at(self, place: float) -> float:
        return float(self.y[np.argmin(np.abs(self.x - place))]) + 0.0

    @functools.cached_property
    def scale(self) -> np.ndarray:
        """Largest absolute value at points not farther from zero."""
        order = np.argsort(np.abs(self.x), kind="stable")
        largest = np.empty_like(self.y)
        largest[order] = np.maximum.accumulate(np.abs(self.y[order]))
        return np.maximum(largest, largest[::-1])

    def agrees(self, y: np.ndarray, scale: np.ndarray | None = None) -> bool:
        """Whether y is the function up to rounding; infinite values, which overflow, must agree in sign."""
        scale = self.scale if scale is None else scale
        finite = np.isfinite(self.y)
        near = np.abs(self.y - y) <= 64 * self.eps * scale + 1e-35
        over = (np.sign(y) == np.sign(self.y)) & (np.abs(y) > 1e30)
        return bool(np.all(np.where(finite, near, over)))


def _rectifier(s: _Sample) -> tuple[str, Dual] | None:
    right, left = s.at(1.0), 0.0 - s.at(-1.0)
    if (not right and not left) or not s.agrees(np.where(s.x > 0, right, left) * s.x):
        return None
    known = {(0.0, 1.0): "relu", (1.0, 1.0): "identity", (-1.0, 1.0): "abs"}
    return known.get((left, right), f"rectifier({left:.7g}, {right:.7g})"), nngp.rectifier_dual(left, right)


def _levels(s: _Sample) -> tuple[str, Dual] | None:
    right, left, away = s.at(1.0), s.at(-1.0), s.x != 0
    if right == left or not np.all(np.where(away, s.y == np.where(s.x > 0, right, left), True)):
        return None
    middle, height = (right + left) / 2, (right - left) / 2
    sign = nngp.sign_dual()

    def kernel(pairs: PairCovariance) -> PairCovariance:
        return nngp.affine_covariance(sign.kernel(pairs), height, middle)

    return f"levels({left!r}, {right!r})", Dual(kernel, sign.derivative)


def _polynomial(s: _Sample) -> tuple[str, Dual] | None:
    use = np.isfinite(s.y) & (s.scale > 0) & (s.x != 0) & (np.abs(s.x) <= 1e4)
    if not np.any(s.y[np.isfinite(s.y)]):
        return "polynomial(0)", nngp.polynomial_dual([0.0])
    for degree in range(7):
        matrix = s.x[use, None] ** np.arange(degree + 1) / s.scale[use, None]
        norms = np.linalg.norm(matrix, axis=0)
        coefficients = np.linalg.lstsq(matrix / norms, s.y[use] / s.scale[use], rcond=1e-14)[0] / norms
        coefficients = [float(c) if abs(c) > 8 * s.eps * max(abs(coefficients)) else 0.0 for c in coefficients]
        value = np.polynomial.polynomial.polyval(s.x, coefficients)
        if s.agrees(value):
            return f"polynomial({', '.join(f'{c:.7g}' for c in coefficients)})", nngp.polynomial_dual(coefficients)
    return None


def _rectified_power(s: _Sample) -> tuple[str, Dual] | None:
    for degree, side in itertools.product((2, 3, 4), (1, -1)):
        factor = s.at(side)  # (-u, -v) has the moments of (u, v)
        if factor and s.agrees(factor * np.maximum(side * s.x, 0.0) ** degree):
            dual = _scaled(nngp.rectified_monomial_dual(degree), factor)
            return f"rectified_power({degree}, {side}, {factor:.7g})", dual
    return None


def _error_function(s: _Sample) -> tuple[str, Dual] | None:
    high, low = s.at(1e6), s.at(-1e6)
    amplitude, offset = (high - low) / 2, (high + low) / 2
    if not (np.isfinite(amplitude) and amplitude):
        return None
    share = (s.y - offset) / amplitude
    middle = int(np.argmin(np.abs(share - 0.5)))
    rate = _invert(math.erf, float(share[middle])) / s.x[middle]
    offset = 0.0 if abs(offset) <= 4 * s.eps * abs(amplitude) else offset
    if not (np.isfinite(rate) and rate > 0 and s.agrees(amplitude * _erf(rate * s.x) + offset)):
        return None
    return f"erf({amplitude:.6g}, {rate:.6g}, {offset:.6g})", nngp.erf_dual(amplitude, float(rate), offset)


def _gelu(s: _Sample) -> tuple[str, Dual] | None:
    slope = s.at(1e6) / s.x[-1]
    if not (np.isfinite(slope) and slope):
        return None
    share = np.where(s.x != 0, s.y / np.where(s.x != 0, slope * s.x, 1.0), 0.5)
    middle = int(np.argmin(np.abs(share - 0.8)))
    rate = _invert(lambda t: math.erf(t / 2**0.5), 2 * float(share[middle]) - 1) / s.x[middle]
    value = slope * s.x * (1 + _erf(rate * s.x / 2**0.5)) / 2
    if not (np.isfinite(rate) and rate > 0 and s.agrees(value)):
        return None
    return f"gelu({slope:.6g}, {rate:.6g})", _scaled(nngp.gelu_dual(), slope / rate, rate)


def _exponential(s: _Sample) -> tuple[str, Dual] | None:
    amplitude = s.at(0.0)
    rates = np.log(s.y / amplitude) / s.x
    usable = np.isfinite(rates) & (np.abs(s.x) >= 1) & (np.abs(s.x) <= 8)
    if not (amplitude and usable.any()):
        return None
    rate = float(np.median(rates[usable]))
    value = amplitude * np.exp(rate * s.x)
    scale = np.abs(value) * (1 + np.abs(rate * s.x))
    if not (rate and s.agrees(np.where(scale < 1e36, value, np.sign(amplitude) * np.inf), np.maximum(scale, 1e-30))):
        return None
    return f"exp({amplitude:.6g}, {rate:.6g})", nngp.exponential_dual(amplitude, rate)


def _gaussian(s: _Sample) -> tuple[str, Dual] | None:
    amplitude = s.at(0.0)
    rates = np.log(s.y / amplitude) / s.x**2
    usable = np.isfinite(rates) & (np.abs(s.x) >= 0.5) & (np.abs(s.x) <= 3)
    if not (amplitude and usable.any()):
        return None
    rate = float(np.median(rates[usable]))
    value = amplitude * np.exp(rate * s.x**2)
    scale = np.abs(value) * (1 + np.abs(rate * s.x**2))
    if not (rate < 0 and s.agrees(value, np.maximum(scale, 1e-30))):
        return None
    return f"gaussian({amplitude:.6g}, {rate:.6g})", nngp.gaussian_dual(amplitude, rate)


def _sine(s: _Sample) -> tuple[str, Dual] | None:
    far, farther = (np.ptp(s.y[(s.x >= start) & (s.x < 100 * start)]) for start in (1e2, 1e4))
    if not (np.isfinite(s.y).all() and far < 4 * farther < 16 * far):
        return None
    # A wave, unlike anything else, has the same ratio of its second derivative to itself everywhere.
    value, slope, bend = s.derivatives(np.array([0.0, 0.11, 0.37, 0.83, 1.3, 2.9]))
    place = int(np.argmax(np.abs(value)))
    square = -bend[place] / value[place]
    if not (np.isfinite(square) and square > 0):
        return None
    rate = float(square**0.5)
    amplitude, phase = float(np.hypot(value[0], slope[0] / rate)), float(np.arctan2(value[0], slope[0] / rate))
    near = np.abs(s.x) * rate <= 0.05 / s.eps
    scale = amplitude * np.where(near, 1 + np.abs(rate * s.x), np.inf)
    if not (amplitude and np.all(np.abs(s.y) <= (1 + 64 * s.eps) * amplitude)):
        return None
    if not s.agrees(amplitude * np.sin(rate * s.x + phase), scale):
        return None
    if abs(phase) < 8 * s.eps:
        phase = 0.0
    return f"sin({amplitude:.6g}, {rate:.6g}, {phase:.6g})", nngp.sine_dual(amplitude, rate, phase)


_FAMILIES: tuple[Callable[[_Sample], tuple[str, Dual] | None], ...] = (
    _rectifier,
    _levels,
    _polynomial,
    _rectified_power,
    _error_function,
    _gelu,
    _exponential,
    _gaussian,
    _sine,
)


def _scaled(dual: Dual, amplitude: float, rate: float = 1.0) -> Dual:
    """The dual of a phi(b x)."""

    def inside(pairs: PairCovariance) -> PairCovariance:
        square = rate**2
        return PairCovariance(
            square * pairs.variance1, square * pairs.variance2, square * pairs.covariance, pairs.residual
        )

    def kernel(pairs: PairCovariance) -> PairCovariance:
        features = dual.kernel(inside(pairs))
        square = amplitude**2
        return PairCovariance(
            square * features.variance1, square * features.variance2, square * features.covariance, features.residual
        )

    return Dual(kernel, lambda pairs: (amplitude * rate) ** 2 * dual.derivative(inside(pairs)))


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(value) for value in x])


def _invert(increasing: Callable[[float], float], value: float) -> float:
    low, high = -8.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < value else (low, middle)
    return (low + high) / 2
