"""The report: the sheet in reading order with verdicts and pictures, as a folder of pages that opens from disk.

Nothing is computed here: statements, records and curves are shown as they are. The pages load nothing from elsewhere.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from experiments import judges
from experiments.claim import Claim, all_claims
from experiments.evaluate import Record
from experiments.judges import Verdict
from experiments.plots import pictures
from experiments.sources import Place, find_claim, find_function, highlighted
from experiments.statements import Chapter, Statement, load_sheet
from experiments.store import Run, load_run
from experiments.typeset import prose

__all__ = ["render", "write_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_ASSETS = ("report.css", "report.js")


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
_TROUBLE = (ERROR, UNEXPECTED, INCONCLUSIVE)  # the worst first


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


def write_report(run_dir: Path) -> Path:
    """Writes (or replaces) the report of a run; returns its front page.

    Raises:
        StoreError: if the folder holds no run.
        OSError: if the report cannot be written.
    """
    run = load_run(run_dir)
    target = run.path / "report"
    # A reader never meets half a report, and no picture of an earlier one stays behind.
    with tempfile.TemporaryDirectory(prefix="report-", dir=run.path, ignore_cleanup_errors=True) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        render(run, load_sheet(), all_claims(), new)
        if target.exists():
            target.rename(old)
        new.rename(target)
    return target / "index.html"


def render(run: Run, sheet: Sequence[Chapter], claims: Mapping[str, Claim], folder: Path) -> None:
    """Renders a run into a new folder.

    Args:
        run: records and settings.
        sheet: the statements, in reading order.
        claims: the claims there are; those without a record are shown as not run.
        folder: where to write.
    """
    (folder / "pictures").mkdir(parents=True)
    (folder / "source").mkdir()
    drawn = _write_pictures(run, folder / "pictures")
    views = _claim_views(run, claims, drawn)
    chapters, strays = _chapter_views(sheet, views)
    environment = _environment()
    page = environment.get_template("index.html.jinja").render(
        run=run,
        started=_date(run.settings.get("started", "")),
        chapters=chapters,
        strays=strays,
        counts=Counter(view.outcome.key for view in views),
        outcomes=OUTCOMES,
        trouble=sorted((v for v in views if v.outcome in _TROUBLE), key=lambda v: _TROUBLE.index(v.outcome)),
        errata=[view for chapter in chapters for view in chapter.statements if view.statement.status != "ok"],
        total=sum(len(chapter.statements) for chapter in chapters),
        environment=_rows(run.environment),
        settings=_rows({k: v for k, v in run.settings.items() if k not in ("started", "resumed")}),
    )
    (folder / "index.html").write_text(page, encoding="utf-8", errors="replace")
    _write_sources(environment, chapters, strays, folder / "source")
    for asset in _ASSETS:
        shutil.copyfile(_TEMPLATES / asset, folder / asset)


def _write_pictures(run: Run, folder: Path) -> dict[str, Picture]:
    drawn = {}
    for name, svg in pictures(run.records.values()).items():
        if isinstance(svg, Exception):
            drawn[name] = Picture(problem=str(svg))
        elif svg is not None:
            file = f"{_slug(name)}.svg"
            (folder / file).write_text(svg, encoding="utf-8", errors="replace")
            width, height = (float(size) for size in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2])
            drawn[name] = Picture(f"pictures/{file}", round(width * 4 / 3), round(height * 4 / 3))
    return drawn


def _write_sources(
    environment: jinja2.Environment, chapters: Sequence[ChapterView], strays: Sequence[ClaimView], folder: Path
) -> None:
    statements = [view for chapter in chapters for view in chapter.statements]
    claims = [*(claim for view in statements for claim in view.claims), *strays]
    places = [place for view in statements for _, place in view.functions]
    places += [claim.source for claim in claims]
    for file in sorted({place.file for place in places if place is not None}):
        lines = [Markup(line) for line in highlighted(file)]
        page = environment.get_template("source.html.jinja").render(file=file.as_posix(), lines=lines)
        (folder / Place(file, 1).page).write_text(page, encoding="utf-8")


def _claim_views(run: Run, claims: Mapping[str, Claim], drawn: Mapping[str, Picture]) -> list[ClaimView]:
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
        anchor=f"claim-{_slug(name)}",
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
        source=find_claim(claim) if claim else None,
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


def _chapter_views(
    sheet: Sequence[Chapter], views: Sequence[ClaimView]
) -> tuple[tuple[ChapterView, ...], list[ClaimView]]:
    """The chapters, and the claims about statements that are not on the sheet."""
    about: dict[str, list[ClaimView]] = {}
    for view in views:
        about.setdefault(re.split("[@:]", view.name, maxsplit=1)[0], []).append(view)
    titles = {statement.id: statement.title for chapter in sheet for statement in chapter.statements}
    chapters = []
    for number, chapter in enumerate(sheet, 1):
        statements = []
        for position, statement in enumerate(chapter.statements, 1):
            claims = about.pop(statement.id, [])
            readings = _readings(statement, claims)
            statements.append(
                StatementView(
                    statement=statement,
                    number=f"{number}.{position}",
                    chapter=chapter.name,
                    outcome=_statement_outcome(statement, claims),
                    readings=readings,
                    functions=tuple((name, find_function(name)) for name in statement.functions),
                    rests_on=tuple((name, titles.get(name, "")) for name in statement.depends_on),
                )
            )
        chapters.append(ChapterView(chapter, number, tuple(statements)))
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
    for outcome in (*_TROUBLE, REFUTED, CONFIRMED, NOT_RUN):
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
    return tuple(Fact(name, _number(value)) for name, value in names.items() if value is not None)


def _rule(criterion: Mapping[str, Any]) -> tuple[str, str]:
    """The judge's rule in words, from its own documentation, and its tolerances."""
    judge = getattr(judges, str(criterion.get("judge")), None)
    words = (judge.__doc__ or "").split("\n\n")[0].strip() if judge is not None else ""
    tolerances = ", ".join(f"{name} = {value}" for name, value in criterion.items() if name != "judge")
    return words, f"{criterion.get('judge', '')}{f' ({tolerances})' if tolerances else ''}"


def _number(value: float) -> str:
    text = f"{value:.5g}".replace("inf", "∞").replace("-", "−")
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa} · 10{_raised(exponent.replace('−', '-'))}" if e else mantissa


def _raised(exponent: str) -> str:
    return str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _seconds(value: float) -> str:
    if value < 0.0995:
        return f"{1000 * value:.2g} ms"
    return f"{value:.2g} s" if value < 9.95 else f"{value:.0f} s"


def _relations(text: str) -> str:
    """A judge's words with the signs that a typesetter would use."""
    text = text.replace("<=", "≤").replace(">=", "≥").replace("+-", "±")
    text = re.sub(r"(?<=\d)e([+-]\d+)", lambda match: f" · 10{_raised(match[1])}", text)
    return re.sub(r"(?<![\w.)])-(?=\d|inf\b)", "−", text).replace(" inf ", " ∞ ")


def _reason(record: Record) -> str:
    """Why the verdict is what it is; errors are quoted as they came."""
    return record.reason if record.verdict == Verdict.ERROR else prose(_relations(record.reason))


def _breakable(name: str) -> Markup:
    """A dotted name that may be broken after its dots."""
    return Markup("<wbr>").join(re.split(r"(?<=[.:])", name))


def _rows(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A nested table as lines of text."""

    def words(value: Any) -> str:
        match value:
            case None | [] | "":
                return "–"
            case Mapping():
                return ", ".join(f"{key} {words(item)}" for key, item in value.items())
            case list() | tuple():
                return ", ".join(words(item) for item in value)
        return str(value)

    return [(str(key).replace("_", " "), words(value)) for key, value in table.items()]


def _date(text: str) -> str:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def _slug(name: str) -> str:
    """A name for files and anchors, different for different claims."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", name.lower().replace("@", "_at_"))[:80]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "prose": prose,
        "seconds": _seconds,
        "relations": _relations,
        "reason": _reason,
        "breakable": _breakable,
    }
    environment.globals |= {"Verdict": Verdict}
    return environment
