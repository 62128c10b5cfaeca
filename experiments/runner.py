"""Evaluates claims in worker processes, so that a crash, a kill or a time-out costs one claim and no more.

A `LocalWorker` is a `concurrent.futures` process pool of one process, replaced when a claim breaks it or takes too
long. A `DaskWorker` submits claims to a Dask cluster, where a `LocalWorker` takes them. A `Runner` serves any number of
workers from one queue of claims, each by a thread of its own.
"""

from __future__ import annotations

import collections
import enum
import multiprocessing
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from io import FileIO
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol

from experiments import worker
from experiments.claim import Claim, all_claims
from experiments.environment import source_digest
from experiments.evaluate import Record, error_record

__all__ = [
    "DaskWorker",
    "Event",
    "Finished",
    "Job",
    "LocalWorker",
    "Lost",
    "Runner",
    "Started",
    "Worker",
    "WorkerError",
    "dask_workers",
    "time_limit",
]

_START_SECONDS = 120  # in which a process must have imported the claims
_GRACE = 0.5  # seconds beyond the time limit in which a process writes down where its claim was


class Job(NamedTuple):
    """What the claims of a run have in common.

    Attributes:
        package: where the claims are.
        seed: of the run.
        tier: of the run.
        digest: of the sources that the run began with.
    """

    package: str
    seed: int
    tier: str
    digest: str


class WorkerError(Exception):
    """A worker cannot be used any more; says why."""


class Started(NamedTuple):
    """A worker has taken a claim."""

    claim: str


class Finished(NamedTuple):
    """A claim has its record."""

    record: Record


class Lost(NamedTuple):
    """A worker cannot be used any more; the others go on."""

    reason: str


Event = Started | Finished | Lost


class Worker(Protocol):
    """Evaluates one claim at a time, out of this process."""

    def start(self, job: Job) -> None:
        """Gets ready for a claim; does nothing if it is.

        Raises:
            Exception: if it cannot; it is not used any more.
        """
        ...

    def evaluate(self, claim: Claim, job: Job) -> Record:
        """The claim's record, whatever the claim does.

        Raises:
            Exception: if the worker, not the claim, is to blame; the claim has no record then.
        """
        ...

    def kill(self) -> None:
        """Makes `start` and `evaluate` end at once; may be called by any thread at any time, and again."""
        ...

    def close(self) -> None:
        """Ends the worker."""
        ...


def time_limit(claim: Claim, tier: str) -> float:
    """Seconds after which a claim is stopped."""
    return claim.time_limit * {"quick": 1, "full": 10}[tier]


class LocalWorker:
    """A process of this machine; the first claim starts it.

    Args:
        threads: how many threads its linear algebra may use. Several processes whose BLAS each take all cores wait for
            one another: two of them on two cores needed ten times as long for a singular-value decomposition.
    """

    def __init__(self, threads: int) -> None:
        names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
        self._variables = dict.fromkeys(names, str(threads)) | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self._executor: Executor | None = None
        self._process: BaseProcess | None = None
        self._log: FileIO | None = None
        self._environment: dict[str, Any] = {}

    def start(self, job: Job) -> None:
        """Starts the process unless it runs; see `Worker`."""
        if self._executor is not None:
            return
        self._executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        descriptor, name = tempfile.mkstemp(prefix="dltheory-")
        self._log = open(descriptor, "r+b", buffering=0)  # noqa: SIM115
        process_id = self._executor.submit(worker.own_process, name, self._variables).result(_START_SECONDS)
        self._process = next(child for child in multiprocessing.active_children() if child.pid == process_id)
        self._environment, digest = self._executor.submit(worker.start, job.package).result(_START_SECONDS)
        if digest != job.digest:
            raise WorkerError("the sources or libraries that it imports are not those that the run began with")

    def evaluate(self, claim: Claim, job: Job) -> Record:
        """The claim's record; see `Worker`."""
        assert self._executor is not None
        assert self._log is not None
        self._log.truncate(0)
        limit, began, log = time_limit(claim, job.tier), time.perf_counter(), ""
        try:
            call = (job.package, claim.name, job.seed, job.tier, limit)
            record = self._executor.submit(worker.evaluate_claim, *call).result(limit + _GRACE)
        except BaseException as error:
            seconds = time.perf_counter() - began
            if isinstance(error, TimeoutError):
                reason, log = f"stopped after {limit:g} s", self._bury()[1]
            elif isinstance(error, BrokenExecutor):
                reason, log = self._bury()
            else:  # the claim raised KeyboardInterrupt, or its record cannot be pickled
                reason = f"{type(error).__name__}: {error}"
            record = error_record(claim, reason, seed=job.seed, tier=job.tier, wall_seconds=seconds)
            record.traceback = log or None
        record.digest, record.environment = job.digest, self._environment
        return record

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Ends the process, and waits until it has ended."""
        self.kill()
        if self._executor is not None:
            self._executor.shutdown()
        if self._log is not None:
            self._log.close()
        self._executor = self._log = None

    def _bury(self) -> tuple[str, str]:
        """Ends the process if it has not ended; what became of it, in a few words, and what it last wrote."""
        assert self._process is not None
        assert self._log is not None
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines(keepends=True)
        readable = [line for line in lines if len(line) < 500]  # not the lists of CPU features and extension modules
        self.close()
        status = self._process.exitcode or 0
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
            how += " (out of memory?)" if -status == signal.SIGKILL else ""
        else:
            how = f"exited with status {status}"
        return f"its process {how}", "".join(readable)[-5000:]


class DaskWorker:
    """One claim at a time on a Dask cluster, on whichever of its machines is free.

    The cluster's worker runs the claim in a process of its own, so that what a `LocalWorker` guarantees holds there:
    the time limit counts from the moment the claim starts, and no claim takes a cluster's worker down. Each claim pays
    for the start of that process. If a machine is lost, Dask gives its claims to another. A claim that is under way
    when the run is stopped goes on, unheard, until its end or its time limit.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._call: Future[Record] | None = None

    def start(self, job: Job) -> None:
        """Nothing is to be done; see `dask_workers`."""

    def evaluate(self, claim: Claim, job: Job) -> Record:
        """The claim's record; see `Worker`."""
        try:
            self._call = self._executor.submit(_evaluate_apart, claim.name, job)
            return self._call.result()
        except CancelledError:
            raise WorkerError("the Dask cluster has withdrawn the claim") from None
        except Exception as error:  # such as Dask's KilledWorker, if the machine runs out of memory again and again
            return error_record(claim, f"{type(error).__name__}: {error}", seed=job.seed, tier=job.tier)

    def kill(self) -> None:
        """Withdraws the claim."""
        if self._call is not None:
            self._call.cancel()

    def close(self) -> None:
        """The cluster goes on."""


def dask_workers(client: Any, package: str) -> list[DaskWorker]:
    """As many workers as the threads that a Dask cluster has now.

    Raises:
        WorkerError: if there are none, or some have other sources or libraries than this process.
        Exception: whatever a worker raises that cannot import them.
    """
    digests = client.run(source_digest, package)
    if not digests:
        raise WorkerError("the cluster has no workers")
    if others := [address for address, digest in digests.items() if digest != source_digest(package)]:
        raise WorkerError(f"{', '.join(others)}: the sources or libraries there are not those here")
    return [DaskWorker(client.get_executor(pure=False)) for _ in range(sum(client.nthreads().values()))]


def _evaluate_apart(name: str, job: Job) -> Record:
    """Evaluates a claim in a process of its own; for processes that must outlive whatever the claim does."""
    # Dask marks its workers as daemons, which may not have children lest these be orphaned; ours look after themselves.
    multiprocessing.current_process().daemon = False
    for event in Runner([LocalWorker(threads=1)], job).run([all_claims(job.package)[name]]):
        if isinstance(event, Finished):
            return event.record
        if isinstance(event, Lost):
            raise WorkerError(event.reason)
    raise WorkerError("the claim was not evaluated")


class Runner:
    """Hands claims to workers, and gives back what becomes of them as it happens."""

    def __init__(self, workers: Sequence[Worker], job: Job) -> None:
        self._workers, self._job = workers, job
        self._todo: collections.deque[Claim] = collections.deque()
        self._events: queue.SimpleQueue[Event | _Signal] = queue.SimpleQueue()
        self._stopping = False

    def run(self, claims: Sequence[Claim]) -> Generator[Event, None, None]:
        """Evaluates claims, begun in their order; ends when all are done, no worker is left, or `stop` is called.

        However it ends, it leaves no process behind.
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
                if event is _Signal.LEFT:
                    serving -= 1
                elif not isinstance(event, _Signal):
                    yield event
        finally:
            self._stopping = True
            self._todo.clear()
            for thread, each in zip(threads, self._workers, strict=True):
                while thread.is_alive():
                    each.kill()  # again and again: the thread may be about to start another process
                    thread.join(0.05)

    def stop(self) -> None:
        """Ends `run`; what has finished so far is yielded first. A signal handler may call it."""
        self._events.put(_Signal.STOP)

    def _serve(self, each: Worker) -> None:
        # Processes inherit the mask, so that Ctrl-C cannot hit them while they start; `own_process` lifts it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            while self._todo and not self._stopping:
                each.start(self._job)
                try:
                    claim = self._todo.popleft()
                except IndexError:  # another worker was faster
                    break
                self._events.put(Started(claim.name))
                record = each.evaluate(claim, self._job)
                if not self._stopping:
                    self._events.put(Finished(record))
        except Exception as error:
            if not self._stopping:
                what = str(error) if isinstance(error, WorkerError) else f"{type(error).__name__}: {error}"
                self._events.put(Lost(f"a worker is lost: {what}"))
        finally:
            each.close()
            self._events.put(_Signal.LEFT)


class _Signal(enum.Enum):
    LEFT = enum.auto()  # a worker has nothing more to do
    STOP = enum.auto()
