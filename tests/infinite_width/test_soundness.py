"""What only seems to be a Gaussian network is refused, at its line; its close relatives have the right kernels."""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import infinite_width
from tests.infinite_width.test_against_monte_carlo import LIMIT, deviations, gaussian_init, lecun

pytestmark = pytest.mark.statement("infinite_width.architecture_universality", "nngp.kernel_recursion")
OUTPUTS, WIDTH = 16, 256
HERE = "test_soundness.py"


def dense(width):
    return nn.Dense(width, use_bias=False)


def readout(h):
    return dense(OUTPUTS)(h)


class Module(nn.Module):
    """A function (module, inputs, width) -> outputs as a module."""

    network: Callable[[nn.Module, Any, int], Any]
    width: int = WIDTH

    @nn.compact
    def __call__(self, x):
        return self.network(self, x, self.width)


# Which channel is which


def reversed_channels(module, x, width):
    h = nn.relu(dense(width)(x))
    return readout(h + jnp.flip(h, -1))


def permuted_channels(module, x, width):
    h = nn.relu(dense(width)(x))
    return readout(h + h[:, np.random.default_rng(0).permutation(width)])


def exchanged_channels(module, x, width):
    root = int(width**0.5)
    h = nn.relu(dense(width)(x)).reshape(-1, root, root)
    return readout((h + jnp.swapaxes(h, 1, 2)).reshape(-1, width))


def exchanged_flat_channels(module, x, width):
    root = int(width**0.5)
    h = nn.relu(dense(width)(x))
    flipped = h.reshape(-1, root, root).swapaxes(1, 2).reshape(-1, width)
    return readout(h + flipped)


def trace_of_square(module, x, width):
    root = int(width**0.5)
    h = dense(width)(x).reshape(-1, root, root)
    trace = jax.lax.dot_general(h, h, (((1, 2), (2, 1)), ((0,), (0,)))) / width
    return readout(nn.relu(dense(width)(x)) * (1 + trace)[:, None])


def weights_with_exchanged_rows(module, x, width):
    root = int(width**0.5)
    h = nn.relu(dense(width)(x)).reshape(-1, root, root)
    w = module.param("kernel", nn.initializers.normal(1.0), (width, width)).reshape(root, root, width)
    h = jnp.einsum("nab,abk->nk", h, w) + jnp.einsum("nab,bak->nk", h, w)
    return readout(nn.relu(h))


def weights_with_exchanged_columns(module, x, width):
    root = int(width**0.5)
    h = nn.relu(dense(width)(x))
    w = module.param("kernel", nn.initializers.normal(1.0), (width, width)).reshape(width, root, root)
    h = jnp.einsum("nc,cab->nab", h, w) + jnp.einsum("nc,cba->nab", h, w)
    return readout(nn.relu(h).reshape(-1, width))


# Channels of several kinds


def group_norm_of_concatenation(module, x, width):
    h = jnp.concatenate([dense(width)(x), 3 * nn.relu(dense(width)(x))], -1)
    return readout(nn.relu(nn.GroupNorm(2)(h)))


def heads_of_concatenation(module, x, width):
    h = jnp.concatenate([dense(width)(x), 3 * dense(width)(x)], -1).reshape(-1, 2, width)
    return readout(jnp.tanh(3 * dense(width)(h)).reshape(-1, 2 * width))


def mean_over_heads(module, x, width):
    return readout(nn.relu(nn.DenseGeneral((4, width), use_bias=False)(x)).mean(1))


def channel_windows(module, x, width):
    h = nn.relu(dense(width)(x))
    return readout(nn.avg_pool(h[..., None], (3,), padding="SAME")[..., 0])


def cumulative_channels(module, x, width):
    return readout(jnp.cumsum(nn.relu(dense(width)(x)), -1) / width)


# Dependence


def gate_by_own_windows(module, x, width):
    h = dense(width)(x)
    return readout((h * nn.Conv(width, (3,), feature_group_count=width, use_bias=False)(h)).mean(1))


def plane_and_sum(module, x, width):
    a, b = dense(width)(x), dense(width)(x)
    return readout(jnp.maximum(a, b) + jnp.tanh(a + b))


def two_planes(module, x, width):
    a, b, c = dense(width)(x), dense(width)(x), dense(width)(x)
    return readout(jnp.maximum(a, b) + jnp.maximum(b, c))


def shared_with_concatenation(module, x, width):
    shared, h = dense(width), dense(width)(x)
    g = nn.relu(h)
    c = jnp.concatenate([g[:, : width // 2], jnp.abs(h[:, width // 2 :])], -1)
    return readout(nn.relu(shared(g) + shared(c)))


def steps_and_whole(module, x, width):
    w = module.param("kernel", nn.initializers.normal(1.0), (2, width, width))
    h, _ = jax.lax.scan(lambda h, one: (nn.relu(h @ one), None), dense(width)(x), w)
    return readout(jnp.einsum("nc,tck->ntk", nn.relu(h), w).sum(1))


def added_and_multiplied(module, x, width):
    w = module.param("kernel", nn.initializers.normal(1.0), (width, 1))
    return jnp.tanh(dense(width)(x) + w.T) @ w


def copied_weights(module, x, width):
    w = module.param("kernel", nn.initializers.normal(1.0), (1, width))
    return readout(nn.relu(x @ jnp.broadcast_to(w, (x.shape[-1], width))))


# Sums that are not divided by the width


def attention(scores):
    def network(module, x, width):
        q, k, v = (dense(width)(x) for _ in range(3))
        weights = nn.softmax(scores(q, k, width))
        return readout(jnp.einsum("npq,nqc->npc", weights, v)[:, 0])

    return network


def _scores(function, power):
    return lambda q, k, width: jnp.einsum("npc,nqc->npq", function(q), function(k)) / width**power


def product_over_root(module, x, width):
    a, b = nn.relu(dense(width)(x)), nn.relu(dense(width)(x))
    return readout(nn.relu(dense(width)(x)) * jnp.exp((a * b).sum(-1, keepdims=True) / width**0.5))


def pixel_shuffle(module, x, width):
    h = nn.relu(nn.Conv(2 * width, (3,), use_bias=False)(x)).reshape(x.shape[0], -1, width)
    return readout(nn.relu(nn.Conv(width, (3,), use_bias=False)(h)).mean(1))


# Averages of mean 0, which stay random beside what is as small


def sign_of_an_average(module, x, width):
    h = dense(width)(x)
    return readout(h * (2 + jnp.sign(h.mean(-1, keepdims=True))))


def choice_by_an_average(module, x, width):
    h = dense(width)(x)
    return readout(jnp.where(h.mean(-1, keepdims=True) > 0, h, 2 * h))


def average_over_its_size(module, x, width):
    h = dense(width)(x)
    average = h.mean(-1, keepdims=True)
    return readout(h * jnp.exp(average / jnp.sqrt(average**2 + 1e-12)))


def average_times_the_root(module, x, width):
    h = dense(width)(x)
    return readout(h * nn.sigmoid(width**0.5 * h.mean(-1, keepdims=True)))


VECTORS = (
    *(reversed_channels, permuted_channels, exchanged_channels, exchanged_flat_channels, trace_of_square),
    *(weights_with_exchanged_rows, weights_with_exchanged_columns, group_norm_of_concatenation),
    *(heads_of_concatenation, mean_over_heads, channel_windows, cumulative_channels, plane_and_sum, two_planes),
    *(shared_with_concatenation, steps_and_whole, added_and_multiplied, copied_weights),
    product_over_root,
    *(sign_of_an_average, choice_by_an_average, average_over_its_size, average_times_the_root),
)
REFUSED = {network.__name__: (network, (4,)) for network in VECTORS} | {
    "gate_by_own_windows": (gate_by_own_windows, (4, 3)),
    "pixel_shuffle": (pixel_shuffle, (2, 3)),
    "scores over the root": (attention(_scores(jnp.tanh, 0.5)), (2, 3)),
    "positive scores over the root": (attention(_scores(nn.relu, 0.5)), (2, 3)),
    "linear scores over the root": (attention(_scores(lambda u: u, 0.5)), (2, 3)),
}


def _inputs(*shape, n=2):
    return jnp.asarray(np.random.default_rng(0).normal(size=(n, *shape)), jnp.float32)


def _kernel(network, x):
    module = Module(network)
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    return infinite_width.kernel_fn(module.apply, params, param_variance=lecun)(x)


LONG = {"plane_and_sum", "two_planes"}  # to trace


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in REFUSED]
)
def test_networks_without_such_a_limit_are_refused(name):
    network, shape = REFUSED[name]
    with pytest.raises(NotImplementedError) as caught:
        _kernel(network, _inputs(*shape, n=1))
    message = str(caught.value)
    assert re.search(r"`[a-z_]+` at ", message), message
    assert re.search(rf"{re.escape(HERE)}:\d+", message), message
    assert "monte_carlo_kernel" in message


# The same ingredients in a right order


def heads(module, x, width):
    q, k, v = (dense(width)(x).reshape(*x.shape[:2], 4, width // 4).swapaxes(1, 2) for _ in range(3))
    scores = nn.relu(q) @ nn.relu(k).swapaxes(-1, -2) / (width // 4)
    h = (nn.softmax(scores) @ v).swapaxes(1, 2).reshape(*x.shape[:2], width)
    return readout(nn.relu(dense(width)(h) + h).mean(1))


def pooling_query(module, x, width):
    h = nn.relu(dense(width)(x) + x.mean(-1, keepdims=True))
    scores = jnp.einsum("nc,npc->np", h[:, 0], h) / width
    return readout(jnp.einsum("np,npc->nc", scores, nn.relu(dense(width)(x))))


def depthwise(module, x, width):
    h = dense(width)(x)
    return readout(
        nn.relu(dense(width)(h + nn.Conv(width, (3,), feature_group_count=width, use_bias=False)(h)).mean(1))
    )


def group_norm_residual(module, x, width):
    h = dense(width)(x)
    return readout(h + nn.relu(nn.GroupNorm(4, epsilon=1e-2)(h)))


def unit_length(module, x, width):
    h = nn.relu(dense(width)(x))
    h = h / (jnp.linalg.norm(h, axis=-1, keepdims=True) + 1e-6) * width**0.5
    return readout(jnp.tanh(dense(width)(h)))


def cosine(module, x, width):
    a, b = nn.relu(dense(width)(x)), nn.relu(dense(width)(x))
    angle = (a * b).sum(-1) / jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return readout(jnp.tanh(dense(width)(x)) * jnp.exp(angle)[:, None])


def rolled(module, x, width):
    h = nn.relu(dense(width)(x))
    return readout(h + jnp.roll(h, 5, -1))


RIGHT = {
    "heads": (heads, (3, 4)),
    "pooling query": (pooling_query, (3, 4)),
    "depthwise": (depthwise, (4, 3)),
    "residual of group norm": (group_norm_residual, (5,)),
    "unit length": (unit_length, (5,)),
    "cosine": (cosine, (5,)),
    "rolled channels": (rolled, (5,)),
    "scores over the width": (attention(_scores(nn.relu, 1.0)), (3, 4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_their_relatives_are_within_the_noise_of_an_average(name):
    network, shape = RIGHT[name]
    x = _inputs(*shape)
    exact = _kernel(network, x)
    module = Module(network, 512)
    simulate = jax.jit(
        functools.partial(
            infinite_width.monte_carlo_kernel,
            gaussian_init(module, lecun),
            module.apply,
            num_samples=200,
            param_variance=lecun,
        )
    )
    estimate = simulate(x, key=jax.random.key(0))
    right = deviations(estimate, exact.nngp, exact.ntk)
    wrong = deviations(estimate, exact.nngp, 1.1 * exact.ntk)
    assert max(right) < LIMIT < wrong[1], (right, wrong)


def test_continuous_functions_of_averages_of_mean_zero_have_limits():
    def gated(module, x, width):
        h = dense(width)(x)
        return readout(h * nn.softmax(jnp.stack([h.mean(-1), dense(width)(x).mean(-1)], -1))[:, :1])

    def halved(module, x, width):
        return readout(dense(width)(x) / 2)

    found, expected = (_kernel(network, _inputs(4)) for network in (gated, halved))
    np.testing.assert_allclose(found.nngp, expected.nngp, rtol=1e-6)


def test_known_zeros_before_a_bias():
    """Zeros times weights are zeros, to which a bias is added as to any."""
    x = _inputs(4)
    shapes = {"w": (4, 64), "u": (4, 64), "b": (64,), "v": (64, 1)}
    params = {k: jax.ShapeDtypeStruct(shape, jnp.float32) for k, shape in shapes.items()}

    def late(p, x):
        return nn.relu(x @ p["w"] + (jnp.zeros_like(x) @ p["u"] + p["b"][None])) @ p["v"] / 8

    def plain(p, x):
        return nn.relu(x @ p["w"] + p["b"][None]) @ p["v"] / 8

    found, expected = (infinite_width.kernel_fn(fn, params, param_variance=1.0)(x) for fn in (late, plain))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_one_number_as_the_bias_of_one_output():
    """It adds its variance to both kernels."""
    x = _inputs(4)
    params = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in {"w": (4, 64), "v": (64, 1), "b": ()}.items()}

    def plain(p, x):
        return (nn.relu(x @ p["w"]) @ p["v"] / 8)[:, 0]

    found, expected = (
        infinite_width.kernel_fn(fn, params, param_variance=2.0)(x) for fn in (lambda p, x: plain(p, x) + p["b"], plain)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other + 2.0, rtol=1e-6)
