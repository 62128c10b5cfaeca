"""The variational bound of a diffusion model, its terms, and the losses that are trained in its place."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from dltheory._checks import require, shapes
from dltheory.diffusion._predictions import predicted
from dltheory.diffusion._steps import at, check_points, check_time, check_values
from dltheory.diffusion.forward import forward_sample, forward_step, prior_kl
from dltheory.diffusion.parametrizations import PredictFn
from dltheory.diffusion.posterior import posterior
from dltheory.diffusion.schedules import Schedule, signal_to_noise
from dltheory.typing import Array, PRNGKey, Scalar

__all__ = [
    "VlbTerms",
    "denoising_loss",
    "discretized_gaussian_log_likelihood",
    "min_snr_weights",
    "path_log_weight",
    "simple_loss",
    "vlb_terms",
    "vlb_weights",
]


class VlbTerms(NamedTuple):
    """Terms of the negative variational bound, in nats; their sum bounds -log p(x_0) from above.

    Attributes:
        prior: L_T, divergence of q(x_T | x_0) from the prior N(0, I), shape [].
        steps: L_1, ..., L_{T-1}, divergences of q(x_{t-1} | x_t, x_0) from the model for t = 2, ..., T, shape [T - 1].
        reconstruction: L_0 = -log p(x_0 | x_1), shape [].
    """

    prior: Array
    steps: Array
    reconstruction: Array


def path_log_weight(
    key: PRNGKey, predict_fn: PredictFn, x0: Array, schedule: Schedule, variances: Array | None = None
) -> Array:
    r"""Log ratio of the model's to the forward process's density on a path drawn from the latter.

    .. math::
        \log \frac{p_\theta(x_{0:T})}{q(x_{1:T} \mid x_0)}
        = \log p(x_T) + \sum_{t=1}^T \log \frac{p_\theta(x_{t-1} \mid x_t)}{q(x_t \mid x_{t-1})}, \qquad
        p_\theta(x_{t-1} \mid x_t) = N(\tilde\mu_t(\hat x_0, x_t), \sigma_t^2 I), \quad p(x_T) = N(0, I)

    Its mean over paths is the variational bound on log p(x_0); the logarithm of the mean of its exponential is
    log p(x_0) itself.

    Args:
        key: random key.
        predict_fn: the model, (x_t, t) -> `Prediction`.
        x0: data, any shape.
        schedule: the noise schedule, T steps.
        variances: sigma_t^2, shape [T + 1], entry 0 without meaning; by default beta-tilde_t, and beta_1 at t = 1.

    Returns:
        Log ratio in nats, shape [].

    Raises:
        ValueError: if `x0` is not floating-point, predictions do not have its shape, or `variances` does not fit the
            schedule.

    Statement: diffusion.vlb.  Source: Ho et al. 2020, equation 3; Burda et al. 2016 (the mean of weights).

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> data = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)))  # all at 0
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.5, 1.0]))
    >>> predict_fn = lambda x, t: diffusion.mixture_prediction(data, x, t, schedule)
    >>> diffusion.path_log_weight(jax.random.key(0), predict_fn, jnp.zeros(1), schedule)  # log N(0; 0, 1/2)
    Array(-0.5723649, dtype=float32)
    """
    check_points(x0=x0)
    variances = check_values(schedule, variances, "variances", _variances)
    num_steps = len(schedule.betas) - 1

    def step(carry, moment):
        before, total = carry
        t, key = moment
        after = forward_step(key, before, t, schedule)
        mean = posterior(predicted(predict_fn, after, t).data, after, t, schedule).mean
        forward_mean = jnp.sqrt(at(schedule.alphas, t, x0)) * before
        back = _log_normal(before, mean, at(variances, t, x0))
        forth = _log_normal(after, forward_mean, at(schedule.betas, t, x0))
        return (after, total + back - forth), None

    moments = (jnp.arange(1, num_steps + 1), jax.random.split(key, num_steps))
    (last, total), _ = jax.lax.scan(step, (x0, jnp.zeros((), x0.dtype)), moments)
    return total + _log_normal(last, jnp.zeros_like(last), jnp.ones((), x0.dtype))


def vlb_terms(
    key: PRNGKey, predict_fn: PredictFn, x0: Array, schedule: Schedule, variances: Array | None = None
) -> VlbTerms:
    r"""Terms of the negative variational bound, each with one sample of the noise.

    .. math::
        -\log p_\theta(x_0) \le E_q\!\Big[ \underbrace{D(q(x_T \mid x_0) \,\|\, p(x_T))}_{L_T}
        + \sum_{t=2}^T \underbrace{D(q(x_{t-1} \mid x_t, x_0) \,\|\, p_\theta(x_{t-1} \mid x_t))}_{L_{t-1}}
        \underbrace{{} - \log p_\theta(x_0 \mid x_1)}_{L_0} \Big]

    The divergences are in closed form, which makes the sum far less noisy than `path_log_weight`. L_0 is that of a
    normal density; for data of whole numbers see `discretized_gaussian_log_likelihood`.

    Args:
        key: random key.
        predict_fn: the model, (x_t, t) -> `Prediction`.
        x0: data, any shape.
        schedule: the noise schedule, T steps.
        variances: those of the model, sigma_t^2, shape [T + 1], entry 0 without meaning; by default beta-tilde_t, and
            beta_1 at t = 1.

    Returns:
        The terms in nats: unbiased estimates.

    Raises:
        ValueError: if `x0` is not floating-point, predictions do not have its shape, or `variances` does not fit the
            schedule.

    Statement: diffusion.vlb_decomposition.  Source: Ho et al. 2020, equation 5.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> data = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.zeros((1, 1)))  # all at 0
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.5, 0.5]))
    >>> predict_fn = lambda x, t: diffusion.mixture_prediction(data, x, t, schedule)
    >>> diffusion.vlb_terms(jax.random.key(0), predict_fn, jnp.zeros(1), schedule).steps
    Array([0.], dtype=float32)
    """
    check_points(x0=x0)
    variances = check_values(schedule, variances, "variances", _variances)
    num_steps = len(schedule.betas) - 1

    def one(moment):
        t, key = moment
        xt, _ = forward_sample(key, x0, t, schedule)
        exact = posterior(x0, xt, t, schedule)
        mean = posterior(predicted(predict_fn, xt, t).data, xt, t, schedule).mean
        variance = at(variances, t, x0)
        ratio = exact.variance / variance
        safe = jnp.where(t > 1, ratio, 1.0)
        divergence = jnp.sum((exact.mean - mean) ** 2) / variance + x0.size * (safe - 1 - jnp.log(safe))
        return jnp.where(t > 1, divergence / 2, -_log_normal(x0, mean, variance))

    terms = jax.lax.map(one, (jnp.arange(1, num_steps + 1), jax.random.split(key, num_steps)))
    return VlbTerms(prior=prior_kl(x0, num_steps, schedule), steps=terms[1:], reconstruction=terms[0])


def discretized_gaussian_log_likelihood(x: Array, mean: Array, std: Scalar, num_bins: int = 256) -> Array:
    r"""Log probability of values in bins under a normal law: L_0 for data of whole numbers, scaled to [-1, 1].

    .. math::
        \log p(x) = \sum_i \log \int_{x_i - 1 / (b - 1)}^{x_i + 1 / (b - 1)} N(u; \mu_i, \sigma^2)\, du

    The lowest bin extends to minus infinity, the highest to infinity, so that probabilities sum to 1.

    Args:
        x: data on the grid of b values from -1 to 1, any shape.
        mean: mu, like `x`.
        std: sigma, positive, shape [].
        num_bins: b, at least 2.

    Returns:
        Log probability in nats, shape []; precise in the tails too.

    Raises:
        ValueError: if `x` and `mean` differ in shape or are not floating-point, `std` is not a scalar, or `num_bins`
            is less than 2.

    Statement: diffusion.l0_term.  Source: Ho et al. 2020.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> levels = jnp.linspace(-1, 1, 256)
    >>> prob = jax.vmap(lambda x: diffusion.discretized_gaussian_log_likelihood(x, jnp.array(0.3), 0.1))(levels)
    >>> round(float(jnp.sum(jnp.exp(prob))), 5)
    1.0
    """
    check_points(x=x, mean=mean)
    shapes(std=(std, ""))
    require(isinstance(num_bins, int) and num_bins >= 2, f"`num_bins` must be at least 2, got {num_bins}")
    half = 1 / (num_bins - 1)
    lower, upper = (x - half - mean) / std, (x + half - mean) / std
    # The mass between two points of the upper tail is that between their mirror images, and log_ndtr is precise below.
    mirrored = lower + upper > 0
    low, high = jnp.where(mirrored, -upper, lower), jnp.where(mirrored, -lower, upper)
    log_high = log_ndtr(high)
    gap = jnp.maximum(log_high - log_ndtr(low), jnp.finfo(x.dtype).tiny)
    inner = log_high + jnp.log(-jnp.expm1(-gap))
    lowest, highest = x < half - 1, x > 1 - half
    return jnp.sum(jnp.where(lowest, log_ndtr(upper), jnp.where(highest, log_ndtr(-lower), inner)))


def denoising_loss(key: PRNGKey, predict_fn: PredictFn, x0: Array, t: Array | int, schedule: Schedule) -> Array:
    r"""Squared error of the predicted noise at one time.

    .. math::
        \lVert \epsilon - \epsilon_\theta(\sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon,\, t) \rVert^2

    Its mean is least for E[noise | x_t], and exceeds that least value by the mean squared distance from it.

    Args:
        key: random key.
        predict_fn: the model, (x_t, t) -> `Prediction`.
        x0: data, any shape.
        t: the time, between 1 and T, shape [].
        schedule: the noise schedule.

    Returns:
        The loss for one sample of the noise, shape [].

    Raises:
        ValueError: if `x0` is not floating-point, the prediction does not have its shape, `t` is not a whole number, or
            a static `t` is out of range.

    Statement: diffusion.loss_simple.  Source: Ho et al. 2020, equation 14.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.cosine_schedule(10)
    >>> point = diffusion.GaussianMixture(jnp.zeros(1), jnp.ones((1, 2)), jnp.zeros((1, 2)))
    >>> predict_fn = lambda x, t: diffusion.mixture_prediction(point, x, t, schedule)
    >>> bool(diffusion.denoising_loss(jax.random.key(0), predict_fn, jnp.ones(2), 5, schedule) < 1e-10)
    True
    """
    check_time(t, schedule)
    xt, noise = forward_sample(key, x0, t, schedule)
    return jnp.sum((noise - predicted(predict_fn, xt, jnp.asarray(t)).noise) ** 2)


def simple_loss(
    key: PRNGKey, predict_fn: PredictFn, x0: Array, schedule: Schedule, weights: Array | None = None
) -> Array:
    r"""The loss that diffusion models are trained with: the error of the noise at a random time.

    .. math::
        L = E_{t \sim U\{1, \dots, T\},\, \epsilon} \left[ w_t
        \lVert \epsilon - \epsilon_\theta(\sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon,\, t) \rVert^2
        \right]

    With w = 1 it is the simple loss, whose term at t = 1 stands for L_0. With `vlb_weights` it is the variational bound
    divided by T, but for L_0 and L_T: their weight at t = 1 is infinite, and a finite one must take its place.

    Args:
        key: random key.
        predict_fn: the model, (x_t, t) -> `Prediction`.
        x0: data, any shape.
        schedule: the noise schedule, T steps.
        weights: w_t, shape [T + 1], entry 0 without meaning; 1 by default.

    Returns:
        The loss for one sample of time and noise, shape [].

    Raises:
        ValueError: if `x0` is not floating-point, the prediction does not have its shape, or `weights` does not fit the
            schedule.

    Statement: diffusion.loss_simple, diffusion.l0_term.  Source: Ho et al. 2020, equation 14.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> schedule = diffusion.cosine_schedule(10)
    >>> point = diffusion.GaussianMixture(jnp.zeros(1), jnp.ones((1, 2)), jnp.zeros((1, 2)))
    >>> predict_fn = lambda x, t: diffusion.mixture_prediction(point, x, t, schedule)
    >>> bool(diffusion.simple_loss(jax.random.key(0), predict_fn, jnp.ones(2), schedule) < 1e-5)
    True
    """
    weights = check_values(schedule, weights, "weights", lambda schedule: jnp.ones_like(schedule.betas))
    key_time, key_noise = jax.random.split(key)
    t = jax.random.randint(key_time, (), 1, len(schedule.betas))
    return at(weights, t, x0) * denoising_loss(key_noise, predict_fn, x0, t, schedule)


def vlb_weights(schedule: Schedule) -> Array:
    r"""Weights with which errors of the noise enter the variational bound.

    .. math::
        L_{t-1} = w_t \lVert \epsilon - \epsilon_\theta(x_t, t) \rVert^2, \qquad
        w_t = \frac{\beta_t^2}{2 \alpha_t (1 - \bar\alpha_t) \tilde\beta_t}
        = \frac{\beta_t}{2 \alpha_t (1 - \bar\alpha_{t-1})}
        = \frac{\mathrm{SNR}_{t-1} - \mathrm{SNR}_t}{2\, \mathrm{SNR}_t}

    For t = 2, ..., T and a model with the variances beta-tilde. (The last form is the step that the ratio of signal to
    noise takes, in units of the weight that turns errors of the data into errors of the noise.)

    Args:
        schedule: the noise schedule, T steps.

    Returns:
        w_t, shape [T + 1]; 0 at t = 0, and infinite at t = 1, where the divergence is one of a point mass.

    Raises:
        ValueError: if the arrays of the schedule differ in shape.

    Statement: diffusion.loss_reparametrized.  Source: Ho et al. 2020, equation 12; Kingma et al. 2021.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> diffusion.vlb_weights(diffusion.schedule_from_betas(jnp.array([0.5, 0.5])))
    Array([ 0., inf,  1.], dtype=float32)
    """
    t = shapes(betas=(schedule.betas, "t"), one_minus_alpha_bars=(schedule.one_minus_alpha_bars, "t"))["t"]
    before = jnp.concatenate([jnp.ones(1, schedule.betas.dtype), schedule.one_minus_alpha_bars[:-1]])
    known = before != 0
    weights = schedule.betas / (2 * schedule.alphas * jnp.where(known, before, 1.0))
    return jnp.where(jnp.arange(t) == 0, 0.0, jnp.where(known, weights, jnp.inf))


def min_snr_weights(schedule: Schedule, max_snr: Scalar = 5.0) -> Array:
    r"""Weights of the noise's error that treat the noise levels as equally hard tasks.

    .. math:: w_t = \frac{\min(\mathrm{SNR}_t, \gamma)}{\mathrm{SNR}_t}, \qquad
        \mathrm{SNR}_t = \frac{\bar\alpha_t}{1 - \bar\alpha_t}

    An error of the data is SNR times smaller than that of the noise, squared: of the data's errors these are the
    weights min(SNR, gamma).

    Args:
        schedule: the noise schedule, T steps.
        max_snr: gamma, positive, shape [].

    Returns:
        w_t, shape [T + 1], between 0 and 1.

    Raises:
        ValueError: if the arrays of the schedule differ in shape, or `max_snr` is not a positive scalar.

    A helper.  Source: Hang et al. 2023, section 3.4.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> diffusion.min_snr_weights(diffusion.schedule_from_betas(jnp.array([0.1, 0.5])))
    Array([0.       , 0.5555556, 1.       ], dtype=float32)
    """
    shapes(max_snr=(max_snr, ""))
    require(max_snr > 0, "`max_snr` must be positive")
    return jnp.minimum(max_snr / signal_to_noise(schedule), 1.0)


def _variances(schedule: Schedule) -> Array:
    """Those of the posterior, and beta_1 for the last step, whose posterior is a point."""
    return jnp.where(jnp.arange(len(schedule.betas)) > 1, schedule.posterior_variances, schedule.betas)


def _log_normal(x: Array, mean: Array, variance: Array) -> Array:
    return -(jnp.sum((x - mean) ** 2) / variance + x.size * jnp.log(2 * math.pi * variance)) / 2
