"""The training loop against loops written out by hand."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dltheory import networks, training

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(10, 3)), RNG.normal(size=3)
Y = X @ W + 0.1 * RNG.normal(size=10)


def loss_fn(params, batch):
    x, y = batch
    return training.mean_squared_error(x @ params["w"] + params["b"], y)


def start():
    return {"w": jnp.zeros(3), "b": jnp.zeros(())}


def test_steps_are_those_of_a_plain_loop(x64):
    optimizer = optax.adam(0.1)
    run = jax.jit(lambda: training.fit(loss_fn, start(), optimizer, (X, Y), 7))()

    params: Any = start()
    losses = []
    state = optimizer.init(params)
    for _ in range(7):
        value, grad = jax.value_and_grad(loss_fn)(params, (X, Y))
        updates, state = optimizer.update(grad, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(value)
    np.testing.assert_allclose(run.params["w"], params["w"], rtol=1e-12)
    np.testing.assert_allclose(run.loss, losses, rtol=1e-12)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), run.state, state)


def test_linear_regression_finds_least_squares(x64):
    run = jax.jit(lambda: training.fit(loss_fn, start(), optax.lbfgs(), (X, Y), 20))()
    solution = np.linalg.lstsq(np.column_stack([X, np.ones(10)]), Y, rcond=None)[0]
    np.testing.assert_allclose(run.params["w"], solution[:3], rtol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_an_epoch_sees_every_example_at_most_once_in_an_order_of_its_own(batch_size):
    def seen(params, rows):  # the gradient is the set of rows
        return jnp.sum(params[rows])

    per_epoch = 10 // batch_size
    run = jax.jit(
        lambda key: training.fit(
            seen,
            jnp.zeros(10),
            optax.sgd(1.0),
            jnp.arange(10),
            3 * per_epoch,
            key=key,
            batch_size=batch_size,
            trace_fn=lambda params: -params,
        )
    )(jax.random.key(0))
    batches = np.diff(run.trace, axis=0).reshape(3, per_epoch, 10)
    np.testing.assert_array_equal(batches.sum(axis=2), batch_size)
    assert set(np.unique(batches.sum(axis=1))) == ({1.0} if 10 % batch_size == 0 else {0.0, 1.0})
    if batch_size < 10:
        assert len(np.unique(batches[:, 0], axis=0)) == 3


def test_minibatches_are_uniform_over_the_examples():
    def seen(params, rows):
        return jnp.sum(params[rows])

    def first(key):
        return -training.fit(seen, jnp.zeros(10), optax.sgd(1.0), jnp.arange(10), 1, key=key, batch_size=3).params

    draws = np.asarray(jax.jit(jax.vmap(first))(jax.random.split(jax.random.key(1), 2000)))
    assert np.abs(draws.mean(axis=0) - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 2000)


def test_trace_is_taken_before_the_first_step_and_after_every_few():
    def run(every):
        trace_fn = {"trace_fn": lambda params: {"w": params["w"]}, "trace_every": every}
        return training.fit(loss_fn, start(), optax.sgd(0.1), (X, Y), 6, **trace_fn)

    fine, coarse = run(1), run(3)
    assert fine.trace["w"].shape == (7, 3)
    np.testing.assert_allclose(coarse.trace["w"], fine.trace["w"][::3], rtol=1e-5)
    np.testing.assert_array_equal(fine.trace["w"][0], 0)
    np.testing.assert_array_equal(fine.trace["w"][-1], fine.params["w"])
    np.testing.assert_allclose(coarse.loss, fine.loss, rtol=1e-5)


def test_no_steps_are_no_change():
    run = training.fit(loss_fn, start(), optax.sgd(0.1), (X, Y), 0, trace_fn=lambda params: params["b"])
    assert run.loss.shape == (0,)
    assert run.trace.shape == (1,)
    np.testing.assert_array_equal(run.params["w"], 0)


def test_statistics_of_flax_variables_are_not_trained():
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(nn.BatchNorm(use_running_average=True)(x))

    module = Normalised()
    apply: Any = module.apply
    variables = module.init(jax.random.key(0), X)
    loss = lambda variables, batch: training.mean_squared_error(apply(variables, batch[0])[:, 0], batch[1])  # noqa: E731
    run = jax.jit(lambda v: training.fit(loss, v, optax.adamw(0.1), (X, Y), 50))(variables)
    assert jax.tree.structure(run.params) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, run.params["batch_stats"], variables["batch_stats"])
    assert run.loss[-1] < 0.1 * run.loss[0]


def test_networks_of_many_seeds_are_trained_at_once():
    network = networks.MLP((8, 1), nn.tanh)
    apply: Any = network.apply

    def run(key):
        key_init, key_batches = jax.random.split(key)
        loss = lambda params, batch: training.mean_squared_error(apply(params, batch[0])[:, 0], batch[1])  # noqa: E731
        params = network.init(key_init, X)
        return training.fit(loss, params, optax.sgd(0.1), (X, Y), 20, key=key_batches, batch_size=5).loss

    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(run))(keys)
    np.testing.assert_allclose(together[1], jax.jit(run)(keys[1]), rtol=1e-4)
    assert len(np.unique(together[:, 0])) == 3


def test_divergence_shows_in_the_losses():
    run = training.fit(loss_fn, start(), optax.sgd(1e3), (X, Y), 40)
    assert not np.isfinite(run.loss[-1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": -1}, "`num_steps` must be non-negative, got -1"),
        ({"data": (X, Y[:3])}, "leaves of `data` must share one leading axis"),
        ({"batch_size": 2}, "`batch_size` and `key` go together"),
        ({"key": jax.random.key(0)}, "`batch_size` and `key` go together"),
        ({"key": jax.random.key(0), "batch_size": 11}, "`batch_size` must lie between 1 and .*, 10, got 11"),
        ({"key": jax.random.key(0), "batch_size": 0}, "`batch_size` must lie between 1 and .*, 10, got 0"),
        ({"trace_fn": len, "trace_every": 4}, "`trace_every` must be a positive divisor of `num_steps`, 6, got 4"),
        ({"loss_fn": lambda params, batch: batch[1]}, r"`loss_fn` must return a scalar, got \[10\]"),
        ({"loss_fn": lambda params, batch: batch}, "`loss_fn` must return a scalar, got no array"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    arguments = {"loss_fn": loss_fn, "params": start(), "optimizer": optax.sgd(0.1), "data": (X, Y), "num_steps": 6}
    with pytest.raises(ValueError, match=message):
        training.fit(**arguments | settings)


def test_losses_with_a_key_are_those_of_a_plain_loop_and_leave_minibatches_alone(x64):
    key = jax.random.key(7)

    def noisy(params, batch, key):
        return loss_fn(params, batch) + params["b"] * jax.random.normal(key)

    run = jax.jit(lambda key: training.fit(noisy, start(), optax.sgd(0.1), (X, Y), 5, loss_key=key))(key)
    params: Any = start()
    for number in range(5):
        grad = jax.grad(noisy)(params, (X, Y), jax.random.fold_in(key, number))
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grad)
    np.testing.assert_allclose(run.params["b"], params["b"], rtol=1e-12)

    def seen(params, rows, *key):  # the gradient is the set of rows
        return jnp.sum(params[rows]) + sum(0 * jax.random.normal(k) for k in key)

    extras: Any = ({}, {"loss_key": key}, {"loss_key": jax.random.key(8)})
    batches = [
        training.fit(seen, jnp.zeros(10), optax.sgd(1.0), jnp.arange(10), 2, key=key, batch_size=3, **extra).params
        for extra in extras
    ]
    np.testing.assert_array_equal(batches[0], batches[1])
    np.testing.assert_array_equal(batches[0], batches[2])
