"""Claims of the chapter Neural tangent kernel."""

from experiments.claims.ntk import (
    curvature,
    definitions,
    dynamics,
    ensembles,
    generalization,
    initialization,
    regression,
    wide,
)

__all__ = ["CLAIMS"]

CLAIMS = (
    *generalization.CLAIMS,
    *definitions.CLAIMS,
    *dynamics.CLAIMS,
    *regression.CLAIMS,
    *initialization.CLAIMS,
    *wide.CLAIMS,
    *ensembles.CLAIMS,
    *curvature.CLAIMS,
)
