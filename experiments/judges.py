"""The judges: rules, fixed before the run, that turn measured and predicted numbers into a verdict.

A judge sees numbers only. Each has three answers. `confirmed` and `refuted` are given when the numbers leave no doubt;
whatever lies between (rounding or a real difference? too few trials?) is `inconclusive`.

All Monte-Carlo judges share one family-wise error rate: were every statement of the sheet true, the probability that
any of them is refuted by bad luck is at most `FAMILY_ERROR`. Each claim gets an equal part of it, however many cells
it compares.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from scipy import stats

from experiments.curves import Curve, Curves

__all__ = [
    "ERROR_PER_CLAIM",
    "FAMILY_ERROR",
    "AtLeast",
    "AtMost",
    "Equal",
    "Judge",
    "Judgement",
    "Mean",
    "MeanAtMost",
    "Ordering",
    "ProbabilityAtMost",
    "Slope",
    "Verdict",
    "clopper_pearson",
    "criterion",
    "fit_slope",
    "joint_quantile",
]

FAMILY_ERROR = 1e-3
_MONTE_CARLO_CLAIMS = 1000  # an upper limit for the whole sheet, so that a new claim does not move the old verdicts
ERROR_PER_CLAIM = FAMILY_ERROR / _MONTE_CARLO_CLAIMS
_GREY = 1e3  # a deviation up to this many tolerances may still be rounding


class Verdict(StrEnum):
    """What became of a claim."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


class Judgement(NamedTuple):
    """A verdict and the numbers behind it.

    Attributes:
        verdict: confirmed, refuted or inconclusive.
        reason: one sentence with the decisive numbers.
        margin: how far inside (positive) or outside (negative) the criterion, as a fraction of the criterion's width.
        measured: the measured number at the decisive place.
        predicted: the predicted number there.
        standard_error: of the measured number, or None if it is exact.
        tightness: for bounds, the largest measured / bound: 1 is attained, near 0 is vacuous.
    """

    verdict: Verdict
    reason: str
    margin: float
    measured: float
    predicted: float
    standard_error: float | None = None
    tightness: float | None = None


class Judge(Protocol):
    """A rule with fixed tolerances: measured and predicted curves in, judgement out."""

    def __call__(self, measured: Curves, predicted: Curves, /) -> Judgement:
        """Judges; raises ValueError if the two do not have the same names and shapes."""
        ...


def criterion(judge: Any) -> dict[str, Any]:
    """The judge's rule and its tolerances as plain data, for records."""
    return {"judge": type(judge).__name__, **dataclasses.asdict(judge)}


@dataclasses.dataclass(frozen=True)
class Equal:
    """Every measured number equals the predicted one: |m - p| <= atol + rtol |p|; equal infinities are equal."""

    rtol: float = 1e-10
    atol: float = 0.0

    def __call__(self, measured: Curves, predicted: Curves, /) -> Judgement:
        """Compares the worst cell with the tolerance."""
        m, p = _flat(measured, predicted)
        with np.errstate(invalid="ignore"):
            error = np.where(m == p, 0.0, np.abs(m - p))
            excess = _ratio(error, self.allowance(p))
        worst = int(np.argmax(excess))
        reason = f"largest deviation {error[worst]:.3g}, {excess[worst]:.3g} of the tolerance, in {m.size} numbers"
        return Judgement(_by_excess(excess[worst]), reason, 1 - excess[worst], m[worst], p[worst])

    def allowance(self, p: np.ndarray) -> np.ndarray:
        """The deviation that each predicted number allows."""
        return self.atol + self.rtol * np.where(np.isfinite(p), np.abs(p), 0.0)


@dataclasses.dataclass(frozen=True)
class AtMost:
    """No measured number exceeds the predicted bound, up to rounding: m <= p + atol + rtol max(|m|, |p|)."""

    rtol: float = 1e-9
    atol: float = 0.0
    sign: ClassVar[int] = 1

    def __call__(self, measured: Curves, predicted: Curves, /) -> Judgement:
        """Looks for the worst violation; reports how tight the bound was."""
        m, p = _flat(measured, predicted)
        with np.errstate(invalid="ignore"):
            over = np.where(m == p, 0.0, self.sign * (m - p))
        size = np.maximum(np.abs(m), np.abs(p))
        slack = self.atol + self.rtol * np.where(np.isfinite(size), size, 0.0)
        excess = np.where(over <= 0, 0.0, _ratio(over, slack))
        with np.errstate(invalid="ignore"):
            relative = np.where(np.isinf(over), np.sign(over), over / np.where(size > 0, size, 1.0))
        tightness = _tightness(m, p) if self.sign > 0 else _tightness(p, m)
        worst = int(np.argmax(excess)) if excess.any() else int(np.argmax(relative))
        relation = "<=" if self.sign > 0 else ">="
        broken = int(np.sum(excess > 1))
        reason = (
            f"{m[worst]:.6g} {relation} {p[worst]:.6g} is the closest of {m.size}"
            if not broken
            else f"{broken} of {m.size} break the bound; worst: {m[worst]:.6g} {relation} {p[worst]:.6g}"
        )
        return Judgement(_by_excess(excess[worst]), reason, -relative[worst], m[worst], p[worst], tightness=tightness)


@dataclasses.dataclass(frozen=True)
class AtLeast(AtMost):
    """No measured number falls below the predicted bound, up to rounding."""

    sign: ClassVar[int] = -1


@dataclasses.dataclass(frozen=True)
class Slope:
    """The slope of a straight line through the measured points equals the predicted slope within `tolerance`.

    Points are taken on the logarithmic axes named in `log` ("xy", "x", "y" or ""). The slope's standard error is the
    larger of the regression's own and the one propagated from the points. `side` says whether a smaller ("at most")
    or larger ("at least") slope is as good. The prediction is one number for each curve.
    """

    tolerance: float = 0.1
    log: str = "xy"
    side: str = "equal"

    def __call__(self, measured: Curves, predicted: Curves, /) -> Judgement:
        """Fits every curve and judges the worst one."""
        judgements = []
        for name, curve, target in _pairs(measured, predicted):
            if target.y.size != 1:
                raise ValueError(f"predict must give one slope for curve {name!r}, got shape {target.y.shape}")
            judgements.append(self._judge(name, curve, float(target.y.reshape(()))))
        return _worst(judgements)

    def _judge(self, name: str, curve: Curve, target: float) -> Judgement:
        slope, _, error = fit_slope(curve, self.log)
        off = {"equal": abs(slope - target), "at most": slope - target, "at least": target - slope}[self.side]
        if off <= self.tolerance and error <= self.tolerance / 2:
            verdict = Verdict.CONFIRMED
        elif off > self.tolerance + 3 * error:
            verdict = Verdict.REFUTED
        else:
            verdict = Verdict.INCONCLUSIVE
        what = f"slope{f' of {name}' if name else ''} {slope:.4g} +- {error:.2g}"
        reason = f"{what}, predicted {'' if self.side == 'equal' else self.side + ' '}{target:.4g}"
        return Judgement(verdict, reason, 1 - off / self.tolerance, slope, target, error)


@dataclasses.dataclass(frozen=True)
class Mean:
    """The predicted number lies in the confidence interval of every measured Monte-Carlo mean.

    The intervals hold jointly with error probability `ERROR_PER_CLAIM`. An interval whose half-width exceeds
    `resolution` times the predicted number (or `floor`, if that is larger) says too little to confirm anything.
    """

    resolution: float = 0.1
    floor: float = 0.0

    def __call__(self, measured: Curves, predicted: Curves, /) -> Judgement:
        """Compares the worst cell with its interval."""
        m, p, error = _flat_with_error(measured, predicted)
        z = joint_quantile(m.size)
        excess = _ratio(np.abs(m - p), z * error)
        worst = int(np.argmax(excess))
        wide = z * error > np.maximum(self.resolution * np.abs(p), self.floor)
        if excess[worst] > 1:
            verdict = Verdict.REFUTED
        else:
            verdict = Verdict.INCONCLUSIVE if wide.any() else Verdict.CONFIRMED
        reason = (
            f"{m[worst]:.5g} +- {error[worst]:.2g} against {p[worst]:.5g}: {excess[worst] * z:.2f} standard errors, "
            f"{z:.2f} allowed in {m.size} cells{'; the interval is too wide to tell' if wide.any() else ''}"
        )
        return Judgement(verdict, reason, 1 - excess[worst], m[worst], p[worst], error[worst])


@dataclasses.dataclass(frozen=True)
class MeanAtMost:
    """The confidence interval of every measured Monte-Carlo mean lies below the predicted bound."""

    def __call__(self, measured: Curves, predicted: Curves, /) -> Judgement:
        """Confirms if all upper limits are below the bound, refutes if some lower limit is above it."""
        m, p, error = _flat_with_error(measured, predicted)
        width = joint_quantile(m.size) * error
        worst = int(np.argmax(_ratio(m + width - p, np.maximum(np.abs(p), width), signed=True)))
        return _judge_interval(m - width, m + width, m, p, error, worst)


@dataclasses.dataclass(frozen=True)
class ProbabilityAtMost:
    """The probability behind every measured frequency is at most the predicted one (Clopper-Pearson limits)."""

    def __call__(self, measured: Curves, predicted: Curves, /) -> Judgement:
        """Confirms if all upper limits are below the bound, refutes if some lower limit is above it."""
        m, p = _flat(measured, predicted)
        trials = _field(measured, "trials")
        low, high = clopper_pearson(m, trials, m.size)
        error = np.sqrt(m * (1 - m) / trials)
        return _judge_interval(low, high, m, p, error, int(np.argmax(high - p)))


@dataclasses.dataclass(frozen=True)
class Ordering:
    """Measured numbers are in the order of the predicted ones, gaps clearer than `margin` of the measured range.

    Only the order of the predicted numbers counts; equal predicted numbers may come in any order. Predicting
    ``arange(n)`` says that the curve increases.
    """

    margin: float = 1e-6

    def __call__(self, measured: Curves, predicted: Curves, /) -> Judgement:
        """Judges the pair with the smallest gap."""
        judgements = []
        for name, curve, target in _pairs(measured, predicted):
            m, p = curve.y.ravel(), np.broadcast_to(target.y, curve.y.shape).ravel()
            lower, upper = np.nonzero(p[:, None] < p[None, :])
            if not lower.size:
                raise ValueError(f"predict must order at least two numbers of curve {name!r}")
            gap = (m[upper] - m[lower]) / max(float(np.ptp(m)), np.finfo(float).tiny)
            worst = int(np.argmin(gap))
            i, j = int(lower[worst]), int(upper[worst])
            wrong = int(np.sum(gap < -self.margin))
            if wrong:
                verdict = Verdict.REFUTED
            else:
                verdict = Verdict.CONFIRMED if gap[worst] > self.margin else Verdict.INCONCLUSIVE
            reason = f"closest pair: {m[i]:.5g} before {m[j]:.5g}; {wrong} of {lower.size} pairs in the wrong order"
            judgements.append(Judgement(verdict, reason, float(gap[worst]), float(m[j]), float(m[i])))
        return _worst(judgements)


def clopper_pearson(frequencies: np.ndarray, trials: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidence limits of probabilities that hold in all `cells` of a claim at once."""
    events = np.round(frequencies * trials)
    alpha = ERROR_PER_CLAIM / (2 * cells)
    low = np.where(events > 0, stats.beta.ppf(alpha, events, trials - events + 1), 0.0)
    high = np.where(events < trials, stats.beta.isf(alpha, events + 1, trials - events), 1.0)
    return low, high


def fit_slope(curve: Curve, log: str = "xy") -> tuple[float, float, float]:
    """Least-squares line through a curve's points on logarithmic axes `log`: slope, intercept, slope's standard error.

    Raises:
        ValueError: if the curve has no abscissa, fewer than five points, or numbers that have no logarithm.
    """
    if curve.x is None:
        raise ValueError("a slope needs points with an abscissa: return Curve(y, x)")
    x, y = np.ravel(curve.x), np.ravel(curve.y)
    if x.size < 5:
        raise ValueError(f"a slope needs at least five points, got {x.size}")
    if ("x" in log and np.any(x <= 0)) or ("y" in log and np.any(y <= 0)):
        raise ValueError("a logarithmic axis needs positive numbers")
    point_error = np.zeros_like(y) if curve.standard_error is None else np.ravel(curve.standard_error)
    if "y" in log:
        y, point_error = np.log(y), point_error / y
    x = np.log(x) if "x" in log else x
    centred = x - x.mean()
    weights = centred / np.sum(centred**2)
    slope = float(weights @ y)
    intercept = float(y.mean() - slope * x.mean())
    residual = y - slope * x - intercept
    regression = np.sqrt(np.sum(residual**2) / (x.size - 2) / np.sum(centred**2))
    return slope, intercept, float(max(regression, np.sqrt(np.sum((weights * point_error) ** 2))))


def _pairs(measured: Curves, predicted: Curves) -> Iterator[tuple[str, Curve, Curve]]:
    """Measured curves with their predictions; a single nameless prediction serves all."""
    if not measured or not any(curve.y.size for curve in measured.values()):
        raise ValueError("measure returned no numbers")
    shared = predicted.get("") if set(predicted) == {""} else None
    if shared is None and set(measured) != set(predicted):
        raise ValueError(f"measure names the curves {sorted(measured)}, predict {sorted(predicted)}")
    for name, curve in measured.items():
        yield name, curve, shared if shared is not None else predicted[name]


def _flat(measured: Curves, predicted: Curves) -> tuple[np.ndarray, np.ndarray]:
    m, p = [], []
    for name, curve, target in _pairs(measured, predicted):
        try:
            p.append(np.broadcast_to(target.y, curve.y.shape).ravel())
        except ValueError:
            shapes = f"measure has shape {curve.y.shape}, predict {target.y.shape}"
            raise ValueError(f"curve {name!r}: {shapes}") from None
        m.append(curve.y.ravel())
    return np.concatenate(m), np.concatenate(p)


def _field(measured: Curves, field: str) -> np.ndarray:
    for name, curve in measured.items():
        if getattr(curve, field) is None:
            raise ValueError(f"curve {name!r} has no {field}: return `estimate(samples)` or `frequency(events)`")
    return np.concatenate([np.ravel(getattr(curve, field)) for curve in measured.values()])


def _flat_with_error(measured: Curves, predicted: Curves) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return *_flat(measured, predicted), _field(measured, "standard_error")


def joint_quantile(cells: int) -> float:
    """Half-width, in standard errors, of confidence intervals that hold in all `cells` of a claim at once."""
    return float(stats.norm.isf(ERROR_PER_CLAIM / (2 * cells)))


def _ratio(numerator: np.ndarray, denominator: np.ndarray, *, signed: bool = False) -> np.ndarray:
    """Quotient that is 0 for 0/0 and infinite for anything else over 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        infinite = np.sign(numerator) * np.inf if signed else np.inf
        return np.where(denominator > 0, numerator / denominator, np.where(numerator == 0, 0.0, infinite))


def _tightness(small: np.ndarray, large: np.ndarray) -> float | None:
    usable = np.isfinite(small) & np.isfinite(large) & (large > 0)
    with np.errstate(over="ignore"):
        return float(np.max(small[usable] / large[usable])) if usable.any() else None


def _by_excess(excess: float) -> Verdict:
    if excess <= 1:
        return Verdict.CONFIRMED
    return Verdict.REFUTED if excess > _GREY else Verdict.INCONCLUSIVE


def _judge_interval(
    low: np.ndarray, high: np.ndarray, m: np.ndarray, p: np.ndarray, error: np.ndarray, worst: int
) -> Judgement:
    if np.all(high <= p):
        verdict = Verdict.CONFIRMED
    else:
        verdict = Verdict.REFUTED if np.any(low > p) else Verdict.INCONCLUSIVE
        if verdict is Verdict.REFUTED:
            worst = int(np.argmax(low - p))
    reason = f"{m[worst]:.5g} in [{low[worst]:.5g}, {high[worst]:.5g}] against at most {p[worst]:.5g}, {m.size} cells"
    margin = float((p[worst] - high[worst]) / max(abs(p[worst]), high[worst] - low[worst], np.finfo(float).tiny))
    return Judgement(verdict, reason, margin, m[worst], p[worst], error[worst], _tightness(m, p))


def _worst(judgements: list[Judgement]) -> Judgement:
    """Refuted if any is, else inconclusive if any is; among equals the one with the smallest margin."""
    rank = {Verdict.REFUTED: 0, Verdict.INCONCLUSIVE: 1, Verdict.CONFIRMED: 2}
    return min(judgements, key=lambda judgement: (rank[judgement.verdict], judgement.margin))
