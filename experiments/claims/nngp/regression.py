"""Claims about conditioning the Gaussian process on data."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import nngp
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.nngp._problems import INPUTS, gram, relu_kernel
from experiments.curves import Curve, estimate
from experiments.judges import AtMost, Equal, Mean

__all__ = ["CLAIMS"]


class _Regression(NamedTuple):
    features: np.ndarray  # [n + m, p]: the kernel is their Gram matrix
    y: np.ndarray  # [n]
    noise: float


_TRAIN, _TEST = 6, 8


def _regression(noise, size=12):
    def setup(key, _):
        rng = generator(key)
        return _Regression(rng.normal(size=(_TRAIN + _TEST, size)), rng.normal(size=_TRAIN), noise)

    return setup


_condition = jax.jit(nngp.gp_condition)


def _posterior(problem):
    kernel = problem.features @ problem.features.T
    n = _TRAIN
    return _condition(kernel[:n, :n], kernel[n:, :n], kernel[n:, n:], problem.y, noise=problem.noise)


def _conditional(problem):
    posterior = _posterior(problem)
    index = np.arange(_TEST)
    return {"mean": Curve(posterior.mean, index), "variance": Curve(np.diag(posterior.covariance), index)}


def _from_precision(problem):
    """The conditional read off the inverse of the joint covariance."""
    kernel = problem.features @ problem.features.T + problem.noise * np.diag(np.arange(len(problem.features)) < _TRAIN)
    precision = np.linalg.inv(kernel)
    covariance = np.linalg.inv(precision[_TRAIN:, _TRAIN:])
    return {
        "mean": -covariance @ precision[_TRAIN:, :_TRAIN] @ problem.y,
        "variance": np.diag(covariance),
    }


def _ignoring_correlations(problem):
    kernel = problem.features @ problem.features.T
    cross, own = kernel[_TRAIN:, :_TRAIN], np.diag(kernel)
    return {
        "mean": cross @ (problem.y / own[:_TRAIN]),
        "variance": own[_TRAIN:] - np.sum(cross**2 / own[:_TRAIN], axis=1),
    }


def _weight_space(prior):
    """Bayesian linear regression on the features, weights N(0, prior I)."""

    def predict(problem):
        phi, phi_test = problem.features[:_TRAIN], problem.features[_TRAIN:]
        covariance = np.linalg.inv(phi.T @ phi / problem.noise + np.eye(phi.shape[1]) / prior)
        return {
            "mean": phi_test @ covariance @ phi.T @ problem.y / problem.noise,
            "variance": np.diag(phi_test @ covariance @ phi_test.T),
        }

    return predict


def _at_training_inputs(problem):
    kernel = problem.features[:_TRAIN] @ problem.features[:_TRAIN].T
    posterior = _condition(kernel, kernel, kernel, problem.y, noise=problem.noise)
    index = np.arange(_TRAIN)
    return {"mean": Curve(posterior.mean, index), "variance": Curve(np.diag(posterior.covariance), index)}


def _minimum_norm(problem):
    """Least squares of minimum norm in feature space, for fewer features than observations."""
    solution = np.linalg.lstsq(problem.features[:_TRAIN], problem.y, rcond=None)[0]
    return problem.features[_TRAIN:] @ solution


def _interlacing(problem):
    posterior = _posterior(problem)
    prior = np.sum(problem.features[_TRAIN:] ** 2, axis=1)
    variance = np.diag(np.asarray(posterior.covariance))
    return {
        "posterior / prior variance": Curve(variance / prior, np.arange(_TEST)),
        "minus posterior / prior variance, plus 1": Curve(1 - variance / prior, np.arange(_TEST)),
    }


# Wide networks that fit the data, by rejection.

_WIDTH, _SIGMA_W, _NOISE = 256, 2**0.5, 0.3
_TARGETS = np.array([1.0, 1.0])


def _accepted(draw):
    """Outputs at a third input of random ReLU networks that survive rejection by the likelihood of two observations."""
    rng = generator(draw.key)
    root = np.linalg.cholesky(_SIGMA_W**2 * gram(INPUTS))
    values = []
    for _ in range(10):
        hidden = rng.normal(size=(draw.budget // 10, _WIDTH, len(INPUTS))) @ root.T
        weights = rng.normal(size=hidden.shape[:2])
        f = _SIGMA_W / np.sqrt(_WIDTH) * np.einsum("nj,njx->nx", weights, np.maximum(hidden, 0))
        likelihood = np.exp(-np.sum((f[:, :2] - _TARGETS) ** 2, axis=1) / (2 * _NOISE))
        values.append(f[rng.uniform(size=len(f)) < likelihood, 2])
    value = np.concatenate(values)
    return {"mean": estimate(value[:, None], np.zeros(1)), "second moment": estimate(value[:, None] ** 2, np.zeros(1))}


def _network_posterior(scale):
    def predict(_):
        kernel = np.asarray(relu_kernel(INPUTS, _SIGMA_W))
        targets = scale * _TARGETS
        posterior = _condition(kernel[:2, :2], kernel[2:, :2], kernel[2:, 2:], targets, noise=_NOISE)
        return {"mean": posterior.mean, "second moment": posterior.mean**2 + jnp.diag(posterior.covariance)}

    return predict


CLAIMS = (
    Claim(
        id="nngp.gp_conditional",
        says="Mean and variance of the conditional are those read off the inverse of the joint covariance.",
        setup=_regression(0.0, size=20),
        measure=_conditional,
        predict=_from_precision,
        judge=Equal(rtol=1e-9, atol=1e-9),
        control=Variant("training values taken as uncorrelated", predict=_ignoring_correlations),
        axes=Axes("test input", "posterior"),
    ),
    Claim(
        id="nngp.gp_conditional",
        part="interpolation",
        says="Without noise, the mean at training inputs is the data and the variance is zero.",
        setup=_regression(0.0),
        measure=_at_training_inputs,
        predict=lambda problem: {"mean": problem.y, "variance": np.zeros(_TRAIN)},
        judge=Equal(rtol=1e-9, atol=1e-9),
        control=Variant("with observation noise", setup=_regression(0.1)),
        axes=Axes("training input", "posterior"),
    ),
    Claim(
        id="nngp.gp_conditional",
        part="weight_space",
        says="With a linear kernel and noise, it is Bayesian linear regression.",
        setup=_regression(0.5),
        measure=_conditional,
        predict=_weight_space(1.0),
        judge=Equal(rtol=1e-8, atol=1e-9),
        control=Variant("a prior of twice the variance", predict=_weight_space(2.0)),
        axes=Axes("test input", "posterior"),
    ),
    Claim(
        id="nngp.gp_conditional",
        part="singular",
        says="With a singular kernel and conflicting data, the pseudo-inverse gives the least-squares fit of minimum "
        "norm.",
        setup=_regression(0.0, size=3),
        measure=lambda problem: Curve(_posterior(problem).mean, np.arange(_TEST)),
        predict=_minimum_norm,
        judge=Equal(rtol=1e-8, atol=1e-9),
        control=Variant("half of the fit", predict=lambda problem: _minimum_norm(problem) / 2),
        axes=Axes("test input", "posterior mean"),
    ),
    Claim(
        id="nngp.gp_conditional",
        part="variance",
        says="Observations never raise a variance, nor make it negative.",
        setup=_regression(0.2),
        measure=_interlacing,
        predict=lambda _: 1.0,
        judge=AtMost(),
        control=Variant("half of the prior variance as the bound", predict=lambda _: 0.5),
        axes=Axes("test input", "ratio of variances"),
    ),
    Claim(
        id="nngp.gp_conditional",
        part="networks",
        says="Random wide networks that survive rejection by the likelihood of two noisy observations have the "
        "posterior mean and second moment of the Gaussian process.",
        measure=_accepted,
        predict=_network_posterior(1.0),
        judge=Mean(resolution=0.3, floor=0.1),
        control=Variant("observations of the opposite sign", predict=_network_posterior(-1.0)),
        budget=Budget(40_000, 800_000),
        axes=Axes("", "moment at the test input"),
    ),
)
