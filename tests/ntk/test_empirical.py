import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from dltheory import ntk
from dltheory._programs import trace
from dltheory.ntk import empirical
from dltheory.ntk._contraction import choose_route
from dltheory.ntk._factors import Outputs, factor_sizes
from dltheory.ntk._sites import find_bottleneck, find_factors
from tests.ntk.architectures import ARCHITECTURES, random_network

pytestmark = pytest.mark.statement("ntk.kernel")


def jacobian(apply_fn, params, x):
    """Gradients of all outputs of all inputs by all entries, [n, ..., p]: one backward pass for each output."""
    frozen = {key: value for key, value in params.items() if key != "params"} if "params" in params else None
    flat, unravel = ravel_pytree(params if frozen is None else params["params"])

    def one(flat, example):
        tree = unravel(flat) if frozen is None else {**frozen, "params": unravel(flat)}
        return apply_fn(tree, jax.tree.map(lambda leaf: leaf[None], example))[0]

    return jax.vmap(jax.jacrev(one), (None, 0))(flat, x)


def reference(apply_fn, params, x1, x2=None):
    """The kernel [n, m, k, k] as a product of Jacobians."""
    left = jacobian(apply_fn, params, x1)
    right = left if x2 is None else jacobian(apply_fn, params, x2)
    return jnp.einsum("ikp,jlp->ijkl", left, right)


def both(apply_fn, params, x):
    """The kernel and its reference, compiled together: one by one their operations take far longer to compile."""
    return jax.jit(lambda p, x: (ntk.empirical_ntk(apply_fn, p, x), reference(apply_fn, p, x)))(params, x)


def close(kernel, expected, rtol=1e-9):
    scale = float(np.max(np.abs(expected)))
    assert scale > 0
    np.testing.assert_allclose(kernel, expected, rtol=0, atol=rtol * scale)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equals_product_of_jacobians(name, x64):
    apply_fn, params, x = random_network(name)
    expected = jax.jit(functools.partial(reference, apply_fn))(params, x)

    def kernels(params, x):
        return (
            ntk.empirical_ntk(apply_fn, params, x),
            ntk.empirical_ntk(apply_fn, params, x[:3], x[1:], block_size=2),
        )

    whole, crossed = jax.jit(kernels)(params, x)
    close(whole, expected)
    close(crossed, expected[:3, 1:])
    np.testing.assert_allclose(whole, whole.transpose(1, 0, 3, 2), rtol=0, atol=1e-12 * np.max(np.abs(whole)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["jacobian", "vector_product"])
@pytest.mark.parametrize("name", ["pooled residual, frozen batch norm", "recurrent", "embedding, attention"])
def test_methods_agree(name, method, x64):
    apply_fn, params, x = random_network(name)
    both = jax.jit(
        lambda params, x: [ntk.empirical_ntk(apply_fn, params, x, x[:2], method=m) for m in ("factorized", method)]
    )
    factorized, other = both(params, x)
    close(other, factorized)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_factorise(name, x64):
    """Explicit Jacobians of the weights would give the right kernel too: that there are none is looked at here."""
    apply_fn, params, x = random_network(name)
    leaves, tree = jax.tree.flatten(params["params"])
    program, _ = trace(
        lambda leaves, x: apply_fn({**params, "params": jax.tree.unflatten(tree, leaves)}, x[None])[0], leaves, x[0]
    )
    factors = find_factors(program, range(len(leaves)))
    numbers = [factor.sites[0].number for factor in factors]
    whole = [number for number in numbers if number in program.inputs and len(program.shape(number)) > 1]
    assert len(whole) == ARCHITECTURES[name].whole
    assert sum(len(factor.rows) for factor in factors) == len(leaves)


def routes(apply_fn, shapes, input_shape, num_outputs, n=64):
    """The route of each factor of a network with the given shapes of parameters."""
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    dtype = jnp.int32 if input_shape == (64,) else jnp.float32
    program, _ = trace(lambda leaves, x: apply_fn(leaves, x[None])[0], args, jax.ShapeDtypeStruct(input_shape, dtype))
    outputs = Outputs(np.arange(num_outputs), 1, 1, num_outputs)
    factors = find_factors(program, range(len(shapes)))
    sizes = factor_sizes(program, factors)
    return [choose_route(program, *each, outputs, n).name for each in zip(factors, sizes, strict=True)]


def test_routes_are_the_cheap_ones():
    def convolutional(w, x):
        for kernel in w[:2]:
            x = jnp.tanh(jax.lax.conv(x, kernel, (1, 1), "SAME"))
        return x.mean((2, 3)) @ w[2]

    shapes = [(64, 3, 3, 3), (64, 64, 3, 3), (64, 10)]
    assert routes(convolutional, shapes, (3, 16, 16), 10) == ["weights", "channels", "positions"]
    assert routes(lambda w, x: jnp.tanh(x @ w[0]) @ w[1], [(99, 500), (500, 9)], (99,), 9) == ["positions"] * 2
    embedding = lambda w, x: jnp.tanh(jnp.tanh(w[0][x]) @ w[1]).sum(1) @ w[2]  # noqa: E731
    assert routes(embedding, [(2000, 64), (64, 64), (64, 10)], (64,), 10)[0] == "positions"


def test_bottleneck_needs_every_path(x64):
    """A second way around the pooling, or a mixing of channels before it, leaves no bottleneck."""

    def pooled(around, mixed):
        def apply(w, x):
            y = jnp.tanh(jax.lax.conv(x[None], w, (1, 1), "SAME"))
            y = jnp.cumsum(y, axis=1) if mixed else y
            pooled = y.mean((0, 2, 3))
            return jnp.stack([jnp.sum(pooled**2), jnp.sum(y**3) if around else jnp.sum(pooled)])

        return apply

    def bottleneck(**kinds):
        program, _ = trace(pooled(**kinds), jnp.ones((4, 2, 3, 3)), jnp.ones((2, 5, 5)))
        (factor,) = find_factors(program, [0])
        return find_bottleneck(program, factor.sites[0])

    assert bottleneck(around=False, mixed=False) is not None
    assert bottleneck(around=True, mixed=False) is None
    assert bottleneck(around=False, mixed=True) is None


CONVOLUTIONS = {
    "1-d, strided": ((2, 9), (4, 2, 3), ("NCH", "OIH", "NCH"), {"window_strides": (2,), "padding": "SAME"}),
    "3-d": (
        (3, 4, 3, 2),
        (2, 2, 2, 2, 3),
        ("NDHWC", "DHWIO", "NDHWC"),
        {"window_strides": (1, 2, 1), "padding": "VALID"},
    ),
    "channels first": ((2, 5, 6), (3, 2, 3, 3), ("NCHW", "OIHW", "NCHW"), {"padding": "SAME"}),
    "layouts that differ": ((2, 5, 6), (3, 3, 2, 4), ("NCHW", "HWIO", "WHNC"), {"padding": ((1, 0), (0, 2))}),
    "dilated filter and input": (
        (6, 5, 2),
        (2, 3, 2, 4),
        ("NHWC", "HWIO", "NHWC"),
        {"padding": ((2, 1), (1, 2)), "lhs_dilation": (2, 1), "rhs_dilation": (2, 2)},
    ),
    "cropped": ((6, 6, 2), (3, 3, 2, 4), ("NHWC", "HWIO", "NHWC"), {"padding": ((-1, 0), (1, -2))}),
    "depthwise": ((5, 4, 3), (3, 3, 1, 6), ("NHWC", "HWIO", "NHWC"), {"padding": "SAME", "feature_group_count": 3}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_of_all_kinds(name, x64):
    shape, filter_shape, numbers, kinds = CONVOLUTIONS[name]
    strides = kinds.get("window_strides", (1,) * (len(shape) - 1))
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=filter_shape))}
    x = jnp.asarray(rng.normal(size=(3, *shape)))

    def apply(params, x):
        options = {key: value for key, value in kinds.items() if key != "window_strides"}
        y = jax.lax.conv_general_dilated(x, params["w"], strides, dimension_numbers=numbers, **options)
        y = jnp.moveaxis(y, numbers[2].index("N"), 0)
        weights = jnp.cos(jnp.arange(y[0].size * 2.0)).reshape(-1, 2)
        return jnp.tanh(y).reshape(x.shape[0], -1) @ weights

    close(*both(apply, params, x))
    program, _ = trace(lambda w, x: apply({"w": w}, x[None])[0], params["w"], x[0])
    (factor,) = find_factors(program, [0])
    assert factor.rows[0][0].kind == "patches"


PRODUCTS = {
    "left operand": ((5, 2), (3, 2), "oi,nti->nto"),
    "batched weights": ((2, 3, 4), (2, 3), "tio,nti->nto"),
    "two contracted": ((3, 2, 4), (2, 3), "ito,nti->no"),
    "two contracted, crossed": ((2, 3, 4), (2, 3), "tio,nti->no"),
    "several outputs": ((3, 2, 4), (5, 3), "iab,nti->ntab"),
    "transposed out": ((3, 4), (5, 3), "io,nti->not"),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_all_kinds(name, x64):
    shape, input_shape, subscripts = PRODUCTS[name]
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=shape))}
    x = jnp.asarray(rng.normal(size=(3, *input_shape)))

    def apply(params, x):
        y = jnp.tanh(jnp.einsum(subscripts, 0.5 * params["w"] / jnp.sqrt(2.0), x)).reshape(x.shape[0], -1)
        return y @ jnp.cos(jnp.arange(y[0].size * 2.0)).reshape(-1, 2)

    close(*both(apply, params, x))
    program, _ = trace(lambda w, x: apply({"w": w}, x[None])[0], params["w"], x[0])
    (factor,) = find_factors(program, [0])
    assert factor.rows[0][0].kind == "array"


def test_a_network_that_squeezes_its_batch(x64):
    """Of one row it loses the axis of rows; the kernel has the axes that the outputs of several rows have."""
    rng = np.random.default_rng(0)
    params, x = {"w": jnp.asarray(rng.normal(size=(3, 3)))}, jnp.asarray(rng.normal(size=(4, 3)))

    def apply(params, x, squeeze=lambda y: y):
        return squeeze(jnp.tanh(x @ params["w"])) @ params["w"][:, :2]

    squeezed = functools.partial(apply, squeeze=jnp.squeeze)
    kernel = jax.jit(functools.partial(ntk.empirical_ntk, squeezed))(params, x)
    close(kernel, jax.jit(functools.partial(reference, apply))(params, x))


@pytest.mark.parametrize("modulated", [lambda w, row: w * row[0], lambda w, row: jnp.tile(w, (1, 1, 1, 2)) * row[1]])
def test_rows_with_filters_of_their_own(modulated, x64):
    """Mapped over rows, a convolution with a filter for each becomes one with groups, which does not mix them."""
    rng = np.random.default_rng(0)
    params, x = {"w": jnp.asarray(rng.normal(size=(2, 2, 1, 1)))}, jnp.asarray(rng.normal(size=(3, 4)))

    def apply_row(params, row):
        numbers = ("NHWC", "HWIO", "NHWC")
        image, taps = row.reshape(1, 2, 2, 1), modulated(params["w"], row)
        y = jax.lax.conv_general_dilated(image, taps, (1, 1), "SAME", dimension_numbers=numbers)
        return jnp.tanh(y).sum((0, 1, 2))

    apply_fn = jax.vmap(apply_row, (None, 0))
    close(*both(apply_fn, params, x))


def test_products_of_outputs_in_pairs_need_as_many():
    with pytest.raises(ValueError, match="`x2`"):
        ntk.empirical_nngp(dense, W, X, X[:2], diagonal_axes=(0,))


def test_a_filter_shared_by_convolutions_with_other_groups(x64):
    """A filter on one channel, then the same on each of the channels it made."""
    rng = np.random.default_rng(0)
    params, x = {"w": jnp.asarray(rng.normal(size=(2, 2, 1, 3)))}, jnp.asarray(rng.normal(size=(2, 4, 4, 1)))

    def apply(params, x):
        for groups in (1, 3):
            numbers = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(
                jnp.tanh(x), params["w"], (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups
            )
        return x.mean((1, 2))

    close(*both(apply, params, x))


def odd_uses():
    """Networks that use parameters in ways that must not be mistaken for a layer."""
    w, x_sum = (lambda p: p["w"]), (lambda x: x.sum(1, keepdims=True))
    return {
        "not used": lambda p, x: jnp.stack([x_sum(x)[:, 0], jnp.full(len(x), p["w"][0, 0])], 1),
        "twice in one product": lambda p, x: x @ (w(p) @ w(p)),
        "used and returned": lambda p, x: x @ w(p) + w(p)[:1],
        "left and right": lambda p, x: (x @ w(p)) @ w(p).T,
        "both orders": lambda p, x: jnp.tanh(x @ w(p)) @ w(p),
        "added to itself": lambda p, x: (lambda y: y + y)(x @ w(p)),
        "divided by its norm": lambda p, x: x @ (w(p) / jnp.linalg.norm(w(p))),
        "masked": lambda p, x: x @ (w(p) * jnp.eye(3)),
        "scaled by the input": lambda p, x: jnp.tanh(x @ (w(p) * x[0, 0])) if len(x) == 1 else x @ w(p),
        "sliced": lambda p, x: jnp.tanh(x[:, :2] @ w(p)[:2]) + x @ w(p),
        "overlapping slices": lambda p, x: x[:, :2] @ w(p)[:2] + x[:, 1:] @ w(p)[1:],
        "divisor": lambda p, x: x_sum(x) / (3 + w(p)[:1]),
        "indexed by the input": lambda p, x: w(p)[jnp.clip(x[:, 0].astype(int), 0, 2)],
        "out of the table": lambda p, x: jnp.take(w(p), x[:, :2].astype(int) - 1, axis=0, mode="clip").sum(1),
        "dropped when out of the table": lambda p, x: (
            w(p).at[3 * x[:, :2].astype(int)].get(mode="fill", fill_value=0).sum(1)
        ),
        "vmapped softmax": lambda p, x: jax.vmap(lambda row: jax.nn.softmax(row @ w(p)))(x),
        "stopped": lambda p, x: x @ jax.lax.stop_gradient(w(p)) + jnp.tanh(x @ w(p)),
        "branch": lambda p, x: jax.lax.cond(w(p).sum() > 0, lambda: x @ w(p), lambda: jnp.tanh(x @ w(p))),
        "loop": lambda p, x: jax.lax.fori_loop(0, 3, lambda i, y: jnp.tanh(y @ w(p)), x),
        "carried by a loop": lambda p, x: jax.lax.fori_loop(0, 2, lambda i, c: (c[0] @ c[1], 0.5 * c[1]), (x, w(p)))[0],
        "custom derivative": lambda p, x: jax.nn.relu(w(p)).sum() * x + jax.nn.relu(x @ w(p)),
        "scan with a scale for each step": lambda p, x: jax.lax.scan(
            lambda y, s: (jnp.tanh(y @ (s * w(p))), None), x, jnp.arange(1.0, 3.0)
        )[0],
    }


@pytest.mark.parametrize("name", odd_uses())
def test_odd_uses_of_parameters(name, x64):
    apply_fn = odd_uses()[name]
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 3)))}
    x = jnp.asarray(rng.normal(size=(4, 3)) + 1)
    if name == "scaled by the input":  # one row at a time, as `apply` must not look at other rows
        apply_fn = jax.vmap(lambda p, row, fn=apply_fn: fn(p, row[None])[0], (None, 0))
    close(*both(apply_fn, params, x))


@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 4),
    block_size=st.sampled_from([None, 1, 2, 3]),
    crossed=st.booleans(),
)
@settings(max_examples=6, deadline=None)
def test_blocks_do_not_change_the_kernel(sizes, block_size, crossed):
    n, m, d, k = sizes
    rng = np.random.default_rng(sum(sizes))
    params = {"b": jnp.asarray(rng.normal(size=k), jnp.float32), "w": jnp.asarray(rng.normal(size=(d, k)), jnp.float32)}
    x = jnp.asarray(rng.normal(size=(n, d)), jnp.float32)
    y = jnp.asarray(rng.normal(size=(m, d)), jnp.float32) if crossed else None

    @jax.jit
    def blocked(params, x, y):
        return ntk.empirical_ntk(lambda p, x: x @ p["w"] + p["b"][None], params, x, y, block_size=block_size)

    kernel = blocked(params, x, y)
    gram = x @ (x if y is None else y).T + 1
    np.testing.assert_allclose(kernel, gram[:, :, None, None] * np.eye(k)[None, None], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("crossed", [False, True])
def test_factors_that_are_recomputed(crossed, monkeypatch, x64):
    """With no memory to keep them, the factors of each pair of blocks are made again."""
    apply_fn, params, x = random_network("mlp", n=7)
    expected = jax.jit(functools.partial(reference, apply_fn))(params, x)[:, : 5 if crossed else 7]
    monkeypatch.setattr(empirical, "_KEPT_BYTES", 0)
    monkeypatch.setattr("dltheory.ntk._contraction._BLOCK_ROWS", 6)  # blocks of two examples inside those of three
    x2 = x[:5] if crossed else None
    close(jax.jit(lambda p, x, x2: ntk.empirical_ntk(apply_fn, p, x, x2, block_size=3))(params, x, x2), expected)


def test_small_contraction_blocks(monkeypatch, x64):
    apply_fn, params, x = random_network("mlp", n=7)
    monkeypatch.setattr("dltheory.ntk._contraction._BLOCK_ROWS", 6)

    def kernels(params, x):
        return ntk.empirical_ntk(apply_fn, params, x), ntk.empirical_ntk(apply_fn, params, x[:2], x)

    whole, crossed = jax.jit(kernels)(params, x)
    expected = jax.jit(functools.partial(reference, apply_fn))(params, x)
    close(whole, expected)
    close(crossed, expected[:2])


def grid_network(params, x):
    """Outputs [n, 2, 3]."""
    return jnp.tanh(x @ params["w"]).reshape(x.shape[0], 2, 3)


AXES = [
    ((), ()),
    ((1,), ()),
    ((-1,), (1,)),
    ((), (0,)),
    ((0,), (-1,)),
    ((0, 1, 2), ()),
    ((), (0, 1, 2)),
    ((2,), (0,)),
    ((1, 2), ()),
]


@functools.cache
def grids():
    """Parameters and two sets of inputs of the grid network."""
    rng = np.random.default_rng(0)
    return {"w": rng.normal(size=(4, 6))}, rng.normal(size=(3, 4)), rng.normal(size=(3, 4))


@functools.cache
def kernels_of_grids(kernel_fn, **settings):
    """A kernel of the grid network for all AXES, by one program."""

    @jax.jit
    def kernels(params, x1, x2):
        return [
            kernel_fn(grid_network, params, x1, x2, trace_axes=traced, diagonal_axes=diagonal, **settings)
            for traced, diagonal in AXES
        ]

    return dict(zip(AXES, kernels(*grids()), strict=True))


@functools.cache
def factors_of_grids():
    """Of the two sets of inputs the Jacobians [n, 2, 3, p] and the outputs [n, 2, 3]."""
    params, *inputs = grids()
    return [jax.jit(lambda p, x: (jacobian(grid_network, p, x), grid_network(p, x)))(params, x) for x in inputs]


def on_axes(products, traced, diagonal):
    """Products [n, n, 2, 2, 3, 3] of all pairs of outputs with some axes traced and of some the diagonal."""
    for axis in (2, 1, 0):  # of the outputs; the two axes of each are next to one another
        if axis in [a % 3 for a in (*traced, *diagonal)]:
            products = np.moveaxis(np.diagonal(products, axis1=2 * axis, axis2=2 * axis + 1), -1, 2 * axis)
        if axis in [a % 3 for a in traced]:
            products = products.mean(2 * axis)
    return products


@pytest.mark.parametrize("method", ["factorized", "vector_product"])
@pytest.mark.parametrize(("traced", "diagonal"), AXES)
def test_traced_and_diagonal_axes(traced, diagonal, method, x64):
    (left, _), (right, _) = factors_of_grids()
    expected = on_axes(np.einsum("iabp,jcdp->ijacbd", left, right), traced, diagonal)
    close(kernels_of_grids(ntk.empirical_ntk, method=method)[traced, diagonal], expected)


@pytest.mark.parametrize(("traced", "diagonal"), AXES)
def test_traced_and_diagonal_axes_of_products_of_outputs(traced, diagonal, x64):
    (_, left), (_, right) = factors_of_grids()
    expected = on_axes(np.einsum("iab,jcd->ijacbd", left, right), traced, diagonal)
    close(kernels_of_grids(ntk.empirical_nngp)[traced, diagonal], expected)


def test_pytrees_of_inputs_and_outputs(x64):
    rng = np.random.default_rng(0)
    params = [jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.normal(size=(4, 3)))]
    x = {"a": jnp.asarray(rng.normal(size=(3, 2))), "b": jnp.asarray(rng.normal(size=(3, 4)))}

    def apply(params, x):
        y = jnp.tanh(x["a"] @ params[0] + x["b"] @ params[1])
        return {"first": y[:, 0], "rest": y[:, 1:]}

    kernels, jacobians_of = jax.jit(lambda p, x: (ntk.empirical_ntk(apply, p, x), jax.jacrev(apply)(p, x)))(params, x)
    assert {name: kernel.shape for name, kernel in kernels.items()} == {"first": (3, 3), "rest": (3, 3, 2, 2)}
    for name, kernel in kernels.items():
        jacobians = [np.asarray(jac) for jac in jacobians_of[name]]
        parts = [jac.reshape(3, -1, leaf.size) for jac, leaf in zip(jacobians, params, strict=True)]
        flat = np.concatenate(parts, -1)
        expected = np.einsum("ikp,jlp->ijkl", flat, flat)
        close(np.reshape(kernel, expected.shape), expected)


@pytest.mark.parametrize(("dtype", "rtol"), [("bfloat16", 3e-2), ("float16", 3e-3), ("float32", 1e-5)])
def test_precisions(dtype, rtol):
    with jax.enable_x64():
        apply_fn, params, x = random_network("mlp")
        expected = np.asarray(jax.jit(functools.partial(reference, apply_fn))(params, x))
    low, x_low = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), dtype), (params, x))
    kernel = jax.jit(functools.partial(ntk.empirical_ntk, apply_fn))(low, x_low)
    assert kernel.dtype == dtype
    close(np.asarray(kernel, np.float64), expected, rtol)


def test_frozen_parameters(x64):
    apply_fn, params, x = random_network("mlp")
    vector = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))

    def biases(path):
        return path.endswith("bias")

    @jax.jit
    def kernels(params, x):
        of_layers = [lambda path, i=i: path.startswith(f"params/Dense_{i}/") for i in range(3)]
        chosen = (None, *of_layers, biases)
        matvec = ntk.ntk_matvec(apply_fn, params, x, trainable=biases)
        return [ntk.empirical_ntk(apply_fn, params, x, trainable=each) for each in chosen], matvec(vector)

    (everything, *parts, kernel), product = kernels(params, x)
    close(sum(map(np.asarray, parts)), everything)
    close(product, np.einsum("ijkl,jl->ik", kernel, vector))


def test_batch_statistics_are_not_differentiated(x64):
    apply_fn, params, x = random_network("pooled residual, frozen batch norm")
    frozen, everything = jax.jit(
        lambda p, x: [ntk.empirical_ntk(apply_fn, p, x, trainable=chosen) for chosen in (None, lambda path: True)]
    )(params, x)
    assert np.max(np.abs(everything - frozen)) > 1e-3 * np.max(np.abs(frozen))


def test_matvec_equals_kernel(x64):
    apply_fn, params, x = random_network("recurrent")
    vector = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2)))
    kernel, product = jax.jit(
        lambda p, x: (ntk.empirical_ntk(apply_fn, p, x, x[:3]), ntk.ntk_matvec(apply_fn, p, x, x[:3])(vector))
    )(params, x)
    close(product, jnp.einsum("ijkl,jl->ik", kernel, vector))


def test_matvec_solves_with_conjugate_gradients(x64):
    apply_fn, params, x = random_network("mlp")
    target = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))

    @jax.jit
    def solve(params, x):
        matvec = ntk.ntk_matvec(apply_fn, params, x)
        solution, _ = jax.scipy.sparse.linalg.cg(lambda v: matvec(v) + 0.1 * v, target, tol=1e-12)
        return solution, ntk.gram(apply_fn, params, x)

    solution, gram = solve(params, x)
    close(np.ravel(solution), np.linalg.solve(np.asarray(gram) + 0.1 * np.eye(12), target.ravel()), 1e-8)


def test_composes_with_vmap_and_grad(x64):
    apply_fn, params, x = random_network("mlp")
    ensemble = jax.tree.map(lambda leaf: np.stack([leaf, 0.5 * np.asarray(leaf)]), params)
    kernel_fn = functools.partial(ntk.empirical_ntk, apply_fn)
    kernels = jax.jit(jax.vmap(kernel_fn, (0, None)))(ensemble, x)
    close(kernels[1], jax.jit(kernel_fn)(jax.tree.map(lambda leaf: leaf[1], ensemble), x))

    def trace_of_kernel(x):
        return jnp.einsum("iikk->", ntk.empirical_ntk(apply_fn, params, x, block_size=2))

    direction, step = np.random.default_rng(1).normal(size=x.shape), 1e-5
    valued = jax.jit(jax.value_and_grad(trace_of_kernel))
    gradient = valued(x)[1]
    numeric = (valued(x + step * direction)[0] - valued(x - step * direction)[0]) / (2 * step)
    assert np.sum(gradient * direction) == pytest.approx(float(numeric), rel=1e-6)


def test_hidden_units_may_be_permuted(x64):
    """The kernel does not depend on the order of hidden units, whose entries are in all factors."""
    apply_fn, params, x = random_network("mlp")
    order = np.random.default_rng(0).permutation(6)
    layers = jax.tree.map(np.asarray, params["params"])
    moved = {
        "Dense_0": {"kernel": layers["Dense_0"]["kernel"][:, order], "bias": layers["Dense_0"]["bias"][order]},
        "Dense_1": {
            "kernel": layers["Dense_1"]["kernel"][order][:, order],
            "bias": layers["Dense_1"]["bias"][order],
        },
        "Dense_2": {"kernel": layers["Dense_2"]["kernel"][order], "bias": layers["Dense_2"]["bias"]},
    }
    kernel_fn = jax.jit(functools.partial(ntk.empirical_ntk, apply_fn))
    close(kernel_fn({"params": moved}, x), kernel_fn({"params": layers}, x))


def dense(params, x):
    return x @ params["w"]


W = {"w": np.ones((3, 2), np.float32)}
X = np.ones((4, 3), np.float32)

BAD_INPUT = {
    "empty": ((dense, W, X[:0]), {}, "`x1`"),
    "other inputs empty": ((dense, W, X, X[:0]), {}, "`x2`"),
    "inputs without rows": ((dense, W, np.float32(1)), {}, "`x1`"),
    "inputs that disagree": ((dense, W, {"a": X, "b": X[:2]}), {}, "`x1`"),
    "inputs of two kinds": ((dense, W, X, X[:, :2]), {}, "`x2`"),
    "trees of two kinds": ((dense, W, {"a": X}, {"b": X}), {}, "`x2`"),
    "integer parameters": ((dense, {"w": np.ones((3, 2), np.int32)}, X), {}, "`params`.*'w' is int32.*`trainable`"),
    "complex parameters": ((dense, {"w": np.ones((3, 2), np.complex64)}, X), {}, "`params`.*complex64"),
    "no parameters": ((lambda p, x: x, {}, X), {}, "`params`"),
    "nothing to differentiate": ((dense, W, X), {"trainable": lambda path: False}, "`params`"),
    "method": ((dense, W, X), {"method": "magic"}, "`method`"),
    "block size": ((dense, W, X), {"block_size": 0}, "`block_size`"),
    "traced axis": ((dense, W, X), {"trace_axes": (2,)}, "`trace_axes`"),
    "diagonal axis": ((dense, W, X), {"diagonal_axes": (-3,)}, "`diagonal_axes`"),
    "axis twice": ((dense, W, X), {"trace_axes": (1,), "diagonal_axes": (-1,)}, "`trace_axes`.*`diagonal_axes`"),
    "pairs of unequal numbers": ((dense, W, X, X[:2]), {"diagonal_axes": (0,)}, "`x2`"),
    "no rows": ((lambda p, x: p["w"].sum(), W, X), {}, "`apply_fn`"),
    "rows of their own": ((lambda p, x: x.T @ x @ p["w"], W, X), {}, "`apply_fn`"),
    "integer outputs": ((lambda p, x: jnp.argmax(dense(p, x), 1), W, X), {}, "`apply_fn`.*int32"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_named(name):
    args, settings, message = BAD_INPUT[name]
    with pytest.raises(ValueError, match=message):
        ntk.empirical_ntk(*args, **settings)


MIXING = {
    "centred": lambda p, x: dense(p, x - x.mean(0, keepdims=True)),
    "attention between rows": lambda p, x: nn.softmax(x @ x.T) @ dense(p, x),
    "sorted": lambda p, x: dense(p, x) + jnp.cumsum(x, 0)[:, :2],
    "in a loop": lambda p, x: jax.lax.fori_loop(0, 2, lambda i, y: y - y.mean(0, keepdims=True), x) @ p["w"],
}


@pytest.mark.parametrize("name", MIXING)
def test_networks_that_mix_rows_are_refused(name):
    with pytest.raises(ValueError, match="`apply_fn` must not mix the rows"):
        ntk.empirical_ntk(MIXING[name], W, X)


def test_batch_normalisation_in_training_is_refused_where_it_stands():
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(nn.BatchNorm(use_running_average=False)(x))

    variables = Normalised().init(jax.random.key(0), jnp.asarray(X))

    def apply(variables, x):
        return Normalised().apply(variables, x, mutable=["batch_stats"])[0]

    line = inspect.getsourcelines(Normalised)[1] + 3
    with pytest.raises(ValueError, match=rf"test_empirical\.py:{line} .*running averages"):
        ntk.empirical_ntk(apply, variables, jnp.asarray(X))


def test_matvec_refuses_a_vector_of_another_shape():
    with pytest.raises(ValueError, match="`vector`"):
        ntk.ntk_matvec(dense, W, X)(jnp.ones((4, 3)))


def test_memory_is_not_that_of_jacobians():
    """A dense layer of 300 x 300 and 60 inputs: their Jacobians would take 21 MB each output."""
    rng = np.random.default_rng(0)
    params = [jnp.asarray(rng.normal(size=(300, 300)) / 17, jnp.float32) for _ in range(2)] + [jnp.ones((300, 2))]
    x = jnp.asarray(rng.normal(size=(60, 300)), jnp.float32)

    def apply(params, x):
        for w in params[:-1]:
            x = jnp.tanh(x @ w)
        return x @ params[-1]

    compiled = jax.jit(functools.partial(ntk.empirical_ntk, apply)).lower(params, x).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 5e6
