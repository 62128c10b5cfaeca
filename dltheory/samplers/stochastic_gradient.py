r"""Langevin and Hamiltonian chains driven by estimates of the gradient, such as those of mini-batches.

None of them has an acceptance step, which would need all the data: their laws err with the step size. The noise of the
gradient adds to that. Estimates of variance V make steps of size eta as noisy as those of the equation

.. math:: dx = \nabla \log p\, dt + \sqrt{2 (1 + \eta V / 2)}\, dW

so that the chain is too hot by eta V / 2. Next to the error of the step itself, eta / (2 sigma^2) for a target of
variance sigma^2, that is V sigma^2 times as much: about n / r, for n examples and mini-batches of r.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from dltheory._checks import alike, require, shapes
from dltheory.samplers._mass import mass_for
from dltheory.samplers._positions import draw, floating, require_positive
from dltheory.samplers.gradient_estimators import GradientEstimator
from dltheory.samplers.protocol import SamplingAlgorithm
from dltheory.typing import Array, PyTree, Scalar

__all__ = ["PsgldState", "SghmcInfo", "SghmcState", "SgldInfo", "SgldState", "psgld", "sghmc", "sgld"]


class SgldState(NamedTuple):
    """Where a chain is.

    Attributes:
        position: x, any pytree.
        step_count: number of steps taken, shape [], integer.
        cache: what the estimator keeps.
    """

    position: PyTree
    step_count: Array
    cache: PyTree


class PsgldState(NamedTuple):
    """Where a chain is.

    Attributes:
        position: x, any pytree.
        step_count: number of steps taken, shape [], integer.
        cache: what the estimator keeps.
        second_moment: v, running mean of the squares of the estimated gradients, like the position.
    """

    position: PyTree
    step_count: Array
    cache: PyTree
    second_moment: PyTree


class SgldInfo(NamedTuple):
    """How a step went.

    Attributes:
        is_divergent: whether the new position is not finite, shape [].
        step_size: of this step, shape []: the weight of the position before it in averages over steps that decrease.
    """

    is_divergent: Array
    step_size: Array


class SghmcState(NamedTuple):
    """Where a chain is.

    Attributes:
        position: theta, any pytree.
        momentum: y, like the position.
        step_count: number of steps taken, shape [], integer.
        cache: what the estimator keeps.
    """

    position: PyTree
    momentum: PyTree
    step_count: Array
    cache: PyTree


class SghmcInfo(NamedTuple):
    """How a step went.

    Attributes:
        is_divergent: whether the new position or momentum is not finite, shape [].
    """

    is_divergent: Array


def sgld(estimator: GradientEstimator, step_size: optax.ScalarOrSchedule) -> SamplingAlgorithm:
    r"""Stochastic-gradient Langevin dynamics.

    .. math::
        dx = \nabla \log p(x)\, dt + \sqrt2\, dW, \qquad
        x_{t+1} = x_t + \eta_t \hat g(x_t) + \sqrt{2 \eta_t}\, \xi_t, \quad \xi_t \sim N(0, I)

    with an unbiased estimate g of the gradient. The stationary law of the equation is p. That of the algorithm with a
    constant step differs from it by O(eta), by the step and by the noise of the gradient alike: for p = N(m, sigma^2)
    and noise of variance V it has variance

    .. math:: \sigma^2\, \frac{1 + \eta V / 2}{1 - \eta / (2 \sigma^2)}

    With n examples V grows like n^2, and steps must be small against 1 / V. The error vanishes for steps that decrease
    to zero and whose sum diverges, if averages weigh every position by its step. (Welling and Teh write eps / 2 and
    N(0, eps): their step size eps is 2 eta.)

    Args:
        estimator: unbiased estimate of the gradient of log p.
        step_size: eta, the time step, positive, shape []; or a schedule, number of steps taken -> eta.

    Returns:
        The sampler; its states are `SgldState`, its infos `SgldInfo`.

    Raises:
        ValueError: if a static `step_size` is not positive or an array is not of shape [], a position is not
            floating-point, or an estimate is not like the position.

    Statement: samplers.ula.  Source: Welling and Teh 2011; Teh, Thiery and Vollmer 2016 (averages).

    >>> import jax, jax.numpy as jnp, optax
    >>> from dltheory import samplers
    >>> estimator = samplers.exact_score(lambda x: -jnp.sum(x**2) / 2)
    >>> chain = samplers.sgld(estimator, optax.polynomial_schedule(0.1, 0.001, power=1, transition_steps=99))
    >>> state, info = chain.step(jax.random.key(0), chain.init(jnp.ones(2)))
    >>> int(state.step_count), float(info.step_size)
    (1, 0.1)
    """
    step_at = _schedule(step_size)

    def init(position):
        position = floating(position)
        return SgldState(position, jnp.zeros((), jnp.int32), estimator.init(position))

    def step(key, state):
        key_gradient, key_noise = jax.random.split(key)
        vector, unravel = ravel_pytree(state.position)
        gradient = _estimate(estimator, key_gradient, state)
        noise, _ = draw(key_noise, vector.size, 0, vector.dtype)
        eta = jnp.asarray(step_at(state.step_count), vector.dtype)
        vector = vector + eta * gradient + jnp.sqrt(2 * eta) * noise
        return SgldState(unravel(vector), state.step_count + 1, state.cache), SgldInfo(_diverged(vector), eta)

    return SamplingAlgorithm(init, step)


def psgld(
    estimator: GradientEstimator,
    step_size: optax.ScalarOrSchedule,
    *,
    b2: float = 0.99,
    eps: float = 1e-5,
    num_adaptation_steps: int | None = None,
) -> SamplingAlgorithm:
    r"""Stochastic-gradient Langevin dynamics with RMSprop's preconditioner.

    .. math::
        v_{t+1} = b_2 v_t + (1 - b_2)\, \hat g(x_t)^2, \qquad
        G = \operatorname{diag} \frac{1}{\epsilon + \sqrt{v_{t+1}}}, \qquad
        x_{t+1} = x_t + \eta_t G \hat g(x_t) + \sqrt{2 \eta_t G}\, \xi_t

    The equation that leaves p invariant is, for a matrix G(x),

    .. math:: dx = (G \nabla \log p + \Gamma)\, dt + \sqrt{2 G}\, dW, \qquad
        \Gamma_i = \textstyle\sum_j \partial G_{ij} / \partial x_j

    Here Gamma is left out, as is common, and what that costs depends on the memory of v:

    - Frozen after `num_adaptation_steps`, G is constant, Gamma is zero, and the law errs by O(eta) as that of `sgld`.
      This is the setting to draw samples with.
    - A memory 1 / (1 - b2) much longer than the chain's own makes v nearly constant, and the error small.
    - With any shorter one p is not invariant, however small the step. Without memory (b2 = 0) and noise, G is a
      function of x, and in one dimension the law of the equation is proportional to p / G = p (eps + abs(grad log p)).
      In between x is not even a Markov chain by itself: v is driven by its past. With noise, the estimate in G is also
      correlated with that in the drift.

    Args:
        estimator: unbiased estimate of the gradient of log p.
        step_size: eta, positive, shape []; or a schedule, number of steps taken -> eta. G is measured by gradients of
            the whole log density: where Li et al. divide them by n, their eps_t is 2 eta / n, and their lambda eps / n.
        b2: decay of the mean of squared gradients, in [0, 1).
        eps: what is added to their root, positive.
        num_adaptation_steps: number of steps after which v stays as it is, at least 1; None for never.

    Returns:
        The sampler; its states are `PsgldState`, its infos `SgldInfo`.

    Raises:
        ValueError: if a static setting is out of its range or `step_size` is not of shape [], a position is not
            floating-point, or an estimate is not like the position.

    Statement: samplers.ula.  Source: Li, Chen, Carlson and Carin 2016; Ma, Chen and Fox 2015 (Gamma).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> estimator = samplers.exact_score(lambda x: -jnp.sum(jnp.array([1.0, 1e4]) * x**2) / 2)
    >>> chain = samplers.psgld(estimator, 0.01, b2=0.0)
    >>> state, _ = chain.step(jax.random.key(0), chain.init(jnp.array([1.0, 0.1])))
    >>> print(state.second_moment)
    [1.e+00 1.e+06]
    """
    step_at = _schedule(step_size)
    require(0 <= b2 < 1, f"`b2` must lie in [0, 1), got {b2}")
    require(eps > 0, f"`eps` must be positive, got {eps}")
    if num_adaptation_steps is not None:
        require(num_adaptation_steps >= 1, f"`num_adaptation_steps` must be at least 1, got {num_adaptation_steps}")

    def init(position):
        position = floating(position)
        zeros = jax.tree.map(jnp.zeros_like, position)
        return PsgldState(position, jnp.zeros((), jnp.int32), estimator.init(position), zeros)

    def step(key, state):
        key_gradient, key_noise = jax.random.split(key)
        vector, unravel = ravel_pytree(state.position)
        gradient = _estimate(estimator, key_gradient, state)
        noise, _ = draw(key_noise, vector.size, 0, vector.dtype)
        eta = jnp.asarray(step_at(state.step_count), vector.dtype)
        old = ravel_pytree(state.second_moment)[0]
        moment = b2 * old + (1 - b2) * gradient**2
        if num_adaptation_steps is not None:
            moment = jnp.where(state.step_count < num_adaptation_steps, moment, old)
        scale = eta / (eps + jnp.sqrt(moment))
        vector = vector + scale * gradient + jnp.sqrt(2 * scale) * noise
        moved = PsgldState(unravel(vector), state.step_count + 1, state.cache, unravel(moment))
        return moved, SgldInfo(_diverged(vector), eta)

    return SamplingAlgorithm(init, step)


def sghmc(
    estimator: GradientEstimator,
    step_size: optax.ScalarOrSchedule,
    friction: Scalar | Array,
    *,
    inverse_mass_matrix: Scalar | Array = 1.0,
    noise_estimate: Scalar | Array = 0.0,
    integrator: str = "aboba",
) -> SamplingAlgorithm:
    r"""Stochastic-gradient Hamiltonian Monte Carlo: momenta with friction, which compensates the gradient's noise.

    .. math::
        d\theta = M^{-1} y\, dt, \qquad
        dy = \hat g(\theta)\, dt - B M^{-1} y\, dt + N(0, 2 (B - \hat B)\, dt)

    An estimate g of variance V, a new one every step, is worth the force grad log p and noise N(0, 2 (dt V / 2) dt). If
    `noise_estimate` is that, dt V / 2, the noise is 2 B dt in all, and the stationary law of the equation is
    p(theta) N(y; 0, M). That needs the friction on the velocity M^{-1} y: with friction B y the law would be
    p(theta)^m N(y; 0, I) for M = m I. With an estimate of zero the chain is too hot by about dt V / (2 B), in theta and
    y; without friction it has no stationary law at all.

    The integrator "aboba" takes half a drift, half a kick, the exact Ornstein-Uhlenbeck step of the friction and noise,
    half a kick with the same estimate, and half a drift: beside what the gradient's noise adds it errs by O(dt^2), and
    not at all in the positions of a normal target. "euler" is Chen, Fox and Guestrin's: y + dt (g - B M^{-1} y) +
    N(0, 2 (B - B') dt), then a drift with the new momentum; it errs by O(dt), and needs dt B M^{-1} below 2.

    Args:
        estimator: unbiased estimate of the gradient of log p.
        step_size: dt, positive, shape []; or a schedule, number of steps taken -> dt.
        friction: B, positive: a number or one for each coordinate [p], in the order of
            `jax.flatten_util.ravel_pytree`.
        inverse_mass_matrix: M^{-1}, a positive number or a diagonal [p].
        noise_estimate: B', what the gradient's noise does of it, between 0 and the friction, a number or [p];
            `minibatch_score_variance` times dt / 2.
        integrator: "aboba" or "euler".

    Returns:
        The sampler; its states are `SghmcState`, its infos `SghmcInfo`. A chain starts at rest, or with any momentum
        that is put into its state. More noise than friction gives NaN.

    Raises:
        ValueError: if a static setting is out of its range, a position is not floating-point, the mass is dense, a
            setting does not fit the position, or an estimate is not like it.

    Statement: samplers.sghmc, samplers.langevin_noise_convention.  Source: Chen, Fox and Guestrin 2014; Chen, Ding
    and Carin 2015 (splitting).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> chain = samplers.sghmc(samplers.exact_score(lambda x: -(x**2) / 2), 0.1, 1.0, noise_estimate=1.0)
    >>> state, _ = chain.step(jax.random.key(0), chain.init(jnp.array(1.0)))
    >>> print(round(float(state.position), 4), round(float(state.momentum), 4))
    0.9952 -0.0952
    """
    step_at = _schedule(step_size)
    require(integrator in _STEPS, f"`integrator` must be one of {', '.join(_STEPS)}, got {integrator!r}")
    rank = jnp.ndim(inverse_mass_matrix)
    require(rank < 2, f"`inverse_mass_matrix` must be a number or a diagonal [p], got {rank} axes")
    for name, setting in (("friction", friction), ("noise_estimate", noise_estimate)):
        shapes(**{name: (setting, "...")})
        require(jnp.ndim(setting) < 2, f"`{name}` must be a number or one for each coordinate [p]")
    require(friction > 0, "`friction` must be positive")
    require(noise_estimate >= 0, "`noise_estimate` must not be negative")
    if jnp.ndim(friction) == jnp.ndim(noise_estimate) == 0:
        require(noise_estimate <= friction, "`noise_estimate` must be at most the friction")

    def init(position):
        position = floating(position)
        vector, _ = ravel_pytree(position)
        mass_for(inverse_mass_matrix, vector)
        for name, setting in (("friction", friction), ("noise_estimate", noise_estimate)):
            shapes(**{name: (setting, f"{vector.size}" if jnp.ndim(setting) else "")})
        momentum = jax.tree.map(jnp.zeros_like, position)
        return SghmcState(position, momentum, jnp.zeros((), jnp.int32), estimator.init(position))

    def step(key, state):
        key_gradient, key_noise = jax.random.split(key)
        vector, unravel = ravel_pytree(state.position)
        momentum, _ = ravel_pytree(state.momentum)
        noise, _ = draw(key_noise, vector.size, 0, vector.dtype)
        dt, drag, known, inverse = (
            jnp.asarray(setting, vector.dtype)
            for setting in (step_at(state.step_count), friction, noise_estimate, inverse_mass_matrix)
        )
        inverse = jnp.where(inverse > 0, inverse, jnp.nan)  # a negative mass would run, and away

        def gradient_at(point):
            return _estimate(estimator, key_gradient, state._replace(position=unravel(point)))

        vector, momentum = _STEPS[integrator](gradient_at, dt, drag, known, inverse, noise, vector, momentum)
        moved = SghmcState(unravel(vector), unravel(momentum), state.step_count + 1, state.cache)
        return moved, SghmcInfo(_diverged(vector + momentum))

    return SamplingAlgorithm(init, step)


def _aboba(gradient_at, dt, friction, known, inverse_mass, noise, vector, momentum):
    vector = vector + dt / 2 * inverse_mass * momentum
    kick = dt / 2 * gradient_at(vector)
    exponent = -friction * inverse_mass * dt
    variance = (1 - known / friction) * -jnp.expm1(2 * exponent) / inverse_mass
    momentum = jnp.exp(exponent) * (momentum + kick) + jnp.sqrt(variance) * noise + kick
    return vector + dt / 2 * inverse_mass * momentum, momentum


def _euler(gradient_at, dt, friction, known, inverse_mass, noise, vector, momentum):
    force = gradient_at(vector) - friction * inverse_mass * momentum
    momentum = momentum + dt * force + jnp.sqrt(2 * (friction - known) * dt) * noise
    return vector + dt * inverse_mass * momentum, momentum


_STEPS = {"aboba": _aboba, "euler": _euler}


def _schedule(step_size: optax.ScalarOrSchedule) -> Callable[[Array], Scalar]:
    """Number of steps taken -> size of the next step."""
    if callable(step_size):
        return step_size  # pyright: ignore[reportReturnType]
    require_positive(step_size=step_size)
    return lambda _: step_size


def _estimate(estimator, key, state) -> Array:
    """The estimate at a state as a vector [p]."""
    gradient = estimator.estimate(key, state.position, state.cache)
    alike(position=state.position, estimator=gradient)
    return ravel_pytree(gradient)[0]


def _diverged(vector: Array) -> Array:
    return ~jnp.all(jnp.isfinite(vector))
