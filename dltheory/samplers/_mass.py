"""The mass matrix of Hamiltonian dynamics on flat vectors, given by its inverse: scalar, diagonal or dense."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from dltheory._checks import require, shapes
from dltheory.typing import Array, Scalar

__all__ = ["Mass", "mass_for"]


class Mass(NamedTuple):
    """What the dynamics need of a mass matrix M.

    Attributes:
        velocity: momentum [p] -> M^{-1} momentum [p].
        momentum: standard normal vector [p] -> momentum of covariance M [p].
    """

    velocity: Callable[[Array], Array]
    momentum: Callable[[Array], Array]


def mass_for(inverse_mass_matrix: Scalar | Array, like: Array) -> Mass:
    """The mass matrix whose inverse is a number, a diagonal [p] or a matrix [p, p], for vectors like `like` [p]."""
    p, rank = like.size, jnp.ndim(inverse_mass_matrix)
    shapes(inverse_mass_matrix=(inverse_mass_matrix, {0: "", 2: f"{p} {p}"}.get(rank, f"{p}")))
    inverse = jnp.asarray(inverse_mass_matrix, like.dtype)
    if rank < 2:
        if isinstance(inverse_mass_matrix, int | float):
            require(inverse_mass_matrix > 0, f"`inverse_mass_matrix` must be positive, got {inverse_mass_matrix}")
        else:
            require(jnp.all(inverse > 0), "`inverse_mass_matrix` must be positive")
        # Not the square root of a negative number, whose NaN is the sign that the matrix is not one of masses.
        return Mass(lambda momentum: inverse * momentum, lambda noise: noise / jnp.sqrt(inverse))
    factor = jnp.linalg.cholesky(inverse)  # NaN unless positive definite
    require(jnp.all(jnp.isfinite(factor)), "`inverse_mass_matrix` must be positive definite")
    return Mass(
        lambda momentum: inverse @ momentum,
        lambda noise: solve_triangular(factor, noise, trans=1, lower=True),  # covariance (L L^T)^{-1}
    )
