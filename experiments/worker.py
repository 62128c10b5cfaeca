"""What runs inside a worker process. Importing it is cheap, and touches JAX only when a worker starts."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.evaluate import Record

__all__ = ["evaluate_claim", "own_process", "start"]

_OUTPUT_LIMIT = 20_000  # characters of a claim's output that are kept


def own_process(log: str, environment: dict[str, str]) -> int:
    """Turns a fresh process into a worker of the run that started it; returns its id.

    What C code writes (and a fault handler's last words) goes to the file `log`. Ctrl-C is for the run, which then ends
    its workers; if the run dies without a word, they end themselves.

    Args:
        log: a file that the run has open.
        environment: variables that hold unless the user has set them, read by libraries that are yet to be imported.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    os.unlink(log)  # it lives as long as both processes have it open, and is gone however they end
    faulthandler.enable(all_threads=False)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")  # where memory runs out, the kernel should end a worker rather than the run
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    return os.getpid()


def start(package: str) -> tuple[dict[str, Any], str]:
    """Imports the claims; returns the process's environment and the digest of the sources that it imports.

    Raises:
        PlatformError: if this platform computes wrong numbers.
    """
    from dltheory import platform
    from experiments import compilation_cache, environment
    from experiments.claim import all_claims

    digest = environment.source_digest(package)
    compilation_cache.enable()
    platform.require_sound()
    all_claims(package)
    return environment.describe(), digest


def evaluate_claim(package: str, name: str, seed: int, tier: str, time_limit: float) -> Record:
    """Evaluates one claim; if that takes longer than `time_limit`, tells the log where it was then."""
    from experiments.claim import all_claims
    from experiments.evaluate import evaluate

    faulthandler.dump_traceback_later(time_limit)
    try:
        record = evaluate(all_claims(package)[name], seed=seed, tier=tier)
    finally:
        faulthandler.cancel_dump_traceback_later()
    if len(record.output) > _OUTPUT_LIMIT:
        record.output = f"[... {len(record.output)} characters]\n{record.output[-_OUTPUT_LIMIT:]}"
    return record


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
