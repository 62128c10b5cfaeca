"""Side-by-side measurements: time, memory and accuracy of this library's functions and of their peers.

A topic is a module of this package with a tuple `CASES`; `TOPICS` lists them. A case (`case.Case`) is one task with its
data and its contenders; `race` measures them in processes of their own, turn by turn. One that is wrong is not timed.
"""

from __future__ import annotations

__all__ = ["TOPICS"]

TOPICS = (
    "experiments.bench.ntk",
    "experiments.bench.infinite_width",
    "experiments.bench.samplers",
    "experiments.bench.diffusion",
)
