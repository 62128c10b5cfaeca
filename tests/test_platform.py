"""The canaries are quiet on a sound platform, and speak up on one that is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from dltheory import platform
from dltheory.platform import CANARIES, Canary, PlatformError, environment, preflight, require_sound

ROOT = Path(__file__).parents[1]
WITHOUT_YNN = "XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type="


def canary(recompute):
    return Canary("Sums come out wrong.", "https://example.org/issues/1", "Use an abacus.", recompute)


def divide_by_zero():
    return 1 / 0, 1


@pytest.mark.parametrize("x64", [False, True])
def test_sound_platform_gives_no_findings(x64):
    with jax.enable_x64(x64):
        assert preflight() == ()
        require_sound()
        assert jnp.zeros(1, float).dtype == (jnp.float64 if x64 else jnp.float32)


def test_canaries_are_compiled_and_run_even_where_jit_is_disabled_and_transfers_are_forbidden(monkeypatch):
    compiled = []
    compile_ = platform._compiled
    monkeypatch.setattr(platform, "_compiled", lambda *args: compiled.append(compile_(*args)) or compiled[-1])
    with jax.disable_jit(), jax.transfer_guard("disallow"):
        assert preflight() == ()
    assert len(compiled) == len(CANARIES)
    assert all("HloModule" in program.as_text() for program in compiled)


@pytest.mark.parametrize(
    ("recompute", "evidence"),
    [
        (lambda: (jnp.array([1, 3, 5]), [1, 2, 4]), "2 of 3 values are wrong; the first, at [1], is 3 instead of 2."),
        (lambda: (jnp.array(3), 2), "1 of 1 values are wrong; the first, at [], is 3 instead of 2."),
        (lambda: (jnp.array([[0.0, jnp.nan]]), np.zeros((1, 2))), "at [0, 1], is nan instead of 0.0."),
        (lambda: (jnp.zeros(2), np.zeros(3)), "The result has shape [2] instead of [3]."),
        (divide_by_zero, "It raised ZeroDivisionError: division by zero"),
    ],
    ids=["wrong", "scalar", "nan", "shape", "raises"],
)
def test_broken_canary_is_a_finding_and_the_others_still_run(recompute, evidence):
    calls = []
    sound = canary(lambda: (calls.append(1) or 1, 1))
    (finding,) = preflight([canary(recompute), sound])
    assert finding.canary.recompute is recompute
    assert evidence in finding.evidence
    assert calls == [1]


def test_message_names_symptom_evidence_versions_issue_and_workaround(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_some_flag=1")
    with pytest.raises(PlatformError) as caught:
        require_sound([canary(lambda: (3, 2)), canary(divide_by_zero)])
    message = str(caught.value)
    for part in (
        "Sums come out wrong.",
        "is 3 instead of 2.",
        "It raised ZeroDivisionError",
        f"jax {jax.__version__}",
        "XLA_FLAGS=--xla_some_flag=1",
        "Upstream issue: https://example.org/issues/1\n",
        "Work-around: Use an abacus.",
    ):
        assert part in message


def test_no_device_is_not_blamed_on_a_canary(monkeypatch):
    def no_devices():
        raise RuntimeError("Unable to initialize backend")

    monkeypatch.setattr(jax, "devices", no_devices)
    with pytest.raises(RuntimeError, match="Unable to initialize backend"):
        preflight()


@pytest.mark.parametrize(
    ("jaxlib", "text", "runs"),
    [
        ("0.10.2", "... fusion(), kind=kCustom, __ynn_fusion", False),
        ("0.11.0", "... fusion(), kind=kCustom, __ynn_fusion", False),
        ("0.10.2", "... fusion(), kind=kLoop", True),
        ("0.10.2", None, True),
        ("0.11.1", "... fusion(), kind=kCustom, __ynn_fusion", True),
        ("0.11.1.dev20260801", "... fusion(), kind=kCustom, __ynn_fusion", True),
        ("0.12.0.1", "... fusion(), kind=kCustom, __ynn_fusion", True),
    ],
)
def test_fatal_kernel_is_recognised_without_being_run(monkeypatch, jaxlib, text, runs):
    class Program:
        ran = False

        def as_text(self):
            return text

        def __call__(self, a, b):
            self.ran = True
            return np.sum(a * b, axis=2)

    program = Program()
    monkeypatch.setattr(platform, "_compiled", lambda fn, *args: program)
    monkeypatch.setattr(platform, "_version", lambda package: jaxlib)
    (suspect,) = [canary for canary in CANARIES if canary.issue.endswith("/39257")]
    findings = preflight([suspect])
    assert program.ran == runs
    assert [finding.canary for finding in findings] == ([] if runs else [suspect])


@pytest.fixture
def cache(tmp_path):
    """A persistent compilation cache of the test's own, which keeps every program."""
    directory = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", directory)
    compilation_cache.reset_cache()


def test_persistent_cache_is_neither_written_nor_read_nor_lost(cache):
    assert preflight() == ()
    assert list(cache.iterdir()) == []

    for each in CANARIES:  # outside of preflight the same programs do go into the cache
        each.recompute()
    entries = [path for path in cache.iterdir() if path.name.endswith("-cache")]
    assert len(entries) >= len(CANARIES)
    for entry in entries:
        entry.write_bytes(b"not a program")  # JAX would warn if it read one of these, and warnings are errors
    assert preflight() == ()
    assert all(entry.read_bytes() == b"not a program" for entry in entries)

    before = len(list(cache.iterdir()))
    jax.jit(lambda x: jnp.cos(x) * 1.25)(jnp.float32(0.5))
    assert len(list(cache.iterdir())) > before


def test_environment_is_a_record():
    record = environment()
    assert json.loads(json.dumps(record)) == record
    assert record["jax"] == jax.__version__
    assert record["numpy"] == np.__version__
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["platform"] == jax.default_backend()
    assert record["device_count"] == len(jax.devices())


def test_environment_follows_x64_and_flags_and_survives_a_missing_package(monkeypatch):
    def missing(package):
        raise platform.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(platform.metadata, "version", missing)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    with jax.enable_x64(True):
        record = environment()
    assert (record["flax"], record["XLA_FLAGS"], record["x64"]) == (None, "", True)
    assert environment()["x64"] is False


def run_python(python, code, **variables):
    """Runs code in a fresh interpreter on the CPU, with the repository importable and no XLA_FLAGS but those given."""
    inherited = {name: value for name, value in os.environ.items() if name not in {"XLA_FLAGS", "PYTHONHOME"}}
    return subprocess.run(
        [str(python), "-W", "error", "-c", code],
        env=inherited | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_needs_nothing_but_jax_and_numpy():
    code = "import sys, dltheory.platform as p; p.environment(); print({'flax', 'optax', 'chex'} & sys.modules.keys())"
    assert run_python(sys.executable, code).stdout == "set()\n"


@pytest.fixture(scope="module")
def python_with_jax_0_10_2(tmp_path_factory):
    """A virtual environment into which the version that this package refuses was forced."""
    folder = tmp_path_factory.mktemp("jax-0.10.2")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [python, "-m", "pip", "install", "--quiet", "jax==0.10.2", "jaxlib==0.10.2", "numpy"]
    done = subprocess.run(list(map(str, install)), capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        pytest.skip(f"jax 0.10.2 cannot be installed from the package index: {done.stderr.strip()[-300:]}")
    return python


@pytest.mark.slow
def test_jax_0_10_2_is_found_out(python_with_jax_0_10_2):
    done = run_python(python_with_jax_0_10_2, "from dltheory import platform; platform.require_sound()")
    assert done.returncode == 1, done.stderr
    for part in (
        "PlatformError: ",
        "jax 0.10.2",
        "XLA_FLAGS not set",
        "values are wrong",
        "https://github.com/jax-ml/jax/issues/39103\n",
        "https://github.com/jax-ml/jax/issues/39257\n",
        WITHOUT_YNN,
    ):
        assert part in done.stderr


@pytest.mark.slow
def test_workaround_makes_jax_0_10_2_sound(python_with_jax_0_10_2):
    name, _, value = WITHOUT_YNN.partition("=")
    code = "from dltheory import platform; platform.require_sound(); print(platform.environment()['jax'], 'is sound')"
    done = run_python(python_with_jax_0_10_2, code, **{name: value})
    assert (done.returncode, done.stdout) == (0, "0.10.2 is sound\n"), done.stderr
