"""Steps of the No-U-Turn sampler against a naive tree in NumPy with the same random numbers; moments are slow tests."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dltheory import samplers
from dltheory.samplers._positions import draw

KEY = jax.random.key(5)
PRECISION = np.array([[2.0, 0.6], [0.6, 1.0]])
X = {"a": np.array([0.7]), "b": np.array([-0.4])}
MASSES = [2.0, np.array([0.5, 2.0]), np.array([[1.0, 0.3], [0.3, 0.8]])]
DOUBLINGS, CHANGES = 5, 32


def log_density(x):
    vector = jnp.concatenate([x["a"], x["b"]])
    return -vector @ jnp.asarray(PRECISION, vector.dtype) @ vector / 2 - jnp.sum(vector**4) / 4


def flat(x):
    return np.concatenate([x["a"], x["b"]])


def turned(velocity, first, last, total):
    return not (velocity(first) @ total > 0 and velocity(last) @ total > 0)


def dyadic(low, high):
    """All subtrees of more than one of the points low to high - 1, recursively."""
    if high - low > 1:
        middle = (low + high) // 2
        yield low, middle, high
        yield from dyadic(low, middle)
        yield from dyadic(middle, high)


def naive(key, x, step_size, inverse_mass, threshold):
    """One step, from whole lists of points: the recursive definition, subtree by subtree."""
    inverse_mass = np.eye(2) * inverse_mass if np.ndim(inverse_mass) < 2 else inverse_mass
    gradient = lambda x: -PRECISION @ x - x**3  # noqa: E731
    energy = lambda x, y: y @ inverse_mass @ y / 2 + x @ PRECISION @ x / 2 + np.sum(x**4) / 4  # noqa: E731
    velocity = lambda y: inverse_mass @ y  # noqa: E731
    noise, uniforms = (np.asarray(part) for part in draw(key, 2, 2 * DOUBLINGS + CHANGES, jnp.float64))
    forward, merge, change = np.split(uniforms, [DOUBLINGS, 2 * DOUBLINGS])
    momentum = np.linalg.solve(np.linalg.cholesky(inverse_mass).T, noise)
    start = energy(x, momentum)
    path = [(x, momentum)]  # in the order of time
    drawn, total, changes, rates = x, 1.0, 0, []
    outcome = "as long as allowed"
    for doubling in range(DOUBLINGS):
        sign = 1 if forward[doubling] < 0.5 else -1
        new = []  # in the order of visits
        x, y = path[-1] if sign > 0 else path[0]
        with np.errstate(all="ignore"):
            for _ in range(2**doubling):
                y = y + sign * step_size / 2 * gradient(x)
                x = x + sign * step_size * velocity(y)
                y = y + sign * step_size / 2 * gradient(x)
                new.append((x, y))
            errors = np.array([energy(*point) - start for point in new])
        errors[~np.isfinite(errors)] = np.inf
        momenta = [y for _, y in new]

        # When each failure shows: that of a half and the next point at that point, any other at the end of the subtree.
        divergent = [i for i, error in enumerate(errors) if error > threshold]
        turning = []
        for low, middle, high in dyadic(0, len(new)):
            ys = momenta[low:high]
            half = middle - low
            if turned(velocity, ys[0], ys[-1], sum(ys)) or turned(velocity, ys[half - 1], ys[-1], sum(ys[half - 1 :])):
                turning.append(high - 1)
            if turned(velocity, ys[0], ys[half], sum(ys[: half + 1])):
                turning.append(middle)
        end = min([*divergent, *turning, len(new) - 1])
        rates += list(np.minimum(1, np.exp(-errors[: end + 1])))

        # The draw from the new points, one after the other; the last changes only if the whole weight passes it.
        weight, limit, candidate = 0.0, -1.0, x
        for (position, _), error in zip(new[: end + 1], errors, strict=False):
            weight += np.exp(-error)
            if weight > limit:
                candidate, limit = position, weight / change[changes % CHANGES]
                changes += 1
        if divergent or turning:
            is_divergent = end in divergent
            outcome = "divergent" if is_divergent else "turning inside"
            break
        if merge[doubling] < weight / total:
            drawn = candidate
        total += weight
        old, far = [y for _, y in path][::sign], path[0 if sign > 0 else -1][1]
        path = path + new if sign > 0 else new[::-1] + path
        whole = [
            turned(velocity, far, momenta[-1], sum(old) + sum(momenta)),
            turned(velocity, far, momenta[0], sum(old) + momenta[0]),
            turned(velocity, old[-1], momenta[-1], old[-1] + sum(momenta)),
        ]
        if any(whole):
            outcome = "turning as a whole" if whole[0] else "turning between the halves"
            break
    return drawn, np.mean(rates), len(rates), len(rates).bit_length(), outcome


@pytest.mark.statement("samplers.hmc")
@pytest.mark.parametrize("inverse_mass", MASSES, ids=["scalar", "diagonal", "dense"])
def test_a_step_is_that_of_the_naive_tree(x64, inverse_mass):
    threshold = 10.0

    def step(key, step_size):
        algorithm = samplers.nuts(
            log_density,
            step_size,
            inverse_mass_matrix=inverse_mass,
            max_num_doublings=DOUBLINGS,
            divergence_threshold=threshold,
        )
        return algorithm.step(key, algorithm.init(X))

    step = jax.jit(step)
    outcomes, moves = Counter(), 0
    for key in jax.random.split(KEY, 20):
        for step_size in (0.03, 0.11, 0.17, 0.45, 0.95, 1.8):
            state, info = step(key, step_size)
            drawn, rate, steps, doublings, outcome = naive(key, flat(X), step_size, inverse_mass, threshold)
            np.testing.assert_allclose(flat(state.position), drawn, rtol=1e-9, atol=1e-12)
            assert int(info.num_integration_steps) == steps
            assert int(info.num_trajectory_expansions) == doublings
            assert float(info.acceptance_rate) == pytest.approx(rate, rel=1e-8)
            assert bool(info.is_divergent) == (outcome == "divergent")
            assert bool(info.is_turning) == outcome.startswith("turning")
            outcomes[outcome] += 1
            moves += not np.array_equal(drawn, flat(X))
    assert len(outcomes) == 5, outcomes
    assert 60 < moves < 120


@pytest.mark.statement("samplers.hmc")
def test_the_target_is_left_invariant_and_another_is_not():
    # |x|^4 in two dimensions, far from normal, drawn by the inverse of the law of its radius.
    rng = np.random.default_rng(0)
    chains = 3000
    radius, angle = rng.gamma(0.5, size=chains) ** 0.25, rng.uniform(0, 2 * np.pi, chains)
    start = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)

    @jax.jit
    def after(scale):
        algorithm = samplers.nuts(lambda x: -scale * jnp.sum(x**2) ** 2, 0.5, max_num_doublings=5)

        def chain(key, x):
            keys = jax.random.split(key, 3)
            return jax.lax.scan(lambda state, key: algorithm.step(key, state), algorithm.init(x), keys)

        return jax.vmap(chain)(jax.random.split(KEY, chains), start)

    def p_value(state):
        return stats.kstest(np.sum(np.asarray(state.position) ** 2, axis=1) ** 2, stats.gamma(0.5).cdf).pvalue

    state, infos = after(1.0)
    assert p_value(state) > 1e-3
    assert np.mean(np.any(state.position != start, axis=1)) > 0.99
    value, gradient = jax.vmap(jax.value_and_grad(lambda x: -(jnp.sum(x**2) ** 2)))(state.position)
    np.testing.assert_allclose(state.logdensity, value, rtol=1e-5)
    np.testing.assert_allclose(state.logdensity_grad, gradient, rtol=1e-5)
    kinetic = infos.energy[:, -1] + value  # of the momentum at the point drawn: half a chi-square of two
    assert stats.kstest(np.asarray(kinetic), stats.expon.cdf).pvalue > 1e-3
    assert p_value(after(1.2)[0]) < 1e-6


@pytest.mark.statement("samplers.hmc")
def test_walls_are_divergences_that_are_never_crossed():
    def chain(key, beyond, start):
        algorithm = samplers.nuts(lambda x: jnp.where(x > 0, -x, beyond), 0.7, max_num_doublings=6)

        def step(state, key):
            state, info = algorithm.step(key, state)
            return state, (state.position, info)

        return jax.lax.scan(step, algorithm.init(start), jax.random.split(key, 200))[1]

    beyond, start = jnp.array([jnp.nan, -jnp.inf, jnp.inf, jnp.nan]), jnp.array([1.0, 1.0, 1.0, -1.0])
    positions, infos = jax.jit(jax.vmap(chain))(jax.random.split(KEY, 4), beyond, start)
    assert (positions[:3] > 0).all()
    assert np.isfinite(infos.energy[:3]).all()
    assert infos.is_divergent[:3].any(axis=1).all()
    assert not infos.is_divergent[:3].all(axis=1).any()
    # The last chain starts where there is no density: it never moves, and says so.
    assert (positions[3] == -1).all()
    assert infos.is_divergent[3].all()
    assert (infos.acceptance_rate[3] == 0).all()


def test_trajectories_do_not_run_through_periods():
    # All momenta of a period sum to zero, so that a whole tree that fits one, or several, does not seem to turn.
    steps = jnp.asarray(2 * np.pi / 2 ** np.arange(2, 5) / np.arange(1, 4)[:, None], jnp.float32).ravel()

    def longest(step_size):
        algorithm = samplers.nuts(lambda x: -jnp.sum(x**2) / 2, step_size)
        starts = jax.random.normal(KEY, (50, 20))
        infos = jax.vmap(lambda key, x: algorithm.step(key, algorithm.init(x))[1])(jax.random.split(KEY, 50), starts)
        return step_size * jnp.max(infos.num_integration_steps)

    assert (jax.jit(jax.vmap(longest))(steps) < 2 * np.pi).all()


def test_positions_may_be_scalars_and_one_doubling_is_a_trajectory():
    algorithm = samplers.nuts(lambda x: -(x**2) / 2, 0.5, max_num_doublings=1)
    state, info = jax.jit(lambda key, x: algorithm.step(key, algorithm.init(x)))(KEY, 0.3)
    assert state.position.shape == ()
    assert int(info.num_integration_steps) == int(info.num_trajectory_expansions) == 1


BAD = {
    "step_size": lambda: samplers.nuts(jnp.sum, 0.0),
    "max_num_doublings": lambda: samplers.nuts(jnp.sum, 0.1, max_num_doublings=0),
    "divergence_threshold": lambda: samplers.nuts(jnp.sum, 0.1, divergence_threshold=-1.0),
    "position": lambda: samplers.nuts(jnp.sum, 0.1).init(jnp.arange(2)),
    "log_density_fn": lambda: samplers.nuts(lambda x: x, 0.1).init(jnp.ones(2)),
    "inverse_mass_matrix": lambda: samplers.nuts(jnp.sum, 0.1, inverse_mass_matrix=jnp.ones((2, 3))).init(jnp.ones(2)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        BAD[name]()
