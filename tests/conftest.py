"""Settings that every test shares."""

import os
from pathlib import Path

import jax
import pytest

from dltheory import platform

# Compiled programs are shared between workers, runs and the command line.
_cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dltheory" / "xla"
jax.config.update("jax_compilation_cache_dir", str(_cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_sessionstart(session):
    """Refuses to test anything over a platform that computes wrong numbers."""
    try:
        platform.require_sound()
    except platform.PlatformError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.INTERNAL_ERROR)


@pytest.fixture
def x64():
    """Runs one test in double precision."""
    with jax.enable_x64():
        yield
