"""The truth at every step of a schedule, where the data are a Gaussian mixture."""

from __future__ import annotations

import jax.numpy as jnp

from dltheory._checks import shapes
from dltheory._numerics import safe_sqrt
from dltheory.diffusion._predictions import conform, predicted
from dltheory.diffusion._steps import at, check_points, check_time, signal_and_noise
from dltheory.diffusion.mixtures import GaussianMixture, diffused, mixture_posterior, mixture_sample
from dltheory.diffusion.parametrizations import PredictFn, Prediction
from dltheory.diffusion.schedules import Schedule
from dltheory.typing import Array, PRNGKey

__all__ = ["excess_loss", "mixture_marginal", "mixture_prediction", "mixture_reverse_kernel"]


def mixture_marginal(mixture: GaussianMixture, t: Array | int, schedule: Schedule) -> GaussianMixture:
    r"""Law of x_t.

    .. math:: q(x_t) = \sum_j w_j N\!\left( \sqrt{\bar\alpha_t}\, \mu_j,\,
        \bar\alpha_t \operatorname{diag} v_j + (1 - \bar\alpha_t) I \right)

    Args:
        mixture: law of the data.
        t: the time, between 0 and T, shape [].
        schedule: the noise schedule.

    Returns:
        The law, a mixture.

    Raises:
        ValueError: if `t` is not a whole number, a static `t` is out of range, or shapes disagree.

    Statement: diffusion.reverse_bayes.  Source: Ho et al. 2020, equation 4.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> data = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.full((1, 1), 4.0))
    >>> diffusion.mixture_marginal(data, 1, diffusion.schedule_from_betas(jnp.array([0.5]))).variances
    Array([[2.5]], dtype=float32)
    """
    check_time(t, schedule, first=0)
    return diffused(mixture, *signal_and_noise(t, schedule, mixture.means))


def mixture_reverse_kernel(mixture: GaussianMixture, xt: Array, t: Array | int, schedule: Schedule) -> GaussianMixture:
    r"""Law of x_{t-1} given x_t: the step back that a model can only approximate, exactly.

    .. math:: q(x_{t-1} \mid x_t) = \frac{q(x_t \mid x_{t-1})\, q(x_{t-1})}{q(x_t)}

    It is a mixture, and near to one normal law where beta_t is small.

    Args:
        mixture: law of the data.
        xt: x_t, shape [d].
        t: the time, between 1 and T, shape [].
        schedule: the noise schedule.

    Returns:
        The law, a mixture.

    Raises:
        ValueError: if `t` is not a whole number, a static `t` is out of range, or shapes disagree.

    Statement: diffusion.reverse_bayes, diffusion.reverse_gaussianity.
    Source: Sohl-Dickstein et al. 2015; Ho et al. 2020.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> data = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.ones((1, 1)))
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.36]))
    >>> diffusion.mixture_reverse_kernel(data, jnp.ones(1), 1, schedule)[1:]
    (Array([[0.8]], dtype=float32), Array([[0.36]], dtype=float32))
    """
    check_time(t, schedule)
    before = mixture_marginal(mixture, t - 1, schedule)
    scale, std = (safe_sqrt(at(values, t, xt)) for values in (schedule.alphas, schedule.betas))
    return mixture_posterior(before, xt, scale, std)


def mixture_prediction(mixture: GaussianMixture, xt: Array, t: Array | int, schedule: Schedule) -> Prediction:
    r"""The best prediction from x_t: the network that has nothing left to learn.

    .. math::
        \hat x_0 = E[x_0 \mid x_t], \qquad \hat\epsilon = E[\epsilon \mid x_t]
        = -\sqrt{1 - \bar\alpha_t}\, \nabla \log q(x_t)

    It minimises the simple loss at every time; what a sampler gets wrong with it is the fault of its steps alone.

    Args:
        mixture: law of the data.
        xt: x_t, shape [d].
        t: the time, between 1 and T, shape [].
        schedule: the noise schedule.

    Returns:
        The prediction, each part by a formula that is precise at both ends of the schedule.

    Raises:
        ValueError: if `t` is not a whole number, a static `t` is out of range, or shapes disagree.

    A helper.  Source: Vincent 2011; Efron 2011 (Tweedie's formula).

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> data = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.ones((1, 1)))
    >>> schedule = diffusion.schedule_from_betas(jnp.array([0.36]))
    >>> diffusion.mixture_prediction(data, jnp.ones(1), 1, schedule).noise
    Array([0.6], dtype=float32)
    """
    shapes(means=(mixture.means, "k d"), xt=(xt, "d"))
    check_points(xt=xt)
    check_time(t, schedule)
    a, std = signal_and_noise(t, schedule, xt)
    noisy, clean = diffused(mixture, a, std), mixture_posterior(mixture, xt, a, std)
    weights = jnp.exp(clean.log_weights)
    data, score = weights @ clean.means, weights @ ((noisy.means - xt[None, :]) / noisy.variances)
    noise = -std * score
    parts = Prediction(data=data, noise=noise, velocity=a * noise - std * data, score=score)
    return conform(parts, xt)


def excess_loss(
    key: PRNGKey, predict_fn: PredictFn, mixture: GaussianMixture, t: Array | int, schedule: Schedule
) -> Array:
    r"""What a model has not learned: its loss at one time beyond the least that is possible.

    .. math::
        \lVert \epsilon_\theta(x_t, t) - E[\epsilon \mid x_t] \rVert^2, \qquad x_t \sim q(x_t); \qquad
        E \lVert \epsilon - \epsilon_\theta \rVert^2
        = E \lVert \epsilon - E[\epsilon \mid x_t] \rVert^2 + E \lVert \epsilon_\theta - E[\epsilon \mid x_t] \rVert^2

    Divided by 1 - alpha-bar_t it is the squared error of the score. Errors of samples that remain where it is 0 are
    those of the steps.

    Args:
        key: random key.
        predict_fn: the model, (x_t, t) -> `Prediction`.
        mixture: law of the data.
        t: the time, between 1 and T, shape [].
        schedule: the noise schedule.

    Returns:
        The excess for one sample of x_t, shape [].

    Raises:
        ValueError: if `t` is not a whole number, a static `t` is out of range, or shapes (that of the prediction
            included) disagree.

    Statement: diffusion.loss_simple.  Source: Vincent 2011.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> data = diffusion.GaussianMixture(jnp.zeros(1), jnp.zeros((1, 2)), jnp.ones((1, 2)))
    >>> schedule = diffusion.cosine_schedule(10)
    >>> predict_fn = lambda x, t: diffusion.mixture_prediction(data, x, t, schedule)
    >>> float(diffusion.excess_loss(jax.random.key(0), predict_fn, data, 5, schedule))
    0.0
    """
    check_time(t, schedule)
    xt = mixture_sample(key, mixture_marginal(mixture, t, schedule))
    best = mixture_prediction(mixture, xt, t, schedule)
    return jnp.sum((predicted(predict_fn, xt, jnp.asarray(t)).noise - best.noise) ** 2)
