"""Chains in ArviZ's form: the same draws in the same order under its names, and the same diagnostics."""

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import samplers
from dltheory.interop import arviz as interop


@pytest.fixture(scope="module")
def chains():
    algorithm = samplers.hmc(lambda p: -(p["scale"] ** 2) / 2 - jnp.sum(p["layer"]["w"] ** 2), 0.5, 3)
    start = {"layer": {"w": jnp.ones((4, 3, 2))}, "scale": jnp.ones(4)}
    return jax.jit(lambda key: samplers.run(key, algorithm, start, 50))(jax.random.key(0))


@pytest.fixture(scope="module")
def arviz() -> Any:
    return interop._library()


def test_chains_become_posterior_and_sample_stats(chains):
    data = interop.to_inference_data(chains)
    assert set(data.posterior.data_vars) == {"layer.w", "scale"}
    assert data.posterior["layer.w"].dims[:2] == ("chain", "draw")
    np.testing.assert_array_equal(data.posterior["layer.w"], chains.positions["layer"]["w"])
    np.testing.assert_array_equal(data.posterior["scale"], chains.positions["scale"])
    wanted = {"acceptance_rate", "accepted", "diverging", "energy", "energy_error", "n_steps"}
    assert set(data.sample_stats.data_vars) == wanted
    np.testing.assert_array_equal(data.sample_stats["energy"], chains.infos.energy)
    np.testing.assert_array_equal(data.sample_stats["n_steps"], chains.infos.num_integration_steps)
    assert data.sample_stats["diverging"].dtype == bool


def test_arviz_reads_it_and_agrees(chains, arviz, x64):
    # In double precision: where ties are to rounding, as of the two draws around a median, ranks would differ.
    positions = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), chains.positions)
    data, draws = interop.to_inference_data(positions), positions["layer"]["w"]
    np.testing.assert_allclose(arviz.rhat(data)["layer.w"], samplers.rhat(draws), rtol=1e-6)
    np.testing.assert_allclose(arviz.ess(data)["layer.w"], samplers.ess_bulk(draws), rtol=1e-6)
    shuffled = interop.to_inference_data(np.random.default_rng(0).permuted(draws, axis=1))
    assert not np.allclose(arviz.ess(shuffled)["x"], samplers.ess_bulk(draws), rtol=1e-2)


def test_thinned_draws_are_diverging_if_any_of_their_steps_was():
    infos = {"is_divergent": np.array([[0, 2, 1]]), "is_accepted": np.array([[4, 2, 3]])}
    stats = interop.to_inference_data(np.zeros((1, 3)), infos).sample_stats
    np.testing.assert_array_equal(stats["diverging"], [[False, True, True]])
    np.testing.assert_array_equal(stats["accepted"], infos["is_accepted"])


def test_plain_draws_with_further_groups():
    y, likelihood = np.arange(3.0), np.zeros((2, 5, 3))
    data = interop.to_inference_data(jnp.zeros((2, 5, 3)), log_likelihood={"y": likelihood}, observed_data={"y": y})
    assert data.posterior["x"].shape == (2, 5, 3)
    assert not hasattr(data, "sample_stats")
    assert data.log_likelihood["y"].dims[:2] == ("chain", "draw")
    np.testing.assert_array_equal(data.observed_data["y"], y)


@pytest.mark.parametrize(
    ("draws", "infos", "name"),
    [
        ({"a": np.zeros((2, 5)), "b": np.zeros((2, 6))}, None, "chains"),
        (np.zeros(5), None, "chains"),
        ({}, None, "chains"),
        (np.zeros((2, 5)), {"energy": np.zeros((2, 6))}, "infos"),
        ({"a": {"b": np.zeros((2, 5))}, "a.b": np.zeros((2, 5))}, None, "chains"),
    ],
)
def test_what_does_not_fit_is_refused(draws, infos, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        interop.to_inference_data(draws, infos)


def test_without_arviz_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match="pip install arviz"):
        interop.to_inference_data(jnp.zeros((2, 5)))


def test_arviz_is_imported_only_when_it_is_used():
    script = "import sys, dltheory.interop; assert 'arviz' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
