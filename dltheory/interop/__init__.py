"""Meeting other libraries: the only package that touches what is internal to one.

The rest of the library imports nothing from here. ``interop.neural_tangents.load()`` makes neural-tangents importable.
"""

from __future__ import annotations

from dltheory.interop import neural_tangents

__all__ = ["neural_tangents"]
