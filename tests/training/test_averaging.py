"""Averages of parameters against recursions in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dltheory import training

RNG = np.random.default_rng(0)
X, W = RNG.normal(size=(8, 3)), RNG.normal(size=3)
Y = X @ W


def loss_fn(w, batch):
    return training.mean_squared_error(batch[0] @ w, batch[1])


@pytest.mark.parametrize(("decay", "warmup"), [(0.8, 0.0), (0.8, 9.0), (0.999, 2.0)])
def test_average_is_that_of_the_recursion_and_training_is_unchanged(decay, warmup, x64):
    optimizer = training.with_ema(optax.adam(0.1), decay, warmup)
    run = jax.jit(lambda: training.fit(loss_fn, jnp.ones(3), optimizer, (X, Y), 40, trace_fn=lambda w: w))()
    plain = jax.jit(lambda: training.fit(loss_fn, jnp.ones(3), optax.adam(0.1), (X, Y), 40, trace_fn=lambda w: w))()
    np.testing.assert_allclose(run.trace, plain.trace, rtol=1e-12)
    average = np.ones(3)
    for t, w in enumerate(np.asarray(plain.trace)[1:], start=1):
        kept = min(decay, t / (t + warmup))
        average = kept * average + (1 - kept) * w
    np.testing.assert_allclose(training.ema_params(run.state, run.params), average, rtol=1e-12)
    assert np.abs(average - plain.params).max() > 1e-3


def test_warm_averages_forget_the_start_as_promised(x64):
    """Over the last ninth: of parameters that count the steps the average is nine tenths of their number."""
    optimizer = training.with_ema(optax.sgd(1.0), 1.0)
    run = jax.jit(lambda: training.fit(lambda w, _: -w, jnp.zeros(()), optimizer, jnp.zeros(1), 400))()
    assert float(training.ema_params(run.state, run.params)) == pytest.approx(0.9 * 400, rel=0.01)


def test_runs_of_many_rates_are_averaged_at_once(x64):
    def run(decay):
        optimizer = training.with_ema(optax.sgd(0.1), decay, 0.0)
        fit = training.fit(loss_fn, jnp.ones(3), optimizer, (X, Y), 5)
        return training.ema_params(fit.state, fit.params)

    decays = jnp.array([0.0, 0.5, 1.0])
    together = jax.jit(jax.vmap(run))(decays)
    np.testing.assert_allclose(together[1], jax.jit(run)(0.5), rtol=1e-12)
    np.testing.assert_allclose(together[2], np.ones(3), rtol=1e-12)
    np.testing.assert_allclose(together[0], training.fit(loss_fn, jnp.ones(3), optax.sgd(0.1), (X, Y), 5).params)


def test_accumulated_gradients_move_the_average_once(x64):
    """Two halves of the data at a time, and all of it at once, are one run."""
    whole = training.with_ema(optax.sgd(0.1), 0.9)
    parts = optax.MultiSteps(whole, 2).gradient_transformation()
    halves = (jnp.asarray(X.reshape(2, 4, 3)), jnp.asarray(Y.reshape(2, 4)))

    def accumulated():
        w, state = jnp.ones(3), parts.init(jnp.ones(3))

        def step(carry, batch):
            updates, state = parts.update(jax.grad(loss_fn)(carry[0], batch), carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        batches = jax.tree.map(lambda leaf: jnp.concatenate([leaf] * 5), halves)
        (w, state), _ = jax.lax.scan(step, (w, state), batches)
        return training.ema_params(state, w), w

    run = jax.jit(lambda: training.fit(loss_fn, jnp.ones(3), whole, (X, Y), 5))()
    average, w = jax.jit(accumulated)()
    np.testing.assert_allclose(w, run.params, rtol=1e-7)  # counts are in single precision
    np.testing.assert_allclose(average, training.ema_params(run.state, run.params), rtol=1e-7)


def test_half_precision_is_averaged_in_single():
    """Steps of 1 / 256 of a parameter at 1, which an average in bfloat16 would not follow."""
    params = jnp.ones(2, jnp.bfloat16)
    optimizer = training.with_ema(optax.identity(), 0.999, 0.0)
    state: Any = optimizer.init(params)
    for _ in range(2):
        _, state = optimizer.update(jnp.full(2, -0.5, jnp.bfloat16), state, params)
    np.testing.assert_allclose(state.average, 1 - 0.5 * (1 - 0.999**2), rtol=1e-6)
    assert training.ema_params(state, params).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: training.with_ema(optax.sgd(1.0), 1.5), "`decay` must be between 0 and 1"),
        (lambda: training.with_ema(optax.sgd(1.0), jnp.ones(2)), r"`decay` must have shape \[\]"),
        (lambda: training.with_ema(optax.sgd(1.0), 0.5, -1.0), "`warmup` must not be negative"),
        (lambda: training.ema_params(optax.sgd(1.0).init(1.0), 1.0), "`state` must hold one average, .*, got 0"),
        (
            lambda: training.ema_params(training.with_ema(optax.sgd(1.0)).init(jnp.ones(3)), jnp.ones(2)),
            "`state` must have the shapes of `params`",
        ),
        (
            lambda: training.with_ema(optax.sgd(1.0)).update(1.0, training.with_ema(optax.sgd(1.0)).init(1.0)),
            "`params` must be given",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_parameters_and_their_average_can_be_donated_together():
    params = jnp.ones(3)
    optimizer = training.with_ema(optax.sgd(0.1))
    step = jax.jit(lambda params, state: optimizer.update(params, state, params), donate_argnums=(0, 1))
    state: Any = optimizer.init(params)
    updates, _ = step(params, state)
    np.testing.assert_allclose(updates, -0.1, rtol=1e-6)


def test_whole_warmups_do_not_overflow():
    optimizer, params = training.with_ema(optax.sgd(1.0), decay=0.5, warmup=9), jnp.ones(2)
    state: Any = optimizer.init(params)
    _, state = optimizer.update(params, state._replace(num_updates=jnp.array(2**31 - 2, jnp.int32)), params)
    np.testing.assert_allclose(state.average, 0.5)
