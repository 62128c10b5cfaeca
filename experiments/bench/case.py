"""What is measured: a task, its data, its contenders."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from experiments.bench import TOPICS
from experiments.errors import UsageError

__all__ = ["Absent", "Case", "Contender", "all_cases", "select"]


class Absent(Exception):
    """A contender cannot be had here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do the task of a case.

    Attributes:
        name: what the table calls it.
        build: imports what it needs and returns a function of the case's data; raises `Absent` if it cannot be had.
        ours: whether this library is the contender. The first of ours is what peers are compared with.
        jit: whether to compile the function as one program; one that compiles by itself is called as it is, and its
            compile time is what its first call took longer than the later ones.
    """

    name: str
    build: Callable[[], Callable[..., Any]]
    ours: bool = False
    jit: bool = True


@dataclasses.dataclass(frozen=True)
class Case:
    """A task that several contenders do on the same data.

    Attributes:
        name: topic, dot, name.
        title: the task in words.
        data: makes the data, the same in every process; the contenders' positional arguments.
        contenders: who does it.
        view: what is compared: a function of a result and the data, computed in NumPy.
        reference: the right `view`, from the data in double precision, computed another way.
        tolerance: largest relative error, in the Euclidean norm, of a `view`.
        gflop: 10^9 operations that the task needs, counted by hand: the same for all contenders, whatever they
            spend. None if nobody has counted; then each contender has its own program's number, as counted by XLA.
        amounts: what a run is good for, where contenders do not all do equally much: name -> how much of it a result
            has, a function of the result and the data in NumPy. Contenders are compared by what one unit of the first
            costs.
        target: how many times the CPU-seconds of ours the best peer is to need; None for no target.
        seconds: a contender whose single run takes longer is left out.
    """

    name: str
    title: str
    data: Callable[[], tuple[Any, ...]]
    contenders: Sequence[Contender]
    view: Callable[..., Any]
    reference: Callable[..., Any]
    tolerance: float = 1e-4
    gflop: float | None = None
    amounts: Mapping[str, Callable[..., float]] = dataclasses.field(default_factory=dict)
    target: float | None = None
    seconds: float = 60.0


def all_cases(topics: Iterable[str] = TOPICS) -> dict[str, Case]:
    """The cases of modules, by name.

    Raises:
        UsageError: if there is no such module.
    """
    try:
        cases = [case for topic in topics for case in importlib.import_module(topic).CASES]
    except (ModuleNotFoundError, AttributeError) as error:
        raise UsageError(f"no benchmarks: {error}") from None
    return {case.name: case for case in cases}


def select(patterns: Sequence[str], cases: dict[str, Case]) -> list[Case]:
    """The cases that any pattern names: a case, a topic, the beginning of names, a shell pattern; without any, all.

    Raises:
        UsageError: if a pattern matches nothing; the nearest names are offered.
    """
    chosen = set(cases) if not patterns else {name for pattern in patterns for name in _match(pattern, cases)}
    return [case for name, case in cases.items() if name in chosen]


def _match(pattern: str, cases: dict[str, Case]) -> list[str]:
    found = [name for name in cases if name == pattern] or [
        name
        for name in cases
        if name.partition(".")[0] == pattern or name.startswith(pattern) or fnmatch.fnmatchcase(name, pattern)
    ]
    if not found:
        topics = dict.fromkeys(name.partition(".")[0] for name in cases)
        near = difflib.get_close_matches(pattern, [*topics, *cases], n=3, cutoff=0.5)
        raise UsageError(f"no benchmark matches {pattern}; there are: {', '.join(near or cases)}")
    return found
