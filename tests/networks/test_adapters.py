"""Networks of flax.nnx, Equinox and (init, apply) pairs against those libraries' own forward passes."""

import functools
from typing import Any, cast

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dltheory import networks

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
IMAGES = jnp.asarray(np.random.default_rng(1).normal(size=(2, 12, 12, 1)), jnp.float32)


class NnxCNN(nnx.Module):
    """A convolutional network with normalisation and dropout, in the style of the library's own introduction."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 4, kernel_size=(3, 3), rngs=rngs)
        self.batch_norm1 = nnx.BatchNorm(4, rngs=rngs)
        self.dropout1 = nnx.Dropout(rate=0.25, rngs=rngs)
        self.conv2 = nnx.Conv(4, 8, kernel_size=(3, 3), rngs=rngs)
        self.linear1 = nnx.Linear(72, 16, rngs=rngs)
        self.dropout2 = nnx.Dropout(rate=0.25, rngs=rngs)
        self.linear2 = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.relu(self.batch_norm1(self.dropout1(self.conv1(x)))), (2, 2), strides=(2, 2))
        x = nnx.avg_pool(nnx.relu(self.conv2(x)), (2, 2), strides=(2, 2))
        return self.linear2(self.dropout2(nnx.relu(self.linear1(x.reshape(x.shape[0], -1)))))


class NnxTied(nnx.Module):
    """One layer used twice, in a list and under two names."""

    def __init__(self, rngs: nnx.Rngs):
        shared = nnx.Linear(3, 3, rngs=rngs)
        self.layers = nnx.List([shared, shared])
        self.calls = nnx.Variable(jnp.array(0))

    def __call__(self, x):
        self.calls[...] += 1
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


@pytest.mark.slow
def test_nnx_network_is_the_module_in_evaluation_mode():
    module = NnxCNN(rngs=nnx.Rngs(0))
    for seed in range(2):  # in training mode, so that the statistics are no longer those of the start
        module(jax.random.normal(jax.random.key(seed), IMAGES.shape) + 1)
    statistics = module.batch_norm1.mean[...]
    network = networks.from_nnx(module)
    first = jax.jit(network.apply)(network.params, IMAGES)
    one = jax.jit(network.apply)(network.params, IMAGES[:1])

    assert module.dropout1.deterministic is False
    assert module.batch_norm1.use_running_average is False
    np.testing.assert_array_equal(module.batch_norm1.mean[...], statistics)
    module.eval()
    np.testing.assert_allclose(first, module(IMAGES), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(one, first[:1], rtol=1e-4, atol=1e-6)  # rows do not depend on each other


def test_nnx_parameters_are_those_of_type_param_and_shared_ones_are_one():
    cnn = networks.from_nnx(NnxCNN(rngs=nnx.Rngs(0)))
    assert set(cnn.params["batch_norm1"]) == {"bias", "scale"}
    tied = networks.from_nnx(NnxTied(nnx.Rngs(0)))
    assert len(jax.tree.leaves(tied.params)) == 2


def test_nnx_gradient_and_state_of_a_shared_layer():
    module = NnxTied(nnx.Rngs(0))
    network = networks.from_nnx(module)
    values = nnx.to_pure_dict(nnx.state(module, nnx.Param))["layers"][0]

    def by_hand(params, x):
        kernel, bias = params
        return jnp.tanh(jnp.tanh(x @ kernel + bias[None]) @ kernel + bias[None])

    expected = jax.jit(jax.jacobian(by_hand))((values["kernel"], values["bias"]), X)
    jacobian = jax.jit(jax.jacobian(network.apply))(network.params, X)
    layer = jacobian["layers"][0]
    np.testing.assert_allclose(layer["kernel"], expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer["bias"], expected[1], rtol=1e-4, atol=1e-6)
    assert module.calls[...] == 0


def test_nnx_network_keeps_the_values_it_was_made_with():
    module = NnxCNN(rngs=nnx.Rngs(0))
    network = networks.from_nnx(module)
    before = jax.jit(network.apply)(network.params, IMAGES)
    module(IMAGES + 1)
    nnx.update(module, jax.tree.map(jnp.zeros_like, nnx.state(module, nnx.Param)))
    np.testing.assert_array_equal(jax.jit(network.apply)(network.params, IMAGES), before)


def test_nnx_call_with_more_arguments():
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    network = networks.from_nnx(module, call=lambda m, x: 2 * m(x))
    np.testing.assert_allclose(network.apply(network.params, X), 2 * module(X), rtol=1e-6)


def test_equinox_network_is_the_mapped_module():
    module = eqx.nn.MLP(3, 2, width_size=8, depth=2, activation=jax.nn.tanh, key=jax.random.key(0))
    network = networks.from_callable(module)
    np.testing.assert_allclose(jax.jit(network.apply)(network.params, X), jax.vmap(module)(X), rtol=1e-5)

    def loss(module):
        return jnp.sum(jax.vmap(module)(X) ** 2)

    expected = eqx.filter_jit(eqx.filter_grad(loss))(module)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(network.apply(params, X) ** 2)))(network.params)
    assert jax.tree.structure(gradient) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_equinox_dropout_does_nothing_and_batch_norm_takes_its_running_statistics():
    class Model(eqx.Module):
        linear: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        dropout: eqx.nn.Dropout

        def __init__(self, key):
            self.linear = eqx.nn.Linear(3, 2, key=key)
            self.norm = eqx.nn.BatchNorm(2, "batch", mode="batch")
            self.dropout = eqx.nn.Dropout(0.5)

        def __call__(self, x, state):
            x, state = self.norm(self.linear(x), state)
            return self.dropout(x), state

    model, state = eqx.nn.make_with_state(Model)(jax.random.key(0))
    training = eqx.nn.inference_mode(model, value=False)
    train = jax.vmap(
        lambda x, s: training.norm(training.linear(x), s), axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    _, state = train(3 * X, state)

    network = networks.from_callable(model, call=lambda m, x: m(x, state)[0])
    inference = eqx.nn.inference_mode(model, value=True)
    expected = jax.vmap(lambda x: inference(x, state)[0])(X)
    np.testing.assert_allclose(jax.jit(network.apply)(network.params, X), expected, rtol=1e-5, atol=1e-6)
    assert model.dropout.inference is False
    assert len(jax.tree.leaves(network.params)) == 4  # weight and bias, scale and shift


def test_linen_network_with_frozen_statistics():
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool):
            x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
            return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x))

    module = Normalised()
    network = networks.from_init_apply(
        lambda key, x: module.init(key, x, train=False),
        functools.partial(cast(Any, module.apply), train=False),
        jax.random.key(0),
        X,
    )
    assert set(network.params) == {"params", "batch_stats"}
    mean = jax.tree.map(jnp.ones_like, network.params["batch_stats"])
    shifted = {**network.params, "batch_stats": mean}
    dense, norm, out = (network.params["params"][name] for name in ("Dense_0", "BatchNorm_0", "Dense_1"))
    hidden = (X @ dense["kernel"] - 1) / jnp.sqrt(1 + 1e-5) * norm["scale"][None]
    np.testing.assert_allclose(network.apply(shifted, X), hidden @ out["kernel"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: networks.from_nnx(cast(Any, nn.Dense(2))), "`module` must be an nnx.Module, got Dense"),
        (lambda: networks.from_nnx(nnx.Dropout(0.5, rngs=nnx.Rngs(0))), "`module` must have at least one nnx.Param"),
        (lambda: networks.from_callable(jnp.tanh), "`module` must be a pytree with at least one floating-point array"),
        (lambda: networks.from_callable(nnx.Linear(2, 2, rngs=nnx.Rngs(0))), "`module` is an nnx.Module, .*`from_nnx`"),
        (
            lambda: networks.from_init_apply(lambda k, x: {}, cast(Any, lambda p, x: (x, x)), jax.random.key(0), X),
            "`apply_fn` must return one array, got tuple",
        ),
        (
            lambda: networks.from_init_apply(lambda k, x: {}, lambda p, x: jnp.sum(x, 0), jax.random.key(0), X),
            r"`apply_fn` must map \[6, ...\] to \[6, ...\], got \[3\]",
        ),
        (
            lambda: networks.from_init_apply(lambda k, x: {}, lambda p, x: x, jax.random.key(0), jnp.ones((0, 3))),
            "leaves of `x` must share one leading axis of at least 1",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
