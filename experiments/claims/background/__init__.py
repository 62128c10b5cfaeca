"""Claims of the chapter Background."""

from experiments.claims.background import (
    calculus,
    distributions,
    divergences,
    elementary,
    gaussian,
    inequalities,
    mgf,
)

__all__ = ["CLAIMS"]

CLAIMS = (
    *elementary.CLAIMS,
    *inequalities.CLAIMS,
    *divergences.CLAIMS,
    *mgf.CLAIMS,
    *gaussian.CLAIMS,
    *distributions.CLAIMS,
    *calculus.CLAIMS,
)
