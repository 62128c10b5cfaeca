"""The public surface of the library, as the meta tests see it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType

import dltheory
from tests.cases import Case

BASE = {"debug", "interop", "platform", "typing"}
CHAPTERS = tuple(name for name in dltheory.__all__ if name not in BASE)


def modules(package: str = "dltheory") -> Iterator[ModuleType]:
    """The package and every module below it."""
    root = importlib.import_module(package)
    yield root
    for info in pkgutil.walk_packages(root.__path__, f"{package}."):
        yield importlib.import_module(info.name)


def public_objects() -> dict[str, object]:
    """Dotted name -> object for every name that a chapter exports."""
    return {
        f"dltheory.{chapter}.{name}": getattr(package, name)
        for chapter in CHAPTERS
        for package in [importlib.import_module(f"dltheory.{chapter}")]
        for name in package.__all__
    }


def public_functions() -> dict[str, Callable]:
    """The public objects that are functions (not types)."""
    return {name: thing for name, thing in public_objects().items() if inspect.isfunction(thing)}


def cases() -> list[Case]:
    """Every row of every chapter."""
    return [case for chapter in CHAPTERS for case in importlib.import_module(f"tests.{chapter}.cases").CASES]
