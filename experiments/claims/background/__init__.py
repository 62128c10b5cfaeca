"""Claims of the chapter Background."""

from experiments.claims.background import calculus, elementary, inequalities

__all__ = ["CLAIMS"]

CLAIMS = (*elementary.CLAIMS, *inequalities.CLAIMS, *calculus.CLAIMS)
