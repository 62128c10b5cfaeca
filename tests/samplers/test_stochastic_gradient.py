"""Steps of the stochastic-gradient samplers against NumPy, and their stationary laws where these are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from dltheory import samplers
from dltheory.samplers._positions import draw

KEY = jax.random.key(5)
DATA = np.random.default_rng(0).normal(size=(6, 2))
X = {"a": np.array([0.7]), "b": np.array([-0.4])}


def flat(x):
    return np.concatenate([x["a"], x["b"]])


def log_prior(x):
    return -(x["a"][0] ** 4) / 4 - x["b"][0] ** 2 / 2


def log_likelihood(x, example):
    return -((example[0] - x["a"][0]) ** 2) / 2 - (example[1] - x["b"][0]) ** 2


BATCHES = samplers.minibatch_score(log_prior, log_likelihood, DATA, 2)
CENTRED = samplers.control_variate_score(log_prior, log_likelihood, DATA, 2)


def numbers(key, estimator, x, cache=()):
    """What a step draws: its estimate of the gradient as a function of the position, and its normal numbers."""
    key_gradient, key_noise = jax.random.split(key)

    def gradient(vector):
        position = {"a": jnp.asarray(vector[:1]), "b": jnp.asarray(vector[1:])}
        return flat(estimator.estimate(key_gradient, position, cache))

    return gradient, np.asarray(draw(key_noise, 2, 0, jnp.float64)[0])


@pytest.mark.statement("samplers.ula")
@pytest.mark.parametrize("estimator", [BATCHES, CENTRED])
def test_sgld_is_its_formula_with_steps_of_a_schedule(x64, estimator):
    algorithm = samplers.sgld(estimator, lambda count: 0.1 / (1 + count))
    state, x = algorithm.init(X), flat(X)
    cache = estimator.init(X)
    for count, key in enumerate(jax.random.split(KEY, 3)):
        state, info = algorithm.step(key, state)
        gradient, noise = numbers(key, estimator, x, cache)
        eta = 0.1 / (1 + count)
        x = x + eta * gradient(x) + np.sqrt(2 * eta) * noise
        assert float(info.step_size) == pytest.approx(eta)
        assert not bool(info.is_divergent)
    np.testing.assert_allclose(flat(state.position), x, rtol=1e-12)


@pytest.mark.statement("samplers.ula")
@pytest.mark.parametrize("adaptation", [None, 2])
def test_preconditioned_steps_are_rmsprop_s_and_stop_adapting(x64, adaptation):
    algorithm = samplers.psgld(BATCHES, 0.1, b2=0.6, eps=0.2, num_adaptation_steps=adaptation)
    state, x, v = algorithm.init(X), flat(X), np.zeros(2)
    for count, key in enumerate(jax.random.split(KEY, 4)):
        state, _ = algorithm.step(key, state)
        gradient, noise = numbers(key, BATCHES, x)
        if adaptation is None or count < adaptation:
            v = 0.6 * v + 0.4 * gradient(x) ** 2
        scale = 0.1 / (0.2 + np.sqrt(v))
        x = x + scale * gradient(x) + np.sqrt(2 * scale) * noise
    np.testing.assert_allclose(flat(state.position), x, rtol=1e-12)
    np.testing.assert_allclose(flat(state.second_moment), v, rtol=1e-12)


@pytest.mark.statement("samplers.sghmc", "samplers.langevin_noise_convention")
@pytest.mark.parametrize("integrator", ["aboba", "euler"])
def test_hamiltonian_steps_are_those_on_paper(x64, integrator):
    dt, friction, known, mass = 0.2, np.array([0.7, 1.1]), np.array([0.3, 0.2]), np.array([2.0, 0.5])
    settings = {"inverse_mass_matrix": jnp.asarray(1 / mass), "noise_estimate": jnp.asarray(known)}
    algorithm = samplers.sghmc(BATCHES, dt, jnp.asarray(friction), integrator=integrator, **settings)
    state, x, y = algorithm.init(X), flat(X), np.zeros(2)
    for key in jax.random.split(KEY, 3):
        state, _ = algorithm.step(key, state)
        gradient, noise = numbers(key, BATCHES, x)
        if integrator == "euler":
            y = y + dt * (gradient(x) - friction / mass * y) + np.sqrt(2 * (friction - known) * dt) * noise
            x = x + dt * y / mass
        else:
            x = x + dt / 2 * y / mass
            kept, kick = np.exp(-friction / mass * dt), dt / 2 * gradient(x)
            # The variance of dy = -(B/m) y dt + sqrt(2 (B - B')) dW after dt, started at a point.
            variance = 2 * (friction - known) * (1 - kept**2) / (2 * friction / mass)
            y = kept * (y + kick) + np.sqrt(variance) * noise + kick
            x = x + dt / 2 * y / mass
    np.testing.assert_allclose(flat(state.position), x, rtol=1e-12)
    np.testing.assert_allclose(flat(state.momentum), y, rtol=1e-12)


def noisy(variance, log_density):
    """The gradient with normal noise."""

    def estimate(key, position, _cache):
        return jax.grad(log_density)(position) + jnp.sqrt(variance) * jax.random.normal(key, dtype=position.dtype)

    return samplers.GradientEstimator(lambda _: (), estimate)


def endings(algorithm, starts, num_steps):
    """Last states of independent chains."""

    def chain(key, start):
        keys = jax.random.split(key, num_steps)
        return jax.lax.scan(lambda state, key: (algorithm.step(key, state)[0], None), algorithm.init(start), keys)[0]

    return jax.jit(jax.vmap(chain))(jax.random.split(KEY, len(starts)), jnp.asarray(starts))


def normal(x):
    return -(x**2) / 2


# Laws of linear recursions z <- A z + L u for a normal target: A and L of one step, column by column.


def sghmc_law(integrator, dt, friction, known, mass, variance):
    """Stationary covariance of position and momentum for f = x^2 / 2 and gradients of noise `variance`."""

    def step(x, y, force_noise, noise):
        if integrator == "euler":
            y = y + dt * (-x + force_noise - friction / mass * y) + np.sqrt(2 * (friction - known) * dt) * noise
            return x + dt * y / mass, y
        x = x + dt / 2 * y / mass
        kick, kept = dt / 2 * (-x + force_noise), np.exp(-friction / mass * dt)
        y = kept * (y + kick) + np.sqrt(mass * (1 - known / friction) * (1 - kept**2)) * noise + kick
        return x + dt / 2 * y / mass, y

    columns = np.array([step(*unit) for unit in np.eye(4)]).T
    transition, push = columns[:, :2], columns[:, 2:] @ np.diag([np.sqrt(variance), 1.0])
    covariance = np.zeros((2, 2))
    for _ in range(2000):
        covariance = transition @ covariance @ transition.T + push @ push.T
    return covariance


def within(samples, expected, errors=4.5):
    """Whether the mean of `samples` is `expected`, in standard errors."""
    return abs(samples.mean() - expected) < errors * samples.std() / np.sqrt(len(samples))


@pytest.mark.slow
@pytest.mark.statement("samplers.sghmc")
@pytest.mark.parametrize("integrator", ["aboba", "euler"])
def test_sghmc_has_the_law_of_its_linear_recursion(integrator):
    dt, friction, mass, variance = 0.2, 2.0, 2.5, 6.0
    known = dt * variance / 2
    starts = np.random.default_rng(1).normal(size=20_000)
    estimator = noisy(variance, normal)
    settings = {"inverse_mass_matrix": 1 / mass, "integrator": integrator}
    compensated = endings(samplers.sghmc(estimator, dt, friction, noise_estimate=known, **settings), starts, 150)
    law = sghmc_law(integrator, dt, friction, known, mass, variance)
    np.testing.assert_allclose(np.diag(law), [1, mass], rtol=0.12)  # the posterior's, up to the discretisation
    assert within(np.asarray(compensated.position, float) ** 2, law[0, 0])
    assert within(np.asarray(compensated.momentum, float) ** 2, law[1, 1])
    hot = endings(samplers.sghmc(estimator, dt, friction, **settings), starts, 150)
    law = sghmc_law(integrator, dt, friction, 0.0, mass, variance)
    assert law[0, 0] > 1.2
    assert within(np.asarray(hot.position, float) ** 2, law[0, 0])
    assert not within(np.asarray(hot.position, float) ** 2, 1.0)  # without the compensation the chain is too hot


@pytest.mark.statement("samplers.sghmc")
@pytest.mark.parametrize(("integrator", "order"), [("aboba", 2), ("euler", 1)])
def test_integrators_have_their_order(integrator, order):
    steps = np.array([0.1, 0.05, 0.025])
    errors = np.array([np.abs(sghmc_law(integrator, dt, 1.0, 0.0, 1.0, 0.0) - np.eye(2)) for dt in steps])
    slopes = np.diff(np.log(errors.max(axis=(1, 2)))) / np.diff(np.log(steps))
    np.testing.assert_allclose(slopes, order, atol=0.1)
    assert (errors[:, 0, 0].max() < 1e-12) == (integrator == "aboba")  # positions of a normal target


@pytest.mark.slow
@pytest.mark.statement("samplers.ula")
def test_preconditioning_without_gamma_is_invariant_only_once_frozen():
    def log_density(x):  # tails of |x|^3, so that the gradient's size varies
        return -(jnp.abs(x) ** 3) / 3

    eps, num_chains = 0.5, 20_000
    grid = np.linspace(-6, 6, 4001)
    density = np.exp(-(np.abs(grid) ** 3) / 3)
    square = (grid**2 * density).sum() / density.sum()
    tilted = density * (eps + grid**2)  # p / G for G = 1 / (eps + |grad log p|)
    tilted_square = (grid**2 * tilted).sum() / tilted.sum()
    cumulative = np.cumsum(density) / density.sum()
    rng = np.random.default_rng(2)
    starts = np.interp(rng.uniform(size=num_chains), cumulative, grid)
    # Without memory: the law of the equation without Gamma, not the target's.
    algorithm = samplers.psgld(samplers.exact_score(log_density), 0.01, b2=0.0, eps=eps)
    drifting = np.asarray(endings(algorithm, starts, 600).position, float) ** 2
    assert within(drifting, tilted_square, 6)
    assert not within(drifting, square, 6)
    # The same preconditioner, frozen after its first step.
    algorithm = samplers.psgld(samplers.exact_score(log_density), 0.01, b2=0.0, eps=eps, num_adaptation_steps=1)
    frozen = np.asarray(endings(algorithm, starts, 600).position, float) ** 2
    assert abs(frozen.mean() - square) < 0.02 * square + 4.5 * frozen.std() / np.sqrt(num_chains)


@pytest.mark.slow
@pytest.mark.statement("samplers.ula")
def test_sgld_has_the_normal_law_of_its_linear_recursion():
    eta, sigma, variance = 0.2, 1.3, 4.0
    estimator = noisy(variance, lambda x: -((x / sigma) ** 2) / 2)
    starts = np.random.default_rng(3).normal(size=20_000)
    ends = np.asarray(endings(samplers.sgld(estimator, eta), starts, 100).position, float)
    expected = sigma**2 * (1 + eta * variance / 2) / (1 - eta / (2 * sigma**2))
    assert stats.kstest(ends, "norm", args=(0, np.sqrt(expected))).pvalue > 1e-3
    assert stats.kstest(ends, "norm", args=(0, sigma / np.sqrt(1 - eta / (2 * sigma**2)))).pvalue < 1e-6


def wrong_estimate(_key, position, _cache):
    return position["a"]


BAD = {
    "step_size": lambda: samplers.sgld(BATCHES, -0.1),
    "friction": lambda: samplers.sghmc(BATCHES, 0.1, 0.0),
    "noise_estimate": lambda: samplers.sghmc(BATCHES, 0.1, 1.0, noise_estimate=1.5),
    "integrator": lambda: samplers.sghmc(BATCHES, 0.1, 1.0, integrator="baoab"),
    "b2": lambda: samplers.psgld(BATCHES, 0.1, b2=1.0),
    "eps": lambda: samplers.psgld(BATCHES, 0.1, eps=0.0),
    "num_adaptation_steps": lambda: samplers.psgld(BATCHES, 0.1, num_adaptation_steps=0),
    "position": lambda: samplers.sghmc(BATCHES, 0.1, 1.0).init(jnp.arange(3)),
    "estimator": lambda: _step(samplers.sgld(samplers.GradientEstimator(lambda _: (), wrong_estimate), 0.1)),
}


def _step(algorithm):
    return algorithm.step(KEY, algorithm.init(X))


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        BAD[name]()


def test_divergence_is_said():
    hot = samplers.sgld(samplers.exact_score(lambda x: -(x**4)), optax.constant_schedule(10.0))
    _, info = jax.lax.scan(lambda s, key: hot.step(key, s), hot.init(jnp.array(3.0)), jax.random.split(KEY, 9))
    assert bool(info.is_divergent[-1])
    assert not bool(info.is_divergent[0])
    algorithm = samplers.sghmc(BATCHES, 0.1, jnp.array(1.0), noise_estimate=jnp.array([0.5, 1.5]))
    assert bool(_step(algorithm)[1].is_divergent)  # more noise than friction
