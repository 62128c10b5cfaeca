"""Meeting other libraries: the only package that touches what is internal to one.

The rest of the library imports nothing from here. ``interop.neural_tangents.load()`` makes neural-tangents
importable; ``interop.arviz.to_inference_data()`` hands chains to ArviZ.
"""

from __future__ import annotations

from dltheory.interop import arviz, neural_tangents

__all__ = ["arviz", "neural_tangents"]
