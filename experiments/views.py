"""What the report shows, as plain data: records and statements brought together, nothing computed."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments import judges
from experiments.claim import Claim
from experiments.evaluate import Record
from experiments.judges import Verdict
from experiments.sources import Place, find_claim, find_function
from experiments.statements import Chapter, Statement
from experiments.store import Run
from experiments.typeset import number

__all__ = [
    "ERRATUM",
    "OUTCOMES",
    "TROUBLE",
    "ChapterView",
    "ClaimView",
    "Outcome",
    "Picture",
    "Reading",
    "StatementView",
    "chapter_views",
    "claim_views",
    "slug",
]


class Outcome(NamedTuple):
    """What became of a claim or a statement, as the reader sees it."""

    key: str  # of its colour and icon
    words: str


CONFIRMED = Outcome("confirmed", "confirmed")
REFUTED = Outcome("refuted", "refuted, as expected")
UNEXPECTED = Outcome("unexpected", "unexpected")
INCONCLUSIVE = Outcome("inconclusive", "inconclusive")
ERROR = Outcome("error", "error")
NOT_RUN = Outcome("not-run", "not run")
PARTLY = Outcome("partly", "partly run")
EXPECTED = Outcome("confirmed", "as expected")
ERRATUM = Outcome("erratum", "misprint refuted, correction confirmed")

OUTCOMES = (CONFIRMED, REFUTED, UNEXPECTED, INCONCLUSIVE, ERROR, NOT_RUN)
TROUBLE = (ERROR, UNEXPECTED, INCONCLUSIVE)  # the worst first


@dataclasses.dataclass(frozen=True)
class Fact:
    """A number with its name."""

    name: str
    value: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture's file, or why there is none."""

    href: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class ClaimView:
    """A claim as the page shows it; `record` is None if it did not run, and `absence` then says why."""

    name: str
    anchor: str
    printed: bool
    part: str
    says: str
    outcome: Outcome
    badge: str
    record: Record | None
    absence: str
    facts: tuple[Fact, ...]
    rule: str
    parameters: str
    picture: Picture | None
    source: Place | None


@dataclasses.dataclass(frozen=True)
class Reading:
    """The statement as printed or as corrected, with the claims about that text."""

    heading: str
    text: str
    outcome: Outcome | None
    claims: tuple[ClaimView, ...]


@dataclasses.dataclass(frozen=True)
class StatementView:
    """A statement as the page shows it."""

    statement: Statement
    number: str
    chapter: str
    outcome: Outcome
    readings: tuple[Reading, ...]
    functions: tuple[tuple[str, Place | None], ...]
    rests_on: tuple[tuple[str, str], ...]

    @property
    def claims(self) -> tuple[ClaimView, ...]:
        """All its claims, in the order of the page."""
        return tuple(claim for reading in self.readings for claim in reading.claims)


@dataclasses.dataclass(frozen=True)
class ChapterView:
    """A chapter as the page shows it."""

    chapter: Chapter
    number: int
    statements: tuple[StatementView, ...]


def claim_views(run: Run, claims: Mapping[str, Claim], drawn: Mapping[str, Picture]) -> list[ClaimView]:
    """Every claim that exists or has a record."""
    return [
        _claim_view(name, claims.get(name), run.records.get(name), run, drawn.get(name))
        for name in dict.fromkeys([*claims, *run.records])
    ]


def _claim_view(name: str, claim: Claim | None, record: Record | None, run: Run, picture: Picture | None) -> ClaimView:
    head, _, part = name.partition(":")
    outcome = NOT_RUN if record is None else _outcome(record)
    badge = outcome.words
    if record is not None and outcome is UNEXPECTED:
        badge = f"{record.verdict}, expected {record.expected}"
    absence = ""
    if record is None:
        higher = claim is not None and claim.tier == "full" and run.settings.get("tier") != "full"
        absence = (
            "It runs in the full tier only."
            if higher
            else "The run ended before it was reached."
            if name in run.selected
            else "It was not selected for this run."
        )
    rule, parameters = _rule(record.criterion if record else judges.criterion(claim.judge) if claim else {})
    return ClaimView(
        name=name,
        anchor=f"claim-{slug(name)}",
        printed=head.endswith("@printed"),
        part=part,
        says=record.says if record else claim.says if claim else "",
        outcome=outcome,
        badge=badge,
        record=record,
        absence=absence,
        facts=_facts(record) if record else (),
        rule=rule,
        parameters=parameters,
        picture=picture,
        source=find_claim(claim, run.settings.get("package", "")) if claim else None,
    )


def _outcome(record: Record) -> Outcome:
    match record.verdict:
        case Verdict.ERROR:
            return ERROR
        case Verdict.INCONCLUSIVE:
            return INCONCLUSIVE
        case verdict if verdict != record.expected:
            return UNEXPECTED
        case Verdict.CONFIRMED:
            return CONFIRMED
    return REFUTED


def chapter_views(
    sheet: Sequence[Chapter], views: Sequence[ClaimView]
) -> tuple[tuple[ChapterView, ...], list[ClaimView]]:
    """The chapters, and the claims about statements that are not on the sheet."""
    about: dict[str, list[ClaimView]] = {}
    for view in views:
        about.setdefault(re.split("[@:]", view.name, maxsplit=1)[0], []).append(view)
    titles = {statement.id: statement.title for chapter in sheet for statement in chapter.statements}
    chapters = []
    for ordinal, chapter in enumerate(sheet, 1):
        statements = []
        for position, statement in enumerate(chapter.statements, 1):
            claims = about.pop(statement.id, [])
            readings = _readings(statement, claims)
            statements.append(
                StatementView(
                    statement=statement,
                    number=f"{ordinal}.{position}",
                    chapter=chapter.name,
                    outcome=_statement_outcome(statement, claims),
                    readings=readings,
                    functions=tuple((name, find_function(name)) for name in statement.functions),
                    rests_on=tuple((name, titles.get(name, "")) for name in statement.depends_on),
                )
            )
        chapters.append(ChapterView(chapter, ordinal, tuple(statements)))
    return tuple(chapters), [view for left in about.values() for view in left]


def _readings(statement: Statement, claims: Sequence[ClaimView]) -> tuple[Reading, ...]:
    of_print = tuple(claim for claim in claims if claim.printed)
    of_truth = tuple(claim for claim in claims if not claim.printed)
    if statement.status == "ok":
        return (Reading("", statement.printed, None, (*of_truth, *of_print)),)
    return (
        Reading("As printed", statement.printed, _together(of_print), of_print),
        Reading("Corrected", statement.corrected, _together(of_truth), of_truth),
    )


def _together(claims: Sequence[ClaimView]) -> Outcome | None:
    """One outcome for several claims: the worst, or what all of them share; None if there are none."""
    outcomes = {claim.outcome for claim in claims}
    for outcome in (*TROUBLE, REFUTED, CONFIRMED, NOT_RUN):
        if outcome in outcomes:
            return PARTLY if NOT_RUN in outcomes and outcome in (REFUTED, CONFIRMED) else outcome
    return None


def _statement_outcome(statement: Statement, claims: Sequence[ClaimView]) -> Outcome:
    outcome = _together(claims)
    if outcome in (CONFIRMED, REFUTED):
        return ERRATUM if statement.misprinted and REFUTED in {claim.outcome for claim in claims} else EXPECTED
    return outcome or NOT_RUN


def _facts(record: Record) -> tuple[Fact, ...]:
    names = {
        "measured": record.measured,
        "predicted": record.predicted,
        "standard error": record.standard_error,
        "margin": record.margin,
        "tightness": record.tightness,
    }
    return tuple(Fact(name, number(value)) for name, value in names.items() if value is not None)


def _rule(criterion: Mapping[str, Any]) -> tuple[str, str]:
    """The judge's rule in words, from its own documentation, and its tolerances."""
    judge = getattr(judges, str(criterion.get("judge")), None)
    words = (judge.__doc__ or "").split("\n\n")[0].strip() if judge is not None else ""
    tolerances = ", ".join(f"{name} = {value}" for name, value in criterion.items() if name != "judge")
    return words, f"{criterion.get('judge', '')}{f' ({tolerances})' if tolerances else ''}"


def slug(name: str) -> str:
    """A name for files and anchors, different for different claims."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", name.lower().replace("@", "_at_"))[:80]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
