"""What a run shows while it is under way: a live table on a terminal, one line for each claim elsewhere."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.claim import Claim
from experiments.evaluate import Record
from experiments.judges import Verdict
from experiments.statements import load_sheet

__all__ = ["Progress", "ProgressLines", "ProgressTable", "Tally", "control_rejected", "duration", "outcome", "summary"]

_GOOD, _BAD, _DIM = "green", "bold red", "dim"


@dataclasses.dataclass
class Tally:
    """Counts of claims."""

    claims: int = 0
    done: int = 0
    confirmed: int = 0
    refuted: int = 0
    controls: int = 0
    unexpected: int = 0

    def add(self, record: Record) -> None:
        """Counts a record."""
        self.done += 1
        self.confirmed += record.as_expected and record.verdict == Verdict.CONFIRMED
        self.refuted += record.as_expected and record.verdict == Verdict.REFUTED
        self.controls += control_rejected(record)
        self.unexpected += not record.as_expected


def control_rejected(record: Record) -> bool:
    """Whether the judge refuted the claim's deliberately wrong variant."""
    return record.control is not None and record.control["verdict"] == Verdict.REFUTED


def outcome(record: Record) -> str:
    """The verdict, in words that say whether it was to be expected."""
    if record.verdict == Verdict.REFUTED:
        return "refuted as expected" if record.as_expected else "unexpectedly refuted"
    if record.verdict == Verdict.CONFIRMED and not record.as_expected:
        return "unexpectedly confirmed"
    return str(record.verdict)


def summary(record: Record) -> str:
    """The record's reason as one line."""
    return " ".join(record.reason.split())


def duration(seconds: float) -> str:
    """Seconds as people read them: 4.2 s, 3 min 07 s, 1 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Progress:
    """Counts what a run does, and shows nothing; a context manager.

    Attributes:
        tallies: counts by chapter, in the order of the sheet.
    """

    def __init__(self, claims: Sequence[Claim], stored: Mapping[str, Record]) -> None:
        """Begins with the claims of the run and with those of their records that are there already."""
        titles = {statement.id: chapter.title for chapter in load_sheet() for statement in chapter.statements}
        self._chapter = {claim.name: titles.get(claim.statement, claim.statement.partition(".")[0]) for claim in claims}
        chapters = dict.fromkeys([*titles.values(), *self._chapter.values()])
        self.tallies = {chapter: Tally() for chapter in chapters if chapter in self._chapter.values()}
        for claim in claims:
            self.tallies[self._chapter[claim.name]].claims += 1
        for name, record in stored.items():
            self.tallies[self._chapter[name]].add(record)
        self._running: dict[str, float] = {}
        self._began = time.monotonic()

    @property
    def total(self) -> Tally:
        """The sum over all chapters."""
        return Tally(*map(sum, zip(*map(dataclasses.astuple, self.tallies.values()), strict=True)))

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def started(self, claim: str) -> None:
        """A worker has begun a claim."""
        self._running[claim] = time.monotonic()

    def finished(self, record: Record) -> None:
        """A claim has its record."""
        self._running.pop(record.claim, None)
        self.tallies[self._chapter[record.claim]].add(record)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None: ...


class ProgressLines(Progress):
    """One line for each finished claim, for logs and pipes."""

    def finished(self, record: Record) -> None:
        """Prints the claim's line."""
        super().finished(record)
        total = self.total
        place = f"[{total.done:{len(str(total.claims))}}/{total.claims}]"
        seconds = duration(record.wall_seconds)
        print(f"{place} {outcome(record):22} {seconds:>8}  {record.claim}  {summary(record)}", flush=True)


class ProgressTable(Progress):
    """A table by chapter that is redrawn as the run goes on; what is not as expected, and what runs now, below it."""

    def __init__(self, claims: Sequence[Claim], stored: Mapping[str, Record], console: Console) -> None:
        """Begins a table on a terminal."""
        super().__init__(claims, stored)
        self._stored = len(stored)
        self._unexpected: list[Record] = []
        self._over = False
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def finished(self, record: Record) -> None:
        """Counts the record."""
        super().finished(record)
        if not record.as_expected:
            self._unexpected.append(record)

    def __enter__(self) -> Progress:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._live.__exit__(None, None, None)

    def _render(self) -> Group:
        """All there is to see now; in the end only the table stays."""
        if self._over:
            return Group(self._table())
        unexpected = [Text(f" {outcome(record)}: {record.claim}: {summary(record)}") for record in self._unexpected]
        now = time.monotonic()
        running = [Text(f"{duration(now - began):>9}  {claim}") for claim, began in self._running.items()]
        return Group(
            self._table(),
            *_shortened(unexpected, _BAD),
            Text(f" {self._clock()}", "bold"),
            *_shortened(running, _DIM),
        )

    def _table(self) -> Table:
        total, several = self.total, len(self.tallies) > 1
        table = Table(box=SIMPLE_HEAD, show_footer=several, pad_edge=False, header_style="bold", footer_style="bold")
        table.add_column("Chapter", "All", no_wrap=True)
        table.add_column("", _bar(total), min_width=6, max_width=20)
        headings = ("Done", "Confirmed", "Refuted\nas expected", "Controls\nrejected", "Not as\nexpected")
        for heading, footer in zip(headings, _cells(total), strict=True):
            table.add_column(heading, footer, justify="right", no_wrap=True)
        for chapter, tally in self.tallies.items():
            table.add_row(chapter, _bar(tally), *_cells(tally))
        return table

    def _clock(self) -> str:
        total, elapsed = self.total, self.elapsed
        done_here, left = total.done - self._stored, total.claims - total.done
        remaining = f", about {duration(elapsed * left / done_here)} left" if left and done_here else ""
        return f"{duration(elapsed)} elapsed{remaining}"


def _shortened(lines: list[Text], style: str, most: int = 8) -> list[Text]:
    """The first lines; a terminal must hold them, and a cluster runs many claims at once."""
    for line in lines[:most]:
        line.no_wrap, line.overflow, line.style = True, "ellipsis", style
    return lines[:most] + ([Text(f" and {len(lines) - most} more", style)] if len(lines) > most else [])


def _bar(tally: Tally) -> ProgressBar:
    return ProgressBar(total=tally.claims, completed=tally.done, complete_style=_GOOD, finished_style=_GOOD)


def _cells(tally: Tally) -> list[Text]:
    controls = Text(f"{tally.controls}/{tally.done}", _GOOD if tally.controls == tally.done else _BAD)
    return [
        Text(f"{tally.done}/{tally.claims}"),
        Text(str(tally.confirmed), _GOOD if tally.confirmed else _DIM),
        Text(str(tally.refuted), _GOOD if tally.refuted else _DIM),
        controls if tally.done else Text("", _DIM),
        Text(str(tally.unexpected), _BAD if tally.unexpected else _DIM),
    ]
