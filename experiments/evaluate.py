"""Evaluates one claim: assumptions, measurement, theory, verdict, and the control that must fail."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
import traceback
from typing import Any

import jax
import numpy as np

from experiments.claim import Claim, Variant
from experiments.curves import Curves, as_curves
from experiments.judges import Judgement, Verdict, criterion

__all__ = ["Record", "error_record", "evaluate"]

_COMPILE_EVENTS = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")


@dataclasses.dataclass
class Record:
    """What is known of a claim after it ran: plain data, one JSON file each, its curves beside it."""

    claim: str
    statement: str
    says: str
    expected: str
    verdict: str
    reason: str
    criterion: dict[str, Any]
    seed: int
    tier: str
    budget: int
    axes: dict[str, str]
    margin: float | None = None
    measured: float | None = None
    predicted: float | None = None
    standard_error: float | None = None
    tightness: float | None = None
    control: dict[str, str] | None = None
    corrected: dict[str, str] | None = None
    assumptions: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    wall_seconds: float = 0.0
    compile_seconds: float = 0.0
    traceback: str | None = None
    output: str = ""
    digest: str = ""
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)
    curves: dict[str, Curves] = dataclasses.field(default_factory=dict)

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is the one the claim should get."""
        return self.verdict == self.expected


def evaluate(claim: Claim, *, seed: int = 0, tier: str = "quick") -> Record:
    """Runs one claim in this process, in double precision, with implicit rank promotion forbidden.

    Whatever goes wrong inside the claim becomes its verdict `error`; nothing is raised but `KeyboardInterrupt`. What
    the claim prints is kept in the record.

    Args:
        claim: the claim.
        seed: changes all random keys of the run.
        tier: "quick" or "full"; chooses the budget.
    """
    record = _blank(claim, seed, tier)
    output = io.StringIO()
    started = time.perf_counter()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), _compile_clock() as compiling:
        try:
            with jax.enable_x64(), jax.numpy_rank_promotion("raise"):
                _judge_claim(claim, seed, tier, record)
        except (Exception, SystemExit) as error:
            record.verdict, record.reason = Verdict.ERROR, f"{type(error).__name__}: {error}"
            record.traceback = traceback.format_exc()
    record.wall_seconds = time.perf_counter() - started
    record.compile_seconds = sum(compiling)
    record.output = output.getvalue()
    return record


def error_record(claim: Claim, reason: str, *, seed: int, tier: str, wall_seconds: float = 0.0) -> Record:
    """The record of a claim that could not be evaluated: it crashed its process, or ran out of time."""
    record = _blank(claim, seed, tier)
    record.verdict, record.reason, record.wall_seconds = Verdict.ERROR, reason, wall_seconds
    return record


def _blank(claim: Claim, seed: int, tier: str) -> Record:
    return Record(
        claim=claim.name,
        statement=claim.statement,
        says=claim.says,
        expected=claim.expected,
        verdict=Verdict.INCONCLUSIVE,
        reason="not judged",
        criterion=criterion(claim.judge),
        seed=seed,
        tier=tier,
        budget=getattr(claim.budget, tier),
        axes=claim.axes._asdict(),
    )


def _judge_claim(claim: Claim, seed: int, tier: str, record: Record) -> None:
    key, budget = claim.key(seed), getattr(claim.budget, tier)
    problem = claim.setup(key, budget)

    record.assumptions = [{"what": a.what, "holds": bool(np.all(a.holds(problem)))} for a in claim.assumptions]
    failed = [assumption["what"] for assumption in record.assumptions if not assumption["holds"]]
    if failed:
        record.reason = f"assumption fails: {'; '.join(failed)}"
        return

    measured, predicted = _finite("measure", claim.measure(problem)), _finite("predict", claim.predict(problem))
    record.curves = {"measured": measured, "predicted": predicted}
    judgement = claim.judge(measured, predicted)
    for field in ("verdict", "reason", "margin", "measured", "predicted", "standard_error", "tightness"):
        value = getattr(judgement, field)
        setattr(record, field, value if value is None or isinstance(value, str) else float(value))

    def judge_variant(role: str, variant: Variant, wanted: Verdict) -> dict[str, str]:
        varied = claim.with_variant(variant)
        at = varied.setup(key, budget) if variant.setup else problem
        m = measured if not (variant.setup or variant.measure) else _finite(f"{role} measure", varied.measure(at))
        p = predicted if not (variant.setup or variant.predict) else _finite(f"{role} predict", varied.predict(at))
        outcome: Judgement = claim.judge(m, p)
        record.curves |= {f"{role} measured": m} if m is not measured else {}
        record.curves |= {f"{role} predicted": p} if p is not predicted else {}
        if outcome.verdict is not wanted:
            record.verdict = Verdict.INCONCLUSIVE
            record.reason = f"no power: the {role} ({variant.what}) is {outcome.verdict}; {judgement.reason}"
        return {"what": variant.what, "verdict": outcome.verdict, "reason": outcome.reason}

    record.control = judge_variant("control", claim.control, Verdict.REFUTED)
    if claim.corrected is not None:
        record.corrected = judge_variant("corrected", claim.corrected, Verdict.CONFIRMED)


def _finite(source: str, value: Any) -> Curves:
    """The value as curves; infinities are numbers here, NaN is not."""
    curves = as_curves(jax.tree.map(np.asarray, value))
    for name, curve in curves.items():
        for field, numbers in curve._asdict().items():
            if numbers is not None and np.isnan(numbers).any():
                where = f" of curve {name!r}" if name else ""
                raise FloatingPointError(f"{source} returned NaN in `{field}`{where}")
    return curves


@contextlib.contextmanager
def _compile_clock():
    """Collects the seconds that XLA spends compiling while the context is open."""
    seconds: list[float] = []
    _clocks.append(seconds)
    try:
        yield seconds
    finally:
        _clocks.remove(seconds)


_clocks: list[list[float]] = []


def _on_duration(event: str, duration_secs: float, **kwargs: str | int) -> None:  # noqa: ARG001
    if event in _COMPILE_EVENTS:
        for clock in _clocks:
            clock.append(duration_secs)


jax.monitoring.register_event_duration_secs_listener(_on_duration)
