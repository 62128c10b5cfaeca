"""Runs against plain loops of optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dltheory import optimization

PARAMS = {"w": np.array([1.0, -2.0]), "b": np.array(0.5)}


def objective(params):
    return jnp.sum(jnp.cosh(params["w"])) + (params["b"] - params["w"][0]) ** 2


@pytest.mark.statement("optimizers.gradient_descent")
@pytest.mark.parametrize("optimizer", [optax.adam(0.1), optax.sgd(optax.linear_schedule(0.1, 0.0, 4), momentum=0.9)])
def test_run_is_the_loop(optimizer, x64):
    run = jax.jit(lambda params: optimization.run_optimizer(optimizer, objective, params, 4))(PARAMS)
    params, state = PARAMS, optimizer.init(PARAMS)
    for t in range(5):
        jax.tree.map(lambda path, now, t=t: np.testing.assert_allclose(path[t], now), run.params, params)
        jax.tree.map(lambda path, now, t=t: np.testing.assert_allclose(path[t], now), run.state, state)
        np.testing.assert_allclose(run.value[t], objective(params))
        updates, state = optimizer.update(jax.grad(objective)(params), state, params)
        params = optax.apply_updates(params, updates)


@pytest.mark.statement("optimizers.gradient_descent")
def test_no_steps_and_bad_arguments():
    run = optimization.run_optimizer(optax.sgd(0.1), objective, PARAMS, 0)
    assert run.value.shape == (1,)
    np.testing.assert_allclose(run.params["w"][0], PARAMS["w"])
    with pytest.raises(ValueError, match="`num_steps`"):
        optimization.run_optimizer(optax.sgd(0.1), objective, PARAMS, -1)
    with pytest.raises(ValueError, match="`objective_fn` must return a scalar"):
        optimization.run_optimizer(optax.sgd(0.1), lambda params: params["w"], PARAMS, 1)
    with pytest.raises(ValueError, match="`loss_fn` must return a scalar"):
        optimization.run_online(optax.sgd(0.1), lambda params, d: params["w"] + d, PARAMS, jnp.ones(3))
    for data in (jnp.array(1.0), (jnp.ones(2), jnp.ones(3)), {}, jnp.ones((0, 2))):
        with pytest.raises(ValueError, match="`data` must share one leading axis"):
            optimization.run_online(optax.sgd(0.1), lambda params, _: objective(params), PARAMS, data)


def test_line_search_gets_what_it_needs():
    optimizer = optax.chain(optimization.newton_cg(), optax.scale_by_backtracking_linesearch(20))
    start = {"w": jnp.array([9.0, -8.0]), "b": jnp.array(30.0)}
    run = jax.jit(lambda params: optimization.run_optimizer(optimizer, objective, params, 20))(start)
    assert bool(jnp.all(jnp.diff(run.value) <= 1e-6))
    assert float(run.value[-1]) == pytest.approx(2.0, rel=1e-5)


def test_online_run_is_the_loop_with_projection(x64):
    targets = jnp.array([3.0, -1.0, 0.5])
    project = lambda x: jnp.clip(x, -1.0, 1.0)  # noqa: E731
    run = optimization.run_online(optax.sgd(0.5), lambda x, y: (x - y) ** 2, jnp.array(0.0), targets, project)
    x = 0.0
    for t, target in enumerate(np.asarray(targets)):
        np.testing.assert_allclose([run.params[t], run.value[t]], [x, (x - target) ** 2])
        x = np.clip(x - 0.5 * 2 * (x - target), -1, 1)
    np.testing.assert_allclose(run.params[-1], x)
    assert run.value.shape == (3,)


def test_online_run_takes_keys():
    keys = jax.random.split(jax.random.key(0), 5)
    loss_fn = lambda x, key: (x - jax.random.normal(key)) ** 2  # noqa: E731
    run = optimization.run_online(optax.sgd(0.5), loss_fn, jnp.array(0.0), keys)
    np.testing.assert_allclose(run.params[1:], jax.vmap(jax.random.normal)(keys), rtol=1e-6)


MIXED = {"half": jnp.ones(2, "bfloat16"), "single": jnp.ones((2, 2)), "number": jnp.array(1.0)}
OPTIMIZERS = {
    "gradient_descent": optimization.gradient_descent,
    "heavy_ball": lambda rate: optimization.heavy_ball(rate, 0.5),
    "nesterov": lambda rate: optimization.nesterov(rate, rate),
    "sign_sgd": optimization.sign_sgd,
    "error_feedback_sign_sgd": optimization.error_feedback_sign_sgd,
    "adagrad": optimization.adagrad,
    "adam": optimization.adam,
    "adamw": optimization.adamw,
    "amsgrad": optimization.amsgrad,
    "newton": optimization.newton,
    "newton_cg": optimization.newton_cg,
}


@pytest.mark.parametrize("rate", [0.1, jnp.float32(0.1)], ids=["python", "array"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_keep_the_precision_of_every_leaf(name, rate):
    def total(params):
        return jnp.sum(jnp.stack([jnp.sum(leaf.astype("float32") ** 2) for leaf in jax.tree.leaves(params)]))

    run = jax.eval_shape(lambda params: optimization.run_optimizer(OPTIMIZERS[name](rate), total, params, 2), MIXED)
    assert jax.tree.map(lambda leaf: leaf.dtype, run.params) == jax.tree.map(lambda leaf: leaf.dtype, MIXED)
