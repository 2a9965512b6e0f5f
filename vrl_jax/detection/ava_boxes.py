"""Reading and writing of boxes with actions in AVA's format.

AVA's annotations are lines `video,time,x1,y1,x2,y2,action,person`, one for each action of a box;
predictions have a score instead of the person. The first line may name the columns. This module
does not import JAX.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from vrl_jax import atomic_files
from vrl_jax.data import remote_paths

NONE = -1  # an action or a person that is absent
MAX_OVERHANG = 0.5  # of a box over the frame, in frame sides; boxes in pixels exceed it


class Boxes(NamedTuple):
    """Boxes in key frames, one row for each action of a box.

    Attributes:
      video: id of the video.
      time: of the key frame, in seconds, or the number of the frame, from 1.
      box: left, top, right and bottom, relative to the frame's width and height.
      action: number of the action, from 1, or -1 where absent.
      person: number of the person in the video, or -1 where absent.
      score: confidence of a prediction; 1 for annotations.
    """

    video: Shaped[np.ndarray, "n"]
    time: Float[np.ndarray, "n"]
    box: Float[np.ndarray, "n 4"]
    action: Int[np.ndarray, "n"]
    person: Int[np.ndarray, "n"]
    score: Float[np.ndarray, "n"]

    def take(self, rows: np.ndarray) -> "Boxes":
        """Return the rows of a mask or of indices."""
        return Boxes(*(column[rows] for column in self))

    def keys(self) -> list[tuple[str, float]]:
        """Return the key frame (video, time) of each row."""
        return list(zip(self.video.tolist(), self.time.tolist(), strict=True))

    def without(self, keys: set[tuple[str, float]]) -> "Boxes":
        """Return the rows outside of some key frames."""
        if not keys:
            return self
        return self.take(np.array([key not in keys for key in self.keys()], bool))


class Instances(NamedTuple):
    """Distinct boxes in the order of their key frames, with all of their actions.

    Attributes:
      boxes: one row per box; `action` is meaningless.
      labels: the actions of each box.
      frame: index of the key frame of each box.
      keys: (video, time) of the key frames.
    """

    boxes: Boxes
    labels: Bool[np.ndarray, "n c"]
    frame: Int[np.ndarray, "n"]
    keys: list[tuple[str, float]]


def collect_instances(rows: Boxes, actions: Iterable[int]) -> Instances:
    """Return the distinct boxes of some rows; actions that are not listed are ignored."""
    columns = {action: column for column, action in enumerate(actions)}
    first, labels = {}, []
    for number, (key, box) in enumerate(zip(rows.keys(), rows.box.tolist(), strict=True)):
        index = first.setdefault((key, tuple(box)), (len(first), number))[0]
        if index == len(labels):
            labels.append(np.zeros(len(columns), bool))
        if (action := int(rows.action[number])) in columns:
            labels[index][columns[action]] = True
    keys = sorted({key for key, _ in first})
    numbers = {key: number for number, key in enumerate(keys)}
    frame = np.array([numbers[key] for key, _ in first], int)
    order = np.argsort(frame, kind="stable")
    distinct = np.array([number for _, number in first.values()], int)[order]
    ordered = np.array(labels, bool).reshape(-1, len(columns))[order]
    return Instances(rows.take(distinct), ordered, frame[order], keys)


def read_annotations(path: Path) -> Boxes:
    """Return the rows of an annotation file, without those that have no box."""
    return _read(path, scored=False)


def read_predictions(path: Path) -> Boxes:
    """Return the rows of a file of predictions, or of detected persons without actions."""
    return _read(path, scored=True)


def write_annotations(path: Path, rows: Boxes) -> None:
    """Write rows as annotations."""
    _write(path, rows, map(_number, rows.person.tolist()))


def write_predictions(path: Path, rows: Boxes) -> None:
    """Write rows as predictions."""
    _write(path, rows, map(str, rows.score))


def read_actions(path: Path) -> dict[int, str]:
    """Return the names of the actions by number, from a label map in protobuf's text format."""
    blocks = re.findall(r"(?:item|label)\s*\{([^}]*)\}", _text(path))
    actions = {}
    for block in blocks:
        name = re.search(r'\bname\s*:\s*"([^"]*)"', block)
        number = re.search(r"\b(?:label_)?id\s*:\s*(\d+)", block)
        if not name or not number:
            raise ValueError(f"{path}: an item must have a name and an id, got {block.strip()!r}")
        actions[int(number[1])] = name[1]
    if not actions:
        raise ValueError(f'{path} has no action: expected item {{ name: "..." id: 1 }}')
    return actions


def read_excluded(path: Path) -> set[tuple[str, float]]:
    """Return the key frames of lines `video,time`."""
    frames = set()
    for number, row in _csv_rows(path):
        try:
            video, time = row
            if not math.isfinite(float(time)):
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: expected video,time, got {','.join(row)!r}"
            ) from None
        frames.add((video, float(time)))
    return frames


def _read(path: Path, scored: bool) -> Boxes:
    rows = []
    for number, row in _csv_rows(path):
        if len(row) == 2 or len(row) >= 7 and not any(row[2:6]):
            continue  # a key frame without boxes
        try:
            rows.append(_parse(row, scored))
        except (ValueError, IndexError):
            last = "score" if scored else "person"
            raise ValueError(
                f"{path}, line {number}: expected video,time,x1,y1,x2,y2,action,{last} with "
                f"x1 < x2 and y1 < y2 relative to width and height, got {','.join(row)!r}"
            ) from None
    return _table(rows)


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number, from 1, and the fields of each line with fields, without a header."""
    for number, row in enumerate(csv.reader(io.StringIO(_text(path))), 1):
        names = [field.strip().lower() for field in row]
        header = names[:1] in (["video"], ["video_id"]) and not re.match(r"\d", (*names, "")[1])
        if row and not (number == 1 and header and names[2:6] in ([], ["x1", "y1", "x2", "y2"])):
            yield number, row


def _parse(row: list[str], scored: bool) -> tuple:
    if len(row) not in (7, 8):
        raise ValueError
    time, *box = map(float, row[1:6])
    last = row[7] if len(row) == 8 else ""
    person = int(last) if last and not scored else NONE
    score = float(last) if last and scored else 1.0
    valid = all(-MAX_OVERHANG <= box[i] < box[i + 2] <= 1 + MAX_OVERHANG for i in (0, 1))
    if not valid or not all(map(math.isfinite, (time, score))):
        raise ValueError
    return row[0], time, box, int(row[6]) if row[6] else NONE, person, score


def _table(rows: list[tuple]) -> Boxes:
    video, time, box, action, person, score = zip(*rows, strict=True) if rows else [()] * 6
    return Boxes(
        np.array(video, str),
        np.array(time, np.float64),
        np.array(box, np.float64).reshape(-1, 4),
        np.array(action, int),
        np.array(person, int),
        np.array(score, np.float64),
    )


def _write(path: Path, rows: Boxes, last: Iterable[str]) -> None:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    columns = zip(rows.keys(), rows.box, map(_number, rows.action.tolist()), last, strict=True)
    for (video, time), box, action, end in columns:
        lines.writerow([video, f"{time:04.10g}", *map(str, box), action, end])
    atomic_files.write_text(path, text.getvalue())


def _number(value: int) -> str:
    return "" if value == NONE else str(value)


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return remote_paths.read_text(path)
