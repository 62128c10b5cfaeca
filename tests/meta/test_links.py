"""Statement -> function -> claim -> test: nothing dangles and nothing is missing."""

import ast
import re
from pathlib import Path

import pytest

from experiments.claim import all_claims
from experiments.statements import CHAPTERS, Chapter, Statement, load_sheet
from tests.meta._public import public_functions, public_objects

TESTS = Path(__file__).parents[1]


def ids_with_tests() -> set[str]:
    """Every id in a ``pytest.mark.statement(...)`` of the test suite."""
    ids = set()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.statement":
                ids |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return ids


def functions_by_statement() -> dict[str, set[str]]:
    """Statement id -> dotted names of the public functions whose docstrings name it."""
    found: dict[str, set[str]] = {}
    for name, function in public_functions().items():
        _, _, rest = (function.__doc__ or "").partition("Statement:")
        for statement in re.findall(r"\b[a-z_]+\.[a-z0-9_]+\b", re.split(r"Source:|\n\s*\n", rest)[0]):
            found.setdefault(statement, set()).add(name)
    return found


def broken_links(sheet, claims, functions, tested) -> list[str]:
    """Everything that is missing or dangles, one sentence each."""
    problems = []
    statements: dict[str, Statement] = {s.id: s for chapter in sheet for s in chapter.statements}
    claimed = {claim.id for claim in claims}
    exported = set(public_objects())
    for statement in statements.values():
        if statement.id not in claimed:
            problems.append(f"{statement.id} has no claim")
        if statement.misprinted and f"{statement.id}@printed" not in claimed:
            problems.append(f"{statement.id} is {statement.status}, but its printed form has no claim")
        if not statement.misprinted and f"{statement.id}@printed" in claimed:
            problems.append(f"{statement.id} is not a computable misprint, but its printed form has a claim")
        if statement.id not in tested:
            problems.append(f"{statement.id} has no test")
        problems += [f"{statement.id} lists {f}, which is not public" for f in statement.functions if f not in exported]
        problems += [
            f"{name} names {statement.id}, which does not list it"
            for name in functions.get(statement.id, set()) - set(statement.functions)
        ]
        problems += [
            f"{statement.id} lists {name}, whose docstring does not name it"
            for name in set(statement.functions) - functions.get(statement.id, set())
            if name in exported
        ]
        problems += [f"{statement.id} depends on {d}, not stated" for d in statement.depends_on if d not in statements]
    problems += [f"a claim is about {i}, which is not stated" for i in {c.statement for c in claims} - set(statements)]
    problems += [f"a test is about {i}, which is not stated" for i in tested - set(statements)]
    return problems


SHEET, CLAIMS = load_sheet(), tuple(all_claims().values())
FUNCTIONS, TESTED = functions_by_statement(), ids_with_tests()


def test_nothing_is_missing_and_nothing_dangles():
    assert broken_links(SHEET, CLAIMS, FUNCTIONS, TESTED) == []


def test_number_of_items_on_the_sheet():
    counts = {chapter.name: len(chapter.statements) for chapter in SHEET}
    assert counts == {
        "background": 22,
        "perceptron": 7,
        "optimization": 13,
        "convergence": 19,
        "ntk": 21,
        "nngp": 6,
        "infinite_width": 2,
        "samplers": 10,
        "diffusion": 26,
        "metrics": 2,
    }
    assert tuple(counts) == CHAPTERS


@pytest.mark.parametrize("index", range(0, sum(len(c.statements) for c in SHEET), 7))
def test_a_removed_link_is_found(index):
    statement = [s for chapter in SHEET for s in chapter.statements][index]
    without_claim = [claim for claim in CLAIMS if claim.statement != statement.id]
    assert any(statement.id in problem for problem in broken_links(SHEET, without_claim, FUNCTIONS, TESTED))
    assert any(statement.id in p for p in broken_links(SHEET, CLAIMS, FUNCTIONS, TESTED - {statement.id}))
    without_statement = tuple(
        Chapter(c.name, c.title, c.introduction, tuple(s for s in c.statements if s is not statement)) for c in SHEET
    )
    assert any(statement.id in p for p in broken_links(without_statement, CLAIMS, FUNCTIONS, TESTED))
    if statement.functions:
        unnamed = {i: names for i, names in FUNCTIONS.items() if i != statement.id}
        assert any(statement.id in p for p in broken_links(SHEET, CLAIMS, unnamed, TESTED))


def test_a_missing_printed_claim_is_found():
    wrong = next(s for chapter in SHEET for s in chapter.statements if s.misprinted)
    kept = [claim for claim in CLAIMS if claim.id != f"{wrong.id}@printed"]
    assert any(f"{wrong.id} is {wrong.status}" in problem for problem in broken_links(SHEET, kept, FUNCTIONS, TESTED))
