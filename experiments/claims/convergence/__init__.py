"""Claims of the chapter Convergence guarantees."""

from experiments.claims.convergence import averaging, conditions, rates, smoothness, stochastic

__all__ = ["CLAIMS"]

CLAIMS = (*conditions.CLAIMS, *smoothness.CLAIMS, *rates.CLAIMS, *averaging.CLAIMS, *stochastic.CLAIMS)
