"""The experiment on the split: every arm on every kind of rendered video, several seeds.

`python benchmarks/split.py --out=runs/split` trains the arms of `configs/synthetic_split.py` on
motions that travel and stand, without a drift and with one of 2 and 4 times the motion's effect,
writes the results of finished runs to `--json`, and prints the tables of `docs/split.md`. Runs with
results in the file are skipped, so the same command resumes, and a longer list of seeds, arms or
drifts extends it; seeds come last, so that an interrupted experiment is balanced. `--tables` runs
nothing. Arguments after `--` override every config. The data's seed is 1; settings were fixed on 0.
"""

import argparse
import itertools
import json
import operator
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks import rounds
from vrl_jax import atomic_files
from vrl_jax.compare import (
    UNTRAINED,
    Run,
    describe_failures,
    execute_runs,
    gather_results,
    is_finished,
)
from vrl_jax.config_file import split_arguments

CONFIG = "configs/synthetic_split.py"
ARMS = (
    "simclr",
    "mean",
    "mean-unit",
    "detrend",
    "split",
    "split-narrow",
    "split-ridge",
    "split-gradient",
    "split-delay",
    "split-lower",
    "split-lower-delay",
    "joint+forecast",
    "mean+forecast",
    "detrend+forecast",
    "split+forecast",
    "split-delay+forecast",
    "forecast",
)
COLUMNS = {  # of the tables, by result
    "encoder: motion": "linear dynamic",
    "encoder: appearance": "linear static",
    "encoder: drift": "linear drift",
    "in order: motion": "leakage/ordered dynamic",
    "m: motion": "leakage/dynamic dynamic",
    "m: drift": "leakage/dynamic drift",
    "m: appearance": "leakage/dynamic static",
    "a: appearance": "leakage/static static",
    "a: motion": "leakage/static dynamic",
    "a: drift": "leakage/static drift",
    "m/drift": "response/dynamic drift",
    "m/phase": "response/dynamic phase",
    "a/phase": "response/static phase",
    "a/drift": "response/static drift",
}
MOTION = "encoder: motion", "m: motion"  # columns whose gains over a reference are tabulated


class Cell(NamedTuple):
    """One kind of video.

    Attributes:
      motion: see `Synthetic`.
      drift: see `Synthetic`.
    """

    motion: str
    drift: str

    @property
    def folder(self) -> str:
        """Name of the folder of its runs."""
        return f"{self.motion}-drift{self.drift}"

    @property
    def overrides(self) -> list[str]:
        """Flags of its runs."""
        return [f"--config.data.motion={self.motion}", f"--config.data.drift={self.drift}"]


def list_runs(
    out: pathlib.Path, cells: list[Cell], arms: list[str], seeds: list[int], overrides: list[str]
) -> dict[tuple[str, str, str], Run]:
    """Return the runs by kind of video, arm and seed."""
    runs = {}
    for seed, cell, arm in itertools.product(seeds, cells, arms):
        flags = ["--config.data.seed=1", *cell.overrides, *overrides]
        folder = out / cell.folder / f"{arm}-seed{seed}"
        runs[cell.folder, arm, str(seed)] = Run(f"{CONFIG}:{arm}", seed, "", arm, folder, flags)
    return runs


def read_values(folder: pathlib.Path, init: str = "") -> dict[str, float]:
    """Return the results of a finished run by column."""
    results = gather_results([folder], init=init)
    return {column: results[name][0] for column, name in COLUMNS.items() if name in results}


def update_results(results: dict, runs: dict[tuple[str, str, str], Run]) -> None:
    """Add the values of finished runs, by kind of video, arm and seed."""
    for (cell, arm, seed), run in runs.items():
        if is_finished(run.workdir):
            values = {init: read_values(run.workdir, init) for init in ("", UNTRAINED)}
            results.setdefault(cell, {}).setdefault(arm, {})[seed] = values


def format_values(values: list[float]) -> str:
    """Return mean ± standard deviation over seeds."""
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}" if values else ""


def format_gain(gains: Sequence[float]) -> str:
    """Return the mean of paired differences ± its standard error, in bold above two of them."""
    if len(gains) < 2:
        return ""
    mean, error = float(np.mean(gains)), float(np.std(gains, ddof=1) / np.sqrt(len(gains)))
    text = f"{mean:+.3f} ± {error:.3f}"
    return f"**{text}**" if mean > 2 * error else text


def format_table(rows: dict[str, dict[str, str]]) -> str:
    """Return a Markdown table of texts by row and column."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    return rounds.markdown_table(
        ["", *columns],
        [[name, *(row.get(column, "") for column in columns)] for name, row in rows.items()],
    )


def tabulate(results: dict, cells: list[str], arms: list[str], reference: str) -> str:
    """Return the tables of all kinds of video, and of paired gains over a reference arm."""
    texts, gains = [], {arm: {} for arm in arms}
    for cell in cells:
        texts.append(f"## {cell}")
        by_arm = {arm: results.get(cell, {}).get(arm, {}) for arm in arms}
        for title, init in (("", ""), ("### Untrained\n\n", UNTRAINED)):
            rows = {}
            for arm, by_seed in filter(operator.itemgetter(1), by_arm.items()):
                values = [models[init] for models in by_seed.values()]
                rows[f"{arm} ({len(values)})"] = {
                    column: format_values([each[column] for each in values])
                    for column in COLUMNS
                    if column in values[0]
                }
            texts.append(f"{title}{format_table(rows)}")
        others = results.get(cell, {}).get(reference, {})
        for arm, column in itertools.product(arms, MOTION):
            pairs = [
                (models[""], others.get(seed, {}).get("", {}))
                for seed, models in by_arm[arm].items()
            ]
            differences = [
                one[column] - other[column]
                for one, other in pairs
                if column in one and column in other
            ]
            gains[arm][f"{cell}, {column}"] = format_gain(differences)
    texts.append(f"## Paired gains over {reference}, ± standard error\n\n{format_table(gains)}")
    return "\n\n".join(texts) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/split"))
    parser.add_argument("--json", type=pathlib.Path, help="results (default: split.json in --out)")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="comma-separated")
    parser.add_argument("--arms", default=",".join(ARMS), help="comma-separated")
    parser.add_argument("--motions", default="travelling,standing", help="see Synthetic")
    parser.add_argument("--drifts", default="0,2,4", help="comma-separated")
    parser.add_argument("--reference", default="detrend", help="the arm that gains are over")
    parser.add_argument("--jobs", type=int, help="runs at a time, as of vrl compare")
    parser.add_argument("--tables", action="store_true", help="run nothing")
    own, overrides = split_arguments(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(own)
    seeds, arms = [int(seed) for seed in args.seeds.split(",")], args.arms.split(",")
    drifts = args.drifts.split(",")
    cells = [Cell(motion, drift) for motion in args.motions.split(",") for drift in drifts]
    runs = list_runs(args.out, cells, arms, seeds, overrides)
    path = args.json or args.out / "split.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    results = stored.get("results", {})
    if stored and stored["overrides"] != overrides and not args.tables:
        sys.exit(f"error: {path} has runs with overrides {stored['overrides']}, got {overrides}")
    failures = []
    if not args.tables:
        missing = [
            run
            for (cell, arm, seed), run in runs.items()
            if seed not in results.get(cell, {}).get(arm, {})
        ]
        try:
            failures = execute_runs(missing, args.jobs)
        finally:  # also where runs were stopped
            update_results(results, runs)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"overrides": overrides, "results": results}, indent=1)
            atomic_files.write_text(path, text + "\n")
    print(tabulate(results, [cell.folder for cell in cells], arms, args.reference))
    if failures:
        sys.exit(describe_failures(failures, len(missing)))


if __name__ == "__main__":
    main()
