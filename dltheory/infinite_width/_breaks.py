"""Steps and ramps, which make jumps and kinks, and their exact mean products."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from dltheory._numerics import safe_sqrt
from dltheory.infinite_width._elementwise import Elementwise, derivative
from dltheory.infinite_width._kinks import RADIUS, switch_points
from dltheory.infinite_width._rules import FAR, density, standardized
from dltheory.nngp._angles import angle, magnitude, safe_ratio
from dltheory.nngp.covariances import PairCovariance, correlation
from dltheory.typing import Array

__all__ = ["Breaks", "broken_part", "broken_product", "find_breaks"]


Breaks = tuple[Array, Array, Array]  # [breaks, ...]: place in standard deviations, jump, jump of the derivative by it


def find_breaks(function: Elementwise, q: Array, params: Sequence[Array], slope: bool) -> Breaks:
    """Where the function or its slope breaks, and how."""
    orders = (1, 2) if slope else (0, 1)
    if function.num_params:
        place = switch_points(function, q, params)
        jumps = [_jump_at(function, q, params, place, order) for order in orders]
        place, jump, slope_jump = (jnp.moveaxis(x, -1, 0) for x in (place, *jumps))
    else:
        strengths = [(function.jumps, function.slope_jumps, function.bends)[order] for order in orders]
        kinks = [i for i in range(len(function.kinks)) if strengths[0][i] or strengths[1][i]]
        place = [jnp.clip(standardized(function.kinks[i], q, RADIUS), -RADIUS, RADIUS) for i in kinks]
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
        fn = derivative(fn)
    values = jnp.broadcast_to(fn(u, *(p[..., None, None] for p in params)), u.shape)
    jump = values @ jnp.asarray([1, -2, 2, -1], q.dtype)
    real = usable & (jnp.abs(place) < 8) & (jnp.abs(jump) > 1e-3 * jnp.max(jnp.abs(values), axis=-1))
    return jax.lax.stop_gradient(jnp.where(real, jump, 0.0))


def broken_part(breaks: Breaks, nodes: Array) -> Array:
    """Sum of steps and ramps at the nodes [..., nodes]."""
    total = jnp.zeros_like(nodes)
    for place, jump, ramp in zip(*breaks, strict=True):
        beyond = nodes - place[..., None]
        total = total + jnp.where(beyond > 0, jump[..., None] + ramp[..., None] * beyond, 0.0)
    return total


def broken_product(first: Breaks, second: Breaks, pairs: PairCovariance) -> Array:
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
        return jnp.where(sine > 0, safe_ratio(distance, sine), jnp.sign(distance) * FAR)

    at_h, at_k = excess(h, k), excess(k, h)
    both = _orthant_probability(h, k, rho, residual)
    density_h, density_k = density(h), density(k)
    tail_h, tail_k = density_h * ndtr(-at_h), density_k * ndtr(-at_k)
    # Moments of x, y and x y over the orthant.
    x, y = tail_h + rho * tail_k, rho * tail_h + tail_k
    xy = rho * both + rho * (h * tail_h + k * tail_k) + sine * density_h * density(at_h)
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
        return total + weight * jnp.exp(-jnp.minimum(exponent, FAR)), None

    points, weights = np.polynomial.legendre.leggauss(24 if rho.dtype.itemsize >= 8 else 16)
    points = (1 + points) / 2
    nodes, weights = points**2, points * weights  # denser at equal x and y, where the integrand may start late
    rule = jnp.asarray(nodes, rho.dtype), jnp.asarray(weights, rho.dtype)
    total, _ = jax.lax.scan(add_node, jnp.zeros_like(rho), rule)
    like = ndtr(-jnp.maximum(h, folded)) - theta * total / (2 * jnp.pi)
    return jnp.where(rho >= 0, like, ndtr(-h) - like)
