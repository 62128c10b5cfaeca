"""The folder in which XLA's compiled programs are kept between runs, workers and tests."""

from __future__ import annotations

import os
from pathlib import Path

import jax

__all__ = ["enable"]


def enable() -> None:
    """Keeps every compiled program, however small, below the user's cache folder; a folder set by the user stays."""
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "dltheory" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
