"""The runner: whatever a claim does to its process, it costs that claim alone."""

import contextlib
import dataclasses
import multiprocessing
import os
import time

import numpy as np
import pytest

from experiments.claim import all_claims
from experiments.environment import source_digest
from experiments.evaluate import evaluate
from experiments.judges import Verdict
from experiments.runner import Finished, Job, LocalWorker, Lost, Runner, Started, WorkerError, dask_workers, time_limit

FAKES, FAULTS = "tests.experiments.fakes", "tests.experiments.faults"


def job(package, **changes):
    return Job(package, seed=0, tier="quick", digest=source_digest(package))._replace(**changes)


def local(number):
    return [LocalWorker(threads=1) for _ in range(number)]


def outcomes(events):
    return {event.record.claim.partition(":")[2]: event.record for event in events if isinstance(event, Finished)}


@pytest.fixture(scope="module")
def events():
    """What two workers make of the claims that go wrong."""
    return list(Runner(local(2), job(FAULTS)).run(list(all_claims(FAULTS).values())))


@pytest.fixture(scope="module")
def records(events):
    return outcomes(events)


def test_every_claim_is_started_and_gets_its_record_once(events):
    names = set(all_claims(FAULTS))
    started = [event.claim for event in events if isinstance(event, Started)]
    finished = [event.record.claim for event in events if isinstance(event, Finished)]
    assert sorted(started) == sorted(finished) == sorted(names)
    assert len(events) == 2 * len(names)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("raises", "RuntimeError: on purpose"),
        ("hangs", "stopped after 1 s"),
        ("exits", "its process exited with status 3"),
        ("calls exit", "SystemExit: 4"),
        ("is killed", "its process was killed by SIGKILL"),
        ("crashes", "its process was killed by SIGSEGV"),
        ("exhausts memory", "MemoryError"),
        ("returns NaN", "FloatingPointError: measure returned NaN"),
    ],
)
def test_a_fault_is_that_claims_error(records, part, reason):
    record = records[part]
    assert record.verdict == Verdict.ERROR
    assert reason in record.reason
    assert not record.as_expected


def test_sound_claims_beside_faulty_ones_do_not_suffer(records):
    for part in ("sound before", "sound after", "prints", "prints much"):
        assert records[part].verdict == Verdict.CONFIRMED, records[part].reason


def test_the_record_tells_where_a_claim_hung_or_crashed(records):
    assert "in _hangs" in records["hangs"].traceback
    assert "Segmentation fault" in records["crashes"].traceback
    assert "in _crashes" in records["crashes"].traceback
    assert 1.0 <= records["hangs"].wall_seconds < 5.0


def test_what_a_claim_prints_is_kept_within_bounds(records):
    assert records["prints"].output == "to standard output\nto standard error\n"
    assert len(records["prints much"].output) < 21_000


def test_every_record_says_where_it_was_made(records):
    for record in records.values():
        assert record.digest == source_digest(FAULTS)
        assert record.environment["jax"]


def test_a_worker_computes_what_this_process_computes_and_is_silent(capfd):
    claim = all_claims(FAULTS)["fault.claim:prints random numbers"]
    (there,) = outcomes(Runner(local(1), job(FAULTS, seed=3)).run([claim])).values()
    assert capfd.readouterr() == ("", "")
    here = evaluate(claim, seed=3)
    assert there.reason == here.reason
    np.testing.assert_array_equal(there.curves["measured"][""].y, here.curves["measured"][""].y)


def test_stopping_ends_every_process_at_once_and_yields_nothing_more():
    hanging = dataclasses.replace(all_claims(FAULTS)["fault.claim:hangs"], time_limit=600.0)
    run = Runner(local(2), job(FAULTS))
    seen, began = [], 0.0
    for event in run.run([all_claims(FAULTS)["fault.claim:sound before"], hanging, hanging, hanging]):
        seen.append(event)
        if sum(isinstance(event, Started) for event in seen) == 3:
            began = time.monotonic()
            run.stop()
    assert time.monotonic() - began < 5
    assert [event.record.claim for event in seen if isinstance(event, Finished)] == ["fault.claim:sound before"]
    assert multiprocessing.active_children() == []


def test_giving_up_while_workers_start_leaves_no_process():
    run = Runner(local(2), job(FAKES))
    run.stop()
    assert list(run.run(list(all_claims(FAKES).values()))) == []
    assert multiprocessing.active_children() == []


def test_a_worker_with_other_sources_is_not_used():
    (event,) = Runner(local(1), job(FAKES, digest="other")).run(list(all_claims(FAKES).values()))
    assert isinstance(event, Lost)
    assert "the sources or libraries that it imports are not those" in event.reason


def test_nothing_to_do_starts_nothing():
    assert list(Runner(local(2), job(FAKES)).run([])) == []
    assert multiprocessing.active_children() == []


def test_the_full_tier_has_ten_times_as_long():
    claim = all_claims(FAULTS)["fault.claim:hangs"]
    assert (time_limit(claim, "quick"), time_limit(claim, "full")) == (1.0, 10.0)


@pytest.fixture
def cluster():
    """Starts Dask clusters; gives their clients."""
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:

        def start(**options):
            alone = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None, "processes": False}
            local = stack.enter_context(LocalCluster(**alone | options))
            return stack.enter_context(Client(local, set_as_default=False))

        yield start


def test_a_dask_cluster_gives_the_same_records(cluster, records):
    names = [f"fault.claim:{part}" for part in ("prints random numbers", "exits")]
    workers = dask_workers(cluster(), FAULTS)
    there = outcomes(Runner(workers, job(FAULTS)).run([all_claims(FAULTS)[name] for name in names]))
    assert there["exits"].reason == records["exits"].reason
    curves, expected = (each["prints random numbers"].curves["measured"] for each in (there, records))
    np.testing.assert_array_equal(curves[""].y, expected[""].y)


def test_a_dask_cluster_with_other_sources_is_refused(cluster, monkeypatch):
    client = cluster()
    monkeypatch.setattr(client, "run", lambda *_: {"tcp://elsewhere": "other"})
    with pytest.raises(WorkerError, match="tcp://elsewhere: the sources or libraries there are not those here"):
        dask_workers(client, FAKES)
    monkeypatch.setattr(client, "run", lambda *_: {})
    with pytest.raises(WorkerError, match="no workers"):
        dask_workers(client, FAKES)


@pytest.mark.slow
def test_no_claim_takes_a_worker_of_the_cluster_down(cluster, records):
    client = cluster(processes=True, n_workers=2)
    before = client.run(os.getpid)
    there = outcomes(Runner(dask_workers(client, FAULTS), job(FAULTS)).run(list(all_claims(FAULTS).values())))
    assert {part: record.reason for part, record in there.items()} == {
        part: record.reason for part, record in records.items()
    }
    assert client.run(os.getpid) == before


@pytest.mark.slow
def test_stopping_withdraws_what_the_cluster_has(cluster):
    client = cluster(processes=True)
    hanging = dataclasses.replace(all_claims(FAULTS)["fault.claim:hangs"], time_limit=600.0)
    runner, began = Runner(dask_workers(client, FAULTS), job(FAULTS)), 0.0
    for event in runner.run([hanging, hanging]):
        assert isinstance(event, Started)
        began = time.monotonic()
        runner.stop()
    assert time.monotonic() - began < 5
