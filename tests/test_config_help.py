"""Every key of a config has a description and a value in command-line syntax."""

import dataclasses
import importlib
import inspect
import pkgutil
import shlex
import textwrap

import pytest

from tests.test_config import CONFIGS, load
from vrl_jax import config, encoders, flags, frameworks, methods
from vrl_jax.config_file import read_config
from vrl_jax.config_help import explain_config, field_docs, first_line, walk_components
from vrl_jax.data import datasets
from vrl_jax.evaluation import protocols
from vrl_jax.train import optim

PACKAGES = datasets, encoders, frameworks, methods, protocols
MARKS = "pretrain", "module", "build", "evaluate"  # methods of the components in them


def components():
    """Return the classes of all parts of the configs in `configs/`, and their alternatives."""
    kinds = {
        type(part) for name in CONFIGS for _, _, part in walk_components(config.build(load(name)))
    }
    modules = [optim] + [
        importlib.import_module(f"{package.__name__}.{module.name}")
        for package in PACKAGES
        for module in pkgutil.iter_modules(package.__path__)
    ]
    for module in modules:
        for name, kind in inspect.getmembers(module, dataclasses.is_dataclass):
            if kind.__module__ == module.__name__ and any(hasattr(kind, mark) for mark in MARKS):
                kinds |= set() if name.startswith("_") else {kind}
    return sorted(kinds, key=lambda kind: (kind.__module__, kind.__qualname__))


@pytest.mark.parametrize("kind", components(), ids=lambda kind: kind.__qualname__)
def test_every_field_of_every_component_has_a_sentence(kind):
    docs = field_docs(kind)
    assert set(docs) == {item.name for item in dataclasses.fields(kind)}
    assert all(docs.values())
    assert first_line(kind).endswith(".") and not first_line(kind).startswith(f"{kind.__name__}(")


def test_components_are_found():
    names = {kind.__name__ for kind in components()}
    assert {
        "BOD",
        "LARS",
        "ViT",
        "Prepared",
        "SwAV",
        "Evaluation",
        "LinearProbe",
        "Retrieval",
    } <= names
    assert len(names) > 35


@dataclasses.dataclass(frozen=True)
class Base:
    """Base of another component.

    Attributes:
      kept: of the base.
      changed: in the base.
    """

    kept: int = 1
    changed: str = "a"


@dataclasses.dataclass(frozen=True)
class Whole(Base):
    """Everything at once: forms of sentences.

    More words. Attributes: none here.

    Attributes:
      changed: in the whole, "x" or
        "y": what follows.
      low, high: bounds
        of it.
      base: within.

    Raises:
      nothing: of the kind.
    """

    low: float = 0.5
    high: float = 1.0
    base: Base = Base()


def test_sentences_are_read_as_they_are_written():
    assert field_docs(Whole) == {
        "kept": "of the base.",
        "changed": 'in the whole, "x" or "y": what follows.',
        "low": "bounds of it.",
        "high": "bounds of it.",
        "base": "within.",
    }
    assert first_line(Whole) == "Everything at once: forms of sentences."


def test_the_text_is_what_it_should_be():
    module = __name__
    assert explain_config(Whole(changed="b c", high=2.0), 80) == textwrap.dedent(
        f"""\
        config = {module}:Whole
          Everything at once: forms of sentences.
          config.kept     int    1      of the base.
          config.changed  str    'b c'  in the whole, "x" or "y": what follows. (default
                                        a)
          config.low      float  0.5    bounds of it.
          config.high     float  2.0    bounds of it. (default 1.0)

        config.base = {module}:Base
          within. Base of another component.
          config.base.kept     int  1  of the base.
          config.base.changed  str  a  in the base."""
    )
    below = explain_config(Whole(changed="b c"), 50).splitlines()
    assert below[4:7] == [
        "  config.changed  str    'b c'",
        '      in the whole, "x" or "y": what follows.',
        "      (default a)",
    ]


def test_what_may_be_absent_is_listed():
    rows = explain_config(config.build(load("ucf101_sdc")), 200).splitlines()
    (row,) = (line for line in rows if line.startswith("  config.framework "))
    assert row.split()[1:5] == ["FrameworkConfig", "|", "None", "None"]


@pytest.mark.parametrize("width", [60, 100, 160])
def test_sentences_keep_to_the_width(width):
    lines = explain_config(config.build(load("k400_sdc")), width).splitlines()
    longer = [line for line in lines if len(line) > width]
    assert all(line.split()[0].startswith("config") for line in longer)
    assert len(longer) < len(lines) / 8 and sum(len(line) > width - 9 for line in lines) > 20


def keys(run):
    """Return the value of every key, as the help text shows it."""
    rows = [line.strip().split("  ") for line in explain_config(run, 10_000).splitlines()]
    cells = [[cell.strip() for cell in row if cell] for row in rows]
    return {row[0]: row[2] for row in cells if row and len(row) > 2 and row[0][:7] == "config."}


def parsed(name, *overrides):
    """Return a config with overrides from the command line."""
    _, pairs = flags.split_overrides([*overrides])
    return config.build(read_config(f"configs/{name}.py", pairs))


CHANGED = {
    "ucf101_sdc": {
        "data": {"root": "/my clips/it's", "split": 3},
        "method": {"streams": ("still",), "wrap": False, "margin": 1.5},
        "augment": {"size": 64, "area": (0.25, 0.5), "std": (0.1, 0.2, 0.3)},
        "optim": {"drops": (), "learning_rate": 1e-05},
        "resize": (64, 86),
    },
    "eval_hmdb51_linear": {
        "splits": (2,),
        "init": "",
        "protocol": {"epochs": 10.0, "optim": {"drops": (0.5, 0.75)}},
        "label": "a b",
        "untrained": False,
    },
}


def replaced(component, changes):
    new = {
        name: replaced(getattr(component, name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(component, **new)


@pytest.mark.parametrize("name", CHANGED)
def test_values_are_shown_as_the_command_line_takes_them(name):
    changed = replaced(config.build(load(name)), CHANGED[name])
    values = keys(changed)
    fields = sum(
        not dataclasses.is_dataclass(getattr(part, item.name))
        for _, _, part in walk_components(changed)
        for item in dataclasses.fields(part)
    )
    assert len(values) == fields
    line = " ".join(f"--{key}={value}" for key, value in values.items() if value != "None")
    assert parsed(name) != changed
    assert parsed(name, *shlex.split(line)) == changed
