"""Rows of the package `networks`."""

from tests.cases import Case

CASES: tuple[Case, ...] = ()
