"""Many chains: the loop against the loop written out, statistics against NumPy, devices against one device."""

import os
import subprocess
import sys
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import samplers
from dltheory.samplers import _loop, diagnostics

KEY = jax.random.key(5)
POSITIONS = {"a": np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(3, 2), "b": np.ones(3, np.float32)}


def log_density(x):
    return -jnp.sum(x["a"] ** 2) / 2 - jnp.cosh(x["b"])


def normal(x):
    return -jnp.sum(x**2) / 2


ALGORITHMS = {
    "hmc": samplers.hmc(log_density, 1.4, 3),
    "mala": samplers.mala(log_density, 0.8),
    "ula": samplers.ula(log_density, 0.3),
    "random walk": samplers.random_walk_metropolis(log_density, 1.5),
}


def written_out(key, algorithm, positions, num_steps):
    """Positions and infos of every step of every chain, one step at a time."""
    step = jax.jit(algorithm.step)
    chains = []
    for i, chain_key in enumerate(jax.random.split(key, len(jax.tree.leaves(positions)[0]))):
        state = algorithm.init(jax.tree.map(lambda leaf: leaf[i], positions))  # noqa: B023
        taken = []
        for t in range(num_steps):
            state, info = step(jax.random.fold_in(chain_key, t), state)
            taken.append((state.position, info))
        chains.append(jax.tree.map(lambda *leaves: np.stack(leaves), *taken))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *chains)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_is_the_loop_over_steps_and_chains(name):
    chains = jax.jit(lambda key: samplers.run(key, ALGORITHMS[name], POSITIONS, 6))(KEY)
    positions, infos = written_out(KEY, ALGORITHMS[name], POSITIONS, 6)
    close(chains.positions, positions)
    close(chains.infos, infos)
    close(chains.states.position, jax.tree.map(lambda leaf: leaf[:, -1], positions))
    assert jax.tree.map(lambda leaf: leaf.dtype, chains.infos) == jax.tree.map(lambda leaf: leaf.dtype, infos)


def close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), actual, expected)


def equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_thinning_leaves_draws_out_and_counts_what_it_leaves_out():
    algorithm = samplers.hmc(log_density, 1.9, 5, jitter=1.0, divergence_threshold=0.05)
    whole, thinned = jax.jit(
        lambda key: [samplers.run(key, algorithm, POSITIONS, 31, thinning=thinning) for thinning in (1, 5)]
    )(KEY)
    equal(thinned.positions, jax.tree.map(lambda leaf: leaf[:, 4:30:5], whole.positions))
    equal(thinned.infos.energy, whole.infos.energy[:, 4:30:5])
    for name in ("is_divergent", "is_accepted", "num_integration_steps"):
        single = np.asarray(getattr(whole.infos, name))[:, :30].reshape(3, 6, 5)
        equal(getattr(thinned.infos, name), single.sum(axis=2))
    assert 0 < int(thinned.infos.is_divergent.sum()) < 90
    assert int(thinned.infos.is_divergent.sum()) > int(whole.infos.is_divergent[:, 4:30:5].sum())


@pytest.mark.parametrize("num_steps", [6, 7, 8, 13])
def test_blocks_of_steps_do_not_show(num_steps, monkeypatch):
    algorithm = ALGORITHMS["mala"]
    whole = jax.jit(lambda key: samplers.run(key, algorithm, POSITIONS, num_steps))(KEY)
    monkeypatch.setattr(_loop, "_MOST", 4)
    equal(jax.jit(lambda key: samplers.run(key, algorithm, POSITIONS, num_steps))(KEY), whole)


def test_a_chain_depends_on_its_own_key_and_start_alone():
    algorithm = ALGORITHMS["random walk"]
    few = jax.tree.map(lambda leaf: leaf[:2], POSITIONS)
    three = jax.jit(lambda key: samplers.run(key, algorithm, POSITIONS, 9))(KEY)
    two = jax.jit(lambda key: samplers.run(key, algorithm, few, 5))(KEY)
    equal(two.positions, jax.tree.map(lambda leaf: leaf[:2, :5], three.positions))
    other = jax.jit(lambda key: samplers.run(key, algorithm, POSITIONS, 9))(jax.random.key(6))
    assert not np.array_equal(other.positions["b"], three.positions["b"])


def test_a_run_goes_on_from_its_states():
    chains = samplers.run(KEY, ALGORITHMS["hmc"], POSITIONS, 4)
    again = samplers.run(jax.random.key(6), ALGORITHMS["hmc"], chains.states.position, 4)
    equal(again.states._replace(position=None).logdensity.shape, (3,))
    restarted = jax.vmap(ALGORITHMS["hmc"].init)(chains.states.position)
    close(restarted.logdensity, chains.states.logdensity)


@pytest.mark.parametrize("num_steps", [8, 9, 1])
def test_statistics_are_those_of_the_draws(num_steps, x64):
    positions = jax.tree.map(lambda leaf: leaf.astype(np.float64), POSITIONS)
    algorithm = ALGORITHMS["mala"]

    def both(key):
        return (
            samplers.run(key, algorithm, positions, num_steps),
            samplers.run_statistics(key, algorithm, positions, num_steps, covariance=True),
        )

    chains, known = jax.jit(both)(KEY)
    draws = np.concatenate([chains.positions["a"], np.asarray(chains.positions["b"])[..., None]], axis=2)
    rows = draws.reshape(-1, 3)
    flat = lambda tree: np.concatenate([tree["a"], np.asarray(tree["b"])[..., None]], axis=-1)  # noqa: E731
    np.testing.assert_allclose(flat(known.mean), rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(flat(known.variance), rows.var(axis=0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(known.covariance, np.cov(rows.T), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(flat(known.chain_means), draws.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(known.acceptance_rate, np.mean(chains.infos.acceptance_rate, axis=1), rtol=1e-12)
    equal(known.num_divergent, np.zeros(3, int))
    equal(known.states, chains.states)
    if num_steps == 1:
        assert np.isnan(flat(known.rhat)).all()
        assert np.isnan(flat(known.chain_variances)).all()
        return
    np.testing.assert_allclose(flat(known.chain_variances), draws.var(axis=1, ddof=1), rtol=1e-12)
    halves = np.concatenate([draws[:, :4], draws[:, -4:]])
    expected = np.sqrt(3 / 4 + halves.mean(axis=1).var(axis=0, ddof=1) / halves.var(axis=1, ddof=1).mean(axis=0))
    np.testing.assert_allclose(flat(known.rhat), expected, rtol=1e-11)
    by_diagnostics = [diagnostics._rhat(diagnostics._split(jnp.asarray(draws[..., i]))) for i in range(3)]
    np.testing.assert_allclose(flat(known.rhat), by_diagnostics, rtol=1e-11)


class Told(NamedTuple):
    position: dict[str, jax.Array]


def telling(numbers):
    """A sampler whose chains draw rows of numbers [c, n, p] one after the other."""
    numbers = jnp.asarray(numbers)

    def init(position):
        return Told(position)

    def step(_key, state):
        chain, time = state.position["chain"], state.position["time"]
        x = jax.lax.dynamic_slice(numbers, (chain, time, 0), (1, 1, numbers.shape[2]))[0, 0]
        return Told({"chain": chain, "time": time + 1, "x": x}), ()

    starts = {"chain": np.arange(len(numbers)), "time": np.zeros(len(numbers), int), "x": numbers[:, 0]}
    return samplers.SamplingAlgorithm(init, step), starts


@pytest.mark.usefixtures("optimized")
def test_statistics_in_single_precision_far_from_zero():
    rng = np.random.default_rng(0)
    draws = (1e4 + rng.normal(size=(2, 30_000, 2)) + np.array([[[0.0, 0.0]], [[0.0, 0.05]]])).astype(np.float32)
    algorithm, starts = telling(draws)
    get = lambda position: position["x"]  # noqa: E731
    known = jax.jit(
        lambda key: samplers.run_statistics(key, algorithm, starts, draws.shape[1], quantity_fn=get, covariance=True)
    )(KEY)
    wide = draws.astype(np.float64)
    rows = wide.reshape(-1, 2)
    spacing = np.spacing(np.float32(1e4))
    np.testing.assert_allclose(known.chain_means, wide.mean(axis=1), atol=0.51 * spacing, rtol=0)
    np.testing.assert_allclose(known.mean, rows.mean(axis=0), atol=0.51 * spacing, rtol=0)
    np.testing.assert_allclose(known.variance, rows.var(axis=0, ddof=1), rtol=2e-6)
    np.testing.assert_allclose(known.chain_variances, wide.var(axis=1, ddof=1), rtol=2e-6)
    np.testing.assert_allclose(known.covariance, np.cov(rows.T), rtol=2e-6, atol=2e-6)
    with jax.enable_x64():
        rhat = [diagnostics._rhat(diagnostics._split(jnp.asarray(wide[..., i]))) for i in range(2)]
    np.testing.assert_allclose(known.rhat, rhat, rtol=1e-6)

    # The control: the textbook's update in the same precision, whose means stop moving.
    mean = np.zeros(2, np.float32)
    for t in range(draws.shape[1]):
        mean += (draws[0, t] - mean) / np.float32(t + 1)
    assert np.abs(mean - wide[0].mean(axis=0)).max() > 2 * spacing


def test_statistics_see_chains_that_disagree():
    algorithm = samplers.random_walk_metropolis(normal, 0.01)
    apart = jax.jit(lambda key: samplers.run_statistics(key, algorithm, jnp.array([-1.0, 1.0]), 50))(KEY)
    assert float(apart.rhat) > 2


BAD = {
    "`positions`": [
        lambda: samplers.run(KEY, ALGORITHMS["hmc"], jnp.zeros((0, 2)), 3),
        lambda: samplers.run(KEY, ALGORITHMS["hmc"], jnp.array(1.0), 3),
        lambda: samplers.run(KEY, ALGORITHMS["hmc"], {"a": jnp.ones((3, 2)), "b": jnp.ones(2)}, 3),
        lambda: samplers.run_statistics(KEY, ALGORITHMS["hmc"], {"a": jnp.ones((3, 2)), "b": jnp.ones(2)}, 3),
    ],
    "`position` must hold floating-point": [
        lambda: samplers.run(KEY, samplers.hmc(normal, 0.1, 2), jnp.ones((3, 2), int), 3)
    ],
    "`num_steps`": [
        lambda: samplers.run(KEY, ALGORITHMS["hmc"], POSITIONS, 0),
        lambda: samplers.run_statistics(KEY, ALGORITHMS["hmc"], POSITIONS, -1),
    ],
    "`thinning`": [
        lambda: samplers.run(KEY, ALGORITHMS["hmc"], POSITIONS, 3, thinning=0),
        lambda: samplers.run(KEY, ALGORITHMS["hmc"], POSITIONS, 3, thinning=4),
    ],
}


@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in BAD.items() for call in calls])
def test_bad_input_is_refused_by_name(name, call):
    with pytest.raises(ValueError, match=name):
        call()


@pytest.mark.parametrize("make", [samplers.mala, samplers.ula])
@pytest.mark.parametrize("run", [samplers.run, samplers.run_statistics])
def test_chains_that_start_where_nothing_is_finite_are_named(make, run):
    density = lambda x: jnp.where(x > 0, jnp.log(jnp.abs(x)) - x, -jnp.inf)  # noqa: E731
    starts = jnp.array([1.0, -1.0, 2.0, jnp.nan, 1.0])
    with pytest.raises(ValueError, match=r"`positions` start; they are not for 2 of 5 chains: 1, 3"):
        run(KEY, make(density, 0.1), starts, 3)
    infinite = lambda x: jnp.where(x > 0, jnp.inf, -(x**2))  # noqa: E731
    with pytest.raises(ValueError, match="1 of 2 chains: 0"):
        run(KEY, make(infinite, 0.1), jnp.array([1.0, -1.0]), 3)
    under_jit = jax.jit(lambda x: run(KEY, make(density, 0.1), x, 3))(starts)
    assert np.isnan(np.asarray(under_jit.states.position)[3])


@pytest.mark.parametrize("run", [samplers.run, samplers.run_statistics])
def test_chains_that_never_move_are_said(run):
    density = lambda x: jnp.where(jnp.abs(x - 1) < 1e-6, 0.0, -jnp.inf) + 0 * x  # noqa: E731
    both = lambda x: jnp.where(x > 0, density(x), -(x**2) / 2)  # noqa: E731
    with pytest.warns(RuntimeWarning, match="every one of the 5 steps was rejected or divergent in 1 of 2 chains: 1"):
        run(KEY, samplers.random_walk_metropolis(both, 0.1), jnp.array([-3.0, 1.0]), 5)
    steep = samplers.hmc(lambda x: -jnp.sum(x**4), 50.0, 3)
    with pytest.warns(RuntimeWarning, match=r"`run.*every one of the 4 steps .* 2 of 2 chains: 0, 1"):
        out = run(KEY, steep, jnp.ones((2, 1)), 4)
    divergent = out.infos.is_divergent.sum(axis=1) if run is samplers.run else out.num_divergent
    equal(divergent, [4, 4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.jit(lambda x: run(KEY, steep, x, 4))(jnp.ones((2, 1)))


def test_thinned_chains_that_never_move_are_said():
    steep = samplers.hmc(lambda x: -jnp.sum(x**4), 50.0, 3)
    with pytest.warns(RuntimeWarning, match="every one of the 6 steps"):
        samplers.run(KEY, steep, jnp.ones((2, 1)), 7, thinning=3)


def test_chains_that_are_lost_are_said():
    with pytest.warns(RuntimeWarning, match="`run`: the last position is not finite in 1 of 2 chains: 1"):
        samplers.run(KEY, samplers.ula(lambda x: x**4, 0.01), jnp.array([0.0, 9.0]), 8)


def test_progress_is_told_on_stderr_and_nothing_else(capfd, monkeypatch):
    algorithm = ALGORITHMS["ula"]
    jax.block_until_ready(jax.jit(lambda key: samplers.run(key, algorithm, POSITIONS, 40))(KEY))
    jax.effects_barrier()
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(_loop, "_SECONDS", 0.0)
    program = jax.jit(lambda key: samplers.run(key, algorithm, POSITIONS, 40, progress=True).positions)
    told = program(KEY)
    jax.block_until_ready(program(KEY))
    jax.effects_barrier()
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert 19 <= len(lines) <= 2 * 19  # callbacks may overtake one another
    assert any(line.startswith("draw 20 of 40: 0 s, about 0 s to go") for line in lines)
    equal(told, jax.jit(lambda key: samplers.run(key, algorithm, POSITIONS, 40))(KEY).positions)


def test_progress_is_told_at_most_once_a_second(capfd):
    samplers.run_statistics(KEY, ALGORITHMS["ula"], POSITIONS, 40, progress=True)
    jax.effects_barrier()
    assert len(capfd.readouterr().err.splitlines()) <= 3


def test_a_mesh_of_one_device_changes_nothing():
    mesh = jax.make_mesh((1,), ("anything",), axis_types=(jax.sharding.AxisType.Auto,))
    algorithm = ALGORITHMS["random walk"]
    alone = jax.jit(lambda key: samplers.run(key, algorithm, POSITIONS, 5))(KEY)
    equal(jax.jit(lambda key: samplers.run(key, algorithm, POSITIONS, 5, mesh=mesh))(KEY), alone)


_DEVICES = """
import warnings
import jax, jax.numpy as jnp, numpy as np
from dltheory import samplers

assert len(jax.devices()) == 8
auto = lambda n: dict(axis_types=(jax.sharding.AxisType.Auto,) * n)
mesh = jax.make_mesh((8,), ("devices",), **auto(1))
both = jax.make_mesh((2, 4), ("data", "chains"), **auto(2))
key, x = jax.random.key(3), jax.random.normal(jax.random.key(1), (16, 3))
design = jax.random.normal(jax.random.key(2), (40, 3))
close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
density = lambda x: -jnp.sum(jnp.logaddexp(0, design @ x)) - jnp.sum(x**2) / 2
# Steps of whole numbers are not rounded, so that all that devices could change is the random numbers.
walk = samplers.metropolis_hastings(
    lambda x: -jnp.sum(jnp.abs(x)), lambda key, x: x + jax.random.randint(key, x.shape, -2, 3).astype(x.dtype)
)
made = {
    "exact": walk,
    "hmc": samplers.hmc(density, 0.4, 3),
    "mala": samplers.mala(density, 0.1),
}
for (kind, algorithm), meshes in zip(made.items(), [(mesh, both), (mesh,), (both,)]):
    starts = jnp.round(x) if kind == "exact" else x
    both_ways = lambda key, x, m: (
        samplers.run(key, algorithm, x, 12, thinning=2, mesh=m),
        samplers.run_statistics(key, algorithm, x, 12, covariance=True, mesh=m),
    )
    one, *several = [jax.jit(lambda key, x, m=m: both_ways(key, x, m))(key, starts) for m in (None, *meshes)]
    for chains, known in several:
        assert len(chains.positions.sharding.device_set) == 8
        assert not chains.positions.sharding.is_fully_replicated
        jax.tree.map(np.testing.assert_array_equal if kind == "exact" else close, chains, one[0])
        jax.tree.map(close, known, one[1])
eager = samplers.run(key, algorithm, x, 12, thinning=2, mesh=mesh)
np.testing.assert_allclose(eager.positions, samplers.run(key, algorithm, x, 12, thinning=2).positions, rtol=1e-3)
jax.block_until_ready(samplers.run(key, algorithm, x, 12, progress=True, mesh=both))
for chains in (12, 4):
    try:
        samplers.run(key, algorithm, x[:chains], 2, mesh=mesh)
    except ValueError as error:
        assert "`mesh`" in str(error) and f"`positions` {chains} chains" in str(error), error
    else:
        raise AssertionError(chains)
print("fine")
"""


@pytest.mark.slow
def test_eight_devices_give_the_draws_of_one():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", _DEVICES], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["fine"], done.stdout + done.stderr
