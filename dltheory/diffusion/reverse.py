"""The same laws in reversed time: a stochastic equation, and an ordinary one without noise."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.diffusion._fields import ScoreFn, score_of
from dltheory.diffusion.sde import LinearSde, Sde
from dltheory.typing import Array, Scalar

__all__ = ["probability_flow", "reverse_sde"]


def reverse_sde(sde: Sde | LinearSde, score_fn: ScoreFn, noise_scale: Scalar = 1.0) -> Sde:
    r"""The equation that takes the laws p_t of another one back from noise to data.

    .. math:: dx = \big[f(x, t) - \tfrac{1 + \lambda^2}{2} g(t)^2 \nabla \log p_t(x)\big]\, dt + \lambda g(t)\, d\bar W,
        \qquad dt < 0

    W-bar is a Wiener process in reversed time. The result says so: its `time_direction` is -1, and it is solved over
    times that decrease. On a clock that goes forward, s = T - t, the drift changes its sign. Solved with dt > 0 as it
    stands, the equation drives samples away from the data and to infinity.

    All noise scales lambda have the laws p_t in common. Of them 1 is the reversal of the process itself, law of
    paths included, and 0 would be the `probability_flow`. Reversed twice, with lambda = 1, an equation is what it was.

    Args:
        sde: the equation, with noise.
        score_fn: (x [...], t []) -> gradient of log p_t at x, [...].
        noise_scale: lambda, non-negative, shape [].

    Returns:
        The equation in reversed time.

    Raises:
        ValueError: if `sde` has no noise, or a static `noise_scale` is negative.

    Statement: sde.reverse.  Source: Anderson 1982; Song et al. 2021, equation 6; Huang, Lim and Courville 2021.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> reverse = diffusion.reverse_sde(diffusion.vp_sde(), lambda x, t: -x)
    >>> reverse.time_direction
    -1
    """
    diffusion = _diffusion(sde)
    shapes(noise_scale=(noise_scale, ""))
    require(noise_scale >= 0, "`noise_scale` must be non-negative")

    def drift(x: Array, t: Scalar) -> Array:
        weight = sde.time_direction * (1 + noise_scale**2) / 2 * diffusion(t) ** 2
        return sde.drift(x, t) - jnp.asarray(weight, x.dtype) * score_of(score_fn, x, t)

    return Sde(drift, lambda t: noise_scale * diffusion(t), time_direction=-sde.time_direction)


def probability_flow(sde: Sde | LinearSde, score_fn: ScoreFn) -> Sde:
    r"""The ordinary equation with the laws p_t of a stochastic one.

    .. math:: \frac{dx}{dt} = f(x, t) - \tfrac12 g(t)^2 \nabla \log p_t(x)

    It is solved forwards to encode data and backwards to draw them.

    Args:
        sde: the stochastic equation.
        score_fn: (x [...], t []) -> gradient of log p_t at x, [...].

    Returns:
        The equation, without noise and for either direction of time.

    Raises:
        ValueError: if `sde` has no noise.

    Statement: sde.reverse.  Source: Song et al. 2021; Maoutsa, Reich and Opper 2020.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> flow = diffusion.probability_flow(diffusion.vp_sde(), lambda x, t: -x)  # data N(0, I) stay
    >>> float(flow.drift(jnp.array(2.0), jnp.array(0.3)))
    0.0
    """
    diffusion = _diffusion(sde)

    def drift(x: Array, t: Scalar) -> Array:
        weight = sde.time_direction / 2 * diffusion(t) ** 2
        return sde.drift(x, t) - jnp.asarray(weight, x.dtype) * score_of(score_fn, x, t)

    return Sde(drift, diffusion=None, time_direction=0)


def _diffusion(sde: Sde | LinearSde) -> Callable[[Scalar], Scalar]:
    if sde.diffusion is None:
        raise ValueError("`sde` must have noise: its `diffusion` is None")
    return sde.diffusion
