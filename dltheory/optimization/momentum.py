"""Momentum: Polyak's heavy ball, Nesterov's accelerated gradient, and their exact rates on quadratics."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import optax

from dltheory._checks import require, shapes
from dltheory.optimization._settings import add_scaled, at_step, require_non_negative
from dltheory.typing import Array, PyTree, Scalar

__all__ = [
    "MomentumSettings",
    "NesterovState",
    "heavy_ball",
    "heavy_ball_optimal",
    "heavy_ball_quadratic_rate",
    "nesterov",
    "nesterov_optimal",
    "nesterov_quadratic_rate",
    "terminal_velocity",
]


class MomentumSettings(NamedTuple):
    """Learning rate and momentum of a method, each of shape []."""

    learning_rate: Array
    momentum: Array


def heavy_ball(learning_rate: Scalar, momentum: Scalar) -> optax.GradientTransformationExtraArgs:
    r"""Polyak's heavy ball: gradient descent with inertia.

    .. math:: x_{k+1} = x_k - \eta \nabla f(x_k) + \beta (x_k - x_{k-1}), \quad x_{-1} = x_0

    The same as `optax.sgd` with momentum, whose state keeps v_k with x_{k+1} - x_k = -eta v_k.

    Args:
        learning_rate: eta, non-negative, shape []. Not a schedule: the two forms agree for constant eta only.
        momentum: beta in [0, 1], shape []; at 1 nothing damps the motion.

    Returns:
        The transformation.

    Raises:
        ValueError: if a setting is not a scalar, or a static one out of its range.

    Statement: optimizers.heavy_ball.  Source: Polyak 1964.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimizer = optimization.heavy_ball(0.25, momentum=0.5)
    >>> optimization.run_optimizer(optimizer, lambda x: x**2, jnp.array(1.0), 3).params
    Array([ 1.  ,  0.5 ,  0.  , -0.25], dtype=float32)
    """
    require_non_negative(learning_rate=learning_rate)
    _require_momentum(momentum)
    return optax.sgd(learning_rate, momentum=momentum)


def heavy_ball_optimal(strong_convexity: Scalar, smoothness: Scalar) -> MomentumSettings:
    r"""The settings of the heavy ball that are fastest on quadratics with eigenvalues in [mu, L].

    .. math:: \eta = \frac{4}{(\sqrt L + \sqrt\mu)^2}, \quad
        \beta = \Big(\frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}\Big)^2, \quad \kappa = L / \mu

    They give the asymptotic rate sqrt(beta) per step on every eigenvalue. Beyond quadratics they guarantee nothing:
    there are smooth strongly convex functions on which the iteration cycles (Lessard, Recht and Packard 2016).

    Args:
        strong_convexity: mu, positive, shape [].
        smoothness: L, at least mu, shape [].

    Returns:
        Learning rate and momentum.

    Raises:
        ValueError: if shapes disagree, or static constants are out of their range.

    Statement: optimizers.heavy_ball.  Source: Polyak 1987, section 3.2.1.

    >>> from dltheory import optimization
    >>> learning_rate, momentum = optimization.heavy_ball_optimal(1.0, 9.0)
    >>> float(learning_rate), float(momentum)
    (0.25, 0.25)
    """
    _require_constants(strong_convexity, smoothness)
    small, large = jnp.sqrt(strong_convexity), jnp.sqrt(smoothness)
    return MomentumSettings(4 / (large + small) ** 2, ((large - small) / (large + small)) ** 2)


class NesterovState(NamedTuple):
    """State of `nesterov`.

    Attributes:
        iterate: x_k, where the parameters of the transformation are y_k; shaped as the parameters.
        step: k, shape [].
    """

    iterate: PyTree
    step: Array


def nesterov(
    learning_rate: optax.ScalarOrSchedule, momentum: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    r"""Nesterov's accelerated gradient: the gradient is taken at the extrapolated point.

    .. math:: x_{k+1} = y_k - \eta \nabla f(y_k), \quad y_k = x_k + \beta (x_k - x_{k-1}), \quad x_{-1} = x_0

    An optax transformation is handed the gradient at the parameters it moves, so **the parameters are the sequence
    y_k**: they start at y_0 = x_0, and one update leads from y_k to y_{k+1}. The sequence x_k of the theorems is in the
    state: after k updates ``state.iterate`` is x_k, and ``run_optimizer(...).state.iterate`` is the whole sequence.

    `optax.sgd` with ``nesterov=True`` also moves the y_k, and for constant settings in exactly the same way, but it
    stores the velocity -(x_{k+1} - x_k) / eta, so the x_k have to be worked out, and schedules mean something else.

    Args:
        learning_rate: eta, non-negative scalar or schedule of k.
        momentum: beta in [0, 1], or a schedule of k, of which y_{k+1} uses the value at k + 1; without strong convexity
            ``lambda k: (k - 1) / (k + 2)`` is usual.

    Returns:
        The transformation.

    Raises:
        ValueError: if a setting is not a scalar, or a static one out of its range, or `update` is not given `params`.

    Statement: optimizers.nesterov.  Source: Nesterov 2004, section 2.2, constant step scheme III.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimizer = optimization.nesterov(0.25, momentum=0.5)
    >>> run = optimization.run_optimizer(optimizer, lambda x: x**2, jnp.array(1.0), 3)
    >>> run.params.tolist(), run.state.iterate.tolist()
    ([1.0, 0.25, -0.0625, -0.109375], [1.0, 0.5, 0.125, -0.03125])
    """
    require_non_negative(learning_rate=learning_rate)
    if not callable(momentum):
        _require_momentum(momentum)

    def init(params):
        return NesterovState(iterate=params, step=jnp.array(0))

    def update(updates, state, params=None, **extra):
        del extra
        if params is None:
            raise ValueError("`update` needs `params`: update(grad, state, params)")
        step = state.step + 1
        moved = add_scaled(params, -at_step(learning_rate, state.step), updates)
        velocity = optax.tree.sub(moved, state.iterate)
        extrapolated = add_scaled(moved, at_step(momentum, step), velocity)
        return optax.tree.sub(extrapolated, params), NesterovState(iterate=moved, step=step)

    return optax.GradientTransformationExtraArgs(init, update)


def nesterov_optimal(strong_convexity: Scalar, smoothness: Scalar) -> MomentumSettings:
    r"""The settings of Nesterov's method for mu-strongly convex, L-smooth functions.

    .. math:: \eta = \frac1L, \quad \beta = \frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}, \quad \kappa = L / \mu

    Args:
        strong_convexity: mu, positive, shape [].
        smoothness: L, at least mu, shape [].

    Returns:
        Learning rate and momentum.

    Raises:
        ValueError: if shapes disagree, or static constants are out of their range.

    Statement: optimizers.nesterov.  Source: Nesterov 2004, section 2.2, constant step scheme III.

    >>> from dltheory import optimization
    >>> learning_rate, momentum = optimization.nesterov_optimal(1.0, 4.0)
    >>> float(learning_rate), round(float(momentum), 6)
    (0.25, 0.333333)
    """
    _require_constants(strong_convexity, smoothness)
    small, large = jnp.sqrt(strong_convexity), jnp.sqrt(smoothness)
    return MomentumSettings(1 / jnp.asarray(smoothness), (large - small) / (large + small))


def heavy_ball_quadratic_rate(eigenvalue: Array, learning_rate: Scalar, momentum: Scalar) -> Array:
    r"""Asymptotic rate of the heavy ball along an eigenvector of a quadratic.

    .. math:: \max |z| : \; z^2 - (1 + \beta - \eta\lambda) z + \beta = 0

    Along the eigenvector the iteration is linear in (x_k, x_{k-1}); this is its spectral radius. Near a double root,
    which is where the optimal settings put the extreme eigenvalues, rounding eps moves it by sqrt(eps).

    Args:
        eigenvalue: lambda of the Hessian, shape [].
        learning_rate: eta, shape [].
        momentum: beta, shape [].

    Returns:
        Factor per step by which the error shrinks in the long run, shape []; above 1 it grows.

    Raises:
        ValueError: if shapes disagree.

    Statement: optimizers.heavy_ball.  Source: Polyak 1987, section 3.2.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> float(optimization.heavy_ball_quadratic_rate(jnp.array(4.0), 0.25, 0.25))
    0.5
    """
    shapes(eigenvalue=(eigenvalue, ""), learning_rate=(learning_rate, ""), momentum=(momentum, ""))
    return _spectral_radius(1 + momentum - learning_rate * eigenvalue, jnp.asarray(momentum))


def nesterov_quadratic_rate(eigenvalue: Array, learning_rate: Scalar, momentum: Scalar) -> Array:
    r"""Asymptotic rate of Nesterov's method along an eigenvector of a quadratic.

    .. math:: \max |z| : \; z^2 - (1 + \beta)(1 - \eta\lambda) z + \beta (1 - \eta\lambda) = 0

    Along the eigenvector the iteration is linear in (x_k, x_{k-1}); this is its spectral radius. At eta = 1/L and the
    beta of `nesterov_optimal` it is 1 - 1/sqrt(kappa) for the smallest eigenvalue. That is a double root: rounding eps
    moves it by sqrt(eps).

    Args:
        eigenvalue: lambda of the Hessian, shape [].
        learning_rate: eta, shape [].
        momentum: beta, shape [].

    Returns:
        Factor per step by which the error shrinks in the long run, shape []; above 1 it grows.

    Raises:
        ValueError: if shapes disagree.

    Statement: optimizers.nesterov.  Source: Lessard, Recht and Packard 2016, proposition 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> float(optimization.nesterov_quadratic_rate(jnp.array(1.0), 1.0, 0.5))
    0.0
    """
    shapes(eigenvalue=(eigenvalue, ""), learning_rate=(learning_rate, ""), momentum=(momentum, ""))
    contraction = 1 - learning_rate * eigenvalue
    return _spectral_radius((1 + momentum) * contraction, momentum * contraction)


def terminal_velocity(learning_rate: Scalar, momentum: Scalar, gradient: Array) -> Array:
    r"""The step that the heavy ball tends to in a constant gradient field.

    .. math:: \lim_{t \to \infty} (x_{t+1} - x_t) = -\frac{\eta}{1 - \beta} g

    Args:
        learning_rate: eta, shape [].
        momentum: beta in [0, 1), shape [].
        gradient: g, shape [...].

    Returns:
        The step, shape [...]; infinite for beta = 1, where the velocity grows without limit.

    Raises:
        ValueError: if shapes disagree, or a static setting is out of its range.

    Statement: optimizers.heavy_ball_terminal_velocity.  Source: Goodfellow, Bengio and Courville 2016, section 8.3.2.

    >>> import jax.numpy as jnp
    >>> from dltheory import optimization
    >>> optimization.terminal_velocity(0.1, 0.9, jnp.array(2.0))
    Array(-2., dtype=float32)
    """
    shapes(learning_rate=(learning_rate, ""), momentum=(momentum, ""), gradient=(gradient, "..."))
    require_non_negative(learning_rate=learning_rate)
    _require_momentum(momentum)
    moving = gradient != 0
    force = jnp.where(moving, learning_rate * gradient, 0.0)
    return jnp.where(moving, -force / (1 - jnp.asarray(momentum, force.dtype)), 0.0)


def _spectral_radius(trace: Array, determinant: Array) -> Array:
    """Largest modulus of the roots of z^2 - trace z + determinant."""
    half = trace / 2
    discriminant = half**2 - determinant
    real = discriminant > 0
    root = jnp.sqrt(jnp.where(real, discriminant, 1.0))
    modulus = jnp.sqrt(jnp.where(real, 1.0, determinant))  # a complex pair: its product is the determinant
    return jnp.where(real, jnp.abs(half) + root, modulus)


def _require_momentum(momentum: Scalar) -> None:
    shapes(momentum=(momentum, ""))
    require((momentum >= 0) & (momentum <= 1), "`momentum` must lie in [0, 1]")


def _require_constants(strong_convexity: Scalar, smoothness: Scalar) -> None:
    shapes(strong_convexity=(strong_convexity, ""), smoothness=(smoothness, ""))
    require(strong_convexity > 0, "`strong_convexity` must be positive")
    require(smoothness >= strong_convexity, "`smoothness` must be at least `strong_convexity`")
