"""Sampling from the posterior: Metropolis, Hamiltonian and Langevin chains, and how far to trust their draws."""

from dltheory.samplers.diagnostics import (
    autocorrelation,
    ebfmi,
    ess_bulk,
    ess_mean,
    ess_quantile,
    ess_tail,
    mcse_mean,
    mcse_quantile,
    mcse_sd,
    rhat,
)
from dltheory.samplers.dual_averaging import DualAveraging, DualAveragingState, dual_averaging
from dltheory.samplers.gradient_estimators import (
    GradientEstimator,
    control_variate_score,
    exact_score,
    minibatch_score,
    minibatch_score_variance,
)
from dltheory.samplers.hamiltonian import (
    HmcInfo,
    HmcState,
    IntegratorState,
    hamiltonian,
    hmc,
    kinetic_energy,
    leapfrog,
    sample_momentum,
)
from dltheory.samplers.langevin import MalaInfo, MalaState, UlaInfo, UlaState, mala, ula
from dltheory.samplers.metropolis import (
    MetropolisInfo,
    MetropolisState,
    acceptance_probability,
    independence_sampler,
    metropolis_hastings,
    random_walk_metropolis,
    transition_matrix,
)
from dltheory.samplers.nuts import NutsInfo, nuts
from dltheory.samplers.potential import potential
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.samplers.underdamped import UnderdampedInfo, UnderdampedState, underdamped_langevin
from dltheory.samplers.warmup import Warmup, warmup

__all__ = [
    "DualAveraging",
    "DualAveragingState",
    "GradientEstimator",
    "HmcInfo",
    "HmcState",
    "IntegratorState",
    "MalaInfo",
    "MalaState",
    "MetropolisInfo",
    "MetropolisState",
    "NutsInfo",
    "SamplingAlgorithm",
    "UlaInfo",
    "UlaState",
    "UnderdampedInfo",
    "UnderdampedState",
    "Warmup",
    "acceptance_probability",
    "autocorrelation",
    "control_variate_score",
    "dual_averaging",
    "ebfmi",
    "ess_bulk",
    "ess_mean",
    "ess_quantile",
    "ess_tail",
    "exact_score",
    "hamiltonian",
    "hmc",
    "independence_sampler",
    "kinetic_energy",
    "leapfrog",
    "mala",
    "mcse_mean",
    "mcse_quantile",
    "mcse_sd",
    "metropolis_hastings",
    "minibatch_score",
    "minibatch_score_variance",
    "nuts",
    "potential",
    "random_walk_metropolis",
    "rhat",
    "sample_momentum",
    "transition_matrix",
    "ula",
    "underdamped_langevin",
    "warmup",
]
