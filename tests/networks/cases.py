"""Rows of the package `networks`."""

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import networks
from tests.cases import Case

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(4, 3))
KERNEL, BIAS = _RNG.normal(size=(3, 2)), _RNG.normal(size=2)


def _nnx(kernel, bias, x):
    from flax import nnx

    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0), param_dtype=kernel.dtype)
    return networks.from_nnx(module).apply({"kernel": kernel, "bias": bias}, x)


def _callable(kernel, bias, x):
    network = networks.from_callable(jax.tree_util.Partial(lambda w, b, one: jnp.tanh(one @ w + b), kernel, bias))
    return network.apply(network.params, x)


def _init_apply(kernel, bias, x):
    def apply_fn(params, x):
        return x @ params[0] + jnp.expand_dims(params[1], 0)

    network = networks.from_init_apply(lambda key, x: (kernel, bias), apply_fn, jax.random.key(0), x)
    return network.apply(network.params, x)


CASES = (
    Case("dltheory.networks.from_nnx", call=_nnx, args=(KERNEL, BIAS, X), grad=(0, 1, 2)),
    Case("dltheory.networks.from_callable", call=_callable, args=(KERNEL, BIAS, X), grad=(0, 1, 2)),
    Case(
        "dltheory.networks.from_init_apply",
        call=_init_apply,
        args=(KERNEL, BIAS, X),
        wrong={"x": (KERNEL, BIAS, np.array(1.0))},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.networks.sinusoidal_embedding",
        call=lambda t, period: networks.sinusoidal_embedding(t, 4, period),
        args=(X[0], np.array(50.0)),
        wrong={"max_period": (X[0], X[0])},
        grad=(0, 1),
    ),
)
