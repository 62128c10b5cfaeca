"""Claims of the chapter on diffusion models."""

from experiments.claims.diffusion import bound, forward, losses, posterior, reverse, sampling

__all__ = ["CLAIMS"]

CLAIMS = (
    *forward.CLAIMS,
    *reverse.CLAIMS,
    *bound.CLAIMS,
    *posterior.CLAIMS,
    *losses.CLAIMS,
    *sampling.CLAIMS,
)
