"""What rules know of the network beside their operands."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from dltheory._programs import Equation
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._gaussians import Mask
from dltheory.infinite_width._moments import Moments
from dltheory.infinite_width._values import Weights
from dltheory.typing import Array

__all__ = ["Context", "location"]


class Context:
    """What rules know of the network, and what they have noted of it.

    Attributes:
        moments: evaluates averages over channels, which are known numbers.
        variance: (leaf, number of summed weights or None for a bias) -> variance of an entry.
        masks: those that were made of random numbers.
        uses: how the axes of leaves and of random numbers are used.
    """

    def __init__(self, moments: Moments, variance: Callable[[Hashable, int | None], Array | float]) -> None:
        self.moments = moments
        self.variance = variance
        self.masks: dict[Hashable, Mask] = {}
        self.uses: dict[Hashable, Any] = {}
        self._parts: dict[Hashable, set[tuple]] = {}

    def use(self, weights: Weights, summed: Any, kind: str, pairing: Any = None) -> None:
        """Notes how the axes of a leaf are used: alike wherever it is, or else the layers depend on each other.

        Of each kind of what it is multiplied with, the entries must be paired with those of the leaf alike.
        """
        keys = {weights.leaf: summed, (weights.leaf, kind): pairing}
        if any(self.uses.setdefault(key, use) != use for key, use in keys.items()):
            raise UnsupportedError(
                "weights are used a second time in another way, as with their axes exchanged, so that the layers "
                "depend on each other"
            )

    def take(self, part: Hashable) -> None:
        """Notes that a part of a leaf is used: parts are the same ones or disjoint."""
        leaf, cuts = _cuts(part)
        parts = self._parts.setdefault(leaf, set())
        if any(_overlap(cuts, others) for others in parts):
            raise UnsupportedError("the whole of weights is used, and a part of them by itself, which has no rule")
        parts.add(cuts)


def location(equation: Equation) -> str:
    """An equation and the line of the user that it comes from."""
    return f"`{equation.name}` at {equation.source}"


def _cuts(part: Hashable) -> tuple[Hashable, tuple]:
    """The leaf that a name is of a part of, and which part."""
    if not isinstance(part, tuple):
        return part, ()
    leaf, cuts = _cuts(part[0])
    return leaf, (*cuts, part[1:])


def _overlap(first: tuple, second: tuple) -> bool:
    """Whether two parts of a leaf have entries in common without being the same."""
    for (kind, *a), (other, *b) in zip(first, second, strict=False):
        if (kind, a) == (other, b):
            continue
        apart = kind == other and (kind == "step" or a[1] <= b[0] or b[1] <= a[0])
        return not apart
    return len(first) != len(second)
