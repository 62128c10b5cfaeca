"""Settings and starts that once ran, or failed without naming what was wrong."""

import jax
import jax.numpy as jnp
import pytest

from dltheory import samplers

KEY = jax.random.key(0)


def normal(x):
    return -jnp.sum(x**2) / 2


def test_a_mesh_with_explicit_axes_spreads_the_chains():
    algorithm = samplers.random_walk_metropolis(normal, 1.0)
    mesh = jax.make_mesh((1,), ("chains",))
    spread = samplers.run(KEY, algorithm, jnp.zeros((2, 2)), 3, mesh=mesh)
    assert jnp.array_equal(spread.positions, samplers.run(KEY, algorithm, jnp.zeros((2, 2)), 3).positions)


def test_an_acceptance_rate_of_a_wider_dtype_keeps_that_of_the_step_size():
    search = samplers.dual_averaging()
    state = search.update(search.init(jnp.bfloat16(1)), jnp.float32(0.3))
    assert {leaf.dtype for leaf in state} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("step_size", [0.0, -1.0])
def test_dual_averaging_starts_from_positive_steps(step_size):
    with pytest.raises(ValueError, match="`step_size`"):
        samplers.dual_averaging().init(step_size)


def test_a_warm_up_cannot_begin_without_a_gradient():
    def make(step_size, _):
        return samplers.mala(lambda x: -jnp.sum(jnp.sqrt(x)), step_size)

    at_corner, inside = (samplers.warmup(KEY, make, jnp.full((2, 1), x), 20) for x in (0.0, 100.0))
    assert jnp.isnan(at_corner.step_size)
    assert jnp.all(jnp.isnan(at_corner.inverse_mass_matrix))
    assert jnp.isfinite(inside.step_size)


@pytest.mark.parametrize("friction", [[1.0, 1.0], "a", None])
def test_frictions_that_are_no_arrays_are_named(friction):
    with pytest.raises(ValueError, match="`friction`"):
        samplers.sghmc(samplers.exact_score(normal), 0.1, friction)
    with pytest.raises(ValueError, match="`friction`"):
        samplers.underdamped_langevin(normal, 0.1, friction)


@pytest.mark.parametrize(("split", "integrator"), [("aboba", "baoab"), ("euler", "euler")])
def test_negative_masses_give_nan(split, integrator):
    mass = jnp.array([1.0, -1.0])
    score = samplers.exact_score(normal)
    for algorithm in (
        samplers.sghmc(score, 0.1, 1.0, inverse_mass_matrix=mass, integrator=split),
        samplers.underdamped_langevin(normal, 0.1, 1.0, inverse_mass_matrix=mass, integrator=integrator),
    ):
        state, info = algorithm.step(KEY, algorithm.init(jnp.ones(2)))
        assert jnp.isnan(state.position).tolist() == [False, True]
        assert info.is_divergent


def test_numbers_of_16_bits_do_not_accept_what_is_impossible():
    def density(x):
        return jnp.where(x > 0, 0.0, -40.0).astype(jnp.bfloat16)

    algorithm = samplers.metropolis_hastings(density, lambda _, x: -x)
    start = algorithm.init(jnp.bfloat16(1))
    accepted = jax.vmap(lambda key: algorithm.step(key, start)[1].is_accepted)(jax.random.split(KEY, 4000))
    assert not jnp.any(accepted)  # with probability exp(-40) each; zeros among 16 bits made it 1 in 128


@pytest.mark.parametrize("make", [samplers.hmc, samplers.nuts])
def test_dense_masses_in_half_precision(make):
    settings = {"num_steps": 3} if make is samplers.hmc else {}
    mass = jnp.array([[1.0, 0.3], [0.3, 0.8]], jnp.bfloat16)
    algorithm = make(lambda x: -jnp.sum(x**2) / 2, 0.5, inverse_mass_matrix=mass, **settings)
    state, _ = algorithm.step(jax.random.key(0), algorithm.init(jnp.ones(2, jnp.bfloat16)))
    assert state.position.dtype == jnp.bfloat16
    assert bool(jnp.all(jnp.isfinite(state.position)))


@pytest.mark.parametrize("statistic", [samplers.rhat, samplers.ess_bulk, samplers.ess_mean, samplers.mcse_sd])
def test_draws_in_half_precision_are_judged_in_single(statistic):
    draws = jax.random.normal(jax.random.key(0), (4, 200)).astype(jnp.bfloat16)
    assert float(statistic(draws)) == pytest.approx(float(statistic(draws.astype(jnp.float32))), rel=1e-6)
