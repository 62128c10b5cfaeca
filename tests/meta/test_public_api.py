"""Every public function is exported, documented and has its row."""

import inspect
import re

import pytest

from experiments.statements import load_sheet
from tests.meta._public import CHAPTERS, cases, modules, public_functions, public_objects

FUNCTIONS = public_functions()
MODULES = list(modules())
IDS = {statement.id for chapter in load_sheet() for statement in chapter.statements}
_SECTION = re.compile(r"^ {0,4}(Args|Attributes|Returns|Raises):\s*$", re.MULTILINE)


def documented_arguments(doc: str) -> set[str]:
    """Names in the Args section of a Google-style docstring; ``a, b: text`` documents both."""
    doc = inspect.cleandoc(doc)
    match = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", doc, re.MULTILINE | re.DOTALL)
    if match is None:
        return set()
    heads = re.findall(r"^ {4}(\*{0,2}\w[\w, *`]*):", match.group(1), re.MULTILINE)
    return {name.strip(" *`") for head in heads for name in head.split(",")}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_module_has_docstring_and_sorted_all_of_its_own_names(module):
    assert module.__doc__, f"{module.__name__} has no docstring"
    assert hasattr(module, "__all__"), f"{module.__name__} has no __all__"
    if module.__name__ != "dltheory":
        assert all(hasattr(module, name) for name in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_exports_what_its_modules_export(chapter):
    exported = {name for name in public_objects() if name.startswith(f"dltheory.{chapter}.")}
    own = {
        f"dltheory.{chapter}.{name}"
        for module in MODULES
        if module.__name__.startswith(f"dltheory.{chapter}.")
        if not module.__name__.rpartition(".")[2].startswith("_")
        for name in module.__all__
    }
    assert exported == own


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_matches_the_signature(name):
    function = FUNCTIONS[name]
    doc = function.__doc__
    assert doc, f"{name} has no docstring"
    parameters = {p.name for p in inspect.signature(function).parameters.values()}
    assert documented_arguments(doc) == parameters
    assert "Returns:" in doc, f"{name} does not say what it returns"
    assert ">>>" in doc, f"{name} has no example"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_names_its_statement_and_source(name):
    doc = FUNCTIONS[name].__doc__ or ""
    if re.search(r"^\s*A helper\.", doc, re.MULTILINE):
        return
    ids = re.findall(r"\b[a-z_]+\.[a-z0-9_]+\b", _after(doc, "Statement:"))
    assert ids, f"{name} names no statement and does not call itself a helper"
    assert set(ids) <= IDS, f"{name} names statements that the sheet does not have: {sorted(set(ids) - IDS)}"
    assert "Source:" in doc, f"{name} names no source"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signature_is_annotated(name):
    signature = inspect.signature(FUNCTIONS[name])
    missing = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
    assert not missing
    assert signature.return_annotation is not signature.empty


def test_every_public_function_has_a_row():
    rows = {case.name for case in cases()}
    assert set(FUNCTIONS) - rows == set(), "functions without a row in tests/<chapter>/cases.py"
    assert rows - set(FUNCTIONS) == set(), "rows for functions that do not exist"


def test_rows_have_unique_ids():
    ids = [(case.name, case.label) for case in cases()]
    assert len(set(ids)) == len(ids)


def _after(doc: str, word: str) -> str:
    """The text from `word` up to the source or the end of the paragraph."""
    _, found, rest = doc.partition(word)
    return re.split(r"Source:|\n\s*\n", rest)[0] if found else ""
