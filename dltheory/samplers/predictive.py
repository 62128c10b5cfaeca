"""Predictions of a posterior: outputs of all draws, their mixture as one distribution, and the density it gives data.

Draws are [c, s, ...], c chains of s draws, as `run` returns them, and count alike: the predictive distribution is the
equal mixture of the distributions that they predict.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.typing import ApplyFn, Array, ArrayLike, PyTree, Scalar

__all__ = [
    "PredictiveMoments",
    "log_predictive_density",
    "posterior_outputs",
    "predictive_cdf",
    "predictive_mean_and_variance",
    "predictive_probabilities",
]


class PredictiveMoments(NamedTuple):
    """The first two moments of predicted targets, and what of the second is ignorance.

    Attributes:
        mean: of the targets, shape [n, ...].
        variance: of the targets, the sum of the epistemic variance and that of the noise, shape [n, ...].
        epistemic_variance: of the noiseless outputs under the posterior, shape [n, ...].
    """

    mean: Array
    variance: Array
    epistemic_variance: Array


def posterior_outputs(apply_fn: ApplyFn, draws: PyTree, x: PyTree, *, batch_size: int | None = None) -> PyTree:
    r"""The outputs of a network at every draw of its parameters.

    They are draws of functions, to which the diagnostics apply as they do to any draws: outputs have mixed where
    weights, with their symmetries, may not have.

    Args:
        apply_fn: the network, (params, x) -> outputs [n, ...].
        draws: parameters, a pytree with leaves [c, s, ...].
        x: inputs, shape [n, ...], or a pytree of such.
        batch_size: number of draws to evaluate at once, positive; all of them by default.

    Returns:
        Outputs, shape [c, s, n, ...], or a pytree of such.

    Raises:
        ValueError: if the leaves of `draws` do not share two leading axes, or `batch_size` is not positive.

    A helper.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.posterior_outputs(lambda slope, x: slope * x, jnp.array([[1.0, 2.0]]), jnp.array([3.0]))
    Array([[[3.],
            [6.]]], dtype=float32)
    """
    leading = {jnp.shape(leaf)[:2] for leaf in jax.tree.leaves(draws)}
    two = len(leading) == 1 and len(next(iter(leading))) == 2 and 0 not in next(iter(leading))
    require(two, "leaves of `draws` must be [chains, draws, ...] with the same numbers of both")
    chains, length = next(iter(leading))
    require(batch_size is None or batch_size >= 1, f"`batch_size` must be positive, got {batch_size}")
    flat = jax.tree.map(lambda leaf: jnp.reshape(leaf, (chains * length, *jnp.shape(leaf)[2:])), draws)

    def of_one(params):
        return apply_fn(params, x)

    outputs = jax.vmap(of_one)(flat) if batch_size is None else jax.lax.map(of_one, flat, batch_size=batch_size)
    return jax.tree.map(lambda leaf: jnp.reshape(leaf, (chains, length, *jnp.shape(leaf)[1:])), outputs)


def predictive_mean_and_variance(outputs: ArrayLike, noise_variance: Scalar = 0.0) -> PredictiveMoments:
    r"""Mean and variance of predicted targets, by the law of total variance.

    .. math:: \mathbb E[y \mid D] = \mathbb E[f \mid D], \qquad
              \operatorname{Var}[y \mid D] = \operatorname{Var}[f \mid D] + \sigma^2

    Args:
        outputs: f of every draw, shape [c, s, n, ...].
        noise_variance: sigma^2, non-negative, shape [].

    Returns:
        The moments of the mixture of the draws.

    Raises:
        ValueError: if there are no draws, or `noise_variance` is no scalar, or a negative number.

    A helper.  Source: Rasmussen and Williams 2006, section 2.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.predictive_mean_and_variance(jnp.array([[[1.0], [3.0]]]), noise_variance=0.5)
    PredictiveMoments(mean=Array([2.], ...), variance=Array([1.5], ...), epistemic_variance=Array([1.], ...))
    """
    outputs, noise_variance = _with_noise(outputs, noise_variance)
    epistemic = jnp.var(outputs, axis=(0, 1))
    return PredictiveMoments(jnp.mean(outputs, axis=(0, 1)), epistemic + noise_variance, epistemic)


def predictive_probabilities(logits: ArrayLike) -> Array:
    r"""Probabilities of classes: those that the draws predict, averaged.

    .. math:: p(y \mid x, D) = \mathbb E\big[\operatorname{softmax}(f(x))_y \mid D\big]

    Args:
        logits: f of every draw, shape [c, s, n, k].

    Returns:
        Probabilities, shape [n, k].

    Raises:
        ValueError: if `logits` has another number of axes, or there are no draws.

    A helper.  Source: Neal 1996, section 1.1.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.predictive_probabilities(jnp.array([[[[100.0, 0.0]], [[0.0, 0.0]]]]))
    Array([[0.75, 0.25]], dtype=float32)
    """
    shapes(logits=(logits, "c s n k"))
    logits = _checked(logits, "logits")
    return jnp.mean(jax.nn.softmax(logits, axis=-1), axis=(0, 1))


def log_predictive_density(outputs: PyTree, y: PyTree, log_likelihood_fn: Callable[[Any, Any], Array]) -> Array:
    r"""Log density of every example's targets under the predictive distribution.

    .. math:: \log p(y_i \mid x_i, D) = \log \mathbb E\big[p(y_i \mid f(x_i)) \mid D\big]

    The average is taken of densities, not of their logs, whose mean is lower (Jensen); it is computed in logs.

    Args:
        outputs: f of every draw, shape [c, s, n, ...], or a pytree of such.
        y: targets, shape [n, ...], or a pytree of such.
        log_likelihood_fn: (outputs of one example, its targets) -> shape [], such as `categorical_log_likelihood`.

    Returns:
        Log densities in nats, shape [n].

    Raises:
        ValueError: if the leading axes of the arguments do not fit, or a target does not fit the likelihood.

    A helper.  Source: Gelman, Hwang and Vehtari 2014, equation 5.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> logits = jnp.array([[[[100.0, 0.0]], [[0.0, 0.0]]]])
    >>> jnp.exp(samplers.log_predictive_density(logits, jnp.array([1]), samplers.categorical_log_likelihood))
    Array([0.25], dtype=float32)
    """
    y = jax.tree.map(jnp.asarray, y)
    outputs = jax.tree.map(lambda leaf: _checked(leaf, "outputs"), outputs)
    rows = {leaf.shape[2] for leaf in jax.tree.leaves(outputs)}
    fits = {leaf.shape[:1] for leaf in jax.tree.leaves(y)} == {(n,) for n in rows} and len(rows) == 1
    require(fits, f"leaves of `y` must have as many rows as outputs, {sorted(rows)}")
    over_examples = jax.vmap(log_likelihood_fn)
    values = jax.vmap(jax.vmap(lambda f: over_examples(f, y)))(outputs)
    return jax.nn.logsumexp(values, axis=(0, 1)) - math.log(values.shape[0] * values.shape[1])


def predictive_cdf(outputs: ArrayLike, y: ArrayLike, noise_variance: Scalar = 0.0) -> Array:
    r"""The predictive distribution function at the targets, their probability integral transform.

    .. math:: u_i = P(Y_i \le y_i \mid x_i, D) = \mathbb E\Big[\Phi\Big(\frac{y_i - f(x_i)}{\sigma}\Big) \Bigm| D\Big]

    If predictions are calibrated, u is uniform on [0, 1]; `interval_coverage` tells whether it is.

    Args:
        outputs: f of every draw, shape [c, s, n, ...].
        y: targets, shape [n, ...].
        noise_variance: sigma^2, non-negative, shape []. Without noise it is the share of draws below the target, those
            equal to it counted half.

    Returns:
        Probabilities u, shape [n, ...].

    Raises:
        ValueError: if shapes disagree, or `noise_variance` is no scalar, or a negative number.

    A helper.  Source: Dawid 1984, section 5.3; Gneiting, Balabdaoui and Raftery 2007, section 3.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> samplers.predictive_cdf(jnp.array([[[0.0], [1.0], [2.0], [4.0]]]), jnp.array([3.0]))
    Array([0.75], dtype=float32)
    """
    outputs, noise_variance = _with_noise(outputs, noise_variance)
    wanted = outputs.shape[2:]
    require(jnp.shape(y) == wanted, f"`y` must have shape {list(wanted)}, got {list(jnp.shape(y))}")
    distance = jnp.asarray(y, outputs.dtype)[None, None] - outputs
    noisy = noise_variance > 0
    below = jax.scipy.special.ndtr(distance / jnp.sqrt(jnp.where(noisy, noise_variance, 1.0)))
    return jnp.mean(jnp.where(noisy, below, (1 + jnp.sign(distance)) / 2), axis=(0, 1))


def _checked(outputs: ArrayLike, name: str) -> Array:
    shape = jnp.shape(outputs)
    fits = len(shape) >= 3 and 0 not in shape[:2]
    require(fits, f"`{name}` must be [chains, draws, n, ...] with at least one draw, got {list(shape)}")
    return jnp.asarray(outputs, jnp.result_type(outputs, float))


def _with_noise(outputs: ArrayLike, noise_variance: Scalar) -> tuple[Array, Array]:
    outputs = _checked(outputs, "outputs")
    shapes(noise_variance=(noise_variance, ""))
    require(noise_variance >= 0, "`noise_variance` must be non-negative")
    return outputs, jnp.asarray(noise_variance, outputs.dtype)
