"""Posteriors of the kinds that samplers are judged by, with moments that are known.

All are in double precision and need no data from elsewhere; the eight schools are those of Rubin 1981.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy import optimize, special

__all__ = ["HARD", "TARGETS", "Target"]


class Target(NamedTuple):
    """A distribution, and what is known of it.

    Attributes:
        log_density: position -> shape [].
        start: (generator, chains) -> positions, [chains, ...], spread more widely than the target.
        quantities: position -> the functions whose moments are known, [q].
        mean, deviation: of the quantities, exact, [q].
        dense: whether a dense mass matrix is called for.
        independent: (generator, n) -> independent draws [n, ...], where there is a way to make them.
    """

    log_density: Callable[[Any], jax.Array]
    start: Callable[[np.random.Generator, int], Any]
    quantities: Callable[[Any], jax.Array]
    mean: np.ndarray
    deviation: np.ndarray
    dense: bool = False
    independent: Callable[[np.random.Generator, int], Any] | None = None


def gaussian(d: int = 8, condition: float = 1e4) -> Target:
    """A rotated Gaussian whose covariance has a large condition number."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    variances = np.geomspace(condition**-0.5, condition**0.5, d)
    mean = rng.normal(size=d)
    precision = rotation / variances @ rotation.T
    covariance = rotation * variances @ rotation.T
    return Target(
        log_density=lambda x: -(x - mean) @ jnp.asarray(precision) @ (x - mean) / 2,
        start=lambda rng, chains: mean + 2 * rng.normal(size=(chains, d)) * np.sqrt(variances) @ rotation.T,
        quantities=lambda x: x,
        mean=mean,
        deviation=np.sqrt(np.diag(covariance)),
        dense=True,
    )


def logistic(n: int = 60, nodes: int = 40) -> Target:
    """Logistic regression on two inputs and a constant, with normal priors; moments by quadrature around its mode."""
    rng = np.random.default_rng(1)
    inputs = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    signs = np.where(rng.uniform(size=n) < special.expit(inputs @ [0.5, -1.5, 1.0]), 1.0, -1.0)
    signed, prior = signs[:, None] * inputs, 2.5

    def log_density(x):
        return jnp.sum(jax.nn.log_sigmoid(jnp.asarray(signed) @ x)) - jnp.sum(x**2) / (2 * prior**2)

    def value(points):  # [m, 3]
        return -np.logaddexp(0, -points @ signed.T).sum(axis=1) - (points**2).sum(axis=1) / (2 * prior**2)

    mode = optimize.minimize(lambda x: -value(x[None])[0], np.zeros(3), tol=1e-12).x
    weights = special.expit(signed @ mode) * special.expit(-signed @ mode)
    factor = np.linalg.cholesky(np.linalg.inv((signed.T * weights) @ signed + np.eye(3) / prior**2))
    node, weight = hermegauss(nodes)
    grid = np.stack(np.meshgrid(node, node, node, indexing="ij"), axis=-1).reshape(-1, 3)
    points = mode + grid @ factor.T
    log_weight = np.log(np.stack(np.meshgrid(weight, weight, weight, indexing="ij"), axis=-1)).sum(axis=-1).ravel()
    mean, deviation = _moments(points, log_weight + (grid**2).sum(axis=1) / 2 + value(points))
    return Target(
        log_density=log_density,
        start=lambda rng, chains: mode + 2 * rng.normal(size=(chains, 3)) @ factor.T,
        quantities=lambda x: x,
        mean=mean,
        deviation=deviation,
    )


EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools(*, centred: bool) -> Target:
    """Effects theta ~ N(mu, tau) of which y ~ N(theta, s) were measured; mu ~ N(0, 5), tau ~ half-Cauchy(5).

    The quantities are mu, log tau and the effects. Given tau, all are normal; tau is integrated on a grid.
    """

    def log_density(x):
        tau = jnp.exp(x["log_tau"])
        effects = x["effects"] if centred else x["mu"] + tau * x["effects"]
        spread = tau if centred else 1.0
        scaled = (x["effects"] - (x["mu"] if centred else 0.0)) / spread
        prior = -jnp.sum(scaled**2) / 2 - len(EFFECTS) * jnp.log(spread) - (x["mu"] / 5) ** 2 / 2
        prior = prior - jnp.log1p((tau / 5) ** 2) + x["log_tau"]
        return prior - jnp.sum(((EFFECTS - effects) / ERRORS) ** 2) / 2

    def start(rng, chains):
        mu, log_tau = 5 + 5 * rng.normal(size=chains), 1.5 + rng.normal(size=chains)
        noise = rng.normal(size=(chains, len(EFFECTS)))
        effects = mu[:, None] + np.exp(log_tau)[:, None] * noise if centred else noise
        return {"mu": mu, "log_tau": log_tau, "effects": effects}

    def quantities(x):
        effects = x["effects"] if centred else x["mu"] + jnp.exp(x["log_tau"]) * x["effects"]
        return jnp.concatenate([jnp.stack([x["mu"], x["log_tau"]]), effects])

    log_tau = np.linspace(-25, 12, 20_001)
    tau = np.exp(log_tau)[:, None]
    precision = 1 / (ERRORS**2 + tau**2)
    # mu given tau, the effects integrated out; then the effects given both.
    mu_variance = 1 / (1 / 25 + precision.sum(axis=1))
    mu_mean = mu_variance * (precision @ EFFECTS)
    log_weight = (
        (np.log(precision).sum(axis=1) - (precision * EFFECTS**2).sum(axis=1) + mu_mean**2 / mu_variance) / 2
        + np.log(mu_variance) / 2
        - np.log1p((tau[:, 0] / 5) ** 2)
        + log_tau
    )
    pull = ERRORS**2 * precision  # of mu on an effect; the rest is that of its measurement
    effect_mean = pull * mu_mean[:, None] + (1 - pull) * EFFECTS
    effect_square = effect_mean**2 + pull**2 * mu_variance[:, None] + pull * tau**2
    first = np.column_stack([mu_mean, log_tau, effect_mean])
    second = np.column_stack([mu_mean**2 + mu_variance, log_tau**2, effect_square])
    mean, _ = _moments(first, log_weight)
    return Target(log_density, start, quantities, mean, np.sqrt(_moments(second, log_weight)[0] - mean**2))


def funnel(d: int = 9) -> Target:
    """Neal's funnel: v ~ N(0, 3), and x ~ N(0, exp(v / 2)) in d dimensions. The quantity is v."""

    def independent(rng, n):
        v = 3 * rng.normal(size=(n, 1))
        return np.hstack([v, np.exp(v / 2) * rng.normal(size=(n, d))])

    return Target(
        log_density=lambda x: -((x[0] / 3) ** 2) / 2 - jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) / 2 - d * x[0] / 2,
        start=lambda rng, chains: rng.normal(size=(chains, d + 1)),
        quantities=lambda x: x[:1],
        mean=np.zeros(1),
        deviation=np.full(1, 3.0),
        independent=independent,
    )


def banana(scale: float = 2.0, bend: float = 0.1) -> Target:
    """A Gaussian bent along a parabola: x ~ N(0, scale), y ~ N(bend (x^2 - scale^2), 1)."""

    def independent(rng, n):
        x = scale * rng.normal(size=n)
        return np.column_stack([x, bend * (x**2 - scale**2) + rng.normal(size=n)])

    return Target(
        log_density=lambda x: -((x[0] / scale) ** 2) / 2 - (x[1] - bend * (x[0] ** 2 - scale**2)) ** 2 / 2,
        start=lambda rng, chains: 2 * rng.normal(size=(chains, 2)),
        quantities=lambda x: x,
        mean=np.zeros(2),
        deviation=np.array([scale, np.sqrt(1 + 2 * bend**2 * scale**4)]),
        independent=independent,
    )


def mixture(weight: float = 0.3, distance: float = 2.0) -> Target:
    """Two Gaussians of unit variance, at -distance and at distance along the first of two axes."""

    def log_density(x):
        parts = [jnp.log(w) - (x[0] - at) ** 2 / 2 for w, at in ((weight, -distance), (1 - weight, distance))]
        return jnp.logaddexp(*parts) - x[1] ** 2 / 2

    def independent(rng, n):
        centre = np.where(rng.uniform(size=n) < weight, -distance, distance)
        return np.column_stack([centre, np.zeros(n)]) + rng.normal(size=(n, 2))

    return Target(
        log_density=log_density,
        start=lambda rng, chains: 3 * rng.normal(size=(chains, 2)),
        quantities=lambda x: x,
        mean=np.array([(1 - 2 * weight) * distance, 0.0]),
        deviation=np.sqrt([1 + 4 * weight * (1 - weight) * distance**2, 1.0]),
        independent=independent,
    )


def _moments(points: np.ndarray, log_weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of weighted points [m, q]."""
    weight = special.softmax(log_weight)
    mean = weight @ points
    return mean, np.sqrt(weight @ (points - mean) ** 2)


TARGETS: dict[str, Callable[[], Target]] = {
    "gaussian": gaussian,
    "logistic regression": logistic,
    "eight schools": lambda: eight_schools(centred=False),
    "banana": banana,
    "mixture": mixture,
}
HARD: dict[str, Callable[[], Target]] = {
    "centred eight schools": lambda: eight_schools(centred=True),
    "funnel": funnel,
}
