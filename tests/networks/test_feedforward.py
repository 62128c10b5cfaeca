"""Networks against their formulas, composed by hand from their own layers."""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import networks
from tests.networks.modules import init, outputs

X = np.random.default_rng(0).normal(size=(4, 5))
IMAGES = np.random.default_rng(1).normal(size=(3, 7, 6, 2))
SETTINGS: dict[str, Any] = {"sigma_w": 1.4, "sigma_b": 0.3}


def layer(variables, name: str, x, strides: int = 1, padding: str = "SAME"):
    """One affine layer of a network in "ntk", by its name."""
    params = variables["params"][name]
    kernel, bias = params["kernel"], params["bias"]
    if name.startswith("Dense"):
        module = networks.Dense(kernel.shape[-1], **SETTINGS)
    else:
        module = networks.Conv(kernel.shape[-1], kernel.shape[:-2], strides, padding, **SETTINGS)
    return outputs(module, {"params": {"kernel": kernel, "bias": bias}}, x)


def test_mlp_alternates_layers_and_activations(x64):
    network = networks.MLP((6, 4, 2), jnp.tanh, **SETTINGS)
    variables = init(network, X)
    h = jnp.tanh(layer(variables, "Dense_0", X))
    h = jnp.tanh(layer(variables, "Dense_1", h))
    np.testing.assert_allclose(outputs(network, variables, X), layer(variables, "Dense_2", h), rtol=1e-12)


def test_mlp_without_hidden_layers_is_linear(x64):
    network = networks.MLP((2,), **SETTINGS)
    variables = init(network, X)
    np.testing.assert_allclose(outputs(network, variables, X), layer(variables, "Dense_0", X), rtol=1e-12)


@pytest.mark.parametrize("pooling", ["global_average", "flatten"])
def test_cnn_pools_what_its_convolutions_found(pooling, x64):
    network = networks.CNN((3, 4), 2, (2, 3), 2, activation=nn.gelu, pooling=pooling, **SETTINGS)
    variables = init(network, IMAGES)
    h = nn.gelu(layer(variables, "Conv_0", IMAGES, 2))
    h = nn.gelu(layer(variables, "Conv_1", h, 2))
    pooled = h.mean(axis=(1, 2)) if pooling == "global_average" else h.reshape(3, -1)
    np.testing.assert_allclose(outputs(network, variables, IMAGES), layer(variables, "Dense_0", pooled), rtol=1e-12)


def test_residual_mlp_adds_its_branches(x64):
    network = networks.ResidualMLP(6, 2, 3, jnp.tanh, branch_scale=0.5, **SETTINGS)
    variables = init(network, X)
    h = layer(variables, "Dense_0", X)
    h = h + 0.5 * layer(variables, "Dense_1", jnp.tanh(h))
    h = h + 0.5 * layer(variables, "Dense_2", jnp.tanh(h))
    np.testing.assert_allclose(outputs(network, variables, X), layer(variables, "Dense_3", jnp.tanh(h)), rtol=1e-12)


@pytest.mark.parametrize("padding", ["SAME", "CIRCULAR"])
def test_residual_cnn_adds_its_branches_and_projects_where_shapes_change(padding, x64):
    network = networks.ResidualCNN((3, 4), 2, padding=padding, activation=jnp.tanh, branch_scale=0.5, **SETTINGS)
    variables = init(network, IMAGES)
    assert variables["params"]["Conv_5"]["kernel"].shape == (1, 1, 3, 4)

    def conv(name, x, strides=1):
        return layer(variables, name, x, strides, padding)

    h = conv("Conv_0", IMAGES)
    h = h + 0.5 * conv("Conv_2", jnp.tanh(conv("Conv_1", jnp.tanh(h))))
    branch = conv("Conv_4", jnp.tanh(conv("Conv_3", jnp.tanh(h), 2)))
    h = layer(variables, "Conv_5", h, 2) + 0.5 * branch
    expected = layer(variables, "Dense_0", jnp.tanh(h).mean(axis=(1, 2)))
    np.testing.assert_allclose(outputs(network, variables, IMAGES), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("network", [networks.CNN((3,)), networks.ResidualCNN((2, 3))], ids=["CNN", "ResidualCNN"])
def test_examples_do_not_depend_on_each_other(network):
    x = IMAGES.astype(np.float32)
    variables = init(network, x)
    alone = jax.jit(jax.vmap(lambda one: network.apply(variables, one[None])[0]))(x)
    np.testing.assert_allclose(outputs(network, variables, x), alone, rtol=1e-4, atol=1e-6)


def test_images_may_have_one_axis_or_three():
    for axes in (1, 3):
        x = np.ones((2, *(4,) * axes, 1), np.float32)
        for network in (
            networks.CNN((3,), kernel_size=(3,) * axes, padding="CIRCULAR"),
            networks.ResidualCNN((2, 3), kernel_size=(3,) * axes),
        ):
            assert jax.eval_shape(network.init_with_output, jax.random.key(0), x)[0].shape == (2, 1)


@pytest.mark.parametrize(
    ("network", "x", "message"),
    [
        (networks.MLP(()), X, "`features` must name at least the number of outputs"),
        (networks.CNN((3,), pooling=cast(Any, "max")), IMAGES, "`pooling` must be .*, got 'max'"),
        (networks.ResidualCNN(()), IMAGES, "`channels` must name at least one stage"),
        (networks.ResidualCNN((3,), padding=cast(Any, "VALID")), IMAGES, "`padding` must be .*, got 'VALID'"),
        (networks.CNN((3,)), X, r"`x` must have shape \[n, d1, d2, c\], got \[4, 5\]"),
    ],
)
def test_bad_settings_are_refused_by_name(network, x, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), x)
