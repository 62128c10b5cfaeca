"""Functions whose moments have a closed form, recognised by their values."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import nngp
from dltheory.infinite_width._elementwise import derivative
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.nngp.covariances import PairCovariance
from dltheory.nngp.dual import Dual
from dltheory.typing import Array

__all__ = ["recognise"]


def recognise(fn: Callable[[Array], Array]) -> tuple[str, Dual] | None:
    """Name and dual of the family that has the values of the function."""
    dtype = jnp.result_type(float)
    positive = np.concatenate([np.geomspace(1e-6, 1e6, 97), np.linspace(0.1, 8.0, 80), [1.0, 2.0]])
    x = np.unique(np.concatenate([-positive, [0.0], positive])).astype(dtype)
    y = np.asarray(jax.jit(fn)(jnp.asarray(x)))
    if not np.isfinite(y[np.abs(x) <= 1]).all() or np.isnan(y[np.abs(x) <= 8]).any():
        raise UnsupportedError("the function is infinite or undefined somewhere")
    if y.shape != x.shape or not np.issubdtype(y.dtype, np.floating):
        return None

    def derivatives(x: np.ndarray) -> np.ndarray:
        points = jnp.asarray(x, dtype)
        slope = derivative(fn)
        return np.asarray(jnp.stack([fn(points), slope(points), derivative(slope)(points)]), np.float64)

    sample = _Sample(x.astype(np.float64), y.astype(np.float64), float(jnp.finfo(y.dtype).eps), derivatives)
    with np.errstate(all="ignore"):
        for family in _FAMILIES:
            found = family(sample)
            if found is not None:
                return found
    return None


class _Sample:
    """Values y of a function at points x of all sizes, from machine precision of eps, and how to have derivatives."""

    def __init__(self, x: np.ndarray, y: np.ndarray, eps: float, derivatives: Callable[[np.ndarray], np.ndarray]):
        self.x, self.y, self.eps, self.derivatives = x, y, eps, derivatives

    def at(self, place: float) -> float:
        return float(self.y[np.argmin(np.abs(self.x - place))]) + 0.0

    @functools.cached_property
    def scale(self) -> np.ndarray:
        """Largest absolute value at points not farther from zero."""
        order = np.argsort(np.abs(self.x), kind="stable")
        largest = np.empty_like(self.y)
        largest[order] = np.maximum.accumulate(np.abs(self.y[order]))
        return np.maximum(largest, largest[::-1])

    def agrees(self, y: np.ndarray, scale: np.ndarray | None = None) -> bool:
        """Whether y is the function up to rounding; infinite values, which overflow, must agree in sign."""
        scale = self.scale if scale is None else scale
        finite = np.isfinite(self.y)
        near = np.abs(self.y - y) <= 64 * self.eps * scale + 1e-35
        over = (np.sign(y) == np.sign(self.y)) & (np.abs(y) > 1e30)
        return bool(np.all(np.where(finite, near, over)))


def _rectifier(s: _Sample) -> tuple[str, Dual] | None:
    right, left = s.at(1.0), 0.0 - s.at(-1.0)
    if (not right and not left) or not s.agrees(np.where(s.x > 0, right, left) * s.x):
        return None
    known = {(0.0, 1.0): "relu", (1.0, 1.0): "identity", (-1.0, 1.0): "abs"}
    return known.get((left, right), f"rectifier({left:.7g}, {right:.7g})"), nngp.rectifier_dual(left, right)


def _levels(s: _Sample) -> tuple[str, Dual] | None:
    right, left, away = s.at(1.0), s.at(-1.0), s.x != 0
    if right == left or not np.all(np.where(away, s.y == np.where(s.x > 0, right, left), True)):
        return None
    middle, height = (right + left) / 2, (right - left) / 2
    sign = nngp.sign_dual()

    def kernel(pairs: PairCovariance) -> PairCovariance:
        return nngp.affine_covariance(sign.kernel(pairs), height, middle)

    return f"levels({left!r}, {right!r})", Dual(kernel, sign.derivative)


def _polynomial(s: _Sample) -> tuple[str, Dual] | None:
    use = np.isfinite(s.y) & (s.scale > 0) & (s.x != 0) & (np.abs(s.x) <= 1e4)
    if not np.any(s.y[np.isfinite(s.y)]):
        return "polynomial(0)", nngp.polynomial_dual([0.0])
    for degree in range(7):
        matrix = s.x[use, None] ** np.arange(degree + 1) / s.scale[use, None]
        norms = np.linalg.norm(matrix, axis=0)
        coefficients = np.linalg.lstsq(matrix / norms, s.y[use] / s.scale[use], rcond=1e-14)[0] / norms
        coefficients = [float(c) if abs(c) > 8 * s.eps * max(abs(coefficients)) else 0.0 for c in coefficients]
        value = np.polynomial.polynomial.polyval(s.x, coefficients)
        if s.agrees(value):
            return f"polynomial({', '.join(f'{c:.7g}' for c in coefficients)})", nngp.polynomial_dual(coefficients)
    return None


def _rectified_power(s: _Sample) -> tuple[str, Dual] | None:
    for degree, side in itertools.product((2, 3, 4), (1, -1)):
        factor = s.at(side)  # (-u, -v) has the moments of (u, v)
        if factor and s.agrees(factor * np.maximum(side * s.x, 0.0) ** degree):
            dual = _scaled(nngp.rectified_monomial_dual(degree), factor)
            return f"rectified_power({degree}, {side}, {factor:.7g})", dual
    return None


def _error_function(s: _Sample) -> tuple[str, Dual] | None:
    high, low = s.at(1e6), s.at(-1e6)
    amplitude, offset = (high - low) / 2, (high + low) / 2
    if not (np.isfinite(amplitude) and amplitude):
        return None
    share = (s.y - offset) / amplitude
    middle = int(np.argmin(np.abs(share - 0.5)))
    rate = _invert(math.erf, float(share[middle])) / s.x[middle]
    offset = 0.0 if abs(offset) <= 4 * s.eps * abs(amplitude) else offset
    if not (np.isfinite(rate) and rate > 0 and s.agrees(amplitude * _erf(rate * s.x) + offset)):
        return None
    return f"erf({amplitude:.6g}, {rate:.6g}, {offset:.6g})", nngp.erf_dual(amplitude, float(rate), offset)


def _gelu(s: _Sample) -> tuple[str, Dual] | None:
    slope = s.at(1e6) / s.x[-1]
    if not (np.isfinite(slope) and slope):
        return None
    share = np.where(s.x != 0, s.y / np.where(s.x != 0, slope * s.x, 1.0), 0.5)
    middle = int(np.argmin(np.abs(share - 0.8)))
    rate = _invert(lambda t: math.erf(t / 2**0.5), 2 * float(share[middle]) - 1) / s.x[middle]
    value = slope * s.x * (1 + _erf(rate * s.x / 2**0.5)) / 2
    if not (np.isfinite(rate) and rate > 0 and s.agrees(value)):
        return None
    return f"gelu({slope:.6g}, {rate:.6g})", _scaled(nngp.gelu_dual(), slope / rate, rate)


def _exponential(s: _Sample) -> tuple[str, Dual] | None:
    amplitude = s.at(0.0)
    rates = np.log(s.y / amplitude) / s.x
    usable = np.isfinite(rates) & (np.abs(s.x) >= 1) & (np.abs(s.x) <= 8)
    if not (amplitude and usable.any()):
        return None
    rate = float(np.median(rates[usable]))
    value = amplitude * np.exp(rate * s.x)
    scale = np.abs(value) * (1 + np.abs(rate * s.x))
    if not (rate and s.agrees(np.where(scale < 1e36, value, np.sign(amplitude) * np.inf), np.maximum(scale, 1e-30))):
        return None
    return f"exp({amplitude:.6g}, {rate:.6g})", nngp.exponential_dual(amplitude, rate)


def _gaussian(s: _Sample) -> tuple[str, Dual] | None:
    amplitude = s.at(0.0)
    rates = np.log(s.y / amplitude) / s.x**2
    usable = np.isfinite(rates) & (np.abs(s.x) >= 0.5) & (np.abs(s.x) <= 3)
    if not (amplitude and usable.any()):
        return None
    rate = float(np.median(rates[usable]))
    value = amplitude * np.exp(rate * s.x**2)
    scale = np.abs(value) * (1 + np.abs(rate * s.x**2))
    if not (rate < 0 and s.agrees(value, np.maximum(scale, 1e-30))):
        return None
    return f"gaussian({amplitude:.6g}, {rate:.6g})", nngp.gaussian_dual(amplitude, rate)


def _sine(s: _Sample) -> tuple[str, Dual] | None:
    far, farther = (np.ptp(s.y[(s.x >= start) & (s.x < 100 * start)]) for start in (1e2, 1e4))
    if not (np.isfinite(s.y).all() and far < 4 * farther < 16 * far):
        return None
    # A wave, unlike anything else, has the same ratio of its second derivative to itself everywhere.
    value, slope, bend = s.derivatives(np.array([0.0, 0.11, 0.37, 0.83, 1.3, 2.9]))
    place = int(np.argmax(np.abs(value)))
    square = -bend[place] / value[place]
    if not (np.isfinite(square) and square > 0):
        return None
    rate = float(square**0.5)
    amplitude, phase = float(np.hypot(value[0], slope[0] / rate)), float(np.arctan2(value[0], slope[0] / rate))
    near = np.abs(s.x) * rate <= 0.05 / s.eps
    scale = amplitude * np.where(near, 1 + np.abs(rate * s.x), np.inf)
    if not (amplitude and np.all(np.abs(s.y) <= (1 + 64 * s.eps) * amplitude)):
        return None
    if not s.agrees(amplitude * np.sin(rate * s.x + phase), scale):
        return None
    if abs(phase) < 8 * s.eps:
        phase = 0.0
    return f"sin({amplitude:.6g}, {rate:.6g}, {phase:.6g})", nngp.sine_dual(amplitude, rate, phase)


_FAMILIES: tuple[Callable[[_Sample], tuple[str, Dual] | None], ...] = (
    _rectifier,
    _levels,
    _polynomial,
    _rectified_power,
    _error_function,
    _gelu,
    _exponential,
    _gaussian,
    _sine,
)


def _scaled(dual: Dual, amplitude: float, rate: float = 1.0) -> Dual:
    """The dual of a phi(b x)."""

    def inside(pairs: PairCovariance) -> PairCovariance:
        square = rate**2
        return PairCovariance(
            square * pairs.variance1, square * pairs.variance2, square * pairs.covariance, pairs.residual
        )

    def kernel(pairs: PairCovariance) -> PairCovariance:
        features = dual.kernel(inside(pairs))
        square = amplitude**2
        return PairCovariance(
            square * features.variance1, square * features.variance2, square * features.covariance, features.residual
        )

    return Dual(kernel, lambda pairs: (amplitude * rate) ** 2 * dual.derivative(inside(pairs)))


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(value) for value in x])


def _invert(increasing: Callable[[float], float], value: float) -> float:
    low, high = -8.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < value else (low, middle)
    return (low + high) / 2
