"""What quadrature must know of a function: what it becomes far from zero, and which panels resolve the rest.

Everything here is found out once, on numbers, before the function is used.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf

from dltheory.typing import Array

__all__ = ["Profile", "Support", "derivative", "num_nodes", "profile", "times_derivative"]

_LARGEST = 60  # binary logarithm of the largest argument that is tried
_MOST_PANELS = 48
_CHUNK = 4096  # arguments at which a function is evaluated at once, so that it is compiled once
_RADIUS = 8.0  # standard deviations


class Support(NamedTuple):
    """Where the rest of a function is not 0, to the accuracy of a floating-point type; in units of its width.

    Attributes:
        edges: of panels in each of which the rest is resolved by one rule.
        cuts: those of them that are there because the function is not smooth, or steep, away from zero.
        limit: the largest standard deviation for which the panels suffice.
    """

    edges: tuple[float, ...]
    cuts: tuple[float, ...]
    limit: float

    @property
    def reach(self) -> float:
        """The largest argument."""
        return max(-self.edges[0], self.edges[-1])


@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    r"""A function as what it is far from zero, in smooth form, and a rest that vanishes there.

    .. math:: f(w x) = a + b x + c \operatorname{erf}(x / \sqrt2) + d \, x \operatorname{erf}(x / \sqrt2) + r(x)

    Attributes:
        fn: f.
        width: w, the scale on which it changes.
        level, slope, step, bend: a, b, c and d.
        double, single: where the rest is not 0, in either precision.
        kinks: where the function or its slope jumps, in its own units.
        jumps: by how much the value jumps there.
        parity: 1 if it is even, -1 if it is odd, else 0.
    """

    fn: Callable[[Array], Array]
    width: float
    level: float
    slope: float
    step: float
    bend: float
    double: Support
    single: Support
    kinks: tuple[float, ...]
    jumps: tuple[float, ...]
    parity: int

    def support(self, dtype) -> Support:
        """Where the rest is not 0."""
        return self.double if jnp.dtype(dtype).itemsize >= 8 else self.single

    @property
    def sides(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Levels and slopes of what the function is far to the left, and far to the right."""
        return (self.level - self.step, self.slope - self.bend), (self.level + self.step, self.slope + self.bend)

    def far(self, x: Array) -> Array:
        """The smooth form of what it is far from zero."""
        if not (self.step or self.bend):
            return self.level + self.slope * x
        (a, b), (c, d) = self.sides
        sign = erf(x * 0.5**0.5)
        outside = (a + b * x) * ((1 - sign) / 2) + (c + d * x) * ((1 + sign) / 2)  # either is exact on its side
        return jnp.where(jnp.abs(x) > 2, outside, self.level + self.slope * x + (self.step + self.bend * x) * sign)

    def rest(self, x: Array, whole: Array | bool = False) -> Array:
        """What is left of the function, or all of it."""
        return self.fn(self.width * x) - jnp.where(whole, 0.0, self.far(x))


def num_nodes(dtype) -> int:
    """How many nodes a rule has in every panel."""
    return 32 if jnp.dtype(dtype).itemsize >= 8 else 20


def derivative(fn: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The derivative f'."""
    return lambda u: jax.jvp(fn, (u,), (jnp.ones_like(u),))[1]


def times_derivative(fn: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The product u f'(u)."""
    return lambda u: jax.jvp(fn, (u,), (u,))[1]


def profile(fn: Callable[[Array], Array], kinks: Sequence[float] = (), width: float | None = None) -> Profile:
    """Finds out about a function that acts entry by entry and does not depend on traced values.

    Args:
        fn: the function.
        kinks: where it is not smooth, or jumps.
        width: the scale on which it changes, found if it is not given.
    """
    return _profile(fn, tuple(sorted(kinks)), width, str(jnp.result_type(float)))


@functools.lru_cache(maxsize=256)
def _profile(fn: Callable[[Array], Array], kinks: tuple[float, ...], width: float | None, dtype: str) -> Profile:
    with jax.ensure_compile_time_eval():
        return _found_profile(fn, kinks, width, dtype)


def _found_profile(fn: Callable[[Array], Array], kinks: tuple[float, ...], width: float | None, dtype: str) -> Profile:

    def values(u: np.ndarray) -> np.ndarray:
        chunks = np.resize(u.ravel(), (-(-u.size // _CHUNK), _CHUNK))
        y = [np.asarray(fn(jnp.asarray(chunk, dtype)), np.float64) for chunk in chunks]
        return np.concatenate(y)[: u.size].reshape(u.shape)

    size = 2.0 ** np.arange(-20, _LARGEST, 0.125)
    u = np.concatenate([-size[::-1], [0.0], size])
    y = values(u)
    finite = np.isfinite(y)
    limit = float(np.min(np.abs(u[~finite]), initial=math.inf))
    right, left = y[u > 0], y[u < 0][::-1]
    level, slope, step, bend = _far_away(size, right, left) if limit == math.inf else (0.0, 0.0, 0.0, 0.0)
    if width is None:
        width = _width(u, y, (level, slope, step, bend))
    slope, bend = slope * width, bend * width
    x = u / width

    def far(x: np.ndarray) -> np.ndarray:
        sign = _erf(x / 2**0.5)
        on_left, on_right = level - step + (slope - bend) * x, level + step + (slope + bend) * x
        return on_left * ((1 - sign) / 2) + on_right * ((1 + sign) / 2)

    def rest(x: np.ndarray) -> np.ndarray:
        return values(width * x) - far(x)

    scale = max(float(np.max(np.abs(y[np.abs(u) <= 1]))), 1e-30)

    def size_of(x: np.ndarray) -> np.ndarray:
        """How large the function is, against which errors are judged."""
        return np.maximum(np.abs(values(width * x)), scale)

    supports = []
    places = [kink / width for kink in kinks]
    for tolerance, points in ((1e-11, 32), (5e-7, 20)):
        tolerance = max(tolerance, 5e-7 if jnp.dtype(dtype).itemsize < 8 else 0.0)
        wide = 1.0 if level or slope or step or bend else np.maximum(np.abs(x[finite]), 1.0)  # whose integrals count
        large = np.abs(x)[finite][wide * np.abs(y - far(x))[finite] > tolerance * size_of(x[finite])]
        reach = 1.1 * max(float(np.max(large, initial=1.0)), *(1.5 * abs(p) for p in places), 1.0)
        end = 0.9 * limit / width  # beyond it the function is not known
        supports.append(_support(rest, size_of, places, min(reach, end), points, end))
    jumps = tuple(_jump(values, kink, dtype) for kink in kinks)
    even, odd = np.array_equal(right, left), np.array_equal(right, -left) and not y[len(size)]
    mirrored = np.allclose(kinks, [-k for k in reversed(kinks)])
    parity = (1 if even else -1 if odd else 0) if mirrored else 0
    double, single = supports
    return Profile(fn, width, level, slope, step, bend, double, single, kinks, jumps, parity)


def _far_away(size: np.ndarray, right: np.ndarray, left: np.ndarray) -> tuple[float, float, float, float]:
    """Coefficients of the smooth form; 0 if the function does not become a straight line on either side."""
    on_right, on_left = _line(size, right), _line(size, left)
    if on_right is None or on_left is None:
        return 0.0, 0.0, 0.0, 0.0
    (a, b), (c, d) = on_right, on_left
    return (a + c) / 2, (b - d) / 2, (a - c) / 2, (b + d) / 2


def _line(u: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
    """Level and slope, in the distance from zero, of a function far away."""
    slope = (y[-1] - y[-9]) / (u[-1] - u[-9])
    if abs(slope) * u[-1] < 1e-3 * abs(y[-1]):
        slope = 0.0
    place = int(np.searchsorted(u, 100.0)) if slope else -1
    level = y[place] - slope * u[place]
    if slope and abs(level) < 1e-5 * abs(y[place]):
        level = 0.0
    late = u > 2.0**20
    largest = np.maximum(np.abs(level) + np.abs(slope) * u, 1e-3 * np.max(np.abs(y[~late])))
    fits = np.all(np.abs(y - level - slope * u)[late] <= 1e-3 * largest[late])
    return (float(level), float(slope)) if fits else None


def _width(u: np.ndarray, y: np.ndarray, parts: tuple[float, float, float, float]) -> float:
    """The power of two nearest to where what is left of the function falls to its half."""
    level, slope, step, bend = parts
    near = np.abs(u) <= 2.0**10
    rest = np.abs(y - level - slope * u - np.sign(u) * (step + bend * u))[near]
    place = float(np.max(np.abs(u[near])[rest >= np.max(rest) / 2], initial=0.0))
    return 2.0 ** round(math.log2(1.5 * place)) if 2.0**-12 < place < 2.0**6 else 1.0


def _erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[float])(x)


def _jump(values: Callable[[np.ndarray], np.ndarray], place: float, dtype) -> float:
    """By how much a function jumps, extrapolated from both sides."""
    step = (2e-4 if jnp.dtype(dtype).itemsize >= 8 else 4e-3) * max(1.0, abs(place))
    y = values(place + step * np.array([-3, -2, -1, 1, 2, 3]))
    jump = float(np.array([-1, 3, -3, 3, -3, 1]) @ y)
    scale = float(np.max(np.abs(y)))
    return jump if abs(jump) > (64 * float(jnp.finfo(dtype).eps) + 1e-4) * scale else 0.0


def _support(
    rest: Callable[[np.ndarray], np.ndarray],
    size_of: Callable[[np.ndarray], np.ndarray],
    kinks: Sequence[float],
    reach: float,
    points: int,
    end: float,
) -> Support:
    """Panels in which the rest is a polynomial to the accuracy of a rule, halved on a logarithmic scale until it is."""
    nodes, to_coefficients = _legendre(2 * points)
    tolerance = 1e-5 if points >= 32 else 1e-3
    steps = [8.0 * 30.0**power for power in range(40) if 8.0 * 30.0**power < reach / 2]
    edges = sorted({-reach, 0.0, reach, *kinks, *steps, *(-step for step in steps)})
    refined: list[float] = []
    resolved: dict[tuple[float, float], bool] = {}
    for _ in range(40):
        panels = [panel for panel in itertools.pairwise(edges) if panel not in resolved]
        if not panels:
            break
        low, high = (np.array(side)[:, None] for side in zip(*panels, strict=True))
        x = low + (high - low) * (1 + nodes) / 2
        late = np.max(np.abs(rest(x) @ to_coefficients[:, points - 3 :]), axis=1)
        resolved |= dict(zip(panels, late <= tolerance * np.max(size_of(x), axis=1), strict=True))
        for a, b in panels:
            if not resolved[a, b] and len(edges) < _MOST_PANELS and b - a > 1e-3 * min(1.0, max(-a, b)):
                edges.append(_middle(a, b))
                refined.append(edges[-1])
        edges.sort()
    rough = [min(abs(a), abs(b)) for (a, b) in itertools.pairwise(edges) if not resolved.get((a, b), True)]
    limit = min(rough, default=end)
    # Finer ones than halving towards zero gives follow the function, wherever it is.
    fine = {
        edge
        for panel in itertools.pairwise(edges)
        if 0 < min(map(abs, panel)) > max(map(abs, panel)) / 3.5
        for edge in panel
    }
    cuts = sorted({*kinks, *fine.intersection(refined)})
    return Support(tuple(map(float, edges)), tuple(map(float, cuts)), limit / _RADIUS)


def _middle(low: float, high: float) -> float:
    a, b = (math.copysign(math.log1p(abs(x)), x) for x in (low, high))
    middle = (a + b) / 2
    return math.copysign(math.expm1(abs(middle)), middle)


@functools.cache
def _legendre(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes, and what makes coefficients of a polynomial of its values there, [points, degrees]."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    table = np.polynomial.legendre.legvander(nodes, points - 1)
    return nodes, weights[:, None] * table * (np.arange(points) + 0.5)
