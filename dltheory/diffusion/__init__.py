"""Diffusion models: data are turned into noise step by step, and a network learns the way back."""

from dltheory.diffusion.annealing import annealed_langevin
from dltheory.diffusion.denoising import (
    continuous_score_matching_loss,
    denoising_score_matching_loss,
    noise_conditional_loss,
    tweedie_mean,
)
from dltheory.diffusion.flow import (
    FlowLogLikelihood,
    Transport,
    flow_log_likelihood,
    flow_log_likelihood_hutchinson,
    transport,
)
from dltheory.diffusion.mixtures import (
    GaussianMixture,
    diffused,
    mixture_denoiser,
    mixture_log_density,
    mixture_moments,
    mixture_posterior,
    mixture_sample,
    mixture_score,
)
from dltheory.diffusion.reverse import probability_flow, reverse_sde
from dltheory.diffusion.score_matching import (
    ErrorProfile,
    error_profile,
    fisher_divergence,
    hutchinson_trace,
    implicit_score_matching_loss,
    score,
    sliced_score_matching_loss,
)
from dltheory.diffusion.sde import LinearSde, Sde, linear_sde, sub_vp_sde, ve_sde, vp_sde
from dltheory.diffusion.solvers import (
    Solver,
    euler_maruyama,
    exponential_integrator,
    heun,
    predictor_corrector,
    sample_reverse,
    solve,
)

__all__ = [
    "ErrorProfile",
    "FlowLogLikelihood",
    "GaussianMixture",
    "LinearSde",
    "Sde",
    "Solver",
    "Transport",
    "annealed_langevin",
    "continuous_score_matching_loss",
    "denoising_score_matching_loss",
    "diffused",
    "error_profile",
    "euler_maruyama",
    "exponential_integrator",
    "fisher_divergence",
    "flow_log_likelihood",
    "flow_log_likelihood_hutchinson",
    "heun",
    "hutchinson_trace",
    "implicit_score_matching_loss",
    "linear_sde",
    "mixture_denoiser",
    "mixture_log_density",
    "mixture_moments",
    "mixture_posterior",
    "mixture_sample",
    "mixture_score",
    "noise_conditional_loss",
    "predictor_corrector",
    "probability_flow",
    "reverse_sde",
    "sample_reverse",
    "score",
    "sliced_score_matching_loss",
    "solve",
    "sub_vp_sde",
    "transport",
    "tweedie_mean",
    "ve_sde",
    "vp_sde",
]
