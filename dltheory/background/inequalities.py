"""Concentration and convexity inequalities."""

from __future__ import annotations

import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.typing import Array

__all__ = ["hoeffding_bound"]


def hoeffding_bound(widths: Array, t: Array) -> Array:
    r"""Hoeffding's bound on the upper tail of a mean of independent bounded variables.

    .. math:: P(\bar Z - \mathbb E \bar Z \ge t) \le \exp\!\Big(-\frac{2 n^2 t^2}{\sum_i (b_i - a_i)^2}\Big)

    The variables must be independent, not identically distributed. The bound is one-sided; double it for the absolute
    deviation.

    Args:
        widths: lengths b_i - a_i of the intervals, non-negative, shape [n].
        t: deviation of the mean, in the units of the variables, shape [].

    Returns:
        Probability in [0, 1], shape []; 1 for t <= 0, where the bound says nothing.

    Raises:
        ValueError: if shapes disagree.

    Statement: background.hoeffding.  Source: Hoeffding 1963, Theorem 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import background
    >>> background.hoeffding_bound(jnp.ones(50), jnp.array(0.1))
    Array(0.36787945, dtype=float32)
    """
    n = shapes(widths=(widths, "n"), t=(t, ""))["n"]
    require(widths >= 0, "`widths` must be non-negative")
    total = jnp.sum(widths**2)
    positive = (t > 0) & (total > 0)
    exponent = jnp.where(positive, 2 * (n * t) ** 2 / jnp.where(positive, total, 1.0), 0.0)
    return jnp.where((t > 0) & (total == 0), 0.0, jnp.exp(-exponent))
