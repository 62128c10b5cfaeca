"""Kernels read off Flax modules against those of neural-tangents for the same networks in its own language."""

import functools
import importlib
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import infinite_width
from dltheory.interop import neural_tangents
from tests.infinite_width.nets import NETS, inputs

INSTALLED = all(importlib.util.find_spec(name) for name in ("neural_tangents", "frozendict"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("unoptimized"),
    pytest.mark.skipif(
        not INSTALLED, reason="neural-tangents is not installed (pip install --no-deps neural-tangents frozendict)"
    ),
    # It warns whenever it assumes unit variance or independent branches, or expands an activation numerically.
    pytest.mark.filterwarnings("ignore::UserWarning:neural_tangents"),
    pytest.mark.statement("nngp.kernel_recursion", "ntk.analytic_recursion"),
]


@functools.cache
def theirs(name):
    """Kernels [4, 3] and [4, 4] in double precision."""
    neural_tangents.load()
    stax = importlib.import_module("neural_tangents.stax")
    net = NETS[name]
    with jax.enable_x64():
        x1, x2 = inputs(net)
        kernel_fn = net.stax(stax)[2]
        cross = kernel_fn(x1, x2, ("nngp", "ntk"), **net.kwargs(4, 3))
        own = kernel_fn(x1, None, ("nngp", "ntk"), **net.kwargs(4, 4))
    return tuple(np.asarray(k) for k in (cross.nngp, cross.ntk, own.nngp, own.ntk))


def ours(name, x1, x2, **settings):
    """The same, from the shapes of the parameters alone."""
    net = NETS[name]
    params = jax.eval_shape(net.module.init, jax.random.key(0), x1)
    settings = {"param_variance": net.param_variance} | settings
    kernel = infinite_width.kernel_fn(net.module.apply, params, **settings)
    both = jax.jit(lambda x1, x2: (*kernel(x1, x2), *kernel(x1)))
    return both(x1, x2)


def close(found, expected, tolerance, coincident=None):
    """Equality up to rounding, of which the last kernel, the tangents of inputs with themselves, may have more."""
    tolerances = [tolerance] * 3 + [coincident or tolerance]
    for ours, theirs, tolerance in zip(found, expected, tolerances, strict=True):
        assert ours.shape == theirs.shape
        assert np.isfinite(ours).all()
        known = np.isfinite(theirs)  # theirs is NaN at coincident inputs of `RectifiedMonomial`
        assert known.mean() >= 0.75
        np.testing.assert_allclose(ours[known], theirs[known], rtol=0, atol=tolerance * np.abs(theirs[known]).max())


@pytest.mark.parametrize("name", NETS)
def test_both_precisions(name):
    """Theirs stays in double precision, for it loses half of the digits of a rectifier's tangent kernel."""
    single = ours(name, *inputs(NETS[name], jnp.float32))
    assert all(kernel.dtype == jnp.float32 for kernel in single)
    close(single, theirs(name), 1e-5, 1e-4)
    with jax.enable_x64():
        close(ours(name, *inputs(NETS[name])), theirs(name), 1e-9, 1e-8)


@pytest.mark.parametrize("name", ["erf", "erf_biases", "conv_1d", "conv_library"])
def test_concrete_parameters_tell_their_variances(name):
    """What a module draws is told apart from parameters of unit variance."""
    net = NETS[name]
    x1, x2 = inputs(net, jnp.float32)
    params = jax.jit(net.module.init)(jax.random.key(0), x1)
    kernel = infinite_width.kernel_fn(net.module.apply, params)
    close((*kernel(x1, x2), *kernel(x1)), theirs(name), 1e-5)


VARIANCES = {
    "number": ("erf_biases", lambda params: 1.0),
    "tree": ("erf_biases", lambda params: jax.tree.map(lambda leaf: 1.0, params)),
    "function": ("erf_biases", lambda params: lambda path, shape: 1.0),
    "lecun": ("conv_1d", lambda params: "lecun"),
    "lecun by a tree": (
        "conv_1d",
        lambda params: jax.tree.map(lambda leaf: 1 / np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 0.0, params),
    ),
    "lecun by a function": (
        "conv_1d",
        lambda params: lambda path, shape: 1 / np.prod(shape[:-1]) if path.endswith("kernel") else 0.0,
    ),
}


@pytest.mark.parametrize("form", VARIANCES)
def test_forms_of_the_variances(form):
    name, variance = VARIANCES[form]
    x1, x2 = inputs(NETS[name], jnp.float32)
    params = jax.eval_shape(NETS[name].module.init, jax.random.key(0), x1)
    close(ours(name, x1, x2, param_variance=variance(params)), theirs(name), 1e-5)
