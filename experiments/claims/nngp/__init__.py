"""Claims of the chapter on networks as Gaussian processes."""

from experiments.claims.nngp import limits, recursion, regression

__all__ = ["CLAIMS"]

CLAIMS = (*limits.CLAIMS, *recursion.CLAIMS, *regression.CLAIMS)
