"""Loading of a run's folder."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vrl_jax import run_files
from vrl_jax.report.result_files import Result, load_result
from vrl_jax.run_files import Record

CLOCKS = ("step", "epoch", "wall_seconds")  # measures of time, which are not plotted


@dataclass(frozen=True)
class Spectrum:
    """Koopman eigenvalues of a fixed set of clips, at each probe.

    Attributes:
      steps: int[p].
      eigenvalues: complex64[p, clips, n].
      radius: an eigenvalue counts as static where |λ − 1| is at most this.
      static_rank: float[p, clips], the trace of the static filter; None where absent.
    """

    steps: np.ndarray
    eigenvalues: np.ndarray
    radius: float
    static_rank: np.ndarray | None


@dataclass(frozen=True)
class Neighbours:
    """Query clips and the gallery clips most similar to them.

    Attributes:
      queries: u8[q, t, h, w, 3].
      query_labels: str[q].
      gallery: u8[q, k, t, h, w, 3], most similar first.
      gallery_labels: str[q, k].
      similarity: f32[q, k].
      same: bool[q, k, j], whether neighbour and query agree in label j.
      label_names: str[j].
    """

    queries: np.ndarray
    query_labels: np.ndarray
    gallery: np.ndarray
    gallery_labels: np.ndarray
    similarity: np.ndarray
    same: np.ndarray
    label_names: np.ndarray


@dataclass(frozen=True)
class Run:
    """The contents of a run's folder; absent files give empty values or None."""

    folder: Path
    config: Record
    environment: Record
    metrics: list[Record]
    probes: list[Record]
    results: list[Result]
    spectrum: Spectrum | None
    neighbours: Neighbours | None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name


def read_run(folder: Path) -> Run:
    """Read one run's folder.

    Raises:
      ValueError: the folder is not a run's, or one of its files is damaged.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; pass the --workdir of a run")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is not a run's folder: it has no config.json")
    environment = folder / "environment.json"
    results = [load_result(path, folder.name) for path in sorted(folder.glob("results/*.json"))]
    return Run(
        folder=folder,
        config=run_files.read_json(folder / "config.json"),
        environment=run_files.read_json(environment) if environment.is_file() else {},
        metrics=read_records(folder / "metrics.jsonl"),
        probes=read_records(folder / "probes.jsonl"),
        results=sorted(results, key=lambda result: result.position),
        spectrum=_spectrum(folder / "spectrum.npz"),
        neighbours=_neighbours(folder / "neighbours.npz"),
    )


def read_runs(folders: list[Path]) -> dict[str, Run]:
    """Read several runs, named by the shortest suffixes of their paths that are unique.

    Raises:
      ValueError: as `read_run`, or a folder is listed twice.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ValueError(f"a run is listed twice among {', '.join(map(str, folders))}")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    runs = {"/".join(path.parts[-depth:]): read_run(path) for path in paths}
    return {
        name: replace(run, results=[replace(result, run=name) for result in run.results])
        for name, run in runs.items()
    }


def read_records(path: Path) -> list[Record]:
    """Return the records of a JSON-lines file, ordered by step; the last record of a step wins.

    An incomplete last line, as a killed run leaves it, is skipped.

    Raises:
      ValueError: another line is not a JSON object with a step.
    """
    if not path.is_file():
        return []
    by_step = {}
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            record = run_files.escape_surrogates(json.loads(line.decode()))
        except ValueError as error:
            if not line.endswith(b"\n"):
                break
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
        if not isinstance(record, dict) or not isinstance(record.get("step"), int | float):
            raise ValueError(f'{path}, line {number} must be an object with a numeric "step"')
        by_step[record["step"]] = record
    return [by_step[step] for step in sorted(by_step)]


def history_keys(history: list[Record]) -> list[str]:
    """Return the quantities in some records except `CLOCKS`, in order of first appearance."""
    names = (
        name
        for record in history
        for name, value in record.items()
        if isinstance(value, int | float) and name not in CLOCKS
    )
    return list(dict.fromkeys(names))


def history_series(history: list[Record], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps and values of one quantity; a JSON null becomes NaN."""
    points = [(record["step"], record[key]) for record in history if key in record]
    steps, values = np.array(points, dtype=float).reshape(-1, 2).T
    return steps, values


def _spectrum(path: Path) -> Spectrum | None:
    if not path.is_file():
        return None
    arrays = run_files.read_arrays(path, ["steps", "eigenvalues", "radius"])
    ranks = [array for name, array in arrays.items() if name.split("/")[-1] == "static_rank"]
    return Spectrum(
        steps=arrays["steps"],
        eigenvalues=arrays["eigenvalues"],
        radius=float(arrays["radius"]),
        static_rank=ranks[0] if ranks else None,
    )


def _neighbours(path: Path) -> Neighbours | None:
    if not path.is_file():
        return None
    names = list(Neighbours.__dataclass_fields__)
    arrays = run_files.read_arrays(path, names)
    return Neighbours(**{name: arrays[name] for name in names})
