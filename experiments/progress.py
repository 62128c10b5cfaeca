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

    def say(self, text: str) -> None:
        """Shows a line."""

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
        self.say(f"{place} {outcome(record):22} {duration(record.wall_seconds):>8}  {record.claim}  {summary(record)}")

    def say(self, text: str) -> None:
        """Prints a line."""
        print(text, flush=True)


class ProgressTable(Progress):
    """A table by chapter that is redrawn as the run goes on; what is not as expected is printed above it at once."""

    def __init__(self, claims: Sequence[Claim], stored: Mapping[str, Record], console: Console) -> None:
        """Begins a table on a terminal."""
        super().__init__(claims, stored)
        self._stored = len(stored)
        self._console = console
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def finished(self, record: Record) -> None:
        """Counts the record, and prints it if it is not as expected."""
        super().finished(record)
        if not record.as_expected:
            self.say(f"{outcome(record)}: {record.claim}: {summary(record)}")

    def say(self, text: str) -> None:
        """Prints a line above the table."""
        self._console.print(Text(text, _BAD))

    def __enter__(self) -> Progress:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._running.clear()
        self._live.__exit__(None, None, None)

    def _render(self) -> Group:
        total = self.total
        table = Table(box=SIMPLE_HEAD, show_footer=len(self.tallies) > 1, pad_edge=False, header_style="bold")
        table.add_column("Chapter", "All", footer_style="bold", no_wrap=True)
        table.add_column("Progress", _bar(total))
        for heading, footer in zip(
            ("Done", "Confirmed", "Refuted\nas expected", "Controls\nrejected", "Not as\nexpected"),
            _cells(total),
            strict=True,
        ):
            table.add_column(heading, footer, justify="right", no_wrap=True)
        for chapter, tally in self.tallies.items():
            table.add_row(chapter, _bar(tally), *_cells(tally))
        return Group(table, self._clock(total), *self._now())

    def _clock(self, total: Tally) -> Text:
        text = f"{duration(self.elapsed)} elapsed"
        done_here, left = total.done - self._stored, total.claims - total.done
        if left and done_here:
            text += f", about {duration(self.elapsed * left / done_here)} left"
        return Text(text)

    def _now(self) -> list[Text]:
        """What the workers do, longest first; a cluster's many are cut short."""
        now = time.monotonic()
        running = sorted(self._running.items(), key=lambda item: item[1])
        lines = [Text(f"  {duration(now - began):>8}  {claim}", _DIM) for claim, began in running[:8]]
        return lines + ([Text(f"            and {len(running) - 8} more", _DIM)] if len(running) > 8 else [])


def _bar(tally: Tally) -> ProgressBar:
    return ProgressBar(total=tally.claims, completed=tally.done, width=20, complete_style=_GOOD, finished_style=_GOOD)


def _cells(tally: Tally) -> list[Text]:
    controls = Text(f"{tally.controls}/{tally.done}", _GOOD if tally.controls == tally.done else _BAD)
    return [
        Text(f"{tally.done}/{tally.claims}"),
        Text(str(tally.confirmed), _GOOD if tally.confirmed else _DIM),
        Text(str(tally.refuted), _GOOD if tally.refuted else _DIM),
        controls if tally.done else Text("", _DIM),
        Text(str(tally.unexpected), _BAD if tally.unexpected else _DIM),
    ]
