"""Claims of the chapter Gradient descent and optimizers."""

from experiments.claims.optimization import descent

__all__ = ["CLAIMS"]

CLAIMS = descent.CLAIMS
