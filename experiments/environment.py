"""Where a run happens, and what its numbers depend on."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform as host
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import dltheory.platform

__all__ = ["describe", "source_digest"]

_ROOT = Path(__file__).parent.parent
_LIBRARIES = ("jax", "jaxlib", "numpy", "scipy", "optax", "flax")


def describe() -> dict[str, Any]:
    """Versions, device, machine and commit: for people to read, and kept with every record."""
    return {
        **{name: value for name, value in dltheory.platform.environment().items() if name != "x64"},
        "scipy": metadata.version("scipy"),
        "machine": f"{host.machine()}, {host.system()} {host.release()}",
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "commit": _commit(),
    }


def source_digest(package: str = "experiments.claims") -> str:
    """Hash of everything that decides a claim's numbers, machine apart.

    It covers the Python and TOML files of the library, of this application and of the package of claims, and the
    versions of the numerical libraries. A record that another digest made is not trusted.
    """
    digest = hashlib.sha256()
    for library in _LIBRARIES:
        digest.update(f"{library} {metadata.version(library)}\n".encode())
    for folder in dict.fromkeys([_ROOT / "dltheory", _ROOT / "experiments", *_folders(package)]):
        for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.toml")]):
            digest.update(f"{file.relative_to(folder)}\n".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _folders(package: str) -> list[Path]:
    return [Path(folder) for folder in importlib.import_module(package).__path__]


def _commit() -> str | None:
    """The commit that is checked out, marked if the tree differs from it; None without git."""
    try:
        git = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
