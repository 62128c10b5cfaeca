"""The cheapest way to the dual of an activation that is accurate at the variances at hand."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dltheory.nngp._accuracy import Accuracy, measure
from dltheory.nngp._features import moments_change
from dltheory.nngp._profiles import derivative, profile
from dltheory.nngp.covariances import PairCovariance
from dltheory.nngp.dual import Dual
from dltheory.nngp.quadrature import quadrature_dual
from dltheory.nngp.series import series_dual
from dltheory.typing import Array, PyTree

__all__ = ["accurate_series", "beyond", "known_dual", "select_dual", "switched"]


@functools.cache
def known_dual(fn: Callable[[Array], Array], kinks: tuple[float, ...] = ()) -> Dual:
    """The dual of a function that depends on nothing traced: by series or, at large variances, by quadrature."""

    @functools.cache
    def chosen(double: bool) -> Dual:
        del double  # what is found out depends on the precision in which the function is evaluated
        with jax.ensure_compile_time_eval():
            slope_jumps = profile(derivative(fn), kinks).jumps
            accuracy = measure(fn, kinks, (0.0,) * len(kinks), slope_jumps)
        return select_dual(fn, kinks, accuracy, accurate_series(fn, kinks, accuracy))

    def now() -> Dual:
        return chosen(jnp.result_type(float).itemsize >= 8)

    return Dual(lambda pairs: now().kernel(pairs), lambda pairs: now().derivative(pairs))


def accurate_series(
    fn: Callable[[Array], Array], kinks: tuple[float, ...], accuracy: Accuracy, longer: int = 1
) -> Dual:
    """The series of as many terms as a function needs, or of so many times as many, with the nodes that they need."""
    panels = 1 + len({abs(kink) for kink in kinks} - {0.0})
    num_terms = longer * accuracy.num_terms
    nodes = max(128 * panels, 192) * math.isqrt(num_terms // 64)
    return series_dual(fn, num_terms=num_terms, kinks=kinks, num_nodes=nodes)


def select_dual(
    fn: Callable[[Array], Array], kinks: tuple[float, ...], accuracy: Accuracy, series: Dual, *, jumps: bool = False
) -> Dual:
    """A series as far as it is accurate, in double precision then a longer one, and quadrature beyond."""
    quadrature = quadrature_dual(fn, kinks=kinks)
    if math.isinf(accuracy.fine):
        return series

    @functools.cache
    def longer_series() -> Dual:
        return accurate_series(fn, kinks, accuracy, longer=4)

    def ways(dtype) -> tuple[list[float], list[Dual]]:
        if jumps or jnp.dtype(dtype).itemsize < 8 or accuracy.longer == accuracy.fine:
            return [accuracy.coarse], [series, quadrature]
        return [accuracy.fine, accuracy.longer], [series, longer_series(), quadrature]

    def kernel(pairs: PairCovariance) -> PairCovariance:
        limits, duals = ways(pairs.covariance.dtype)
        return _switched_kernel(_index(limits, pairs), [dual.kernel for dual in duals], pairs)

    def slope(pairs: PairCovariance) -> Array:
        limits, duals = ways(pairs.covariance.dtype)
        return switched(_index(limits, pairs), [dual.derivative for dual in duals], pairs)

    return Dual(kernel, slope)


def beyond(limit: float, *variances: Array) -> Array:
    """Whether any variance is larger than a limit."""
    return functools.reduce(jnp.logical_or, [jnp.any(q > limit) for q in variances])


def _index(limits: Sequence[float], pairs: PairCovariance) -> Array:
    return sum((beyond(limit, *pairs[:2]).astype(jnp.int32) for limit in limits), start=jnp.int32(0))


# To differentiate a switch backwards would take the memory, and the time to clear it, of all its branches. What is
# switched here are functions of single pairs, which have three derivatives: those are switched instead.


def switched(index: Array, functions: Sequence[Callable[[PairCovariance], Array]], pairs: PairCovariance) -> Array:
    """One of several functions of pairs, of the shape of their covariances."""

    @jax.custom_jvp
    def chosen(index: Array, pairs: PairCovariance) -> Array:
        return jax.lax.switch(index, functions, pairs)

    @chosen.defjvp
    def _(primals, tangents):
        value, changes = jax.lax.switch(primals[0], [_with_derivatives(one) for one in functions], primals[1])
        return value, _total(changes, tangents[1], value)

    return chosen(index, pairs)


def _switched_kernel(
    index: Array, kernels: Sequence[Callable[[PairCovariance], PairCovariance]], pairs: PairCovariance
) -> PairCovariance:
    @jax.custom_jvp
    def chosen(index: Array, pairs: PairCovariance) -> PairCovariance:
        return jax.lax.switch(index, kernels, pairs)

    @chosen.defjvp
    def _(primals, tangents):
        dots = tangents[1]
        value, changes = jax.lax.switch(primals[0], [_with_derivatives(one) for one in kernels], primals[1])
        first, second = changes.variance1[0] * dots.variance1, changes.variance2[1] * dots.variance2
        return value, moments_change(value, first, second, _total(changes.covariance, dots, value.covariance))

    return chosen(index, pairs)


def _with_derivatives(function: Callable[[PairCovariance], PyTree]) -> Callable[[PairCovariance], tuple]:
    """Value and derivatives by each of the three moments, [3, ...]."""

    def evaluate(pairs: PairCovariance) -> tuple:
        value, push = jax.linearize(function, pairs)

        def unit(place: int) -> PairCovariance:
            first, second, both = (jnp.full_like(x, i == place) for i, x in enumerate(pairs[:3]))
            return moments_change(pairs, first, second, both)

        units = [unit(place) for place in range(3)]
        return value, jax.vmap(push)(jax.tree.map(lambda *x: jnp.stack(x), *units))

    return evaluate


def _total(changes: Array, dots: PairCovariance, like: Array) -> Array:
    total = sum(change * dot for change, dot in zip(changes, dots[:3], strict=True))
    return jnp.broadcast_to(total, like.shape)
