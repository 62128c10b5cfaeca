"""Margins of separable data, and the bound on mistakes that follows from them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dltheory._checks import require, shapes
from dltheory._numerics import safe_norm
from dltheory._trees import tree_unit
from dltheory.typing import Array, PRNGKey

__all__ = [
    "MaxMargin",
    "NovikovCertificate",
    "SeparableData",
    "make_separable",
    "margin",
    "max_margin",
    "novikov_bound",
    "novikov_certificate",
]


class SeparableData(NamedTuple):
    """Examples that a known hyperplane separates.

    Attributes:
        x: inputs of norm at most 1, shape [n, d].
        y: labels -1 or +1, shape [n].
        theta_star: a unit vector that separates them with the margin asked for, shape [d].
    """

    x: Array
    y: Array
    theta_star: Array


class MaxMargin(NamedTuple):
    """The largest margin of a data set.

    Attributes:
        theta: unit vector that attains `margin`, shape [d].
        margin: its margin, shape []; not positive if no hyperplane through the origin separates the data.
        upper_bound: no unit vector has a larger margin than this, shape [].
        converged: whether `upper_bound` - max(`margin`, 0) is below the tolerance, shape [], bool: the margin is known,
            or it is known to be no larger than the tolerance.
    """

    theta: Array
    margin: Array
    upper_bound: Array
    converged: Array


class NovikovCertificate(NamedTuple):
    """The two quantities that Novikoff's proof squeezes, after each visit of a run.

    Attributes:
        inner: inner product of weights and separator, grows at least like s gamma, shape [t].
        norm: norm of the weights, grows at most like R sqrt(s), shape [t].
        num_mistakes: s, mistakes so far, shape [t], int32.
    """

    inner: Array
    norm: Array
    num_mistakes: Array


def margin(theta: Array, x: Array, y: Array) -> Array:
    r"""The smallest signed distance of the examples from the hyperplane.

    .. math:: \gamma = \min_i y_i \, x_i^T \theta / \lVert \theta \rVert

    Args:
        theta: weights, not zero, shape [d].
        x: inputs, shape [n, d].
        y: labels, -1 or +1, shape [n].

    Returns:
        Margin in the units of the inputs, shape []; negative if some example is on the wrong side, NaN for theta = 0.

    Raises:
        ValueError: if shapes disagree.

    Statement: perceptron.linear_separability.  Source: Vapnik 1998, section 10.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import perceptron
    >>> perceptron.margin(jnp.array([3.0, 0.0]), jnp.array([[2.0, 5.0], [-1.0, 7.0]]), jnp.array([1.0, -1.0]))
    Array(1., dtype=float32)
    """
    shapes(theta=(theta, "d"), x=(x, "n d"), y=(y, "n"))
    return jnp.min(y * (x @ theta)) / safe_norm(theta)


def max_margin(x: Array, y: Array, tolerance: float | None = None, max_steps: int = 10_000) -> MaxMargin:
    r"""The largest margin over all hyperplanes through the origin.

    .. math:: \gamma^* = \max_{\lVert \theta \rVert = 1} \min_i y_i x_i^T \theta
        = \min_{\alpha \in \Delta_n} \Big\lVert \sum_i \alpha_i y_i x_i \Big\rVert

    The right-hand side is the distance of the origin from the convex hull of the signed examples (if they are
    separable; otherwise it is 0). It is minimised by projected gradient descent with Nesterov's momentum, restarted
    when the momentum points uphill, until the two sides meet, or the distance is known to vanish.

    Args:
        x: inputs, shape [n, d].
        y: labels, -1 or +1, shape [n].
        tolerance: largest gap between the two sides, relative to the largest norm of an input, positive; by default
            the square root of the dtype's machine epsilon.
        max_steps: gradient steps after which to give up.

    Returns:
        The margin with its certificate.

    Raises:
        ValueError: if shapes disagree or `tolerance` is not positive.

    Statement: perceptron.linear_separability.  Source: Bennett and Bredensteiner 2000.

    >>> import jax.numpy as jnp
    >>> from dltheory import perceptron
    >>> best = perceptron.max_margin(jnp.array([[1.0, 1.0], [1.0, -1.0]]), jnp.ones(2))
    >>> float(best.margin), bool(best.converged)
    (1.0, True)
    """
    n = shapes(x=(x, "n d"), y=(y, "n"))["n"]
    require(jnp.abs(y) == 1, "`y` must be -1 or +1")
    signed = jnp.asarray(y)[:, None] * x * 1.0  # integers become floating-point numbers
    gap = float(jnp.finfo(signed.dtype).eps) ** 0.5 if tolerance is None else tolerance
    require(gap > 0, "`tolerance` must be positive")
    dtype = signed.dtype
    largest = jnp.max(safe_norm(signed, axis=1))
    step_size = 1 / jnp.maximum(jnp.linalg.norm(signed, ord=2) ** 2, jnp.finfo(dtype).tiny)

    def certificate(alpha):
        point = signed.T @ alpha
        theta = tree_unit(point)
        lower, upper = jnp.min(signed @ theta), safe_norm(point)
        return MaxMargin(theta, lower, upper, converged=upper - jnp.maximum(lower, 0) <= gap * largest)

    def step(carry):
        count, alpha, extrapolated, momentum, _ = carry
        gradient = signed @ (signed.T @ extrapolated)
        moved = optax.projections.projection_simplex(extrapolated - step_size * gradient).astype(dtype)
        uphill = (extrapolated - moved) @ (moved - alpha) > 0
        momentum = jnp.where(uphill, 1.0, momentum)
        following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        extrapolated = moved + (momentum - 1) / following * (moved - alpha)
        return count + 1, moved, extrapolated, following, certificate(moved)

    def unfinished(carry):
        count, *_, found = carry
        return ~found.converged & (count < max_steps)

    alpha = jnp.full(n, 1 / n, dtype)
    start = (0, alpha, alpha, jnp.ones((), dtype), certificate(alpha))
    return jax.lax.while_loop(unfinished, step, start)[-1]


def make_separable(key: PRNGKey, num_examples: int, num_features: int, gamma: Array | float) -> SeparableData:
    r"""Random examples in the unit ball that a random unit vector separates with margin gamma.

    Each example is its label times a point whose component along the separator is uniform on [gamma, 1] and whose other
    components are uniform in direction and length within the ball. The margin is at least gamma, up to rounding.

    Args:
        key: random key.
        num_examples: n, at least 1.
        num_features: d, at least 2.
        gamma: margin, in [0, 1], shape [].

    Returns:
        Inputs, labels and the separator, in the dtype of `gamma` (that of Python floats by default).

    Raises:
        ValueError: if a size is too small or a static `gamma` is outside of [0, 1].

    Statement: perceptron.linear_separability.  Source: Novikoff 1962, the theorem's hypothesis.

    >>> import jax
    >>> from dltheory import perceptron
    >>> data = perceptron.make_separable(jax.random.key(0), num_examples=50, num_features=3, gamma=0.2)
    >>> bool(perceptron.margin(data.theta_star, data.x, data.y) >= 0.2)
    True
    """
    require(num_examples >= 1, "`num_examples` must be at least 1")
    require(num_features >= 2, "`num_features` must be at least 2")
    shapes(gamma=(gamma, ""))
    require((gamma >= 0) & (gamma <= 1), "`gamma` must lie in [0, 1]")
    gamma = jnp.asarray(gamma) * 1.0
    dtype = gamma.dtype
    key_star, key_label, key_along, key_direction, key_length = jax.random.split(key, 5)
    theta_star = tree_unit(jax.random.normal(key_star, (num_features,), dtype))
    y = jax.random.rademacher(key_label, (num_examples,), dtype)
    along = jax.random.uniform(key_along, (num_examples,), dtype, minval=gamma, maxval=1.0)
    across = jax.random.normal(key_direction, (num_examples, num_features), dtype)
    across = across - jnp.outer(across @ theta_star, theta_star)
    across = across / safe_norm(across, axis=1)[:, None]
    # A hair inside the ball, and past the margin, so that rounding leaves both inequalities true.
    hair = 8 * jnp.finfo(dtype).eps
    along = jnp.minimum(along + hair, 1 - hair)
    length = jax.random.uniform(key_length, (num_examples,), dtype) * jnp.sqrt(1 - along**2) * (1 - hair)
    x = y[:, None] * (jnp.outer(along, theta_star) + length[:, None] * across)
    return SeparableData(x, y, theta_star)


def novikov_bound(radius: Array, gamma: Array) -> Array:
    r"""The largest number of mistakes that the perceptron can make on separable data, in any order.

    .. math:: s \le (R / \gamma)^2

    Args:
        radius: R, largest norm of an input, shape [].
        gamma: margin of some separator, in the same units, shape [].

    Returns:
        The bound (not rounded down), shape []; infinite for gamma <= 0, where the data need not be separable.

    Raises:
        ValueError: if shapes disagree.

    Statement: perceptron.novikov.  Source: Novikoff 1962.

    >>> import jax.numpy as jnp
    >>> from dltheory import perceptron
    >>> float(perceptron.novikov_bound(jnp.array(1.0), jnp.array(0.5)))
    4.0
    """
    shapes(radius=(radius, ""), gamma=(gamma, ""))
    require(radius >= 0, "`radius` must be non-negative")
    positive = gamma > 0
    return jnp.where(positive, (radius / jnp.where(positive, gamma, 1.0)) ** 2, jnp.inf)


def novikov_certificate(theta: Array, mistake: Array, theta_star: Array) -> NovikovCertificate:
    r"""The chain of inequalities in Novikoff's proof, along a run that started at zero.

    .. math:: s \gamma \le \langle \theta^*, \theta^s \rangle \le \lVert \theta^s \rVert \le R \sqrt s

    Args:
        theta: weights after each visit, shape [t, d].
        mistake: whether each visit made an update, shape [t], bool.
        theta_star: unit separator, shape [d].

    Returns:
        The two middle terms, and s, after each visit.

    Raises:
        ValueError: if shapes disagree.

    Statement: perceptron.novikov_proof.  Source: Novikoff 1962.

    >>> import jax.numpy as jnp
    >>> from dltheory import perceptron
    >>> path = perceptron.perceptron_path(jnp.eye(2), jnp.ones(2), jnp.zeros(2), num_epochs=1)
    >>> perceptron.novikov_certificate(path.theta, path.mistake, jnp.array([0.5, 0.75])).inner
    Array([0.5 , 1.25], dtype=float32)
    """
    shapes(theta=(theta, "t d"), mistake=(mistake, "t"), theta_star=(theta_star, "d"))
    return NovikovCertificate(theta @ theta_star, safe_norm(theta, axis=1), jnp.cumsum(mistake, dtype=jnp.int32))
