"""Contents of folders: video files, other files and subfolders.

Nothing here imports JAX. Names are never globbed or passed to a shell, because real ones contain
`[`, `!`, spaces and a leading `-`.
"""

import itertools
import os
from typing import NamedTuple

from vrl_jax.data import remote_paths
from vrl_jax.data.datasets.class_names import underscores_to_spaces
from vrl_jax.data.remote_paths import AnyPath
from vrl_jax.data.video.media_containers import IMAGES

# Of the videos that FFmpeg reads without further settings, in lower case. `.ogg` is left to audio.
EXTENSIONS = frozenset(
    (
        ".264 .265 .266 .3g2 .3gp .amv .apng .asf .av1 .avc .avi .avs2 .avs3 .bik .cavs .cdxl "
        ".dav .dif .divx .drc .dv .dvr-ms .evc .f4v .flc .fli .flv .gif .gxf .h261 .h263 "
        ".h264 .h265 .h266 .h26l .hevc .ifv .insv .ismv .ivf .ivr .kux .m1v .m2p .m2t .m2ts "
        ".m2v .m4v .mj2 .mjpeg .mjpg .mk3d .mkv .mod .moflex .mov .mp4 .mp4v .mpe .mpeg .mpg "
        ".mpv .mqv .mts .mxf .mxg .nsv .nut .obu .ogm .ogv .psp .qt .rm .rmvb .roq .smk .swf "
        ".tod .tp .trp .ts .ty .vc1 .viv .vob .vro .vvc .webm .wmv .wtv .xmv .xvid .y4m .zip"
    ).split()
)


class Contents(NamedTuple):
    """Names of what a folder contains, sorted, without hidden entries and `__MACOSX`."""

    videos: list[str]
    others: list[str]
    folders: list[str]


def list_contents(folder: AnyPath) -> Contents:
    """Return the video files, the other files and the subfolders of a folder."""
    files, folders = (
        [name for name in names if not is_hidden(name)]
        for names in remote_paths.list_entries(folder)
    )
    videos = list(filter(is_video_name, files))
    others = sorted(set(files).difference(videos)) if len(videos) < len(files) else []
    return Contents(videos, others, folders)


def is_hidden(name: str) -> bool:
    """Return whether a name is of a hidden file or folder, or of those that macOS adds."""
    return name.startswith(".") or name == "__MACOSX"


def is_video_name(name: str) -> bool:
    """Return whether a file name ends like one of a video, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def list_folders(root: AnyPath) -> list[AnyPath]:
    """Return the subfolders of a folder, sorted by name with spaces; empty without the folder."""
    names = list_contents(root).folders if remote_paths.is_folder(root) else []
    return [root / name for name in sorted(names, key=lambda x: (underscores_to_spaces(x), x))]


def list_video_files(folder: AnyPath) -> list[AnyPath]:
    """Return the video files in a folder, sorted."""
    return [folder / name for name in list_contents(folder).videos]


def has_videos(folder: AnyPath) -> bool:
    """Return whether a folder has a video file; the first one ends the search on a local disk."""
    if remote_paths.is_remote(folder):
        return bool(list_video_files(folder))
    with os.scandir(folder) as entries:
        return any(
            is_video_name(entry.name) and not is_hidden(entry.name) and not entry.is_dir()
            for entry in entries
        )


def holds_images(folder: str | AnyPath) -> bool:
    """Return whether the first files of a folder are images, as in a folder of frames."""
    if remote_paths.is_remote(folder):
        return any(name.lower().endswith(IMAGES) for name in remote_paths.list_names(str(folder)))
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(IMAGES) for entry in itertools.islice(entries, 9))


class FolderCache:
    """Contents of folders, each read once, which is faster than testing many files one by one."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._by_stem: dict[str, dict[str, str]] = {}

    def find(self, path: str) -> str | None:
        """Return the path if the file exists, possibly with another video extension, or None."""
        if self.has_file(path):
            return path
        folder, name = os.path.split(path)
        other = self._by_stem[folder].get(without_extension(name))
        return os.path.join(folder, other) if other else None

    def has_file(self, path: str) -> bool:
        """Return whether the file exists."""
        folder, name = os.path.split(path)
        if folder not in self._names:
            names = _file_names(folder)
            videos = sorted(name for name in names if without_extension(name) != name)
            self._names[folder] = names
            self._by_stem[folder] = {without_extension(name): name for name in videos}
        return name in self._names[folder]


def _file_names(folder: str) -> set[str]:
    if remote_paths.is_remote(folder):
        return remote_paths.list_names(folder)
    entries = os.scandir(folder) if os.path.isdir(folder) else ()
    return {entry.name for entry in entries if entry.is_file()}


def without_extension(name: str) -> str:
    """Return a file name without its extension if that is a video extension."""
    stem, end = os.path.splitext(name)
    return stem if end.lower() in EXTENSIONS else name
