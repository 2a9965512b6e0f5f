"""Help text of a config: the type, value and description of every key.

Descriptions come from the "Attributes:" sections of the components' docstrings.
"""

import dataclasses
import inspect
import re
import shlex
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any

from vrl_jax.config import is_component_tuple

MIN_COLUMNS = 36  # of descriptions to the right of keys; with less room they go below


def explain_config(component: Any, width: int = 100) -> str:
    """Return all keys of an `Experiment` or an `Evaluation`, one paragraph per component.

    Each key is followed by its type, its value in command-line syntax and its description, with the
    default if the value differs.

    Args:
      component: the built config.
      width: of a line, in characters.
    """
    return "\n\n".join(
        _paragraph(part, path, description, width)
        for path, description, part in walk_components(component)
    )


def walk_components(
    component: Any, path: str = "config", description: str = ""
) -> Iterator[tuple[str, str, Any]]:
    """Yield path, description and value of a component and of all components inside it."""
    yield path, description, component
    docs = field_docs(type(component))
    for item in dataclasses.fields(component):
        value = getattr(component, item.name)
        if dataclasses.is_dataclass(value):
            yield from walk_components(value, f"{path}.{item.name}", docs.get(item.name, ""))
        elif is_component_tuple(value):
            for number, part in enumerate(value):
                where = f"{path}.{item.name}.{number}"
                yield from walk_components(part, where, docs.get(item.name, ""))


def field_docs(kind: type) -> dict[str, str]:
    """Return the description of every field, from the docstrings of a class and its bases."""
    docs = {}
    for each in reversed(kind.__mro__):
        _, _, section = inspect.cleandoc(each.__doc__ or "").partition("\nAttributes:\n")
        section = re.split(r"^(?=\S)", section, maxsplit=1, flags=re.MULTILINE)[0]
        for names, text in re.findall(r"^  (\w[\w, ]*): (.*(?:\n    .*)*)", section, re.MULTILINE):
            docs |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return docs


def first_line(kind: type) -> str:
    """Return the first line of the docstring of a class."""
    return inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]


def _paragraph(component: Any, path: str, description: str, width: int) -> str:
    kind = type(component)
    title = f"{path} = {kind.__module__}:{kind.__qualname__}"
    summary = _fill(f"{description} {first_line(kind)}".strip(), width, "  ")
    return "\n".join([title, summary, *_table(_rows(component, path), width)])


def _rows(component: Any, path: str) -> list[tuple[str, str, str, str]]:
    """Return key, type, value and description of every field that is not a component."""
    docs, rows = field_docs(type(component)), []
    for item in dataclasses.fields(component):
        value = getattr(component, item.name)
        if dataclasses.is_dataclass(value) or is_component_tuple(value):
            continue
        text = docs.get(item.name, "")
        if item.default not in (dataclasses.MISSING, value):
            text += f" (default {_to_flag(item.default)})"
        rows.append((f"{path}.{item.name}", _type_name(item.type), _to_flag(value), text))
    return rows


def _type_name(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        return " | ".join(map(_type_name, typing.get_args(kind)))
    if kind is types.NoneType:
        return "None"
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def _table(rows: list[tuple[str, str, str, str]], width: int) -> list[str]:
    """Return the rows with aligned columns, each description beside or below its key."""
    columns = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for *cells, text in rows:
        padded = (f"{cell:{size}}  " for cell, size in zip(cells, columns, strict=False))
        line = "  " + "".join(padded)
        if len(line) + MIN_COLUMNS <= width:
            lines.append(line + _fill(text, width, " " * len(line)).lstrip())
        else:
            lines += [line.rstrip(), _fill(text, width, " " * 6)]
    return lines


def _fill(text: str, width: int, indent: str) -> str:
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)


def _to_flag(value: Any) -> str:
    """Return a value in command-line syntax."""
    return shlex.quote(str(value))
