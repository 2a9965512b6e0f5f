"""A file imports only what lies below it; loader workers and the report never meet JAX."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAYERS = {
    "types": 0,
    "check": 0,
    "losses": 1,
    "data": 1,
    "encoders": 1,
    "frameworks": 2,
    "methods": 3,
    "train": 4,
    "evaluate": 4,
    "protocols": 5,
    "config": 5,
    "pretrained": 6,
    "jobs": 7,
    "compare": 8,
    "convert": 7,
    "detection": 8,
    "embed": 8,
    "provenance": 5,
    "main": 8,
    "explain": 0,
    "browse": 9,
    "preflight": 9,
    "data.doctor": 9,
}
FILES = sorted((ROOT / "vrl_jax").rglob("*.py"))


def part(module: str) -> str:
    """Return what of the package a dotted name belongs to."""
    names = module.split(".")[1:]
    file = ".".join(names[:2])
    return file if file in LAYERS else (names + [""])[0]


def imports(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    own = part(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own == "__init__":
        return
    ours = {part(name) for name in imports(path) if name.split(".")[0] == "vrl_jax"} - {"", own}
    if own == "report":
        assert not ours and not any(name.startswith("jax") for name in imports(path))
        return
    for other in ours - {"__version__", "report"}:
        assert LAYERS[other] <= LAYERS[own], f"{path.name} imports {other}"
    assert {own, *ours} != {"train", "evaluate"} and not (own == "evaluate" and "train" in ours)
    assert not (own == "train" and "evaluate" in ours)


@pytest.mark.parametrize("module", ["vrl_jax", "vrl_jax.report.html"])
def test_light_modules_do_not_import_jax(module):
    code = f"import {module}, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_losses_need_jax_alone():
    code = (
        "import vrl_jax.losses, sys; "
        "sys.exit(any(m in sys.modules for m in ('flax', 'grain', 'av', 'optax', 'orbax')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_what_workers_import_does_not_import_jax():
    on_device = {"augment.py", "crop.py", "doctor.py"}
    for path in (ROOT / "vrl_jax" / "data").glob("*.py"):
        if path.name in on_device:
            continue
        found = imports(path)
        assert not any(module.split(".")[0] == "jax" for module in found), path
        assert "vrl_jax.types" not in {".".join(module.split(".")[:2]) for module in found}, path
        assert not {f"vrl_jax.data.{name[:-3]}" for name in on_device} & found, path


def test_nothing_sets_the_decoders_logging_level():
    for path in FILES:  # with threads and a damaged file it deadlocks
        assert "logging.set_level(" not in path.read_text(), path
