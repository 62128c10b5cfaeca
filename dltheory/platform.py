"""Canaries for platforms that compute wrong numbers.

A release of JAX can miscompile: version 0.10.2 returns wrong numbers on the CPU and says nothing. Nothing that is built
on such a platform can be believed. So `preflight` recomputes a few small programs, each known to come out wrong
somewhere, and compares them with NumPy. The programs are compiled afresh, past the persistent compilation cache, for
the default device, where a caller's own programs would run. This module needs nothing but JAX and NumPy, so that it
works in an environment into which a refused version was forced.

The next canary is one function and one entry of `CANARIES`::

    def _gather_of_scan():
        return _compiled(fn, x)(x), fn_in_numpy(x)

    Canary("A gather inside a scan reads the wrong row.", "https://...", "Set ...", _gather_of_scan)

Inputs are small integers: factors are exact even in the short formats in which accelerators multiply, and sums in
single precision. The comparison is therefore exact, without a tolerance.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from dltheory.typing import Array, ArrayLike

__all__ = ["CANARIES", "Canary", "Finding", "PlatformError", "environment", "preflight", "require_sound"]


class Canary(NamedTuple):
    """A program that some platform is known to get wrong."""

    symptom: str  # a sentence: which program, and what becomes of it
    issue: str  # address of the upstream report
    workaround: str  # a sentence: what the user can do
    recompute: Callable[[], tuple[ArrayLike, ArrayLike]]  # the program's result, and the right one


class Finding(NamedTuple):
    """A canary that failed on this platform."""

    canary: Canary
    evidence: str  # a sentence: what happened


class PlatformError(RuntimeError):
    """This platform is known to compute wrong results; the message names the upstream issue and the work-around."""


def preflight(canaries: Sequence[Canary] | None = None) -> tuple[Finding, ...]:
    """Recomputes every canary on the default device and compares it with NumPy.

    A canary that raises counts as failed. The persistent compilation cache is neither read nor written, and it makes no
    difference whether the caller has enabled 64-bit types, disabled `jit` or forbidden transfers.

    Args:
        canaries: what to recompute; `CANARIES` by default.

    Returns:
        The canaries that failed; none on a sound platform.

    Raises:
        RuntimeError: from JAX, if it has no device to run on.

    A helper.

    >>> preflight()
    ()
    """
    jax.devices()  # without a device nothing can be said about any canary
    with _no_persistent_cache(), jax.disable_jit(False), jax.transfer_guard("allow"):
        verdicts = [(canary, _failure(canary)) for canary in (CANARIES if canaries is None else canaries)]
    return tuple(Finding(canary, evidence) for canary, evidence in verdicts if evidence is not None)


def require_sound(canaries: Sequence[Canary] | None = None) -> None:
    """Raises a `PlatformError` if `preflight` finds anything; programs call it before they compute.

    Args:
        canaries: what to recompute; `CANARIES` by default.

    Raises:
        PlatformError: if a canary fails. The message is meant for the user as it stands: what is wrong, the versions,
            the upstream issue and the work-around.

    A helper.

    >>> require_sound()
    """
    findings = preflight(canaries)
    if findings:
        raise PlatformError(_message(findings))


def environment() -> dict[str, str | int | bool | None]:
    """What a result depends on beside the code: versions, device, flags. Neither flax nor optax is imported.

    Returns:
        Versions of `python`, `jax`, `jaxlib`, `numpy`, `flax`, `optax` (None where a package is not installed); the
        default `platform` ("cpu", "gpu", ...), `device_kind` and `device_count`; the environment variable `XLA_FLAGS`
        (empty if unset); `x64`, whether 64-bit types are enabled.

    A helper.

    >>> ", ".join(environment())
    'python, jax, jaxlib, numpy, flax, optax, platform, device_kind, device_count, XLA_FLAGS, x64'
    """
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        **{package: _version(package) for package in ("jax", "jaxlib", "numpy", "flax", "optax")},
        "platform": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "x64": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
    }


class _UnsafeError(Exception):
    """Raised by a canary instead of running a program that would take the process down; the message says why."""


def _vmapped_matvec() -> tuple[ArrayLike, ArrayLike]:
    matrix = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [3.0, 0.0, 1.0]])
    rows = np.resize(np.arange(-3.0, 4.0), (40_000, 3))  # the fault begins at 32 769 rows in float32, 16 385 in float64

    def squared_norms(matrix: Array, rows: Array) -> Array:
        return jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows)

    with jax.enable_x64(True):
        single, double = [(matrix.astype(dtype), rows.astype(dtype)) for dtype in (np.float32, np.float64)]
        program = _compiled(lambda single, double: (squared_norms(*single), squared_norms(*double)), single, double)
        computed = program(single, double)
    return np.stack(computed), np.stack(2 * [np.sum((rows @ matrix.T) ** 2, axis=1)])


def _rank_eight_reduction() -> tuple[ArrayLike, ArrayLike]:
    a = np.resize(np.arange(-3, 4), (2, 2, 6, 1, 1, 1, 1, 1)).astype(np.float32)
    b = np.resize(np.arange(-2, 3), (2, 2, 6, 2, 2, 2, 9, 9)).astype(np.float32)
    program = _compiled(lambda a, b: jnp.sum(a * b, axis=2), a, b)
    # The fault overruns a buffer inside a kernel of the YNN library, which kills the process, hangs it or, for most
    # shapes, goes unnoticed: trying it out is dangerous and proves little. What tells is that the compiler chose such a
    # kernel. Releases from 0.11.1 on choose it too, but with the repaired library, and are put to the test.
    if "__ynn_fusion" in (program.as_text() or "") and _release(_version("jaxlib")) < (0, 11, 1):
        raise _UnsafeError("The compiler chose the faulty kernel; it is not run, as that may kill the process.")
    return program(a, b), np.sum(a * b, axis=2)


_WITHOUT_YNN = (
    "Install jax 0.10.1, or 0.11.2 or newer; or, before Python starts, set the environment variable "
    "XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type= (with nothing after the last equals sign)."
)

CANARIES = (
    Canary(
        "A compiled vmap of a matrix-vector product followed by a sum returns wrong numbers, silently, for many rows.",
        "https://github.com/jax-ml/jax/issues/39103",
        _WITHOUT_YNN,
        _vmapped_matvec,
    ),
    Canary(
        "A compiled product of arrays of seven or more axes, summed over one of them, crashes or hangs the process.",
        "https://github.com/jax-ml/jax/issues/39257",
        _WITHOUT_YNN,
        _rank_eight_reduction,
    ),
)


def _compiled(fn: Callable[..., Any], *arguments: Any) -> jax.stages.Compiled:
    return jax.jit(fn).lower(*arguments).compile()


@contextlib.contextmanager
def _no_persistent_cache() -> Iterator[None]:
    """Keeps the canaries and the persistent compilation cache apart.

    A cached program shows what the compiler did when and where the entry was written, and the cache's key does not tell
    all machines apart. The canaries are to show what it does here and now.
    """
    enabled = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX asks only once whether the cache is enabled; this makes it ask again
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


def _failure(canary: Canary) -> str | None:
    """What went wrong with a canary, as a sentence; None if nothing did."""
    try:
        computed, expected = map(np.asarray, canary.recompute())
    except _UnsafeError as refusal:
        return str(refusal)
    except Exception as error:
        return f"It raised {type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
    if computed.shape != expected.shape:
        return f"The result has shape {list(computed.shape)} instead of {list(expected.shape)}."
    wrong = np.argwhere(np.logical_not(computed == expected))  # so written, NaN is wrong
    if len(wrong) == 0:
        return None
    first = tuple(wrong[0].tolist())
    values = f"{computed[first]} instead of {expected[first]}"
    return f"{len(wrong)} of {computed.size} values are wrong; the first, at {list(first)}, is {values}."


def _message(findings: Sequence[Finding]) -> str:
    here = environment()
    flags = f"XLA_FLAGS={here['XLA_FLAGS']}" if here["XLA_FLAGS"] else "XLA_FLAGS not set"
    lines = [
        "This platform computes wrong results or crashes: "
        f"jax {here['jax']}, jaxlib {here['jaxlib']}, NumPy {here['numpy']}, Python {here['python']}, "
        f"on {here['platform']} ({here['device_kind']}), {flags}.",
    ]
    for canary, evidence in findings:
        lines += [
            "",
            canary.symptom,
            f"  Here: {evidence}",
            f"  Upstream issue: {canary.issue}",
            f"  Work-around: {canary.workaround}",
        ]
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str | None) -> tuple[int, ...]:
    """The numbers of a version: "0.11.1.dev20260801" is 0, 11, 1, 20260801."""
    return tuple(int(number) for number in re.findall(r"\d+", version or ""))
