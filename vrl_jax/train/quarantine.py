"""The videos that a run could not read: each is written down once, and too many stop the run."""

import collections
import pathlib

import jax

from vrl_jax.data.dataset import VideoDataset, VideoError
from vrl_jax.train.log import JsonlWriter


def open_quarantine(folder: pathlib.Path, step: int, max_failed: float) -> "Quarantine":
    """Return this process's list in a folder; see `Quarantine`."""
    number = jax.process_index()
    name = f"quarantine-{number}.jsonl" if number else "quarantine.jsonl"
    return Quarantine(folder / name, step, max_failed)


class Quarantine:
    """A run's list of unreadable videos: lines of `step`, `part`, `id` and `reason`.

    Args:
      path: the file; what it holds of later steps than `step` is forgotten, as in `Records`.
      step: where the run continues.
      max_failed: greatest share of a part's videos that may fail.
    """

    def __init__(self, path: pathlib.Path, step: int, max_failed: float):
        self._records, self._path, self._max_failed = JsonlWriter(path, step), path, max_failed
        self._reasons: dict[str, dict[str, str]] = collections.defaultdict(dict)
        for line in self._records.kept:
            self._reasons[line["part"]][line["id"]] = line["reason"]

    def __len__(self) -> int:
        """Return how many videos of all parts have failed so far."""
        return sum(len(reasons) for reasons in self._reasons.values())

    def take(
        self, part: str, source: VideoDataset, failures: list[tuple[int, str]], step: int
    ) -> None:
        """Write down the failures that are new.

        Args:
          part: "pretrain", "train" or "test".
          source: whose videos they are.
          failures: number and reason of each.
          step: of the run.

        Raises:
          VideoError: more of the part's videos have failed than may.
        """
        known = self._reasons[part]
        for number, reason in failures:
            name = source[number].id
            if name not in known:
                known[name] = reason
                self._records.write(step, {"part": part, "id": name, "reason": reason})
        self.check(part, source, len(known))

    def check(self, part: str, source: VideoDataset, failed: int) -> None:
        """Raise `VideoError` where more of a part's videos have failed, on all hosts, than may."""
        if failed > self._max_failed * len(source):
            known = self._reasons[part]
            kinds = collections.Counter(reason.split(": ")[-1] for reason in known.values())
            told = "; ".join(f"{kind} ({count})" for kind, count in kinds.most_common(3))
            told = f": {told}" if told else ""
            where = self._path if failed == len(known) else f"{self._path} and other hosts' lists"
            raise VideoError(
                f"{failed} of {len(source)} {part} videos cannot be read, more than "
                f"loader.max_failed={self._max_failed:g} allows{told}. See {where}"
            )

    def close(self) -> None:
        """Close the file."""
        self._records.close()
