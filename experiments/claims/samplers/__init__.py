"""Claims of the chapter on sampling from the posterior."""

from experiments.claims.samplers import (
    densities,
    gibbs,
    hamiltonian,
    langevin,
    metropolis,
    minibatches,
    modes,
    stochastic,
)

__all__ = ["CLAIMS"]

CLAIMS = (
    *densities.CLAIMS,
    *metropolis.CLAIMS,
    *gibbs.CLAIMS,
    *modes.CLAIMS,
    *hamiltonian.CLAIMS,
    *stochastic.CLAIMS,
    *langevin.CLAIMS,
    *minibatches.CLAIMS,
)
