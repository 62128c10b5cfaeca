"""Finds claims and statements by what a user types."""

from __future__ import annotations

import difflib
import fnmatch
import importlib.util
from collections.abc import Collection, Iterable, Mapping, Sequence

from experiments.claim import Claim, all_claims
from experiments.errors import UsageError
from experiments.statements import Statement, load_sheet

__all__ = ["claims_of", "find_statement", "select"]


def claims_of(package: str) -> dict[str, Claim]:
    """All claims of a package by name.

    Raises:
        UsageError: if there is no such package.
    """
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None or found.submodule_search_locations is None:
        raise UsageError(f"there is no package {package}")
    return all_claims(package)


def select(patterns: Sequence[str], claims: Mapping[str, Claim], tier: str = "full") -> list[Claim]:
    """The claims that any of the patterns names, in the order of the sheet; without patterns all of them.

    A pattern is the first of these that matches anything: the id of a statement, for all its claims; the name of a
    claim (or the id with ``@printed``, for the misprint alone); the name of a chapter; the beginning of names; a shell
    pattern.

    Args:
        patterns: what the user typed.
        claims: all claims by name.
        tier: claims of a higher tier are left out.

    Raises:
        UsageError: if a pattern matches nothing (the nearest names are offered), or nothing in this tier.
    """
    chosen = set(claims) if not patterns else {name for pattern in patterns for name in _match(pattern, claims)}
    place = {s.id: i for i, s in enumerate(s for chapter in load_sheet() for s in chapter.statements)}
    ordered = sorted((claims[n] for n in claims if n in chosen), key=lambda c: place.get(c.statement, len(place)))
    allowed = [claim for claim in ordered if tier == "full" or claim.tier == tier]
    if not allowed:
        raise UsageError(f"{' '.join(patterns) or 'the package'}: no claim runs in the {tier} tier (try --tier full)")
    return allowed


def find_statement(name: str, claims: Mapping[str, Claim]) -> tuple[Statement | None, list[Claim]]:
    """A statement, by its id or the name of one of its claims, and all its claims.

    The statement is None for claims that are not about the sheet.

    Raises:
        UsageError: if there is neither such a statement nor such a claim.
    """
    statements = {s.id: s for chapter in load_sheet() for s in chapter.statements}
    id = claims[name].statement if name in claims else name.partition("@")[0].partition(":")[0]
    own = [claim for claim in claims.values() if claim.statement == id]
    if id not in statements and not own:
        raise UsageError(f"there is no statement {name}{_nearest(name, [*statements, *claims])}")
    return statements.get(id), own


def _match(pattern: str, claims: Mapping[str, Claim]) -> Collection[str]:
    chapters = {chapter.name: {s.id for s in chapter.statements} for chapter in load_sheet()}
    in_chapter = chapters.get(pattern, ())
    matches = (
        {name for name, claim in claims.items() if claim.statement == pattern}
        or {name for name, claim in claims.items() if pattern in (name, claim.id)}
        or {name for name, claim in claims.items() if claim.statement in in_chapter}
        or {name for name in claims if name.startswith(pattern)}
        or {n for n, claim in claims.items() if fnmatch.filter((n, claim.id, claim.statement), pattern)}
    )
    if not matches:
        prefixes = {claim.id.partition(".")[0] for claim in claims.values()}
        names = [*chapters, *prefixes, *(claim.statement for claim in claims.values()), *claims]
        raise UsageError(f"no claim matches {pattern}{_nearest(pattern, names)}")
    return matches


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(dict.fromkeys(names)), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(near)}" if near else "; python -m experiments list shows all"
