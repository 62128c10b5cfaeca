"""Covariances of pairs of Gaussians, carried so that nearly equal and nearly opposite pairs keep their digits."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory._numerics import safe_sqrt
from dltheory.nngp._angles import as_correlation, inverse_sqrt, magnitude, safe_ratio
from dltheory.typing import Array, ArrayLike

__all__ = [
    "PairCovariance",
    "affine_covariance",
    "correlation",
    "half_squared_distance",
    "input_covariance",
    "linear_kernel",
    "pair_covariance",
]

_NEAR = 1e-3  # below this 1 - |correlation|, the rounding of a matrix product shows in the angle
_DIRECT = 64  # inputs of so few dimensions are compared entry by entry


class PairCovariance(NamedTuple):
    r"""Second moments of pairs (u, v) of centred variables, entry by entry.

    The fields broadcast against each other at the same rank: variances [n, 1] and [1, m] with covariances [n, m], for
    instance. The last field is redundant in exact arithmetic only: :math:`1 - \rho^2` computed from the others has
    an error of machine epsilon, and so the angle between u and v one of its square root.

    Attributes:
        variance1: E u^2.
        variance2: E v^2.
        covariance: E u v.
        residual: 1 - rho^2 with the correlation rho, the fraction of either variance that the other variable leaves
            unexplained: 0 for equal, opposite or proportional variables. 1 where a variance vanishes.
    """

    variance1: Array
    variance2: Array
    covariance: Array
    residual: Array


def pair_covariance(variance1: Array, variance2: Array, covariance: Array) -> PairCovariance:
    r"""Pairs from their variances and covariances alone.

    .. math:: 1 - \rho^2 = 1 - \frac{\operatorname{cov}(u, v)^2}{\operatorname{var} u \operatorname{var} v}

    Args:
        variance1, variance2, covariance: second moments that broadcast against each other, of the same rank.

    Returns:
        The pairs. Correlations beyond +-1 by rounding are brought back.

    Raises:
        ValueError: if the shapes do not broadcast, or the ranks differ.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.pair_covariance(*jnp.array([1.0, 4.0, 1.0])).residual
    Array(0.75, dtype=float32)
    """
    require_broadcast(variance1=variance1, variance2=variance2, covariance=covariance)
    rho = as_correlation(covariance * inverse_sqrt(variance1) * inverse_sqrt(variance2))
    size = safe_sqrt(variance1) * safe_sqrt(variance2)
    return PairCovariance(variance1, variance2, rho * size, (1 - rho) * (1 + rho))


def linear_kernel(x1: Array, x2: Array | None = None, *, gamma: ArrayLike = 1.0) -> Array:
    r"""Covariance of the outputs of one unit of a random linear layer.

    .. math:: \operatorname{Cov}[(W x)_i, (W x')_j] = \delta_{ij} \frac{\gamma^2 \langle x, x' \rangle}{d},
              \qquad W_{ij} \sim \mathcal N(0, \gamma^2 / d)

    Args:
        x1: inputs, shape [n, d].
        x2: inputs, shape [m, d]; `x1` by default.
        gamma: scale of the weights, shape [].

    Returns:
        Covariances, shape [n, m].

    Raises:
        ValueError: if shapes disagree.

    Statement: nngp.linear_layer.  Source: Lee et al. 2018, Section 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.linear_kernel(jnp.array([[1.0, 1.0], [1.0, -1.0]]), gamma=2.0)
    Array([[4., 0.],
           [0., 4.]], dtype=float32)
    """
    x2 = x1 if x2 is None else x2
    d = shapes(x1=(x1, "n d"), x2=(x2, "m d"), gamma=(gamma, ""))["d"]
    return jnp.square(gamma) * (x1 @ x2.T) / d


def input_covariance(x1: Array, x2: Array | None = None) -> PairCovariance:
    r"""Mean products of the coordinates of inputs: the covariance of one unit of a linear layer with unit weights.

    .. math:: K_{ij} = \frac{\langle x_i, x'_j \rangle}{d}, \qquad
              1 - \rho_{ij}^2 = (1 - |\rho|)(1 + |\rho|), \quad
              1 - |\rho_{ij}| = \tfrac12 \left\| \frac{x_i}{\|x_i\|} \mp \frac{x'_j}{\|x'_j\|} \right\|^2

    Products come from one matrix multiplication. Where two inputs are nearly parallel, their distance is computed again
    from the difference of their directions: one pass over the matrix for every near neighbour that a row has.

    Args:
        x1: inputs, shape [n, d].
        x2: inputs, shape [m, d]; `x1` by default, whose equality with itself is then exact.

    Returns:
        The pairs: variances [n, 1] and [1, m], covariances and residuals [n, m].

    Raises:
        ValueError: if shapes disagree.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.input_covariance(jnp.array([[1.0, 1.0], [1.0, 1.001]])).residual[0, 1] > 0
    Array(True, dtype=bool)
    """
    same = x2 is None
    other = x1 if x2 is None else x2
    d = shapes(x1=(x1, "n d"), x2=(other, "m d"))["d"]
    require(d > 0, "`x1` must have at least one coordinate")
    dtype = jnp.result_type(float, x1, other)  # integers become numbers
    return _input_covariance(jnp.asarray(x1, dtype), jnp.asarray(other, dtype), same)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _input_covariance(x1: Array, x2: Array, same: bool) -> PairCovariance:
    unit1, norm1 = _directions(x1)
    unit2, norm2 = (unit1, norm1) if same else _directions(x2)
    rho, residual = _alignment(unit1, unit2, same)
    root = x1.shape[1] ** 0.5
    scale1, scale2 = norm1 / root, norm2.T / root
    return PairCovariance(scale1**2, scale2**2, scale1 * rho * scale2, residual)


@_input_covariance.defjvp
def _input_covariance_jvp(same, primals, tangents):
    """Products have derivatives at zero inputs too, which directions do not."""
    (x1, x2), (x1_dot, x2_dot) = primals, tangents
    pairs = _input_covariance(x1, x2, same)
    (unit1, norm1), (unit2, norm2) = _directions(x1), _directions(x2)
    d = x1.shape[1]
    turn1, turn2 = safe_ratio(x1_dot, norm1), safe_ratio(x2_dot, norm2)
    along1, along2 = (jnp.sum(u * t, axis=1, keepdims=True) for u, t in ((unit1, turn1), (unit2, turn2)))
    rho = jnp.clip(unit1 @ unit2.T, -1.0, 1.0)
    rho_dot = turn1 @ unit2.T + unit1 @ turn2.T - rho * (along1 + along2.T)
    change = PairCovariance(
        variance1=2 * jnp.sum((x1 / d) * x1_dot, axis=1, keepdims=True),
        variance2=2 * jnp.sum((x2 / d) * x2_dot, axis=1, keepdims=True).T,
        covariance=x1_dot @ (x2 / d).T + (x1 / d) @ x2_dot.T,
        residual=-2 * rho * rho_dot,
    )
    return pairs, change


def affine_covariance(pairs: PairCovariance, sigma_w: ArrayLike, sigma_b: ArrayLike) -> PairCovariance:
    r"""The pairs after a dense layer of random weights and biases.

    .. math::
        K' &= \sigma_w^2 K + \sigma_b^2 \\
        K'_{11} K'_{22} - K'^2_{12} &= \sigma_w^4 (K_{11} K_{22} - K_{12}^2)
            + \sigma_w^2 \sigma_b^2 (K_{11} + K_{22} - 2 K_{12})

    The second line, a sum of non-negative terms, is what keeps the residual accurate.

    Args:
        pairs: second moments of the features, any shapes that broadcast.
        sigma_w: scale of the weights, shape [] or broadcasting.
        sigma_b: scale of the biases, shape [] or broadcasting.

    Returns:
        Second moments of the pre-activations.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.affine_covariance(nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.0])), 1.0, 1.0)
    PairCovariance(variance1=Array(2., ...), ..., covariance=Array(1., ...), residual=Array(0.75, ...))
    """
    return affine_moments(pairs, jnp.square(sigma_w), jnp.square(sigma_b))


def affine_moments(pairs: PairCovariance, weight: Array | float, bias: Array) -> PairCovariance:
    """`affine_covariance` with the squares of the scales."""
    variance1, variance2 = weight * pairs.variance1 + bias, weight * pairs.variance2 + bias
    inverse1, inverse2 = safe_ratio(jnp.ones_like(variance1), variance1), safe_ratio(jnp.asarray(weight), variance2)
    from_weights = (weight * pairs.variance1 * inverse1) * (pairs.variance2 * inverse2)
    # Quotients are each at most 1, so that no product of variances overflows.
    root1, root2 = safe_sqrt(pairs.variance1), safe_sqrt(pairs.variance2)
    size = root1 * root2
    apart = safe_ratio(size, size + magnitude(pairs.covariance)) * size * pairs.residual
    apart = jnp.where(pairs.covariance > 0, apart, size - pairs.covariance) + (root1 - root2) ** 2 / 2
    residual = from_weights * pairs.residual + (2 * bias * inverse1) * (apart * inverse2)
    empty = (variance1 == 0) | (variance2 == 0)
    residual = jnp.where(empty, 1.0, jnp.minimum(residual, 1.0))
    return PairCovariance(variance1, variance2, weight * pairs.covariance + bias, residual)


def correlation(pairs: PairCovariance) -> Array:
    r"""Correlation, 0 where a variance vanishes.

    .. math:: \rho = \frac{K_{12}}{\sqrt{K_{11} K_{22}}}

    Args:
        pairs: second moments, any shapes that broadcast.

    Returns:
        Correlations in [-1, 1], shape of the covariances.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.correlation(nngp.pair_covariance(*jnp.array([1.0, 4.0, 1.0])))
    Array(0.5, dtype=float32)
    """
    size = safe_sqrt(pairs.variance1) * safe_sqrt(pairs.variance2)
    return as_correlation(safe_ratio(pairs.covariance, size))


def half_squared_distance(pairs: PairCovariance) -> Array:
    r"""Half the mean squared difference of the two variables, without cancellation.

    .. math:: \tfrac12 E (u - v)^2 = \tfrac12 (\sqrt{K_{11}} - \sqrt{K_{22}})^2 + \sqrt{K_{11} K_{22}} (1 - \rho)

    Args:
        pairs: second moments, any shapes that broadcast.

    Returns:
        Half squared distances, shape of the covariances.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.half_squared_distance(nngp.pair_covariance(*jnp.array([1.0, 4.0, 1.0])))
    Array(1.5, dtype=float32)
    """
    root1, root2 = safe_sqrt(pairs.variance1), safe_sqrt(pairs.variance2)
    difference = safe_ratio(pairs.variance1 - pairs.variance2, root1 + root2)
    return difference**2 / 2 + root1 * root2 * correlation_gap(pairs)


def correlation_gap(pairs: PairCovariance) -> Array:
    """1 - rho in [0, 2], relatively accurate near rho = 1."""
    rho = correlation(pairs)
    return jnp.where(rho > 0, pairs.residual / (1 + magnitude(rho)), 1 - rho)


def require_broadcast(**arguments: ArrayLike) -> None:
    """Demands that arrays have the same rank and broadcast against each other; the message names the first misfit."""
    (reference, first), *others = arguments.items()
    shape = jnp.shape(first)
    for name, array in others:
        fits = jnp.ndim(array) == len(shape)
        fits = fits and all(a == b or 1 in (a, b) for a, b in zip(shape, jnp.shape(array), strict=True))
        got = f"{list(jnp.shape(array))} and {list(shape)}"
        require(fits, f"`{name}` must broadcast against `{reference}` at the same rank, got {got}")
        shape = jnp.broadcast_shapes(shape, jnp.shape(array))


def _directions(x: Array) -> tuple[Array, Array]:
    """Unit vectors [n, d] and norms [n, 1]; zero vectors stay zero."""
    square = jnp.sum(x**2, axis=1, keepdims=True)
    info = jnp.finfo(x.dtype)
    low, high = jnp.sqrt(info.tiny) * x.shape[1], jnp.sqrt(info.max)
    ordinary = jnp.all((square > low) & (square < high))

    def scaled(x: Array) -> tuple[Array, Array]:  # so that squares neither overflow nor underflow
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=1, keepdims=True))
        scale = jnp.where((largest > 0) & (largest < jnp.inf), largest, 1.0)
        length = safe_sqrt(jnp.sum((x / scale) ** 2, axis=1, keepdims=True))
        return safe_ratio(x / scale, length), scale * length

    def direct(x: Array) -> tuple[Array, Array]:
        return x * inverse_sqrt(square), safe_sqrt(square)

    return jax.lax.cond(ordinary, direct, scaled, x)


def _alignment(unit1: Array, unit2: Array, same: bool) -> tuple[Array, Array]:
    """Correlations rho [n, m] of unit (or zero) vectors and 1 - rho^2, accurate for nearly parallel ones."""
    product = unit1 @ unit2.T
    gap = 1 - jnp.abs(product)
    near = gap < _NEAR
    if same:
        diagonal = jnp.eye(len(unit1), dtype=bool) & near
        gap, near = jnp.where(diagonal, 0.0, gap), near & ~diagonal
    if unit1.shape[1] <= _DIRECT:
        gap = jnp.where(near, _distance(unit1[:, None, :], unit2[None, :, :], product), gap)
    else:
        gap = _refine(gap, near, product, unit1, unit2)
    return jnp.where(product >= 0, 1 - gap, gap - 1), gap * (2 - gap)


def _distance(a: Array, b: Array, product: Array) -> Array:
    """Half the squared distance of unit vectors (last axis), or of one and the negative of the other."""
    sign = jnp.where(product >= 0, 1.0, -1.0)[..., None].astype(a.dtype)
    return jnp.sum((a - sign * b) ** 2, axis=-1) / 2


def _refine(gap: Array, near: Array, product: Array, unit1: Array, unit2: Array) -> Array:
    """Recomputes gaps from differences of directions where `near`."""
    rows = jnp.arange(len(unit1))

    def refine(_, carry):  # the first unfinished neighbour of every row
        gap, near = carry
        column = jnp.argmax(near, axis=1)
        refined = _distance(unit1, unit2[column], product[rows, column])
        kept = jnp.where(near[rows, column], refined, gap[rows, column])
        return gap.at[rows, column].set(kept), near.at[rows, column].set(False)

    def one_by_one(gap):
        return jax.lax.fori_loop(0, most, refine, (gap, near))[0]

    def row_by_row(gap):
        def row(arguments):
            vector, products, gaps, near_here = arguments
            return jnp.where(near_here, _distance(vector[None, :], unit2, products), gaps)

        return jax.lax.map(row, (unit1, product, gap, near))

    most = jnp.max(jnp.sum(near, axis=1), initial=0)
    kind = jnp.where(most == 0, 0, jnp.where(most > unit1.shape[1] // 4, 2, 1))
    return jax.lax.switch(kind, (lambda gap: gap, one_by_one, row_by_row), gap)
