"""Meeting other libraries: the only package that touches what is internal to one.

Nothing here is imported by the rest of the library. ``interop.neural_tangents.load()`` makes neural-tangents importable.
"""

from __future__ import annotations

from dltheory.interop import neural_tangents

__all__ = ["neural_tangents"]
