"""Importing neural-tangents 0.6.5 on current JAX, as an oracle, as a peer to measure against, and to migrate from."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend.core
import jax.interpreters.ad
import numpy as np

__all__ = ["load"]

_NAME = "neural_tangents"
_MARK = "__dltheory_loaded__"
_lock = threading.RLock()


def load() -> types.ModuleType:
    """Imports neural-tangents on a JAX that it does not know; returns the module.

    neural-tangents 0.6.5 asks JAX for names that JAX has removed (``jax.core.Jaxpr`` and its companions, ``jax.util``,
    ``jax.interpreters.ad.zeros_like_p``) and imports TensorFlow for an experimental module. `load` puts the names back
    while neural-tangents is being imported, takes them away again, and adapts the few functions of neural-tangents
    that would ask for them later. JAX is left as it was; a plain ``import neural_tangents`` works after `load`, and
    further calls return the same module. Install it without its dependencies, which would bring TensorFlow:
    ``pip install --no-deps neural-tangents frozendict`` (the chapters that use SciPy need that too).

    What works, and is tested: ``stax`` (networks and their infinite-width kernels), ``empirical_ntk_fn`` with all
    implementations (Jacobian contraction, NTK-vector products, structured derivatives, automatic choice),
    ``empirical_nngp_fn``, ``empirical_kernel_fn``, ``empirical_ntk_vp_fn``, ``linearize``, ``taylor_expand``,
    ``monte_carlo_kernel_fn``, ``batch``, and all of ``predict``.

    Returns:
        The module ``neural_tangents``.
    Raises:
        ImportError: if neural-tangents or frozendict is not installed.

    A helper.
    """
    with _lock:
        loaded = sys.modules.get(_NAME)
        if loaded is not None and hasattr(loaded, _MARK):
            return loaded
        for package in (_NAME, "frozendict", "scipy"):
            if importlib.util.find_spec(package) is None:
                raise ImportError(
                    f"`{package}` is not installed; neural-tangents needs it: "
                    "pip install --no-deps neural-tangents frozendict, and pip install scipy",
                    name=package,
                )
        _forget()
        try:
            with _removed_names(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sys.modules[f"{_NAME}.experimental"] = _Experimental(f"{_NAME}.experimental")
                module = importlib.import_module(_NAME)
        except BaseException:
            _forget()
            raise
        _adapt_empirical(importlib.import_module(f"{_NAME}._src.empirical"))
        _adapt_predict(importlib.import_module(f"{_NAME}._src.predict"))
        setattr(module, _MARK, True)
        return module


def _forget() -> None:
    """Drops what an import that failed half-way has left."""
    for name in [name for name in sys.modules if name == _NAME or name.startswith(f"{_NAME}.")]:
        del sys.modules[name]


class _Experimental(types.ModuleType):
    """Stands for the module that needs TensorFlow."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"{self.__name__}.{name} needs TensorFlow and is not loaded")


@contextlib.contextmanager
def _removed_names() -> Iterator[None]:
    """JAX with the names that neural-tangents imports, for as long as the context lasts."""
    extend = jax.extend.core
    missing = [
        (module, name, value)
        for module, name, value in (
            (jax.core, "Jaxpr", extend.Jaxpr),
            (jax.core, "JaxprEqn", extend.JaxprEqn),
            (jax.core, "Literal", extend.Literal),
            (jax.core, "Primitive", extend.Primitive),
            (jax.core, "Var", extend.Var),
            (jax.interpreters.ad, "zeros_like_p", extend.Primitive("zeros_like")),
        )
        if name not in vars(module)
    ]
    util = types.ModuleType("jax.util")
    vars(util).update(safe_map=_safe_map, safe_zip=_safe_zip)
    add_util = "jax.util" not in sys.modules and importlib.util.find_spec("jax.util") is None
    try:
        for module, name, value in missing:
            setattr(module, name, value)
        if add_util:
            sys.modules["jax.util"] = util
        yield
    finally:
        if add_util:
            sys.modules.pop("jax.util", None)
        for module, name, _ in missing:
            delattr(module, name)


def _safe_map(function: Callable[..., Any], *sequences: Any) -> list[Any]:
    return [function(*arguments) for arguments in _safe_zip(*sequences)]


def _safe_zip(*sequences: Any) -> list[Any]:
    return list(zip(*map(list, sequences), strict=True))


class _Overlay:
    """A module with a few names added or replaced."""

    def __init__(self, base: types.ModuleType, **names: Any):
        self._base = base
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)


def _adapt_empirical(empirical: Any) -> None:
    """Gives structured derivatives, and the choice by FLOPs, what JAX no longer offers."""
    transposes = jax.interpreters.ad
    empirical.jnp = _Overlay(empirical.jnp, size=_size, dtype=_dtype)
    empirical.core = _Overlay(jax.core, Var=jax.extend.core.Var, DShapedArray=_DShapedArray)
    empirical.ad = _Overlay(
        jax.interpreters.ad,
        source_info_util=types.SimpleNamespace(transform_name_stack=contextlib.nullcontext),
        # Its check of cotangents' types is made of names that are gone.
        config=types.SimpleNamespace(jax_enable_checks=False),
    )

    def primals_out_and_pullback(fn, mode, j_rules, s_rules, fwd, *primals_in):
        in_leaves, in_tree = jax.tree.flatten(primals_in)
        with jax.disable_jit():
            primals_out, linear = jax.linearize(lambda *leaves: fn(*in_tree.unflatten(leaves)), *in_leaves)
            closed = jax.make_jaxpr(linear)(*in_leaves)

        def pullback(*cotangents):
            undefined = [transposes.UndefinedPrimal(variable.aval) for variable in closed.jaxpr.invars]
            collected = empirical._backward_pass(
                closed.jaxpr,
                mode=mode,
                consts=closed.consts,
                primals_in=undefined,
                cotangents_in=tuple(jax.tree.leaves(cotangents)),
                _j_rules=j_rules,
                _s_rules=s_rules,
                _fwd=fwd,
            )
            return in_tree.unflatten(collected)

        return primals_out, pullback

    def equation_vjp(equation, cotangent, *operands):
        if equation is None:
            return (cotangent,)
        if isinstance(cotangent, transposes.Zero):
            return [transposes.Zero(variable.aval) for variable in equation.invars]
        linear = [i for i, operand in enumerate(operands) if isinstance(operand, transposes.UndefinedPrimal)]

        def apply(*values):
            arguments = list(operands)
            for i, value in zip(linear, values, strict=True):
                arguments[i] = value
            return equation.primitive.bind(*arguments, **equation.params)

        avals = [jax.ShapeDtypeStruct(operands[i].aval.shape, operands[i].aval.dtype) for i in linear]
        cotangents = jax.linear_transpose(apply, *avals)(cotangent)
        out: list[Any] = [None] * len(operands)
        for i, value in zip(linear, cotangents, strict=True):
            out[i] = value
        return out

    def flops(f, optimize, *arguments, **keywords):
        stage = jax.jit(f).lower(*arguments, **keywords)
        analysis = (stage.compile() if optimize else stage).cost_analysis()
        return analysis["flops"] if analysis is not None else 0.0

    empirical._get_primals_out_and_pullback = primals_out_and_pullback
    empirical._eqn_vjp_fn = equation_vjp
    empirical._get_flops = flops


def _size(x: Any) -> int:
    return math.prod(np.shape(x) if not hasattr(x, "shape") else x.shape)


def _dtype(x: Any) -> np.dtype:
    return np.dtype(getattr(x, "dtype", x))


class _DShapedArray:
    """A type of which there are no instances: JAX has no arrays of dynamic shape any more."""


def _adapt_predict(predict: Any) -> None:
    """Says to SciPy in its present words which eigenvalue `max_learning_rate` wants."""
    import scipy.linalg

    def eigvalsh(matrix, *, eigvals):
        return scipy.linalg.eigvalsh(np.asarray(matrix), subset_by_index=list(eigvals))

    predict.sp = _Overlay(predict.sp, linalg=_Overlay(scipy.linalg, eigvalsh=eigvalsh))
