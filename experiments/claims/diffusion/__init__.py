"""Claims of the chapter on diffusion models."""

from experiments.claims.diffusion import (
    annealed,
    bound,
    digits,
    equations,
    forward,
    likelihood,
    losses,
    noise,
    orders,
    posterior,
    reverse,
    sampling,
    scores,
)

__all__ = ["CLAIMS"]

CLAIMS = (
    *forward.CLAIMS,
    *reverse.CLAIMS,
    *bound.CLAIMS,
    *posterior.CLAIMS,
    *losses.CLAIMS,
    *sampling.CLAIMS,
    *digits.CLAIMS,
    *scores.CLAIMS,
    *noise.CLAIMS,
    *annealed.CLAIMS,
    *equations.CLAIMS,
    *orders.CLAIMS,
    *likelihood.CLAIMS,
)
