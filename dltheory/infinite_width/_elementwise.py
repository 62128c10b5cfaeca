"""Elementwise functions of Gaussians and of known parameters, with what is known of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._series import TERMS
from dltheory.nngp._accuracy import UNLIMITED, Accuracy, measure
from dltheory.nngp._profiles import Profile, profile
from dltheory.nngp._wide import slope
from dltheory.nngp.dual import Dual
from dltheory.typing import Array

__all__ = ["Elementwise", "density_of_nodes", "derivative", "is_refused", "require_reach", "within"]

_TAME = {"relu", "identity", "abs", "rectifier", "levels", "polynomial", "rectified_power"}
_REFUSED = 1.0  # a function must have accurate moments at least up to this variance


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
    def profile(self) -> Profile | None:
        """What quadrature at large variances must know of it; None if a series reaches farther, or with parameters."""
        if self.num_params:
            return None
        found = profile(self.fn, self.kinks)
        reach = found.width * min(p.support(jnp.result_type(float)).limit for p in (found, slope(found)))
        return found if reach**2 >= self.accuracy.variance else None

    @functools.cached_property
    def accuracy(self) -> Accuracy:
        """How many terms its series has, and up to which variance it is accurate."""
        if self.num_params or (self.name or "").split("(")[0] in _TAME:
            return UNLIMITED
        with jax.ensure_compile_time_eval():
            return measure(self.fn, self.kinks, self.jumps, self.slope_jumps)


def is_refused(reach: float) -> bool:
    """Whether a function whose moments are accurate up to a variance is not dealt with at all."""
    return reach < _REFUSED


def require_reach(reach: float) -> None:
    """Refuses functions without moments at variance 1."""
    if is_refused(reach):
        raise UnsupportedError(
            "the function is too steep, oscillates too fast or grows too fast for its moments to be computed at "
            f"variances of {_REFUSED:g}"
        )


def within(q: Array, reach: float) -> Array:
    """Variances, NaN where they are too large."""
    return jnp.where(q <= reach, q, jnp.nan) if math.isfinite(reach) else q


def derivative(fn: Callable[..., Array]) -> Callable[..., Array]:
    """The derivative by the Gaussian."""

    def derivative(u: Array, *params: Array) -> Array:
        return jax.jvp(lambda u: fn(u, *params), (u,), (jnp.ones_like(u),))[1]

    return derivative


def density_of_nodes(num_terms: int) -> int:
    """How many times as many nodes series of more than 64 terms need."""
    return math.isqrt(num_terms // TERMS)
