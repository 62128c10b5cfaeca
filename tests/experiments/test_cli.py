"""The command line: what it answers, what it refuses, and what is left after it was interrupted or killed."""

import contextlib
import copy
import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import psutil
import pytest
from rich.console import Console

import dltheory.platform
from experiments import run as run_module
from experiments import store as store_module
from experiments.claim import all_claims
from experiments.cli import main
from experiments.errors import UsageError
from experiments.evaluate import evaluate
from experiments.progress import ProgressTable, Tally, duration
from experiments.runner import WorkerError
from experiments.select import find_statement, select
from experiments.statements import load_sheet
from experiments.store import Store, StoreError, load_run, runs

FAKES, FAULTS = "tests.experiments.fakes", "tests.experiments.faults"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def canned():
    """Records of all claims that can be evaluated here."""
    claims = [*all_claims(FAKES).values(), *(all_claims(FAULTS)[f"fault.claim:{p}"] for p in ("sound after", "raises"))]
    return {claim.name: evaluate(claim) for claim in claims}


@pytest.fixture
def evaluated(canned, monkeypatch):
    """Lets workers answer at once, and the report be a stub; gives the names of the claims that were evaluated."""
    names = []

    class Canned:
        def __init__(self, threads):
            pass

        def start(self, job):
            pass

        def evaluate(self, claim, job):
            names.append(claim.name)
            record = copy.copy(canned[claim.name])
            record.seed, record.tier, record.digest = job.seed, job.tier, job.digest
            record.budget = getattr(claim.budget, job.tier)
            return record

        def kill(self):
            pass

        def close(self):
            pass

    monkeypatch.setattr(run_module, "LocalWorker", Canned)
    report = types.SimpleNamespace(write_report=lambda path: path / "report" / "index.html")
    monkeypatch.setitem(sys.modules, "experiments.report", report)
    return names


@pytest.fixture
def cli(capsys):
    def call(*arguments):
        status = main(list(map(str, arguments)))
        return status, *capsys.readouterr()

    return call


def fakes(tier="quick"):
    return [claim.name for claim in select([], all_claims(FAKES), tier)]


OF_FAKES = ("--claims", FAKES)
BAD = {
    "nothing": ([], "required"),
    "unknown command": (["frobnicate"], "invalid choice: 'frobnicate'"),
    "unknown option": (["run", "--fast"], "unrecognized arguments: --fast"),
    "unknown tier": (["run", "--tier", "huge"], "invalid choice: 'huge'"),
    "no jobs": (["run", "--jobs", "0"], "argument --jobs: a whole number, at least 1, is needed, not '0'"),
    "jobs in words": (["run", "--jobs", "many"], "not 'many'"),
    "negative seed": (["run", "--seed", "-1"], "argument --seed: a whole number, at least 0, is needed, not '-1'"),
    "huge seed": (["run", "--seed", 2**63], "argument --seed"),
    "unknown claim": (["run", "fake.sqare_1", *OF_FAKES], "no claim matches fake.sqare_1; nearest: fake.square_1"),
    "unknown chapter": (["list", "backgroud"], "no claim matches backgroud"),
    "unlike anything": (["list", "zzzzzzzz"], "no claim matches zzzzzzzz; python -m experiments list shows all"),
    "unknown statement": (["show", "background.hoefding"], "nearest: background.hoeffding"),
    "not in this tier": (["run", "fake.square_101", *OF_FAKES], "no claim runs in the quick tier"),
    "unknown package": (["run", "--claims", "no.such.package"], "there is no package no.such.package"),
    "a module, not a package": (["list", "--claims", "experiments.cli"], "there is no package experiments.cli"),
    "unknown run to resume": (["run", "--resume", "nothing"], "there is no run nothing"),
    "two folders": (["run", "--resume", "one", "--out", "two"], "name two folders"),
    "results in a file": (["run", "--out", "file/run", *OF_FAKES], "Not a directory"),
    "results over files": (["run", "--out", ".", *OF_FAKES], "holds other files"),
    "no results": (["report"], "there are no results in"),
    "unknown run to report": (["report", "nothing"], "there is no run nothing"),
    "unknown run to show": (["show", "fake.mean", "--run", "nothing", *OF_FAKES], "there is no run nothing"),
    "no scheduler": (["run", "--scheduler", "nonsense://x", *OF_FAKES], "no Dask scheduler answers at nonsense://x"),
}


@pytest.mark.parametrize(("arguments", "answer"), BAD.values(), ids=BAD)
def test_bad_usage_is_one_line_and_status_2(cli, tmp_path, arguments, answer):
    (tmp_path / "file").touch()
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert answer in err
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_help_and_bad_usage_do_not_wait_for_jax():
    code = (
        "import sys; from experiments.cli import main\n"
        "try: main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "assert main(['run', '--jobs', '0']) == 2\n"
        "assert not {'jax', 'numpy', 'rich'} & set(sys.modules), 'slow to import'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--resume" in done.stdout


def test_run_checks_everything_and_names_the_report(cli, evaluated):
    status, out, err = cli("run", "--claims", FAKES, "--out", "mine")
    assert (status, err) == (0, "")
    assert sorted(evaluated) == sorted(fakes())
    lines = out.splitlines()
    assert lines[0] == "mine: 11 claims, quick tier, seed 0"
    assert sum(line.startswith("[") for line in lines) == 11
    assert "11 of 11 claims as expected (10 confirmed, 1 refuted), 11 controls rejected" in lines[-2]
    assert lines[-1] == "report: mine/report/index.html"
    run = load_run(Path("mine"))
    assert set(run.records) == set(run.selected) == set(fakes())
    assert run.settings["package"] == FAKES
    assert run.environment["jax"]


def test_the_full_tier_another_seed_and_a_selection(cli, evaluated):
    status, *_ = cli("run", "fake.square_10?", "fake.mean", "--claims", FAKES, "--tier", "full", "--seed", 7)
    assert status == 0
    assert sorted(evaluated) == ["fake.mean:of normals, n/2 & more", "fake.square_100:infinite", "fake.square_101"]
    ((path, settings),) = runs().items()
    assert path.name.endswith("-full-seed7")
    assert (settings["tier"], settings["seed"], settings["patterns"]) == ("full", 7, ["fake.square_10?", "fake.mean"])


def test_resume_evaluates_only_what_is_missing(cli, evaluated):
    cli("run", "--claims", FAKES)
    (path,) = runs()
    evaluated.clear()
    assert cli("run", "--claims", FAKES, "--resume")[0] == 0
    assert evaluated == []

    files = {json.loads(file.read_bytes())["claim"]: file for file in (path / "claims").glob("*.json")}
    files["fake.square_1"].unlink()
    os.truncate(files["fake.square_2"], 100)
    (path / "claims" / "notes.txt").touch()
    status, out, _ = cli("run", "--claims", FAKES, "--resume")
    assert status == 0
    assert evaluated == ["fake.square_1", "fake.square_2"]
    assert "11 claims, 9 of them done" in out
    assert "moved aside: fake.square_1.npz, notes.txt: belongs to no trusted record" in out
    assert "moved aside: fake.square_2.json: is not JSON" in out
    assert set(load_run(path).records) == set(fakes())


def test_resume_finds_the_run_that_is_meant(cli, evaluated):
    cli("run", "fake.square_1", "--claims", FAKES)
    cli("run", "--claims", FAKES, "--seed", 1)
    old, new = sorted(runs(), key=lambda path: path.name[-1])
    evaluated.clear()
    cli("run", "--resume", old.name)  # package, seed, tier and patterns are those of the run
    assert evaluated == []
    cli("run", "fake.square_1", "fake.square_2", "--resume", old)
    assert evaluated == ["fake.square_2"]
    assert load_run(old).selected == ("fake.square_1", "fake.square_1@printed", "fake.square_2")
    cli("run", "--claims", FAKES, "--resume")  # the latest with seed 0
    assert set(load_run(old).records) == {*load_run(old).selected}
    assert next(iter(runs())) == old
    status, _, err = cli("run", "--resume", new, "--seed", 2)
    assert (status, err) == (2, f"python -m experiments: {new} has seed 1, not 2\n")
    assert len(runs()) == 2


def test_resume_begins_where_there_is_nothing_to_resume(cli, evaluated):
    for _ in range(2):
        assert cli("run", "fake.mean", "--claims", FAKES, "--resume", "--out", "mine")[0] == 0
    assert len(evaluated) == 1
    assert cli("run", "fake.mean", "--claims", FAKES, "--resume")[0] == 0
    assert len(evaluated) == 2
    assert cli("run", "--claims", FAKES, "--out", "mine")[0] == 2


def test_what_is_not_as_expected_is_listed_and_is_evaluated_again(cli, evaluated):
    patterns = ("fault.claim:raises", "fault.claim:sound after")
    status, out, _ = cli("run", *patterns, "--claims", FAULTS)
    assert status == 1
    assert "\nerror: fault.claim:raises: RuntimeError: on purpose\n1 of 2 claims as expected" in out
    evaluated.clear()
    assert cli("run", "--claims", FAULTS, "--resume")[0] == 1
    assert evaluated == ["fault.claim:raises"]


def test_a_full_disk_ends_the_run_and_loses_nothing(cli, evaluated, monkeypatch):
    written = []

    def write(path, data, write=store_module._write):
        if path.parent.name == "claims":
            written.append(path)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_write", write)
        status, out, err = cli("run", "--claims", FAKES, "--jobs", 1)
    assert status == 1
    assert err == "fake.square_2 cannot be stored, the run ends here: No space left on device\n"
    assert "not run: 9 of 11 claims; python -m experiments run --resume" in out
    assert "report:" in out
    evaluated.clear()
    assert cli("run", "--claims", FAKES, "--resume")[0] == 0
    assert sorted(evaluated) == sorted(set(fakes()) - {"fake.square_0", "fake.square_1"})


def test_a_report_that_fails_costs_no_verdict(cli, evaluated, monkeypatch):
    def fail(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys.modules["experiments.report"], "write_report", fail)
    status, out, err = cli("run", "--claims", FAKES)
    assert status == 1
    assert "11 of 11 claims as expected" in out
    assert err.startswith("the report is not written (OSError: [Errno 28] No space left on device); try python -m")
    assert err.count("\n") == 1


def test_lost_workers_leave_a_run_that_can_be_resumed(cli, evaluated, monkeypatch):
    def fail(self, job):
        raise WorkerError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(run_module.LocalWorker, "start", fail)
        status, out, err = cli("run", "--claims", FAKES, "--jobs", 2)
    assert status == 1
    assert err == "a worker is lost: no memory\n"
    assert "not run: 11 of 11 claims" in out
    assert cli("run", "--claims", FAKES, "--resume")[0] == 0


def test_a_broken_platform_is_refused(cli, evaluated, monkeypatch, tmp_path):
    def refuse():
        raise dltheory.platform.PlatformError("This platform computes wrong results.")

    monkeypatch.setattr(dltheory.platform, "require_sound", refuse)
    status, out, err = cli("run", "--claims", FAKES)
    assert (status, out, err) == (2, "", "python -m experiments: This platform computes wrong results.\n")
    assert list(tmp_path.iterdir()) == []


def test_list_and_show(cli, evaluated):
    status, out, _ = cli("list", "fake.square_1", "fake.square_101", "--claims", FAKES)
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["fake.square_1", "confirmed"],
        ["fake.square_1@printed", "refuted"],
        ["fake.square_101", "confirmed"],
    ]
    assert "[full tier only]" in out.splitlines()[-1]
    assert "not run yet" in cli("show", "fake.square_1", "--claims", FAKES)[1]
    cli("run", "fake.square_1", "--claims", FAKES)
    out = cli("show", "fake.square_1@printed", "--claims", FAKES)[1]
    assert "verdict      refuted as expected" in out
    assert "fake.square_1 (to be confirmed)" in out
    assert str(next(iter(runs()))) in out
    statement = load_sheet()[0].statements[0]
    out = cli("show", statement.id)[1]
    assert out.startswith(f"{statement.id}: {statement.title}")
    assert all(name in out for name in statement.functions)
    assert cli("report")[1].endswith("report/index.html\n")


def test_a_pattern_is_a_name_a_statement_a_chapter_a_beginning_or_a_glob():
    claims = all_claims(FAKES)

    def names(*patterns, tier="full"):
        return [claim.name for claim in select(patterns, claims, tier)]

    assert names("fake.square_1") == ["fake.square_1", "fake.square_1@printed"]
    assert names("fake.square_1@printed") == ["fake.square_1@printed"]
    assert names("fake.square_100") == names("fake.square_100:infinite") == ["fake.square_100:infinite"]
    assert names("fake.square_10") == ["fake.square_100:infinite", "fake.square_101"]
    assert names("fake.mean:of normals, n/2 & more") == names("*normals*") == names("fake.mean")
    assert names("fake.square_[23]", "fake.mean") == ["fake.square_2", "fake.square_3", *names("fake.mean")]
    assert names("fake", tier="quick") == fakes()
    assert find_statement("fake.square_1@printed", claims) == (None, [claims[name] for name in names("fake.square_1")])
    with pytest.raises(UsageError):
        find_statement("fake", claims)


def test_a_chapter_selects_its_claims_in_the_order_of_the_sheet():
    chapter = load_sheet()[0]
    chosen = [claim.statement for claim in select([chapter.name], all_claims())]
    order = [statement.id for statement in chapter.statements]
    assert set(chosen) <= set(order)
    assert chosen == sorted(chosen, key=order.index)


def test_the_table_shows_counts_controls_what_fails_and_what_runs(canned):
    claims = [*all_claims(FAKES).values(), *all_claims(FAULTS).values()]
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    progress = ProgressTable(claims, {"fake.square_0": canned["fake.square_0"]}, console)
    with progress:
        for name in ("fake.square_1@printed", "fault.claim:raises"):
            progress.started(name)
            progress.finished(canned[name])
        progress.started("fault.claim:hangs")
        with console.capture() as capture:
            console.print(progress._render())
    shown = capture.get()
    for text in ("2/12", "1/13", "3/25", "error: fault.claim:raises: RuntimeError: on purpose", "fault.claim:hangs"):
        assert text in shown
    assert "left" in shown
    assert progress.tallies["fake"] == Tally(claims=12, done=2, confirmed=1, refuted=1, controls=2)
    assert progress.total == Tally(claims=25, done=3, confirmed=1, refuted=1, controls=2, unexpected=1)


def test_durations_read_well():
    seconds = (0.04, 9.94, 9.96, 59.4, 59.6, 187, 3599.6, 86_400)
    expected = ("0.0 s", "9.9 s", "10 s", "59 s", "1 min 00 s", "3 min 07 s", "1 h 00 min", "24 h 00 min")
    assert tuple(map(duration, seconds)) == expected


@contextlib.contextmanager
def running(*arguments):
    """A run in a process group of its own, as a terminal would start it."""
    command = [sys.executable, "-m", "experiments", "run", "--claims", FAKES, *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def stored(path):
    return {file: file.stat().st_mtime_ns for file in (path / "claims").glob("*.json")}


@pytest.mark.parametrize(
    ("number", "group", "status"),
    [(signal.SIGINT, True, 130), pytest.param(signal.SIGTERM, False, 143, marks=pytest.mark.slow)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_an_interrupted_run_keeps_what_has_finished_and_reports_it(tmp_path, number, group, status):
    path = tmp_path / "run"
    with running("--out", path, "--jobs", 2) as process:
        wait_until(lambda: len(stored(path)) >= 2)
        workers = psutil.Process(process.pid).children(recursive=True)
        (os.killpg if group else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert err == ""
    assert f"stopped by {number.name}" in out
    assert "error" not in out
    assert 2 <= len(load_run(path).records) < 11
    assert (path / "report" / "index.html").stat().st_size > 0
    wait_until(lambda: not any(worker.is_running() for worker in workers), 5)


def kill_and_resume(path, moment):
    """Kills a run, resumes it; returns the records that were there before and after."""
    with running("--out", path, "--jobs", 1) as process:
        moment(process)
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        if family:
            with pytest.raises(StoreError, match="another run is at work"):
                Store.resume(path, environment={}, digest="", claims=(), registry={})
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not any(worker.is_running() for worker in family), 10)
    before = stored(path)
    with running("--out", path, "--jobs", 1, "--resume") as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, ""), out
    return before, stored(path)


def assert_like_a_run_without_a_kill(path, before, after, canned):
    assert before.items() <= after.items()
    records = load_run(path).records
    assert set(records) == set(fakes())
    for name, record in records.items():
        assert (record.verdict, record.reason) == (canned[name].verdict, canned[name].reason)


def test_a_killed_run_leaves_no_process_and_is_resumed(tmp_path, canned):
    path = tmp_path / "run"
    before, after = kill_and_resume(path, lambda _: wait_until(lambda: len(stored(path)) >= 3))
    assert 3 <= len(before) < 11
    assert_like_a_run_without_a_kill(path, before, after, canned)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_run_may_be_killed_at_any_moment(tmp_path, canned, seed):
    delay = random.Random(seed).uniform(0, 8)

    def moment(process):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)

    assert_like_a_run_without_a_kill(tmp_path / "run", *kill_and_resume(tmp_path / "run", moment), canned)


def test_a_closed_pipe_is_no_failure_of_ours():
    command = f"{sys.executable} -m experiments list --claims {FAKES} | true"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
