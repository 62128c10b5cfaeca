"""Diffusion models: data are turned into noise step by step, and a network learns the way back."""

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

__all__ = [
    "GaussianMixture",
    "diffused",
    "mixture_denoiser",
    "mixture_log_density",
    "mixture_moments",
    "mixture_posterior",
    "mixture_sample",
    "mixture_score",
]
