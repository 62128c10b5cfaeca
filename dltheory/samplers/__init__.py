"""Sampling from the posterior: Metropolis, Hamiltonian and Langevin chains, and how far to trust their draws."""

from dltheory.samplers.chains import Chains, run
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
from dltheory.samplers.gibbs import BlockKernel, GibbsInfo, GibbsState, block_kernel, gibbs
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
from dltheory.samplers.stochastic_gradient import (
    PsgldState,
    SghmcInfo,
    SghmcState,
    SgldInfo,
    SgldState,
    psgld,
    sghmc,
    sgld,
)
from dltheory.samplers.streaming import ChainStatistics, run_statistics
from dltheory.samplers.tempering import TemperingInfo, TemperingState, parallel_tempering
from dltheory.samplers.underdamped import UnderdampedInfo, UnderdampedState, underdamped_langevin
from dltheory.samplers.warmup import Warmup, warmup

__all__ = [
    "BlockKernel",
    "ChainStatistics",
    "Chains",
    "DualAveraging",
    "DualAveragingState",
    "GibbsInfo",
    "GibbsState",
    "GradientEstimator",
    "HmcInfo",
    "HmcState",
    "IntegratorState",
    "MalaInfo",
    "MalaState",
    "MetropolisInfo",
    "MetropolisState",
    "NutsInfo",
    "PsgldState",
    "SamplingAlgorithm",
    "SghmcInfo",
    "SghmcState",
    "SgldInfo",
    "SgldState",
    "TemperingInfo",
    "TemperingState",
    "UlaInfo",
    "UlaState",
    "UnderdampedInfo",
    "UnderdampedState",
    "Warmup",
    "acceptance_probability",
    "autocorrelation",
    "block_kernel",
    "control_variate_score",
    "dual_averaging",
    "ebfmi",
    "ess_bulk",
    "ess_mean",
    "ess_quantile",
    "ess_tail",
    "exact_score",
    "gibbs",
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
    "parallel_tempering",
    "potential",
    "psgld",
    "random_walk_metropolis",
    "rhat",
    "run",
    "run_statistics",
    "sample_momentum",
    "sghmc",
    "sgld",
    "transition_matrix",
    "ula",
    "underdamped_langevin",
    "warmup",
]
