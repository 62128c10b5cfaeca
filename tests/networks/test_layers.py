"""Layers against Flax's own, and what their three parametrisations have in common."""

from typing import Any, cast

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import networks
from dltheory.debug import checked
from tests.networks.modules import init, outputs

X = np.random.default_rng(0).normal(size=(5, 7))
IMAGES = np.random.default_rng(1).normal(size=(2, 6, 5, 3))
PARAMETRIZATIONS = ("ntk", "standard", "mup")


@pytest.mark.parametrize("x", [X, X[0], X.reshape(5, 1, 7)], ids=["batch", "one", "positions"])
def test_standard_dense_is_flax_dense(x, x64):
    ours, theirs = networks.Dense(4, parametrization="standard", sigma_b=0.5), nn.Dense(4, param_dtype="float64")
    variables = init(ours, x)
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, init(theirs, x))
    np.testing.assert_allclose(outputs(ours, variables, x), outputs(theirs, variables, x), rtol=1e-14)


@pytest.mark.parametrize("padding", ["SAME", "VALID", "CIRCULAR", ((1, 0), (2, 2))])
@pytest.mark.parametrize(("kernel_size", "strides"), [((3, 3), 1), ((2, 3), (2, 1))])
def test_standard_conv_is_flax_conv(kernel_size, strides, padding, x64):
    ours = networks.Conv(4, kernel_size, strides, padding, parametrization="standard", sigma_b=0.5)
    theirs = nn.Conv(4, kernel_size, strides, padding, param_dtype="float64")
    variables = init(ours, IMAGES)
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, init(theirs, IMAGES))
    expected = outputs(theirs, variables, IMAGES)
    np.testing.assert_allclose(outputs(ours, variables, IMAGES), expected, rtol=1e-12, atol=1e-13)


def test_conv_over_a_line_is_a_sum_over_windows(x64):
    layer = networks.Conv(2, (3,), sigma_w=1.5, sigma_b=0.5)
    x = IMAGES[:, :, 0]
    variables = init(layer, x)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    windows = np.stack([padded[:, t : t + 3] for t in range(x.shape[1])], axis=1)
    expected = 1.5 / 3 * np.einsum("ntuc,uck->ntk", windows, kernel) + 0.5 * np.asarray(bias)
    np.testing.assert_allclose(outputs(layer, variables, x), expected, rtol=1e-12, atol=1e-13)


def test_parameters_are_those_of_flax_initialisers(x64):
    kernel, bias = nn.initializers.normal(1.5 / np.sqrt(27)), nn.initializers.normal(0.5)
    theirs = nn.Conv(4, (3, 3), kernel_init=kernel, bias_init=bias, param_dtype="float64")
    ours = networks.Conv(4, (3, 3), parametrization="standard", sigma_w=1.5, sigma_b=0.5)
    chex.assert_trees_all_close(init(ours, IMAGES), init(theirs, IMAGES), rtol=1e-14)


def test_formula_of_each_parametrisation(x64):
    kernel, bias = np.random.default_rng(2).normal(size=(7, 4)), np.random.default_rng(3).normal(size=4)
    variables = {"params": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}
    scaled = 1.5 / np.sqrt(7) * X @ kernel + 0.3 * bias
    expected = {"ntk": scaled, "standard": X @ kernel + bias, "mup": scaled / np.sqrt(7)}
    for parametrization in PARAMETRIZATIONS:
        layer = networks.Dense(4, True, parametrization=parametrization, sigma_w=1.5, sigma_b=0.3)
        np.testing.assert_allclose(outputs(layer, variables, X), expected[parametrization], rtol=1e-13)


@pytest.mark.parametrize(
    ("settings", "has_bias"),
    [
        ({"parametrization": "ntk"}, False),
        ({"parametrization": "mup"}, False),
        ({"parametrization": "standard"}, True),
        ({"parametrization": "ntk", "sigma_b": 0.1}, True),
        ({"parametrization": "ntk", "sigma_b": 0.1, "use_bias": False}, False),
        ({"parametrization": "standard", "sigma_b": 0.1, "use_bias": False}, False),
    ],
)
def test_bias_exists_where_it_can_act_or_learn(settings, has_bias):
    params = init(networks.Dense(4, **settings), X)["params"]
    assert ("bias" in params) is has_bias
    if settings == {"parametrization": "standard"}:
        assert not params["bias"].any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_dtype_of_parameters_and_outputs_is_that_of_the_input(dtype, parametrization, x64):
    x = jnp.asarray(IMAGES, dtype)
    network = networks.CNN((4,), parametrization=parametrization, sigma_w=np.sqrt(2), sigma_b=np.float64(0.1))
    variables = init(network, x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((variables, outputs(network, variables, x)))} == {dtype}


def test_bytes_of_an_image_are_numbers():
    image = np.arange(2 * 4 * 4 * 1, dtype=np.uint8).reshape(2, 4, 4, 1)
    layer = networks.Conv(3, (3, 3))
    variables = init(layer, image)
    output = outputs(layer, variables, image)
    assert variables["params"]["kernel"].dtype == output.dtype == jnp.float32
    np.testing.assert_allclose(output, outputs(layer, variables, image.astype(np.float32)))


def test_scales_may_be_traced():
    def output(sigma_b):
        return jnp.sum(networks.Dense(2, sigma_b=sigma_b).init_with_output(jax.random.key(0), X[0])[0])

    values = jax.jit(jax.vmap(output))(jnp.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(jax.grad(output)(1.0), values[1] - values[0], rtol=1e-4)
    np.testing.assert_allclose(values[2] - values[1], values[1] - values[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("module", "x", "message"),
    [
        (networks.Dense(2, parametrization=cast(Any, "NTK")), X, "`parametrization` must be 'ntk', .*, got 'NTK'"),
        (networks.Dense(2, sigma_w=-1.0), X, "`sigma_w` must be non-negative"),
        (networks.Dense(2, sigma_b=-1.0), X, "`sigma_b` must be non-negative"),
        (networks.Dense(2), jnp.array(1.0), r"`x` must have shape \[..., d\], got \[\]"),
        (networks.Dense(2), jnp.ones((3, 0)), r"`x` must have at least one feature, got shape \[3, 0\]"),
        (networks.Conv(2, (3, 3)), jnp.ones((6, 5, 3)), r"`x` must have shape \[n, d1, d2, c\], got \[6, 5, 3\]"),
        (networks.Conv(2, (3, 3), (2,)), IMAGES, r"`strides` must be one number or 2, got \[2\]"),
    ],
)
def test_bad_input_is_refused_by_name(module, x, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(module.init, jax.random.key(0), x)


def test_negative_traced_scale_is_refused_in_debug_mode():
    def output(sigma_w):
        return networks.Dense(2, sigma_w=sigma_w).init_with_output(jax.random.key(0), X)[0]

    with pytest.raises(ValueError, match="`sigma_w` must be non-negative"):
        checked(output)(jnp.array(-1.0))
