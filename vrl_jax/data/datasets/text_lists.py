"""Rows of list files: the path of a video and its label.

Nothing here imports JAX.
"""

import re
from pathlib import Path

from vrl_jax.data.datasets.class_names import Label, parse_label, read_lines, underscores_to_spaces
from vrl_jax.data.datasets.folder_contents import EXTENSIONS, is_video_name
from vrl_jax.data.remote_paths import AnyPath

_PATH, _BETWEEN = r'("(?:[^"]|"")+"|.+?)', r"(?:\s*::\s*|[\s,;]+)"
_FRAMES, _NUMBER = r'"?\d+"?', r'"?([+-]?\d+)"?'
_FILE = rf"(.+?(?:{'|'.join(map(re.escape, sorted(EXTENSIONS)))}))"
COLUMNS = {
    "path label": re.compile(f"{_PATH}{_BETWEEN}{_NUMBER}"),
    "path frames label": re.compile(f"{_PATH}{_BETWEEN}{_FRAMES}{_BETWEEN}{_NUMBER}"),
    "path frames": re.compile(f"{_PATH}{_BETWEEN}{_FRAMES}"),
    "path": re.compile("(.+)"),
}
_NAMED = (  # a name may have spaces where a sign separates it, or after the extension of a video
    re.compile(rf'{_PATH}\s*(?:::|[,;\t])\s*("(?:[^"]|"")+"|[^,;\t"]*)'),
    re.compile(rf"{_FILE}\s+(.+)", re.IGNORECASE),
)


def read_list(path: AnyPath, columns: str = "path label") -> list[tuple[str, Label]]:
    """Return the (path, stored label) rows of a list; see `ListFile` for its columns.

    With the columns "path frames" the label is the name of the video's folder, with spaces. There
    is one row for each of `read_lines`.
    """
    rows = []
    for number, line in read_lines(path):
        row = _parse_line(line, columns)
        if row is None:
            raise ValueError(
                f"{path}, line {number}: must be {columns!r}, got {line!r}: for a list of paths "
                "pass --config.data.columns=path"
            )
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} lists no video")
    return rows


def cite_line(path: AnyPath, row: int) -> str:
    """Return file and line of a row of `read_list`, for errors."""
    return f"{path}, line {read_lines(path)[row][0]}"


def _parse_line(line: str, columns: str) -> tuple[str, Label] | None:
    """Return path and label of a line, None if it has other columns."""
    if match := COLUMNS[columns].fullmatch(line):
        video = _unquote(match[1])
        if columns == "path frames":
            return video, underscores_to_spaces(Path(video.replace("\\", "/")).parent.name)
        return video, int(match[2]) if match.re.groups == 2 else None
    if columns != "path label":
        return None
    if is_video_name(_unquote(line)):
        return _unquote(line), None
    match = next(filter(None, (pattern.fullmatch(line) for pattern in _NAMED)), None)
    if not match or re.fullmatch(r"[+-]?\d*\.\d+", match[2]):
        return None
    return _unquote(match[1]), parse_label(_unquote(match[2]))


def _unquote(text: str) -> str:
    """Return a text without the quotes of csv files."""
    quoted = len(text) > 2 and text[0] == text[-1] == '"'
    return text[1:-1].replace('""', '"') if quoted else text
