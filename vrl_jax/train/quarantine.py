"""Quarantine of unreadable videos: each is recorded once, and too many stop the run."""

import collections
import pathlib

import jax

from vrl_jax.data.video_dataset import VideoDataset, VideoError
from vrl_jax.train.run_log import JsonlWriter


def open_quarantine(folder: pathlib.Path, step: int, max_failed: float) -> "Quarantine":
    """Open this process's quarantine list in a folder; see `Quarantine`."""
    number = jax.process_index()
    name = f"quarantine-{number}.jsonl" if number else "quarantine.jsonl"
    return Quarantine(folder / name, step, max_failed)


class Quarantine:
    """The unreadable videos of a run: a file of JSON lines with `step`, `part`, `id` and `reason`.

    Args:
      path: the file; records of later steps than `step` are removed, as in `JsonlWriter`.
      step: step at which the run continues.
      max_failed: largest fraction of the videos of a part that may fail.
    """

    def __init__(self, path: pathlib.Path, step: int, max_failed: float):
        self._records, self._path, self._max_failed = JsonlWriter(path, step), path, max_failed
        self._reasons: dict[str, dict[str, str]] = collections.defaultdict(dict)
        for line in self._records.previous:
            self._reasons[line["part"]][line["id"]] = line["reason"]

    def __len__(self) -> int:
        """Return the number of videos that failed so far, over all parts."""
        return sum(len(reasons) for reasons in self._reasons.values())

    def record(
        self, part: str, source: VideoDataset, failures: list[tuple[int, str]], step: int
    ) -> None:
        """Record the failures of videos that are not in the list yet.

        Args:
          part: "pretrain", "train" or "test".
          source: the data set of the videos.
          failures: number and reason of each failed video.
          step: of the run.

        Raises:
          VideoError: more videos of the part have failed than `max_failed` allows.
        """
        reasons = self._reasons[part]
        for number, reason in failures:
            name = source[number].id
            if name not in reasons:
                reasons[name] = reason
                self._records.write(step, {"part": part, "id": name, "reason": reason})
        self.check(part, source, len(reasons))

    def check(self, part: str, source: VideoDataset, failed: int) -> None:
        """Raise `VideoError` if more videos of a part failed, over all hosts, than are allowed."""
        if failed > self._max_failed * len(source):
            reasons = self._reasons[part]
            kinds = collections.Counter(reason.split(": ")[-1] for reason in reasons.values())
            summary = "; ".join(f"{kind} ({count})" for kind, count in kinds.most_common(3))
            summary = f": {summary}" if summary else ""
            lists = self._path if failed == len(reasons) else f"{self._path} and other hosts' lists"
            raise VideoError(
                f"{failed} of {len(source)} {part} videos cannot be read, more than "
                f"loader.max_failed={self._max_failed:g} allows{summary}. See {lists}"
            )

    def close(self) -> None:
        """Close the file."""
        self._records.close()
