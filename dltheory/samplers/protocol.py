"""What a sampler is: a Markov kernel as two pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dltheory.typing import PRNGKey, PyTree

__all__ = ["SamplingAlgorithm"]


class SamplingAlgorithm(NamedTuple):
    """A Markov chain, made by a closure over its settings and written for one chain.

    The states have blackjax's field names (`position`, and where they are known `logdensity` and `logdensity_grad`), so
    that its tools take them. The infos say how a step went: `acceptance_rate`, `is_accepted` and
    `is_divergent` where they exist. A chain is a `lax.scan` over keys; many chains are its `vmap`.

    Attributes:
        init: position -> state.
        step: (key, state) -> (state, info).
    """

    init: Callable[[PyTree], Any]
    step: Callable[[PRNGKey, Any], tuple[Any, Any]]
