"""The command line: ``python -m experiments``.

Exit status: 0 if all claims are as expected, 1 if something is not, 2 for bad usage (with one line on standard error),
130 after Ctrl-C, 143 after SIGTERM. What is slow to import is imported by the commands that need it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from experiments.errors import UsageError

if TYPE_CHECKING:
    from experiments.claim import Claim
    from experiments.statements import Statement

__all__ = ["main"]

_PACKAGE = "experiments.claims"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    try:
        options = _parser().parse_args(arguments)
        status = options.command(options)
        sys.stdout.flush()
    except UsageError as error:
        return _complain(str(error))
    except BrokenPipeError:  # whoever reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _complain(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
    except KeyboardInterrupt:
        _complain("interrupted")
        return 128 + signal.SIGINT
    return status


def _list(options: argparse.Namespace) -> int:
    from experiments.select import claims_of, select

    claims = select(options.patterns, claims_of(options.package or _PACKAGE))
    width = max(len(claim.name) for claim in claims)
    for claim in claims:
        tier = "" if claim.tier == "quick" else f" [{claim.tier} tier only]"
        print(f"{claim.name:{width}}  {claim.expected:9}  {claim.says}{tier}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from experiments.run import run

    return run(options, default_package=_PACKAGE)


def _show(options: argparse.Namespace) -> int:
    from experiments.select import claims_of, find_statement
    from experiments.store import find_run, runs

    statement, claims = find_statement(options.name, claims_of(options.package or _PACKAGE))
    folders = list(runs()) if options.run is None else [find_run(options.run)]
    if statement is not None:
        _show_statement(statement)
    for claim in claims:
        _show_claim(claim, folders)
    return 0


def _show_statement(statement: Statement) -> None:
    print(f"{statement.id}: {statement.title} ({statement.kind})")
    _field("printed", statement.printed)
    if statement.status != "ok":
        _field(statement.status, "as printed; it should read:")
        _field("corrected", statement.corrected)
    _field("remark", statement.remark)
    _field("assumptions", "; ".join(statement.assumptions))
    _field("source", statement.source)
    _field("functions", ", ".join(statement.functions))
    _field("depends on", ", ".join(statement.depends_on))


def _show_claim(claim: Claim, folders: Sequence[Path]) -> None:
    """A claim and its record in the first of the folders that has one."""
    from experiments.progress import duration, outcome
    from experiments.store import load_run

    print(f"\n{claim.name} (to be {claim.expected})")
    _field("claim", claim.says)
    _field("control", claim.control.what)
    for folder in folders:
        run = load_run(folder, only=[claim.name])
        if claim.name in run.records:
            record = run.records[claim.name]
            _field("verdict", f"{outcome(record)}: {record.reason}")
            numbers = ("margin", "measured", "predicted", "standard_error", "tightness")
            known = {name.replace("_", " "): getattr(record, name) for name in numbers}
            _field("numbers", ", ".join(f"{name} {value:.6g}" for name, value in known.items() if value is not None))
            if record.control is not None:
                _field("control", f"{record.control['verdict']}: {record.control['reason']}")
            _field("run", f"{folder} ({record.tier} tier, seed {record.seed}, {duration(record.wall_seconds)})")
            return
    _field("verdict", "not run yet")


def _field(name: str, text: str) -> None:
    if text:
        width = max(40, shutil.get_terminal_size().columns - 1)
        print(textwrap.fill(" ".join(text.split()), width, initial_indent=f"  {name:12} ", subsequent_indent=" " * 15))


def _bench(options: argparse.Namespace) -> int:
    from experiments.bench.command import bench

    return bench(options)


def _report(options: argparse.Namespace) -> int:
    from experiments.report import write_report
    from experiments.store import find_run

    print(write_report(find_run(options.run)))
    return 0


def _complain(message: str) -> int:
    print(f"python -m experiments: {message}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    """Answers bad usage with one line instead of the usage text and a line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m experiments",
        description="Checks every statement of the sheet: each claim is measured, compared with its theory, and must "
        "reject a wrong one.",
    )
    commands = parser.add_subparsers(required=True, metavar="list | run | show | report | bench")

    package = _Parser(add_help=False)
    package.add_argument("--claims", dest="package", metavar="PACKAGE", help=f"package of claims (default {_PACKAGE})")
    patterns = _Parser(add_help=False)
    patterns.add_argument(
        "patterns",
        nargs="*",
        metavar="PATTERN",
        help="a statement, a claim, a chapter, the beginning of names, or a shell pattern; by default everything",
    )

    listing = commands.add_parser("list", parents=[patterns, package], help="name the claims and what they say")
    listing.set_defaults(command=_list)

    run = commands.add_parser("run", parents=[patterns, package], help="check claims and write the report")
    run.add_argument("--tier", choices=("quick", "full"), help="how much is simulated (default quick)")
    run.add_argument("--jobs", type=_whole(1), metavar="N", help="worker processes (default: one for each core)")
    run.add_argument("--seed", type=_whole(0), metavar="S", help="changes all random numbers (default 0)")
    run.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with RUN (a name in results/ or a folder; by default the latest of the same tier and seed): what "
        "is stored already, and was computed by the present sources, is kept",
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default results/TIME-TIER-SEED)")
    run.add_argument("--scheduler", metavar="ADDRESS", help="use a Dask cluster, whose workers import the same sources")
    run.set_defaults(command=_run)

    show = commands.add_parser("show", parents=[package], help="show a statement and the latest records of its claims")
    show.add_argument("name", metavar="NAME", help="id of a statement, or name of a claim")
    show.add_argument("--run", metavar="RUN", help="take the records from this run")
    show.set_defaults(command=_show)

    report = commands.add_parser("report", help="write the report of a run again")
    report.add_argument("run", nargs="?", metavar="RUN", help="a name in results/ or a folder (default: the latest)")
    report.set_defaults(command=_report)

    bench = commands.add_parser("bench", help="measure this library's functions beside their peers")
    bench.add_argument(
        "patterns", nargs="*", metavar="PATTERN", help="a benchmark, a topic, the beginning of names, a shell pattern"
    )
    bench.add_argument("--rounds", type=_whole(1), default=7, metavar="N", help="runs of each contender (default 7)")
    bench.add_argument("--out", type=Path, metavar="FILE", help="JSON file (default results/bench/TIME.json)")
    bench.add_argument(
        "--topic", action="append", dest="topics", metavar="MODULE", help="module of benchmarks (default: all of ours)"
    )
    bench.set_defaults(command=_bench)
    return parser


def _whole(least: int):
    """Parses a whole number from `least` to 2**63 - 1."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number < 2**63:
            raise argparse.ArgumentTypeError(f"a whole number, at least {least}, is needed, not {text!r}")
        return number

    return parse
