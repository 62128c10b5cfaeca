"""Mini-batches and variance reduction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import optimization

RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(10, 3)), RNG.normal(size=10)
THETA = np.array([0.5, -1.0, 2.0])


def component(theta, i):
    return 0.5 * (theta @ jnp.asarray(INPUTS)[i] - jnp.asarray(TARGETS)[i]) ** 2


def full_gradient(theta):
    return INPUTS.T @ (INPUTS @ theta - TARGETS) / len(TARGETS)


@pytest.mark.statement("optimizers.minibatch_gradient")
def test_batch_gradient_is_the_mean_over_its_examples(x64):
    batch = np.array([1, 1, 7])
    gradient = optimization.minibatch_gradient(component, jnp.asarray(THETA), jnp.asarray(batch))
    expected = np.mean((INPUTS[batch] @ THETA - TARGETS[batch])[:, None] * INPUTS[batch], axis=0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)


@pytest.mark.statement("optimizers.minibatch_gradient")
def test_batches_without_replacement_are_distinct_and_all_indices_occur():
    keys = jax.random.split(jax.random.key(0), 300)
    for replace in (True, False):
        batches = np.asarray(jax.vmap(lambda k, r=replace: optimization.sample_batch(k, 6, 4, replace=r))(keys))
        assert set(np.unique(batches)) == set(range(6))
        distinct = np.array([len(set(batch)) == 4 for batch in batches])
        assert distinct.all() != replace


@pytest.mark.statement("optimizers.minibatch_gradient")
@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0, 1), "num_examples"), ((5, 0), "batch_size"), ((5, 6, False), "batch_size")],
)
def test_bad_sizes_are_refused(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        optimization.sample_batch(jax.random.key(0), *arguments)


@pytest.mark.statement("optimizers.minibatch_gradient")
@pytest.mark.parametrize("batch", [jnp.array(1), (jnp.ones(2), jnp.ones(3)), jnp.ones(0)])
def test_batch_must_have_one_leading_axis(batch):
    with pytest.raises(ValueError, match="`batch` must share one leading axis"):
        optimization.minibatch_gradient(lambda p, _: p, jnp.array(0.0), batch)


@pytest.mark.statement("optimizers.svrg")
def test_reduced_gradient_at_the_snapshot_is_the_full_one(x64):
    theta, gradient = jnp.asarray(THETA), jnp.asarray(full_gradient(THETA))
    for i in range(3):
        reduced = optimization.svrg_gradient(component, theta, theta, gradient, jnp.array(i))
        np.testing.assert_allclose(reduced, gradient, atol=1e-14)


@pytest.mark.statement("optimizers.svrg")
@pytest.mark.parametrize("average", [True, False])
def test_svrg_is_the_loop(average, x64):
    key = jax.random.key(3)
    start = jnp.asarray(THETA)
    run = jax.jit(lambda k: optimization.svrg(k, component, start, 10, 0.1, 4, 3, average=average))(key)
    snapshot = THETA
    for epoch, epoch_key in enumerate(jax.random.split(key, 3)):
        np.testing.assert_allclose(run.snapshots[epoch], snapshot, atol=1e-12)
        theta, visited = snapshot, []
        for t, i in enumerate(np.asarray(optimization.sample_batch(epoch_key, 10, 4))):
            np.testing.assert_allclose(run.params[epoch, t], theta, atol=1e-12)
            visited.append(theta)
            theta = theta - 0.1 * (INPUTS[i] * (INPUTS[i] @ (theta - snapshot)) + full_gradient(snapshot))
        snapshot = np.mean(visited, axis=0) if average else theta
    np.testing.assert_allclose(run.snapshots[-1], snapshot, atol=1e-12)


@pytest.mark.statement("optimizers.svrg")
def test_one_component_makes_gradient_descent_and_params_may_be_trees(x64):
    def single(params, i):
        return jnp.sum(params["a"] ** 2) + 0.0 * i

    run = optimization.svrg(jax.random.key(0), single, {"a": jnp.ones(2)}, 1, 0.25, 2, 3, average=False)
    np.testing.assert_allclose(run.snapshots["a"], 0.25 ** np.arange(4.0)[:, None] * np.ones(2))


@pytest.mark.statement("optimizers.svrg")
def test_svrg_keeps_half_precision_whatever_that_of_the_learning_rate():
    def half(theta, i):
        return jnp.sum((theta - i.astype(theta.dtype)) ** 2)

    run = jax.eval_shape(
        lambda key: optimization.svrg(key, half, jnp.ones(2, "bfloat16"), 3, jnp.float32(0.1), 2, 2), jax.random.key(0)
    )
    assert run.snapshots.dtype == run.params.dtype == "bfloat16"


@pytest.mark.statement("optimizers.svrg")
@pytest.mark.parametrize("setting", ["num_components", "epoch_length", "num_epochs", "learning_rate"])
def test_bad_settings_are_refused(setting):
    settings: dict = {"num_components": 10, "learning_rate": 0.1, "epoch_length": 4, "num_epochs": 3, setting: -1}
    with pytest.raises(ValueError, match=f"`{setting}`"):
        optimization.svrg(jax.random.key(0), component, jnp.zeros(3), **settings)
