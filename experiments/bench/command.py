"""The command ``bench``: measure cases, show tables, write what was measured."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

import dltheory.platform
from experiments.bench import TOPICS
from experiments.bench.case import Case, all_cases, select
from experiments.bench.race import Row, race
from experiments.bench.table import LEGEND, markdown, table, verdict
from experiments.environment import describe
from experiments.errors import UsageError
from experiments.store import RESULTS

__all__ = ["bench"]

_PEERS = ("neural-tangents", "blackjax", "numpyro", "diffrax")


def bench(options: argparse.Namespace) -> int:
    """Measures the chosen cases; returns the exit status: 0 if ours was measured in each of them, 1 if not.

    Raises:
        UsageError: if a pattern names no case, or the platform computes wrong numbers.
        OSError: if the results cannot be written.
    """
    topics = options.topics or TOPICS
    cases = {case.name: case for case in select(options.patterns, all_cases(topics))}
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # an accelerator's memory is the contenders'
    try:
        dltheory.platform.require_sound()
    except dltheory.platform.PlatformError as error:
        raise UsageError(str(error)) from None
    began = datetime.now(UTC)
    path = options.out or RESULTS / "bench" / f"{began:%Y%m%d-%H%M%S}.json"
    environment = describe() | {"processor": _processor(), "peers": _versions(), "date": f"{began:%Y-%m-%d %H:%M} UTC"}
    console = Console() if sys.stdout.isatty() else Console(width=140)
    results: dict[str, list[Row]] = {}
    _write(path, environment, cases, results)
    with _terminable():
        for name, case in cases.items():
            with _live(console, f"{len(results) + 1}/{len(cases)} {name}") as says:
                results[name] = race(case, topics, options.rounds, says)
            _write(path, environment, cases, results)
            console.print(table(case, results[name]))
    console.print(LEGEND, style="dim")
    print(f"written: {path} and {path.with_suffix('.md').name}")
    ours = [row.status for rows in results.values() for row in rows if row.ours]
    return 0 if all(status == "measured" for status in ours) else 1


@contextlib.contextmanager
def _live(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Shows what is under way: a spinner on a terminal, a line for each step elsewhere."""
    began = time.monotonic()
    if not console.is_terminal:
        seen: set[str] = set()

        def line(text: str) -> None:
            step = text.partition(": round")[0]  # rounds alternate too fast to be worth a line each
            if step not in seen:
                seen.add(step)
                print(f"[{time.monotonic() - began:6.1f} s] {title}: {text}", flush=True)

        yield line
        return
    with console.status(title) as status:
        yield lambda text: status.update(f"{title}: {text} [dim]({time.monotonic() - began:.0f} s)[/dim]")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end the contenders' processes as Ctrl-C does."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(
    path: Path, environment: Mapping[str, Any], cases: Mapping[str, Case], results: Mapping[str, Sequence[Row]]
) -> None:
    """Writes what is known so far: numbers as JSON, the table as Markdown; a reader never sees half a file."""
    data = {
        "environment": environment,
        "cases": {
            name: {
                "title": cases[name].title,
                "target": cases[name].target,
                "verdict": verdict(cases[name], rows),
                "contenders": [row._asdict() for row in rows],
            }
            for name, rows in results.items()
        },
    }
    machine = ", ".join(
        [
            str(environment["date"]),
            f"{environment['cpus']} cores of {environment['processor']}",
            f"Python {environment['python']}",
            f"jax {environment['jax']}",
            f"flax {environment['flax']}",
            *(f"{name} {version}" for name, version in environment["peers"].items()),
            f"commit {environment['commit']}",
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    words = f"{machine}\n\n{markdown(cases, results)}"
    for file, text in ((path, json.dumps(_finite(data), indent=1)), (path.with_suffix(".md"), words)):
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)


def _finite(value: Any) -> Any:
    """The value as strict JSON has it: null for what is not a number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _versions() -> dict[str, str]:
    found = {}
    for name in _PEERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return describe()["device_kind"]
