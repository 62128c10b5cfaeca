"""The benchmarks: who is wrong is not timed, who fails does not stop the others, what was measured is written."""

import dataclasses
import json
import math
import multiprocessing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dltheory.diffusion
from dltheory import networks
from experiments.bench import diffusion, infinite_width, ntk, race, samplers
from experiments.bench.case import Absent, all_cases, select
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


@pytest.mark.slow
def test_amounts_are_compared_by_what_one_costs(tmp_path):
    path = tmp_path / "out.json"
    assert main(["bench", "fake.amounts", "--topic", TOPIC, "--rounds", "1", "--out", str(path)]) == 0
    [case] = json.loads(path.read_text())["cases"].values()
    for row in case["contenders"]:
        facts = row["facts"]
        assert (facts["apples"], facts["pears"]) == (17.0, 3.0)  # 0 + 1 + 4 + 9, and three rows
        assert facts["cost"] == pytest.approx(facts["cpu_seconds"] / 17)
        assert facts["first_cost"] == pytest.approx((facts["cpu_seconds"] + facts["compile_seconds"]) / 17)
    assert "CPU-seconds of ours for as much apples (target 0: met); with compiling" in case["verdict"]
    assert "| pears/s | apples/s | apples | /CPU s | compiled |" in path.with_suffix(".md").read_text()


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
    facts |= {"cost": cpu, "gflops": math.nan, "of_machine": math.nan, "error": 0.0}
    return Row(name, facts=facts, **settings)


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


@pytest.mark.parametrize("name", [case.name for topic in (ntk, infinite_width) for case in topic.CASES])
def test_data_fit_the_networks(name):
    *params, x = jax.eval_shape(all_cases()[name].data)
    assert x.shape[0] >= 12
    assert all(tree["params"] for tree in params)


def test_cheaper_draws_are_compared_however_long_a_run_takes():
    case = CASES["fake.amounts"]
    facts = {"apples": 10.0, "pears": 1.0, "cost": 0.1, "first_cost": 1.0}
    ours = row("a", 1.0, ours=True, status="measured")
    peer = row("b", 0.5, ours=False, status="measured")  # half the time, but a quarter of the worth
    ours = ours._replace(facts=ours.facts | facts)
    peer = peer._replace(facts=peer.facts | facts | {"apples": 2.5, "cost": 0.2, "first_cost": 0.5})
    words = verdict(case, [ours, peer])
    assert "b, needs 2 times the CPU-seconds of ours for as much apples (target 0: met)" in words
    assert words.endswith("with compiling b needs 0.5 times")
    text = markdown({case.name: case}, {case.name: [ours, peer]})
    assert "| 10 | 10 | 1 |" in text
    assert "| 2.5 | 5 (0.5×) | 2 |" in text


def test_importance_sampling_finds_the_moments_of_a_posterior(x64, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 1)), rng.integers(0, 2, size=12).astype(float)
    found = samplers._reference(None, None, x, y)
    grid = np.linspace(-6, 6, 4001)
    density = np.exp([float(samplers._log_posterior(x, y)(np.array([w]))) for w in grid[::10]])
    density /= density.sum()
    mean = np.sum(density * grid[::10])
    deviation = np.sqrt(np.sum(density * (grid[::10] - mean) ** 2))
    exact = samplers._in_deviations(mean, deviation, x, y)
    np.testing.assert_allclose(found, exact, atol=0.02)
    assert samplers._case("x", "x", []).tolerance > 0.02


def test_starts_are_spread_as_the_posterior():
    seed, starts, x, y = samplers._data(2000)
    view = samplers._view(np.asarray(starts)[:, None], seed, starts, np.asarray(x), np.asarray(y))
    np.testing.assert_allclose(view, 1, atol=5 / np.sqrt(2000))
    assert 0 < float(y.mean()) < 1


_ENTRIES = {f"{case.name}, {entry.name}": (case, entry) for case in samplers.CASES for entry in case.contenders}


@pytest.mark.slow
@pytest.mark.parametrize("name", _ENTRIES)
def test_samplers_give_as_many_draws(name):
    case, contender = _ENTRIES[name]
    data = case.data()
    try:
        draws = jax.eval_shape(contender.build(), *data)
    except Absent as absent:
        pytest.skip(f"{contender.name}: {absent}")
    chains = len(data[1])
    assert draws.shape == (chains, 500 if chains == 4 else 1000, 25)
    assert draws.dtype == np.float32


@pytest.fixture
def promotion():
    """What is written by hand broadcasts as NumPy does."""
    with jax.numpy_rank_promotion("allow"):
        yield


def test_scores_by_hand_are_those_of_the_library(x64, promotion):
    law, x, t = diffusion._law(), diffusion._draws(5, 0), 0.3
    by_hand = jax.vmap(lambda x: diffusion._hand_score(law, x, t))(x)
    density = jax.vmap(jax.grad(lambda x: diffusion._hand_log_density(law, x, t)))(x)
    np.testing.assert_allclose(by_hand, density, rtol=1e-9)
    np.testing.assert_allclose(
        diffusion._log_densities(law, x), jax.vmap(lambda x: diffusion._hand_log_density(law, x, 0.0))(x), rtol=1e-12
    )
    noisy = diffusion._our_law(dltheory.diffusion, dltheory.diffusion.vp_sde(), law)(t)
    ours = jax.vmap(dltheory.diffusion.mixture_score, (None, 0))(noisy, jnp.asarray(x))
    np.testing.assert_allclose(by_hand, ours, rtol=1e-7)


def test_samples_of_another_law_are_wrong():
    case = all_cases()["diffusion.reverse_sde"]
    law, times = diffusion._law(), np.array([1.0, 1e-3])
    expected = diffusion._sampling_reference(None, law, times)

    def error(draws):
        return np.linalg.norm(diffusion._sampling_view(draws, None, law, times) - expected) / np.linalg.norm(expected)

    draws = diffusion._draws(10_000, 1)
    assert error(draws) < case.tolerance
    assert error(draws[:, ::-1]) > 1.5 * case.tolerance  # the weights go round the other way
    assert error(draws + 0.05) > 1.5 * case.tolerance


def test_the_network_by_hand_is_that_of_the_library(x64, promotion):
    network = networks.TimeMLP(diffusion._WIDTHS, diffusion._TIME_FEATURES)
    x, t = diffusion._draws(3, 0), np.array([1.0, 20.0, 1000.0])
    params = network.init(jax.random.key(0), x, t)
    params = jax.tree.map(lambda leaf: leaf + 0.02 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    outputs = np.asarray(network.apply(params, x, t))
    np.testing.assert_allclose(diffusion._hand_network(params, x, t), outputs, rtol=1e-6)


@pytest.mark.parametrize("case", diffusion.CASES, ids=lambda case: case.name)
def test_contenders_compute_the_same_things(case, promotion):
    shapes = []
    data = jax.eval_shape(case.data)
    for contender in case.contenders:
        try:
            shapes.append(jax.eval_shape(contender.build(), *data))
        except Absent as absent:
            pytest.skip(f"{contender.name}: {absent}")
    assert all(jax.tree.leaves(other) == jax.tree.leaves(shapes[0]) for other in shapes)
