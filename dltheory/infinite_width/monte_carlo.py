"""The kernels of wide networks by simulation: averages over networks of finite width, with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import ntk
from dltheory._checks import leading_axis, require
from dltheory.infinite_width._param_variance import ParamVariance, given_variances, named_leaves
from dltheory.typing import ApplyFn, Array, PRNGKey, PyTree

__all__ = ["MonteCarloKernel", "monte_carlo_kernel"]


class MonteCarloKernel(NamedTuple):
    """Estimates of both kernels of a wide network, averages over random networks.

    Attributes:
        nngp: second moments of the outputs, shape [n, m].
        ntk: mean tangent kernel, shape [n, m].
        nngp_error: standard error of `nngp`, from the sample standard deviation over networks, shape [n, m].
        ntk_error: standard error of `ntk`, shape [n, m].
    """

    nngp: Array
    ntk: Array
    nngp_error: Array
    ntk_error: Array


def monte_carlo_kernel(
    init_fn: Callable[[PRNGKey, PyTree], PyTree],
    apply_fn: ApplyFn,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    key: PRNGKey,
    num_samples: int,
    batch_size: int = 1,
    param_variance: ParamVariance = 1.0,
) -> MonteCarloKernel:
    r"""Both kernels of a network at its own finite width, averaged over its random initialisation.

    .. math::
        K_{ij} &= \frac{1}{S k} \sum_{s=1}^S \sum_{a=1}^k f_a(x_i; \theta_s) f_a(x'_j; \theta_s) \\
        \Theta_{ij} &= \frac{1}{S k} \sum_{s=1}^S \sum_{a=1}^k \sum_l
        v_l \langle \partial_{\theta_l} f_a(x_i; \theta_s), \partial_{\theta_l} f_a(x'_j; \theta_s) \rangle

    over S networks with k outputs and leaves l of their parameters. The standard errors tell the noise, not the bias:
    both means differ from their limits by O(1 / width). Outputs share the layers below them, so that more outputs
    lessen the noise of the last layer only.

    The variances v_l make of the tangent kernel that with respect to parameters of unit variance, which has a limit at
    infinite width: a leaf whose entries have variance v counts as sqrt(v) times a leaf of unit variance. With v = 1 for
    all leaves it is the tangent kernel of the network as it is, which needs the parametrisation "ntk" for a limit.

    Args:
        init_fn: (key, x1) -> params, e.g. a Flax module's `init`.
        apply_fn: (params, x) -> outputs [n, k], or [n], or [n, ...] with any axes of outputs, all of which are used;
            row i of the outputs depends on row i of the inputs alone.
        x1: inputs [n, ...], or a pytree of arrays that share their leading axis.
        x2: other inputs [m, ...]; `x1` by default.
        key: random key.
        num_samples: S, at least 2.
        batch_size: how many networks are computed side by side, at least 1. More of them help accelerators, and cost
            memory.
        param_variance: v, non-negative: one number for all leaves, a pytree of numbers like the params, a function
            (path, shape) -> number, with paths such as "params/Dense_0/kernel", or "lecun": 1 / fan_in, the product of
            all sizes of a leaf but the last, and 0 for leaves with one axis. Leaves with v = 0 are not
            differentiated. Of a mapping with the key "params" only that collection is, and needs variances.

    Returns:
        The estimates and their standard errors, in the dtype of the outputs.

    Raises:
        ValueError: if a setting is out of range, a variance is missing or negative, a set of inputs is empty, or
            `apply_fn` returns no array, or not a row for each row of its input.

    Statement: nngp.clt_limit, ntk.init_convergence.  Source: Novak et al. 2019, section 4 (Monte Carlo evaluation).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import infinite_width, networks
    >>> network, x = networks.MLP((256, 16), sigma_w=2**0.5), jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> estimate = infinite_width.monte_carlo_kernel(
    ...     network.init, network.apply, x, key=jax.random.key(0), num_samples=50
    ... )
    >>> exact = jnp.array([[2.0, 1 / jnp.pi], [1 / jnp.pi, 2.0]])  # arc-cosine kernels of orders 0 and 1
    >>> bool(jnp.all(abs(estimate.ntk - exact) < 4 * estimate.ntk_error))
    True
    """
    require(num_samples >= 2, f"`num_samples` must be at least 2, got {num_samples}")
    require(batch_size >= 1, f"`batch_size` must be at least 1, got {batch_size}")
    leading_axis(x1=x1)
    params = jax.eval_shape(init_fn, key, x1)
    axes = _output_axes(jax.eval_shape(apply_fn, params, x1))
    variances = _variances(params, param_variance)
    trainable = {name for name, variance in named_leaves(variances) if variance > 0}
    require(bool(trainable), "`param_variance` must be positive for some leaf")
    scales = jax.tree.map(lambda variance: math.sqrt(variance) if variance > 0 else 1.0, variances)

    def scaled(units: PyTree) -> PyTree:
        return jax.tree.map(lambda unit, scale: unit if scale == 1 else unit * scale, units, scales)

    def one_network(key: PRNGKey) -> tuple[Array, Array]:
        params = init_fn(key, x1)
        # A leaf as a function of its unit-variance form, whose gradient has the factor sqrt(v).
        units = jax.tree.map(lambda leaf, scale: leaf if scale == 1 else leaf / scale, params, scales)
        tangent = ntk.empirical_ntk(
            lambda units, x: apply_fn(scaled(units), x),
            units,
            x1,
            x2,
            trace_axes=axes,
            trainable=trainable.__contains__,
        )
        return ntk.empirical_nngp(apply_fn, params, x1, x2, trace_axes=axes), tangent

    # Batches alike in size, so that few places of the last one stay empty; these have weight zero.
    num_batches = -(-num_samples // batch_size)
    places = np.arange(num_batches * -(-num_samples // num_batches)).reshape(num_batches, -1)
    keys = jax.random.split(key, num_samples)[np.minimum(places, num_samples - 1)]
    start = jax.tree.map(lambda k: _Moments(*(jnp.zeros(k.shape, k.dtype),) * 2), jax.eval_shape(one_network, key))

    def step(carry, batch):
        (count, moments), (keys, weights) = carry, batch
        kernels = jax.vmap(one_network)(keys)
        merged = [_merge(old, count, new, weights) for old, new in zip(moments, kernels, strict=True)]
        return (count + jnp.sum(weights), tuple(merged)), None

    weights = jnp.asarray(places < num_samples, start[0].mean.dtype)
    (_, moments), _ = jax.lax.scan(step, (jnp.zeros((), weights.dtype), start), (keys, weights))
    errors = [jnp.sqrt(m.squares / (num_samples * (num_samples - 1))) for m in moments]
    return MonteCarloKernel(nngp=moments[0].mean, ntk=moments[1].mean, nngp_error=errors[0], ntk_error=errors[1])


class _Moments(NamedTuple):
    """Mean, and sum of squared deviations from it."""

    mean: Array
    squares: Array


def _merge(moments: _Moments, count: Array, new: Array, weights: Array) -> _Moments:
    """Moments of `count` samples, and of the samples [b, ...] that have weight one (Chan, Golub, LeVeque 1983)."""
    weights = weights.reshape(-1, *(1,) * (new.ndim - 1))
    added = jnp.sum(weights)
    total = count + added
    mean = jnp.sum(weights * new, axis=0) / added
    squares = jnp.sum(weights * (new - mean[None]) ** 2, axis=0)
    shift = mean - moments.mean
    return _Moments(
        mean=moments.mean + shift * (added / total),
        squares=moments.squares + squares + shift**2 * (count * added / total),
    )


def _output_axes(outputs: PyTree) -> tuple[int, ...]:
    """All axes of the outputs but that of the rows."""
    require(isinstance(outputs, jax.ShapeDtypeStruct), "`apply_fn` must return one array")
    return tuple(range(1, outputs.ndim))


def _variances(params: PyTree, param_variance: ParamVariance) -> PyTree:
    """A number for every leaf; zero for those that are not parameters."""
    variances = given_variances(params, param_variance)
    if param_variance is None or isinstance(param_variance, str):
        require(param_variance == "lecun", f"`param_variance` must be 'lecun' or numbers, got {param_variance!r}")
        leaves = jax.tree.leaves(params)
        variances = [1 / math.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 0.0 for leaf in leaves]
    names = [name for name, _ in named_leaves(params)]
    if isinstance(params, Mapping) and "params" in params:
        variances = [v if name.startswith("params/") else 0.0 for name, v in zip(names, variances, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), map(float, variances))
