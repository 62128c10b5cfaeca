"""The project's own source as pages to link to: where a function or a claim stands, and that file, highlighted."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from pathlib import Path
from typing import Any, NamedTuple

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from experiments.claim import Claim

__all__ = ["Place", "find_claim", "find_function", "highlighted"]

_ROOT = Path(__file__).parent.parent


class Place(NamedTuple):
    """A line of a file of the project; `file` is relative to the repository."""

    file: Path
    line: int

    @property
    def page(self) -> str:
        """Name of the file's page."""
        return f"{'.'.join(self.file.with_suffix('').parts)}.html"

    @property
    def href(self) -> str:
        """Address within the report."""
        return f"source/{self.page}#L{self.line}"


def find_function(name: str) -> Place | None:
    """Where the object with this dotted name is defined, or None if there is none in the project."""
    module, _, attribute = name.rpartition(".")
    try:
        thing: Any = getattr(importlib.import_module(module), attribute)
        thing = inspect.unwrap(thing)
        file = inspect.getsourcefile(thing)
        _, line = inspect.getsourcelines(thing)
    except (ImportError, AttributeError, TypeError, OSError, ValueError):
        return None
    return _place(file, line)


def find_claim(claim: Claim, package: str = "experiments.claims") -> Place | None:
    """Where a claim of this package is made: the call that names its id and part, else the function that measures."""
    texts = {claim.id, claim.part} - {""}
    calls = [call for call in _calls(package) if texts <= call.texts]
    for chosen in (calls, [call for call in calls if call.function == "Claim"]):
        if not claim.part:
            chosen = [call for call in chosen if not call.has_part]
        if len(chosen) == 1:
            return chosen[0].place
    try:
        measure = inspect.unwrap(claim.measure)
        return _place(inspect.getsourcefile(measure), inspect.getsourcelines(measure)[1])
    except (TypeError, OSError):
        return None


@functools.cache
def highlighted(file: Path) -> list[str]:
    """A file's lines as HTML."""
    source = (_ROOT / file).read_text(encoding="utf-8")
    return highlight(source, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).rstrip("\n").split("\n")


class _Call(NamedTuple):
    place: Place
    function: str
    texts: frozenset[str]
    has_part: bool


@functools.cache
def _calls(package: str) -> tuple[_Call, ...]:
    """Every call in the package that has a text among its arguments."""
    calls = []
    for path in sorted((_ROOT / Path(*package.split("."))).rglob("*.py") if package else ()):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            texts = frozenset(a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str))
            place = _place(str(path), node.lineno)
            if texts and place is not None:
                function = ast.unparse(node.func).rpartition(".")[2]
                calls.append(_Call(place, function, texts, any(k.arg == "part" for k in node.keywords)))
    return tuple(calls)


def _place(file: str | None, line: int) -> Place | None:
    path = Path(file or "").resolve()
    return Place(path.relative_to(_ROOT), max(line, 1)) if file and path.is_relative_to(_ROOT) else None
