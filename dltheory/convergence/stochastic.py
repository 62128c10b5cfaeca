"""Stochastic gradient descent: step sizes, progress in one step, and the neighbourhood that a constant step reaches."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dltheory._checks import alike, leading_axis, require, shapes
from dltheory.typing import Array, PyTree, Scalar

__all__ = [
    "QuasiConvergence",
    "SgdMoments",
    "exact_sgd_moments",
    "gradient_noise",
    "inverse_power_schedule",
    "sgd_expected_progress",
    "sgd_progress_threshold",
    "sgd_quasi_convergence",
]


def inverse_power_schedule(scale: Scalar, power: Scalar) -> optax.Schedule:
    r"""Step sizes that decay as a power of time, as an optax schedule.

    .. math:: \eta_t = c \, t^{-a}, \quad t = 1, 2, \ldots

    a = 1/2 with c ~ D/G is right for convex objectives, a = 1 with c = 1/mu for strongly convex ones (a smaller c ruins
    the rate), a in between together with averaging when mu is unknown.

    Args:
        scale: c, positive, shape [].
        power: a, non-negative, shape [].

    Returns:
        A function of the number of steps taken so far (0 for the first step, as optax counts), elementwise.

    Raises:
        ValueError: if a static setting is out of its range.

    Statement: convergence.averaging_convex_rate, convergence.averaging_strongly_convex_rate,
    convergence.polyak_averaging.  Source: Robbins and Monro 1951; Polyak and Juditsky 1992.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> convergence.inverse_power_schedule(0.5, 1.0)(jnp.arange(4)).tolist()
    [0.5, 0.25, 0.1666667, 0.125]
    """
    shapes(scale=(scale, ""), power=(power, ""))
    require(scale > 0, "`scale` must be positive")
    require(power >= 0, "`power` must be non-negative")
    return lambda count: scale * (count + 1.0) ** -power


def sgd_expected_progress(gradients: PyTree, params: PyTree, optimum: PyTree, learning_rate: Scalar) -> Array:
    r"""By how much one SGD step is expected to shrink the squared distance to the optimum.

    .. math:: \lVert \theta - \theta^* \rVert^2 - \mathbb E_k \lVert \theta - \eta g_k - \theta^* \rVert^2
        = 2 \eta (\theta - \theta^*)^T \mathbb E_k g_k - \eta^2 \mathbb E_k \lVert g_k \rVert^2,
        \quad g_k = \nabla f_k(\theta)

    Args:
        gradients: gradients of all n examples at theta, a pytree like `params` with a leading axis [n].
        params: theta, a pytree of arrays.
        optimum: theta*, shaped as `params`; any reference point will do.
        learning_rate: eta, shape [].

    Returns:
        The expected decrease (negative: expected increase), shape [].

    Raises:
        ValueError: if `optimum` or a row of `gradients` has not the shapes of `params`.

    Statement: convergence.sgd_distance_identity.  Source: Robbins and Monro 1951.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> gradients = jnp.array([[1.0], [3.0]])
    >>> convergence.sgd_expected_progress(gradients, jnp.array([2.0]), jnp.zeros(1), 0.5)
    Array(2.75, dtype=float32)
    """
    shapes(learning_rate=(learning_rate, ""))
    alignment, squared_norm = _alignment_and_squared_norm(gradients, params, optimum)
    return 2 * learning_rate * alignment - learning_rate**2 * squared_norm


def sgd_progress_threshold(gradients: PyTree, params: PyTree, optimum: PyTree) -> Array:
    r"""The step size below which one SGD step is expected to come closer to the optimum.

    .. math:: \eta < \frac{2 (\theta - \theta^*)^T \mathbb E_k g_k}{\mathbb E_k \lVert g_k \rVert^2},
        \quad g_k = \nabla f_k(\theta)

    Args:
        gradients: gradients of all n examples at theta, a pytree like `params` with a leading axis [n].
        params: theta, a pytree of arrays.
        optimum: theta*, shaped as `params`.

    Returns:
        The threshold, shape []; negative if a step against the mean gradient leads away from the optimum, NaN if all
        gradients vanish.

    Raises:
        ValueError: if `optimum` or a row of `gradients` has not the shapes of `params`.

    Statement: convergence.sgd_distance_identity.  Source: Robbins and Monro 1951.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> convergence.sgd_progress_threshold(jnp.array([[1.0], [3.0]]), jnp.array([2.5]), jnp.zeros(1))
    Array(2., dtype=float32)
    """
    alignment, squared_norm = _alignment_and_squared_norm(gradients, params, optimum)
    positive = squared_norm > 0
    return jnp.where(positive, 2 * alignment / jnp.where(positive, squared_norm, 1.0), jnp.nan)


def gradient_noise(gradients: PyTree) -> Array:
    r"""Variance of the stochastic gradient at one point.

    .. math:: \sigma^2 = \frac1n \sum_{k=1}^n \lVert \nabla f_k(\theta) - \nabla f(\theta) \rVert^2

    The radius that SGD with a constant step reaches depends on its value at the optimum.

    Args:
        gradients: gradients of all n examples, a pytree with a leading axis [n].

    Returns:
        sigma^2, shape [].

    Raises:
        ValueError: if the leaves of `gradients` do not share a leading axis.

    Statement: convergence.sgd_quasi_convergence.  Source: Needell, Srebro and Ward 2016, theorem 2.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> convergence.gradient_noise(jnp.array([[1.0, 0.0], [3.0, 0.0]]))
    Array(1., dtype=float32)
    """
    n = leading_axis(gradients=gradients)
    deviations = jax.tree.map(lambda leaf: leaf - jnp.mean(leaf, axis=0, keepdims=True), gradients)
    return jnp.asarray(optax.tree.vdot(deviations, deviations)) / n


class QuasiConvergence(NamedTuple):
    """What bounds SGD with a constant step: E||theta_t - theta*||^2 <= contraction^t ||theta_0 - theta*||^2 + radius.

    A helper.

    Attributes:
        contraction: A, the factor per step, shape [].
        radius: B, the squared radius of the neighbourhood, shape [].
    """

    contraction: Array
    radius: Array


def sgd_quasi_convergence(
    strong_convexity: Scalar, smoothness: Scalar, noise: Scalar, learning_rate: Scalar
) -> QuasiConvergence:
    r"""Linear convergence of constant-step SGD to a neighbourhood of the optimum.

    .. math:: \mathbb E \lVert \theta_t - \theta^* \rVert^2 \le A^t \lVert \theta_0 - \theta^* \rVert^2 + B, \quad
        A = 1 - 2 \eta \mu (1 - \eta L), \quad B = \frac{\eta \sigma^2}{\mu (1 - \eta L)}

    The objective is the mean of n convex, L-smooth functions, one of which is drawn in each step, and is mu-strongly
    convex.

    Args:
        strong_convexity: mu of the mean, positive, shape [].
        smoothness: L of every single function, shape [].
        noise: sigma^2, the `gradient_noise` at the optimum, shape [].
        learning_rate: eta, in (0, 1/L), shape [].

    Returns:
        A and B; NaN for a step size outside (0, 1/L), about which the theorem says nothing.

    Raises:
        ValueError: if an argument is not a scalar, or a static one is outside its range.

    Statement: convergence.sgd_quasi_convergence.  Source: Needell, Srebro and Ward 2016, theorem 2.1.

    >>> from dltheory import convergence
    >>> contraction, radius = convergence.sgd_quasi_convergence(1.0, 2.0, 0.5, 0.25)
    >>> float(contraction), float(radius)
    (0.75, 0.25)
    """
    shapes(strong_convexity=(strong_convexity, ""), smoothness=(smoothness, ""))
    shapes(noise=(noise, ""), learning_rate=(learning_rate, ""))
    require(strong_convexity > 0, "`strong_convexity` must be positive")
    require(noise >= 0, "`noise` must be non-negative")
    inside = (learning_rate > 0) & (learning_rate * smoothness < 1)
    require(inside, "`learning_rate` must lie in (0, 1 / smoothness)")
    slack = jnp.where(inside, 1 - learning_rate * smoothness, jnp.nan)
    return QuasiConvergence(
        contraction=1 - 2 * learning_rate * strong_convexity * slack,
        radius=learning_rate * noise / (strong_convexity * slack),
    )


class SgdMoments(NamedTuple):
    """Moments of the SGD iterates about the optimum.

    A helper.

    Attributes:
        mean: E(theta_t - theta*), shape [t + 1].
        second_moment: E(theta_t - theta*)^2, shape [t + 1].
    """

    mean: Array
    second_moment: Array


def exact_sgd_moments(
    curvatures: Array, minimizers: Array, learning_rate: Scalar, start: Scalar, num_steps: int
) -> SgdMoments:
    r"""First two moments of SGD with a constant step on scalar quadratics, without sampling.

    .. math:: f_k(\theta) = \tfrac{a_k}{2} (\theta - c_k)^2, \quad \theta_{t+1} = \theta_t - \eta a_k (\theta_t - c_k),
        \quad k \text{ uniform}

    The iteration is affine, so that its moments about the optimum theta* = sum a_k c_k / sum a_k obey, with
    b_k = a_k (c_k - theta*), the recursion

    .. math:: m' = (1 - \eta \bar a) m, \quad
        s' = \overline{(1 - \eta a)^2} s - 2 \eta^2 \, \overline{a b} \, m + \eta^2 \, \overline{b^2}

    Args:
        curvatures: a, shape [n]; single ones may be negative, their mean must be positive.
        minimizers: c, shape [n].
        learning_rate: eta, shape [].
        start: theta_0, shape [].
        num_steps: t, non-negative.

    Returns:
        Moments at times 0, ..., t.

    Raises:
        ValueError: if shapes disagree or `num_steps` is negative.

    Statement: convergence.sgd_quasi_convergence.  Source: Bach and Moulines 2013, section 2 (the scalar case).

    >>> import jax.numpy as jnp
    >>> from dltheory import convergence
    >>> moments = convergence.exact_sgd_moments(jnp.ones(2), jnp.array([-1.0, 1.0]), 0.5, 2.0, 2)
    >>> moments.mean, moments.second_moment
    (Array([2. , 1. , 0.5], dtype=float32), Array([4.    , 1.25  , 0.5625], dtype=float32))
    """
    shapes(curvatures=(curvatures, "n"), minimizers=(minimizers, "n"))
    shapes(learning_rate=(learning_rate, ""), start=(start, ""))
    require(num_steps >= 0, "`num_steps` must be non-negative")
    total = jnp.sum(curvatures)
    require(total > 0, "`curvatures` must have a positive mean")
    optimum = curvatures @ minimizers / total
    pull = curvatures * (minimizers - optimum)
    shrink = jnp.mean((1 - learning_rate * curvatures) ** 2)
    cross = -2 * learning_rate**2 * jnp.mean(curvatures * pull)
    noise = learning_rate**2 * jnp.mean(pull**2)

    def step(moments, _):
        mean, second_moment = moments
        following = SgdMoments(
            mean=(1 - learning_rate * jnp.mean(curvatures)) * mean,
            second_moment=shrink * second_moment + cross * mean + noise,
        )
        return following, moments

    distance = start - optimum
    last, path = jax.lax.scan(step, SgdMoments(mean=distance, second_moment=distance**2), length=num_steps)
    return jax.tree.map(lambda moments, final: jnp.append(moments, final), path, last)


def _alignment_and_squared_norm(gradients: PyTree, params: PyTree, optimum: PyTree) -> tuple[Array, Array]:
    """Inner product of theta - theta* with the mean gradient, and the mean squared norm of the gradients."""
    n = leading_axis(gradients=gradients)
    alike(params=params, optimum=optimum, gradients=jax.tree.map(lambda leaf: leaf[0], gradients))
    mean = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradients)
    alignment = optax.tree.vdot(mean, optax.tree.sub(params, optimum))
    return jnp.asarray(alignment), jnp.asarray(optax.tree.vdot(gradients, gradients)) / n
