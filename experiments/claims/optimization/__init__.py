"""Claims of the chapter Gradient descent and optimizers."""

from experiments.claims.optimization import gradient_descent, newton, signs, steepest_descent

__all__ = ["CLAIMS"]

CLAIMS = (*steepest_descent.CLAIMS, *gradient_descent.CLAIMS, *newton.CLAIMS, *signs.CLAIMS)
