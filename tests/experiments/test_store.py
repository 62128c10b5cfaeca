"""The store: what it keeps, whom it trusts, and what a kill, a full disk or a second run do to it."""

import contextlib
import dataclasses
import errno
import json
import os
import shutil

import numpy as np
import pytest

from experiments import store as store_module
from experiments.curves import Curve
from experiments.evaluate import error_record, evaluate
from experiments.judges import Equal
from experiments.store import Store, StoreError, find_run, load_run, runs
from tests.experiments.fakes import sound

CLAIMS = {claim.name: claim for claim in sound.CLAIMS}
MEAN, PRINTED, INFINITE = "fake.mean:of normals, n/2 & more", "fake.square_1@printed", "fake.square_100:infinite"
NAMES = (MEAN, PRINTED, INFINITE)
SETTINGS = {"package": "fakes", "tier": "quick", "seed": 0, "patterns": [], "jobs": 1, "scheduler": None}


@pytest.fixture(scope="module")
def records():
    def compute(name):
        record = evaluate(CLAIMS[name])
        record.digest, record.environment = "digest", {"jax": "1.2.3", "cpus": 2}
        return record

    return {name: compute(name) for name in NAMES}


def create(path, **changes):
    options = {"settings": SETTINGS, "environment": {"jax": "1.2.3"}, "digest": "digest", "claims": NAMES, **changes}
    return Store.create(path, **options)


def resume(path, **changes):
    options = {"environment": {"jax": "1.2.4"}, "digest": "digest", "claims": NAMES, "registry": CLAIMS, **changes}
    return Store.resume(path, **options)


@pytest.fixture
def folder(tmp_path, records):
    """A finished run."""
    with create(tmp_path / "run") as store:
        for record in records.values():
            store.write(record)
    return tmp_path / "run"


def json_of(folder, name):
    (file,) = [file for file in (folder / "claims").glob("*.json") if json.loads(file.read_bytes())["claim"] == name]
    return file


def assert_same(record, other):
    plain = [field.name for field in dataclasses.fields(record) if field.name != "curves"]
    assert {name: getattr(record, name) for name in plain} == {name: getattr(other, name) for name in plain}
    assert list(record.curves) == list(other.curves)
    for role, curves in record.curves.items():
        assert list(curves) == list(other.curves[role])
        for name, curve in curves.items():
            for mine, theirs in zip(curve, other.curves[role][name], strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_what_is_written_is_read(folder, records):
    run = load_run(folder)
    assert run.name == "run"
    assert run.settings.items() >= SETTINGS.items()
    assert (run.environment, run.digest, run.selected, run.problems) == ({"jax": "1.2.3"}, "digest", NAMES, ())
    assert set(run.records) == set(NAMES)
    for name in NAMES:
        assert_same(run.records[name], records[name])
    assert run.records[INFINITE].measured == np.inf
    assert list(load_run(folder, only=[MEAN]).records) == [MEAN]


def test_numbers_that_json_lacks_and_names_that_files_lack(folder, records):
    odd = {"": Curve(np.array(np.inf)), "a/b c, é": Curve(np.eye(2), np.zeros((2, 2))), "/": Curve(np.zeros(0))}
    record = dataclasses.replace(
        records[MEAN], margin=-np.inf, tightness=np.nan, output="\ud800\0 \x1b[31m", curves={"measured": odd}
    )
    with resume(folder) as store:
        store.write(record)
    again = load_run(folder).records[MEAN]
    assert again.margin == -np.inf
    assert str(again.tightness) == "nan"
    assert again.output == record.output
    for name, curve in odd.items():
        np.testing.assert_array_equal(again.curves["measured"][name].y, curve.y)


def test_every_file_is_strict_json(folder):
    def refuse(token):
        raise AssertionError(token)

    for file in [folder / "run.json", *(folder / "claims").glob("*.json")]:
        json.loads(file.read_bytes(), parse_constant=refuse)


def test_file_names_are_safe_and_differ():
    claims = ["a.b", "a.B", "a.b:c d", "a.b:c-d", "a.b:c/d", "a.b:../../d", "a.b:" + "x" * 300, "a.b:" + "x" * 301]
    names = [store_module._file_name(claim) for claim in claims]
    assert len({name.lower() for name in names}) == len(claims)
    assert all(len(name) < 120 and not set(name) & set('/\\:*?"<>| ') for name in names)
    assert names[0] == "a.b"


class Killed(BaseException):
    """What a kill looks like from inside: nothing works any more."""


def kill_at(monkeypatch, step):
    """Lets `step` system calls of the store pass and fails all that follow; returns the list of those that passed."""
    passed = []

    def guarded(call):
        def guard(*args, **kwargs):
            if len(passed) >= step:
                raise Killed
            passed.append(call.__name__)
            return call(*args, **kwargs)

        return guard

    monkeypatch.setattr(store_module, "open", guarded(open), raising=False)
    for name in ("fsync", "replace"):
        monkeypatch.setattr(store_module.os, name, guarded(getattr(os, name)))
    monkeypatch.setattr(store_module.Path, "unlink", guarded(store_module.Path.unlink))
    return passed


def test_a_kill_at_any_moment_loses_no_more_than_the_record_at_hand(tmp_path, records, monkeypatch):
    step, finished = 0, False
    while not finished:
        path = tmp_path / str(step)
        with contextlib.suppress(Killed), create(path) as store:
            store.write(records[PRINTED])
            with monkeypatch.context() as patch:
                kill_at(patch, step)
                store.write(records[MEAN])
                store.write(dataclasses.replace(records[PRINTED], reason="again"))
                finished = True
        seen = load_run(path)
        with resume(path) as store:
            missing = set(NAMES) - set(store.records)
            assert set(seen.records) == set(store.records)
            assert all(fault == "belongs to no trusted record" or "curves" in fault for _, fault in store.problems)
            for name in missing:
                store.write(records[name])
        run = load_run(path)
        assert set(run.records) == set(NAMES)
        assert run.problems == ()
        step += 1
    assert step == 1 + 2 * 2 * 4  # two records of two files of four calls each


def test_a_kill_while_the_run_begins_leaves_a_folder_that_can_be_used(tmp_path, monkeypatch):
    for step in range(4):
        path = tmp_path / str(step)
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            kill_at(patch, step)
            create(path).close()
        if (path / "run.json").exists():
            resume(path).close()
        else:
            create(path).close()
        assert load_run(path).records == {}


def spoil_with(content):
    def spoil(file):
        file.write_bytes(content)

    return spoil


def spoil_field(field, value):
    def spoil(file):
        file.write_text(json.dumps(json.loads(file.read_bytes()) | {field: value}))

    return spoil


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def truncate_curves(file):
    truncate(file.with_suffix(".npz"))


def exchange_curves(file):
    np.savez(file.with_suffix(".npz"), y=np.zeros(3))


def replace_by_folder(file):
    file.unlink()
    file.mkdir()


def take_name_of_another(file):
    shutil.copy(next(other for other in file.parent.glob("*.json") if other != file), file)


SPOILERS = {
    "truncated": (truncate, "is not JSON"),
    "empty": (spoil_with(b""), "is not JSON"),
    "zeros": (spoil_with(bytes(500)), "is not JSON"),
    "binary": (spoil_with(b"\xff\xfe\x80"), "is not JSON"),
    "bottomless": (spoil_with(b"[" * 100_000), "is not JSON"),
    "a list": (spoil_with(b"[1, 2]"), "is not a record"),
    "another application's": (spoil_with(b'{"name": "x"}'), "is not a record"),
    "with NaN": (spoil_with(b'{"margin": NaN}'), "is not JSON"),
    "with a wrong type": (spoil_field("reason", 3), "is not a record"),
    "with a boolean number": (spoil_field("wall_seconds", True), "is not a record"),
    "with an unknown verdict": (spoil_field("verdict", "perhaps"), "is not a record"),
    "of another claim": (take_name_of_another, "is the record of"),
    "of another seed": (spoil_field("seed", 1), "was computed with seed 1"),
    "of another tier": (spoil_field("tier", "full"), "was computed with tier full"),
    "of another budget": (spoil_field("budget", 17), "was computed with another budget"),
    "of another criterion": (spoil_field("criterion", {"judge": "Mean"}), "was judged by another criterion"),
    "of other sources": (spoil_field("digest", "other"), "was computed by other sources"),
    "without curves": (lambda file: file.with_suffix(".npz").unlink(), "curves are missing"),
    "with truncated curves": (truncate_curves, "curves are damaged"),
    "with other curves": (exchange_curves, "curves are damaged"),
    "a folder": (replace_by_folder, "cannot be read"),
}


@pytest.mark.parametrize(("spoil", "fault"), SPOILERS.values(), ids=SPOILERS)
def test_a_spoilt_record_is_moved_aside_and_never_trusted(folder, records, spoil, fault):
    file = json_of(folder, MEAN)
    spoil(file)
    run = load_run(folder)
    if "another" not in fault:  # what only a claim can tell, a reader cannot
        assert MEAN not in run.records
        (problem,) = run.problems
        assert problem.startswith(file.name)
        assert fault in problem
    with resume(folder) as store:
        assert set(store.records) == {PRINTED, INFINITE}
        assert file.name in [name for name, _ in store.problems]
        assert fault in dict(store.problems)[file.name]
        assert not file.exists()
        assert (folder / "aside" / file.name).exists()
        store.write(records[MEAN])
    assert set(load_run(folder).records) == set(NAMES)


def test_checksummed_curves_that_are_none_are_not_trusted(folder):
    file = json_of(folder, MEAN)
    for content in (b"not a zip", b"PK\x03\x04" + bytes(100)):
        file.with_suffix(".npz").write_bytes(content)
        spoil_field("curves", {"file": "x.npz", "sha256": store_module.hashlib.sha256(content).hexdigest()})(file)
        assert "curves are damaged" in load_run(folder).problems[0]


def test_foreign_files_are_moved_aside(folder):
    foreign = {"notes.txt": "hello", "fake.nothing.json": "{}", "x.npz": "", "fake.mean.json.tmp": "{"}
    for _ in range(2):  # twice, so that the names are taken the second time
        for name, text in foreign.items():
            (folder / "claims" / name).write_text(text)
        with resume(folder) as store:
            assert {name for name, _ in store.problems} == set(foreign)
            assert set(store.records) == set(NAMES)
    assert len(list((folder / "aside").iterdir())) == 8


def test_records_of_other_sources_are_not_kept(folder):
    with resume(folder, digest="newer") as store:
        assert store.records == {}
    assert load_run(folder).digest == "newer"


def test_a_claim_whose_criterion_changed_is_not_kept(folder):
    changed = CLAIMS | {PRINTED: dataclasses.replace(CLAIMS[PRINTED], judge=Equal(rtol=0.1))}
    with resume(folder, registry=changed) as store:
        assert set(store.records) == {MEAN, INFINITE}


def test_errors_are_kept_until_they_are_replaced(folder, records):
    with resume(folder) as store:
        failed = error_record(CLAIMS[MEAN], "out of time", seed=0, tier="quick")
        failed.digest = "digest"
        store.write(failed)
    with resume(folder) as store:
        assert store.records[MEAN].verdict == "error"
        assert [name for name, _ in store.problems] == [json_of(folder, MEAN).with_suffix(".npz").name]
        store.write(records[MEAN])
    assert_same(load_run(folder).records[MEAN], records[MEAN])


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_costs_one_record(folder, records, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = {file: file.read_bytes() for file in (folder / "claims").iterdir()}
    with resume(folder) as store:
        with monkeypatch.context() as patch:
            patch.setattr(store_module.os, call, fail)
            with pytest.raises(OSError, match="No space left"):
                store.write(dataclasses.replace(records[MEAN], reason="again"))
        assert {file: file.read_bytes() for file in (folder / "claims").iterdir()} == before
        store.write(dataclasses.replace(records[MEAN], reason="again"))
    assert load_run(folder).records[MEAN].reason == "again"


def test_two_runs_cannot_share_a_folder(folder, tmp_path):
    with resume(folder), pytest.raises(StoreError, match="another run is at work"):
        resume(folder)
    resume(folder).close()
    with create(tmp_path / "new"):
        with pytest.raises(StoreError, match="another run is at work"):
            resume(tmp_path / "new")
        with pytest.raises(StoreError, match="a run already"):
            create(tmp_path / "new")


def test_a_run_needs_an_empty_folder(folder, tmp_path):
    with pytest.raises(StoreError, match="a run already"):
        create(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(StoreError, match="other files"):
        create(tmp_path / "mine")
    with pytest.raises(OSError, match="Not a directory"):
        create(tmp_path / "mine" / "thesis.tex" / "run")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": {}}', '{"settings": 1, "environment": {}}'])
def test_a_damaged_head_is_one_line(folder, content):
    (folder / "run.json").write_text(content)
    for use in (load_run, resume):
        with pytest.raises(StoreError, match=r"run\.json is") as caught:
            use(folder)
        assert "\n" not in str(caught.value)
    assert runs(folder.parent) == {}


def test_a_run_is_found_by_name_by_path_or_as_the_latest(tmp_path):
    with pytest.raises(StoreError, match="no results"):
        find_run(results=tmp_path / "results")
    results = tmp_path / "results"
    first, second, third = (create(None, settings=SETTINGS | {"seed": seed}, results=results) for seed in (1, 1, 2))
    for store in (first, second, third):
        store.close()
    assert len({first.path, second.path, third.path}) == 3  # though they began in the same second
    assert find_run(results=results) == third.path
    resume(second.path).close()
    assert find_run(results=results) == second.path
    assert list(runs(results)) == [second.path, third.path, first.path]
    assert find_run(first.path.name, results=results) == first.path
    assert find_run(str(first.path), results=tmp_path) == first.path
    with pytest.raises(StoreError, match="no run nothing"):
        find_run("nothing", results=results)
