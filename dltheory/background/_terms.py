"""What divergences and log-probabilities share: terms without cancellation, with finite derivatives, and a check."""

from __future__ import annotations

import jax.numpy as jnp

from dltheory._checks import require
from dltheory.background.elementary import log1p_linear_error
from dltheory.typing import Array

__all__ = ["clipped_log", "relative_entropy_term", "require_distribution"]


def clipped_log(x: Array) -> Array:
    """Log x, for x below the smallest normal number the logarithm of that.

    So 0 log 0 is 0, and the derivative of x log x at 0 is a large finite number of the right sign.

    >>> round(float(clipped_log(jnp.array(0.0))), 2)
    -87.34
    """
    x = jnp.asarray(x) * 1.0  # of a floating dtype that JAX computes in: NumPy's smallest number may be 0 there
    return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))


def relative_entropy_term(x: Array, y: Array, difference: Array) -> Array:
    r"""The non-negative function x log(x / y) + y - x, to full relative precision also where x is close to y.

    Sums of it over the cells of two distributions are their divergence; Loader (2000) builds log-probabilities of
    counts from it, under the name bd0.

    Args:
        x: non-negative, shape [...].
        y: non-negative, shape [...].
        difference: y - x, given because the caller may know it without rounding, shape [...].

    Returns:
        Shape [...]; y at x = 0, infinity where y = 0 < x.

    >>> relative_entropy_term(jnp.array(1.0), jnp.array(2.0), jnp.array(1.0))
    Array(0.3068528, dtype=float32)
    """
    near = jnp.abs(difference) < x / 2
    center = jnp.where(near, x, 1.0)
    close = -center * log1p_linear_error(jnp.where(near, difference, 0.0) / center)

    tiny = jnp.finfo(difference.dtype).tiny
    ratio = jnp.maximum(x / jnp.where(y > 0, y, 1.0), tiny)  # below that the other terms are all that counts
    apart = x * jnp.log(jnp.where(near, 1.0, ratio)) + difference
    return jnp.where(near, close, jnp.where((x > 0) & (y <= 0), jnp.inf, apart))


def require_distribution(**arguments: Array) -> None:
    """Demands that vectors of the given names are probabilities that sum to one, under `debug.checked`.

    >>> require_distribution(p=jnp.array([0.5, 0.5]))
    """
    for name, p in arguments.items():
        tolerance = jnp.finfo(jnp.result_type(p, float)).eps ** 0.5
        adds_up = jnp.abs(jnp.sum(p) - 1) <= tolerance
        require(jnp.all(p >= 0) & adds_up, f"`{name}` must be non-negative and sum to 1")
