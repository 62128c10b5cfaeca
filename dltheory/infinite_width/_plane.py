"""Functions of two independent Gaussians: means, and second moments of two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dltheory._numerics import safe_sqrt
from dltheory.infinite_width._elementwise import Elementwise
from dltheory.infinite_width._rules import PLANE_EDGES, PLANE_PANEL, broadcast, density, panel_rule
from dltheory.infinite_width._series import power_tail, project
from dltheory.nngp._angles import safe_ratio
from dltheory.nngp.covariances import PairCovariance, correlation
from dltheory.typing import Array

__all__ = ["plane_mean", "plane_second_moment"]


_PLANE_BATCH = 64  # inputs whose coefficients in the plane are computed at once
_PLANE_TERMS = 32


def plane_mean(function: Elementwise, q1: Array, q2: Array, params: Sequence[Array] = ()) -> Array:
    r"""Mean of a function of two independent centred Gaussians u and w.

    .. math:: E f(\sqrt{q_u} z, \sqrt{q_w} y), \qquad z, y \sim \mathcal N(0, 1)

    Args:
        function: f; its first parameter is the second Gaussian: ``fn(u, w, *params)``.
        q1, q2: variances of u and w, which broadcast at the same rank.
        params: further parameters, which broadcast against the variances.

    Returns:
        Means, of the broadcast shape.

    >>> from dltheory.infinite_width._functions import elementwise
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
    along: int | None = None,
) -> Array:
    r"""Second moment of functions of two independent Gaussian pairs (u, v) and (w, x), or of their derivatives.

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
        along: 0 for :math:`E \, \partial_u f(u, w) \, \partial_v g(v, x)`, 1 for that with :math:`\partial_w` and
            :math:`\partial_x`.

    Returns:
        Second moments, shape of the covariances.

    >>> from dltheory import nngp
    >>> from dltheory.infinite_width._functions import elementwise
    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.5]))
    >>> product = elementwise(lambda u, w: u * w, num_params=1)
    >>> [plane_second_moment(product, product, pairs, pairs, along=i).round(4).item() for i in (None, 0, 1)]
    [0.25, 0.5, 0.5]
    """
    f_fn, g_fn = (one.fn if along is None else _partial(one.fn, along) for one in (f, g))
    a = _plane_expand(f, f_fn, first.variance1, second.variance1, f_params)
    same = f is g and not f_params and first.variance1 is first.variance2 and second.variance1 is second.variance2
    b = a if same else _plane_expand(g, g_fn, first.variance2, second.variance2, g_params)
    return _plane_mehler(a, b, first, second, 2.5 if along is None else 1.5)


def _partial(fn: Callable[..., Array], position: int) -> Callable[..., Array]:
    def derivative(*args: Array) -> Array:
        def along(x: Array) -> Array:
            return fn(*args[:position], x, *args[position + 1 :])

        return jax.jvp(along, (args[position],), (jnp.ones_like(args[position]),))[1]

    return derivative


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
        nodes, weights = panel_rule(plain, q1, (), PLANE_EDGES, PLANE_PANEL)
        u = safe_sqrt(q1) * nodes
        inner_q, inner_params = broadcast(q2, [u, *(jnp.broadcast_to(p, u.shape) for p in params)])
        across, across_weights = panel_rule(swapped, inner_q, inner_params, PLANE_EDGES, PLANE_PANEL)
        arguments = (p[:, None] for p in inner_params)
        values = fn(next(arguments), safe_sqrt(q2) * across, *arguments)
        return reduce(jnp.broadcast_to(values, across.shape), (nodes, weights), (across, across_weights))

    flat = jax.lax.map(one, arrays, batch_size=_PLANE_BATCH)
    return flat.T.reshape(-1, *shape)


def _plane_average(values: Array, along: tuple[Array, Array], across: tuple[Array, Array]) -> Array:
    return jnp.sum(along[1] * density(along[0]) * jnp.sum(across[1] * density(across[0]) * values, axis=-1))[None]


def _plane_project(values: Array, along: tuple[Array, Array], across: tuple[Array, Array]) -> Array:
    total = _plane_average(values**2, along, across)[0]
    rows = project(values, *across, _PLANE_TERMS).terms
    nodes, weights = (jnp.broadcast_to(x, rows.shape) for x in along)
    terms = project(rows, nodes, weights, _PLANE_TERMS).terms  # [along, across]
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
        odd = power_tail(residual, size, power)
        return power_tail(residual, size - 1, power), jnp.where(rho >= 0, odd, -odd)

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
