"""The command ``run``: choose claims, evaluate what has no record yet, store, report."""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

import dltheory.platform
from experiments.claim import Claim
from experiments.environment import describe, source_digest
from experiments.errors import UsageError
from experiments.evaluate import Record
from experiments.judges import Verdict
from experiments.progress import Progress, ProgressLines, ProgressTable, duration, outcome, summary
from experiments.runner import Finished, Job, LocalWorker, Lost, Runner, Started, Worker, dask_workers
from experiments.select import claims_of, select
from experiments.store import Store, find_run, read_settings, runs

__all__ = ["run"]


class _Plan(NamedTuple):
    """What the options, and the run to go on with, amount to."""

    path: Path | None
    resumes: bool
    package: str
    tier: str
    seed: int
    patterns: Sequence[str]


def run(options: argparse.Namespace, *, default_package: str) -> int:
    """Runs claims; returns the exit status.

    A record that cannot be written ends the run: what has been stored stays, and computing what cannot be kept would
    be in vain.

    Raises:
        UsageError: if the options make no sense, or the platform computes wrong numbers.
        OSError: if the folder of the run cannot be written.
    """
    plan = _plan(options, default_package)
    registry = claims_of(plan.package)
    claims = select(plan.patterns, registry, plan.tier)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # an accelerator's memory is the workers'
    try:
        dltheory.platform.require_sound()
    except dltheory.platform.PlatformError as error:
        raise UsageError(str(error)) from None

    with contextlib.ExitStack() as stack:
        workers = _workers(options, plan.package, stack)
        digest = source_digest(plan.package)
        store = stack.enter_context(_open_store(plan, options, digest, claims, registry))
        kept = {name: store.records[name] for name in (claim.name for claim in claims) if _complete(store, name)}
        todo = [claim for claim in claims if claim.name not in kept]
        _announce(store, plan, claims, kept)

        runner = Runner(workers[: len(todo)], Job(plan.package, plan.seed, plan.tier, digest))
        progress = _progress(claims, kept)
        with _signals_call(runner.stop) as signals, progress:
            troubles = _follow(runner, todo, store, progress)
        if signals:
            print(f"stopped by {signal.Signals(signals[0]).name}")
        print("writing the report", flush=True)
        report, more = _write_report(store.path)
        as_expected = _conclude({claim.name: store.records.get(claim.name) for claim in claims}, store, progress)
    for trouble in [*troubles, *more]:
        print(trouble, file=sys.stderr)
    if report is not None:
        print(f"report: {report}")
    if signals:
        return 128 + signals[0]
    return 0 if as_expected and not troubles and report is not None else 1


def _plan(options: argparse.Namespace, default_package: str) -> _Plan:
    defaults = {"package": default_package, "tier": "quick", "seed": 0}
    asked = {name: getattr(options, name) for name in defaults if getattr(options, name) is not None}
    path = _to_resume(options, defaults | asked) if options.resume is not None else None
    if path is None:
        return _Plan(options.out, False, patterns=options.patterns, **defaults | asked)
    settings = read_settings(path)
    for name, value in asked.items():
        if value != settings[name]:
            raise UsageError(f"{path} has {name} {settings[name]}, not {value}")
    fixed = {name: settings[name] for name in defaults}
    return _Plan(path, True, patterns=options.patterns or settings["patterns"], **fixed)


def _to_resume(options: argparse.Namespace, wanted: Mapping[str, Any]) -> Path | None:
    """The run to go on with; None if there is none yet, so that a script may always say ``--resume``."""
    if options.resume and options.out:
        raise UsageError("--resume RUN and --out DIR name two folders")
    if options.resume:
        return find_run(options.resume)
    if options.out:
        return options.out if (options.out / "run.json").exists() else None
    alike = (path for path, settings in runs().items() if all(settings[name] == wanted[name] for name in wanted))
    return next(alike, None)


def _workers(options: argparse.Namespace, package: str, stack: contextlib.ExitStack) -> Sequence[Worker]:
    if options.scheduler is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jobs = options.jobs or cores
        return [LocalWorker(threads=max(1, cores // jobs)) for _ in range(jobs)]
    try:
        from distributed import Client

        client = stack.enter_context(Client(options.scheduler, timeout=10, set_as_default=False))
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {options.scheduler}: {error}") from None
    try:
        return dask_workers(client, package)[: options.jobs]
    except Exception as error:  # whatever the cluster raises
        raise UsageError(f"the Dask cluster at {options.scheduler} cannot be used: {error}") from None


def _open_store(
    plan: _Plan, options: argparse.Namespace, digest: str, claims: Sequence[Claim], registry: Mapping[str, Claim]
) -> Store:
    common: dict[str, Any] = {"environment": describe(), "digest": digest, "claims": [claim.name for claim in claims]}
    if plan.resumes:
        assert plan.path is not None
        return Store.resume(plan.path, registry=registry, **common)
    settings = {name: getattr(plan, name) for name in ("package", "tier", "seed", "patterns")}
    settings |= {"jobs": options.jobs, "scheduler": options.scheduler}
    return Store.create(plan.path, settings=settings, **common)


def _complete(store: Store, name: str) -> bool:
    return name in store.records and store.records[name].verdict != Verdict.ERROR


def _announce(store: Store, plan: _Plan, claims: Sequence[Claim], kept: Mapping[str, Record]) -> None:
    done = f", {len(kept)} of them done" if plan.resumes else ""
    print(f"{store.path}: {len(claims)} claims{done}, {plan.tier} tier, seed {plan.seed}")
    by_reason = collections.defaultdict(list)
    for file, reason in store.problems:
        by_reason[reason].append(file)
    for reason, files in by_reason.items():
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        print(f"moved aside: {', '.join(files[:3])}{more}: {reason}")
    sys.stdout.flush()


def _progress(claims: Sequence[Claim], kept: Mapping[str, Record]) -> Progress:
    console = Console()
    return ProgressTable(claims, kept, console) if console.is_terminal else ProgressLines(claims, kept)


@contextlib.contextmanager
def _signals_call(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Lets Ctrl-C and SIGTERM call `stop`; gives the list of those that came. One that is ignored stays so (nohup)."""
    came: list[int] = []

    def handle(number: int, _: object) -> None:
        came.append(number)
        stop()

    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(runner: Runner, todo: Sequence[Claim], store: Store, progress: Progress) -> list[str]:
    """Stores what the runner yields; returns what went wrong beside the claims themselves, a line each."""
    lost: list[str] = []
    with contextlib.closing(runner.run(todo)) as events:
        for event in events:
            match event:
                case Started(claim):
                    progress.started(claim)
                case Finished(record):
                    try:
                        store.write(record)
                    except OSError as error:
                        return [f"{record.claim} cannot be stored, the run ends here: {error.strerror}"]
                    progress.finished(record)
                case Lost(reason):
                    lost.append(reason)
    return sorted(set(lost))


def _write_report(path: Path) -> tuple[Path | None, list[str]]:
    """The report's first page, and what went wrong: verdicts must not be lost over their pictures."""
    try:
        from experiments.report import write_report

        return write_report(path), []
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        return None, [f"the report is not written ({what}); try python -m experiments report {path}"]


def _conclude(records: Mapping[str, Record | None], store: Store, progress: Progress) -> bool:
    """Says how it went; returns whether all is as expected."""
    total = progress.total
    unexpected = [record for record in records.values() if record is not None and not record.as_expected]
    missing = [name for name, record in records.items() if record is None]
    for record in unexpected:
        print(f"{outcome(record)}: {record.claim}: {summary(record)}")
    if missing:
        print(f"not run: {len(missing)} of {len(records)} claims; python -m experiments run --resume {store.path}")
    print(
        f"{len(records) - len(unexpected) - len(missing)} of {len(records)} claims as expected "
        f"({total.confirmed} confirmed, {total.refuted} refuted), {total.controls} controls rejected, "
        f"in {duration(progress.elapsed)}"
    )
    return not unexpected and not missing
