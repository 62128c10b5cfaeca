"""Diagnostics against ArviZ and against chains whose autocorrelation is known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats import base

from dltheory import samplers

PROBABILITY = 0.3
array_stats: Any = base.array_stats  # pyright: ignore[reportPrivateImportUsage]
OURS = {
    "rhat": samplers.rhat,
    "bulk": samplers.ess_bulk,
    "tail": samplers.ess_tail,
    "mean": samplers.ess_mean,
    "quantile": lambda x: samplers.ess_quantile(x, PROBABILITY),
    "error of the mean": samplers.mcse_mean,
    "error of the deviation": samplers.mcse_sd,
    "error of the quantile": lambda x: samplers.mcse_quantile(x, PROBABILITY),
}


def autoregressive(rng, chains, length, rho, shift=0.0):
    noise = rng.normal(size=(length, chains))
    x = [noise[0] / np.sqrt(1 - rho**2)]
    for row in noise[1:]:
        x.append(rho * x[-1] + row)
    return np.transpose(x) + shift * np.arange(chains)[:, None]


def theirs(x):
    axes: dict[str, Any] = {"chain_axis": 0, "draw_axis": 1}
    return {
        "rhat": array_stats.rhat(x, **axes),
        "bulk": array_stats.ess(x, method="bulk", **axes),
        "tail": array_stats.ess(x, method="tail", prob=(0.05, 0.95), **axes),
        "mean": array_stats.ess(x, method="mean", **axes),
        "quantile": array_stats.ess(x, method="quantile", prob=PROBABILITY, **axes),
        "error of the mean": array_stats.mcse(x, method="mean", **axes),
        # ArviZ divides by the effective size of the draws, the delta method by that of their squares.
        "error of the deviation": array_stats.mcse(x, method="sd", **axes)
        * np.sqrt(array_stats.ess(x, method="mean", **axes) / array_stats.ess(x, method="sd", **axes)),
        "error of the quantile": array_stats.mcse(x, method="quantile", prob=PROBABILITY, **axes),
    }


def test_equal_those_of_arviz(x64):
    rng, length = np.random.default_rng(0), 201
    quantities = np.stack(
        [
            autoregressive(rng, 4, length, 0.0),
            autoregressive(rng, 4, length, 0.9),
            autoregressive(rng, 4, length, -0.7),
            autoregressive(rng, 4, length, 0.5, shift=1.0),
            rng.standard_cauchy((4, length)),
            np.round(2 * rng.normal(size=(4, length))),
        ],
        axis=2,
    )
    ours = jax.jit(lambda x: {name: function(x) for name, function in OURS.items()})(jnp.asarray(quantities))
    for k in range(quantities.shape[2]):
        for name, expected in theirs(quantities[:, :, k]).items():
            assert ours[name][k] == pytest.approx(expected, rel=1e-6), (name, k)


def test_autocorrelation_and_energy_are_the_sums_of_their_definitions(x64):
    x = autoregressive(np.random.default_rng(1), 2, 9, 0.5)
    centred = x - x.mean(axis=1, keepdims=True)
    expected = [[row[: 9 - t] @ row[t:] / (row @ row) for t in range(9)] for row in centred]
    np.testing.assert_allclose(samplers.autocorrelation(x), expected, atol=1e-12)
    fraction = np.diff(x, axis=1) ** 2
    np.testing.assert_allclose(samplers.ebfmi(x), fraction.mean(axis=1) / x.var(axis=1, ddof=1), rtol=1e-12)


@pytest.mark.parametrize("rho", [0.8, -0.5])
def test_effective_sizes_are_those_of_autoregressive_chains(rho):
    draws = autoregressive(np.random.default_rng(2), 8, 20_000, rho).astype(np.float32)
    expected = draws.size * (1 - rho) / (1 + rho)
    assert float(samplers.ess_mean(draws)) == pytest.approx(expected, rel=0.1)
    assert float(samplers.mcse_mean(draws)) == pytest.approx(draws.std() / np.sqrt(expected), rel=0.06)


def test_chains_that_do_not_move_or_are_not_numbers():
    constant, stuck = np.ones((2, 8)), np.array([[0.0], [1.0]]) * np.ones((2, 8))
    assert np.isnan(samplers.rhat(constant))
    assert np.isinf(samplers.rhat(stuck))
    assert float(samplers.ess_mean(constant)) == 16
    assert float(samplers.mcse_mean(constant)) == 0
    broken = constant.copy()
    broken[0, 3] = np.nan
    assert all(np.isnan(function(broken)) for function in OURS.values())


def test_differences_in_spread_are_seen():
    rng = np.random.default_rng(3)
    assert float(samplers.rhat(rng.normal(size=(2, 400)) * np.array([[1.0], [3.0]]))) > 1.1
    assert float(samplers.rhat(rng.normal(size=(2, 400)))) < 1.02


@pytest.mark.parametrize("shape", [(4,), (0, 10), (4, 3), (1, 10)])
def test_too_few_draws_are_refused(shape):
    with pytest.raises(ValueError, match="`draws`"):
        samplers.rhat(np.ones(shape))
