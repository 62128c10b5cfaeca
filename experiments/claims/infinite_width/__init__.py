"""Claims of the chapter Infinite width."""

from experiments.claims.infinite_width import normalization, universality

__all__ = ["CLAIMS"]

CLAIMS = (*universality.CLAIMS, *normalization.CLAIMS)
