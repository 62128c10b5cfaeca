"""One case: every contender in a process of its own, and all of them in turn."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.bench.case import Case, Contender
from experiments.bench.contest import contend, refer

__all__ = ["Row", "race"]

_START_SECONDS = 600  # for importing and compiling
_SHARE = 1.5  # of a case's limit, what a contender's rounds may take together
_context = multiprocessing.get_context("spawn")


class Row(NamedTuple):
    """What became of a contender.

    Attributes:
        contender: its name.
        ours: whether it is this library's.
        status: measured, absent, failed, wrong, slow (a run takes too long) or large (it needs too much memory).
        reason: why it was not measured; empty if it was.
        facts: the medians of `wall_seconds`, `cpu_seconds` and `machine_gflops` over the rounds, the smallest
            `wall_min_seconds`, `compile_seconds` (of which `trace_seconds` in Python), `peak_mb` of memory beyond what
            was in use before the first run, the `error`, `gflop`, `gflops` = `gflop` / `wall_seconds` and
            `of_machine` = `gflops` / `machine_gflops`; what XLA says of the program: `program_gflop`, `program_mb`; and
            the case's amounts by their names, with the `cost` of a unit of the first in CPU-seconds, which is
            `cpu_seconds` for a case without, and `first_cost`, with compiling.
        rounds: the single rounds.
    """

    contender: str
    ours: bool
    status: str
    reason: str = ""
    facts: dict[str, float] = {}  # noqa: RUF012
    rounds: list[dict[str, float]] = []  # noqa: RUF012


def race(case: Case, topics: Sequence[str], rounds: int, says: Callable[[str], None] = lambda _: None) -> list[Row]:
    """Measures the contenders of a case, in the order of the case.

    Args:
        case: what to measure.
        topics: the modules in which another process finds it.
        rounds: how often each contender runs.
        says: is told what is under way.
    """
    with contextlib.ExitStack() as stack:
        says("reference")
        message = _one_answer(case, topics)
        if message[0] != "reference":
            return [Row(c.name, c.ours, "failed", f"no reference: {message[-1]}") for c in case.contenders]
        runners = []
        for place, contender in enumerate(case.contenders):
            says(f"{contender.name}: compile and check")
            runners.append(stack.enter_context(_Runner.started(case, contender, topics, place, message[1])))
        for turn in range(rounds):
            for runner in runners:
                if runner.goes_on():
                    says(f"{runner.contender.name}: round {turn + 1} of {rounds}")
                    runner.run()
        return [runner.row() for runner in runners]


def _one_answer(case: Case, topics: Sequence[str]) -> tuple[Any, ...]:
    with _process(refer, topics, case.name) as process:
        return process.answer(_START_SECONDS)


class _Process:
    """A process and the line to it."""

    def __init__(self, process: Any, connection: Any, log: Path) -> None:
        self._process, self.connection, self._log = process, connection, log

    def answer(self, seconds: float) -> tuple[Any, ...]:
        try:
            if self.connection.poll(seconds):
                return self.connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            return ("out", "failed", f"the process died ({'signal' if code and code < 0 else 'exit'} {abs(code or 0)})")
        return ("out", "slow", f"a run takes more than {seconds:.0f} s")

    def stop(self) -> None:
        self._process.kill()


@contextlib.contextmanager
def _process(target: Callable[..., None], *arguments: Any) -> Iterator[_Process]:
    """Runs `target` in a fresh process, which is gone when the context ends, however it ends."""
    here, there = _context.Pipe()
    with tempfile.NamedTemporaryFile(delete=False) as log:
        process = _context.Process(target=target, args=(there, log.name, *arguments), daemon=True)
        process.start()
        there.close()
        try:
            yield _Process(process, here, Path(log.name))
        finally:
            here.close()
            process.kill()
            process.join()
            Path(log.name).unlink(missing_ok=True)


class _Runner:
    """A contender's process, and what it has reported."""

    def __init__(self, case: Case, contender: Contender, process: _Process) -> None:
        self._case, self.contender, self._process = case, contender, process
        self._rounds: list[dict[str, float]] = []
        self._spent = 0.0
        self._facts: dict[str, float] = {}
        self._out = ("", "")
        self._take(process.answer(_START_SECONDS))
        if not self._out[0]:  # a contender that compiles by itself does so now, and runs twice
            self._take(process.answer(case.seconds if contender.jit else _START_SECONDS))

    @classmethod
    @contextlib.contextmanager
    def started(
        cls, case: Case, contender: Contender, topics: Sequence[str], place: int, expected: np.ndarray
    ) -> Iterator[_Runner]:
        with _process(contend, topics, case.name, place, expected) as process:
            yield cls(case, contender, process)

    def goes_on(self) -> bool:
        return not self._out[0] and (len(self._rounds) < 2 or self._spent < _SHARE * self._case.seconds)

    def run(self) -> None:
        began = time.monotonic()
        with contextlib.suppress(OSError):  # it has died; the answer will say so
            self._process.connection.send(True)
        self._take(self._process.answer(_START_SECONDS))
        self._spent += time.monotonic() - began

    def _take(self, message: tuple[Any, ...]) -> None:
        match message:
            case ("compiled" | "ready", facts):
                self._facts |= facts
            case ("round", facts):
                self._rounds.append(facts)
            case ("out", status, reason):
                self._out = (status, reason)
                self._process.stop()

    def row(self) -> Row:
        name, ours = self.contender.name, self.contender.ours
        if self._out[0]:
            return Row(name, ours, *self._out, facts=self._facts, rounds=self._rounds)
        facts = dict(self._facts)
        for fact in ("wall_seconds", "cpu_seconds", "machine_gflops"):
            facts[fact] = statistics.median(r[fact] for r in self._rounds)
        facts["wall_min_seconds"] = min(r["wall_seconds"] for r in self._rounds)
        facts["peak_mb"] = max(r["peak_mb"] for r in self._rounds)
        facts["gflop"] = self._case.gflop if self._case.gflop is not None else facts.get("program_gflop", math.nan)
        facts["gflops"] = facts["gflop"] / facts["wall_seconds"]
        facts["of_machine"] = facts["gflops"] / facts["machine_gflops"]
        amount = next((facts[name] for name in self._case.amounts), 1.0)
        facts["cost"] = facts["cpu_seconds"] / amount
        facts["first_cost"] = (facts["cpu_seconds"] + facts["compile_seconds"]) / amount
        return Row(name, ours, "measured", facts=facts, rounds=self._rounds)
