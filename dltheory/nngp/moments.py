"""How far from Gaussian a law is."""

from __future__ import annotations

import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.nngp._angles import safe_ratio
from dltheory.typing import Array

__all__ = ["excess_kurtosis"]


def excess_kurtosis(samples: Array) -> Array:
    r"""Excess kurtosis of a sample: 0 for a Gaussian, positive for a scale mixture of Gaussians.

    .. math:: \frac{\frac1n \sum_i (x_i - \bar x)^4}{\left( \frac1n \sum_i (x_i - \bar x)^2 \right)^2} - 3

    The output of a layer of width m with Gaussian weights has
    :math:`\frac3m \left( \frac{E \phi^4}{(E \phi^2)^2} - 1 \right)`.

    Args:
        samples: draws, shape [n], n >= 2.

    Returns:
        Excess kurtosis, shape []; its bias is of order 1/n. 0 if all draws are equal.

    Raises:
        ValueError: if shapes disagree or there are fewer than two draws.

    Statement: nngp.finite_width_nongaussian.  Source: Fisher 1930; Yaida 2020, Section 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> nngp.excess_kurtosis(jnp.array([-1.0, 1.0]))
    Array(-2., dtype=float32)
    """
    n = shapes(samples=(samples, "n"))["n"]
    require(n >= 2, "`samples` must hold at least two draws")
    centred = samples - jnp.mean(samples)
    scale = jnp.max(jnp.abs(centred))
    squares = safe_ratio(centred, scale) ** 2  # which neither overflow nor underflow
    return safe_ratio(jnp.mean(squares**2), jnp.mean(squares) ** 2, 3.0) - 3
