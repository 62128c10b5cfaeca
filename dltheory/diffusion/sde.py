"""Stochastic differential equations that turn data into noise, with the laws they pass through in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory._checks import require, shapes
from dltheory._numerics import safe_sqrt
from dltheory.diffusion._fields import require_positive
from dltheory.typing import Array, PRNGKey, Scalar

__all__ = ["LinearSde", "Sde", "linear_sde", "sub_vp_sde", "ve_sde", "vp_sde"]


class Sde(NamedTuple):
    """A stochastic differential equation ``dx = f(x, t) dt + g(t) dW``, or an ordinary one, ``dx = f(x, t) dt``.

    An equation knows the direction of its time. One that runs backwards has dt < 0, and its Wiener process is one in
    reversed time: its solvers take times that decrease, and the drift is not negated.

    Attributes:
        drift: f, (x [...], t []) -> [...].
        diffusion: g, t [] -> []; None if there is no noise.
        time_direction: 1 if time increases, -1 if it decreases, 0 if it may do either (ordinary equations only).
    """

    drift: Callable[[Array, Scalar], Array]
    diffusion: Callable[[Scalar], Scalar] | None
    time_direction: int = 1


class LinearSde(NamedTuple):
    """A linear equation ``dx = a(t) x dt + g(t) dW`` on [0, T], whose conditional laws are known: a forward process.

    An `Sde` with more known about it, which every solver takes. The names are those of Song et al.'s code.

    Attributes:
        drift: (x [...], t []) -> a(t) x [...].
        diffusion: g, t [] -> [].
        marginal_prob: (x(0) [...], t []) -> mean [...] and standard deviation [] of x(t) given x(0), which is normal
            with independent entries. The mean is a multiple of x(0): the scale is the mean for x(0) = 1. The deviation
            is 0 at time 0; its derivative there, where it may be infinite, counts as 0.
        prior_sampling: (key, shape, dtype) -> a draw from the normal law that stands for that of x(T).
        prior_logp: z [...] -> log density of that law in nats, [].
        horizon: T, [].
        time_direction: 1.
    """

    drift: Callable[[Array, Scalar], Array]
    diffusion: Callable[[Scalar], Array]
    marginal_prob: Callable[[Array, Scalar], tuple[Array, Array]]
    prior_sampling: Callable[..., Array]
    prior_logp: Callable[[Array], Array]
    horizon: Scalar
    time_direction: int = 1


def vp_sde(beta_min: Scalar = 0.1, beta_max: Scalar = 20.0) -> LinearSde:
    r"""The variance-preserving equation, the limit of DDPM for many steps, with a linear noise schedule on [0, 1].

    .. math::
        dx = -\tfrac12 \beta(t)\, x\, dt + \sqrt{\beta(t)}\, dW, \quad
        \beta(t) = \beta_{\min} + (\beta_{\max} - \beta_{\min})\, t, \quad B(t) = \int_0^t \beta, \\
        x(t) \mid x(0) \sim N(e^{-B(t)/2} x(0),\, (1 - e^{-B(t)}) I)

    Data of unit variance keep it. The prior is N(0, I).

    Args:
        beta_min, beta_max: noise rates at times 0 and 1, positive, shape [].

    Returns:
        The equation.

    Raises:
        ValueError: if a static setting is not positive.

    Statement: sde.forward.  Source: Song et al. 2021.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> scale, std = diffusion.vp_sde().marginal_prob(jnp.array(1.0), jnp.array(0.5))
    >>> float(scale**2 + std**2)
    1.0
    """
    require_positive(beta_min=beta_min, beta_max=beta_max)
    beta, integral = _linear_beta(beta_min, beta_max)
    return _linear(
        coefficient=lambda t: -beta(t) / 2,
        diffusion=lambda t: jnp.sqrt(beta(t)),
        moments=lambda t: (jnp.exp(-integral(t) / 2), safe_sqrt(-jnp.expm1(-integral(t)))),
        prior_std=lambda: 1.0,
        horizon=1.0,
    )


def sub_vp_sde(beta_min: Scalar = 0.1, beta_max: Scalar = 20.0) -> LinearSde:
    r"""The sub-VP equation: the drift of the variance-preserving one with less noise.

    .. math::
        dx = -\tfrac12 \beta(t)\, x\, dt + \sqrt{\beta(t) (1 - e^{-2 B(t)})}\, dW, \quad
        x(t) \mid x(0) \sim N(e^{-B(t)/2} x(0),\, (1 - e^{-B(t)})^2 I)

    with B as in `vp_sde`. Its noise grows linearly in t from zero, whereas that of `vp_sde` grows like a square root.

    Args:
        beta_min, beta_max: as in `vp_sde`, positive, shape [].

    Returns:
        The equation; its prior is N(0, I).

    Raises:
        ValueError: if a static setting is not positive.

    Statement: sde.forward.  Source: Song et al. 2021.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> _, std = diffusion.sub_vp_sde().marginal_prob(jnp.array(1.0), jnp.array(0.5))
    >>> _, vp_std = diffusion.vp_sde().marginal_prob(jnp.array(1.0), jnp.array(0.5))
    >>> bool(jnp.isclose(std, vp_std**2))
    True
    """
    require_positive(beta_min=beta_min, beta_max=beta_max)
    beta, integral = _linear_beta(beta_min, beta_max)
    return _linear(
        coefficient=lambda t: -beta(t) / 2,
        diffusion=lambda t: safe_sqrt(beta(t) * -jnp.expm1(-2 * integral(t))),
        moments=lambda t: (jnp.exp(-integral(t) / 2), -jnp.expm1(-integral(t))),
        prior_std=lambda: 1.0,
        horizon=1.0,
    )


def ve_sde(sigma_min: Scalar = 0.01, sigma_max: Scalar = 50.0) -> LinearSde:
    r"""The variance-exploding equation, the limit of a geometric ladder of noise levels, on [0, 1].

    .. math::
        dx = \sqrt{\frac{d \sigma(t)^2}{dt}}\, dW, \quad
        \sigma(t) = \sigma_{\min} \Big(\frac{\sigma_{\max}}{\sigma_{\min}}\Big)^{t}, \quad
        x(t) \mid x(0) \sim N(x(0),\, (\sigma(t)^2 - \sigma_{\min}^2) I)

    Song et al.'s code leaves out the last term: it takes the data to be noisy at the level of sigma_min already.

    Args:
        sigma_min, sigma_max: the noise levels of the ladder's ends, positive and increasing, in units of x, shape [].

    Returns:
        The equation; its prior is normal with mean 0 and the variance of x(1) given x(0).

    Raises:
        ValueError: if static settings are not positive and increasing.

    Statement: sde.forward, score.annealed_langevin.  Source: Song et al. 2021.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> mean, std = diffusion.ve_sde(0.1, 10.0).marginal_prob(jnp.array(3.0), jnp.array(0.5))
    >>> float(mean), bool(jnp.isclose(std**2, 1 - 0.01))
    (3.0, True)
    """
    require_positive(sigma_min=sigma_min, sigma_max=sigma_max)
    require(sigma_min < sigma_max, "`sigma_min` must be below `sigma_max`")

    def log_ratio(t):
        return jnp.log(jnp.asarray(sigma_max, t.dtype)) - jnp.log(jnp.asarray(sigma_min, t.dtype))

    def diffusion(t):
        return sigma_min * jnp.exp(t * log_ratio(t)) * jnp.sqrt(2 * log_ratio(t))

    def moments(t):
        return jnp.ones_like(t), sigma_min * safe_sqrt(jnp.expm1(2 * t * log_ratio(t)))

    return _linear(
        coefficient=jnp.zeros_like,
        diffusion=diffusion,
        moments=moments,
        prior_std=lambda: jnp.sqrt((sigma_max - sigma_min) * (sigma_max + sigma_min)),
        horizon=1.0,
    )


def linear_sde(
    drift_coefficient_fn: Callable[[Array], Array],
    diffusion_fn: Callable[[Array], Array],
    horizon: Scalar = 1.0,
    num_nodes: int = 32,
) -> LinearSde:
    r"""Any linear equation with isotropic noise, given by its coefficients; its laws are found by quadrature.

    .. math::
        dx = a(t)\, x\, dt + g(t)\, dW, \quad A(t) = \int_0^t a(u)\, du, \quad
        x(t) \mid x(0) \sim N\Big(e^{A(t)} x(0),\, \int_0^t g(u)^2 e^{2 (A(t) - A(u))}\, du\; I\Big)

    Args:
        drift_coefficient_fn: a, t [] -> [], smooth on [0, T].
        diffusion_fn: g, t [] -> [], likewise.
        horizon: T, positive, shape [].
        num_nodes: nodes of the Gauss-Legendre rules, positive; the variance takes the square of their number of
            evaluations of a.

    Returns:
        The equation; its prior is normal with mean 0 and the variance of x(T) given x(0).

    Raises:
        ValueError: if a static setting is not positive, or a coefficient does not return a scalar.

    Statement: sde.forward.  Source: Arnold 1974; Särkkä and Solin 2019.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> sde = diffusion.linear_sde(lambda t: -jnp.ones_like(t), lambda t: jnp.sqrt(2.0) * jnp.ones_like(t))
    >>> mean, std = sde.marginal_prob(jnp.array(1.0), jnp.array(0.5))
    >>> bool(jnp.isclose(mean**2 + std**2, 1.0))
    True
    """
    require_positive(horizon=horizon)
    require(num_nodes >= 1, f"`num_nodes` must be positive, got {num_nodes}")
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    nodes, weights = (nodes + 1) / 2, weights / 2  # on [0, 1]

    def evaluated(function, name):
        def of_time(t):
            value = jnp.asarray(function(t), t.dtype)
            shapes(**{name: (value, "")})
            return value

        return of_time

    coefficient = evaluated(drift_coefficient_fn, "drift_coefficient_fn")
    diffusion = evaluated(diffusion_fn, "diffusion_fn")

    def log_scale(t):
        return t * jnp.asarray(weights, t.dtype) @ jax.vmap(coefficient)(t * jnp.asarray(nodes, t.dtype))

    def moments(t):
        times = t * jnp.asarray(nodes, t.dtype)
        total = log_scale(t)
        growth = jnp.exp(2 * (total - jax.vmap(log_scale)(times)))
        variance = t * (jnp.asarray(weights, t.dtype) @ (jax.vmap(diffusion)(times) ** 2 * growth))
        return jnp.exp(total), safe_sqrt(variance)

    def prior_std():
        return moments(jnp.asarray(horizon, jnp.result_type(float)))[1]

    return _linear(coefficient, diffusion, moments, prior_std, horizon)


def _linear_beta(beta_min: Scalar, beta_max: Scalar) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """A noise rate that is linear in time on [0, 1], and its integral from 0."""
    shapes(beta_min=(beta_min, ""), beta_max=(beta_max, ""))
    rise = beta_max - beta_min
    return lambda t: beta_min + rise * t, lambda t: (beta_min + rise * t / 2) * t


def _linear(
    coefficient: Callable[[Array], Array],
    diffusion: Callable[[Array], Array],
    moments: Callable[[Array], tuple[Array, Array]],
    prior_std: Callable[[], Any],
    horizon: Scalar,
) -> LinearSde:
    """The equation with a drift coefficient, and with the scale and the standard deviation of its conditional laws.

    Functions of time are computed in the precision of the time; what is multiplied by x takes that of x.
    """

    def drift(x: Array, t: Scalar) -> Array:
        return coefficient(_time(t)).astype(x.dtype) * x

    def marginal_prob(x: Array, t: Scalar) -> tuple[Array, Array]:
        scale, std = moments(_time(t))
        return scale.astype(x.dtype) * x, std.astype(x.dtype)

    def prior_sampling(key: PRNGKey, shape: tuple[int, ...], dtype: Any = float) -> Array:
        noise = jax.random.normal(key, shape, dtype)
        return jnp.asarray(prior_std(), noise.dtype) * noise

    def prior_logp(z: Array) -> Array:
        std = jnp.asarray(prior_std(), z.dtype)
        return -jnp.sum((z / std) ** 2) / 2 - z.size * (jnp.log(std) + jnp.log(2 * jnp.pi) / 2)

    return LinearSde(drift, lambda t: diffusion(_time(t)), marginal_prob, prior_sampling, prior_logp, horizon=horizon)


def _time(t: Scalar) -> Array:
    shapes(t=(t, ""))
    return jnp.asarray(t, jnp.result_type(t, float))
