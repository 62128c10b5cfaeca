"""A claim: one statement of the sheet made executable.

A claim is four functions. `measure` simulates. `predict` knows only the theory. `judge` compares the two by a rule
fixed before the run. `control` replaces one of the first two (or the set-up) by something deliberately wrong, which the
same judge must refute: a claim that its control passes has no power, whatever its own verdict.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from dltheory.typing import PRNGKey
from experiments.judges import Judge, Verdict

__all__ = ["Assumption", "Axes", "Budget", "Claim", "Draw", "Variant", "all_claims", "generator"]


class Draw(NamedTuple):
    """What a claim without a set-up of its own is given.

    Attributes:
        key: the claim's random key, derived from its name and the run's seed.
        budget: the number of trials (or whatever the claim counts) for the tier.
    """

    key: PRNGKey
    budget: int


class Budget(NamedTuple):
    """How much a claim may simulate in each tier."""

    quick: int
    full: int


class Axes(NamedTuple):
    """Labels of the claim's picture; `log` names the logarithmic axes ("", "x", "y" or "xy")."""

    x: str = ""
    y: str = ""
    log: str = ""


class Assumption(NamedTuple):
    """A premise of the statement that the run measures.

    Attributes:
        what: the premise in words.
        holds: problem -> truth value. If it is false the claim is inconclusive, whatever was measured.
    """

    what: str
    holds: Callable[[Any], Any]


class Variant(NamedTuple):
    """The same claim with some of its functions replaced.

    Attributes:
        what: what is different, in words: "half the bound", "without non-negativity".
        setup: replaces the claim's set-up (a violated assumption).
        measure: replaces the measurement.
        predict: replaces the theory.
    """

    what: str
    setup: Callable[[PRNGKey, int], Any] | None = None
    measure: Callable[[Any], Any] | None = None
    predict: Callable[[Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Claim:
    """One executable claim about one statement.

    Attributes:
        id: the statement's id; with ``@printed`` the claim is the sheet's literal text, which must be refuted.
        says: what is compared with what, in one sentence.
        measure: problem -> number, array, `Curve`, or dictionary of these. Simulates; knows no theory.
        predict: problem -> the same form (or one nameless prediction for all curves). Theory only.
        judge: the criterion, with its tolerances.
        control: a variant that the judge must refute.
        setup: (key, budget) -> problem, the data that measurement and prediction share; `Draw` by default.
        corrected: for a printed misprint, the variant (usually the corrected theory) that the same judge must confirm:
            without it, a refutation might only show that the judge refuses everything.
        part: tells several claims about one statement apart.
        assumptions: premises to measure first.
        budget: trials in each tier.
        tier: the lowest tier that runs this claim.
        time_limit: seconds in the quick tier after which the claim is stopped; the full tier has ten times as long.
        axes: labels of the picture.
    """

    id: str
    says: str
    measure: Callable[[Any], Any]
    predict: Callable[[Any], Any]
    judge: Judge
    control: Variant
    setup: Callable[[PRNGKey, int], Any] = Draw
    corrected: Variant | None = None
    part: str = ""
    assumptions: tuple[Assumption, ...] = ()
    budget: Budget = Budget(1, 1)
    tier: str = "quick"
    time_limit: float = 60.0
    axes: Axes = Axes()

    def __post_init__(self) -> None:
        _, _, suffix = self.id.partition("@")
        if suffix not in ("", "printed"):
            raise ValueError(f"claim {self.id!r}: the only suffix is @printed")
        if (suffix == "printed") != (self.corrected is not None):
            raise ValueError(f"claim {self.id!r}: a printed misprint, and nothing else, needs a corrected variant")
        for variant in (self.control, self.corrected):
            if variant is not None and not any(variant[1:]):
                raise ValueError(f"claim {self.id!r}: the variant {variant.what!r} replaces nothing")
        if self.tier not in TIERS:
            raise ValueError(f"claim {self.id!r}: the tier is one of {', '.join(TIERS)}, got {self.tier!r}")

    @property
    def name(self) -> str:
        """The claim's unique name: ``statement[@printed][:part]``."""
        return self.id + (f":{self.part}" if self.part else "")

    @property
    def statement(self) -> str:
        """Id of the statement that the claim is about."""
        return self.id.partition("@")[0]

    @property
    def printed(self) -> bool:
        """Whether the claim is the sheet's literal text where that is mistaken."""
        return "@" in self.id

    @property
    def expected(self) -> Verdict:
        """The verdict that the claim should get."""
        return Verdict.REFUTED if self.printed else Verdict.CONFIRMED

    def key(self, seed: int) -> PRNGKey:
        """The claim's random key: derived from its name, so that no claim moves another; `seed` changes them all."""
        return jax.random.fold_in(jax.random.key(seed), int(hashlib.sha256(self.name.encode()).hexdigest()[:8], 16))

    def with_variant(self, variant: Variant) -> Claim:
        """The claim with the functions that `variant` names in place of its own."""
        changes = {field: value for field, value in variant._asdict().items() if value is not None and field != "what"}
        return dataclasses.replace(self, **changes)


TIERS = ("quick", "full")


def generator(key: PRNGKey) -> np.random.Generator:
    """A NumPy generator seeded by a key: for data whose making is not under test, without a compilation."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


@functools.cache
def all_claims(package: str = "experiments.claims") -> dict[str, Claim]:
    """Every claim by name, chapters in alphabetical order: the ``CLAIMS`` of each module in `package`."""
    claims: dict[str, Claim] = {}
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if info.name.startswith("_"):
            continue
        for claim in importlib.import_module(f"{package}.{info.name}").CLAIMS:
            if claim.name in claims:
                raise ValueError(f"two claims are named {claim.name!r}: give one of them a part")
            claims[claim.name] = claim
    return claims
