"""Normal random numbers made in one pass are those of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory._noise import normal


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (5, 3)])
def test_numbers_are_those_of_jax(dtype, shape, x64):
    key = jax.random.key(7)
    ours, theirs = normal(key, shape, dtype), jax.random.normal(key, shape, dtype)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(np.asarray(ours, np.float64), np.asarray(theirs, np.float64))


def test_mapped_and_compiled_numbers_are_those_of_jax():
    keys = jax.random.split(jax.random.key(1), 4)
    ours = jax.jit(jax.vmap(lambda key: normal(key, (3,))))(keys)
    np.testing.assert_allclose(ours, jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys), rtol=1e-6)


@pytest.mark.parametrize("key", [jax.random.key(0, impl="rbg"), jax.random.PRNGKey(0)], ids=["rbg", "raw"])
def test_other_keys_are_left_to_jax(key):
    np.testing.assert_array_equal(normal(key, (4,)), jax.random.normal(key, (4,)))


def test_numbers_do_not_depend_on_how_threefry_counts():
    with jax.threefry_partitionable(False):
        np.testing.assert_array_equal(normal(jax.random.key(0), (5,)), jax.random.normal(jax.random.key(0), (5,)))
    assert jnp.isfinite(normal(jax.random.key(0), (5,))).all()
