"""Unbiased estimates of the gradient of a log posterior from some of its examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dltheory._checks import leading_axis, require
from dltheory.typing import Array, LogDensityFn, PRNGKey, PyTree

__all__ = [
    "GradientEstimator",
    "control_variate_score",
    "exact_score",
    "minibatch_score",
    "minibatch_score_variance",
]

ExampleLogLikelihoodFn = Callable[[PyTree, Any], Array]


class GradientEstimator(NamedTuple):
    """A random gradient of a log density.

    Attributes:
        init: position -> cache, whatever estimates near that position can use again; () if nothing.
        estimate: (key, position, cache) -> gradient, like the position.
    """

    init: Callable[[PyTree], PyTree]
    estimate: Callable[[PRNGKey, PyTree, PyTree], PyTree]


def exact_score(log_density_fn: LogDensityFn) -> GradientEstimator:
    r"""The gradient itself, as an estimator without variance.

    Args:
        log_density_fn: log density, position -> shape [].

    Returns:
        The estimator; it uses no key.

    A helper.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> estimator = samplers.exact_score(lambda x: -(x**2) / 2)
    >>> float(estimator.estimate(jax.random.key(0), jnp.array(3.0), ()))
    -3.0
    """
    return GradientEstimator(
        init=lambda _: (), estimate=lambda _key, position, _cache: jax.grad(log_density_fn)(position)
    )


def minibatch_score(
    log_prior_fn: LogDensityFn,
    log_likelihood_fn: ExampleLogLikelihoodFn,
    data: PyTree,
    batch_size: int,
    replace: bool = True,
) -> GradientEstimator:
    r"""The gradient of a log posterior from a mini-batch of its examples.

    .. math:: \nabla \log p(\theta) + \frac nr \sum_{t=1}^r \nabla \log p(x_{i_t} | \theta)

    Unbiased, with variance n^2 / r times that of one example's gradient, times (n - r) / (n - 1) without replacement.

    Args:
        log_prior_fn: log p(theta), position -> shape [].
        log_likelihood_fn: log p(x_i | theta), (position, one example) -> shape [].
        data: the n examples, a pytree with leaves [n, ...].
        batch_size: r, positive; without replacement at most n.
        replace: whether an example may occur twice in a mini-batch; drawing without replacement costs time of order n.

    Returns:
        The estimator; it caches nothing.

    Raises:
        ValueError: if the leaves of `data` do not share their leading axis, or `batch_size` is out of its range.

    Statement: samplers.hmc_stochastic_gradient.  Source: Welling and Teh 2011, equation (4).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> log_likelihood_fn = lambda theta, x: -((x - theta) ** 2) / 2
    >>> estimator = samplers.minibatch_score(lambda theta: 0.0 * theta, log_likelihood_fn, jnp.array([1.0, 3.0]), 1)
    >>> float(estimator.estimate(jax.random.key(0), jnp.array(0.0), ())) in (2.0, 6.0)
    True
    """
    draw, scale = _batches(data, batch_size, replace)

    def estimate(key, position, _cache):
        batch = draw(key)
        return jax.grad(lambda p: log_prior_fn(p) + scale * _total(log_likelihood_fn, p, batch))(position)

    return GradientEstimator(init=lambda _: (), estimate=estimate)


def control_variate_score(
    log_prior_fn: LogDensityFn,
    log_likelihood_fn: ExampleLogLikelihoodFn,
    data: PyTree,
    batch_size: int,
    replace: bool = True,
) -> GradientEstimator:
    r"""The gradient of a log posterior from a mini-batch, corrected by the same examples' gradients at a centre.

    .. math:: \nabla \log p(\theta) + \sum_{i=1}^n \nabla \log p(x_i | \hat\theta)
        + \frac nr \sum_{t=1}^r \big[\nabla \log p(x_{i_t} | \theta) - \nabla \log p(x_{i_t} | \hat\theta)\big]

    Unbiased; the variance is of order n^2 / r times the squared distance to the centre, which for a posterior that
    concentrates around its mode no longer grows with n. The centre is where `init` is called: start chains near the
    mode, which a few epochs of gradient descent find.

    Args:
        log_prior_fn: log p(theta), position -> shape [].
        log_likelihood_fn: log p(x_i | theta), (position, one example) -> shape [].
        data: the n examples, a pytree with leaves [n, ...].
        batch_size: r, positive; without replacement at most n.
        replace: whether an example may occur twice in a mini-batch.

    Returns:
        The estimator; its cache is the centre and the gradient of the log likelihood there.

    Raises:
        ValueError: if the leaves of `data` do not share their leading axis, or `batch_size` is out of its range.

    Statement: samplers.hmc_stochastic_gradient.  Source: Baker, Fearnhead, Fox and Nemeth 2019, equation (6).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> log_likelihood_fn = lambda theta, x: -((x - theta) ** 2) / 2
    >>> estimator = samplers.control_variate_score(
    ...     lambda theta: 0.0 * theta, log_likelihood_fn, jnp.array([1.0, 3.0]), 1)
    >>> float(estimator.estimate(jax.random.key(0), jnp.array(0.0), estimator.init(jnp.array(2.0))))
    4.0
    """
    draw, scale = _batches(data, batch_size, replace)

    def init(position):
        return position, jax.grad(lambda p: _total(log_likelihood_fn, p, data))(position)

    def estimate(key, position, cache):
        centre, centre_gradient = cache
        batch = draw(key)
        moved = jax.grad(lambda p: log_prior_fn(p) + scale * _total(log_likelihood_fn, p, batch))(position)
        there = jax.grad(lambda p: scale * _total(log_likelihood_fn, p, batch))(centre)
        return optax.tree.add(optax.tree.sub(moved, there), centre_gradient)

    return GradientEstimator(init=init, estimate=estimate)


def minibatch_score_variance(
    log_likelihood_fn: ExampleLogLikelihoodFn,
    position: PyTree,
    data: PyTree,
    batch_size: int,
    replace: bool = True,
) -> PyTree:
    r"""Variance of every entry of the estimate of `minibatch_score` at a position.

    .. math:: V_j = \frac{n^2}{r} \operatorname{Var}_i \partial_j \log p(x_i | \theta)
        \quad \Big(\times \frac{n - r}{n - 1} \text{ without replacement}\Big)

    A step of size eps adds noise of variance eps^2 V to a momentum, as much as the noise N(0, 2 B_hat dt) with
    B_hat = eps V / 2 adds in a time eps.

    Args:
        log_likelihood_fn: log p(x_i | theta), (position, one example) -> shape [].
        position: theta, a pytree of floating-point arrays.
        data: the n examples, a pytree with leaves [n, ...].
        batch_size: r, positive; without replacement at most n.
        replace: whether an example may occur twice in a mini-batch.

    Returns:
        Variances, like `position`. It holds the gradients of all examples at once.

    Raises:
        ValueError: if the leaves of `data` do not share their leading axis, or `batch_size` is out of its range.

    Statement: samplers.hmc_stochastic_gradient, samplers.sghmc.  Source: Chen, Fox and Guestrin 2014, section 3.3.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> log_likelihood_fn = lambda theta, x: -((x - theta) ** 2) / 2
    >>> float(samplers.minibatch_score_variance(log_likelihood_fn, jnp.array(0.0), jnp.array([1.0, 3.0]), 1))
    4.0
    """
    num_examples = _num_examples(data, batch_size, replace)
    gradients = jax.vmap(jax.grad(log_likelihood_fn), in_axes=(None, 0))(position, data)
    factor = num_examples**2 / batch_size
    if not replace:
        factor *= (num_examples - batch_size) / max(num_examples - 1, 1)
    return jax.tree.map(lambda leaf: factor * jnp.var(leaf, axis=0), gradients)


def _batches(data: PyTree, batch_size: int, replace: bool) -> tuple[Callable[[PRNGKey], PyTree], float]:
    """A function that draws a mini-batch, and how many examples one of it stands for."""
    num_examples = _num_examples(data, batch_size, replace)
    data = jax.tree.map(jnp.asarray, data)

    def draw(key):
        if batch_size == num_examples and not replace:
            return data
        indices = jax.random.choice(key, num_examples, (batch_size,), replace=replace)
        return jax.tree.map(lambda leaf: leaf[indices], data)

    return draw, num_examples / batch_size


def _num_examples(data: PyTree, batch_size: int, replace: bool) -> int:
    num_examples = leading_axis(data=data)
    require(batch_size >= 1, "`batch_size` must be positive")
    fits = replace or batch_size <= num_examples
    require(fits, "`batch_size` must be at most the size of `data` without replacement")
    return num_examples


def _total(log_likelihood_fn: ExampleLogLikelihoodFn, position: PyTree, batch: PyTree) -> Array:
    return jnp.sum(jax.vmap(log_likelihood_fn, in_axes=(None, 0))(position, batch))
