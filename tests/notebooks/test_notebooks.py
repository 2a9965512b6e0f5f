"""The notebooks are stored with their outputs, small and clean, and run from top to bottom."""

import ast
import os
import pathlib
import re
import resource

import pytest

nbformat = pytest.importorskip("nbformat")  # with the extra "notebooks"
nbclient = pytest.importorskip("nbclient")

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
CALM = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}  # one device, compiled as for a reader
SHOWS = re.compile(r"\bprint\(|\bplt\.subplots\(|\bdisplay\(|^show\(", re.M)
LOCAL = re.compile(r"(?<![\w.])/(?:tmp|home|root|work|usr|opt|var|mnt|Users)/|[A-Z]:\\")
MOST_BYTES = 400_000
MOST_SECONDS = 2 * 120  # of processor time: two minutes of two cores, whatever else they do

every = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def problems(cell) -> list[str]:
    """Return what went wrong in a cell: errors, and all that was written to stderr."""
    return [
        "\n".join(output.get("traceback", [])) or output.text
        for output in cell.outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def test_all_four_are_there():
    assert {path.stem for path in PATHS} == {
        "losses_from_two_arrays",
        "koopman_by_hand",
        "your_own_method",
        "reading_the_report",
    }


@every
def test_is_stored_with_clean_outputs_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < MOST_BYTES
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.execution_count for cell in code(notebook)] == [
        place + 1 for place in range(len(code(notebook)))
    ]
    for cell in code(notebook):
        compile(cell.source, path.name, "exec")
        assert not problems(cell)
        assert cell.outputs or not shows(cell.source), f"no outputs of:\n{cell.source}"
    assert not LOCAL.search(texts(notebook))


@every
def test_imports_names_that_exist(path):
    for cell in code(nbformat.read(path, as_version=4)):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("vrl_jax"):
                exec(ast.unparse(node), {})


def shows(source: str) -> bool:
    """Return whether a cell prints or draws at once, and not only in a function that it defines."""
    return bool(SHOWS.search(re.sub(r"^def .*?(?=^\S|\Z)", "", source, flags=re.M | re.S)))


def texts(notebook) -> str:
    """Return all that a reader can read, pictures left out."""
    told = [cell.source for cell in notebook.cells]
    for cell in code(notebook):
        for output in cell.outputs:
            told += [output.get("text", "")]
            told += [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
    return "\n".join(told)


@pytest.mark.slow
@every
def test_runs_in_a_fresh_kernel(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in code(notebook):
        cell.outputs = []
    client = nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        coalesce_streams=True,
        timeout=600,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    before = processor_seconds()
    client.execute(env={**os.environ, **CALM})
    assert processor_seconds() - before < MOST_SECONDS
    stored = nbformat.read(path, as_version=4)
    for cell, shown in zip(code(notebook), code(stored), strict=True):
        assert not problems(cell)
        assert [kind(output) for output in cell.outputs] == [kind(o) for o in shown.outputs]
    assert not LOCAL.search(texts(notebook))


def processor_seconds() -> float:
    """Return what all processes that this one started and that have ended have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def kind(output) -> tuple:
    return output.output_type, output.get("name"), *sorted(output.get("data", {}))
