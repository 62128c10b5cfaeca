"""The mass matrix of Hamiltonian dynamics on flat vectors, given by its inverse: scalar, diagonal or dense."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from dltheory._checks import require, shapes
from dltheory.typing import Array, Scalar

__all__ = ["Mass", "mass_factor", "mass_for", "scaled", "scaled_back"]


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
    factor = _cholesky(inverse)
    require(jnp.all(jnp.isfinite(factor)), "`inverse_mass_matrix` must be positive definite")
    return Mass(
        lambda momentum: inverse @ momentum,
        # Of covariance (L L^T)^{-1}.
        lambda noise: solve_triangular(factor, noise.astype(factor.dtype), trans=1, lower=True).astype(noise.dtype),
    )


def mass_factor(inverse_mass_matrix: Scalar | Array) -> Array:
    """A factor L of the inverse mass matrix, M^{-1} = L L^T: a number, a diagonal [p] or a lower triangle [p, p].

    With momenta y = L^{-T} z, z is standard normal, its energy is |z|^2 / 2 and its velocity L z, whatever the mass.
    NaN unless the matrix is positive definite; its shape is for `mass_for` to check.
    """
    inverse = jnp.asarray(inverse_mass_matrix)
    square = inverse.ndim == 2 and inverse.shape[0] == inverse.shape[1]
    return _cholesky(inverse) if square else jnp.sqrt(inverse)


def _cholesky(matrix: Array) -> Array:
    """NaN unless the matrix is positive definite; in single precision at least, as there is none in half."""
    return jnp.linalg.cholesky(matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32)))


def scaled(factor: Array, vector: Array) -> Array:
    """L v of a vector [p]."""
    return factor @ vector if factor.ndim == 2 else factor * vector


def scaled_back(factor: Array, vector: Array) -> Array:
    """L^T v of a vector [p]."""
    return factor.T @ vector if factor.ndim == 2 else factor * vector
