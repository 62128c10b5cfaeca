"""Elementwise functions of jointly Gaussian variables.

A function is recognised by its values where its moments have a closed form. All others are expanded in Hermite
polynomials (Mehler's formula); where a function is not smooth is read off its program.

The series of a function is as long as it must be for variances up to 4; where its error would show, quadrature on the
scale of the function takes its place. A function whose series does not converge at variance 1 in 1024 terms is refused,
and one that oscillates or grows too fast for quadrature has moments that are NaN at variances too large for its series.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dltheory import nngp
from dltheory._numerics import safe_sqrt
from dltheory.infinite_width._elementwise import Elementwise, density_of_nodes, is_refused, require_reach, within
from dltheory.infinite_width._kinks import find_kinks
from dltheory.infinite_width._pairs import series_moment
from dltheory.infinite_width._recognition import recognise
from dltheory.infinite_width._rules import PANEL, panel_rule
from dltheory.nngp._selection import accurate_series, select_dual
from dltheory.nngp.covariances import PairCovariance
from dltheory.nngp.dual import Dual
from dltheory.typing import Array

__all__ = ["elementwise"]


def elementwise(fn: Callable[..., Array], num_params: int = 0) -> Elementwise:
    """Describes an elementwise function: recognises a closed form by its values, else finds where it is not smooth.

    Functions without parameters are evaluated here, also while an outer function is being traced; they must not depend
    on traced values.

    Args:
        fn: ``fn(u, *params)``, acting entry by entry.
        num_params: number of parameters.

    Returns:
        The function, with its dual if it has no parameters.

    Raises:
        NotImplementedError: if the function has infinitely many jumps (`floor`, `round`, `mod`) or more than 12 kinks,
            or if it is infinite or undefined somewhere. Its moments raise it if it is too steep, or oscillates or grows
            too fast, at variance 1.

    >>> elementwise(lambda x: x * (x > 0)).name
    'relu'
    """
    if num_params:
        return Elementwise(fn, num_params)
    with jax.ensure_compile_time_eval():
        found = recognise(fn)
        kinks = find_kinks(fn)
    kinks, jumps, slope_jumps, bends = zip(*kinks, strict=True) if kinks else ((), (), (), ())
    if found is not None:
        return Elementwise(fn, 0, kinks, jumps, slope_jumps, bends, found[1], found[0])
    function = Elementwise(fn, 0, kinks, jumps, slope_jumps, bends)
    accuracy = function.accuracy
    dual = _jumping_dual(function) if any(jumps) else accurate_series(fn, kinks, accuracy)
    if is_refused(accuracy.variance) or function.profile is None:
        dual = _limited_dual(dual, accuracy.variance)
    else:
        dual = select_dual(fn, kinks, accuracy, dual, jumps=any(jumps))
    known = dataclasses.replace(function, dual=dual)
    known.__dict__.update(accuracy=accuracy, profile=function.profile)
    return known


def _limited_dual(dual: Dual, reach: float) -> Dual:
    def limited(pairs: PairCovariance) -> PairCovariance:
        require_reach(reach)
        return pairs._replace(variance1=within(pairs.variance1, reach), variance2=within(pairs.variance2, reach))

    return Dual(lambda pairs: dual.kernel(limited(pairs)), lambda pairs: dual.derivative(limited(pairs)))


def _jumping_dual(function: Elementwise) -> Dual:
    def kernel(pairs: PairCovariance) -> PairCovariance:
        def square(q: Array) -> Array:
            nodes, weights = panel_rule(
                function, q, (), num_points=PANEL * density_of_nodes(function.accuracy.num_terms)
            )
            values = function.fn(safe_sqrt(q)[..., None] * nodes) ** 2
            return jnp.sum(weights * jnp.exp(-(nodes**2) / 2) * values, axis=-1) / (2 * jnp.pi) ** 0.5

        covariance = series_moment(function, function, pairs)
        return nngp.pair_covariance(square(pairs.variance1), square(pairs.variance2), covariance)

    return Dual(kernel, lambda pairs: series_moment(function, function, pairs, slope=True))
