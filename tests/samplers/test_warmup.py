"""Adaptation against loops in NumPy, Stan's windows, blackjax, and targets whose scales are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.adaptation import step_size, window_adaptation

from dltheory import debug, samplers
from dltheory.samplers._moments import absorb, no_moments, shrunk_covariance
from dltheory.samplers.warmup import windows

KEY = jax.random.key(7)
SCALES = np.array([0.01, 1.0, 30.0])


def make_nuts(log_density_fn, step_size, inverse_mass_matrix):
    return samplers.nuts(log_density_fn, step_size, inverse_mass_matrix=inverse_mass_matrix)


def make_hmc(log_density_fn, step_size, inverse_mass_matrix):
    return samplers.hmc(log_density_fn, step_size, 3, inverse_mass_matrix=inverse_mass_matrix)


def test_dual_averaging_is_the_loop_of_its_paper_and_blackjax(x64):
    rates = np.random.default_rng(0).uniform(0, 1, 40)
    search = samplers.dual_averaging(0.7)
    state = search.init(jnp.array(0.2))
    init, update, _ = step_size.dual_averaging_adaptation(0.7)
    theirs = lagging = init(0.2)
    update, mine = jax.jit(update), jax.jit(search.update)
    error = average = 0.0
    for m, rate in enumerate(rates, start=1):
        error = (1 - 1 / (m + 10)) * error + (0.7 - rate) / (m + 10)
        log_step = np.log(10 * 0.2) - np.sqrt(m) / 0.05 * error
        average = m**-0.75 * log_step + (1 - m**-0.75) * average
        state, lagging = mine(state, rate), theirs
        theirs = update(theirs, rate)
        assert float(state.log_step_size) == pytest.approx(log_step, rel=1e-10)
        assert float(state.log_step_size_avg) == pytest.approx(average, rel=1e-10)
        assert float(theirs.log_step_size) == pytest.approx(log_step, rel=1e-10)
        assert float(theirs.avg_error) == pytest.approx(float(state.avg_error), rel=1e-10)
    # blackjax's average lags one update behind algorithm 5 of the paper.
    assert float(lagging.log_step_size_avg) != pytest.approx(average, rel=1e-3)


def test_dual_averaging_finds_the_step_size_of_a_known_rate():
    search = samplers.dual_averaging(0.8)
    rate = lambda log_step: jnp.exp(-jnp.exp(log_step))  # noqa: E731  0.8 at a step of log(1.25)
    state = jax.lax.fori_loop(
        0, 2000, lambda _, state: search.update(state, rate(state.log_step_size)), search.init(100.0)
    )
    assert float(jnp.exp(state.log_step_size_avg)) == pytest.approx(np.log(1.25), rel=0.05)


def test_windows_are_those_of_stan():
    # Stan's reference manual: of 1000 steps 75, then 25, 50, 100, 200 and 500, then 50.
    assert windows(1000) == (75, 25, 50, 100, 200, 500, 50)
    for num_steps in (20, 21, 99, 149, 150, 151, 170, 200, 275, 299, 300, 301, 324, 325, 500, 749, 750, 2000, 12345):
        before, *lengths, after = windows(num_steps)
        assert before + sum(lengths) + after == num_steps
        assert min(lengths) > 0
        theirs = np.asarray(window_adaptation.build_schedule(num_steps))
        ends = np.flatnonzero(theirs[:, 1]) + 1
        np.testing.assert_array_equal(before + np.cumsum(lengths), ends, err_msg=str(num_steps))
        np.testing.assert_array_equal(
            theirs[:, 0], np.repeat([0, 1, 0], [before, sum(lengths), after]), err_msg=str(num_steps)
        )


@pytest.mark.parametrize("dense", [False, True])
def test_running_moments_are_those_of_all_vectors_at_once(x64, dense):
    rng = np.random.default_rng(0)
    vectors = 1e4 + rng.normal(size=(7, 4, 3)) @ rng.normal(size=(3, 3))
    moments = functools.reduce(absorb, jnp.asarray(vectors), no_moments(3, jnp.float64, dense=dense))
    covariance = np.cov(vectors.reshape(-1, 3), rowvar=False)
    shrunk = 28 / 33 * covariance + 1e-3 * 5 / 33 * np.eye(3)
    np.testing.assert_allclose(shrunk_covariance(moments), shrunk if dense else np.diag(shrunk), rtol=1e-9)
    np.testing.assert_allclose(moments.mean, vectors.mean(axis=(0, 1)), rtol=1e-14)


def normal(x):
    return -jnp.sum((x / SCALES.astype(np.float32)) ** 2) / 2


@pytest.fixture(scope="module")
def tuned():
    run = jax.jit(lambda key, x: samplers.warmup(key, functools.partial(make_nuts, normal), x, 300))
    return run(KEY, jnp.ones((8, 3)))


def test_the_mass_matrix_is_the_covariance_and_the_step_size_meets_its_target(tuned):
    np.testing.assert_allclose(tuned.inverse_mass_matrix, SCALES**2, rtol=0.35)
    assert tuned.step_sizes.shape == (300,)
    assert tuned.infos.acceptance_rate.shape == (8, 300)
    assert 0.5 < float(tuned.step_size) < 1.5
    # Of the last steps, which are for the step size alone.
    assert float(jnp.mean(tuned.infos.acceptance_rate[:, -50:])) == pytest.approx(0.8, abs=0.1)
    assert int(jnp.max(tuned.infos.num_integration_steps[:, -30:])) <= 15


def test_the_first_step_sizes_double_or_halve_until_the_rate_crosses(tuned):
    steps, rates = np.asarray(tuned.step_sizes), np.asarray(tuned.infos.acceptance_rate).mean(axis=0)
    above = rates > 0.8
    crossing = int(np.argmax(above != above[0]))
    np.testing.assert_allclose(steps[1 : crossing + 1] / steps[:crossing], 2.0 if above[0] else 0.5, rtol=1e-4)
    assert crossing >= 5  # from 1 to about 0.01


def test_dense_masses_see_correlations(x64):
    covariance = np.array([[1.0, 0.99], [0.99, 1.0]])
    precision = np.linalg.inv(covariance)
    make = functools.partial(make_hmc, lambda x: -x @ precision @ x / 2)
    run = jax.jit(lambda key, x: samplers.warmup(key, make, x, 200, dense=True))
    found = run(KEY, jnp.ones((16, 2)))
    np.testing.assert_allclose(found.inverse_mass_matrix, covariance, atol=0.25)
    assert float(found.step_size) > 0.5
    assert found.step_size.dtype == jnp.float64


def test_samplers_without_a_mass_matrix_find_their_step_size():
    make = lambda step_size, _: samplers.mala(lambda x: -jnp.sum(x**2) / 2, step_size)  # noqa: E731
    run = jax.jit(lambda key, x: samplers.warmup(key, make, x, 400, target_acceptance_rate=0.574))
    found = run(KEY, jnp.ones((16, 10)))
    rate = float(jnp.mean(found.infos.acceptance_rate[:, -50:]))
    assert rate == pytest.approx(0.574, abs=0.06)


def test_a_start_without_density_is_nan_and_said():
    make = functools.partial(make_hmc, lambda x: jnp.sum(jnp.log(x)) - jnp.sum(x))
    run = lambda x: samplers.warmup(KEY, make, x, 20)  # noqa: E731
    start = jnp.array([[1.0], [-1.0]])
    found = jax.jit(run)(start)
    assert np.isnan(found.step_size)
    assert np.isnan(found.inverse_mass_matrix).all()
    with pytest.raises(ValueError, match="`positions` must have a finite log density"):
        debug.checked(jax.jit(run))(start)


MAKE = functools.partial(make_nuts, lambda x: -jnp.sum(x**2) / 2)
BAD = {
    "no chains": ("positions", lambda: samplers.warmup(KEY, MAKE, jnp.ones((0, 2)), 100)),
    "one position": ("positions", lambda: samplers.warmup(KEY, MAKE, jnp.array(1.0), 100)),
    "integers": ("positions", lambda: samplers.warmup(KEY, MAKE, jnp.ones((2, 2), int), 100)),
    "too few steps": ("num_steps", lambda: samplers.warmup(KEY, MAKE, jnp.ones((2, 2)), 19)),
    "target": (
        "target_acceptance_rate",
        lambda: samplers.warmup(KEY, MAKE, jnp.ones((2, 2)), 100, target_acceptance_rate=1.0),
    ),
    "first step": ("initial_step_size", lambda: samplers.warmup(KEY, MAKE, jnp.ones((2, 2)), 100, initial_step_size=0)),
    "no rate": ("make", lambda: samplers.warmup(KEY, lambda s, _: samplers.ula(jnp.sum, s), jnp.ones((2, 2)), 100)),
    "gamma": ("gamma", lambda: samplers.dual_averaging(gamma=0.0)),
    "t0": ("t0", lambda: samplers.dual_averaging(t0=-1.0)),
    "kappa": ("kappa", lambda: samplers.dual_averaging(kappa=0.5)),
    "rate of chains": ("acceptance_rate", lambda: MEAN.update(MEAN.init(1.0), jnp.ones(2))),
}
MEAN = samplers.dual_averaging()


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_by_name(what):
    name, call = BAD[what]
    with pytest.raises(ValueError, match=f"`{name}`"):
        call()
