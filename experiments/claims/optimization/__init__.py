"""Claims of the chapter Gradient descent and optimizers."""

from experiments.claims.optimization import (
    adaptive,
    gradient_descent,
    momentum,
    newton,
    signs,
    steepest_descent,
    stochastic,
)

__all__ = ["CLAIMS"]

CLAIMS = (
    *steepest_descent.CLAIMS,
    *gradient_descent.CLAIMS,
    *newton.CLAIMS,
    *stochastic.CLAIMS,
    *signs.CLAIMS,
    *momentum.CLAIMS,
    *adaptive.CLAIMS,
)
