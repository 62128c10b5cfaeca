"""The benchmarks: who is wrong is not timed, who fails does not stop the others, what was measured is written."""

import dataclasses
import json
import math
import multiprocessing

import jax
import numpy as np
import pytest

from experiments.bench import ntk, race
from experiments.bench.case import all_cases, select
from experiments.bench.race import Row
from experiments.bench.table import markdown, ratio, verdict
from experiments.cli import main
from experiments.errors import UsageError

TOPIC = "tests.experiments.fake_bench"
CASES = all_cases([TOPIC])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The command's exit status and the file that it writes, for a race of all sorts."""
    path = tmp_path_factory.mktemp("bench") / "out.json"
    status = main(["bench", "fake.all", "--topic", TOPIC, "--rounds", "2", "--out", str(path)])
    return status, json.loads(path.read_text()), path.with_suffix(".md").read_text()


@pytest.mark.slow
def test_right_contenders_are_measured_and_the_others_named(written):
    status, data, _ = written
    rows = {row["contender"]: row for row in data["cases"]["fake.all"]["contenders"]}
    assert status == 0
    assert {name: row["status"] for name, row in rows.items()} == {
        **dict.fromkeys(("ours", "slower", "by itself"), "measured"),
        "wrong": "wrong",
        "absent": "absent",
        "fails": "failed",
        "dies": "failed",
        "large": "large",
    }
    assert rows["absent"]["reason"] == "no such library"
    assert rows["fails"]["reason"] == "RuntimeError: out of order"
    assert "signal 9" in rows["dies"]["reason"]
    assert "1.0e-02" in rows["wrong"]["reason"]
    assert "4000 GB" in rows["large"]["reason"]


@pytest.mark.slow
def test_what_is_measured_fits_together(written):
    _, data, words = written
    for row in data["cases"]["fake.all"]["contenders"]:
        if row["status"] != "measured":
            assert not row["rounds"]
            continue
        facts, rounds = row["facts"], row["rounds"]
        assert len(rounds) == 2
        assert facts["wall_seconds"] == np.median([r["wall_seconds"] for r in rounds]) >= facts["wall_min_seconds"] > 0
        assert facts["cpu_seconds"] > 0
        assert facts["peak_mb"] >= 0
        assert facts["compile_seconds"] >= facts.get("trace_seconds", 0.0) >= 0
        assert facts["gflop"] == 7.2e-8
        assert facts["gflops"] == pytest.approx(facts["gflop"] / facts["wall_seconds"])
        assert facts["of_machine"] == pytest.approx(facts["gflops"] / facts["machine_gflops"])
        assert facts["error"] < 1e-6
    assert data["environment"]["jax"] in words
    assert data["environment"]["date"] in words
    assert "| ours |" in words
    assert "wrong: relative error" in words


def test_a_run_that_does_not_end_is_stopped(monkeypatch):
    monkeypatch.setattr(race, "contend", _contend_for_ever)
    case = CASES["fake.ours wrong"]
    case = dataclasses.replace(case, contenders=case.contenders[:1], seconds=1.0)
    [row] = race.race(case, [TOPIC], rounds=2)
    assert (row.status, row.reason) == ("slow", "a run takes more than 1 s")
    assert not multiprocessing.active_children()


def _contend_for_ever(connection, *_):
    connection.send(("compiled", {}))
    connection.recv()


def test_an_interruption_leaves_no_process():
    def interrupt(words):
        if "check" in words:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race.race(CASES["fake.ours wrong"], [TOPIC], rounds=1, says=interrupt)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("name", ["fake.ours wrong", "fake.without reference"])
def test_exit_status_tells_that_ours_was_not_measured(name, tmp_path, capsys):
    assert main(["bench", name, "--topic", TOPIC, "--rounds", "1", "--out", str(tmp_path / "out.json")]) == 1
    out = capsys.readouterr().out
    assert "relative error" in out or "ZeroDivisionError" in out


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["ntk.fc_11"], "no benchmark matches ntk.fc_11; there are: ntk.fc_1"),
        (["--rounds", "0"], "argument --rounds"),
        (["--topic", "no.such.module"], "no benchmarks: No module named 'no'"),
        (["--topic", "math"], "no benchmarks: module 'math' has no attribute 'CASES'"),
    ],
)
def test_bad_usage(arguments, answer, capsys):
    assert main(["bench", *arguments]) == 2
    assert answer in capsys.readouterr().err


def test_patterns():
    cases = all_cases()
    assert select([], cases) == list(cases.values())
    topic = select(["ntk"], cases)
    assert [case.name for case in topic] == [name for name in cases if name.startswith("ntk.")]
    assert 0 < len(topic) < len(cases)
    assert [case.name for case in select(["ntk.fc_1"], cases)] == ["ntk.fc_1"]
    assert {case.name for case in select(["*traced"], cases)} == {"ntk.fc_10_traced", "ntk.cnn_traced"}
    with pytest.raises(UsageError):
        select(["nothing"], cases)


def row(name, cpu, **settings):
    facts = {"cpu_seconds": cpu, "wall_seconds": cpu, "wall_min_seconds": cpu, "compile_seconds": 1.0, "peak_mb": 1.0}
    return Row(name, facts=facts | {"gflops": math.nan, "of_machine": math.nan, "error": 0.0}, **settings)


def test_peers_are_compared_with_ours():
    case = dataclasses.replace(CASES["fake.all"], target=2.0)
    ours = row("a", 1.0, ours=True, status="measured")
    peers = [row("b", 3.0, ours=False, status="measured"), row("c", 1.9, ours=False, status="measured")]
    assert ratio(peers[0], ours, "cpu_seconds") == 3.0
    assert verdict(case, [ours, *peers]).endswith("1.9 times the CPU-seconds of ours (target 2: missed)")
    assert verdict(case, [ours, peers[0]]).endswith("3 times the CPU-seconds of ours (target 2: met)")
    assert verdict(case, [ours]) == verdict(case, peers) == ""
    assert "| b | 1 | 3 (3×) |" in markdown({case.name: case}, {case.name: [ours, *peers]})


def test_flops_are_those_of_the_layers():
    # 2 n^2 (784 + 3 * 1024) for the inputs, as much for each pair of outputs' cotangents, and the passes.
    assert ntk._dense_gflop(784, 256, 1, traced=False) == pytest.approx(3.47, rel=0.01)
    assert ntk._dense_gflop(784, 256, 10, traced=False) == pytest.approx(53.1, rel=0.01)
    assert ntk._convolutional_gflop(64, 4, 32, traced=False) == pytest.approx(61.4, rel=0.01)


@pytest.mark.parametrize("traced", [False, True])
def test_reference_and_view_agree_with_the_textbook(traced, x64):
    module = ntk.Dense(2, width=5, depth=1)
    params, x = ntk._data(module, (3, 4))
    kernel = ntk._jacobians(module, traced)(params, x)
    view = ntk._view(np.asarray(kernel), params, x)
    np.testing.assert_allclose(view, ntk._reference(module, traced, params, x), rtol=1e-5)


@pytest.mark.parametrize("name", all_cases())
def test_data_fit_the_networks(name):
    *params, x = jax.eval_shape(all_cases()[name].data)
    assert x.shape[0] >= 12
    assert all(tree["params"] for tree in params)
