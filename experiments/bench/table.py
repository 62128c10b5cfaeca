"""The results of a race for people: a table on the terminal, and the same as Markdown."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from experiments.bench.case import Case
from experiments.bench.race import Row

__all__ = ["LEGEND", "markdown", "ratio", "table", "verdict"]

LEGEND = (
    "CPU: user and system seconds of a run, the steadier figure; in brackets how many times ours. wall: median (best). "
    "memory: peak beyond what is in use before the run. of machine: GFLOP/s as a share of a matrix product's in the "
    "same process; GFLOP are those that the task needs, counted by hand, or (*) those of the contender's own program, "
    "counted by XLA. "
    "Where a run is worth its effective draws, /CPU s: their number for a CPU-second of a run, in brackets how many "
    "times ours; compiled: for a CPU-second of a first run and of compiling it."
)


class _Column(NamedTuple):
    title: str
    text: Callable[[Row, Row | None, Case], str]


def ratio(row: Row, ours: Row | None, fact: str) -> float:
    """How many times the `fact` of ours the contender needs; NaN where one of the two is missing."""
    if ours is None or fact not in row.facts or not ours.facts.get(fact):
        return math.nan
    return row.facts[fact] / ours.facts[fact]


def first_of_ours(rows: Sequence[Row]) -> Row | None:
    """What peers are compared with; None if it was not measured."""
    ours = next((row for row in rows if row.ours), None)
    return ours if ours is not None and ours.status == "measured" else None


def verdict(case: Case, rows: Sequence[Row]) -> str:
    """A sentence that compares ours with the best peer."""
    ours = first_of_ours(rows)
    peers = [row for row in rows if row.status == "measured" and not row.ours]
    if ours is None or not peers:
        return ""
    best = min(peers, key=lambda row: row.facts["cost"])
    factor = ratio(best, ours, "cost")
    words = f"the best peer, {best.contender}, needs {_factor(factor)} times the CPU-seconds of ours"
    if case.amounts:
        words += f" for as much {next(iter(case.amounts))}"
    if case.target is not None:
        words += f" (target {case.target:g}: {'met' if factor >= case.target else 'missed'})"
    if case.amounts:
        first = min(peers, key=lambda row: row.facts["first_cost"])
        words += f"; with compiling {first.contender} needs {_factor(ratio(first, ours, 'first_cost'))} times"
    return words


def _with_ratio(text: str, factor: float) -> str:
    return text if math.isnan(factor) else f"{text} ({_factor(factor)}×)"


def _factor(factor: float) -> str:
    return f"{factor:.0f}" if factor >= 9.95 else f"{factor:.2g}"


def _cpu(row: Row, ours: Row | None, case: Case) -> str:
    factor = math.nan if row is ours or case.amounts else ratio(row, ours, "cpu_seconds")
    return _with_ratio(_seconds(row.facts["cpu_seconds"]), factor)


def _rate(row: Row, _: Row | None, case: Case) -> str:
    rate = row.facts["gflops"]
    return "" if math.isnan(rate) else f"{rate:.3g}{'' if case.gflop is not None else '*'}"


def _share(row: Row, _: Row | None, __: Case) -> str:
    share = row.facts["of_machine"]
    return "" if math.isnan(share) else f"{share:.0%}"


_TIMES = (
    _Column("compile s", lambda row, _, __: _seconds(row.facts["compile_seconds"])),
    _Column("CPU s", _cpu),
    _Column(
        "wall s",
        lambda row, _, __: f"{_seconds(row.facts['wall_seconds'])} ({_seconds(row.facts['wall_min_seconds'])})",
    ),
    _Column("memory MB", lambda row, _, __: f"{row.facts['peak_mb']:.0f}"),
)
_RATES = (_Column("GFLOP/s", _rate), _Column("of machine", _share))
_ERROR = _Column("error", lambda row, _, __: f"{row.facts['error']:.0e}")


def _columns(case: Case) -> tuple[_Column, ...]:
    """What is said of a contender: beside times and error its amounts if the case has any, else its rate."""
    if not case.amounts:
        return (*_TIMES, *_RATES, _ERROR)
    first = next(iter(case.amounts))

    def per_cpu_second(row: Row, ours: Row | None, _: Case) -> str:
        factor = math.nan if row is ours else 1 / ratio(row, ours, "cost")
        return _with_ratio(_amount(1 / row.facts["cost"]), factor)

    return (
        *_TIMES,
        *(_Column(f"{name}/s", functools.partial(_per_second, name)) for name in list(case.amounts)[::-1]),
        _Column(first, lambda row, _, __: _amount(row.facts[first])),
        _Column("/CPU s", per_cpu_second),
        _Column("compiled", lambda row, _, __: _amount(1 / row.facts["first_cost"])),
        _ERROR,
    )


def _per_second(name: str, row: Row, _: Row | None, __: Case) -> str:
    return _amount(row.facts[name] / row.facts["wall_seconds"])


def _amount(amount: float) -> str:
    return f"{amount:.3g}" if amount < 1000 else f"{amount:.0f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


def _cells(row: Row, rows: Sequence[Row], case: Case) -> list[str]:
    return [column.text(row, first_of_ours(rows), case) for column in _columns(case)]


def table(case: Case, rows: Sequence[Row]) -> Group:
    """The rows of a case for a terminal."""
    out = Table(box=SIMPLE_HEAD)
    out.add_column("contender", no_wrap=True)
    for column in _columns(case):
        out.add_column(column.title, justify="right", no_wrap=True)
    for row in rows:
        if row.status == "measured":
            out.add_row(row.contender, *_cells(row, rows, case), style="bold" if row.ours else None)
    lines = [f"{row.contender}: {row.status}, {row.reason}" for row in rows if row.status != "measured"]
    lines += [words[0].upper() + words[1:]] if (words := verdict(case, rows)) else []
    title = Text(f"{case.name}: {case.title}", style="bold")
    return Group(title, *([out] if out.row_count else []), *(Text(f"  {line}") for line in lines), "")


def markdown(cases: Mapping[str, Case], results: Mapping[str, Sequence[Row]]) -> str:
    """All cases as Markdown: one table for those of which the same is said."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in results:
        groups.setdefault(tuple(column.title for column in _columns(cases[name])), []).append(name)
    return "\n".join(_markdown(titles, names, cases, results) for titles, names in groups.items())


def _markdown(
    titles: Sequence[str], names: Sequence[str], cases: Mapping[str, Case], results: Mapping[str, Sequence[Row]]
) -> str:
    lines = [f"| {' | '.join(['', *titles])} |", f"|---|{'--:|' * len(titles)}"]
    for name in names:
        lines.append(f"| **{cases[name].title}** {'| ' * len(titles)}|")
        for row in results[name]:
            measured = row.status == "measured"
            cells = _cells(row, results[name], cases[name]) if measured else [f"{row.status}: {row.reason}"]
            cells += [""] * (len(titles) - len(cells))
            lines.append(f"| {row.contender} | {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"
