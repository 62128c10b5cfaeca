"""Means of functions of one Gaussian, and second moments of functions of a Gaussian pair."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dltheory._numerics import safe_sqrt
from dltheory.infinite_width._breaks import broken_part, broken_product, find_breaks
from dltheory.infinite_width._elementwise import Elementwise, density_of_nodes, derivative, require_reach, within
from dltheory.infinite_width._rules import PANEL, broadcast, panel_rule
from dltheory.infinite_width._series import expand, mehler, project, resolved, series_tail
from dltheory.nngp._selection import beyond, switched
from dltheory.nngp._wide import mean as wide_mean
from dltheory.nngp._wide import moment
from dltheory.nngp._wide import slope as wide_slope
from dltheory.nngp.covariances import PairCovariance, correlation
from dltheory.typing import Array

__all__ = ["mean", "second_moment", "series_moment"]

_CONVERGED = 0.6  # correlation below which 64 terms are exact


def mean(function: Elementwise, q: Array, params: Sequence[Array] = ()) -> Array:
    r"""Mean of a function of a centred Gaussian of variance q.

    .. math:: E_{z \sim \mathcal N(0, 1)} f(\sqrt q z)

    Args:
        function: f.
        q: variances, any shape.
        params: parameters of f, which broadcast against `q`.

    Returns:
        Means, shape of `q` and the parameters; NaN for functions without parameters that oscillate or grow too fast for
        a variance.

    >>> from dltheory.infinite_width._functions import elementwise
    >>> mean(elementwise(jnp.exp), jnp.array(2.0)).round(3).item()  # e
    2.718
    """
    q, params = broadcast(q, params)
    accuracy, known = function.accuracy, function.profile
    require_reach(accuracy.mean_variance)

    def by_rule(q: Array) -> Array:
        num_points = PANEL * density_of_nodes(accuracy.num_terms)
        nodes, weights = panel_rule(function, q, params, num_points=num_points)
        values = function.fn(safe_sqrt(q)[..., None] * nodes, *(p[..., None] for p in params))
        return jnp.sum(weights * jnp.exp(-(nodes**2) / 2) * values, axis=-1) / (2 * jnp.pi) ** 0.5

    if known is None or math.isinf(accuracy.coarse):
        return by_rule(within(q, accuracy.mean_variance))
    return jax.lax.cond(beyond(accuracy.coarse, q), lambda q: wide_mean(known, q), by_rule, q)


def second_moment(
    f: Elementwise,
    g: Elementwise,
    pairs: PairCovariance,
    f_params: Sequence[Array] = (),
    g_params: Sequence[Array] = (),
    slope: bool = False,
) -> Array:
    r"""Second moment of two functions of a Gaussian pair, or of their slopes.

    .. math:: E f(u) g(v) = \sum_k a_k(K_{11}) \, b_k(K_{22}) \, \rho^k, \qquad
              a_k(q) = E_{z \sim \mathcal N(0, 1)} [f(\sqrt q z) \, h_k(z)]

    The series ends after 64 terms, or more for steep functions. What it lacks is extrapolated from its second half with
    the power law of kinks, so that :math:`E f(u)^2` is exact; kinks of functions without parameters count exactly. At
    variances for which this is not accurate there is quadrature, for functions without parameters.

    Args:
        f, g: the functions.
        pairs: second moments of (u, v).
        f_params: parameters of f, which broadcast against the variances of u.
        g_params: parameters of g, which broadcast against the variances of v.
        slope: whether to take :math:`E f'(u) g'(v)` instead, with the derivatives of automatic differentiation: 0 at a
            jump.

    Returns:
        Second moments, shape of the covariances; NaN where a function oscillates or grows too fast for a variance.

    >>> from dltheory import nngp
    >>> from dltheory.infinite_width._functions import elementwise
    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.5]))
    >>> second_moment(elementwise(lambda u: u), elementwise(jax.nn.relu), pairs)
    Array(0.25, dtype=float32)
    """
    if f.dual is not None and (f is g or f.fn is g.fn or (f.name is not None and f.name == g.name)):
        return f.dual.derivative(pairs) if slope else f.dual.kernel(pairs).covariance
    for function in (f, g):
        require_reach(function.accuracy.variance)

    def series(pairs: PairCovariance) -> Array:
        return series_moment(f, g, pairs, f_params, g_params, slope)

    limits = f.accuracy.coarse, g.accuracy.coarse
    first, second = f.profile, g.profile
    if first is None or second is None or math.isinf(min(limits)):
        return series(pairs)
    needed = beyond(limits[0], pairs.variance1) | beyond(limits[1], pairs.variance2)

    def quadrature(pairs: PairCovariance) -> Array:
        profiles = [wide_slope(first), wide_slope(second)] if slope else [first, second]
        return moment(*profiles, pairs)

    return switched(needed.astype(jnp.int32), [series, quadrature], pairs)


def series_moment(
    f: Elementwise,
    g: Elementwise,
    pairs: PairCovariance,
    f_params: Sequence[Array] = (),
    g_params: Sequence[Array] = (),
    slope: bool = False,
) -> Array:
    """Mehler's series, in which jumps and the ramps that make kinks are replaced by their exact moments."""
    rho = correlation(pairs)
    for function in (f, g):
        require_reach(function.accuracy.variance)
    num_terms = max(f.accuracy.num_terms, g.accuracy.num_terms)
    num_points = PANEL * density_of_nodes(num_terms)
    q1, f_params = broadcast(within(pairs.variance1, f.accuracy.variance), f_params)
    q2, g_params = broadcast(within(pairs.variance2, g.accuracy.variance), g_params)
    breaks = find_breaks(f, q1, f_params, slope), find_breaks(g, q2, g_params, slope)
    rules = panel_rule(f, q1, f_params, num_points=num_points), panel_rule(g, q2, g_params, num_points=num_points)
    functions = [derivative(function.fn) if slope else function.fn for function in (f, g)]
    first = expand(functions[0], q1, f_params, rules[0], num_terms)
    second = expand(functions[1], q2, g_params, rules[1], num_terms)
    value, late = mehler(first, second, rho)
    if not all(len(place) for place, _, _ in breaks):
        rough = [any(function.jumps) or slope for function in (f, g)]
        power = ((3 if rough[0] else 5) + (3 if rough[1] else 5)) / 4
        rests = first.rest, second.rest
        tail = series_tail(late, (first.late, second.late), rests, rho, pairs.residual, power, num_terms)
        return jnp.where(resolved(first, second, rests), value + tail, jnp.nan)
    broken1, broken2 = (
        project(broken_part(broken, nodes), nodes, node_weights, num_terms)
        for broken, (nodes, node_weights) in zip(breaks, rules, strict=True)
    )
    broken_value, _ = mehler(broken1, broken2, rho)
    correction = broken_product(*breaks, pairs) - broken_value
    rests = first.rest - broken1.rest, second.rest - broken2.rest
    tail = series_tail(late, (first.late, second.late), rests, rho, pairs.residual, 2.5, num_terms)
    value = value + jnp.where(jnp.abs(rho) < _CONVERGED, 0.0, correction + tail)
    return jnp.where(resolved(first, second, rests), value, jnp.nan)
