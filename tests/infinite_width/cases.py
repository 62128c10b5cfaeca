"""Rows of the part infinite width."""

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import infinite_width
from tests.cases import Case

_RNG = np.random.default_rng(0)
X, X_TEST = _RNG.normal(size=(4, 3)), _RNG.normal(size=(2, 3))
KEY = jax.random.key(0)


def _init(key, x):
    keys = jax.random.split(key)
    shapes = ((x.shape[-1], 6), (6, 2))
    return [jax.random.normal(k, shape, x.dtype) for k, shape in zip(keys, shapes, strict=True)]


def _apply(params, x):
    first, second = params
    return jnp.tanh(x @ first / first.shape[0] ** 0.5) @ second / second.shape[0] ** 0.5


def _kernel(x1, x2):
    params = jax.eval_shape(_init, KEY, x1)
    return infinite_width.kernel_fn(_apply, params, param_variance=1.0)(x1, x2)


def _monte_carlo(key, x1, x2):
    return infinite_width.monte_carlo_kernel(_init, _apply, x1, x2, key=key, num_samples=3)


_CASES = (
    Case("kernel_fn", (X, X_TEST), call=_kernel, wrong={"x2": (X, np.ones((2, 4)))}, grad=(0, 1)),
    Case("monte_carlo_kernel", (KEY, X, X_TEST), call=_monte_carlo, grad=(1, 2)),
)
CASES = tuple(Case(**{**vars(case), "name": f"dltheory.infinite_width.{case.name}"}) for case in _CASES)
