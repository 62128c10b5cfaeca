"""Claims of the chapter on diffusion models."""

from experiments.claims.diffusion import annealed, equations, likelihood, noise, orders, scores

__all__ = ["CLAIMS"]

CLAIMS = (
    *scores.CLAIMS,
    *noise.CLAIMS,
    *annealed.CLAIMS,
    *equations.CLAIMS,
    *orders.CLAIMS,
    *likelihood.CLAIMS,
)
