"""Settings that every test shares."""

import os

# XLA warns at length whenever it loads a cached program; it must be told before JAX is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import pytest

from dltheory import platform
from experiments import compilation_cache

compilation_cache.enable()  # shared between workers, runs and the command line
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
