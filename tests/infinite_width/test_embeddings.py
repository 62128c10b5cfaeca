"""Kernels of networks that look up rows of weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import infinite_width
from tests.infinite_width.test_against_monte_carlo import LIMIT, OUTPUTS, Module, deviations, gaussian_init

pytestmark = pytest.mark.statement("nngp.kernel_recursion", "ntk.init_convergence")
WORDS, WIDTH = 7, 512
X = np.array([[0, 3, 3, 5], [3, 0, 5, 2], [6, 6, 1, 1]])


def bag_of_words(x, width):
    x = nn.Embed(WORDS, width)(x).mean(1)
    return nn.Dense(OUTPUTS)(nn.relu(nn.Dense(width)(x)))


def block(x, width):
    """That of a transformer, with positions and without attention."""
    x = nn.Embed(WORDS, width)(x) + nn.Embed(X.shape[1], width)(jnp.arange(X.shape[1]))[None]
    x = x + nn.Dense(width)(nn.relu(nn.Dense(width)(nn.LayerNorm()(x))))
    return nn.Dense(OUTPUTS)(nn.LayerNorm()(x).mean(1))


def _variance(path, shape):
    if path.endswith("embedding"):
        return 1.0
    return 1 / shape[0] if path.endswith("kernel") else 0.0


def _kernel(module, **settings):
    return infinite_width.kernel_fn(
        module.apply, jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(X)), **settings
    )


@pytest.mark.slow
@pytest.mark.parametrize("network", [bag_of_words, block])
def test_within_the_noise_of_an_average(network):
    """The right kernels are, and those of other words are not."""
    module, x = Module(network, WIDTH), jnp.asarray(X)
    init = gaussian_init(module, _variance)
    estimate = infinite_width.monte_carlo_kernel(
        init, module.apply, x, key=jax.random.key(0), num_samples=150, param_variance=_variance
    )
    kernel = jax.jit(_kernel(module, param_variance=_variance))
    right, wrong = kernel(x), kernel(x.at[0, 1].set(4))
    assert max(deviations(estimate, right.nngp, right.ntk)) < LIMIT
    assert min(deviations(estimate, wrong.nngp, wrong.ntk)) > LIMIT


class OneHot(nn.Module):
    """An embedding written as a product."""

    @nn.compact
    def __call__(self, x):
        return bag_of_words_from(nn.Dense(64, use_bias=False)(jax.nn.one_hot(x, WORDS)))


class LookedUp(nn.Module):
    """The same by looking up."""

    @nn.compact
    def __call__(self, x):
        return bag_of_words_from(nn.Embed(WORDS, 64)(x))


def bag_of_words_from(x):
    return nn.Dense(1)(nn.relu(nn.Dense(64)(x.mean(1))))


@pytest.mark.slow
def test_a_lookup_is_a_product_with_one_hot_vectors():
    x = jnp.asarray(X)
    found = _kernel(LookedUp(), param_variance=0.5)(x, x[1:])
    expected = _kernel(OneHot(), param_variance=0.5)(x, x[1:])
    np.testing.assert_allclose(found.nngp, expected.nngp, rtol=1e-5)
    np.testing.assert_allclose(found.ntk, expected.ntk, rtol=1e-5)


@pytest.mark.slow
def test_the_variance_is_what_flax_draws():
    """That is 1 / features, for abstract and concrete parameters."""
    module, x = LookedUp(), jnp.asarray(X)
    drawn = infinite_width.kernel_fn(module.apply, module.init(jax.random.key(0), x))(x)
    shapes = _kernel(module)(x)
    np.testing.assert_allclose(drawn.ntk, shapes.ntk, rtol=1e-6)
    np.testing.assert_allclose(shapes.nngp[2, 2], 1 / 128 / 2, rtol=1e-5)  # relu halves the mean square of two words
