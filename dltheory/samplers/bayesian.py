"""Posteriors of networks: Gaussian priors, likelihoods of outputs, and the log densities that samplers take.

A network is any ``apply_fn(params, x)``. A Flax network in NTK parametrisation has standard normal weights, whatever
its sigma_w and sigma_b: its prior has scale 1, and its posterior is conditioned as well as the data allow. In standard
parametrisation the same prior over functions needs a scale for every kernel and bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dltheory._checks import leading_axis, require, shapes
from dltheory.samplers._positions import floating, require_positive
from dltheory.samplers.potential import potential
from dltheory.training import softmax_cross_entropy, squared_error
from dltheory.typing import ApplyFn, Array, ArrayLike, LogDensityFn, PyTree, Scalar

__all__ = [
    "categorical_log_likelihood",
    "example_log_likelihood",
    "gaussian_log_likelihood",
    "gaussian_log_prior",
    "log_posterior",
]

OutputLogLikelihoodFn = Callable[[Any, Any], Array]
_LOG_2_PI = math.log(2 * math.pi)


def gaussian_log_prior(params: PyTree, scale: PyTree = 1.0) -> Array:
    r"""Log density of independent centred Gaussian parameters.

    .. math:: \log p(\theta) = -\sum_j \Big(\frac{\theta_j^2}{2 s_j^2} + \log s_j + \tfrac12 \log 2\pi\Big)

    Args:
        params: theta, any pytree of floating-point arrays.
        scale: standard deviations s, positive: a number for all parameters, or a pytree whose leaves belong to whole
            subtrees of `params` or to single leaves, in whose shapes they then broadcast.

    Returns:
        Log density in nats, shape []; NaN where a scale is negative.

    Raises:
        ValueError: if `scale` does not fit the parameters, a static one is not positive, or `params` are not
            floating-point.

    Statement: samplers.gibbs_distribution.  Source: Neal 1996, section 1.2.2.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> params = {"kernel": jnp.ones(2), "bias": jnp.zeros(1)}
    >>> samplers.gaussian_log_prior(params, {"kernel": 2.0, "bias": 1.0}) + 1.5 * jnp.log(2 * jnp.pi) + 2 * jnp.log(2.0)
    Array(-0.25, dtype=float32)
    """
    params = floating(params, "params")

    def of_leaf(leaf, scale):
        fits = _broadcasts(jnp.shape(scale), leaf.shape)
        require(fits, f"`scale` must broadcast in {list(leaf.shape)}, got shape {list(jnp.shape(scale))}")
        require(scale > 0, "`scale` must be positive")
        scale = jnp.broadcast_to(jnp.asarray(scale, leaf.dtype), leaf.shape)
        return -jnp.sum((leaf / scale) ** 2 / 2 + jnp.log(scale)) - leaf.size * _LOG_2_PI / 2

    return jnp.stack(jax.tree.leaves(jax.tree.map(of_leaf, params, _for_leaves(scale, params)))).sum()


def gaussian_log_likelihood(outputs: ArrayLike, targets: ArrayLike, noise_variance: Scalar) -> Array:
    r"""Log likelihood of one example's targets, seen with Gaussian noise.

    .. math:: \log p(y \mid f) = -\frac{\lVert y - f \rVert^2}{2 \sigma^2} - \frac k2 \log 2 \pi \sigma^2

    Args:
        outputs: f, of one example, k numbers of shape [...].
        targets: y, the shape of `outputs`.
        noise_variance: sigma^2, positive, shape [].

    Returns:
        Log likelihood in nats, shape []; NaN if the variance is negative.

    Raises:
        ValueError: if shapes disagree, or a static variance is not positive.

    A helper.  Source: Bishop 2006, equation 3.10.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> round(float(samplers.gaussian_log_likelihood(jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0]), 2.0)), 4)
    -3.531
    """
    require_positive(noise_variance=noise_variance)
    outputs = jnp.asarray(outputs, jnp.result_type(outputs, float))
    noise_variance = jnp.asarray(noise_variance, outputs.dtype)
    misfit = squared_error(outputs, jnp.asarray(targets))
    return -misfit / noise_variance - outputs.size / 2 * (_LOG_2_PI + jnp.log(noise_variance))


def categorical_log_likelihood(outputs: ArrayLike, targets: ArrayLike) -> Array:
    r"""Log likelihood of one example's class under the softmax of its logits.

    .. math:: \log p(y \mid f) = f_y - \log \sum_c e^{f_c}

    Args:
        outputs: f, logits of one example, shape [k].
        targets: y, a class in {0, ..., k - 1}, an integer, shape [].

    Returns:
        Log likelihood in nats, shape []; NaN if the target is no class.

    Raises:
        ValueError: if shapes are wrong or `targets` is no integer.

    A helper.  Source: Bishop 2006, equation 4.62.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.categorical_log_likelihood(jnp.zeros(2), jnp.array(1))  # -log 2
    Array(-0.6931472, dtype=float32)
    """
    shapes(outputs=(outputs, "k"), targets=(targets, ""))
    kind = jnp.result_type(targets)
    require(jnp.issubdtype(kind, jnp.integer), f"`targets` must be integers, got {kind}")
    return -softmax_cross_entropy(jnp.asarray(outputs)[None], jnp.asarray(targets)[None])


def example_log_likelihood(
    apply_fn: ApplyFn, log_likelihood_fn: OutputLogLikelihoodFn
) -> Callable[[PyTree, tuple[Any, Any]], Array]:
    r"""The log likelihood of one example as a function of the parameters: what `minibatch_score` asks for.

    .. math:: (\theta, (x_i, y_i)) \mapsto \log p(y_i \mid f_\theta(x_i))

    Args:
        apply_fn: the network, (params, x [n, ...]) -> outputs [n, ...].
        log_likelihood_fn: (outputs of one example, its targets) -> shape [], such as `categorical_log_likelihood`.

    Returns:
        (params, (x_i, y_i)) -> log likelihood in nats, shape [].

    Statement: samplers.hmc_stochastic_gradient.  Source: Welling and Teh 2011, equation (3).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import samplers
    >>> def log_likelihood_fn(outputs, targets): return samplers.gaussian_log_likelihood(outputs, targets, 0.1)
    >>> of_example = samplers.example_log_likelihood(lambda params, x: x * params, log_likelihood_fn)
    >>> data = jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0, 4.0, 6.0])
    >>> estimator = samplers.minibatch_score(samplers.gaussian_log_prior, of_example, data, batch_size=2)
    >>> float(estimator.estimate(jax.random.key(0), jnp.array(2.0), ()))  # the data ask for no change, the prior does
    -2.0
    """

    def of_example(params, example):
        x, y = example
        outputs = apply_fn(params, jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], x))
        return log_likelihood_fn(jax.tree.map(lambda leaf: leaf[0], outputs), y)

    return of_example


def log_posterior(
    apply_fn: ApplyFn, x: PyTree, y: PyTree, *, log_likelihood_fn: OutputLogLikelihoodFn, prior_scale: PyTree = 1.0
) -> LogDensityFn:
    r"""The log density, up to the evidence, of a network's parameters given data.

    .. math:: \log p(\theta \mid D) + \log p(D) = \log N(\theta; 0, \operatorname{diag} s^2)
              + \sum_{i=1}^n \log p(y_i \mid f_\theta(x_i))

    Args:
        apply_fn: the network, (params, x [n, ...]) -> outputs [n, ...].
        x: inputs, shape [n, ...], or a pytree of such.
        y: targets, shape [n, ...], or a pytree of such.
        log_likelihood_fn: (outputs of one example, its targets) -> shape [], such as `categorical_log_likelihood`, or
            ``lambda f, y: gaussian_log_likelihood(f, y, 0.01)``.
        prior_scale: s, as of `gaussian_log_prior`.

    Returns:
        params -> log density in nats, shape [], for `hmc` and its like.

    Raises:
        ValueError: if inputs, targets and outputs do not share their leading axis; and when it is called, if a
            likelihood or a scale does not fit.

    Statement: samplers.gibbs_distribution.  Source: Neal 1996, section 1.2.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import networks, samplers
    >>> network, x, y = networks.MLP((64, 3)), jnp.ones((5, 2)), jnp.array([0, 2, 1, 1, 0])
    >>> density = samplers.log_posterior(
    ...     network.apply, x, y, log_likelihood_fn=samplers.categorical_log_likelihood)
    >>> chain = samplers.hmc(density, step_size=0.1, num_steps=10)
    >>> _, info = chain.step(jax.random.key(0), chain.init(network.init(jax.random.key(1), x)))
    >>> bool(info.acceptance_rate > 0.8)
    True
    """
    n = leading_axis(x=x, y=y)

    def log_likelihood(params):
        outputs = apply_fn(params, x)
        sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(outputs)}
        require(sizes == {(n,)}, f"`apply_fn` must return outputs [{n}, ...], as many as `x` has rows")
        return jnp.sum(jax.vmap(log_likelihood_fn)(outputs, jax.tree.map(jnp.asarray, y)))

    f = potential(log_likelihood, lambda params: gaussian_log_prior(params, prior_scale))
    return lambda params: -f(params)


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    aligned = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(size in (1, wanted) for size, wanted in aligned)


def _for_leaves(scale: PyTree, params: PyTree) -> PyTree:
    """The scale of every leaf."""
    try:
        return jax.tree.broadcast(scale, params)
    except ValueError as error:
        raise ValueError(f"`scale` must be a number, or have the structure of the parameters: {error}") from None
