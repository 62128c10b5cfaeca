"""Langevin dynamics over falling levels of noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._checks import require, shapes
from dltheory.diffusion._fields import ScoreFn, floating, require_positive, score_of
from dltheory.typing import Array, PRNGKey, Scalar

__all__ = ["annealed_langevin"]


def annealed_langevin(
    key: PRNGKey,
    score_fn: ScoreFn,
    x: Array,
    sigmas: Array,
    steps_per_level: int,
    step_size: Scalar = 0.1,
) -> Array:
    r"""Annealed Langevin dynamics: the unadjusted Langevin algorithm on one noise level after the other.

    .. math::
        x \leftarrow x + \eta_i \nabla \log p_{\sigma_i}(x) + \sqrt{2 \eta_i}\, \xi, \qquad
        \eta_i = \eta\, \sigma_i^2, \quad p_\sigma = p * N(0, \sigma^2 I)

    The wide levels find the modes and their weights, the narrow ones the shapes. Every level starts from the law that
    the one before reached, so that steps are needed to mix at each; the reverse equation of `ve_sde` has the same
    levels and needs none. Both tend to p, each in a limit of its own: here as steps shrink and grow in number on each
    level, there as the levels do. (Song and Ermon's step alpha_i is 2 eta_i.)

    Args:
        key: random key.
        score_fn: (x [...], sigma []) -> gradient of log p_sigma at x, [...].
        x: the sample to start from, or a batch if the score takes one; of the spread of sigma_1, shape [...].
        sigmas: noise levels, positive and falling, shape [l].
        steps_per_level: a whole number, positive.
        step_size: eta, positive and well below 1, shape [].

    Returns:
        x after the last level, shape [...].

    Raises:
        ValueError: if shapes are wrong, or a static setting is not positive.

    Statement: score.annealed_langevin, score.low_density.  Source: Song and Ermon 2019.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> score_fn = lambda x, sigma: -x / (1 + sigma**2)  # data N(0, 1)
    >>> key_start, key = jax.random.split(jax.random.key(0))
    >>> start, sigmas = 10 * jax.random.normal(key_start, (4000,)), jnp.geomspace(10.0, 0.1, 50)
    >>> x = diffusion.annealed_langevin(key, score_fn, start, sigmas, 20)
    >>> bool(abs(jnp.std(x) - 1) < 0.1)
    True
    """
    x = floating(x)
    shapes(sigmas=(sigmas, "l"))
    whole = isinstance(steps_per_level, int | np.integer)
    positive = bool(whole and steps_per_level >= 1)
    require(positive, f"`steps_per_level` must be a positive integer, got {steps_per_level}")
    require_positive(step_size=step_size)
    require(jnp.all(sigmas > 0), "`sigmas` must be positive")

    def step(x, inputs):
        sigma, key = inputs
        size = (step_size * sigma**2).astype(x.dtype)
        noise = jax.random.normal(key, x.shape, x.dtype)
        return x + size * score_of(score_fn, x, sigma) + jnp.sqrt(2 * size) * noise, None

    levels = jnp.repeat(sigmas, steps_per_level)
    return jax.lax.scan(step, x, (levels, jax.random.split(key, levels.size)))[0]
