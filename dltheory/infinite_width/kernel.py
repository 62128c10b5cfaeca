"""The kernels of an infinitely wide network, read off the network itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

from dltheory import _axes, _programs
from dltheory._checks import leading_axis, require
from dltheory.infinite_width._errors import UnsupportedError
from dltheory.infinite_width._interpreter import Interpreter
from dltheory.infinite_width._known import Known
from dltheory.infinite_width._moments import Moments, Pairing
from dltheory.infinite_width._param_variance import ParamVariance
from dltheory.infinite_width._values import Random
from dltheory.infinite_width._variances import Variances
from dltheory.typing import ApplyFn, Array, PyTree

__all__ = ["InfiniteWidthKernelFn", "Kernel", "kernel_fn"]

_CACHED = 2**15  # numbers in a piece of a kernel
_POOLING = {"reduce_sum", "reduce_window_sum", "cumsum"}


class Kernel(NamedTuple):
    """The kernels of an infinitely wide network.

    Attributes:
        nngp: covariance of the outputs of random networks, shape [n, m].
        ntk: tangent kernel, shape [n, m].
    """

    nngp: Array
    ntk: Array


class InfiniteWidthKernelFn(Protocol):
    """The kernels as a pure function of inputs."""

    def __call__(self, x1: PyTree, x2: PyTree = None) -> Kernel:
        """Kernels between inputs `x1` [n, ...] and `x2` [m, ...], by default `x1`."""
        ...


def kernel_fn(
    apply_fn: ApplyFn, params: PyTree, *, param_variance: ParamVariance | None = None
) -> InfiniteWidthKernelFn:
    r"""The kernels of a network at infinite width, read off the network itself.

    .. math:: K(x, x') = \lim E[f(x) f(x')], \qquad
              \Theta(x, x') = \lim \sum_l v_l \langle \partial_{\theta_l} f(x), \partial_{\theta_l} f(x') \rangle

    as all axes along which channels are summed grow, with v_l the variance of the entries of leaf l: the tangent kernel
    is that with respect to parameters of unit variance, in which a leaf of variance v is sqrt(v) times such a leaf. For
    networks in NTK parametrisation, whose parameters have unit variance, it is the usual one.

    The program of the network is interpreted over random quantities in place of arrays. Products with weights of dense
    layers and convolutions give Gaussians; elementwise functions of them, sums, pooling, concatenation, averages over
    channels (so layer, group and root-mean-square normalisation), gating, loops, embeddings of integers, and known
    matrices of attention or adjacency are followed as they are written. The widths in the program do not matter.

    Dropout in training averages over its masks too: one for every evaluation of the network, so that an input has the
    same mask as itself on the diagonal of ``kernel(x)``, and others everywhere else, also all over ``kernel(x, x)``.
    Their key is any, but concrete.

    Entries of weights are taken as Gaussian. Where few inputs are summed, as in a first layer, other laws of the same
    variance have other limits: Flax's `lecun_normal` truncates. All axes that weights make grow, those of heads and of
    outputs too.

    Moments of elementwise functions without a closed form are Hermite series, and quadrature at variances too large for
    these (`nngp.quadrature_dual`), with errors up to 1e-5 (of derivatives: 1e-3) of the mean square, and for smooth
    functions in double precision of 1e-9 up to variance 1. They are NaN where a function oscillates or grows too fast
    for that; functions that are too steep at variance 1 are refused.

    Weights may be joined for one product that is taken apart again. Cells of LSTM and GRU tie too many Gaussians
    together for a rule: `monte_carlo_kernel` estimates their kernels.

    Inner products over channels are taken as their averages; scores of attention so have a limit if they are divided by
    the width, not by its root. An average of features of mean 0 vanishes, and what jumps there, such as its sign, is
    refused where the mean is 0 because that of a factor is; the sign of an average of cubes is not, though random too.

    Args:
        apply_fn: (params, x) -> outputs [n, k], each row from its own input, e.g. the `apply` of a Flax module.
        params: parameters, concrete or as shapes (`jax.eval_shape` of `init`).
        param_variance: variances of the entries of leaves at initialisation. "lecun" is 1 / fan-in for weights (fan-in
            being the number of terms of a sum), 1 / features for embeddings, as Flax draws them, and 0 for biases; a
            number is that for all leaves; else a pytree of numbers like `params`, or a function (path such as
            "params/Dense_0/kernel", shape) -> variance. By default "lecun", or 1 if that is what concrete parameters
            look like. Leaves named "scale" are the constants that they start as, and so are concrete leaves of equal
            entries and concrete scalars.

    Returns:
        The kernels as a function of inputs, pure: it composes with `jit`, `vmap` and `grad`, also with respect to
        numbers in `apply_fn`, such as scales, and to variances. Compile it with `jit`.

    Raises:
        ValueError: if `param_variance` fits neither `params` nor their values. The function returned raises it if the
            inputs do not fit or are combined with each other, and `NotImplementedError` naming the operation and its
            line if a network has no such limit or there is no rule.

    Statement: infinite_width.architecture_universality, infinite_width.layer_norm_follows, ntk.analytic_recursion,
    nngp.arccos_recursion, nngp.kernel_recursion.  Source: Lee et al. 2018; Jacot, Gabriel and Hongler 2018;
    Yang 2019 (Tensor Programs I); Yang and Littwin 2021.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> from dltheory import infinite_width
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         x = nn.LayerNorm()(nn.relu(nn.Dense(64)(x)))
    ...         return nn.Dense(1)(x + nn.relu(nn.Dense(64)(x)))
    >>> x = jnp.eye(2)
    >>> params = jax.eval_shape(Net().init, jax.random.key(0), x)
    >>> jax.jit(infinite_width.kernel_fn(Net().apply, params))(x).nngp.round(2)
    Array([[1.5 , 0.16],
           [0.16, 1.5 ]], dtype=float32)
    """
    variances = Variances(params, param_variance)

    def kernel(x1: PyTree, x2: PyTree = None) -> Kernel:
        n, m = leading_axis(x1=x1), leading_axis(x1=x1) if x2 is None else leading_axis(x2=x2)
        require(min(n, m) > 0, "`x1` and `x2` must hold at least one input")
        for a, b in zip(jax.tree.leaves(x1), jax.tree.leaves(x1 if x2 is None else x2), strict=True):
            same = jnp.shape(a)[1:] == jnp.shape(b)[1:]
            require(same, f"`x2` must have inputs of shape {list(jnp.shape(a)[1:])}, got {list(jnp.shape(b)[1:])}")
        program, drawn = _program(apply_fn, params, x1)

        def block(a: PyTree, b: PyTree, same: Array | None) -> Kernel:
            return _evaluate(program, variances, drawn, a, b, same)

        return _by_blocks(block, x1, x2, n, m, _block_size(program, x1))

    return kernel


def _evaluate(
    program: _programs.Program,
    variances: Variances,
    drawn: frozenset[int],
    x1: PyTree,
    x2: PyTree,
    coincident: Array | None,
) -> Kernel:
    """The kernels of the network that is a program, between all inputs of one set and of another."""
    sets = [jax.tree.leaves(x) for x in ((x1,) if x2 is None else (x1, x2))]
    dtype = jnp.result_type(float, *sets[0])
    sizes = tuple(len(leaves[0]) for leaves in sets)
    moments = Moments(sizes, dtype, coincident)
    inputs = [Known(tuple(jnp.asarray(a)[:, None] for a in leaves), batched=True) for leaves in zip(*sets, strict=True)]
    (output,) = Interpreter(moments, variances, drawn).run(program, [*variances.values(), *inputs])
    if not isinstance(output, Random) or len(output.pieces) != 1:
        raise UnsupportedError("`apply_fn` must end in a layer: its output is not random, or of several kinds")
    feature = output.pieces[0].feature
    pairing = Pairing(0, len(sizes) - 1, outer=True, tangent=True)
    block = moments.feature_block(feature, feature, pairing, full=True)
    shape = (sizes[0], sizes[-1], *feature.positions, *feature.positions)
    zeros = jnp.zeros(shape, dtype)
    if block is None:
        return Kernel(zeros, zeros)
    return Kernel(jnp.broadcast_to(block.covariance, shape), zeros if block.ntk is None else zeros + block.ntk)


def _block_size(program: _programs.Program, x: PyTree) -> int:
    """How many inputs go with how many others at once: as many as a processor's cache holds."""
    positions = 1
    for leaf in jax.tree.leaves(x):
        integers = jnp.issubdtype(jnp.result_type(leaf), jnp.integer)  # words, say, without channels
        positions = max(positions, math.prod(jnp.shape(leaf)[1:] if integers else jnp.shape(leaf)[1:-1]))
    pooled = any(equation.name in _POOLING for equation in program.equations)
    entries = positions**2 if pooled else positions
    return max(1, 2 ** round(math.log2(_CACHED / entries) / 2)) if entries < _CACHED else 1


def _by_blocks(
    block: Callable[[PyTree, PyTree, Array | None], Kernel], x1: PyTree, x2: PyTree, n: int, m: int, size: int
) -> Kernel:
    """A kernel matrix piece by piece; of a symmetric one the upper triangle."""
    if max(n, m) <= size:
        return block(x1, x2, jnp.eye(n, dtype=bool) if x2 is None else None)
    rows, columns = -(-n // size), -(-m // size)

    def cut(x: PyTree, count: int) -> PyTree:
        def one(leaf: Any) -> Array:
            array = jnp.asarray(leaf)
            more = jnp.broadcast_to(array[:1], (count * size - len(array), *array.shape[1:]))
            return jnp.concatenate([array, more]).reshape(count, size, *array.shape[1:])

        return jax.tree.map(one, x)

    left = cut(x1, rows)
    right = left if x2 is None else cut(x2, columns)
    places = [(i, j) for i in range(rows) for j in range(columns) if x2 is not None or i <= j]
    i, j = (jnp.asarray(index) for index in zip(*places, strict=True))

    def one(place: tuple[Array, Array]) -> Kernel:
        a, b = (jax.tree.map(lambda leaf, k=k: leaf[k], x) for x, k in zip((left, right), place, strict=True))
        return block(a, b, (place[0] == place[1]) & jnp.eye(size, dtype=bool) if x2 is None else None)

    def corner(array: Array, place: tuple[Array, Array]) -> tuple[Any, ...]:
        return (size * place[0], size * place[1], *[0] * (array.ndim - 2))

    def put(whole: Array, piece: Array, place: tuple[Array, Array]) -> Array:
        return jax.lax.dynamic_update_slice(whole, piece, corner(whole, place))

    program, like = jax.make_jaxpr(one, return_shape=True)((i[0], j[0]))  # read once: for its shape, and to be run

    def compute(kernel: Kernel, place: tuple[Array, Array]) -> tuple[Kernel, None]:
        pieces = Kernel(*jaxpr_as_fun(program)(*place))
        return jax.tree.map(lambda whole, piece: put(whole, piece, place), kernel, pieces), None

    def mirror(kernel: Kernel, place: tuple[Array, Array]) -> tuple[Kernel, None]:
        # In a loop of its own, or a piece would be computed twice: once along rows, once along columns.
        def copied(whole: Array) -> Array:
            piece = jax.lax.dynamic_slice(whole, corner(whole, place), (size, size, *whole.shape[2:]))
            k = (whole.ndim - 2) // 2
            return put(whole, piece.transpose(1, 0, *range(2 + k, 2 + 2 * k), *range(2, 2 + k)), (place[1], place[0]))

        return jax.tree.map(copied, kernel), None

    empty = jax.tree.map(lambda b: jnp.zeros((rows * size, columns * size, *b.shape[2:]), b.dtype), like)
    kernel, _ = jax.lax.scan(compute, empty, (i, j))
    off = [place for place in places if x2 is None and place[0] < place[1]]
    if off:
        i, j = (jnp.asarray(index) for index in zip(*off, strict=True))
        kernel, _ = jax.lax.scan(mirror, kernel, (i, j))
    return jax.tree.map(lambda whole: whole[:n, :m], kernel)


def _program(apply_fn: ApplyFn, params: PyTree, x: PyTree) -> tuple[_programs.Program, frozenset[int]]:
    """The program for a single input, whose rows must not mix, and which random bits are drawn for every input."""

    def abstract(size: int | None) -> Any:
        def one(leaf: Any) -> jax.ShapeDtypeStruct:
            shape = jnp.shape(leaf) if size is None else (size, *jnp.shape(leaf)[1:])
            return jax.ShapeDtypeStruct(shape, jnp.result_type(leaf))

        return one

    weights = jax.tree.map(abstract(None), params)
    program, _ = _programs.trace(apply_fn, weights, jax.tree.map(abstract(2), x))
    count = len(jax.tree.leaves(weights))
    _, mixing = _axes.follow_axis(program, dict.fromkeys(program.inputs[count:], 0))
    if mixing is not None:
        raise ValueError(
            f"`apply_fn` must treat every input by itself, but `{mixing.name}` at {mixing.source} combines them "
            "(batch normalisation in training mode?)"
        )
    shapes = [program.shapes[number].shape for number in _random_bits(program)]
    program, out = _programs.trace(apply_fn, weights, jax.tree.map(abstract(1), x))
    if not isinstance(out, jax.ShapeDtypeStruct):
        raise ValueError("`apply_fn` must return one array")
    bits = list(_random_bits(program))
    drawn = [n for n, shape in zip(bits, shapes, strict=False) if program.shapes[n].shape != shape]
    return program, frozenset(drawn if len(bits) == len(shapes) else ())


def _random_bits(program: _programs.Program) -> Iterator[int]:
    for equation in program.equations:
        if equation.name == "random_bits":
            yield equation.outputs[0]
        if equation.body is not None:
            yield from _random_bits(equation.body)
