"""Imports follow the layers, packages form no cycle, and names are two words where one is vague."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAYERS = (
    {"types", "check", "atomic_files", "run_files", "config", "config_file", "config_help"}
    | {"report"},
    {"losses", "data", "augment", "encoders"},
    {"frameworks"},
    {"methods"},
    {"train", "probes", "factors"},
    {"experiment"},
    {"pretrained"},
    {"evaluation", "detection", "pretraining", "profiling", "convert"},
    {"flags", "main", "compare", "browse", "embed", "preflight", "doctor", "replay"}
    | {"run_queue", "model_card", "export", "scan"},
)
FILES = sorted((ROOT / "vrl_jax").rglob("*.py"))


def list_imports(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def package_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT / "vrl_jax").parts[0].removesuffix(".py")


def imported_packages(path: pathlib.Path) -> set[str]:
    ours = {name.split(".")[1] for name in list_imports(path) if name.startswith("vrl_jax.")}
    return ours - {package_of(path), "__version__"}


def layer(package: str) -> int:
    return next(number for number, packages in enumerate(LAYERS) if package in packages)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_layers(path):
    if path == ROOT / "vrl_jax" / "__init__.py":
        return
    own = package_of(path)
    for package in imported_packages(path):
        assert layer(package) <= layer(own), f"{path.name} imports {package}"
    if own == "report":
        assert imported_packages(path) <= {"run_files"}
        assert not any(name.split(".")[0] == "jax" for name in list_imports(path))


def test_packages_form_no_cycle():
    graph = {}
    for path in FILES:
        graph.setdefault(package_of(path), set()).update(imported_packages(path))
    del graph["__init__"]
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("module", ["vrl_jax", "vrl_jax.report.html_page"])
def test_light_modules_do_not_import_jax(module):
    code = f"import {module}, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_losses_need_jax_alone():
    code = (
        "import sys, vrl_jax as vrl; vrl.losses.nt_xent; "
        "sys.exit(any(m in sys.modules for m in ('flax', 'grain', 'av', 'optax', 'orbax')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_loader_workers_do_not_import_jax():
    for path in (ROOT / "vrl_jax" / "data").rglob("*.py"):
        names = list_imports(path)
        assert not any(name.split(".")[0] == "jax" for name in names), path
        assert not imported_packages(path) & {"types", "losses", "augment", "encoders"}, path


def test_the_decoder_log_level_is_never_set():
    for path in FILES:  # with threads and a damaged file it deadlocks
        assert "logging.set_level(" not in path.read_text(), path
