"""Networks that were written elsewhere, as a function ``apply(params, x)`` and its parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import leading_axis, require
from dltheory.typing import ApplyFn, Array, PRNGKey, PyTree

if TYPE_CHECKING:
    from flax import nnx

__all__ = ["Network", "from_callable", "from_init_apply", "from_nnx"]


class Network(NamedTuple):
    """A network as pure functions see it.

    Attributes:
        apply: (params, x) -> outputs; row i of the outputs [n, ...] depends on row i of the inputs [n, ...] alone.
        params: what may be differentiated and trained, a pytree of arrays.
    """

    apply: ApplyFn
    params: PyTree


def from_nnx(module: nnx.Module, call: Callable[[Any, Array], Array] | None = None) -> Network:
    """A network of a `flax.nnx` module, as it is at inference.

    The parameters are the module's variables of type `nnx.Param`. Everything else it holds (statistics of batch
    normalisation, keys, counters) is kept as it is now: `apply` works on a copy in evaluation mode, in which
    `nnx.BatchNorm` takes its running statistics and `nnx.Dropout` does nothing, and forgets what a call changes. The
    module itself is left alone. Parameters that several layers share are one.

    Args:
        module: the module, which maps a batch [n, ...] to outputs [n, ...].
        call: (module, x) -> outputs, for a module that wants more than x; ``module(x)`` by default.

    Returns:
        `apply`, and the parameters as nested dictionaries.

    Raises:
        ValueError: if `module` is not an `nnx.Module`, or has no parameters.

    A helper.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> from dltheory import networks
    >>> network = networks.from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    >>> jax.tree.map(jnp.shape, network.params)
    {'bias': (2,), 'kernel': (3, 2)}
    >>> network.apply(network.params, jnp.ones((5, 3))).shape
    (5, 2)
    """
    from flax import nnx  # costs as much to import as the rest of this package

    require(isinstance(module, nnx.Module), f"`module` must be an nnx.Module, got {type(module).__name__}")
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    params, rest = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)  # values: the variables are the module's own
    require(bool(jax.tree.leaves(params)), "`module` must have at least one nnx.Param")

    def apply(params: PyTree, x: Array, /) -> Array:
        copy = nnx.merge(graph, params, rest)
        copy.eval()
        return copy(x) if call is None else call(copy, x)

    return Network(apply, params)


def from_callable(module: Any, call: Callable[[Any, Array], Array] | None = None) -> Network:
    """A network of a callable pytree that maps one example, as Equinox's modules do.

    The parameters are the leaves that are floating-point arrays. All other leaves are kept as they are, but for those
    named ``inference``, which become true, so that Equinox's dropout does nothing and its batch normalisation takes
    the running statistics.

    Args:
        module: the pytree, which maps an input [...] to an output [...].
        call: (module, input) -> output, for a module that wants more than one input, such as a state;
            ``module(input)`` by default.

    Returns:
        `apply`, mapped over the leading axis of a batch, and the parameters: `module` with None in place of all other
        leaves.

    Raises:
        ValueError: if `module` holds no floating-point array, or is an `nnx.Module`, for which there is `from_nnx`.

    A helper.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import networks
    >>> linear = jax.tree_util.Partial(lambda w, b, x: w @ x + b, jnp.ones((2, 3)), jnp.ones(2))
    >>> network = networks.from_callable(linear)
    >>> network.apply(network.params, jnp.ones((5, 3))).shape
    (5, 2)
    """
    from flax import nnx

    require(not isinstance(module, nnx.Module), "`module` is an nnx.Module, which maps batches: use `from_nnx`")
    paths, structure = jax.tree_util.tree_flatten_with_path(module)
    leaves = [True if path and _name(path[-1]) == "inference" else leaf for path, leaf in paths]
    trained = [isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    require(any(trained), "`module` must be a pytree with at least one floating-point array")

    def apply(params: PyTree, x: Array, /) -> Array:
        given = structure.flatten_up_to(params)
        merged = [new if is_param else old for new, old, is_param in zip(given, leaves, trained, strict=True)]
        copy = structure.unflatten(merged)
        return jax.vmap(copy if call is None else functools.partial(call, copy))(x)

    return Network(apply, structure.unflatten([leaf if t else None for leaf, t in zip(leaves, trained, strict=True)]))


def from_init_apply(
    init_fn: Callable[[PRNGKey, PyTree], PyTree],
    apply_fn: Callable[[PyTree, PyTree], Array],
    key: PRNGKey,
    x: PyTree,
) -> Network:
    """A network of a pair of functions, such as the `init` and `apply` of a Flax linen module.

    Args:
        init_fn: (key, x) -> params.
        apply_fn: (params, x) -> outputs. Layers that behave differently in training must be told not to, e.g. by
            ``functools.partial(module.apply, train=False)``.
        key: random key for `init_fn`.
        x: a batch of inputs, leaves [n, ...].

    Returns:
        `apply_fn`, and the parameters that `init_fn` made. Of Flax variables, the collection "params" is what the
        rest of the library differentiates; other collections are constants.

    Raises:
        ValueError: if the leaves of `x` do not share their leading axis, or the output is not one array with that axis
            in front.

    A helper.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import networks
    >>> module, x = networks.MLP((8, 2)), jnp.ones((5, 3))
    >>> network = networks.from_init_apply(module.init, module.apply, jax.random.key(0), x)
    >>> network.apply(network.params, x).shape
    (5, 2)
    """
    n = leading_axis(x=x)
    params = init_fn(key, x)
    output = jax.eval_shape(lambda x: apply_fn(params, x), x)
    is_array = isinstance(output, jax.ShapeDtypeStruct)
    require(is_array, f"`apply_fn` must return one array, got {type(output).__name__}")
    require(output.shape[:1] == (n,), f"`apply_fn` must map [{n}, ...] to [{n}, ...], got {list(output.shape)}")
    return Network(apply_fn, params)


def _name(key: Any) -> str | None:
    """The attribute that a step of a path goes through, if it is one."""
    return key.name if isinstance(key, jax.tree_util.GetAttrKey) else None
