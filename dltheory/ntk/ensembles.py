"""The law of the outputs of infinitely wide networks, each trained by gradient descent from its own initialisation."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.ntk._outputs import (
    as_blocks,
    as_columns,
    floating,
    from_blocks,
    from_columns,
    kernel_pattern,
    of_outputs,
    output_pattern,
)
from dltheory.ntk._spectral import Flow, decompose, growth, spectral_product
from dltheory.typing import Array, Scalar

__all__ = ["EnsembleMoments", "ensemble_moments"]


class EnsembleMoments(NamedTuple):
    """A Gaussian law of outputs at m test inputs; [...] are the axes of the times asked for.

    Attributes:
        mean: shape [..., m, k] (or [..., m]).
        covariance: between test inputs, shape [..., m, m] (of every output by itself), [..., m, m, k] or
            [..., m, m, k, k], as the kernels.
        rank: numerical rank of the neural tangent kernel on the training set, shape [], or [k] for [n, n, k].
    """

    mean: Array
    covariance: Array
    rank: Array


def ensemble_moments(
    ntk_train: Array,
    ntk_test_train: Array,
    nngp_train: Array,
    nngp_test_train: Array,
    nngp_test: Array,
    y: Array,
    *,
    time: Array | float = jnp.inf,
    ridge: Scalar = 0.0,
    rcond: Scalar | None = None,
) -> EnsembleMoments:
    r"""Mean and covariance of an ensemble of infinitely wide networks after gradient flow on the squared loss.

    .. math::
        B_t &= \Theta(x, X) \Theta^{-1} (1 - e^{-\Theta t}) \\
        \mu_t &= B_t y, \qquad \Sigma_t = K(x, x') - B_t K(X, x') - K(x, X) B_t^T + B_t K(X, X) B_t^T

    with the neural tangent kernel Theta and the covariance K of the outputs at initialisation (NNGP), whose mean is
    zero. Every member interpolates in the end; what varies is what it does between the data. It is not the posterior of
    the Gaussian process with kernel K, unless the two kernels agree up to a factor. For the moments at the training
    inputs pass the kernels of the training set as those of the test set.

    Args:
        ntk_train: Theta on the training set, symmetric positive semi-definite, shape [n, n] (every output by itself, as
            in the limit of infinite width), [n, n, k] or [n, n, k, k].
        ntk_test_train: Theta between test and training inputs, shape [m, n], and so on.
        nngp_train: K on the training set, shaped as `ntk_train`.
        nngp_test_train: K between test and training inputs, shaped as `ntk_test_train`.
        nngp_test: K on the test set, shape [m, m], and so on.
        y: targets, shape [n, k]; with kernels [n, n] also [n].
        time: learning rate times steps on `squared_loss`, non-negative, of any shape [...]; infinity by default.
        ridge: rho, non-negative, shape []; see `predict`.
        rcond: eigenvalues of Theta (plus ridge) up to this multiple of the largest count as zero; by default the size
            of the matrix times the precision.

    Returns:
        Mean and covariance at the test inputs, and the rank of Theta. NaN at negative times, and everywhere if Theta is
        not symmetric or is indefinite beyond the square root of the precision.

    Raises:
        ValueError: if shapes disagree.

    Statement: ntk.ensemble_distribution, ntk.kernel_machine.  Source: Lee et al. 2019, corollary 1.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> identity, cross = jnp.eye(1), jnp.full((1, 1), 0.5)
    >>> law = ntk.ensemble_moments(2 * identity, 2 * cross, identity, cross, identity, jnp.array([3.0]))
    >>> print(law.mean, law.covariance)
    [1.5] [[0.75]]
    """
    pattern = output_pattern(ntk_train, y)
    kernels = {
        "ntk_train": (ntk_train, "n", "n"),
        "ntk_test_train": (ntk_test_train, "m", "n"),
        "nngp_train": (nngp_train, "n", "n"),
        "nngp_test_train": (nngp_test_train, "m", "n"),
        "nngp_test": (nngp_test, "m", "m"),
    }
    axes = jnp.ndim(ntk_train)
    for name, (kernel, *_) in kernels.items():
        same = jnp.ndim(kernel) == axes
        require(same, f"`{name}` must have as many axes as `ntk_train`, {axes}, got {list(jnp.shape(kernel))}")
    patterns = {name: (kernel, kernel_pattern(name, kernel, *sizes)) for name, (kernel, *sizes) in kernels.items()}
    shapes(**patterns, y=(y, pattern), ridge=(ridge, ""))
    require(jnp.size(y) > 0, "`y` must not be empty")
    require(rcond is None or jnp.ndim(rcond) == 0, "`rcond` must be a scalar")
    *blocks, y = floating(*(kernel for kernel, *_ in kernels.values()), y)
    ridge, time = (jnp.asarray(setting, y.dtype) for setting in (ridge, time))
    require(time >= 0, "`time` must be non-negative")
    time = jnp.where(time >= 0, time, jnp.nan)

    def one_block(kernels, targets):
        theta, theta_cross, prior, prior_cross, prior_test = kernels
        spectrum = decompose(theta, ridge, rcond)

        def at(t):
            flow = Flow(time=t, ridge=ridge, cutoff=spectrum.cutoff)
            learned = spectral_product(growth, spectrum, flow, theta_cross.T).T
            forgotten = learned @ prior_cross.T
            cov = prior_test - forgotten - forgotten.T + learned @ prior @ learned.T
            return learned @ targets, (cov + cov.T) / 2

        return *jax.vmap(at)(time.ravel()), spectrum.rank

    mean, cov, rank = jax.vmap(one_block, out_axes=(1, 1, 0))([*map(as_blocks, blocks)], as_columns(y, axes))
    mean, cov = from_columns(mean, axes, y.shape[1:]), from_blocks(cov, axes, y.size // y.shape[0])
    return EnsembleMoments(
        mean=mean.reshape(*time.shape, *mean.shape[1:]),
        covariance=cov.reshape(*time.shape, *cov.shape[1:]),
        rank=of_outputs(rank, axes),
    )
