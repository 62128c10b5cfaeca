"""Claims about the logarithm near one, the geometric series and determinants."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import background
from experiments.claim import Axes, Claim, Variant, generator
from experiments.curves import Curve
from experiments.judges import AtMost, Equal, Slope

__all__ = ["CLAIMS"]

# The logarithm near one.

_SIZES = np.geomspace(1e-3, 0.9, 40)
_SMALL = 2.0 ** -np.arange(3, 13)

_log1p_error = jax.jit(background.log1p_linear_error)


def _log1p_errors(_):
    return {f"x {sign} 0": Curve(np.abs(_log1p_error(s * _SIZES)), _SIZES) for sign, s in ((">", 1), ("<", -1))}


def _log1p_bounds(_):
    return {"x > 0": _SIZES**2 / 2, "x < 0": _SIZES**2 / (2 * (1 - _SIZES))}


# The geometric series.

_FEW, _MANY = np.arange(11), np.arange(41)

_limit = jax.jit(background.geometric_limit)
_partial_sums = jax.jit(jax.vmap(background.geometric_partial_sum, in_axes=(None, 0)))


def _summed(ratios, exponents):
    return {f"r = {r:g}": Curve(np.cumsum(r**exponents), exponents) for r in ratios}


def _closed_form(ratios, exponents):
    return {f"r = {r:g}": _partial_sums(jnp.asarray(r), jnp.asarray(exponents)) for r in ratios}


def _inside(form):
    return form((-0.9, 0.5, 0.9), _MANY)


def _outside(form):
    return form((-2.0, 1.0, 1.5), _FEW)


def _remainders(_):
    """What a partial sum leaves out, summed term by term."""
    result = {}
    for r in (-0.9, 0.5, 0.97):
        terms = r ** np.arange(2000.0)
        result[f"r = {r:g}"] = Curve(np.abs(np.cumsum(terms[::-1])[::-1][_MANY + 1]), _MANY)
    return result


def _remainder_formula(shift):
    return {f"r = {r:g}": np.abs(r ** (_MANY + shift) * _limit(jnp.asarray(r))) for r in (-0.9, 0.5, 0.97)}


# Determinants.

_SHIFTS = np.linspace(-3, 3, 41)


def _matrices(key, _):
    """For each dimension a pencil A(s) = A + s I, whose determinant changes sign at the eigenvalues, and a matrix B."""
    rng = generator(key)
    return {
        d: (rng.normal(size=(d, d)) + _SHIFTS[:, None, None] * np.eye(d), rng.normal(size=(d, d))) for d in (2, 7, 30)
    }


_product = jax.jit(jax.vmap(background.logdet_product, in_axes=(0, None)))


def _compressed(determinants):
    """Determinants x as sgn(x) log(1 + |x|) / d: a number of moderate size that has both sign and magnitude."""
    return {
        f"d = {d}": Curve(sign * np.logaddexp(0, logabsdet) / d, _SHIFTS)
        for d, (sign, logabsdet) in determinants.items()
    }


def _of_product(matrices):
    return _compressed({d: np.linalg.slogdet(a @ b) for d, (a, b) in matrices.items()})


def _of_sum(matrices):
    return _compressed({d: np.linalg.slogdet(a + b) for d, (a, b) in matrices.items()})


def _product_of_dets(matrices):
    return _compressed({d: map(np.asarray, _product(a, b)) for d, (a, b) in matrices.items()})


def _of_inverse(matrices):
    return _compressed({d: np.linalg.slogdet(np.linalg.inv(a / 4)) for d, (a, _) in matrices.items()})


def _of_transpose(matrices):
    return _compressed({d: np.linalg.slogdet(a.mT / 4) for d, (a, _) in matrices.items()})


def _inverse_of_det(matrices):
    factors = {d: _product(a, np.eye(d) / 4) for d, (a, _) in matrices.items()}
    return _compressed({d: (np.asarray(sign), -np.asarray(logabsdet)) for d, (sign, logabsdet) in factors.items()})


CLAIMS = (
    Claim(
        "background.log1p_approx",
        says="The error of the approximation stays below the second-order bounds.",
        measure=_log1p_errors,
        predict=_log1p_bounds,
        judge=AtMost(),
        control=Variant(
            "the bound for x > 0 on both sides",
            predict=lambda _: {"x > 0": _SIZES**2 / 2, "x < 0": _SIZES**2 / 2},
        ),
        axes=Axes("|x|", "|log(1 + x) - x|", log="xy"),
    ),
    Claim(
        "background.log1p_approx",
        part="order",
        says="The error is of second order in x.",
        measure=lambda _: Curve(np.abs(_log1p_error(_SMALL)), _SMALL),
        predict=lambda _: 2.0,
        judge=Slope(tolerance=0.02),
        control=Variant("log(1 + x) approximated by 0", measure=lambda _: Curve(np.log1p(_SMALL), _SMALL)),
        axes=Axes("x", "|log(1 + x) - x|", log="xy"),
    ),
    Claim(
        "background.geometric_series",
        says="The closed form equals the sum of the powers.",
        measure=lambda _: _inside(_summed),
        predict=lambda _: _inside(_closed_form),
        judge=Equal(),
        control=Variant("the exponent is n, not n + 1", predict=lambda _: _inside(lambda r, n: _closed_form(r, n - 1))),
        axes=Axes("n", "partial sum"),
    ),
    Claim(
        "background.geometric_series",
        part="any ratio",
        says="The closed form also holds where the series diverges, and at r = 1 in the limit.",
        measure=lambda _: _outside(_summed),
        predict=lambda _: _outside(_closed_form),
        judge=Equal(),
        control=Variant(
            "the formula of the limit, which needs |r| < 1",
            predict=lambda _: {"r = -2": 1 / 3, "r = 1": np.inf, "r = 1.5": -2.0},
        ),
        axes=Axes("n", "partial sum"),
    ),
    Claim(
        "background.geometric_series",
        part="remainder",
        says="What the partial sum leaves out is the limit times the next power.",
        measure=_remainders,
        predict=lambda _: _remainder_formula(shift=1),
        judge=Equal(),
        control=Variant("times the last power", predict=lambda _: _remainder_formula(shift=0)),
        axes=Axes("n", "limit - partial sum", log="y"),
    ),
    Claim(
        "background.geometric_series",
        part="rate",
        says="The remainder decays exponentially, at the rate log |r|.",
        measure=_remainders,
        predict=lambda _: {f"r = {r:g}": np.log(np.abs(r)) for r in (-0.9, 0.5, 0.97)},
        judge=Slope(tolerance=1e-3, log="y"),
        control=Variant("the rate of the ratio 1/2 for all", predict=lambda _: np.log(0.5)),
        axes=Axes("n", "limit - partial sum", log="y"),
    ),
    Claim(
        "background.det_product",
        says="The determinant of AB is the product of the determinants, in sign and logarithm.",
        setup=_matrices,
        measure=_of_product,
        predict=_product_of_dets,
        judge=Equal(rtol=1e-10, atol=1e-10),
        control=Variant("the determinant of A + B", measure=_of_sum),
        axes=Axes("s, where A = A$_0$ + s I", "sgn(det) log(1 + |det|) / d"),
    ),
    Claim(
        "background.det_product",
        part="inverse",
        says="The determinant of the inverse is the inverse of the determinant.",
        setup=_matrices,
        measure=_of_inverse,
        predict=_inverse_of_det,
        judge=Equal(rtol=1e-10, atol=1e-10),
        control=Variant("the determinant of the transpose", measure=_of_transpose),
        axes=Axes("s, where A = (A$_0$ + s I) / 4", "sgn(det) log(1 + |det|) / d"),
    ),
)
