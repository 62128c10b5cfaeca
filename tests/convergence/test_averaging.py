"""Averages of iterates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dltheory import convergence, optimization

pytestmark = pytest.mark.statement("convergence.polyak_averaging")

START = {"w": jnp.array([4.0, -2.0]), "b": jnp.array(1.0)}
NUM_STEPS = 12


def objective(params):
    return jnp.sum(params["w"] ** 4) / 8 + params["b"] ** 2


def run(wrapper):
    return optimization.run_optimizer(wrapper(optax.adam(0.1)), objective, START, NUM_STEPS)


def flat(tree):
    """Leaves side by side, [t, 3], in float64."""
    return np.concatenate([np.asarray(tree["w"], float), np.asarray(tree["b"], float)[:, None]], axis=1)


def test_polyak_average_is_the_running_mean():
    trajectory = run(convergence.polyak_average)
    iterates = flat(trajectory.params)
    means = np.cumsum(iterates, 0) / np.arange(1, NUM_STEPS + 2)[:, None]
    np.testing.assert_allclose(flat(trajectory.state.average), means, rtol=1e-5)


@pytest.mark.parametrize(("fraction", "size"), [(0.5, 7), (0.01, 1), (1.0, 13), (0.3, 4)])
def test_suffix_average_is_the_mean_of_the_last_iterates(fraction, size):
    trajectory = run(lambda inner: convergence.suffix_average(inner, NUM_STEPS + 1, fraction))
    iterates, averages = flat(trajectory.params), flat(trajectory.state.average)
    np.testing.assert_allclose(averages[-1], iterates[-size:].mean(0), rtol=1e-5)
    np.testing.assert_allclose(averages[: NUM_STEPS + 1 - size], iterates[: NUM_STEPS + 1 - size], rtol=1e-6)


def test_suffix_length_is_not_a_victim_of_rounding():
    optimizer = convergence.suffix_average(optax.sgd(1.0), 100, 0.07)  # 0.07 * 100 > 7 in floating point
    trajectory = optimization.run_optimizer(optimizer, lambda x: -x, jnp.array(0.0), 99)
    assert float(trajectory.state.average[-1]) == pytest.approx(np.mean(np.arange(93, 100)))


def test_suffix_average_of_everything_is_the_polyak_average():
    whole = run(lambda inner: convergence.suffix_average(inner, NUM_STEPS + 1, 1.0))
    np.testing.assert_allclose(flat(whole.state.average), flat(run(convergence.polyak_average).state.average))


def test_ema_equals_the_one_of_optax():
    trajectory = run(lambda inner: convergence.ema(inner, 0.9))
    expected = START
    for t in range(1, NUM_STEPS + 1):
        iterate = jax.tree.map(lambda leaf, t=t: leaf[t], trajectory.params)
        expected = optax.incremental_update(iterate, expected, 0.1)
    last = jax.tree.map(lambda leaf: leaf[-1:], trajectory.state.average)
    np.testing.assert_allclose(flat(last)[0], flat(jax.tree.map(lambda leaf: leaf[None], expected))[0], rtol=1e-5)


def test_ema_without_memory_is_the_iterate():
    trajectory = run(lambda inner: convergence.ema(inner, 0.0))
    np.testing.assert_allclose(flat(trajectory.state.average), flat(trajectory.params), rtol=1e-6)


@pytest.mark.parametrize(
    "wrapper",
    [
        convergence.polyak_average,
        lambda inner: convergence.suffix_average(inner, NUM_STEPS + 1),
        lambda inner: convergence.ema(inner, 0.9),
    ],
)
def test_averaging_leaves_the_iterates_alone(wrapper):
    plain = optimization.run_optimizer(optax.adam(0.1), objective, START, NUM_STEPS)
    np.testing.assert_allclose(flat(run(wrapper).params), flat(plain.params), rtol=1e-6)


def test_averages_pass_extra_arguments_on():
    newton = convergence.polyak_average(optimization.newton(damping=0.1))
    trajectory = optimization.run_optimizer(newton, lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(2), 3)
    assert trajectory.state.average.shape == (4, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(
    "wrapper", [convergence.polyak_average, lambda inner: convergence.ema(inner, jnp.float32(0.9))], ids=["all", "ema"]
)
def test_averages_keep_the_dtype(x64, wrapper, dtype):
    optimizer = wrapper(optax.sgd(0.1))
    trajectory = jax.jit(lambda x: optimization.run_optimizer(optimizer, lambda x: jnp.sum(x**2), x, 3))(
        jnp.ones(2, dtype)
    )
    assert trajectory.state.average.dtype == dtype


def test_an_average_of_three_in_double_precision_is_exact_to_double_precision(x64):
    optimizer = convergence.polyak_average(optax.sgd(1.0))
    trajectory = optimization.run_optimizer(optimizer, lambda x: x, jnp.array(0.0), 2)
    assert float(trajectory.state.average[-1]) == pytest.approx(-1.0, abs=1e-15)


def test_params_are_needed():
    optimizer = convergence.polyak_average(optax.sgd(0.1))
    with pytest.raises(ValueError, match="`params` are needed"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda inner: convergence.ema(inner, 1.0), "decay"),
        (lambda inner: convergence.ema(inner, -0.1), "decay"),
        (lambda inner: convergence.ema(inner, jnp.ones(2)), "decay"),
        (lambda inner: convergence.suffix_average(inner, 0), "num_iterates"),
        (lambda inner: convergence.suffix_average(inner, 10, 0.0), "fraction"),
        (lambda inner: convergence.suffix_average(inner, 10, 1.5), "fraction"),
    ],
)
def test_settings_out_of_range_are_refused(call, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        call(optax.sgd(0.1))
