"""The README's table for users of neural-tangents: complete, and each row says what is equal to what."""

import functools
import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dltheory import nngp, ntk
from dltheory.interop import neural_tangents

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("unoptimized"),
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("neural_tangents", "frozendict")),
        reason="neural-tangents is not installed (pip install --no-deps neural-tangents frozendict)",
    ),
]
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10)


@pytest.fixture(scope="module")
def nt():
    return neural_tangents.load()


class Net(nn.Module):
    """Two layers, three outputs."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, param_dtype=x.dtype)(nn.gelu(nn.Dense(5, param_dtype=x.dtype)(x)))


@pytest.fixture
def network(x64):
    x = jax.random.normal(jax.random.key(0), (4, 2))
    module = Net()
    return module.apply, jax.jit(module.init)(jax.random.key(1), x), x


@pytest.fixture
def kernels(x64):
    """A kernel on four training and two test inputs, and targets."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 9))
    gram = jnp.asarray(features @ features.T)
    return gram[:4, :4], gram[4:, :4], gram[4:, 4:], jnp.asarray(rng.normal(size=(4, 2)))


def test_every_public_name_has_its_row(nt):
    section = README.partition("## Coming from neural-tangents")[2].partition("\n## ")[0]
    words = set(re.findall(r"\w+", section))
    for module in (nt, nt.predict, nt.stax):
        names = {name for name, thing in vars(module).items() if not name.startswith("_") and thing is not nt}
        assert names - words <= {"ODEState"}  # what `nt.predict.gradient_descent` returns


def test_empirical_kernels(nt, network):
    apply_fn, params, x = network
    full = nt.empirical_ntk_fn(apply_fn, trace_axes=(), vmap_axes=0)(x, x[:2], params)
    close(ntk.empirical_ntk(apply_fn, params, x, x[:2]), full)
    traced = nt.empirical_kernel_fn(apply_fn, vmap_axes=0)(x, None, ("nngp", "ntk"), params)
    close(ntk.empirical_ntk(apply_fn, params, x, trace_axes=(-1,)), traced.ntk)
    close(ntk.empirical_nngp(apply_fn, params, x, trace_axes=(-1,)), traced.nngp)
    close(ntk.empirical_nngp(apply_fn, params, x), nt.empirical_nngp_fn(apply_fn, trace_axes=())(x, None, params))
    batched = nt.batch(nt.empirical_ntk_fn(apply_fn, vmap_axes=0), batch_size=2, device_count=0)(x, None, params)
    close(ntk.empirical_ntk(apply_fn, params, x, trace_axes=(-1,), block_size=2), batched)
    diagonal = nt.empirical_ntk_fn(apply_fn, trace_axes=(), diagonal_axes=(-1,), vmap_axes=0)(x, None, params)
    close(ntk.empirical_ntk(apply_fn, params, x, diagonal_axes=(-1,)), diagonal)
    vector = jnp.arange(6.0).reshape(2, 3)
    close(
        ntk.ntk_matvec(apply_fn, params, x, x[:2])(vector),
        nt.empirical_ntk_vp_fn(apply_fn, x, x[:2], params)(vector),
    )


def test_expansions(nt, network):
    apply_fn, params, x = network
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(leaf), params)
    close(ntk.linearize(apply_fn, params)(moved, x), nt.linearize(apply_fn, params)(moved, x))
    close(ntk.taylor_expand(apply_fn, params, 2)(moved, x), nt.taylor_expand(apply_fn, params, 2)(moved, x))


def test_predictions(nt, kernels):
    train, cross, _, y = kernels
    start, start_test = 0.1 * y, jnp.ones((2, 2))
    predict_fn = nt.predict.gradient_descent_mse(train, y)
    for time in (0.0, 3.0):
        theirs = predict_fn(time, start, start_test, cross)
        ours = ntk.predict(train, cross, y, start, start_test, time=time / y.size)
        close(ours.train, theirs[0])
        close(ours.test, theirs[1])
    close(ntk.predict(train, cross, y, start, start_test).test, predict_fn(None, start, start_test, cross)[1])
    general = nt.predict.gradient_descent(lambda f, y: 0.5 * jnp.sum((f - y) ** 2), train, y)
    theirs = general(jnp.array([0.5]), start, start_test, cross)[1]
    ours = ntk.predict_loss(
        lambda f: 0.5 * jnp.sum((f - y) ** 2), train, cross, start, start_test, jnp.array([0.5]), rtol=1e-8
    )
    close(ours.test, theirs, rtol=1e-5, atol=1e-5)
    for momentum in (0.0, 0.9):
        ours = ntk.max_learning_rate(train, momentum)
        close(y.size * ours, nt.predict.max_learning_rate(train, y.size, momentum), rtol=1e-6)


def test_ensembles_and_processes(nt, x64):
    rng = np.random.default_rng(0)
    x, x_test, y = (jnp.asarray(rng.normal(size=shape)) for shape in ((4, 3), (2, 3), (4, 1)))
    _, _, kernel_fn = nt.stax.serial(nt.stax.Dense(1, 1.5, 0.1), nt.stax.Erf(), nt.stax.Dense(1, 1.5, 0.1))
    blocks = [kernel_fn(*pair, ("nngp", "ntk")) for pair in ((x, None), (x_test, x), (x_test, None))]
    (nngp_train, ntk_train), (nngp_cross, ntk_cross), (nngp_test, _) = blocks
    for time in (None, 2.0):
        theirs = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, y)(time, x_test, "ntk", compute_cov=True)
        ours = ntk.ensemble_moments(
            ntk_train, ntk_cross, nngp_train, nngp_cross, nngp_test, y, time=jnp.inf if time is None else time / y.size
        )
        close(ours.mean, theirs.mean)
        close(ours.covariance, theirs.covariance)
    theirs = nt.predict.gp_inference(nngp_train, y, diag_reg=0.1, diag_reg_absolute_scale=True)(
        "nngp", nngp_cross, nngp_test
    )
    ours = nngp.gp_condition(nngp_train, nngp_cross, nngp_test, y, noise=0.1)
    close(ours.mean, theirs.mean)
    close(ours.covariance, theirs.covariance)


def test_kernels_of_infinitely_wide_networks(nt, x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    layers = [nt.stax.Dense(1, 1.5, 0.1), nt.stax.Gelu()] * 2
    kernel = nt.stax.serial(*layers, nt.stax.Dense(1, 1.5, 0.1))[2](x, x[:2])
    ours = ntk.analytic_ntk(x, x[:2], depth=2, sigma_w=1.5, sigma_b=0.1, activation="gelu")
    close(ours[0], kernel.nngp)
    close(ours[1], kernel.ntk)
