"""Claims of the chapter on sampling from the posterior."""

from experiments.claims.samplers import densities, hamiltonian, langevin, metropolis, modes, stochastic

__all__ = ["CLAIMS"]

CLAIMS = (
    *densities.CLAIMS,
    *metropolis.CLAIMS,
    *modes.CLAIMS,
    *hamiltonian.CLAIMS,
    *stochastic.CLAIMS,
    *langevin.CLAIMS,
)
