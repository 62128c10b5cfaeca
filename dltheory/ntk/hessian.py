"""Curvature of a network in its parameters: what must be small for training to stay near the linearisation."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dltheory._checks import require, shapes
from dltheory._numerics import safe_norm
from dltheory.ntk._variables import example, require_outputs, trainable
from dltheory.ntk.linearization import tangent_features
from dltheory.typing import ApplyFn, Array, PRNGKey, PyTree

__all__ = ["HessianNorm", "LazyRatio", "hessian_operator_norm", "lazy_ratio"]


class HessianNorm(NamedTuple):
    """Operator norms of the Hessians of a network's outputs.

    Attributes:
        value: largest absolute eigenvalue found, at most the norm up to rounding, shape [k].
        residual: norm of H v - lambda v for the unit vector v that was found: some eigenvalue is that close, shape [k].
        converged: whether the residual is within the tolerance, shape [k].
    """

    value: Array
    residual: Array
    converged: Array


class LazyRatio(NamedTuple):
    """How far a network is from the lazy regime, at one input.

    Attributes:
        value: |y - f| ||Hessian|| / ||gradient||^2, which does not change with the unit of the outputs, shape [k].
        curvature: ||Hessian|| / ||gradient||^2, per unit of the outputs, shape [k].
        hessian_norm: operator norm of the Hessian by the parameters, shape [k].
        gradient_norm: Euclidean norm of the gradient by the parameters, shape [k].
        converged: whether the operator norm is within its tolerance, shape [k].
    """

    value: Array
    curvature: Array
    hessian_norm: Array
    gradient_norm: Array
    converged: Array


def hessian_operator_norm(
    key: PRNGKey, apply_fn: ApplyFn, params: PyTree, x: PyTree, *, max_steps: int = 64, tolerance: float = 1e-3
) -> HessianNorm:
    r"""The operator norm of the Hessian of each output by the parameters, by Lanczos iteration without the Hessian.

    .. math:: \lVert \nabla_\theta^2 f_\theta(x)_c \rVert_2 = \max_i |\lambda_i|

    The Hessian of a network is indefinite, often with eigenvalues in pairs of opposite sign, between which power
    iteration on it would oscillate; Lanczos iteration finds both ends of the spectrum at once. A step costs one
    Hessian-vector product and three vectors of memory. Second derivatives are those that automatic differentiation
    finds: for ReLU the ones almost everywhere.

    Args:
        key: decides the random start vectors.
        apply_fn: the network, (params, inputs [n, ...]) -> outputs [n, k].
        params: parameters theta with p entries in all; of a mapping with the key "params" (Flax variables) only that
            collection is differentiated.
        x: one input, without the leading axis (an array, or a pytree of arrays).
        max_steps: steps of the iteration, all of which are taken, at least 1.
        tolerance: of the residual, relative to the eigenvalue, positive. The eigenvalue is usually much closer, for its
            error is of the order of the square.

    Returns:
        The norm of each output's Hessian, the residual, and whether it is within the tolerance; NaN, not converged,
        where the Hessian is not finite.

    Raises:
        ValueError: if the outputs are not [1, k] for a batch of one, a parameter is not real floating-point, or a
            static setting is not positive.

    Statement: ntk.hessian_ratio.  Source: Liu, Zhu and Belkin 2020, section 3; Parlett 1998, chapter 13.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> saddle = lambda w, x: (2 * w[0] ** 2 - 3 * w[1] ** 2) * x
    >>> norm = ntk.hessian_operator_norm(jax.random.key(0), saddle, jnp.ones(2), jnp.ones(1))
    >>> print(norm.value, norm.converged)
    [6.] [ True]
    """
    net = trainable(apply_fn, params)
    _, k = require_outputs(net, example(x))
    require(max_steps >= 1, "`max_steps` must be at least 1")
    require(tolerance > 0, "`tolerance` must be positive")
    theta, unravel = ravel_pytree(net.params)

    def at_output(key, unit):
        def gradient(theta):
            return jax.grad(lambda t: net.fn(unravel(t), example(x))[0] @ unit)(theta)

        value, residual = _extreme_eigenvalue(
            lambda vector: jax.jvp(gradient, (theta,), (vector,))[1],
            jax.random.normal(key, theta.shape, theta.dtype),
            max_steps,
        )
        return HessianNorm(value=value, residual=residual, converged=residual <= tolerance * value)

    outputs = jax.eval_shape(net.fn, net.params, example(x))
    return jax.vmap(at_output)(jax.random.split(key, k), jnp.eye(k, dtype=outputs.dtype))


def lazy_ratio(
    key: PRNGKey,
    apply_fn: ApplyFn,
    params: PyTree,
    x: PyTree,
    y: Array,
    *,
    max_steps: int = 64,
    tolerance: float = 1e-3,
) -> LazyRatio:
    r"""The ratio that decides whether training stays near the linearisation: small means lazy.

    .. math:: \kappa = |y - f_\theta(x)| \,
        \frac{\lVert \nabla_\theta^2 f_\theta(x) \rVert_2}{\lVert \nabla_\theta f_\theta(x) \rVert_2^2}

    A step of the parameters that removes the residual has length |y - f| / ||gradient|| at least, and changes the
    gradient by a fraction of at most about kappa.

    Args:
        key: decides the random start vectors of the iteration for the Hessian.
        apply_fn: the network, (params, inputs [n, ...]) -> outputs [n, k].
        params: parameters theta; of a mapping with the key "params" (Flax variables) only that collection is
            differentiated.
        x: one input, without the leading axis (an array, or a pytree of arrays).
        y: its target, shape [k].
        max_steps: see `hessian_operator_norm`.
        tolerance: see `hessian_operator_norm`.

    Returns:
        The ratio for each output with and without the residual, and the two norms; infinite or NaN where the gradient
        is zero.

    Raises:
        ValueError: if the outputs are not [1, k] for a batch of one or `y` does not match them, a parameter is not real
            floating-point, or a static setting is not positive.

    Statement: ntk.hessian_ratio.  Source: Chizat, Oyallon and Bach 2019, section 1; Liu, Zhu and Belkin
    2020, section 3.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> square = lambda w, x: w[0] ** 2 * x
    >>> ratio = ntk.lazy_ratio(jax.random.key(0), square, jnp.array([2.0]), jnp.ones(1), jnp.array([3.0]))
    >>> print(ratio.curvature, ratio.value)
    [0.125] [0.125]
    """
    _, k = require_outputs(trainable(apply_fn, params), example(x))
    shapes(y=(y, f"{k}"))
    hessian = hessian_operator_norm(key, apply_fn, params, x, max_steps=max_steps, tolerance=tolerance)
    gradient_norm = safe_norm(tangent_features(apply_fn, params, x), axis=1)
    curvature = hessian.value / gradient_norm / gradient_norm
    return LazyRatio(
        value=jnp.abs(y - apply_fn(params, example(x))[0]) * curvature,
        curvature=curvature,
        hessian_norm=hessian.value,
        gradient_norm=gradient_norm,
        converged=hessian.converged,
    )


def _extreme_eigenvalue(operator, start: Array, num_steps: int) -> tuple[Array, Array]:
    """Largest absolute eigenvalue of a symmetric operator, and the norm of its residual.

    Lanczos iteration without reorthogonalisation: rounding only makes it find the extreme eigenvalues several times.
    """

    def step(carry, _):
        previous, vector, off_diagonal = carry
        image = operator(vector) - off_diagonal * previous
        diagonal = image @ vector
        image = image - diagonal * vector
        norm = safe_norm(image)
        return (vector, image / jnp.where(norm == 0, 1.0, norm), norm), (diagonal, norm)

    first = (jnp.zeros_like(start), start / safe_norm(start), jnp.zeros((), start.dtype))
    _, (diagonal, off_diagonal) = jax.lax.scan(step, first, length=num_steps)
    beside = jnp.diag(off_diagonal[:-1], 1)
    values, vectors = jnp.linalg.eigh(jnp.diag(diagonal) + beside + beside.T)
    extreme = jnp.argmax(jnp.abs(values))
    return jnp.abs(values[extreme]), jnp.abs(off_diagonal[-1] * vectors[-1, extreme])
