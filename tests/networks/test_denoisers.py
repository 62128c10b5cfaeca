"""Networks that are told a time, against their formulas and their promises."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import networks
from dltheory.networks.denoisers import _Conv, _doubled, _halved

RNG = np.random.default_rng(0)
X: Any = RNG.normal(size=(4, 3))
TIMES: Any = np.array([1, 5, 5, 90])
LABELS: Any = np.array([0, 2, 1, 3])
IMAGES = RNG.normal(size=(4, 4, 8, 2))
MLP = networks.TimeMLP((6, 5), time_features=4, num_classes=3)
UNET = networks.UNet((2, 4), num_groups=2, attention=True, time_features=4, num_classes=3)
BOTH = pytest.mark.parametrize(("network", "x"), [(MLP, X), (UNET, IMAGES)], ids=["TimeMLP", "UNet"])


def moved(network, x, dtype: Any = np.float64, seed=1) -> Any:
    """Variables away from the zeros that the last layers start with."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.asarray(x, dtype), 1)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), shapes)


@functools.cache
def compiled(network):
    return jax.jit(network.apply)


def run(network, *args):
    return np.asarray(compiled(network)(*args))


def silu(x):
    return x / (1 + np.exp(-x))


def test_sinusoidal_embedding_is_that_of_the_formula(x64):
    t: Any = np.array([[0.0, 3.5], [-2.0, 900.0]])
    waves = [np.cos(t), np.cos(t / 7), np.sin(t), np.sin(t / 7)]  # 49^(-2/4)
    np.testing.assert_allclose(networks.sinusoidal_embedding(t, 4, 49.0), np.stack(waves, -1), rtol=1e-12, atol=1e-13)


def test_whole_steps_up_to_a_thousand_are_told_apart_in_half_precision():
    embedded = np.asarray(networks.sinusoidal_embedding(jnp.arange(1000), 32), np.float32)
    half = networks.sinusoidal_embedding(jnp.arange(0, 1000, 4).astype(jnp.bfloat16), 32)
    assert half.dtype == jnp.bfloat16
    assert np.abs(embedded[0:256:4] - np.asarray(half, np.float32)[:64]).max() < 0.01
    assert len(np.unique(embedded.round(3), axis=0)) == 1000


def test_time_mlp_is_its_formula(x64):
    variables = moved(MLP, X)
    p = variables["params"]
    affine = lambda name, x: x @ p[name]["kernel"] + p[name]["bias"]  # noqa: E731
    told = p["_Context_0"]
    waves = np.asarray(networks.sinusoidal_embedding(TIMES, 4), np.float64)
    inner = waves @ told["Dense_0"]["kernel"] + told["Dense_0"]["bias"] + told["labels"][LABELS]
    context = silu(silu(inner) @ told["Dense_1"]["kernel"] + told["Dense_1"]["bias"])
    h = X
    for layer in range(2):
        modulation = p[f"_Modulation_{layer}"]["Dense_0"]
        scale, shift = np.split(context @ modulation["kernel"] + modulation["bias"], 2, axis=1)
        h = silu(affine(f"Dense_{layer}", h) * (1 + scale) + shift)
    np.testing.assert_allclose(run(MLP, variables, X, TIMES, LABELS), affine("Dense_2", h), rtol=1e-10)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 3, 1, 2)])
def test_convolution_by_a_product_is_that_of_xla(shape, x64):
    x = RNG.normal(size=shape)
    params = {"kernel": RNG.normal(size=(3, 3, shape[-1], 5)), "bias": RNG.normal(size=5)}
    variables = {"params": params}
    theirs = nn.Conv(5, (3, 3), param_dtype="float64")

    def loss(apply):
        return jax.value_and_grad(lambda v, x: jnp.sum(jnp.sin(apply(v, x))), (0, 1))

    for ours, reference in zip(
        jax.tree.leaves(jax.jit(loss(_Conv(5).apply))(variables, x)),
        jax.tree.leaves(jax.jit(loss(theirs.apply))(variables, x)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-11)


def test_images_shrink_by_means_and_grow_by_repetition():
    small = np.asarray(_halved(jnp.asarray(IMAGES)))
    np.testing.assert_allclose(small[1, 0, 2], IMAGES[1, :2, 4:6].mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(_doubled(jnp.asarray(small)), small.repeat(2, axis=1).repeat(2, axis=2), rtol=1e-6)


@BOTH
def test_examples_do_not_depend_on_each_other_and_time_and_label_matter(network, x, x64):
    variables = moved(network, x)
    many = run(network, variables, x, TIMES, LABELS)
    other = run(network, variables, x, TIMES + np.array([0, 1, 0, 0]), np.array([0, 2, 3, 3]))
    apart = np.abs(other - many).reshape(4, -1).max(axis=1)
    np.testing.assert_array_equal(apart > 1e-4, [False, True, True, False])
    np.testing.assert_allclose(other[[0, 3]], many[[0, 3]], rtol=1e-9)
    # One example by itself; no label is the last.
    np.testing.assert_allclose(run(network, variables, x[3], TIMES[3]), many[3], rtol=1e-9)


def test_one_time_goes_with_all_and_there_may_be_more_axes(x64):
    variables = moved(MLP, X)
    together = run(MLP, variables, X, np.full(4, 7), np.full(4, 3))
    np.testing.assert_allclose(run(MLP, variables, X, 7), together, rtol=1e-9)
    nested = run(MLP, variables, X[:, None], TIMES[:, None], LABELS[:, None])
    np.testing.assert_allclose(nested[:, 0], run(MLP, variables, X, TIMES, LABELS), rtol=1e-9)
    out = jax.eval_shape(UNET.init_with_output, jax.random.key(0), IMAGES[:, None], TIMES[:, None])[0]
    assert out.shape == (4, 1, 4, 8, 2)


def test_scaled_times_are_whole_steps(x64):
    variables = moved(MLP, X)
    scaled = run(MLP.clone(time_scale=100.0), variables, X, TIMES / 100)
    np.testing.assert_allclose(scaled, run(MLP, variables, X, TIMES), rtol=1e-9)


@BOTH
def test_keeps_the_dtype(network, x):
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jnp.asarray(x, dtype)
        out, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x, TIMES)
        assert {leaf.dtype for leaf in jax.tree.leaves((out, variables))} == {jnp.dtype(dtype)}
        assert out.shape == x.shape


@pytest.mark.parametrize(("network", "x", "last"), [(MLP, X, "Dense_2"), (UNET, IMAGES, "_Conv_1")])
def test_starts_at_zero(network, x, last):
    x = x.astype(np.float32)
    start = jax.jit(lambda key: network.init(key, x, TIMES)["params"][last])(jax.random.key(0))
    variables = moved(network, x, np.float32)
    assert run(network, variables, x, TIMES, LABELS).any()
    variables["params"][last] = start
    assert not run(network, variables, x, TIMES, LABELS).any()


@pytest.mark.parametrize(
    ("network", "args", "message"),
    [
        (MLP, (1.0, 1), r"`x` must have shape \[\.\.\., d\]"),
        (MLP, (X, TIMES[:2]), r"`t` must have shape \[\] or \[4\]"),
        (MLP, (X, TIMES, LABELS[:2]), r"`labels` must have shape \[\] or \[4\]"),
        (MLP, (X, TIMES, LABELS * 1.0), "`labels` must be integers, got float"),
        (networks.TimeMLP(), (X, TIMES, LABELS), "`labels` must be None"),
        (networks.TimeMLP(()), (X, TIMES), "`widths` must name"),
        (networks.TimeMLP(time_features=3), (X, TIMES), "`num_features` must be positive and even, got 3"),
        (UNET, (X, TIMES), r"`x` must have shape \[\.\.\., h, w, c\]"),
        (UNET, (IMAGES[:, :3], TIMES), r"`x` must have height and width divisible by 2, .*, got \[3, 8\]"),
        (UNET, (IMAGES[0], TIMES), r"`t` must have shape \[\], as `x` is one example, got \[4\]"),
        (networks.UNet(()), (IMAGES, TIMES), "`channels` must name at least one level"),
        (networks.UNet((12,)), (IMAGES, TIMES), r"`channels` must be positive multiples of .*, 8, got \[12\]"),
        (networks.UNet(num_groups=0), (IMAGES, TIMES), "`num_groups` must be positive, got 0"),
        (networks.UNet(blocks_per_level=0), (IMAGES, TIMES), "`blocks_per_level` must be positive, got 0"),
    ],
)
def test_bad_input_is_refused_by_name(network, args, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), *args)


def test_unknown_labels_give_nan():
    variables = moved(MLP, X, np.float32)
    out = run(MLP, variables, X.astype(np.float32), TIMES, np.array([0, 3, 4, -1]))
    np.testing.assert_array_equal(np.isnan(out).any(axis=1), [False, False, True, True])


def test_no_images_at_all_have_no_outputs():
    none, key = jnp.zeros((2, 0, *IMAGES.shape[1:])), jax.random.key(0)
    outputs, _ = jax.eval_shape(UNET.init_with_output, key, none, jnp.zeros((2, 0)))
    assert outputs.shape == none.shape
