"""Posteriors and predictions of networks, against conjugate linear regression, SciPy and scikit-learn."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from dltheory import networks, samplers

normal: Any = stats.multivariate_normal  # whose stubs know scalars only
their_brier_score: Any = brier_score_loss
RNG = np.random.default_rng(0)
X, X_NEW = RNG.normal(size=(7, 3)), RNG.normal(size=(4, 3))
Y, Y_NEW = RNG.normal(size=7), RNG.normal(size=4)
SCALE, NOISE = np.array([0.5, 1.0, 2.0]), 0.3
PRECISION = X.T @ X / NOISE + np.diag(SCALE**-2.0)
COVARIANCE = np.linalg.inv(PRECISION)
MEAN = COVARIANCE @ X.T @ Y / NOISE


def linear(params, x):
    return x @ params["w"]


def likelihood(outputs, targets):
    return samplers.gaussian_log_likelihood(outputs, targets, NOISE)


def exact_draws(chains, length):
    noise = np.random.default_rng(1).normal(size=(chains, length, 3))
    return {"w": MEAN + noise @ np.linalg.cholesky(COVARIANCE).T}


@pytest.mark.statement("samplers.gibbs_distribution")
def test_log_posterior_is_that_of_bayesian_linear_regression_up_to_the_evidence(x64):
    density = samplers.log_posterior(linear, X, Y, log_likelihood_fn=likelihood, prior_scale={"w": SCALE})
    evidence = normal.logpdf(Y, np.zeros(7), X @ np.diag(SCALE**2) @ X.T + NOISE * np.eye(7))
    with_scale_1 = samplers.log_posterior(linear, X, Y, log_likelihood_fn=likelihood)
    for w in RNG.normal(size=(3, 3)):
        expected = normal.logpdf(w, MEAN, COVARIANCE) + evidence
        assert float(density({"w": w})) == pytest.approx(expected, rel=1e-12)
        assert float(with_scale_1({"w": w})) != pytest.approx(expected, rel=1e-3)


def test_log_prior_takes_scales_of_leaves_and_of_whole_layers(x64):
    network = networks.MLP((5, 2), parametrization="standard", sigma_b=0.1)
    params = network.init(jax.random.key(0), X)
    by_layer = {"params": {"Dense_0": 0.5, "Dense_1": {"kernel": 2.0, "bias": np.array([0.1, 0.3])}}}
    leaves = params["params"]
    expected = sum(
        stats.norm.logpdf(np.asarray(leaf), scale=scale).sum()
        for leaf, scale in (
            (leaves["Dense_0"]["kernel"], 0.5),
            (leaves["Dense_0"]["bias"], 0.5),
            (leaves["Dense_1"]["kernel"], 2.0),
            (leaves["Dense_1"]["bias"], np.array([0.1, 0.3])),
        )
    )
    assert float(samplers.gaussian_log_prior(params, by_layer)) == pytest.approx(expected, rel=1e-12)
    for bad in ({"params": {"Dense_0": 0.5}}, np.ones(5), -1.0):
        with pytest.raises(ValueError, match="`scale`"):
            samplers.gaussian_log_prior(params, bad)


def test_likelihoods_are_those_of_scipy(x64):
    outputs, targets = RNG.normal(size=(2, 4, 3))
    expected = stats.norm.logpdf(targets, outputs, NOISE**0.5).sum()
    assert float(samplers.gaussian_log_likelihood(outputs, targets, NOISE)) == pytest.approx(expected, rel=1e-12)
    for label in range(3):
        ours = samplers.categorical_log_likelihood(outputs[0], label)
        assert float(ours) == pytest.approx(special.log_softmax(outputs[0])[label], rel=1e-12)
    assert np.isnan(samplers.categorical_log_likelihood(outputs[0], 3))


@pytest.mark.statement("samplers.hmc_stochastic_gradient")
def test_examples_add_up_to_the_posterior_of_all(x64):
    of_example = samplers.example_log_likelihood(linear, likelihood)
    log_prior = lambda params: samplers.gaussian_log_prior(params, {"w": SCALE})  # noqa: E731
    estimator = samplers.minibatch_score(log_prior, of_example, (X, Y), batch_size=7, replace=False)
    density = samplers.log_posterior(linear, X, Y, log_likelihood_fn=likelihood, prior_scale={"w": SCALE})
    w = RNG.normal(size=3)
    ours = estimator.estimate(jax.random.key(0), {"w": w}, ())["w"]
    np.testing.assert_allclose(ours, jax.grad(density)({"w": w})["w"], rtol=1e-12)
    np.testing.assert_allclose(ours, -PRECISION @ (w - MEAN), rtol=1e-9)


def test_targets_that_would_broadcast_are_refused():
    for y in (Y[:, None], Y[:3]):
        with pytest.raises(ValueError, match=r"`targets`|`y`"):
            samplers.log_posterior(linear, X, y, log_likelihood_fn=likelihood)({"w": MEAN})
    with pytest.raises(ValueError, match="`apply_fn`"):
        samplers.log_posterior(lambda w, x: linear(w, x[:2]), X, Y, log_likelihood_fn=likelihood)({"w": MEAN})


def test_predictions_are_those_of_bayesian_linear_regression():
    draws = exact_draws(4, 5_000)
    outputs = samplers.posterior_outputs(linear, draws, X_NEW, batch_size=3_000)
    np.testing.assert_allclose(outputs, draws["w"] @ X_NEW.T, atol=1e-4)
    total = outputs.shape[0] * outputs.shape[1]
    mean, epistemic = X_NEW @ MEAN, np.einsum("ni,ij,nj->n", X_NEW, COVARIANCE, X_NEW)
    moments = samplers.predictive_mean_and_variance(outputs, NOISE)
    assert np.all(np.abs(moments.mean - mean) < 5 * np.sqrt(epistemic / total))
    assert np.all(np.abs(moments.epistemic_variance - epistemic) < 5 * epistemic * np.sqrt(2 / total))
    np.testing.assert_allclose(moments.variance - moments.epistemic_variance, NOISE, rtol=1e-5)

    sd = np.sqrt(epistemic + NOISE)
    exact = stats.norm.logpdf(Y_NEW, mean, sd)
    each = stats.norm.pdf(Y_NEW, outputs, NOISE**0.5)
    error = each.std(axis=(0, 1)) / each.mean(axis=(0, 1)) / np.sqrt(total)
    density = samplers.log_predictive_density(outputs, Y_NEW, likelihood)
    assert np.all(np.abs(density - exact) < 5 * error)
    plugged_in = stats.norm.logpdf(Y_NEW, mean, NOISE**0.5)
    assert np.any(np.abs(plugged_in - exact) > 10 * error)
    cdf = samplers.predictive_cdf(outputs, Y_NEW, NOISE)
    assert np.all(np.abs(cdf - stats.norm.cdf(Y_NEW, mean, sd)) < 5 * 0.5 / np.sqrt(total))


def test_predictive_probabilities_and_densities_agree_and_do_not_underflow(x64):
    logits, labels = 3 * RNG.normal(size=(2, 50, 6, 3)), RNG.integers(0, 3, size=6)
    probabilities = samplers.predictive_probabilities(logits)
    np.testing.assert_allclose(probabilities, special.softmax(logits, axis=-1).mean(axis=(0, 1)), rtol=1e-12)
    density = samplers.log_predictive_density(logits, labels, samplers.categorical_log_likelihood)
    np.testing.assert_allclose(density, np.log(probabilities[np.arange(6), labels]), rtol=1e-12)
    far = samplers.log_predictive_density(np.full((1, 2, 1), 1e3), np.zeros(1), likelihood)
    np.testing.assert_allclose(far, stats.norm.logpdf(1e3, scale=NOISE**0.5), rtol=1e-12)


def test_distribution_function_without_noise_is_the_share_of_draws(x64):
    outputs = np.array([[[0.0], [1.0], [2.0], [4.0]]])
    for y, expected in ((3.0, 0.75), (-1.0, 0.0), (2.0, 0.625)):
        assert float(samplers.predictive_cdf(outputs, np.array([y]))[0]) == expected
        near = samplers.predictive_cdf(outputs, np.array([y]), 1e-20)
        assert float(near[0]) == pytest.approx(expected)


def test_calibration_of_classes_is_that_of_scikit_learn(x64):
    logits = 2 * RNG.normal(size=(300, 4))
    probabilities, labels = special.softmax(logits, axis=1), RNG.integers(0, 4, size=300)
    probabilities[:3] = [[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]  # on the edges of bins
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    accuracies, confidences = calibration_curve(correct, confidence, n_bins=8)
    curve = samplers.reliability_curve(probabilities, labels, num_bins=8)
    filled = np.asarray(curve.fraction) > 0
    np.testing.assert_allclose(curve.accuracy[filled], accuracies, rtol=1e-12)
    np.testing.assert_allclose(curve.confidence[filled], confidences, rtol=1e-12)
    assert not filled[0]
    assert np.isnan(curve.accuracy[0])
    expected = np.sum(np.asarray(curve.fraction)[filled] * np.abs(accuracies - confidences))
    ours = samplers.expected_calibration_error(probabilities, labels, num_bins=8)
    assert float(ours) == pytest.approx(expected, rel=1e-12)
    theirs = their_brier_score(labels, probabilities, labels=np.arange(4), scale_by_half=False)
    assert float(samplers.brier_score(probabilities, labels)) == pytest.approx(theirs, rel=1e-12)
    broken = np.where(np.arange(300) == 7, 4, labels)
    for function in (samplers.brier_score, samplers.expected_calibration_error):
        assert np.isnan(function(probabilities, broken))
        with pytest.raises(ValueError, match="`labels` must be integers"):
            function(probabilities, labels.astype(float))


def test_scores_are_best_for_the_truth_and_see_what_is_wrong():
    rng, n = np.random.default_rng(2), 40_000
    probabilities = rng.dirichlet(np.ones(3), size=n).astype(np.float32)
    labels = (rng.uniform(size=(n, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    sharper = probabilities**2 / np.sum(probabilities**2, axis=1, keepdims=True)
    error = lambda p: float(samplers.expected_calibration_error(p, labels))  # noqa: E731
    # Of a calibrated classifier: each bin's accuracy scatters by its own standard error.
    assert error(probabilities) < 5 * np.sqrt(15 / n / 4)
    assert error(sharper) > 0.05
    assert samplers.brier_score(probabilities, labels) < samplers.brier_score(sharper, labels)


def test_coverage_is_the_probability_of_the_interval_where_predictions_are_right():
    rng, n, p = np.random.default_rng(3), 20_000, np.array([0.1, 0.5, 0.9], np.float32)
    centre = rng.normal(size=n).astype(np.float32)
    y = centre + rng.normal(size=n).astype(np.float32)
    for variance, right in ((1.0, True), (0.5, False)):
        cdf = samplers.predictive_cdf(centre[None, None], y, variance)
        covered = np.asarray(samplers.interval_coverage(cdf, p))
        assert np.all(np.abs(covered - p) < 5 * np.sqrt(p * (1 - p) / n)) == right
        inside = [np.mean(np.abs(y - centre) <= stats.norm.ppf((1 + q) / 2) * variance**0.5) for q in p]
        np.testing.assert_allclose(covered, inside, atol=2e-4)
    assert np.isnan(samplers.interval_coverage(jnp.array([0.5, jnp.nan]), p)).all()


@pytest.mark.slow
@pytest.mark.statement("samplers.hmc", "samplers.gibbs_distribution")
def test_hamiltonian_chains_predict_as_bayesian_linear_regression():
    x, y, x_new = (np.asarray(array, np.float32) for array in (X, Y, X_NEW))
    density = samplers.log_posterior(linear, x, y, log_likelihood_fn=likelihood, prior_scale={"w": SCALE})
    start = {"w": np.zeros((8, 3), np.float32)}
    draws = samplers.run(jax.random.key(0), samplers.hmc(density, 0.15, 8), start, 2_000).positions
    outputs = samplers.posterior_outputs(linear, draws, x_new)[:, 100:]
    assert np.all(samplers.rhat(outputs) < 1.01)
    epistemic = np.einsum("ni,ij,nj->n", X_NEW, COVARIANCE, X_NEW)
    assert np.all(np.abs(outputs.mean(axis=(0, 1)) - X_NEW @ MEAN) < 5 * samplers.mcse_mean(outputs))
    assert np.all(np.abs(outputs.std(axis=(0, 1)) - epistemic**0.5) < 5 * samplers.mcse_sd(outputs))
    assert np.any(np.abs(outputs.mean(axis=(0, 1))) > 10 * samplers.mcse_mean(outputs))  # the prior's mean is refused
