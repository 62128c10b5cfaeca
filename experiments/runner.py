"""Evaluates claims in worker processes, so that a crash, a kill or a time-out costs one claim and no more.

Every worker is a `concurrent.futures` executor of one process, served by one thread: a claim is a call submitted to
it, and a process that dies or does not answer in time is replaced. On this machine the executor is a process pool; on
a Dask cluster it is the cluster's own.
"""

from __future__ import annotations

import collections
import enum
import multiprocessing
import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from experiments import worker
from experiments.claim import Claim
from experiments.evaluate import Record, error_record

__all__ = [
    "DaskWorker",
    "Event",
    "Finished",
    "LocalWorker",
    "Lost",
    "Runner",
    "Started",
    "Worker",
    "dask_workers",
    "time_limit",
]

_START_SECONDS = 120
_GRACE = 0.5  # seconds beyond the time limit in which a worker writes down where its claim was


class Started(NamedTuple):
    """A worker has begun a claim."""

    claim: str


class Finished(NamedTuple):
    """A claim has its record."""

    record: Record


class Lost(NamedTuple):
    """A worker could not be started, or started again; the others go on."""

    reason: str


Event = Started | Finished | Lost


class Worker(Protocol):
    """One process, here or elsewhere, that takes one call at a time."""

    def start(self) -> None:
        """Starts the process, in place of the one before if there was one; any exception means that it cannot."""
        ...

    def submit(self, call: Callable[..., Any], *args: Any) -> Future[Any]:
        """Calls a function in the process."""
        ...

    def kill(self) -> None:
        """Ends the process at once, whatever it does; may be called by any thread at any time, and again."""
        ...

    def post_mortem(self) -> tuple[str, str]:
        """After a call that broke the process: what became of it in a few words, and what it last wrote."""
        ...


def time_limit(claim: Claim, tier: str) -> float:
    """Seconds after which a claim is stopped."""
    return claim.time_limit * {"quick": 1, "full": 10}[tier]


class LocalWorker:
    """A process of this machine.

    Args:
        threads: how many threads its linear algebra may use. Several workers whose BLAS each take all cores wait for
            one another: two such processes on two cores needed ten times as long for a singular-value decomposition.
    """

    def __init__(self, threads: int) -> None:
        names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
        self._environment = dict.fromkeys(names, str(threads)) | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self._log = tempfile.NamedTemporaryFile(prefix="claim-", suffix=".log")  # noqa: SIM115
        self._executor: Executor | None = None
        self._process: BaseProcess | None = None

    def start(self) -> None:
        """Starts the process; see `Worker`."""
        self.kill()
        if self._executor is not None:
            self._executor.shutdown()
        self._executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        process_id = self.submit(worker.own_process, self._log.name, self._environment).result()
        self._process = next(child for child in multiprocessing.active_children() if child.pid == process_id)

    def submit(self, call: Callable[..., Any], *args: Any) -> Future[Any]:
        """Calls a function in the process."""
        assert self._executor is not None, "start the worker first"
        os.truncate(self._log.name, 0)
        return self._executor.submit(call, *args)

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process is not None:
            self._process.kill()

    def post_mortem(self) -> tuple[str, str]:
        """How the process ended, and the end of its log."""
        assert self._executor is not None
        assert self._process is not None
        self.kill()
        self._executor.shutdown()
        status = self._process.exitcode or 0
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
            how += " (out of memory?)" if -status == signal.SIGKILL else ""
        else:
            how = f"exited with status {status}"
        lines = Path(self._log.name).read_text(errors="replace").splitlines(keepends=True)
        readable = [line for line in lines if len(line) < 500]  # not the lists of CPU features and extension modules
        return f"its process {how}", "".join(readable)[-5000:]


class DaskWorker:
    """A worker of a Dask cluster, known by its name, which survives its restarts.

    What can be stopped from here is less than with a `LocalWorker`. A claim that exceeds its time is stopped by
    restarting its worker, which takes a nanny; without one, the claim runs on, and the worker counts as lost. The time
    limit begins when the claim is submitted: other users of the cluster delay it. A claim that kills its worker is
    tried again until the cluster gives up (``distributed.scheduler.allowed-failures``). After Ctrl-C, claims that have
    begun run on to their end, unheard.
    """

    def __init__(self, client: Any, name: Any) -> None:
        self._client, self._name = client, name
        self._executor: Executor = client.get_executor(workers=[name], pure=False)
        self._last: Future[Any] | None = None

    def start(self) -> None:
        """Restarts the worker if it may still be busy with a claim that was withdrawn."""
        if self._last is not None and self._last.cancelled():
            self._client.restart_workers([self._name], timeout=_START_SECONDS)

    def submit(self, call: Callable[..., Any], *args: Any) -> Future[Any]:
        """Calls a function in the worker."""
        self._last = self._executor.submit(call, *args)
        return self._last

    def kill(self) -> None:
        """Withdraws the call."""
        if self._last is not None:
            self._last.cancel()

    def post_mortem(self) -> tuple[str, str]:
        """Dask keeps no last words."""
        return "its Dask worker was lost", ""


def dask_workers(client: Any) -> list[DaskWorker]:
    """All workers that a cluster has now."""
    return [DaskWorker(client, name) for name in client.run(_dask_name).values()]


class Runner:
    """Hands claims to workers and gives back what becomes of them, as it happens.

    Args:
        workers: not yet started.
        package: where the claims are; workers import it.
        seed: of the run.
        tier: of the run.
        digest: of the run's sources; a worker that has others is not used.
    """

    def __init__(self, workers: Sequence[Worker], *, package: str, seed: int, tier: str, digest: str) -> None:
        self._workers, self._package, self._seed, self._tier, self._digest = workers, package, seed, tier, digest
        self._todo: collections.deque[Claim] = collections.deque()
        self._events: queue.SimpleQueue[Event | _Signal] = queue.SimpleQueue()
        self._stopping = False

    def run(self, claims: Sequence[Claim]) -> Generator[Event, None, None]:
        """Evaluates the claims in their order; ends when all are done, no worker is left, or `stop` was called.

        However it ends, it leaves no worker process behind.
        """
        self._todo.extend(claims)
        threads = [threading.Thread(target=self._serve, args=(each,), daemon=True) for each in self._workers]
        for thread in threads:
            thread.start()
        serving = len(threads)
        try:
            while serving:
                event = self._events.get()
                if event is _Signal.STOP:
                    break
                if isinstance(event, _Signal):
                    serving -= 1
                else:
                    yield event
        finally:
            self._stopping = True
            self._todo.clear()
            for thread, each in zip(threads, self._workers, strict=True):
                while thread.is_alive():
                    each.kill()  # again and again: the thread may be about to start another process
                    thread.join(0.05)

    def stop(self) -> None:
        """Ends `run`; what has finished so far is yielded first. May be called by a signal handler."""
        self._events.put(_Signal.STOP)

    def _serve(self, each: Worker) -> None:
        # Processes inherit the mask, so that Ctrl-C cannot hit them while they start; `own_process` lifts it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        environment = None
        try:
            while self._todo and not self._stopping:
                environment = environment or self._start(each)
                try:
                    claim = self._todo.popleft()
                except IndexError:
                    break
                self._events.put(Started(claim.name))
                record, healthy = self._evaluate(each, claim)
                if self._stopping:
                    break
                record.digest, record.environment = self._digest, environment
                self._events.put(Finished(record))
                environment = environment if healthy else None
        except Exception as error:
            if not self._stopping:
                self._events.put(Lost(f"a worker cannot start: {type(error).__name__}: {error}"))
        finally:
            each.kill()
            self._events.put(_Signal.LEFT)

    def _start(self, each: Worker) -> dict[str, Any]:
        each.start()
        answer = each.submit(worker.start, self._package).result(_START_SECONDS)
        if answer["digest"] != self._digest:
            raise RuntimeError("its sources or libraries are not those of this run")
        return answer["environment"]

    def _evaluate(self, each: Worker, claim: Claim) -> tuple[Record, bool]:
        """The claim's record, and whether the worker can go on."""
        limit, began = time_limit(claim, self._tier), time.perf_counter()
        log, healthy = "", False
        try:
            call = (self._package, claim.name, self._seed, self._tier, limit)
            return each.submit(worker.evaluate_claim, *call).result(limit + _GRACE), True
        except TimeoutError:
            each.kill()
            reason, log = f"stopped after {limit:g} s", each.post_mortem()[1]
        except BrokenExecutor:
            reason, log = each.post_mortem()
        except BaseException as error:  # SystemExit, an answer that cannot be pickled, Dask's KilledWorker
            reason, healthy = f"{type(error).__name__}: {error}", True
        seconds = time.perf_counter() - began
        record = error_record(claim, reason, seed=self._seed, tier=self._tier, wall_seconds=seconds)
        record.traceback = log or None
        return record, healthy


class _Signal(enum.Enum):
    LEFT = enum.auto()  # a worker has nothing more to do
    STOP = enum.auto()


def _dask_name(dask_worker: Any) -> Any:
    return dask_worker.name
