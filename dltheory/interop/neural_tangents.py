"""neural-tangents 0.6.5 on current JAX: an oracle, a peer to measure against, and a library to migrate from."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import math
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.core
import jax.extend.core
import jax.interpreters.ad
import numpy as np
import scipy.linalg

__all__ = ["load"]

_NAME = "neural_tangents"
_EXPERIMENTAL = f"{_NAME}.experimental"
_ADAPTED = "_adapted_to_current_jax"
_lock = threading.RLock()


def load() -> types.ModuleType:
    """Imports neural-tangents 0.6.5 on a JAX that it does not know, and without TensorFlow.

    neural-tangents imports names that JAX has removed (``jax.core.Jaxpr`` and its companions, ``jax.util``,
    ``jax.interpreters.ad.zeros_like_p``). They are put back while it is being imported and taken away again; what it
    would look up later is given to its own modules. So JAX is left as it was: only another thread that looks for those
    very names during the import could see them. After `load`, ``import neural_tangents`` works everywhere in the
    process; further calls return the same module. Nothing happens unless `load` is called.

    Install it without its dependencies, for they include TensorFlow: ``pip install --no-deps neural-tangents
    frozendict``.

    What works, on all supported versions of JAX: ``stax`` (networks and their infinite-width kernels); ``predict``,
    including ``max_learning_rate`` with current SciPy; ``empirical_ntk_fn`` with all its implementations (Jacobian
    contraction, NTK-vector products, structured derivatives, the automatic choice), ``empirical_nngp_fn``,
    ``empirical_kernel_fn``, ``empirical_ntk_vp_fn``, ``linearize``, ``taylor_expand``; ``monte_carlo_kernel_fn``;
    ``batch``.

    What does not: ``experimental``, which needs TensorFlow (its attributes raise), and the structured derivatives
    (hence the automatic choice too) of networks with `jax.checkpoint` or `jax.lax.cond`, which they never had; use
    ``implementation=1`` or ``2``.

    Returns:
        The module ``neural_tangents``.

    Raises:
        ImportError: if neural-tangents or frozendict is not installed; the message says how to install them.

    A helper.
    """
    with _lock:
        module = sys.modules.get(_NAME) or _import()
        if not hasattr(module, _ADAPTED):
            _adapt_empirical(importlib.import_module(f"{_NAME}._src.empirical"))
            _adapt_predict(importlib.import_module(f"{_NAME}._src.predict"))
            setattr(module, _ADAPTED, True)
        return module


def _import() -> types.ModuleType:
    _forget()  # what a plain import that failed may have left
    for package in (_NAME, "frozendict"):
        if importlib.util.find_spec(package) is None:
            install = "pip install --no-deps neural-tangents frozendict"
            raise ImportError(f"{package} is not installed; install it by: {install}", name=package)
    try:
        with _removed_names_of_jax():
            sys.modules[_EXPERIMENTAL] = _WithoutTensorFlow(_EXPERIMENTAL)
            return importlib.import_module(_NAME)
    except BaseException:
        _forget()
        raise


def _forget() -> None:
    for name in [name for name in sys.modules if name == _NAME or name.startswith(f"{_NAME}.")]:
        del sys.modules[name]


@contextlib.contextmanager
def _removed_names_of_jax() -> Iterator[None]:
    """Gives JAX the names that neural-tangents imports, for as long as the context lasts."""
    extend = jax.extend.core
    names: list[tuple[types.ModuleType, str, Any]] = [
        (jax.core, name, getattr(extend, name)) for name in ("Jaxpr", "JaxprEqn", "Literal", "Primitive", "Var")
    ]
    # The key of a rule that no equation asks for.
    names.append((jax.interpreters.ad, "zeros_like_p", extend.Primitive("zeros_like")))
    util = types.ModuleType("jax.util")
    vars(util).update(safe_map=_safe_map, safe_zip=_safe_zip)
    restored = []
    try:
        for module, name, value in names:
            if name not in vars(module):
                setattr(module, name, value)
                restored.append((module, name))
        sys.modules.setdefault("jax.util", util)
        yield
    finally:
        for module, name in restored:
            delattr(module, name)
        if sys.modules.get("jax.util") is util:
            del sys.modules["jax.util"]


def _safe_map(function: Callable[..., Any], *sequences: Any) -> list[Any]:
    return [function(*arguments) for arguments in _safe_zip(*sequences)]


def _safe_zip(*sequences: Any) -> list[Any]:
    return list(zip(*sequences, strict=True))


class _WithoutTensorFlow(types.ModuleType):
    """Stands for the module that needs TensorFlow."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self.__name__}.{name} needs TensorFlow, without which neural-tangents is loaded here")


class _View:
    """A module as neural-tangents expects it: with names that are not there, or that mean something else today."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _adapt_empirical(empirical: Any) -> None:
    """What structured derivatives need from JAX, and the count of FLOPs for the automatic choice."""
    empirical.core = _View(jax.core, Var=jax.extend.core.Var, DShapedArray=_NoArray)
    empirical.jnp = _View(empirical.jnp, size=_size, dtype=_dtype)
    empirical.ad = _View(
        jax.interpreters.ad,
        source_info_util=types.SimpleNamespace(transform_name_stack=contextlib.nullcontext),
        config=types.SimpleNamespace(jax_enable_checks=False),  # that check calls names which are gone
    )
    empirical._get_primals_out_and_pullback = functools.partial(_linearized, empirical._backward_pass)
    empirical._eqn_vjp_fn = _transposed
    empirical._get_flops = _flops


def _linearized(
    backward_pass: Callable[..., Any], fn: Any, mode: Any, j_rules: bool, s_rules: bool, fwd: bool | None, *primals: Any
) -> tuple[Any, Callable[..., Any]]:
    """The value of `fn`, and the backward pass of neural-tangents through the linear program of its derivative."""
    leaves, tree = jax.tree.flatten(primals)
    with jax.disable_jit():  # so that the program holds no calls
        value, derivative = jax.linearize(lambda *leaves: fn(*tree.unflatten(leaves)), *leaves)
        program = jax.make_jaxpr(derivative)(*leaves)

    def pullback(*cotangents: Any) -> Any:
        out = backward_pass(
            program.jaxpr,
            mode=mode,
            consts=program.consts,
            primals_in=[jax.interpreters.ad.UndefinedPrimal(variable.aval) for variable in program.jaxpr.invars],
            cotangents_in=tuple(jax.tree.leaves(cotangents)),
            _j_rules=j_rules,
            _s_rules=s_rules,
            _fwd=fwd,
        )
        return tree.unflatten(out)

    return value, pullback


def _transposed(equation: Any, cotangent: Any, *operands: Any) -> list[Any]:
    """The cotangents of an equation's linear operands, which are those without a value; None for the others."""
    if equation is None:  # the identity
        return [cotangent]
    ad = jax.interpreters.ad
    if isinstance(cotangent, ad.Zero):
        return [ad.Zero(variable.aval) for variable in equation.invars]
    linear = [place for place, operand in enumerate(operands) if ad.is_undefined_primal(operand)]

    def apply(*values: Any) -> Any:
        arguments = dict(enumerate(operands)) | dict(zip(linear, values, strict=True))
        return equation.primitive.bind(*arguments.values(), **equation.params)

    shapes = [jax.ShapeDtypeStruct(operands[place].aval.shape, operands[place].aval.dtype) for place in linear]
    cotangents = dict(zip(linear, jax.linear_transpose(apply, *shapes)(cotangent), strict=True))
    return [cotangents.get(place) for place in range(len(operands))]


def _flops(f: Callable[..., Any], optimize: bool, *arguments: Any, **keywords: Any) -> float:
    program = jax.jit(f).lower(*arguments, **keywords)
    return ((program.compile() if optimize else program).cost_analysis() or {}).get("flops", math.inf)


def _size(x: Any) -> int:
    return math.prod(np.shape(x))


def _dtype(x: Any) -> np.dtype:
    return np.dtype(getattr(x, "dtype", x))


class _NoArray:
    """Stands for a type of arrays that JAX no longer has."""


def _adapt_predict(predict: Any) -> None:
    """Where predictors may compute at once, and which eigenvalue SciPy is to return."""

    def eigvalsh(matrix: Any, *, eigvals: tuple[int, int]) -> np.ndarray:
        return scipy.linalg.eigvalsh(np.asarray(matrix), subset_by_index=eigvals)

    predict.sp = types.SimpleNamespace(linalg=types.SimpleNamespace(eigvalsh=eigvalsh))
    # A predictor keeps a decomposition of its kernel, so it computes that outside of any trace. It must not where the
    # kernel itself is traced, which JAX once tolerated.
    predict.jax = _View(jax, core=_View(jax.core, eval_context=contextlib.nullcontext))
    for name in ("_get_cho_solve", "_get_fns_in_eigenbasis"):
        setattr(predict, name, _outside_of_traces(getattr(predict, name)))


def _outside_of_traces(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(kernel: Any, *arguments: Any) -> Any:
        traced = isinstance(kernel, jax.core.Tracer)
        with contextlib.nullcontext() if traced else jax.core.eval_context():
            return function(kernel, *arguments)

    return call
