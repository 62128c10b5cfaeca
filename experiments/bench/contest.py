"""What runs inside a contender's own process: compile, check, and run when told to."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.case import Absent, Case, Contender, all_cases
from experiments.worker import own_process

__all__ = ["contend", "refer"]

_MATRIX = {"cpu": 2048}  # size of the matrices whose product tells the machine's rate
_MATRIX_ELSEWHERE = 8192
_ROUND_SECONDS = 0.1  # in which a round of short runs should at least last
_MEMORY_SHARE = 0.8  # of the memory that is free, what a program may ask for


def refer(connection: Connection, log: str, topics: Sequence[str], name: str) -> None:
    """Sends the right answer of a case, computed in double precision."""
    with _answering(connection, log):
        case = all_cases(topics)[name]
        data = case.data()
        with jax.enable_x64():
            wide = jax.tree.map(lambda x: np.asarray(x, np.float64) if _is_float(x) else np.asarray(x), data)
            connection.send(("reference", np.asarray(case.reference(*wide), np.float64)))


def contend(
    connection: Connection, log: str, topics: Sequence[str], name: str, place: int, expected: np.ndarray
) -> None:
    """Gets a contender ready, reports, and then runs it as often as it is asked to.

    It sends ``("compiled", facts)`` and ``("ready", facts)``; then, for each message received, ``("round", facts)``. At
    any time it may send ``("out", status, reason)`` and end.
    """
    with _answering(connection, log):
        case = all_cases(topics)[name]
        entry = Entry(case, case.contenders[place])
        connection.send(("compiled", entry.compile()))
        connection.send(("ready", entry.check(expected)))
        while connection.recv():
            connection.send(("round", entry.round()))


class OutError(Exception):
    """A contender is out of the race."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason


@contextlib.contextmanager
def _answering(connection: Connection, log: str) -> Iterator[None]:
    """Makes this process a worker, and whatever goes wrong in it a message."""
    own_process(log, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are to be measured
    try:
        yield
    except OutError as out:
        connection.send(("out", out.status, out.reason))
    except Absent as absent:
        connection.send(("out", "absent", str(absent)))
    except EOFError:
        pass
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        connection.send(("out", "failed", words[:300]))
    connection.close()


class Entry:
    """A contender that takes part in a case."""

    def __init__(self, case: Case, contender: Contender) -> None:
        self._case, self._contender = case, contender
        self._data = jax.block_until_ready(case.data())
        self._product = _matrix_product()
        self._product()
        self._calls = 1

    def compile(self) -> dict[str, float]:
        """Compiles; returns what that took, and what XLA says of the program."""
        function = self._contender.build()
        self._run = lambda: function(*self._data)
        if not self._contender.jit:
            return {}
        began = time.perf_counter()
        lowered = jax.jit(function).lower(*self._data)
        traced = time.perf_counter()
        program = lowered.compile()
        facts = {"compile_seconds": time.perf_counter() - began, "trace_seconds": traced - began}
        facts["program_gflop"] = (program.cost_analysis() or {}).get("flops", math.nan) / 1e9
        memory, free = program.memory_analysis(), _free()
        if memory is not None:
            needed = memory.temp_size_in_bytes + memory.output_size_in_bytes
            facts["program_mb"] = needed / 1e6
            if free is not None and needed > _MEMORY_SHARE * free:
                raise OutError("large", f"needs {needed / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB are free")
        self._run = lambda: program(*self._data)
        return facts

    def check(self, expected: np.ndarray) -> dict[str, float]:
        """Runs once, compares, and decides how many runs make a round; returns the error and the amounts."""
        result, first = self._timed()
        result = jax.tree.map(np.asarray, result)
        view = np.asarray(self._case.view(result, *self._data), np.float64)
        error = float(np.linalg.norm(view - expected) / np.linalg.norm(expected))
        if not error <= self._case.tolerance:
            raise OutError("wrong", f"relative error {error:.1e}, at most {self._case.tolerance:.0e} is right")
        facts = {"error": error}
        facts |= {name: float(amount(result, *self._data)) for name, amount in self._case.amounts.items()}
        del result
        if not self._contender.jit:
            later = self._timed()[1]
            facts["compile_seconds"] = max(first["wall"] - later["wall"], 0.0)
            first = later
        self._calls = max(1, math.ceil(_ROUND_SECONDS / max(first["wall"], 1e-6)))
        _release_memory()
        self._baseline = _resident()
        return facts

    def round(self) -> dict[str, float]:
        """Runs, and multiplies matrices beside it: both under the same load of the machine."""
        rate = self._product()
        _forget_peak()
        runs = [self._timed()[1] for _ in range(self._calls)]
        return {
            "wall_seconds": statistics.median(run["wall"] for run in runs),
            "cpu_seconds": statistics.fmean(run["cpu"] for run in runs),
            "peak_mb": max(_peak() - self._baseline, 0) / 1e6,
            "machine_gflops": rate,
        }

    def _timed(self) -> tuple[Any, dict[str, float]]:
        cpu, wall = _cpu_seconds(), time.perf_counter()
        result = jax.block_until_ready(self._run())
        return result, {"wall": time.perf_counter() - wall, "cpu": _cpu_seconds() - cpu}


def _matrix_product() -> Callable[[], float]:
    """A function that multiplies two matrices in single precision and returns its rate in 10^9 operations a second."""
    size = _MATRIX.get(jax.default_backend(), _MATRIX_ELSEWHERE)
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), jnp.float32)
    product = jax.jit(jnp.matmul).lower(a, b).compile()

    def rate() -> float:
        began = time.perf_counter()
        jax.block_until_ready(product(a, b))
        return 2 * size**3 / (time.perf_counter() - began) / 1e9

    return rate


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _release_memory() -> None:
    """Gives back what the allocator keeps, so that what a run takes shows."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int | None:
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return None


def _forget_peak() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _peak() -> int:
    """The largest resident memory since `_forget_peak`; since the process began where that cannot be had."""
    peak = _status("VmHWM")
    if peak is None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak


def _resident() -> int:
    return _status("VmRSS") or _peak()


def _free() -> int | None:
    """Bytes that a program can get without swapping; None where the system does not say."""
    if jax.default_backend() != "cpu":
        return None
    with contextlib.suppress(OSError, ValueError), open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
