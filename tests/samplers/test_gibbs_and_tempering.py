"""Gibbs samplers and parallel tempering, step by step; that they keep their laws is for test_invariance."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import samplers

KEY = jax.random.key(7)
RHO = 0.7


def normal_given(other):
    """Draws a standard normal number of correlation RHO with the block `other`."""

    def draw(key, position):
        return RHO * position[other] + (1 - RHO**2) ** 0.5 * jax.random.normal(key, dtype=position[other].dtype)

    return draw


NORMAL = {"a": normal_given("b"), "b": normal_given("a")}


def log_density(position):
    a, b = position["a"], position["b"]
    return -(a**2 - 2 * RHO * a * b + b**2) / (2 * (1 - RHO**2))


@pytest.mark.statement("samplers.metropolis_hastings")
def test_a_sweep_gives_each_block_the_newest_of_the_others(x64):
    algorithm = samplers.gibbs(NORMAL)
    state, info = algorithm.step(KEY, algorithm.init({"a": jnp.array(0.3), "b": jnp.array(-1.0)}))
    first, second = (float(jax.random.normal(key, dtype="float64")) for key in jax.random.split(KEY))
    a = -RHO + (1 - RHO**2) ** 0.5 * first
    assert float(state.position["a"]) == pytest.approx(a)
    assert float(state.position["b"]) == pytest.approx(RHO * a + (1 - RHO**2) ** 0.5 * second)
    assert info.blocks == {"a": (), "b": ()}


def lagged(algorithm, num_chains):
    """First coordinate at the start, drawn from the target, and after one step."""
    rng = np.random.default_rng(0)
    a, noise = rng.normal(size=(2, num_chains)).astype(np.float32)
    b = RHO * a + np.float32(np.sqrt(1 - RHO**2)) * noise
    start = jax.vmap(algorithm.init)({"a": jnp.asarray(a), "b": jnp.asarray(b)})
    end, info = jax.jit(jax.vmap(algorithm.step))(jax.random.split(KEY, num_chains), start)
    return a, np.asarray(end.position["a"]), info


def test_autocorrelations_are_those_of_the_scan():
    expected = {"systematic": RHO**2, "random": (1 + RHO**2) / 2}
    for scan, wrong in (("systematic", "random"), ("random", "systematic")):
        before, after, _ = lagged(samplers.gibbs(NORMAL, scan=scan), 20_000)
        products = before.astype(float) * after
        error = products.std() / np.sqrt(20_000)
        assert abs(products.mean() - expected[scan]) < 4 * error
        assert abs(products.mean() - expected[wrong]) > 8 * error


def test_a_random_scan_updates_one_block_and_says_which():
    kernel = samplers.block_kernel(log_density, "b", lambda f: samplers.random_walk_metropolis(f, 1.0))
    algorithm = samplers.gibbs({"a": NORMAL["a"], "b": kernel}, scan="random")
    before, after, info = lagged(algorithm, 2_000)
    np.testing.assert_array_equal(before != after, info.is_updated["a"])
    np.testing.assert_array_equal(np.asarray(info.is_updated["a"]), ~np.asarray(info.is_updated["b"]))
    assert abs(np.mean(info.is_updated["a"]) - 0.5) < 4 * 0.5 / np.sqrt(2_000)
    np.testing.assert_array_equal(info.blocks["b"].acceptance_rate > 0, info.is_updated["b"])


class Blocks(NamedTuple):
    mean: Any
    label: Any


def test_blocks_may_be_discrete_and_updates_any_sampler(x64):
    def density(position):
        return -((position[0] - 2.0 * position[1]) ** 2) / 2

    def label(key, position):
        odds = density(Blocks(position[0], 1)) - density(Blocks(position[0], 0))
        return jax.random.bernoulli(key, jax.nn.sigmoid(odds)).astype(position[1].dtype)

    start = Blocks(jnp.array(0.4), jnp.array(1))
    kernel = samplers.block_kernel(density, 0, lambda f: samplers.hmc(f, 0.3, 4))
    algorithm = samplers.gibbs([kernel, label])
    state, info = algorithm.step(KEY, algorithm.init(start))
    inner = samplers.hmc(lambda mean: -((mean - 2.0) ** 2) / 2, 0.3, 4)
    moved, expected = inner.step(jax.random.split(KEY)[0], inner.init(jnp.array(0.4)))
    assert isinstance(state.position, Blocks)
    assert isinstance(info.blocks, Blocks)
    assert float(state.position.mean) == pytest.approx(float(moved.position))
    assert float(info.blocks.mean.energy) == pytest.approx(float(expected.energy))


def still(log_density_fn, _beta):
    """A sampler that stays where it is, so that nothing but swaps happens."""
    return samplers.SamplingAlgorithm(
        lambda position: samplers.MetropolisState(position, log_density_fn(position)), lambda _, state: (state, ())
    )


BETAS = [1.0, 0.6, 0.3, 0.1, 0.0]


@pytest.mark.statement("samplers.hmc_mode_claim")
def test_swaps_are_metropolis_s_of_alternating_pairs(x64):
    def density(x):
        return -((x["x"] - 1) ** 2)

    def reference(x):
        return -(x["x"] ** 4)

    algorithm = samplers.parallel_tempering(density, still, BETAS, log_reference_fn=reference)
    x, index = np.array([1.9, 0.1, -0.5, 0.8, 3.0]), np.arange(5)
    state = algorithm.init({"x": jnp.array(0.0)})
    replicas = jax.vmap(lambda beta, x: samplers.MetropolisState({"x": x}, jnp.nan * x))(
        jnp.array(BETAS), jnp.asarray(x)
    )
    state = state._replace(replicas=replicas)

    def joint(x):
        """Log density of all replicas together."""
        return np.sum(np.array(BETAS) * -((x - 1) ** 2) - x**4)

    step, swaps = jax.jit(algorithm.step), set()
    for count, key in enumerate(jax.random.split(KEY, 12)):
        state, info = step(key, state)
        uniform = np.asarray(jax.random.uniform(jax.random.split(key)[1], (4,), "float64"))
        before = x.copy()
        for j in range(4):
            other = before.copy()
            other[[j, j + 1]] = other[[j + 1, j]]
            rate = min(1.0, np.exp(joint(other) - joint(before)))
            assert float(info.swap_acceptance_rate[j]) == pytest.approx(rate, rel=1e-9)
            swapped = j % 2 == count % 2 and uniform[j] < rate
            assert bool(info.is_swapped[j]) == swapped
            if swapped:
                swaps.add(j)
                x[[j, j + 1]], index[[j, j + 1]] = x[[j + 1, j]], index[[j + 1, j]]
        np.testing.assert_array_equal(state.replicas.position["x"], x)
        np.testing.assert_array_equal(state.replica_index, index)
        assert float(state.position["x"]) == x[0]
        np.testing.assert_allclose(state.replicas.logdensity, np.array(BETAS) * -((x - 1) ** 2) - x**4, rtol=1e-12)
    assert swaps == {0, 1, 2, 3}


def test_infinite_temperature_is_the_reference_even_where_the_likelihood_is_zero():
    def make(log_density_fn, _beta):
        return samplers.random_walk_metropolis(log_density_fn, 1.0)

    algorithm = samplers.parallel_tempering(
        lambda x: jnp.where(x > 0, -x, -jnp.inf), make, [1.0, 0.0], log_reference_fn=lambda x: -(x**2) / 2
    )
    state, info = jax.lax.scan(
        lambda s, key: algorithm.step(key, s), algorithm.init(jnp.array(1.0)), jax.random.split(KEY, 200)
    )
    assert np.isfinite(state.replicas.logdensity).all()
    np.testing.assert_array_equal(np.isfinite(info.swap_acceptance_rate), True)
    assert np.asarray(info.is_swapped).any()


BAD = {
    "conditionals": [
        lambda: samplers.gibbs({}),
        lambda: samplers.gibbs(NORMAL).init({"a": jnp.array(0.0)}),
        lambda: samplers.gibbs(NORMAL).init((jnp.array(0.0), jnp.array(0.0))),
        lambda: _sweep({"a": NORMAL["a"], "b": lambda key, position: jnp.zeros(2)}),
    ],
    "scan": [lambda: samplers.gibbs(NORMAL, scan="reverse")],
    "inverse_temperatures": [
        lambda: samplers.parallel_tempering(jnp.sum, still, [0.9, 0.5]),
        lambda: samplers.parallel_tempering(jnp.sum, still, [1.0, 0.5, 0.5]),
        lambda: samplers.parallel_tempering(jnp.sum, still, (1.0, -0.5)),
        lambda: samplers.parallel_tempering(jnp.sum, still, []),
    ],
    "log_density_fn": [lambda: samplers.parallel_tempering(lambda x: x, still, [1.0]).init(jnp.ones(2))],
}


def _sweep(conditionals):
    algorithm = samplers.gibbs(conditionals)
    return algorithm.step(KEY, algorithm.init({"a": jnp.array(0.0), "b": jnp.array(0.0)}))


@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in BAD.items() for call in calls])
def test_bad_input_is_refused_by_name(name, call):
    with pytest.raises(ValueError, match=f"`{name}`"):
        call()
