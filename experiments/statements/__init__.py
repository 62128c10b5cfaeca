"""The sheet as data: one TOML file a chapter, one table a statement."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from pathlib import Path

__all__ = ["CHAPTERS", "KINDS", "STATUSES", "Chapter", "Statement", "load_sheet"]

# The order of the sheet, with what goes beyond it after what it extends.
CHAPTERS = (
    "background",
    "perceptron",
    "optimization",
    "convergence",
    "ntk",
    "nngp",
    "infinite_width",
    "samplers",
    "diffusion",
    "metrics",
)
KINDS = ("definition", "function", "algorithm", "theorem", "claim", "architecture", "practice")
STATUSES = ("ok", "wrong", "garbled", "incomplete")


@dataclasses.dataclass(frozen=True)
class Statement:
    """One statement of the sheet.

    Text fields are prose in which ``$...$`` is LaTeX.

    Attributes:
        id: stable dotted id; its first part is the sheet's own heading, which may differ from the package's name.
        title: what the statement is called.
        kind: definition, function, algorithm, theorem, claim, architecture or practice.
        printed: the statement as the sheet prints it; in a chapter beyond the sheet, as the project states it.
        status: "ok", or what is the matter with the print: "wrong", "garbled" (symbols lost) or "incomplete"
            (a premise is missing).
        corrected: the statement as it should read; present exactly when the status is not "ok".
        remark: what a reader should know: why the print fails, how to read it, how sharp it is.
        literal: whether the misprint can be computed as it stands; if not, it is recorded as an erratum only.
        source: author, year, number of the theorem.
        assumptions: premises, in words.
        functions: dotted names of the functions that implement it.
        depends_on: ids of statements it rests on.
    """

    id: str
    title: str
    kind: str
    printed: str
    status: str = "ok"
    corrected: str = ""
    remark: str = ""
    literal: bool = True
    source: str = ""
    assumptions: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"statement {self.id!r}: kind is one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.status not in STATUSES:
            raise ValueError(f"statement {self.id!r}: status is one of {', '.join(STATUSES)}, got {self.status!r}")
        if (self.status == "ok") == bool(self.corrected):
            raise ValueError(f"statement {self.id!r}: a corrected text belongs to a misprint, and only to one")

    @property
    def misprinted(self) -> bool:
        """Whether the literal text must be refuted by a claim of its own."""
        return self.status != "ok" and self.literal


@dataclasses.dataclass(frozen=True)
class Chapter:
    """A chapter of the sheet: its name (the package's), title, an introduction of a sentence or two, statements."""

    name: str
    title: str
    introduction: str
    statements: tuple[Statement, ...]


@functools.cache
def load_sheet() -> tuple[Chapter, ...]:
    """All chapters in the order of the sheet.

    Raises:
        ValueError: if a file has an unknown field, a missing one, or an id that occurs twice.
    """
    chapters = tuple(_load_chapter(name) for name in CHAPTERS)
    ids = [statement.id for chapter in chapters for statement in chapter.statements]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise ValueError(f"statements defined twice: {', '.join(twice)}")
    return chapters


def _load_chapter(name: str) -> Chapter:
    path = Path(__file__).parent / f"{name}.toml"
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    statements = []
    for table in data["statement"]:
        lists = {field: tuple(table.get(field, ())) for field in ("assumptions", "functions", "depends_on")}
        try:
            statements.append(Statement(**table | lists))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path.name}, statement {table.get('id')!r}: {error}") from None
    return Chapter(name, data["title"], data["introduction"], tuple(statements))
