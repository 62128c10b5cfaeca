"""The report: the sheet in reading order with verdicts and pictures, as a folder of pages that opens from disk.

Nothing is computed here: statements, records and curves are shown as they are. The pages load nothing from elsewhere.
"""

from __future__ import annotations

import datetime
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from experiments.claim import Claim
from experiments.errors import UsageError
from experiments.evaluate import Record
from experiments.judges import Verdict
from experiments.plots import pictures
from experiments.select import claims_of
from experiments.sources import Place, highlighted
from experiments.statements import Chapter, load_sheet
from experiments.store import Run, load_run
from experiments.typeset import prose, signs
from experiments.views import (
    ERRATUM,
    OUTCOMES,
    TROUBLE,
    ChapterView,
    ClaimView,
    Picture,
    chapter_views,
    claim_views,
    slug,
)

__all__ = ["render", "write_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_ASSETS = ("report.css", "report.js")


def write_report(run_dir: Path) -> Path:
    """Writes (or replaces) the report of a run; returns its front page.

    Raises:
        StoreError: if the folder holds no run.
        OSError: if the report cannot be written.
    """
    run = load_run(run_dir)
    try:
        claims = claims_of(run.settings["package"])
    except UsageError:
        claims = {}  # the records speak for themselves
    target = run.path / "report"
    # A reader never meets half a report, and no picture of an earlier one stays behind.
    with tempfile.TemporaryDirectory(prefix="report-", dir=run.path, ignore_cleanup_errors=True) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        render(run, load_sheet(), claims, new)
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
    views = claim_views(run, claims, drawn)
    chapters, strays = chapter_views(sheet, views)
    environment = _environment()
    page = environment.get_template("index.html.jinja").render(
        run=run,
        started=_date(run.settings.get("started", "")),
        chapters=chapters,
        strays=strays,
        counts=Counter(view.outcome.key for view in views),
        outcomes=OUTCOMES,
        erratum=ERRATUM,
        trouble=sorted((v for v in views if v.outcome in TROUBLE), key=lambda v: TROUBLE.index(v.outcome)),
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
            file = f"{slug(name)}.svg"
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


def _seconds(value: float) -> str:
    if value < 0.0995:
        return f"{1000 * value:.2g} ms"
    return f"{value:.2g} s" if value < 9.95 else f"{value:.0f} s"


def _reason(record: Record) -> str:
    """Why the verdict is what it is; errors are quoted as they came."""
    return record.reason if record.verdict == Verdict.ERROR else prose(signs(record.reason))


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
        "signs": signs,
        "reason": _reason,
        "breakable": _breakable,
    }
    environment.globals |= {"Verdict": Verdict}
    return environment
