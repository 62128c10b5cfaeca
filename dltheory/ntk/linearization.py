"""The network as a linear model of its parameters: tangent features, linearisation, and the flows of both spaces."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dltheory._checks import require, shapes
from dltheory.ntk._outputs import as_blocks, as_columns, from_columns, kernel_pattern, output_pattern
from dltheory.ntk._variables import example, require_outputs, same_trainable, trainable
from dltheory.ntk.empirical import empirical_ntk
from dltheory.typing import ApplyFn, Array, PyTree

__all__ = [
    "dual_to_primal",
    "function_velocity",
    "gram",
    "jacobian",
    "linearize",
    "linearized_loss",
    "parameter_velocity",
    "squared_loss",
    "tangent_features",
    "taylor_expand",
]


def tangent_features(apply_fn: ApplyFn, params: PyTree, x: PyTree) -> Array:
    r"""The tangent features of one input: the gradients of the outputs by the parameters.

    .. math:: \Phi(x)_{c} = \nabla_\theta f_\theta(x)_c \in \mathbb R^p

    They play the part of the features of a generalised linear model, whose kernel is the neural tangent kernel. At a
    kink (ReLU at 0) they are what automatic differentiation takes for the derivative there.

    Args:
        apply_fn: the network, (params, inputs [n, ...]) -> outputs [n, k].
        params: parameters theta with p entries in all; of a mapping with the key "params" (Flax variables) only that
            collection is differentiated.
        x: one input, without the leading axis (an array, or a pytree of arrays).

    Returns:
        Features, shape [k, p], parameters in the order of `jax.flatten_util.ravel_pytree`.

    Raises:
        ValueError: if the outputs are not [1, k] for a batch of one, or a parameter is not real floating-point.

    Statement: ntk.tangent_features.  Source: Jacot, Gabriel and Hongler 2018, section 4.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> ntk.tangent_features(lambda w, x: (x @ w) ** 2, jnp.array([[1.0], [2.0]]), jnp.array([3.0, 1.0]))
    Array([[30., 10.]], dtype=float32)
    """
    net = trainable(apply_fn, params)
    require_outputs(net, example(x))
    flat, unravel = ravel_pytree(net.params)
    return jax.jacrev(lambda theta: net.fn(unravel(theta), example(x))[0])(flat)


def jacobian(apply_fn: ApplyFn, params: PyTree, x: PyTree) -> Array:
    r"""The tangent features of a set of inputs: the Jacobian of the outputs by the parameters.

    .. math:: J_{ic} = \nabla_\theta f_\theta(x_i)_c

    It is held in memory, n k p numbers; `empirical_ntk` and `ntk_matvec` do without. Each input is passed through the
    network alone, as a batch of one.

    Args:
        apply_fn: the network, (params, inputs [n, ...]) -> outputs [n, k].
        params: parameters theta with p entries in all; of a mapping with the key "params" (Flax variables) only that
            collection is differentiated.
        x: inputs, shape [n, ...] (or a pytree of such arrays).

    Returns:
        The Jacobian, shape [n, k, p], parameters in the order of `jax.flatten_util.ravel_pytree`.

    Raises:
        ValueError: if the outputs are not [n, k], or a parameter is not real floating-point.

    Statement: ntk.tangent_features.  Source: Jacot, Gabriel and Hongler 2018, section 4.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> ntk.jacobian(lambda w, x: (x @ w) ** 2, jnp.array([[1.0]]), jnp.array([[1.0], [3.0]]))
    Array([[[ 2.]],
    <BLANKLINE>
           [[18.]]], dtype=float32)
    """
    net = trainable(apply_fn, params)
    require_outputs(net, x)
    return jax.vmap(lambda one: tangent_features(apply_fn, params, one))(x)


def gram(apply_fn: ApplyFn, params: PyTree, x: PyTree) -> Array:
    r"""The Gram matrix of the neural tangent kernel on a set of inputs, all outputs of all inputs side by side.

    .. math:: K = J J^T, \quad K_{(i c)(j e)} = \langle \nabla_\theta f(x_i)_c, \nabla_\theta f(x_j)_e \rangle

    Symmetric and positive semi-definite, of rank at most min(n k, p): two equal inputs make it singular.

    Args:
        apply_fn: the network, (params, inputs [n, ...]) -> outputs [n, k].
        params: parameters theta with p entries in all; of a mapping with the key "params" (Flax variables) only that
            collection is differentiated.
        x: inputs, shape [n, ...] (or a pytree of such arrays).

    Returns:
        The matrix, shape [n k, n k]; row i k + c belongs to output c of input i.

    Raises:
        ValueError: if the outputs are not [n, k], or a parameter is not real floating-point.

    Statement: ntk.gram.  Source: Jacot, Gabriel and Hongler 2018, section 4.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> ntk.gram(lambda w, x: x @ w, jnp.array([[1.0]]), jnp.array([[1.0], [3.0]]))
    Array([[1., 3.],
           [3., 9.]], dtype=float32)
    """
    require_outputs(trainable(apply_fn, params), x)
    (matrix,) = as_blocks(empirical_ntk(apply_fn, params, x))
    return matrix


def linearize(apply_fn: ApplyFn, params0: PyTree) -> ApplyFn:
    r"""The network's first-order expansion in its parameters.

    .. math:: h_\theta(x) = f_{\theta_0}(x) + \langle \theta - \theta_0, \nabla_\theta f_{\theta_0}(x) \rangle

    Its tangent features, and so its kernel, are those of the network at theta_0, whatever theta.

    Args:
        apply_fn: the network f, (params, inputs) -> outputs of any shape.
        params0: where it is expanded, theta_0; of a mapping with the key "params" (Flax variables) only that collection
            is trained, and the linear model keeps the other collections of `params0`.

    Returns:
        The linear model h, called like the network; costs about two forward passes. It raises a ValueError if its
        parameters are not like `params0`.

    Raises:
        ValueError: if a parameter is not real floating-point.

    Statement: ntk.linearization.  Source: Lee et al. 2019, section 2.2.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> square = lambda w, x: (x @ w) ** 2
    >>> linear = ntk.linearize(square, jnp.array([[1.0]]))
    >>> linear(jnp.array([[1.5]]), jnp.array([[2.0]]))
    Array([[8.]], dtype=float32)
    """
    return taylor_expand(apply_fn, params0, order=1)


def taylor_expand(apply_fn: ApplyFn, params0: PyTree, order: int) -> ApplyFn:
    r"""The network's Taylor polynomial in its parameters.

    .. math:: h_\theta(x) = \sum_{j=0}^{q} \frac{1}{j!} \nabla_\theta^j f_{\theta_0}(x)[\vartheta, \dots, \vartheta],
        \quad \vartheta = \theta - \theta_0

    Nested forward derivatives, which hold for every operation of JAX; the cost doubles with each order, less what the
    compiler shares.

    Args:
        apply_fn: the network f, (params, inputs) -> outputs of any shape; `order` times differentiable.
        params0: where it is expanded, theta_0; of a mapping with the key "params" (Flax variables) only that collection
            is trained, and the polynomial keeps the other collections of `params0`.
        order: degree q, at least 0.

    Returns:
        The polynomial h, called like the network. It raises a ValueError if its parameters are not like `params0`.

    Raises:
        ValueError: if `order` is negative or no integer, or a parameter is not real floating-point.

    Statement: ntk.linearization.  Source: Lee et al. 2019, section 2.2, for order 1; Bai and Lee 2020
    beyond.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> cubic = ntk.taylor_expand(lambda w, x: jnp.exp(x @ w), jnp.zeros((1, 1)), order=3)
    >>> cubic(jnp.ones((1, 1)), jnp.ones((1, 1)))
    Array([[2.6666667]], dtype=float32)
    """
    net = trainable(apply_fn, params0, "params0")
    require(isinstance(order, int) and order >= 0, f"`order` must be a non-negative integer, got {order}")

    def polynomial(params: PyTree, x: PyTree) -> Array:
        trained = same_trainable(apply_fn, params0, "params", params, "params0")
        shift = jax.tree.map(lambda new, old: jnp.asarray(new - old, jnp.result_type(old)), trained, net.params)

        def derivatives(j):
            """Theta -> (f, f', ..., f^(j)) at theta, all along the shift."""
            if j == 0:
                return lambda theta: (net.fn(theta, x),)
            lower = derivatives(j - 1)

            def extended(theta):
                values, slopes = jax.jvp(lower, (theta,), (shift,))
                return (*values, slopes[-1])

            return extended

        terms = derivatives(order)(net.params)
        weighted = [jax.tree.map(lambda leaf, j=j: leaf / math.factorial(j), term) for j, term in enumerate(terms)]
        return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *weighted)

    return polynomial


def squared_loss(apply_fn: ApplyFn, params: PyTree, x: PyTree, y: Array) -> Array:
    r"""The loss that all predictions of this chapter are for: half the sum of squares over examples and outputs.

    .. math:: \ell(\theta) = \tfrac12 \sum_{i=1}^n \lVert f_\theta(x_i) - y_i \rVert^2

    A sum, not a mean: gradient descent with learning rate eta on the mean over n examples (or n k numbers) is gradient
    descent on this loss with learning rate eta / n (or eta / (n k)).

    Args:
        apply_fn: the network, (params, inputs [n, ...]) -> outputs [n, k].
        params: parameters theta.
        x: inputs, shape [n, ...] (or a pytree of such arrays).
        y: targets, shape [n, k].

    Returns:
        The loss, shape [], in squared units of the outputs.

    Raises:
        ValueError: if the outputs are not [n, k] or the targets do not match them.

    Statement: ntk.parameter_gradient_flow.  Source: Jacot, Gabriel and Hongler 2018, section 3.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> ntk.squared_loss(lambda w, x: x @ w, jnp.ones((1, 1)), jnp.array([[1.0], [2.0]]), jnp.array([[0.0], [0.0]]))
    Array(2.5, dtype=float32)
    """
    n, k = require_outputs(trainable(apply_fn, params), x)
    shapes(y=(y, f"{n} {k}"))
    return jnp.sum((apply_fn(params, x) - y) ** 2) / 2


def parameter_velocity(apply_fn: ApplyFn, params: PyTree, x: PyTree, y: Array) -> PyTree:
    r"""The velocity of the parameters under gradient flow on the squared loss: residuals times tangent features.

    .. math:: \dot\theta = -\nabla \ell(\theta)
        = \sum_{i=1}^n \sum_c (y_i - f_\theta(x_i))_c \nabla_\theta f_\theta(x_i)_c

    Args:
        apply_fn: the network, (params, inputs [n, ...]) -> outputs [n, k].
        params: parameters theta; of a mapping with the key "params" (Flax variables) only that collection moves.
        x: inputs, shape [n, ...] (or a pytree of such arrays).
        y: targets, shape [n, k].

    Returns:
        The velocity per unit of time, a pytree like `params`, zero in collections that do not move. Time is learning
        rate times steps of gradient descent on `squared_loss`.

    Raises:
        ValueError: if the outputs are not [n, k], the targets do not match them, or a parameter is not real
            floating-point.

    Statement: ntk.parameter_gradient_flow.  Source: Jacot, Gabriel and Hongler 2018, section 3.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> ntk.parameter_velocity(lambda w, x: x @ w, jnp.ones((1, 1)), jnp.array([[1.0], [2.0]]), jnp.zeros((2, 1)))
    Array([[-5.]], dtype=float32)
    """
    net = trainable(apply_fn, params)
    n, k = require_outputs(net, x)
    shapes(y=(y, f"{n} {k}"))
    outputs, pull_back = jax.vjp(lambda trained: net.fn(trained, x), net.params)
    (velocity,) = pull_back((y - outputs).astype(outputs.dtype))
    if net.params is params:
        return velocity
    still = trainable(apply_fn, jax.tree.map(jnp.zeros_like, params))
    return still.rebuild(velocity)


def function_velocity(kernel: Array, outputs: Array, y: Array) -> Array:
    r"""The velocity of the outputs under gradient flow on the squared loss: kernel times residuals.

    .. math:: \dot f(x) = \sum_{i=1}^n K(x, x_i) (y_i - f(x_i))

    The kernel at the training inputs gives the velocity there, the kernel between other inputs and the training inputs
    gives it at the others. Kernels come in three forms: [m, n], which moves every output in the same way and none
    through another; [m, n, k], one kernel for each output; [m, n, k, k], the full one.

    Args:
        kernel: K between m inputs and the n training inputs, shape [m, n], [m, n, k] or [m, n, k, k].
        outputs: f at the training inputs, shape [n, k]; with a kernel [m, n] also [n].
        y: targets, like `outputs`.

    Returns:
        The velocity per unit of time, shape [m, k] (or [m]). Time is learning rate times steps of gradient descent on
        `squared_loss`.

    Raises:
        ValueError: if shapes disagree.

    Statement: ntk.function_space_flow.  Source: Jacot, Gabriel and Hongler 2018, section 4.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> ntk.function_velocity(jnp.array([[2.0, 1.0]]), jnp.zeros((2, 1)), jnp.array([[1.0], [-1.0]]))
    Array([[1.]], dtype=float32)
    """
    pattern = output_pattern(kernel, y)
    shapes(kernel=(kernel, kernel_pattern("kernel", kernel, "m", "n")), outputs=(outputs, pattern), y=(y, pattern))
    moved = as_blocks(kernel) @ as_columns(y - outputs, kernel.ndim)
    return from_columns(moved, kernel.ndim, y.shape[1:])


def linearized_loss(vartheta: Array, jacobian: Array, residual0: Array) -> Array:
    r"""The squared loss of the linearised network, a convex quadratic in the shift of the parameters.

    .. math:: \ell(\vartheta) = \tfrac12 \sum_{i=1}^n
        \lVert J_i \vartheta - (y_i - f_{\theta_0}(x_i)) \rVert^2, \quad \vartheta = \theta - \theta_0

    Args:
        vartheta: shift of the parameters, shape [p].
        jacobian: tangent features J at theta_0, shape [n, k, p].
        residual0: targets minus outputs at theta_0, shape [n, k].

    Returns:
        The loss, shape [], in squared units of the outputs.

    Raises:
        ValueError: if shapes disagree.

    Statement: ntk.linearized_loss.  Source: Lee et al. 2019, section 2.2.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> ntk.linearized_loss(jnp.array([1.0, 0.0]), jnp.array([[[1.0, 2.0]]]), jnp.array([[3.0]]))
    Array(2., dtype=float32)
    """
    shapes(vartheta=(vartheta, "p"), jacobian=(jacobian, "n k p"), residual0=(residual0, "n k"))
    return jnp.sum((jacobian @ vartheta - residual0) ** 2) / 2


def dual_to_primal(jacobian: Array, coefficients: Array) -> Array:
    r"""The shift of the parameters that dual coefficients stand for.

    .. math:: \vartheta = \sum_{i=1}^n \sum_c \alpha_{ic} \nabla_\theta f_{\theta_0}(x_i)_c = J^T \alpha

    Gradient descent on the linearised loss from zero never leaves the span of the tangent features, so that its
    iterates have this form; other minimisers differ by a null vector of J and are longer.

    Args:
        jacobian: tangent features J at theta_0, shape [n, k, p].
        coefficients: dual coefficients alpha, shape [n, k].

    Returns:
        The shift, shape [p], parameters in the order of `jax.flatten_util.ravel_pytree`.

    Raises:
        ValueError: if shapes disagree.

    Statement: ntk.representer.  Source: Schölkopf, Herbrich and Smola 2001, theorem 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> ntk.dual_to_primal(jnp.array([[[1.0, 2.0]], [[0.0, 1.0]]]), jnp.array([[2.0], [1.0]]))
    Array([2., 5.], dtype=float32)
    """
    shapes(jacobian=(jacobian, "n k p"), coefficients=(coefficients, "n k"))
    return jnp.einsum("nkp,nk->p", jacobian, coefficients)
