"""The tangent kernel of a network as it is: any `apply(params, x)`, at any parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import _programs
from dltheory._axes import Lost, follow_axis
from dltheory._checks import leading_axis, require, shapes
from dltheory.ntk._contraction import (
    Factors,
    block_rows,
    choose_route,
    contract,
    contract_anew,
    contract_in_blocks,
)
from dltheory.ntk._factors import Outputs, factor_arrays, factor_sizes
from dltheory.ntk._sites import find_factors
from dltheory.typing import ApplyFn, Array, PyTree

__all__ = ["empirical_nngp", "empirical_ntk", "ntk_matvec"]

METHODS = ("factorized", "jacobian", "vector_product")
# Factors of all inputs are kept between blocks while they take no more than this.
_KEPT_BYTES = 2**30

Trainable = Callable[[str], bool]


def empirical_ntk(
    apply_fn: ApplyFn,
    params: PyTree,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    trace_axes: Sequence[int] = (),
    diagonal_axes: Sequence[int] = (),
    method: str = "factorized",
    block_size: int | None = None,
    trainable: Trainable | None = None,
) -> PyTree:
    r"""Tangent kernel of a network at its present parameters: inner products of parameter gradients.

    .. math:: \Theta_{ij}^{kk'} = \langle \nabla_\theta f_k(x_i), \nabla_\theta f_{k'}(x_j) \rangle

    The Jacobian is never formed where the network multiplies its parameters: there it factorises (see the module
    `_sites`), and each parameter is contracted in the cheapest way. Nothing is refused: what does not factorise is
    differentiated entry by entry.

    Args:
        apply_fn: the network, `apply_fn(params, x)` with outputs [n, k] (or [n] or [n, ...], or a pytree of such); row
            i of the outputs depends on row i of the inputs alone. E.g. a Flax module's `apply`. It is traced for one
            row and for two, so a batch size must not be written into it; noise that it draws is that of the first row.
        params: its parameters, a pytree of floating-point arrays; of a mapping with the key "params" (the variables of
            a Flax module) only that collection is differentiated, the others (batch statistics) stay as they are.
        x1: inputs [n, ...], or a pytree of arrays that share their leading axis.
        x2: other inputs [m, ...]; `x1` by default, of which only one triangle is computed.
        trace_axes: axes of the outputs [n, k, ...] to average the kernel over, e.g. (-1,) for the mean over the outputs
            of each output's own kernel (summed and divided by their number).
        diagonal_axes: axes of the outputs to pair with themselves only; 0 pairs x1[i] with x2[i].
        method: "factorized"; "jacobian", all Jacobians entry by entry; or "vector_product", one column at a time by a
            vector-Jacobian and a Jacobian-vector product, with no memory for Jacobians (and no `custom_vjp`, which JAX
            cannot push forward).
        block_size: how many inputs are differentiated at a time; by default all at once. It bounds the memory of the
            backward pass. The factors of all inputs are kept if they take less than 1 GiB, and are recomputed for
            each pair of blocks if they take more.
        trainable: tells from the path of a leaf, e.g. "params/Dense_0/kernel", whether to differentiate it.

    Returns:
        Kernel [n, m, k, k]; for outputs [n, a, b] it is [n, m, a, a, b, b]: every axis of the outputs twice, a diagonal
        axis once, a traced axis not at all. For a pytree of outputs a pytree of kernels, each output's with itself.

    Raises:
        ValueError: if trees or shapes disagree, a set of inputs is empty, the outputs mix the rows of a batch, an axis
            is out of range or repeated, or a leaf to differentiate is not real floating point.

    Statement: ntk.kernel.  Source: Jacot, Gabriel, Hongler 2018, section 4; Novak, Sohl-Dickstein, Schoenholz 2022.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> def linear(params, x):
    ...     return x @ params["kernel"] + params["bias"][None]
    >>> params = {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}
    >>> x = jnp.array([[1.0, 2.0], [0.0, 1.0]])
    >>> ntk.empirical_ntk(linear, params, x)[:, :, 0, 0]  # x @ x.T + 1
    Array([[6., 3.],
           [3., 2.]], dtype=float32)
    """
    require(method in METHODS, f"`method` must be one of {', '.join(METHODS)}, got {method!r}")
    require(block_size is None or block_size >= 1, "`block_size` must be at least 1")
    network = _Network(apply_fn, params, x1, x2, trainable)
    kernels = [
        _output_ntk(network, index, trace_axes, diagonal_axes, method, block_size)
        for index in range(len(network.output_shapes))
    ]
    return jax.tree.unflatten(network.output_tree, kernels)


def empirical_nngp(
    apply_fn: ApplyFn,
    params: PyTree,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    trace_axes: Sequence[int] = (),
    diagonal_axes: Sequence[int] = (),
) -> PyTree:
    r"""Products of a network's outputs, whose mean over random parameters is its NNGP kernel.

    .. math:: K_{ij}^{kk'} = f_k(x_i) f_{k'}(x_j)

    Args:
        apply_fn: the network, as for `empirical_ntk`.
        params: its parameters.
        x1: inputs [n, ...], or a pytree of arrays that share their leading axis.
        x2: other inputs [m, ...]; `x1` by default.
        trace_axes: axes of the outputs to average over, e.g. (-1,).
        diagonal_axes: axes of the outputs to pair with themselves only; 0 pairs x1[i] with x2[i].

    Returns:
        [n, m, k, k], with traced and diagonal axes as in `empirical_ntk`.

    Raises:
        ValueError: if trees or shapes disagree, a set of inputs is empty, or an axis is out of range or repeated.

    Statement: nngp.clt_limit.  Source: Lee et al. 2018, section 2.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> double = lambda params, x: 2 * x
    >>> ntk.empirical_nngp(double, {}, jnp.array([[1.0], [3.0]]))[:, :, 0, 0]
    Array([[ 4., 12.],
           [12., 36.]], dtype=float32)
    """
    _num_rows(x1, x2)
    left = apply_fn(params, x1)
    right = left if x2 is None else apply_fn(params, x2)

    def products(a: Array, b: Array) -> Array:
        axes = _Axes(a.shape[1:], trace_axes, diagonal_axes)
        axes.require_pairs(a.shape[0], b.shape[0])
        letters = itertools.count()
        first, second, out = [next(letters)], [next(letters)], []
        if axes.aligned:
            second = list(first)
        out = [] if 0 in axes.traced else [*dict.fromkeys([*first, *second])]
        for axis in range(1, a.ndim):
            first.append(next(letters))
            second = [*second, first[-1] if axis in axes.diagonal or axis in axes.traced else next(letters)]
            out += [] if axis in axes.traced else [*dict.fromkeys([first[-1], second[-1]])]
        total = jnp.einsum(a, first, b, second, out, preferred_element_type=jnp.promote_types(a.dtype, jnp.float32))
        return (total / math.prod(a.shape[axis] for axis in axes.traced)).astype(a.dtype)

    return jax.tree.map(products, left, right)


def ntk_matvec(
    apply_fn: ApplyFn,
    params: PyTree,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    trainable: Trainable | None = None,
) -> Callable[[PyTree], PyTree]:
    r"""Products of the tangent kernel with vectors, without the kernel: for iterative solvers and spectra.

    .. math:: v \mapsto \Theta(x_1, x_2)\, v = J(x_1)\, (J(x_2)^T v)

    One vector-Jacobian and one Jacobian-vector product each time; the network is linearised once. Rows may mix: this is
    the product of the Jacobians of whole batches.

    Args:
        apply_fn: the network, as for `empirical_ntk`.
        params: its parameters.
        x1: inputs [n, ...], or a pytree of arrays that share their leading axis.
        x2: other inputs [m, ...]; `x1` by default.
        trainable: tells from the path of a leaf whether to differentiate it.

    Returns:
        A linear function from [m, k] (like the outputs at `x2`) to [n, k].

    Raises:
        ValueError: if trees disagree, a set of inputs is empty, or a leaf to differentiate is not real floating point;
            of the returned function, if its argument is not like the outputs.

    Statement: ntk.kernel.  Source: Novak, Sohl-Dickstein, Schoenholz 2022, section 3.2.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> matvec = ntk.ntk_matvec(lambda w, x: x @ w, jnp.ones((2, 1)), jnp.array([[1.0, 2.0], [0.0, 1.0]]))
    >>> matvec(jnp.array([[1.0], [0.0]]))
    Array([[5.],
           [2.]], dtype=float32)
    """
    _num_rows(x1, x2)
    leaves, rebuild = _trainable_leaves(params, trainable)
    _, push = jax.linearize(lambda theta: apply_fn(rebuild(theta), x1), leaves)
    outputs, pull = jax.vjp(lambda theta: apply_fn(rebuild(theta), x1 if x2 is None else x2), leaves)

    def matvec(vector: PyTree) -> PyTree:
        """Theta(x1, x2) @ vector, for a vector like the outputs at x2."""
        for out, part in zip(jax.tree.leaves(outputs), jax.tree.leaves(vector), strict=True):
            letters = " ".join(str(size) for size in out.shape)
            shapes(vector=(part, letters))
        return push(*pull(vector))

    return matvec


class _Axes:
    """Axes of an output [n, ...] by their role."""

    def __init__(self, shape: tuple[int, ...], trace_axes: Sequence[int], diagonal_axes: Sequence[int]) -> None:
        rank = 1 + len(shape)
        for name, axes in (("trace_axes", trace_axes), ("diagonal_axes", diagonal_axes)):
            for axis in axes:
                require(-rank <= axis < rank, f"`{name}` must be axes of an output of rank {rank}, got {axis}")
        self.traced = {axis % rank for axis in trace_axes}
        self.diagonal = {axis % rank for axis in diagonal_axes}
        distinct = len(self.traced | self.diagonal) == len(tuple(trace_axes)) + len(tuple(diagonal_axes))
        require(distinct, "`trace_axes` and `diagonal_axes` must name an axis once")
        self.full = set(range(rank)) - self.traced - self.diagonal
        self.aligned = 0 not in self.full  # x1[i] with x2[i] only
        self.shape = shape

    def require_pairs(self, n: int, m: int) -> None:
        """Demands as many rows of one set of inputs as of the other, where they are paired."""
        fits = not self.aligned or n == m
        require(fits, f"`x2` must have as many rows as `x1`, {n}, to be paired with them, got {m}")

    def outputs(self) -> Outputs:
        """How the entries of one example's output enter the kernel."""
        kinds = [sorted(axis - 1 for axis in axes if axis > 0) for axes in (self.traced, self.diagonal, self.full)]
        order = np.arange(math.prod(self.shape)).reshape(self.shape).transpose(*itertools.chain(*kinds)).ravel()
        return Outputs(order, *(math.prod(self.shape[axis] for axis in axes) for axes in kinds))

    def arrange(self, kernel: Array) -> Array:
        """The kernel [..., diagonal, full, full] with the axes of the outputs in their order, traces averaged."""
        diagonal, full = (sorted(axis for axis in axes if axis > 0) for axes in (self.diagonal, self.full))
        lead = kernel.ndim - 3
        sizes = [self.shape[axis - 1] for axis in (*diagonal, *full, *full)]
        position = {axis: [i] for i, axis in enumerate(diagonal)}
        position |= {axis: [len(diagonal) + i, len(diagonal) + len(full) + i] for i, axis in enumerate(full)}
        order = [lead + i for axis in sorted(position) for i in position[axis]]
        kernel = kernel.reshape(*kernel.shape[:lead], *sizes).transpose(*range(lead), *order)
        kernel = kernel / math.prod(self.shape[axis - 1] for axis in self.traced if axis > 0)
        return jnp.mean(kernel, axis=0) if 0 in self.traced else kernel


class _Network:
    """A network, the parameters to differentiate, and its inputs, checked."""

    def __init__(
        self, apply_fn: ApplyFn, params: PyTree, x1: PyTree, x2: PyTree | None, trainable: Trainable | None
    ) -> None:
        self.n, self.m = _num_rows(x1, x2)
        self.x1, self.x2 = jax.tree.map(jnp.asarray, (x1, x2))
        self.leaves, self.rebuild = _trainable_leaves(params, trainable)
        self.apply_fn = apply_fn
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.x1)
        self.row_shapes = self.require_rows(one)
        self.program, out = _programs.trace(self.apply_one, self.leaves, one)
        outputs, self.output_tree = jax.tree.flatten(out)
        self.output_shapes = [leaf.shape for leaf in outputs]
        self.dtypes = [leaf.dtype for leaf in outputs]

    def require_rows(self, one: PyTree) -> PyTree:
        """Refuses a network that combines the rows of a batch, as far as its program shows it.

        Returns:
            The shape and dtype of a row of each output.
        """
        two = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), one)
        program, out = _programs.trace(lambda leaves, x: self.apply_fn(self.rebuild(leaves), x), self.leaves, two)
        for leaf in jax.tree.leaves(out):
            rows = leaf.ndim > 0 and leaf.shape[0] == 2
            require(rows, f"`apply_fn` must return a row for each row of its input, got {list(leaf.shape)} for 2 rows")
            real = jnp.issubdtype(leaf.dtype, jnp.floating)
            require(real, f"`apply_fn` must return real floating point, got {leaf.dtype}")
        axes, mixing = follow_axis(program, dict.fromkeys(program.inputs[len(self.leaves) :], 0))
        mixed = [atom for atom in program.outputs if isinstance(atom, int) and axes.get(atom) is Lost.MIXED]
        require(
            not mixed or mixing is None,
            "`apply_fn` must not mix the rows of a batch, so that row i of the outputs depends on row i of the inputs "
            f"alone; `{mixing and mixing.name}` does, at {mixing and mixing.source}. A batch normalisation needs its "
            "running averages here.",
        )
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), out)

    def apply_one(self, leaves: Sequence[Array], x: PyTree) -> PyTree:
        """Outputs at one input; a network that squeezes its batch loses the axis of a single row by itself."""
        outputs = self.apply_fn(self.rebuild(leaves), jax.tree.map(lambda leaf: leaf[None], x))
        return jax.tree.map(lambda output, row: output.reshape(row.shape), outputs, self.row_shapes)


def _num_rows(x1: PyTree, x2: PyTree | None) -> tuple[int, int]:
    """Number of inputs on either side, which must be of one kind."""
    n = leading_axis(x1=x1)
    if x2 is None:
        return n, n
    m = leading_axis(x2=x2)
    kinds = [jax.tree.map(lambda leaf: list(jnp.shape(leaf)[1:]), x) for x in (x1, x2)]
    require(kinds[0] == kinds[1], f"`x2` must be inputs like `x1`, of shapes {kinds[0]}, got {kinds[1]}")
    return n, m


def _trainable_leaves(
    params: PyTree, trainable: Trainable | None
) -> tuple[list[Array], Callable[[Sequence[Array]], PyTree]]:
    """The leaves to differentiate, and what puts others in their place."""
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    everything = [leaf for _, leaf in paths]
    if trainable is None and isinstance(params, Mapping) and "params" in params:
        chosen = [name == "params" or name.startswith("params/") for name in names]
    else:
        chosen = [trainable is None or bool(trainable(name)) for name in names]
    for name, leaf, wanted in zip(names, everything, chosen, strict=True):
        dtype = jnp.result_type(leaf)
        require(
            not wanted or jnp.issubdtype(dtype, jnp.floating),
            f"`params` must be real floating point where it is differentiated, but the leaf {name!r} is {dtype}; "
            "leave it out with `trainable`",
        )
    require(any(chosen), "`params` must have a leaf to differentiate")

    def rebuild(leaves: Sequence[Array]) -> PyTree:
        replacements = iter(leaves)
        return jax.tree.unflatten(
            tree, [next(replacements) if c else leaf for c, leaf in zip(chosen, everything, strict=True)]
        )

    return [jnp.asarray(leaf) for leaf, c in zip(everything, chosen, strict=True) if c], rebuild


def _output_ntk(
    network: _Network,
    index: int,
    trace_axes: Sequence[int],
    diagonal_axes: Sequence[int],
    method: str,
    block_size: int | None,
) -> Array:
    """The kernel of one of the outputs."""
    axes = _Axes(network.output_shapes[index], trace_axes, diagonal_axes)
    axes.require_pairs(network.n, network.m)
    if method == "vector_product":
        kernel = _by_vector_products(network, index, axes)
    else:
        kernel = _by_factors(network, index, axes, method, block_size)
    return axes.arrange(kernel).astype(network.dtypes[index])


def _by_factors(
    network: _Network, index: int, axes: _Axes, method: str, block_size: int | None
) -> Array:
    """The kernel [n, m, diagonal, full, full], or [n, diagonal, full, full] of aligned pairs."""
    program = network.program._replace(outputs=network.program.outputs[index : index + 1])
    outputs = axes.outputs()
    factors = find_factors(program, range(len(network.leaves)), explicit=method == "jacobian")
    pairs = 1 if axes.aligned else max(network.n, network.m)
    sizes = factor_sizes(program, factors)
    routes = [choose_route(program, *each, outputs, pairs) for each in zip(factors, sizes, strict=True)]
    rows = block_rows(sizes, routes, outputs)

    def factors_of(x: PyTree) -> Factors:
        def one(inputs):
            return factor_arrays(program, outputs, factors, routes, [*network.leaves, *inputs])

        return jax.vmap(one)(jax.tree.leaves(x))

    if not factors:
        shape = (network.n,) if axes.aligned else (network.n, network.m)
        return jnp.zeros((*shape, outputs.diagonal, outputs.full, outputs.full))
    if axes.aligned:
        return _aligned(factors_of, network, rows if block_size is None else block_size)
    return _all_pairs(factors_of, network, rows, block_size)


def _aligned(factors_of: Callable[[PyTree], Factors], network: _Network, rows: int) -> Array:
    """The kernel [n, diagonal, full, full] of x1[i] with x2[i]."""

    def one(pair: tuple[PyTree, PyTree | None]) -> Array:
        x, y = jax.tree.map(lambda leaf: leaf[None], pair)
        left = factors_of(x)
        return contract(left, left if y is None else factors_of(y))[0, 0]

    return jax.lax.map(one, (network.x1, network.x2), batch_size=min(rows, network.n))


def _all_pairs(
    factors_of: Callable[[PyTree], Factors], network: _Network, rows: int, block_size: int | None
) -> Array:
    """The kernel [n, m, diagonal, full, full] of every pair."""
    sides = [network.x1] if network.x2 is None else [network.x1, network.x2]
    counts = [network.n] if network.x2 is None else [network.n, network.m]
    if block_size is None or block_size >= max(counts):
        factors = [factors_of(x) for x in sides]
    elif _bytes(jax.eval_shape(factors_of, network.x1)) * sum(counts) / network.n <= _KEPT_BYTES:
        factors = [_in_chunks(factors_of, x, n, block_size) for x, n in zip(sides, counts, strict=True)]
    else:
        blocks = [_blocks(x, n, block_size) for x, n in zip(sides, counts, strict=True)]
        left, *others = [lambda i, x=x: factors_of(jax.tree.map(lambda leaf: leaf[i], x)) for x in blocks]
        return contract_anew(left, others[0] if others else None, counts, block_size, rows)
    return contract_in_blocks(factors[0], factors[1] if len(factors) > 1 else None, rows)


def _blocks(x: PyTree, n: int, size: int) -> PyTree:
    """Inputs in blocks, [blocks, size, ...]; the last is filled up with its last row."""
    num_blocks = -(-n // size)
    rows = np.minimum(np.arange(num_blocks * size), n - 1).reshape(num_blocks, size)
    return jax.tree.map(lambda leaf: leaf[rows], x)


def _in_chunks(factors_of: Callable[[PyTree], Factors], x: PyTree, n: int, size: int) -> Factors:
    """The factors of all inputs, made for `size` of them at a time."""
    chunks = jax.lax.map(factors_of, _blocks(x, n, min(size, n)))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:n], chunks)


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _by_vector_products(network: _Network, index: int, axes: _Axes) -> Array:
    """The kernel, column by column: what the tangents of one output at one input do to all outputs at all inputs."""
    outputs = axes.outputs()
    x2 = network.x1 if network.x2 is None else network.x2

    def ordered(leaves: Sequence[Array], x: PyTree) -> Array:
        return jnp.ravel(jax.tree.leaves(network.apply_one(leaves, x))[index])[outputs.order]

    def block(pair: tuple[PyTree, PyTree]) -> Array:
        """Kernel [rows of the first, outputs, outputs of the second]; the first may be all inputs or one."""
        many, one = pair
        value, pull = jax.vjp(lambda leaves: ordered(leaves, one), network.leaves)
        (tangents,) = jax.vmap(pull)(jnp.eye(value.size, dtype=value.dtype))

        def row(x: PyTree) -> Array:
            _, push = jax.linearize(lambda leaves: ordered(leaves, x), network.leaves)
            return jax.vmap(push, out_axes=1)(tangents)

        return jax.vmap(row)(many)

    if axes.aligned:
        kernel = jax.lax.map(block, (jax.tree.map(lambda leaf: leaf[:, None], network.x1), x2))[:, 0]
    else:
        kernel = jnp.moveaxis(jax.lax.map(lambda one: block((network.x1, one)), x2), 0, 1)
    lead = kernel.shape[:-2]
    kinds = (outputs.traced, outputs.diagonal, outputs.full)
    return jnp.einsum("...qdmqdn->...dmn", kernel.reshape(*lead, *kinds, *kinds))
