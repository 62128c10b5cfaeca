"""Claims of the chapter on sampling from the posterior."""

from experiments.claims.samplers import (
    densities,
    gibbs,
    hamiltonian,
    langevin,
    metropolis,
    minibatches,
    modes,
    networks,
    scaling,
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
    *scaling.CLAIMS,
    *networks.CLAIMS,
    *minibatches.CLAIMS,
)
