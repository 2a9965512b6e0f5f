"""Names are the field's terms: statements as docstrings, two words where one is vague."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "vrl_jax"
FILES = sorted(ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
MODULES = [path for path in FILES if not path.stem.startswith("__")]
QUESTIONS = ("what", "which", "how", "whether", "where")
VAGUE = {
    *("found", "given", "told", "place", "wanted", "kept", "made", "known", "asked"),
    *("shown", "drawn", "taken", "named", "held", "spelt", "lost", "said", "judged"),
}  # participles that say nothing of what is bound
LONGEST = 24  # letters of a name


def bindings(tree):
    """Return the names of all variables and parameters, one for each binding."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def public_functions():
    for path in FILES:
        for node in TREES[path].body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_docstrings_are_statements(path):
    text = ast.get_docstring(TREES[path]) or ""
    assert not text.lower().startswith(QUESTIONS), text.splitlines()[0]


def test_variables_have_names_that_tell_what_they_are():
    names = [name for tree in TREES.values() for name in bindings(tree)]
    vague = [name for name in names if name in VAGUE]
    assert len(vague) < 3e-3 * len(names), sorted(vague)


def test_few_names_are_one_word():
    functions = list(public_functions())
    assert sum("_" not in name for name in functions) <= 0.25 * len(functions)
    assert sum("_" not in path.stem for path in MODULES) <= 0.6 * len(MODULES)


def test_names_are_short_and_packages_shallow():
    packages = {path.parent.relative_to(ROOT) for path in FILES}
    assert max(len(package.parts) for package in packages) <= 2
    assert len(list((ROOT / "data").glob("*.py"))) <= 8
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert len(node.name.strip("_")) <= LONGEST, f"{path}: {node.name}"
