"""What a record says about where it was made, and the settings that processes share."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from experiments import environment

ROOT = Path(__file__).parents[2]


def test_the_digest_covers_sources_statements_and_libraries(tmp_path, monkeypatch):
    package = tmp_path / "claims_of_mine"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "one.py", "inner/two.py", "statements.toml", "notes.txt"):
        (package / name).touch()
    monkeypatch.syspath_prepend(tmp_path)
    digest = environment.source_digest(package.name)
    (package / "notes.txt").write_text("nothing that is computed with")
    assert environment.source_digest(package.name) == digest
    seen = {digest, environment.source_digest()}
    for name in ("one.py", "inner/two.py", "statements.toml"):
        (package / name).write_text("x = 1")
        seen.add(environment.source_digest(package.name))
    (package / "one.py").rename(package / "three.py")
    seen.add(environment.source_digest(package.name))
    monkeypatch.setattr(metadata, "version", lambda library: f"another {library}")
    seen.add(environment.source_digest(package.name))
    assert len(seen) == 7


def test_the_environment_is_plain_data_and_does_without_git(monkeypatch):
    here = environment.describe()
    assert json.loads(json.dumps(here)) == here
    assert {"jax", "scipy", "device_kind", "machine", "cpus", "commit"} <= set(here)
    monkeypatch.setenv("PATH", "")
    assert environment.describe()["commit"] is None


def test_the_compilation_cache_is_below_the_users_cache_folder_unless_the_user_says_otherwise(tmp_path):
    code = (
        "import jax; from experiments import compilation_cache\n"
        "compilation_cache.enable(); print(jax.config.jax_compilation_cache_dir)"
    )

    def folder(**variables):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert folder(XDG_CACHE_HOME=str(tmp_path)) == str(tmp_path / "dltheory" / "xla")
    assert folder(HOME=str(tmp_path)) == str(tmp_path / ".cache" / "dltheory" / "xla")
    assert folder(JAX_COMPILATION_CACHE_DIR=str(tmp_path)) == str(tmp_path)
