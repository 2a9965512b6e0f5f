"""What the site and the other texts show is true: pages, Python, commands, names, messages."""

import argparse
import ast
import importlib.util
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags

from vrl_jax import config, config_file
from vrl_jax import flags as command_line
from vrl_jax.data.datasets import dataset_lookup

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
CONFIGS = sorted((ROOT / "configs").glob("[a-z]*.py"))
NOT_RUN = "<!-- not run: "  # and why; stands above Python that is only shown


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


# Pages


def test_the_navigation_names_every_page():
    places = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(places) == sorted(str(path.relative_to(DOCS)) for path in PAGES)


def test_figures_elsewhere_are_those_of_the_results():
    results = (DOCS / "results.md").read_text().split()
    for page in [ROOT / "README.md", *(DOCS / "methods").glob("*.md")]:
        for figure in re.findall(r"\d\.\d{3}\s±\s\d\.\d{3}", page.read_text()):
            assert " ".join(figure.split()) in " ".join(results), f"{page.name}: {figure}"


def test_every_command_is_on_its_page():
    page = (DOCS / "commands.md").read_text()
    shown = set(re.findall(r"<!-- help: (\S+) -->", page))
    shown |= set(re.findall(r"`(\S+)` is another name of", page))
    programs = [
        path.relative_to(ROOT).with_suffix("")
        for path in (ROOT / "vrl_jax").rglob("*.py")
        if "\nif __name__" in path.read_text()
    ]
    names = [".".join(path.parts).removesuffix(".__main__") for path in programs]
    assert sorted(shown) == sorted(names)


def test_every_public_module_is_in_the_reference_once():
    pages = "\n".join(path.read_text() for path in PAGES)
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "vrl_jax").rglob("[a-z]*.py")
        if "\nif __name__" not in path.read_text()  # commands have their page
    ]
    for module in modules:
        entries = re.findall(rf"^::: {re.escape(module)}(?:\.[A-Z]\w+)?$", pages, re.M)
        assert len(entries) == 1, f"{module}: {entries}"


def test_every_notebook_is_linked():
    text = (DOCS / "notebooks.md").read_text()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in text


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_files_named_exist(path):
    for file in re.findall(r"`((?:\w+/)*\w+\.(?:py|sh|ipynb))`", path.read_text()):
        places = (
            ROOT / file,
            ROOT / "configs" / file,
            ROOT / "vrl_jax" / file,
            ROOT / "notebooks" / file,
        )
        assert file.startswith("mylab/") or any(place.exists() for place in places), file


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "methods/bod/index.html").read_text()
    assert "<math" in page and "arithmatex" not in page
    assert "--workdir" in (tmp_path / "commands/index.html").read_text()
    assert "150 epochs of 32" in (tmp_path / "evaluation/index.html").read_text()
    assert "https://" not in "".join(re.findall(r"<(?:script|link)[^>]*>", page))


def test_bars_of_norms_are_delimiters_that_do_not_stretch():
    pytest.importorskip("latex2mathml")
    spec = importlib.util.spec_from_file_location("maths", DOCS / "hooks" / "maths.py")
    maths = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maths)
    mathml = maths.to_mathml(r"\lVert x \rVert^2 + \left\lVert y \right\rVert", "inline")
    bars = re.findall(r"<mo ([^>]*)>&#x02016;</mo>", mathml)
    assert [re.search(r'form="(\w+)"', bar)[1] for bar in bars] == ["prefix", "postfix"] * 2
    assert [re.search(r'stretchy="(\w+)"', bar)[1] for bar in bars] == ["false"] * 2 + ["true"] * 2
    assert "<mo>&#x02016;" not in mathml


# Python


PYTHON = [path for path in PAGES if "```python" in path.read_text()]


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_python_runs(path):
    for above, code in re.findall(r"([^\n]*)\n```python\n(.*?)```", path.read_text(), re.S):
        program = compile(code, name(path), "exec")
        if not above.startswith(NOT_RUN):
            exec(program, {"__name__": path.stem})


# Messages


def ends(node: ast.AST) -> bool:
    """Whether it is a `raise` statement or a call of `sys.exit`."""
    exits = isinstance(node, ast.Call) and ast.unparse(node.func) == "sys.exit"
    return isinstance(node, ast.Raise) or exits


def raised(tree: ast.AST) -> list[str]:
    """Return the strings of a program's errors, an ellipsis for what is filled in."""
    found = []
    for statement in filter(ends, ast.walk(tree)):
        for node in ast.walk(statement):
            if isinstance(node, ast.JoinedStr):
                plain = (x.value if isinstance(x, ast.Constant) else "…" for x in node.values)
                found.append("".join(plain))
            elif isinstance(node, ast.Constant):
                found.append(str(node.value))
    return found


def test_messages_explained_are_those_of_the_code():
    files = (ROOT / "vrl_jax").rglob("*.py")
    known = "\n".join(text for path in files for text in raised(ast.parse(path.read_text())))
    headings = re.findall(
        r"^### (`+) ?(.*?…?) ?\1$", (DOCS / "troubleshooting.md").read_text(), re.M
    )
    assert len(headings) > 30
    for _, message in headings:
        pieces = ".*".join(map(re.escape, message.split("…")))
        assert re.search(pieces, known), message


# Commands


def commands(path: pathlib.Path) -> list[str]:
    """Return the commands of ours that a text, or a config's docstring, shows."""
    text = re.sub(r"^#.*", "", path.read_text(), flags=re.M)
    if path.suffix == ".py":
        shown = re.findall(
            r"^python -m .*?(?:\n\n|\Z)", ast.get_docstring(ast.parse(text)), re.M | re.S
        )
    else:
        shown = re.findall(r"```bash\n(.*?)```", text, re.S) + re.findall(r"`(python [^`]+)`", text)
    lines = "\n".join(shown).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if re.search(r"python -m vrl_jax|launch/\w+\.sh", line)]


SHOWN = [(name(path), command) for path in TEXTS + CONFIGS for command in commands(path)]


class Parsed(Exception):
    """What a command's own parser made of its arguments."""


def parse(monkeypatch, program, arguments: list[str]) -> argparse.Namespace:
    """Return the arguments of a command that uses argparse; it runs no further."""
    with monkeypatch.context() as patched:
        for method in ("parse_args", "parse_intermixed_args"):
            own = getattr(argparse.ArgumentParser, method)

            def stop(self, *given, own=own):
                raise Parsed(own(self, *given))

            patched.setattr(argparse.ArgumentParser, method, stop)
        with pytest.raises(Parsed) as caught:
            program.main(arguments)
    return caught.value.args[0]


def check_parsed(found: argparse.Namespace, arguments: list[str]) -> None:
    """Refuse data sets and configs that there are not; folders need not be there."""
    for names in (getattr(found, "source", None), getattr(found, "data", None)):
        if isinstance(names, list) and names and "/" not in names[0]:
            dataset_lookup.build_dataset(names[0], names[1:])
    overrides = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    for path in getattr(found, "configs", []):
        check_config([f"--config={path}", *overrides])


def check_flags(module: str, arguments: list[str]) -> None:
    """Refuse flags that neither the command nor `vrl_jax.flags` has."""
    key_flags = flags.FLAGS.get_key_flags_for_module
    known = {flag.name for each in (module, "vrl_jax.flags") for flag in key_flags(each)}
    for argument in arguments:
        flag = argument.partition("=")[0]
        assert flag.startswith("--config.") or flag.removeprefix("--") in known, argument


def check_config(arguments: list[str]) -> None:
    """Build the config that `--config` names, with all that the command line says of it."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    _, overrides = command_line.split_overrides(arguments)
    read = config_file.read_config(given["--config"], overrides)
    config.build(command_line.replace_data(read, given.get("--data", "")))


def check(monkeypatch, text: str, command: str) -> None:
    """Refuse a command whose module, flags, config, settings or data set do not exist."""
    words = shlex.split(command, comments=True)
    if words[0].startswith("launch/"):
        script, cut = (ROOT / words[0]).read_text(), words.index("--")
        for word in words[1:cut]:  # a flag with its value, or a word or switch alone
            known = re.escape(re.sub("=.*", "=", word)) + ("" if "=" in word else r"(?![\w-])")
            assert re.search(rf"(?<![\w-]){known}", script), word
        compares = any(word.startswith("--array=") for word in words[:cut])
        module, arguments = f"vrl_jax.{'compare' if compares else 'main'}", words[cut + 1 :]
    else:
        at = words.index("-m")
        module, arguments = words[at + 1], words[at + 2 :]
    program = importlib.import_module(module)
    if hasattr(program, "__path__"):
        program = importlib.import_module(f"{module}.__main__")
    if not flags.FLAGS.get_key_flags_for_module(module):
        return check_parsed(parse(monkeypatch, program, arguments), arguments)
    check_flags(module, arguments)
    own = re.search(r"--config=(mylab/\w+\.py)", command)  # a file that the text itself shows
    if own:
        assert f"`{own[1]}`" in text
    elif "--config=..." not in arguments:
        check_config(arguments)


@pytest.mark.parametrize(("place", "command"), SHOWN)
def test_commands_shown_exist(monkeypatch, place, command):
    check(monkeypatch, (ROOT / place).read_text(), command)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("nothing --config=configs/synthetic_bod.py", ModuleNotFoundError),
        ("main --config=configs/nothing.py", ValueError),
        ("main --config=configs/synthetic_bod.py --outt=x", AssertionError),
        ("main --config=configs/synthetic_bod.py --steps=2", AssertionError),  # another's flag
        ("main --config=configs/synthetic_bod.py --config.method.radiuss=1", ValueError),
        ("main --config=configs/synthetic_bod.py --config.method.radius=-1.0", ValueError),
        ("main --config=configs/synthetic_bod.py --data='UCF101 rooot=x'", ValueError),
        ("data.index UCF102 --out=x", ValueError),
        ("embed runs/mine UCF101 --outt=x", SystemExit),
        ("compare configs/synthetic_bod.py -- --config.train.stepss=2", ValueError),
    ],
)
def test_wrong_commands_are_refused(monkeypatch, wrong, error):
    importlib.import_module("vrl_jax.doctor")
    with pytest.raises(error):
        check(monkeypatch, "", f"python -m vrl_jax.{wrong}")


@pytest.mark.parametrize("wrong", ["upp --name=x", "up --nam=x", "up --spott", "up --spot=1"])
def test_wrong_words_for_scripts_are_refused(monkeypatch, wrong):
    with pytest.raises(AssertionError):
        check(monkeypatch, "", f"launch/tpu.sh {wrong} -- --config=configs/synthetic_bod.py")
