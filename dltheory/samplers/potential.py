"""The posterior as a Gibbs distribution: the potential whose Boltzmann weights are likelihood times prior."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from dltheory.typing import Array, LogDensityFn, PyTree

__all__ = ["potential"]


def potential(log_likelihood: LogDensityFn, log_prior: LogDensityFn) -> Callable[[PyTree], Array]:
    r"""The potential f of a posterior, which is the Gibbs distribution of f at temperature 1.

    .. math::
        f(\theta) = -\log p(D \mid \theta) - \log p(\theta), \qquad p(\theta \mid D) = Z^{-1} e^{-f(\theta)},
        \quad Z = p(D)

    Samplers take its negative, ``lambda theta: -f(theta)``: the log density of the posterior up to the constant log Z,
    which no sampler needs.

    Args:
        log_likelihood: theta -> log p(D | theta), shape [].
        log_prior: theta -> log p(theta), shape [].

    Returns:
        theta -> f(theta) in nats, shape []; infinite where the prior is zero, whatever the likelihood there.

    Statement: samplers.gibbs_distribution.  Source: Neal 2011, Handbook of Markov Chain Monte Carlo, section 5.3.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import samplers
    >>> f = samplers.potential(lambda theta: -((theta - 2) ** 2) / 2, lambda theta: -(theta**2) / 2)
    >>> float(f(jnp.array(1.0)))
    1.0
    """

    def value(theta):
        prior = log_prior(theta)
        impossible = jnp.isneginf(prior)
        return jnp.where(impossible, jnp.inf, -log_likelihood(theta) - prior)

    return value
