"""Imports point one way, the library touches no private JAX, and importing it costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "dltheory"
BASE = {"typing", "_axes", "_checks", "_noise", "_numerics", "_programs", "_trees", "debug", "platform"}
SHARED = {"networks", "training", "data"}
# Between chapters, only these.
ALLOWED = {
    "approximation": {"activations"},
    "convergence": {"optimization"},
    "nngp": {"activations"},
    "infinite_width": {"nngp", "ntk"},
    "ntk": {"nngp"},
    "samplers": {"background"},
    "diffusion": {"generative"},
    "learning_theory": {"background"},
    "generative": {"background"},
    "distillation": {"background"},
    "adversarial": {"optimization"},
}
# Third-party packages that a part may import; below `interop` nothing else is reached for.
PACKAGES = {"jax", "numpy", "optax", "chex", "diffrax"}
# The one module that reads files, those of data sets that a user has; it writes none.
READER = LIBRARY / "data" / "images.py"
# The modules that evaluate functions while others trace them.
CONSTANTS = {
    LIBRARY / name for name in ("infinite_width/_kinks.py", "infinite_width/_recognition.py", "nngp/_accuracy.py")
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, as absolute dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which way they point"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" if module == "dltheory" else module for alias in node.names}
    return found


def part(path: Path) -> str:
    """The chapter or base module that a library file belongs to."""
    relative = path.relative_to(LIBRARY)
    return relative.parts[0].removesuffix(".py")


FILES = sorted(LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_imports_point_one_way(path):
    here = part(path)
    for module in imports(path):
        if not module.startswith("dltheory."):
            continue
        target = module.split(".")[1]
        if target == here:
            continue
        if here in BASE:
            assert target in BASE, f"{path.name} is in the base layer and imports {module}"
        elif here in SHARED:
            assert target in BASE | SHARED, f"{path.name} is below the chapters and imports {module}"
        else:
            assert target in BASE | SHARED | ALLOWED.get(here, set()), f"{here} may not import {module}"


def test_modules_do_not_import_each_other_in_circles():
    """Also not inside functions, which hides it."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES if path.stem != "__init__"
    }
    imported = {
        name: {
            target
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module
            for target in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
            if target in modules
        }
        for name, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " imports ".join([*above[above.index(name) :], name])
        if name not in done:
            for target in imported[name]:
                visit(target, (*above, name))
            done.add(name)

    for name in modules:
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_library_imports_public_apis_of_few_packages(path):
    for module in imports(path):
        top = module.split(".")[0]
        if top == "dltheory" or top in sys.stdlib_module_names:
            continue
        if part(path) in {"networks", "training"} and top == "flax":
            continue
        if path == READER and module == "sklearn.datasets":  # which comes with images
            continue
        if part(path) == "interop":
            continue
        assert top in PACKAGES, f"{path.name} imports {module}"
        assert "._src" not in module, f"{path.name} reaches into {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    top_level = {
        alias.name.split(".")[0]
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").split(".")[0]
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
    }
    assert not {"diffrax", "sklearn"} & top_level, "import it inside the function that needs it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_library_neither_prints_nor_opens_files_nor_jits(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "open", "input", "exec", "eval"}
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("write_"), f"{path}: the library writes no files"
            assert path == READER or node.attr not in {"open", "read_bytes", "read_text"}, f"{path} reads files"
        # The canaries of `platform` are about compiled code; `interop` stands in for a library that compiles. What is
        # found out about a function while a program is read are constants.
        if part(path) not in {"platform", "interop"} and path not in CONSTANTS and isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "jax.jit", f"{path}: the caller decides what to compile"


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.py")), ids=lambda path: path.name)
def test_application_does_not_import_the_tests(path):
    assert not any(module.split(".")[0] in {"tests", "colab"} for module in imports(path))


def test_import_is_lazy():
    script = (
        "import sys, dltheory; "
        "assert not {'jax', 'flax', 'optax', 'diffrax', 'matplotlib'} & set(sys.modules), sorted(sys.modules); "
        "dltheory.background; dltheory.data; "
        "assert not {'flax', 'diffrax', 'matplotlib', 'sklearn', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_unknown_chapter_is_an_attribute_error():
    import dltheory

    with pytest.raises(AttributeError, match="has no attribute 'alchemy'"):
        dltheory.alchemy  # noqa: B018
    assert set(dltheory.__all__) <= set(dir(dltheory))
