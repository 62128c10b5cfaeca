"""neural-tangents on current JAX: its kernels are right, and JAX is left as it was."""

import importlib.util
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory.interop import neural_tangents

pytestmark = pytest.mark.usefixtures("unoptimized")
INSTALLED = all(importlib.util.find_spec(name) for name in ("neural_tangents", "frozendict"))
needs_neural_tangents = pytest.mark.skipif(
    not INSTALLED, reason="neural-tangents is not installed (pip install --no-deps neural-tangents frozendict)"
)


@pytest.fixture(scope="module")
def nt():
    return neural_tangents.load()


@pytest.fixture(scope="module")
def stax(nt):
    return importlib.import_module("neural_tangents.stax")


def python(code):
    """Runs code in a fresh interpreter in which warnings are errors; returns what it prints."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_neural_tangents
def test_jax_is_left_as_it_was():
    python("""
        import sys
        import jax, jax.core, jax.extend.core, jax.interpreters.ad
        before = {name: set(vars(sys.modules[name])) for name in ("jax", "jax.core", "jax.interpreters.ad")}
        from dltheory.interop import neural_tangents
        nt = neural_tangents.load()
        for name, names in before.items():
            new = set(vars(sys.modules[name])) - names
            assert not new & {"Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var", "util", "zeros_like_p"}, new
        assert "jax.util" not in sys.modules and "tensorflow" not in sys.modules and "tf2jax" not in sys.modules
        import neural_tangents as again
        assert again is nt is neural_tangents.load()
    """)


@needs_neural_tangents
@pytest.mark.slow
def test_a_plain_import_that_failed_before_does_no_harm():
    python("""
        try:
            import neural_tangents
        except ImportError:
            pass
        from dltheory.interop import neural_tangents
        nt = neural_tangents.load()
        assert callable(nt.stax.Dense) and callable(nt.empirical_ntk_fn)
    """)


@needs_neural_tangents
@pytest.mark.slow
def test_threads_get_the_same_module():
    out = python("""
        from concurrent.futures import ThreadPoolExecutor
        from dltheory.interop import neural_tangents
        with ThreadPoolExecutor(8) as pool:
            print(len({id(module) for module in pool.map(lambda _: neural_tangents.load(), range(8))}))
    """)
    assert out.split() == ["1"]


@pytest.mark.parametrize("absent", ["neural_tangents", "frozendict"])
def test_what_is_not_installed_is_named(monkeypatch, absent):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else find(name))
    for name in [name for name in sys.modules if name.partition(".")[0] == "neural_tangents"]:
        monkeypatch.delitem(sys.modules, name)
    if absent == "frozendict" and not INSTALLED:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else object())
    with pytest.raises(ImportError, match=rf"{absent} is not installed.*pip install --no-deps") as error:
        neural_tangents.load()
    assert error.value.name == absent


@needs_neural_tangents
def test_what_needs_tensorflow_says_so(nt):
    with pytest.raises(AttributeError, match="needs TensorFlow"):
        nt.experimental.empirical_ntk_fn_tf  # noqa: B018


def network(stax):
    """A small network with a convolution, a skip connection, an exact activation, pooling and two outputs."""
    skip = stax.serial(
        stax.FanOut(2), stax.parallel(stax.Identity(), stax.Conv(3, (3, 3), padding="SAME")), stax.FanInSum()
    )
    layers = stax.Conv(3, (3, 3), padding="SAME", b_std=0.1), stax.Gelu(), skip, stax.GlobalAvgPool(), stax.Dense(2)
    init_fn, apply_fn, _ = stax.serial(*layers)
    x = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
    return apply_fn, init_fn(jax.random.key(1), x.shape)[1], x


@needs_neural_tangents
@pytest.mark.slow
@pytest.mark.parametrize("implementation", [0, 1, 2, 3])
def test_empirical_kernel_is_the_contraction_of_jacobians(nt, stax, implementation, x64, capsys):
    apply_fn, params, x = network(stax)
    ntk_fn = nt.empirical_ntk_fn(apply_fn, trace_axes=(), vmap_axes=0, implementation=implementation)
    kernel = jax.jit(ntk_fn)(x, x[:2], params)
    capsys.readouterr()  # the automatic choice prints
    jacobian = jax.jacrev(apply_fn)(params, x)
    rows = np.concatenate([np.reshape(leaf, (3, 2, -1)) for leaf in jax.tree.leaves(jacobian)], axis=-1)
    np.testing.assert_allclose(kernel, np.einsum("ikp,jlp->ijkl", rows, rows[:2]), rtol=1e-12)


@needs_neural_tangents
@pytest.mark.slow
def test_structured_derivatives_run_without_jit(nt, stax):
    apply_fn, params, x = network(stax)
    kernels = [
        nt.empirical_ntk_fn(apply_fn, trace_axes=(-1,), vmap_axes=0, implementation=implementation)(x, None, params)
        for implementation in (1, 3)
    ]
    np.testing.assert_allclose(*kernels, rtol=1e-5)


@needs_neural_tangents
@pytest.mark.slow
def test_expansions_and_products(nt, stax, x64):
    apply_fn, params, x = network(stax)
    moved = jax.tree.map(lambda leaf: leaf + 0.01 * jnp.cos(leaf), params)
    exact = apply_fn(moved, x)
    errors = [
        float(jnp.max(jnp.abs(fn(moved, x) - exact)))
        for fn in (nt.linearize(apply_fn, params), nt.taylor_expand(apply_fn, params, 2))
    ]
    assert 0 < errors[1] < 0.1 * errors[0]
    kernel = nt.empirical_ntk_fn(apply_fn, trace_axes=(), vmap_axes=0)(x, None, params)
    vector = jnp.arange(6.0).reshape(3, 2)
    product = nt.empirical_ntk_vp_fn(apply_fn, x, None, params)(vector)
    np.testing.assert_allclose(product, jnp.einsum("ijkl,jl->ik", kernel, vector), rtol=1e-10)


@needs_neural_tangents
def test_infinite_width_kernel_is_the_arc_cosine_recursion(nt, stax, x64):
    _, _, kernel_fn = stax.serial(stax.Dense(1, 1.5, 0.1), stax.Relu(), stax.Dense(1, 1.5, 0.1))
    x = np.random.default_rng(0).normal(size=(4, 3))
    gram = 1.5**2 * x @ x.T / 3 + 0.1**2
    scale = np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    angle = np.arccos(np.clip(gram / scale, -1, 1))
    nngp = 1.5**2 * scale * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi) + 0.1**2
    ntk = nngp + 1.5**2 * gram * (np.pi - angle) / (2 * np.pi)
    kernel = kernel_fn(jnp.asarray(x), None)
    np.testing.assert_allclose(kernel.nngp, nngp, rtol=1e-7)
    np.testing.assert_allclose(kernel.ntk, ntk, rtol=1e-7)
    batched = nt.batch(kernel_fn, batch_size=2, device_count=0)(jnp.asarray(x), None, "ntk")
    np.testing.assert_allclose(batched, ntk, rtol=1e-7)


@needs_neural_tangents
@pytest.mark.slow
def test_monte_carlo_kernel_is_near_the_limit(nt, stax):
    init_fn, apply_fn, kernel_fn = stax.serial(stax.Dense(256), stax.Erf(), stax.Dense(1))
    x = jax.random.normal(jax.random.key(0), (2, 4))
    estimate = nt.monte_carlo_kernel_fn(init_fn, apply_fn, jax.random.key(1), n_samples=50, vmap_axes=0)(x, None, "ntk")
    np.testing.assert_allclose(estimate, kernel_fn(x, None, "ntk"), rtol=0.1)


@needs_neural_tangents
@pytest.mark.slow
def test_predictions(nt, stax, x64):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(7, 20)) / np.sqrt(20)
    gram = features @ features.T
    train, cross = gram[:5, :5], gram[5:, :5]
    y = rng.normal(size=(5, 1))
    predict_fn = nt.predict.gradient_descent_mse(jnp.asarray(train), jnp.asarray(y))
    np.testing.assert_allclose(
        predict_fn(None, 0.0, 0.0, jnp.asarray(cross))[1], cross @ np.linalg.solve(train, y), rtol=1e-8
    )
    values, vectors = np.linalg.eigh(train)
    decay = vectors @ np.diag(np.exp(-2.5 * values / 5)) @ vectors.T  # the loss is a mean over the 5 outputs
    np.testing.assert_allclose(predict_fn(2.5, 0.0, 0.0, jnp.asarray(cross))[0], y - decay @ y, rtol=1e-8)
    general = nt.predict.gradient_descent(lambda f, y: 0.5 * jnp.mean((f - y) ** 2), jnp.asarray(train), jnp.asarray(y))
    np.testing.assert_allclose(general(2.5, jnp.zeros((5, 1))), y - decay @ y, rtol=1e-5)
    for momentum in (0.0, 0.9):
        limit = nt.predict.max_learning_rate(jnp.asarray(train), momentum=momentum)
        np.testing.assert_allclose(limit, 2 * (1 + momentum) * 5 / values[-1], rtol=1e-6)

    _, _, kernel_fn = stax.serial(stax.Dense(1), stax.Erf(), stax.Dense(1))
    x = jnp.asarray(rng.normal(size=(5, 3)))
    ensemble = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, jnp.asarray(y))
    kernel = np.asarray(kernel_fn(x, None, "nngp"))
    posterior = ensemble(x_test=x[:1] + 1, get="nngp", compute_cov=True)
    new = np.asarray(kernel_fn(x[:1] + 1, x, "nngp"))
    np.testing.assert_allclose(posterior.mean, new @ np.linalg.solve(kernel, y), rtol=1e-6)
    variance = np.asarray(kernel_fn(x[:1] + 1, None, "nngp")) - new @ np.linalg.solve(kernel, new.T)
    np.testing.assert_allclose(posterior.covariance, variance, rtol=1e-6)


@needs_neural_tangents
@pytest.mark.slow
def test_predictors_are_made_and_used_inside_of_transformations(nt, x64):
    kernels = jnp.stack([jnp.eye(3) + scale for scale in (0.1, 0.2)])
    y = jnp.arange(3.0)[:, None]
    for time in (None, 2.0):
        apart = [nt.predict.gradient_descent_mse(kernel, y)(time, 0.0, 0.0, kernel)[1] for kernel in kernels]
        together = jax.vmap(lambda kernel, t=time: nt.predict.gradient_descent_mse(kernel, y)(t, 0.0, 0.0, kernel)[1])
        np.testing.assert_allclose(together(kernels), apart, rtol=1e-10)
        predict_fn = nt.predict.gradient_descent_mse(kernels[0], y)
        for _ in range(2):  # what the first trace left must not be a tracer
            compiled = jax.jit(lambda kernel, fn=predict_fn, t=time: fn(t, 0.0, 0.0, kernel)[1])
            np.testing.assert_allclose(compiled(kernels[0]), apart[0], rtol=1e-10)
