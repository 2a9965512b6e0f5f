"""Every key of a config in words: its type, its value, and what its component says of it.

The sentences are those under "Attributes:" in the components' docstrings, and stand nowhere else.
"""

import dataclasses
import inspect
import re
import shlex
import textwrap
from collections.abc import Iterator
from typing import Any

LEAST = 36  # columns for sentences beside their keys; where there are fewer, they stand below


def explain_config(component: Any, width: int = 100) -> str:
    """Return all keys of an `Experiment` or an `Evaluation`, one paragraph a component.

    A key has its type, its value as a command line writes it, and a sentence, which ends with the
    default where the value is another one.

    Args:
      component: what the config was built to.
      width: of a line, in characters.
    """
    return "\n\n".join(
        _paragraph(part, path, sentence, width)
        for path, sentence, part in walk_components(component)
    )


def walk_components(
    component: Any, path: str = "config", sentence: str = ""
) -> Iterator[tuple[str, str, Any]]:
    """Yield path, sentence and value of a component and of all those within it."""
    yield path, sentence, component
    told = field_docs(type(component))
    for item in dataclasses.fields(component):
        value = getattr(component, item.name)
        if dataclasses.is_dataclass(value):
            yield from walk_components(value, f"{path}.{item.name}", told.get(item.name, ""))


def field_docs(kind: type) -> dict[str, str]:
    """Return what the docstrings of a class, and of those it inherits from, say of its fields."""
    found = {}
    for each in reversed(kind.__mro__):
        _, _, section = inspect.cleandoc(each.__doc__ or "").partition("\nAttributes:\n")
        section = re.split(r"^(?=\S)", section, maxsplit=1, flags=re.MULTILINE)[0]
        for names, text in re.findall(r"^  (\w[\w, ]*): (.*(?:\n    .*)*)", section, re.MULTILINE):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def first_line(kind: type) -> str:
    """Return the first line of a class' docstring."""
    return inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]


def _paragraph(component: Any, path: str, sentence: str, width: int) -> str:
    kind = type(component)
    title = f"{path} = {kind.__module__}:{kind.__qualname__}"
    about = _fill(f"{sentence} {first_line(kind)}".strip(), width, "  ")
    return "\n".join([title, about, *_table(_rows(component, path), width)])


def _rows(component: Any, path: str) -> list[tuple[str, str, str, str]]:
    """Return key, type, value and sentence of every field that is no component."""
    told, rows = field_docs(type(component)), []
    for item in dataclasses.fields(component):
        value = getattr(component, item.name)
        if dataclasses.is_dataclass(value):
            continue
        text = told.get(item.name, "")
        if item.default not in (dataclasses.MISSING, value):
            text += f" (default {_written(item.default)})"
        kind = item.type.__name__ if type(item.type) is type else str(item.type)
        rows.append((f"{path}.{item.name}", kind, _written(value), text))
    return rows


def _table(rows: list[tuple[str, str, str, str]], width: int) -> list[str]:
    """Return the rows with their columns aligned, and each sentence beside or below its key."""
    columns = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for *head, text in rows:
        padded = (f"{part:{size}}  " for part, size in zip(head, columns, strict=False))
        line = "  " + "".join(padded)
        if len(line) + LEAST <= width:
            lines.append(line + _fill(text, width, " " * len(line)).lstrip())
        else:
            lines += [line.rstrip(), _fill(text, width, " " * 6)]
    return lines


def _fill(text: str, width: int, indent: str) -> str:
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)


def _written(value: Any) -> str:
    """Return a value as a command line writes it."""
    return shlex.quote(str(value))
