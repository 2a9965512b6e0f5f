"""Class names, the numbers of stored labels, and orders that differ from the official ones.

Nothing here imports JAX.
"""

import functools
import itertools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vrl_jax.data import remote_paths
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video_dataset import VideoDataset, label_array

# Neighbours in official lists that sorted names of class folders exchange: UCF101's list ignores
# case, and Kinetics' list has brackets, which folders often lack.
OFFICIAL_ORDER = (
    ("UCF101", "Hammering", "HammerThrow"),
    ("UCF101", "JumpingJack", "JumpRope"),
    ("Kinetics", "skiing (not slalom or crosscountry)", "skiing crosscountry"),
)


def read_lines(path: AnyPath) -> list[tuple[int, str]]:
    """Return the stripped non-blank lines with their numbers, from 1."""
    if not remote_paths.is_file(path):
        raise ValueError(f"there is no file {path}")
    lines = remote_paths.read_text(path).split("\n")
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def read_classes(path: AnyPath) -> tuple[tuple[str, ...], int]:
    """Return the class names and the first class number of a file of lines `[number] name`."""
    names = read_class_numbers(path)
    first = min(names, default=0)
    if list(names) != list(range(first, first + len(names))):
        raise ValueError(f"{path}: classes must be numbered without gaps from {first}")
    return tuple(names.values()), first


def read_class_numbers(path: AnyPath) -> dict[int, str]:
    """Return the class names by number, ascending; lines without numbers count from 0.

    The number may also come last, if the numbers are consecutive and the names before them differ.
    """
    lines = [line for _, line in read_lines(path)]
    rows = [re.fullmatch(r"(\d+)[\s,]+(.+)", line) for line in lines]
    names = {int(row[1]): row[2] for row in rows} if all(rows) else dict(enumerate(lines))
    if len(names) < len(lines):
        raise ValueError(f"{path}: two classes have the same number")
    if not all(rows):
        names = _numbers_last(lines) or names
    spellings = set()
    for name in names.values():
        if (spelling := underscores_to_spaces(name)) in spellings:
            raise ValueError(f"{path}: two classes have the same name, {name!r}")
        spellings.add(spelling)
    if MISSING in names.values():
        raise ValueError(f"{path}: 'nan' stands for a missing value, not for a class")
    return dict(sorted(names.items()))


def _numbers_last(lines: Sequence[str]) -> dict[int, str]:
    """Return the names by number of lines `name number`; empty if they are not of that form."""
    rows = [re.fullmatch(r"(.+?)[\s,]+(\d+)", line) for line in lines]
    names = {int(row[2]): row[1] for row in rows} if all(rows) else {}
    first = min(names, default=0)
    consecutive = first < 2 and sorted(names) == list(range(first, first + len(lines)))
    return names if consecutive and len(set(names.values())) == len(lines) else {}


def underscores_to_spaces(name: str) -> str:
    """Return a class name with spaces for underscores, and accents as on other systems than macOS.

    Copies by macOS write an accent as a character of its own.
    """
    return unicodedata.normalize("NFC", name.replace("_", " "))


Label = int | str | None  # as stored: a number, a name, or none
UNLABELLED = (None, -1)
MISSING = "nan"  # an empty field of a table
MAX_CLASSES = 1_000_000  # larger numbers, such as times and ids, are no classes


class ClassNumbers(NamedTuple):
    """The classes of a data set.

    Attributes:
      names: class names in the order of the class numbers.
      numbers: stored label to class number.
      file: file of the names; "" without.
    """

    names: tuple[str, ...]
    numbers: Mapping[Label, int]
    file: str = ""

    def number_labels(
        self, labels: Sequence[Label], cite: Callable[[int], str]
    ) -> list[int] | None:
        """Return the class numbers of a part's labels; None if no video of the part has one.

        Args:
          labels: the stored labels.
          cite: returns the origin of label i, for errors.

        Raises:
          ValueError: some labels are missing, or one is not among the classes.
        """
        if all(label in UNLABELLED for label in labels):
            return None
        return [self._number(label, cite, row) for row, label in enumerate(labels)]

    def _number(self, label: Label, cite: Callable[[int], str], row: int) -> int:
        if label == MISSING:
            raise ValueError(f"{cite(row)}: 'nan' stands for a missing value, not for a class")
        number = self.numbers.get(_spaced(label))
        if number is not None:
            return number
        if label in UNLABELLED:
            raise ValueError(f"{cite(row)} has no label, but others have: label all or none")
        integers = [each for each in self.numbers if isinstance(each, int)]
        if not integers and isinstance(label, int):
            raise ValueError(
                f"{cite(row)}: label must be a name, as {self.names[0]!r} is, got the number "
                f"{label}: if {self.names[0]!r} is the name of a column, remove its line"
            )
        if isinstance(label, str):
            raise ValueError(f"{cite(row)}: {self.file or 'the data set'} has no class {label!r}")
        raise ValueError(
            f"{cite(row)}: label must be {min(integers)} to {max(integers)}, got {label}"
        )


def number_classes(
    labels: Iterable[Label], file: AnyPath | None = None, first: int | None = None
) -> ClassNumbers:
    """Return the classes of a data set.

    Names come from the file or, without one, from the labels: names in alphabetical order, or
    numbers, from the first to the largest.

    Args:
      labels: the stored labels of all parts.
      file: file of lines `name` or `number name`.
      first: number of the first class; None: as in the file, or 0.
    """
    if file is not None:
        names, own = read_classes(file)
        return name_classes(names, own if first is None else first, str(file))
    distinct = set(labels).difference((*UNLABELLED, MISSING))
    texts = sorted({_spaced(label) for label in distinct if isinstance(label, str)})
    if texts:
        return ClassNumbers(tuple(texts), {name: number for number, name in enumerate(texts)})
    stored = range(first or 0, min(1 + max(distinct, default=(first or 0) - 1), MAX_CLASSES))
    return ClassNumbers(tuple(map(str, stored)), {label: n for n, label in enumerate(stored)})


def name_classes(names: Sequence[str], first: int = 0, file: str = "") -> ClassNumbers:
    """Return the classes of names in order, stored by number, from `first`, or by name."""
    numbers = {number: position for position, number in enumerate(range(first, first + len(names)))}
    numbers |= {_spaced(name): position for position, name in enumerate(names)}
    return ClassNumbers(tuple(names), numbers, file)


def parse_label(text: str) -> Label:
    """Return the label that a text stands for: a number, a name, or none where it is empty."""
    text = text.strip()
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else text or None


def _spaced(label: Label) -> Label:
    return underscores_to_spaces(label) if isinstance(label, str) else label


@functools.cache
def warn_once(text: str) -> None:
    """Print a warning to standard error, once in a process: the parts of a data set repeat it."""
    print(f"warning: {text}", file=sys.stderr)


def warn_about_untrained(train: VideoDataset, test: VideoDataset, cluster: str = "") -> None:
    """Warn where classes of the test videos have no training video, so that none is recognised.

    Args:
      train: the training videos.
      test: the test videos.
      cluster: label that divides the videos and is not recognised, if any.
    """
    for label in sorted(set(test.classes).intersection(train.classes) - {cluster}):
        names = test.classes[label]
        seen, present = (_classes_present(source, label) for source in (train, test))
        if absent := sorted(present - seen):
            warn_once(
                f"{label}: {len(absent)} of {len(present)} classes of the test videos have no "
                f"training video, such as {names[absent[0]]!r}: check that both parts spell or "
                "number their classes alike"
            )


def _classes_present(source: VideoDataset, label: str) -> set[int]:
    values = label_array(source, label)
    return set((np.flatnonzero(values.any(0)) if values.ndim > 1 else np.unique(values)).tolist())


def warn_about_order(origin: str, classes: Sequence[str]) -> None:
    """Warn where sorted class names have another order than the numbers of official lists.

    Args:
      origin: folder or list of the classes, for the message.
      classes: names, sorted.
    """
    numbers = {_plain(name): number for number, name in enumerate(classes)}
    exchanged = [
        (benchmark, first, second)
        for benchmark, first, second in OFFICIAL_ORDER
        if numbers.get(_plain(first), -1) > numbers.get(_plain(second), len(classes))
    ]
    for benchmark, pairs in itertools.groupby(exchanged, lambda row: row[0]):
        texts = [f"{first!r} and {second!r}" for _, first, second in pairs]
        warn_once(
            f"{origin}: sorted names of class folders exchange {', '.join(texts)} as compared with "
            f"the official list of {benchmark}: identify classes by name, not by number"
        )
    if all(name.isdecimal() for name in classes) and sorted(classes, key=int) != list(classes):
        number, name = next(
            (number, name) for number, name in enumerate(classes) if number != int(name)
        )
        warn_once(
            f"{origin}: class folders named by numbers are sorted as text, so that {name!r} is "
            f"class {number}: identify classes by name, or pad the numbers with zeros"
        )


def _plain(name: str) -> str:
    """Return a class name without the signs and the case in which spellings differ."""
    return re.sub(r"[\W_]", "", name).lower()
