"""The theorems of a deep-learning course as JAX functions.

Every chapter is a subpackage, imported when it is first used: ``dltheory.background``, ``dltheory.perceptron``,
``dltheory.optimization``, ``dltheory.convergence``, ``dltheory.ntk``, ``dltheory.nngp``, ``dltheory.infinite_width``,
``dltheory.samplers``, ``dltheory.diffusion``, ``dltheory.metrics``.
Below the chapters are ``dltheory.networks``, ``dltheory.training`` and ``dltheory.data``; beside them
``dltheory.interop``.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = [
    "background",
    "convergence",
    "data",
    "debug",
    "diffusion",
    "infinite_width",
    "interop",
    "metrics",
    "networks",
    "nngp",
    "ntk",
    "optimization",
    "perceptron",
    "platform",
    "samplers",
    "training",
    "typing",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Imports a chapter when it is first asked for (PEP 562), so that ``import dltheory`` costs next to nothing."""
    if name in __all__:
        return importlib.import_module(f"dltheory.{name}")
    raise AttributeError(f"module 'dltheory' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
