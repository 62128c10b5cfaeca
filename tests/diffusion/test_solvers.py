"""Steps against NumPy with the same noise, orders against the exact flow, and laws against exact samples."""

# NumPy arrays stand in for JAX arrays throughout.
# pyright: reportArgumentType=false, reportOptionalCall=false

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from dltheory import diffusion
from dltheory.diffusion import solvers
from experiments.curves import Curve
from experiments.judges import fit_slope

KEY = jax.random.key(4)
RNG = np.random.default_rng(5)
X = np.array([0.7, -0.4, 1.9])
NOISE = RNG.normal(size=(3, 3))
WEIGHTS, MEANS, STDS = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.5, 0.4])
VP = diffusion.vp_sde(0.1, 8.0)
REVERSE = pytest.mark.statement("sde.reverse")
FORWARD = pytest.mark.statement("sde.forward")


def mixture():
    """The data, in the precision of the test."""
    return diffusion.GaussianMixture(*map(jnp.asarray, (np.log(WEIGHTS), MEANS[:, None], STDS[:, None] ** 2)))


def score_fn(x, t):
    """Score of the mixture at a time of the equation, entry by entry."""
    law = diffusion.diffused(mixture(), *VP.marginal_prob(jnp.ones(()), t))
    return jax.vmap(lambda x: diffusion.mixture_score(law, x[None])[0])(x.ravel()).reshape(x.shape)


REVERSED = diffusion.reverse_sde(VP, score_fn)
FLOW = diffusion.probability_flow(VP, score_fn)


def drift(x, t):
    return np.sin(x) - t * x


def diffusion_of(t):
    return 1 + t**2


EQUATION = diffusion.Sde(lambda x, t: jnp.sin(x) - t * x, diffusion_of, -1)


def euler(x, t, s, xi):
    return x + drift(x, t) * (s - t) + diffusion_of(t) * np.sqrt(abs(s - t)) * xi


def heun(x, t, s, xi):
    ahead = euler(x, t, s, xi)
    noise = (diffusion_of(t) + diffusion_of(s)) / 2 * np.sqrt(abs(s - t)) * xi
    return x + (drift(x, t) + drift(ahead, s)) / 2 * (s - t) + noise


@FORWARD
@pytest.mark.parametrize(("make", "step"), [(diffusion.euler_maruyama, euler), (diffusion.heun, heun)])
def test_solutions_are_the_loop(x64, make, step):
    times = np.array([1.0, 0.7, 0.6, 0.2])
    x = X
    for t, s, key in zip(times, times[1:], jax.random.split(KEY, 3), strict=False):
        x = step(x, t, s, np.asarray(jax.random.normal(key, (1, 3), float))[0])
    np.testing.assert_allclose(diffusion.solve(KEY, make(EQUATION), X, times), x, rtol=1e-12)


@FORWARD
@REVERSE
def test_times_in_the_wrong_direction_give_nan():
    falling, x = jnp.linspace(1.0, 0.0, 4), jnp.asarray(X, jnp.float32)
    flow = diffusion.Sde(EQUATION.drift, None, 0)
    for equation, good in ((EQUATION, falling), (VP, falling[::-1])):
        for make in (diffusion.euler_maruyama, diffusion.heun):
            assert np.all(np.isfinite(diffusion.solve(KEY, make(equation), x, good)))
            assert np.all(np.isnan(diffusion.solve(KEY, make(equation), x, good[::-1])))
    for times in (falling, falling[::-1]):
        assert np.all(np.isfinite(diffusion.solve(None, diffusion.heun(flow), x, times)))
    assert np.all(np.isnan(diffusion.solve(None, diffusion.heun(flow), x, jnp.array([1.0, 0.5, 0.7]))))


@REVERSE
def test_exponential_integrator_is_ddim_and_the_heun_method_in_sigma(x64):
    t, s = 0.8, 0.5
    (a, std), (b, next_std) = ([float(v) for v in VP.marginal_prob(jnp.ones(()), time)] for time in (t, s))
    noise = -std * np.asarray(score_fn(jnp.asarray(X), t))
    ddim = b * (X - std * noise) / a + next_std * noise  # in the variables of DDIM: the clean sample, noised again
    step = diffusion.exponential_integrator(VP, score_fn, order=1).step
    np.testing.assert_allclose(step(X, jnp.asarray(t), jnp.asarray(s), NOISE[:0]), ddim, rtol=1e-12)

    ve = diffusion.ve_sde(0.1, 5.0)
    sigma = [float(ve.marginal_prob(jnp.ones(()), time)[1]) for time in (t, s)]

    def denoised(x, sigma):  # of data N(0, 4)
        return x * 4 / (4 + sigma**2)

    slope = (X - denoised(X, sigma[0])) / sigma[0]
    ahead = X + (sigma[1] - sigma[0]) * slope
    expected = X + (sigma[1] - sigma[0]) * (slope + (ahead - denoised(ahead, sigma[1])) / sigma[1]) / 2
    second = diffusion.exponential_integrator(ve, lambda x, t: -x / (4 + ve.marginal_prob(jnp.ones(()), t)[1] ** 2))
    np.testing.assert_allclose(second.step(X, jnp.asarray(t), jnp.asarray(s), NOISE[:0]), expected, rtol=1e-12)


@REVERSE
@pytest.mark.parametrize("order", [1, 2])
def test_one_exponential_step_is_exact_for_data_in_a_point(x64, order):
    def to_point(x, t):
        scale, std = VP.marginal_prob(jnp.ones(()), t)
        return -(x - scale * 3.0) / std**2

    solver = diffusion.exponential_integrator(VP, to_point, order)
    scale, std = VP.marginal_prob(jnp.ones(()), 0.1)
    start_scale, start_std = VP.marginal_prob(jnp.ones(()), 1.0)
    expected = scale * 3.0 + std * (X - start_scale * 3.0) / start_std
    np.testing.assert_allclose(solver.step(X, jnp.asarray(1.0), jnp.asarray(0.1), NOISE[:0]), expected, rtol=1e-12)
    euler = diffusion.euler_maruyama(diffusion.probability_flow(VP, to_point))
    assert np.max(np.abs(euler.step(X, jnp.asarray(1.0), jnp.asarray(0.1), NOISE[:0]) - expected)) > 0.5


@REVERSE
@pytest.mark.statement("score.annealed_langevin")
def test_corrections_are_langevin_steps_of_the_new_time(x64):
    t, s = jnp.asarray(0.8), jnp.asarray(0.5)
    predictor = diffusion.euler_maruyama(REVERSED)
    corrected = diffusion.predictor_corrector(predictor, VP, score_fn, 2, signal_to_noise=0.2)
    x = np.asarray(predictor.step(jnp.asarray(X), t, s, jnp.asarray(NOISE[:1])))
    size = 2 * (0.2 * float(VP.marginal_prob(jnp.ones(()), s)[1])) ** 2
    for xi in NOISE[1:]:
        x = x + size * np.asarray(score_fn(jnp.asarray(x), s)) + np.sqrt(2 * size) * xi
    np.testing.assert_allclose(corrected.step(X, t, s, jnp.asarray(NOISE)), x, rtol=1e-12)
    assert (corrected.num_noises, corrected.time_direction) == (3, -1)
    none = diffusion.predictor_corrector(predictor, VP, score_fn, 0)
    np.testing.assert_allclose(none.step(X, t, s, NOISE[:1]), predictor.step(X, t, s, NOISE[:1]), rtol=1e-12)


@pytest.mark.statement("score.annealed_langevin")
def test_annealed_langevin_is_the_loop(x64):
    sigmas, x = np.array([2.0, 0.5]), X
    for sigma, key in zip(np.repeat(sigmas, 2), jax.random.split(KEY, 4), strict=True):
        size = 0.3 * sigma**2
        noise = np.asarray(jax.random.normal(key, (3,), float))
        x = x - size * np.tanh(x) / (1 + sigma**2) + np.sqrt(2 * size) * noise
    out = diffusion.annealed_langevin(KEY, lambda x, sigma: -jnp.tanh(x) / (1 + sigma**2), X, sigmas, 2, 0.3)
    np.testing.assert_allclose(out, x, rtol=1e-12)


@REVERSE
def test_a_batch_is_one_sample_of_a_larger_shape(x64):
    batch = RNG.normal(size=(4, 3))
    solvers = [
        diffusion.euler_maruyama(REVERSED),
        diffusion.heun(REVERSED),
        diffusion.exponential_integrator(VP, score_fn),
        diffusion.predictor_corrector(diffusion.euler_maruyama(FLOW), VP, score_fn),
    ]
    t, s = jnp.asarray(0.8), jnp.asarray(0.5)
    for solver in solvers:
        noise = RNG.normal(size=(solver.num_noises, 4, 3))
        rows = jax.vmap(solver.step, in_axes=(0, None, None, 1))(batch, t, s, noise)
        np.testing.assert_allclose(solver.step(jnp.asarray(batch), t, s, jnp.asarray(noise)), rows, rtol=1e-12)


def mixture_cdf(x, t):
    scale, std = (float(v) for v in VP.marginal_prob(jnp.ones(()), t))
    return WEIGHTS @ stats.norm.cdf(x, scale * MEANS, np.sqrt((scale * STDS) ** 2 + std**2))


def exact_flow(x, start, stop):
    """On the line the flow keeps the order of points, so that it maps quantiles to quantiles."""
    return optimize.brentq(lambda y: mixture_cdf(y, stop) - mixture_cdf(x, start), -20, 20, xtol=1e-13)


FLOW_SOLVERS = {
    "Euler": (diffusion.euler_maruyama(FLOW), 1),
    "Heun": (diffusion.heun(FLOW), 2),
    "exponential, first order": (diffusion.exponential_integrator(VP, score_fn, 1), 1),
    "exponential, second order": (diffusion.exponential_integrator(VP, score_fn, 2), 2),
}
WRONG_FLOWS = {
    "sign flipped": diffusion.heun(diffusion.probability_flow(VP, lambda x, t: -score_fn(x, t))),
    "time reversed": diffusion.heun(diffusion.Sde(lambda x, t: FLOW.drift(x, 1 - t), None, 0)),
}


NUMBERS = np.array([91, 128, 181, 256, 362])


def flow_errors(solver):
    """Of the ends of the flow from some points, by the number of steps."""
    starts, none = np.array([-1.5, -0.2, 0.4, 1.6]), np.zeros((0, 4))
    exact = np.array([exact_flow(x, 1.0, 0.0) for x in starts])
    step, errors = jax.jit(solver.step), []  # one program for time grids of every length
    for n in NUMBERS:
        x = jnp.asarray(starts)
        for time, next_time in itertools.pairwise(np.linspace(1.0, 0.0, n + 1)):
            x = step(x, time, next_time, none)
        errors.append(np.max(np.abs(np.asarray(x) - exact)))
    return Curve(np.array(errors), NUMBERS.astype(float))


@REVERSE
@pytest.mark.parametrize("name", FLOW_SOLVERS)
def test_solvers_reach_the_exact_flow_at_their_orders(x64, name):
    solver, order = FLOW_SOLVERS[name]
    slope, _, error = fit_slope(flow_errors(solver))
    assert slope == pytest.approx(-order, abs=0.1)
    assert error < 0.03


@REVERSE
@pytest.mark.parametrize("name", WRONG_FLOWS)
def test_wrong_flows_do_not_converge(x64, name):
    slope, _, _ = fit_slope(flow_errors(WRONG_FLOWS[name]))
    assert slope > -0.5


def energy_distances(x, y, num_blocks=50):
    """Unbiased estimates of the energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'|, one from each block of samples."""

    def one(x, y):
        n = len(x)
        within = [np.sum(np.abs(z[:, None] - z)) / (n * (n - 1)) for z in (x, y)]
        return 2 * np.mean(np.abs(x[:, None] - y)) - sum(within)

    return np.array([one(*pair) for pair in zip(np.split(x, num_blocks), np.split(y, num_blocks), strict=True)])


FORTH_AND_BACK = {
    "reverse": (REVERSED, True),
    "half the noise": (diffusion.reverse_sde(VP, score_fn, noise_scale=0.5), True),
    "sign flipped": (diffusion.reverse_sde(VP, lambda x, t: -score_fn(x, t)), False),
    "time reversed": (
        diffusion.Sde(lambda x, t: REVERSED.drift(x, 1 - t), lambda t: REVERSED.diffusion(1 - t), -1),
        False,
    ),
    "no score": (diffusion.reverse_sde(VP, lambda x, t: 0 * x), False),
}


@FORWARD
@REVERSE
@pytest.mark.parametrize("name", FORTH_AND_BACK)
def test_forward_then_reverse_is_the_identity_in_law(name):
    equation, holds = FORTH_AND_BACK[name]
    keys = jax.random.split(KEY, 4)
    data, other = (diffusion.mixture_sample(key, mixture(), (10_000,))[:, 0] for key in keys[:2])
    times = jnp.linspace(0.0, 1.0, 301)
    noisy = jax.jit(lambda x: diffusion.solve(keys[2], diffusion.euler_maruyama(VP), x, times))(data)
    back = jax.jit(lambda x: diffusion.solve(keys[3], diffusion.heun(equation), x, times[::-1]))(noisy)
    distances = energy_distances(np.asarray(back, float), np.asarray(other, float))
    score = np.mean(distances) / (np.std(distances, ddof=1) / np.sqrt(len(distances)))
    assert (abs(score) < 4) if holds else not (abs(score) < 10)


@REVERSE
def test_settings_are_checked():
    with pytest.raises(ValueError, match="`order`"):
        diffusion.exponential_integrator(VP, score_fn, 3)
    with pytest.raises(ValueError, match="`num_corrections`"):
        diffusion.predictor_corrector(diffusion.heun(FLOW), VP, score_fn, -1)
    with pytest.raises(ValueError, match="`signal_to_noise`"):
        diffusion.predictor_corrector(diffusion.heun(FLOW), VP, score_fn, 1, 0.0)
    with pytest.raises(ValueError, match="`key`"):
        diffusion.solve(None, diffusion.heun(REVERSED), jnp.ones(2), jnp.linspace(1.0, 0.0, 3))
    with pytest.raises(ValueError, match="`times`"):
        diffusion.solve(None, diffusion.heun(FLOW), jnp.ones(2), jnp.ones(1))
    with pytest.raises(ValueError, match="`steps_per_level`"):
        diffusion.annealed_langevin(KEY, score_fn, jnp.ones(2), jnp.ones(1), 0)
    with pytest.raises(ValueError, match="`step_size`"):
        diffusion.annealed_langevin(KEY, score_fn, jnp.ones(2), jnp.ones(1), 1, -0.1)


@pytest.mark.parametrize(
    ("num_steps", "size", "expected"), [(500, 20_000, 10), (12, 10**9, 2), (7, 10, 7), (17, 10, 1), (3, 0, 3)]
)
def test_blocks_of_noise_divide_the_steps(num_steps, size, expected):
    assert solvers._block(num_steps, size) == expected


def test_blocks_of_noise_do_not_change_the_solution(monkeypatch):
    solver, times = diffusion.euler_maruyama(diffusion.Sde(lambda x, t: -x, lambda t: 1.0)), np.linspace(0.0, 1.0, 13)
    many = diffusion.solve(KEY, solver, jnp.ones(3), jnp.asarray(times, jnp.float32))
    monkeypatch.setattr(solvers, "_BLOCK_STEPS", 1)
    one = diffusion.solve(KEY, solver, jnp.ones(3), jnp.asarray(times, jnp.float32))
    np.testing.assert_allclose(many, one, rtol=1e-5)
    with pytest.raises(ValueError, match="`num_corrections`"):
        diffusion.predictor_corrector(diffusion.heun(VP), VP, score_fn, 1.5)
    with pytest.raises(ValueError, match="`steps_per_level`"):
        diffusion.annealed_langevin(KEY, score_fn, jnp.asarray(X), jnp.ones(2), 2.0)


LINEAR = {
    "vp": lambda a: diffusion.vp_sde(0.1, a),
    "sub-VP": lambda a: diffusion.sub_vp_sde(0.1, a),
    "ve": lambda a: diffusion.ve_sde(0.1, a),
    "any": lambda a: diffusion.linear_sde(lambda t: -a * jnp.ones_like(t), lambda t: a * (1 + t)),
}


@REVERSE
@pytest.mark.parametrize("name", ["vp", "any", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sub-VP", "ve"))])
def test_samples_have_gradients_down_to_time_zero(x64, name):
    """Standard deviations grow like a square root from 0 there: their slopes are infinite."""
    times, shrink = jnp.linspace(1.0, 0.0, 6), lambda x, _t: -x

    def end(parameters):
        sde = LINEAR[name](parameters[0])
        reverse = diffusion.reverse_sde(sde, shrink)
        corrected = diffusion.predictor_corrector(diffusion.heun(reverse), sde, shrink, 1, parameters[1])
        exponential = diffusion.exponential_integrator(sde, shrink)
        return diffusion.solve(KEY, corrected, X, times).sum() + diffusion.solve(None, exponential, X, times).sum()

    at = jnp.array([2.0, 0.1])
    steps = 1e-6 * jnp.eye(2)
    differences = jax.jit(jax.vmap(lambda step: (end(at + step) - end(at - step)) / 2e-6))(steps)
    np.testing.assert_allclose(jax.jit(jax.grad(end))(at), differences, rtol=1e-5)
