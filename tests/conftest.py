"""Settings that every test shares.

What the tests cost is tracing and compiling. Parallel workers therefore emit loops by XLA's older emitters, which takes
half as long, and but for the slow tests do not optimize machine code, which saves a quarter again. A single process
(`-n 0`), the claims and the benchmarks run what a user's program would, and so does what asks for `optimized`; slow
tests that compile much and compute little ask for `unoptimized`.
"""

import gc
import os
import subprocess
import sys

# XLA warns at length whenever it loads a cached program; it must be told before JAX is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import pytest

from dltheory import platform
from experiments import compilation_cache

QUICK_EMITTERS = "--xla_cpu_use_fusion_emitters=false"

compilation_cache.enable()  # shared between workers, runs and the command line
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_traceback_in_locations_limit", 0)  # frames recorded with every operation take a tenth of it
gc.set_threshold(100_000, 20, 50)  # traced programs are many small objects that live long


def pytest_sessionstart(session):
    """Refuses to test anything over a platform that computes wrong numbers."""
    try:
        platform.require_sound()
    except platform.PlatformError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.INTERNAL_ERROR)
    if hasattr(session.config, "workerinput"):
        _optimize(session.config.option.markexpr != "not slow")
        return
    if not session.config.getoption("numprocesses", None):
        return
    # The workers inherit this; it is tried out first, as XLA ends a process over a flag that it does not know.
    flags = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_EMITTERS}".strip()
    trial = [sys.executable, "-c", "import jax; jax.jit(lambda: 0)()"]
    if subprocess.run(trial, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, check=False).returncode == 0:
        os.environ["XLA_FLAGS"] = flags


def _optimize(wanted):
    jax.config.update("jax_disable_most_optimizations", not wanted)


@pytest.fixture
def optimized():
    """Runs one test on optimized machine code, for what is said of the rounding of a user's program."""
    yield from _with_optimization(True)


@pytest.fixture
def unoptimized():
    """Runs one test on machine code that is compiled fast, for what costs more to compile than to run."""
    yield from _with_optimization(False)


def _with_optimization(wanted):
    before = jax.config.read("jax_disable_most_optimizations")
    _optimize(wanted)
    yield
    _optimize(not before)


@pytest.fixture
def x64():
    """Runs one test in double precision."""
    with jax.enable_x64():
        yield
