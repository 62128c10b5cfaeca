"""Steps of the samplers against NumPy with the same random numbers, and against blackjax; laws are for the claims."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.mcmc import integrators, metrics
from scipy import stats

from dltheory import samplers
from dltheory.samplers._positions import draw

KEY = jax.random.key(3)
PRECISION = np.array([[2.0, 0.6], [0.6, 1.0]])
X = {"a": np.array([0.7]), "b": np.array([-0.4])}
MASSES = [1.0, np.array([0.5, 2.0]), np.array([[1.0, 0.3], [0.3, 0.8]])]


def log_density(x):
    vector = jnp.concatenate([x["a"], x["b"]])
    return -vector @ jnp.asarray(PRECISION, vector.dtype) @ vector / 2 - jnp.sum(vector**4) / 4


def gradient(x):
    return -PRECISION @ x - x**3


def value(x):
    return -x @ PRECISION @ x / 2 - np.sum(x**4) / 4


def flat(x):
    return np.concatenate([x["a"], x["b"]])


def tree(x):
    return {"a": jnp.asarray(x[:1]), "b": jnp.asarray(x[1:])}


def dense(inverse_mass):
    return np.eye(2) * inverse_mass if np.ndim(inverse_mass) < 2 else inverse_mass


def leapfrog(x, y, step, num_steps, inverse_mass):
    for _ in range(num_steps):
        y = y + step / 2 * gradient(x)
        x = x + step * dense(inverse_mass) @ y
        y = y + step / 2 * gradient(x)
    return x, y


@pytest.mark.statement("samplers.hmc", "samplers.hmc_lift")
@pytest.mark.parametrize("inverse_mass", MASSES)
def test_leapfrog_is_the_loop_and_blackjax_and_goes_back(x64, inverse_mass):
    momentum = np.array([0.3, 1.1])
    end = samplers.leapfrog(log_density, X, tree(momentum), 0.1, 7, inverse_mass_matrix=inverse_mass)
    x, y = leapfrog(flat(X), momentum, 0.1, 7, inverse_mass)
    np.testing.assert_allclose(flat(end.position), x, rtol=1e-12)
    np.testing.assert_allclose(flat(end.momentum), y, rtol=1e-12)
    assert float(end.logdensity) == pytest.approx(value(x), rel=1e-12)
    energy = samplers.hamiltonian(log_density, end.position, end.momentum, inverse_mass_matrix=inverse_mass)
    assert float(energy) == pytest.approx(y @ dense(inverse_mass) @ y / 2 - value(x), rel=1e-12)
    back = samplers.leapfrog(log_density, end.position, end.momentum, -0.1, 7, inverse_mass_matrix=inverse_mass)
    np.testing.assert_allclose(flat(back.position), flat(X), atol=1e-12)

    kinetic = metrics.default_metric(jnp.asarray(np.diag(dense(inverse_mass)))).kinetic_energy
    if np.ndim(inverse_mass) < 2:
        one_step = jax.jit(integrators.velocity_verlet(log_density, kinetic))
        state = integrators.new_integrator_state(log_density, tree(flat(X)), tree(momentum))
        for _ in range(7):
            state = one_step(state, 0.1)
        np.testing.assert_allclose(flat(state.position), x, rtol=1e-10)


@pytest.mark.statement("samplers.hmc", "samplers.hmc_momentum")
@pytest.mark.parametrize("inverse_mass", MASSES)
def test_hmc_is_a_jittered_trajectory_and_an_acceptance(x64, inverse_mass):
    algorithm = samplers.hmc(log_density, 0.9, 4, inverse_mass_matrix=inverse_mass, jitter=0.3)
    step = jax.jit(algorithm.step)
    kinds = set()
    for key in jax.random.split(KEY, 12):
        state, info = step(key, algorithm.init(X))
        noise, (accept, length) = (np.asarray(part) for part in draw(key, 2, 2, jnp.float64))
        factor = np.linalg.cholesky(dense(inverse_mass))
        start = np.linalg.solve(factor.T, noise)
        x, y = leapfrog(flat(X), start, 0.9 * (1 - 0.3 * length), 4, inverse_mass)
        before, after = (p @ dense(inverse_mass) @ p / 2 - value(q) for p, q in ((start, flat(X)), (y, x)))
        assert float(info.energy_error) == pytest.approx(after - before, rel=1e-9, abs=1e-9)
        assert float(info.acceptance_rate) == pytest.approx(min(1, np.exp(before - after)), rel=1e-9)
        accepted = accept < min(1, np.exp(before - after))
        kinds.add(bool(accepted))
        np.testing.assert_allclose(flat(state.position), x if accepted else flat(X), rtol=1e-10)
        assert float(info.energy) == pytest.approx(after if accepted else before, rel=1e-9)
    assert kinds == {True, False}


@pytest.mark.statement("samplers.hmc")
def test_divergent_trajectories_are_rejected_and_said():
    algorithm = samplers.hmc(log_density, 1e3, 5)
    state, info = algorithm.step(KEY, algorithm.init(X))
    assert bool(info.is_divergent)
    assert not bool(info.is_accepted)
    assert float(info.acceptance_rate) == 0
    np.testing.assert_array_equal(flat(state.position), flat(X).astype(np.float32))


@pytest.mark.statement("samplers.hmc_mode_claim")
def test_a_trajectory_crosses_a_saddle_only_with_the_energy_for_it(x64):
    def wells(x):  # minima at -2 and 2, the saddle at 0
        return jnp.logaddexp(-((x - 2) ** 2) / 2, -((x + 2) ** 2) / 2)

    barrier = float(wells(jnp.array(2.0)) - wells(jnp.array(0.0)))
    below, above = np.linspace(0.2, 0.95, 8) * barrier, np.linspace(1.1, 3.0, 8) * barrier
    speeds = -jnp.sqrt(2 * np.concatenate([below, above]))
    path = jax.vmap(
        lambda y: jnp.stack([samplers.leapfrog(wells, jnp.array(2.0), y, 0.02, n).position for n in (100, 200, 300)])
    )
    lowest = np.asarray(jax.jit(path)(speeds)).min(axis=1)
    np.testing.assert_array_equal(lowest < 0, np.repeat([False, True], 8))


@pytest.mark.statement("samplers.ula")
def test_langevin_steps_are_normal_proposals_with_their_ratio(x64):
    eta = 0.3
    ula, mala = samplers.ula(log_density, eta), samplers.mala(log_density, eta)
    step = jax.jit(lambda key, state: (ula.step(key, ula.init(X))[0], *mala.step(key, state)))
    for key in jax.random.split(KEY, 6):
        unadjusted, adjusted, info = step(key, mala.init(X))
        noise, _ = draw(key, 2, 0, jnp.float64)
        x = flat(X)
        expected = x + eta * gradient(x) + np.sqrt(2 * eta) * np.asarray(noise)
        np.testing.assert_allclose(flat(unadjusted.position), expected, rtol=1e-10)
        noise, (uniform,) = draw(key, 2, 1, jnp.float64)
        new = x + eta * gradient(x) + np.sqrt(2 * eta) * np.asarray(noise)
        forward = stats.norm.logpdf(new, x + eta * gradient(x), np.sqrt(2 * eta)).sum()
        backward = stats.norm.logpdf(x, new + eta * gradient(new), np.sqrt(2 * eta)).sum()
        rate = min(1, np.exp(value(new) - value(x) + backward - forward))
        assert float(info.acceptance_rate) == pytest.approx(rate, rel=1e-9)
        np.testing.assert_allclose(flat(adjusted.position), new if uniform < rate else x, rtol=1e-10)


@pytest.mark.statement("samplers.sghmc", "samplers.langevin_noise_convention")
@pytest.mark.parametrize("integrator", ["euler", "baoab"])
def test_underdamped_steps_are_those_on_paper(x64, integrator):
    dt, friction, mass = 0.2, 0.7, np.array([2.0, 0.5])
    algorithm = samplers.underdamped_langevin(
        log_density, dt, friction, inverse_mass_matrix=jnp.asarray(1 / mass), integrator=integrator
    )
    state = algorithm.init(X)._replace(momentum=tree(np.array([0.4, -1.0])))
    x, y = flat(X), np.array([0.4, -1.0])
    step = jax.jit(algorithm.step)
    for key in jax.random.split(KEY, 3):
        state, _ = step(key, state)
        noise = np.asarray(draw(key, 2, 0, jnp.float64)[0])
        if integrator == "euler":
            y = y + dt * (gradient(x) - friction / mass * y) + np.sqrt(2 * friction * dt) * noise
            x = x + dt * y / mass
        else:
            y = y + dt / 2 * gradient(x)
            x = x + dt / 2 * y / mass
            kept = np.exp(-friction / mass * dt)
            y = kept * y + np.sqrt(mass * (1 - kept**2)) * noise
            x = x + dt / 2 * y / mass
            y = y + dt / 2 * gradient(x)
    np.testing.assert_allclose(flat(state.position), x, rtol=1e-10)
    np.testing.assert_allclose(flat(state.momentum), y, rtol=1e-10)


@pytest.mark.statement("samplers.metropolis_hastings")
def test_finite_chains_are_reversible_whatever_the_proposal(x64):
    rng = np.random.default_rng(0)
    log_pi, proposal = rng.normal(size=6), rng.dirichlet(np.ones(6), size=6)
    proposal[0, 1], proposal[0, 0] = 0.0, proposal[0, 0] + proposal[0, 1]  # 1 cannot be proposed at 0, but 0 at 1
    log_pi[5] = -np.inf
    pi = np.exp(log_pi)
    matrix = np.asarray(samplers.transition_matrix(log_pi, proposal))
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-14)
    assert (matrix >= -1e-15).all()
    np.testing.assert_allclose(pi[:, None] * matrix, (pi[:, None] * matrix).T, atol=1e-15)
    for i, j in itertools.permutations(range(5), 2):
        ratio = pi[j] * proposal[j, i] / (pi[i] * proposal[i, j]) if proposal[i, j] else 0
        assert matrix[i, j] == pytest.approx(proposal[i, j] * min(1, ratio), abs=1e-14)


@pytest.mark.statement("samplers.metropolis_hastings")
def test_acceptance_is_safe_at_infinities_and_in_the_tails():
    rate = samplers.acceptance_probability
    assert [float(rate(jnp.array(a), jnp.array(b))) for a, b in [(0, -jnp.inf), (0, jnp.nan), (0, jnp.inf)]] == [
        0,
        0,
        0,
    ]
    assert float(rate(jnp.array(-jnp.inf), jnp.array(0.0))) == 1
    assert float(rate(jnp.array(1e5), jnp.array(-1e5))) == 0
    assert float(rate(jnp.array(-1e5), jnp.array(1e5))) == 1


@pytest.mark.statement("samplers.metropolis_hastings")
def test_random_walk_takes_numbers_diagonals_and_factors(x64):
    factor = np.array([[0.5, 0.0], [0.3, 0.2]])
    for scale, matrix in ((0.4, 0.4 * np.eye(2)), (np.array([0.5, 0.2]), np.diag([0.5, 0.2])), (factor, factor)):
        algorithm = samplers.random_walk_metropolis(lambda x: 0.0 * jnp.sum(x["a"]), jnp.asarray(scale))
        state, info = algorithm.step(KEY, algorithm.init(X))
        assert float(info.acceptance_rate) == 1
        noise = np.asarray(draw(KEY, 2, 1, jnp.float64)[0])
        np.testing.assert_allclose(flat(state.position), flat(X) + matrix @ noise, rtol=1e-10)


@pytest.mark.statement("samplers.gibbs_distribution")
def test_the_evidence_of_a_conjugate_normal_is_the_integral(x64):
    y, variance, prior = np.array([0.4, 1.5, -0.2]), 0.5, 2.0
    f = samplers.potential(
        lambda t: jnp.sum(jax.scipy.stats.norm.logpdf(y, t, variance**0.5)),
        lambda t: jax.scipy.stats.norm.logpdf(t, 0, prior**0.5),
    )
    grid = np.linspace(-12, 12, 4001)
    evidence = np.exp(-np.asarray(jax.vmap(f)(grid))).sum() * (grid[1] - grid[0])
    covariance = variance * np.eye(3) + prior
    exact = np.exp(-y @ np.linalg.solve(covariance, y) / 2) / np.sqrt(np.linalg.det(2 * np.pi * covariance))
    assert evidence == pytest.approx(exact, rel=1e-10)
    assert np.isinf(samplers.potential(lambda t: jnp.nan * t, lambda t: t - jnp.inf)(jnp.array(0.0)))


@pytest.mark.statement("samplers.hmc_stochastic_gradient")
@pytest.mark.parametrize("replace", [True, False])
def test_minibatch_gradients_have_their_mean_and_variance(x64, replace):
    data, theta = np.random.default_rng(0).normal(size=5), jnp.array(0.4)
    likelihood = lambda t, x: -((x - jnp.sin(t)) ** 2) / 2  # noqa: E731
    settings = (lambda t: -(t**2) / 2, likelihood, data, 2, replace)
    plain, control = samplers.minibatch_score(*settings), samplers.control_variate_score(*settings)
    keys, n = jax.random.split(KEY, 20_000), 20_000
    estimates = np.asarray(jax.jit(jax.vmap(lambda key: plain.estimate(key, theta, ())))(keys))
    exact = float(-theta + np.sum((data - np.sin(theta)) * np.cos(theta)))
    variance = float(samplers.minibatch_score_variance(likelihood, theta, data, 2, replace))
    assert estimates.mean() == pytest.approx(exact, abs=5 * np.sqrt(variance / n))
    assert estimates.var() == pytest.approx(variance, rel=0.05)
    centred = jax.vmap(lambda key: control.estimate(key, theta, control.init(theta)))(keys[:8])
    np.testing.assert_allclose(centred, exact, rtol=1e-10)


BAD = {
    "a log density that is a vector": lambda: samplers.hmc(lambda x: x, 0.1, 2).init(jnp.ones(2)),
    "a log density of integers": lambda: samplers.ula(lambda x: jnp.array(1), 0.1).init(jnp.ones(2)),
    "integer positions": lambda: samplers.mala(jnp.sum, 0.1).init(jnp.arange(2)),
    "step size 0": lambda: samplers.hmc(jnp.sum, 0.0, 2),
    "no steps": lambda: samplers.hmc(jnp.sum, 0.1, 0),
    "jitter": lambda: samplers.hmc(jnp.sum, 0.1, 2, jitter=1.5),
    "friction": lambda: samplers.underdamped_langevin(jnp.sum, 0.1, -1.0),
    "integrator": lambda: samplers.underdamped_langevin(jnp.sum, 0.1, 1.0, integrator="verlet"),
    "negative mass": lambda: samplers.kinetic_energy(jnp.ones(2), inverse_mass_matrix=-1.0),
    "scale": lambda: samplers.random_walk_metropolis(jnp.sum, 0.0),
    "a proposal of another shape": lambda: _step_with_proposal(lambda key, x: x[:1]),
    "batch": lambda: samplers.minibatch_score(jnp.sum, jnp.dot, jnp.ones((3, 2)), 4, replace=False),
}
NAMES = ("log_density_fn", "log_density_fn", "position", "step_size", "num_steps", "jitter", "friction", "integrator")
NAMES += ("inverse_mass_matrix", "scale", "proposal_sample", "batch_size")


def _step_with_proposal(sample):
    algorithm = samplers.metropolis_hastings(jnp.sum, sample)
    return algorithm.step(KEY, algorithm.init(jnp.ones(2)))


@pytest.mark.parametrize(("what", "name"), list(zip(BAD, NAMES, strict=True)))
def test_bad_input_is_refused_by_name(what, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        BAD[what]()


def test_a_mass_matrix_that_is_not_positive_definite_gives_nan():
    y = samplers.sample_momentum(KEY, jnp.zeros(2), inverse_mass_matrix=jnp.array([[1.0, 2.0], [2.0, 1.0]]))
    assert np.isnan(y).all()
