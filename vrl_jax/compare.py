"""Run several experiments over several seeds; one table and one figure of the probe results.

`python -m vrl_jax.compare configs/synthetic_simclr.py configs/synthetic_bod.py --seeds=0,1,2`
trains every config with every seed, one run after the other, each in its own folder under `--out`.
The same command resumes after an interruption. `--vary=data.cooccurrence=0.125,0.5,0.9,1` repeats
this for every value of a setting. The untrained encoders have a row of their own, in which each
counts once. Arguments after `--` override every config.

`--jobs=4` runs four at a time, each with a fourth of the GPUs, or on a CPU with all of its cores. A
run that fails does not end the others; failures are listed at the end, and the exit status is 1.
It is 143 after SIGTERM or Ctrl-C, when every run has saved.
"""

import argparse
import collections
import functools
import json
import pathlib
import re
import shlex
import sys
from typing import NamedTuple

import numpy as np

from vrl_jax import atomic_files, run_queue
from vrl_jax.config_file import split_arguments
from vrl_jax.report import sweep_figure
from vrl_jax.report.remote_runs import is_remote
from vrl_jax.run_queue import Command, Failure

UNTRAINED = "untrained"


class Run(NamedTuple):
    """One run of a comparison.

    Attributes:
      config: its file.
      seed: of the run.
      value: of the varied setting; "" if none varies.
      name: of the config's runs.
      workdir: its folder.
      overrides: flags of `vrl_jax.main` that follow config and seed.
    """

    config: str
    seed: int
    value: str
    name: str
    workdir: pathlib.Path
    overrides: list[str]


def is_finished(workdir: pathlib.Path) -> bool:
    """Return whether a run has results and its report, which is written last.

    The folder of the results is empty where no video has labels.
    """
    return (workdir / "results").is_dir() and (workdir / "report.html").exists()


def prepare_run(
    config: str, seed: int, workdir: pathlib.Path, overrides: list[str]
) -> Command | None:
    """Return the command that trains, evaluates and reports one config with one seed.

    It is None where the run is finished. The folder is made, and keeps the command.

    Raises:
      ConfigMismatch: the folder has the run of another command.
    """
    args = [f"--config={config}", f"--config.train.seed={seed}", *overrides]
    command_file, finished = workdir / "command.json", is_finished(workdir)
    earlier = json.loads(command_file.read_text()) if command_file.exists() else []
    if earlier or finished:
        commands = ({"command": shlex.join(line)} for line in (earlier, args))
        atomic_files.check_same_settings(workdir, *commands, "--out")
    if finished:
        return None
    workdir.mkdir(parents=True, exist_ok=True)
    atomic_files.write_text(command_file, json.dumps(args))
    run = [sys.executable, "-m", "vrl_jax.main", *args, f"--workdir={workdir}"]
    return Command(run, workdir)


def gather_results(
    workdirs: list[pathlib.Path], probe: str = "", init: str = "", key: str = "value"
) -> dict[str, list[float]]:
    """Return the scalar results of several runs by probe and label.

    Args:
      workdirs: folders of the runs.
      probe: a single probe; "" for all.
      init: "" for the trained encoders, `UNTRAINED` for the untrained ones, each counted once.
      key: "value", or "std" for the standard deviation over the groups or splits of a result.
    """
    columns = collections.defaultdict(dict)
    for workdir in workdirs:
        for path in sorted(workdir.glob("results/*.json")):
            result = json.loads(path.read_text())
            model = result.get("model", {})
            selected = probe in ("", result["name"]) and model.get("init", "") == init
            if selected and key in result:
                column = f"{result['name']} {result['label']}"
                columns[column][model["weights"] if init else path] = result[key]
    return {column: list(values.values()) for column, values in columns.items()}


def make_row(workdirs: list[pathlib.Path], probe: str, init: str = "") -> dict[str, list[float]]:
    """Return the results and, where available, the standard deviations within a result."""
    deviations = gather_results(workdirs, probe, init, "std")
    return gather_results(workdirs, probe, init) | {
        f"{column}, std within": values for column, values in deviations.items()
    }


def config_name(config: str) -> str:
    """Return the name of a config's runs: that of its file, with its argument.

    >>> config_name("configs/jhmdb.py:hdc")
    'jhmdb-hdc'
    """
    path, _, argument = config.partition(":")
    return "-".join(filter(None, (pathlib.Path(path).stem, argument.replace("/", "-"))))


def format_label(name: str, setting: str, value: str) -> str:
    """Return the label of a row of the table."""
    return f"{name}, {setting}={value}" if setting else name


def format_table(rows: dict[str, dict[str, list[float]]]) -> str:
    """Return a Markdown table of mean ± standard deviation over seeds, one row per experiment."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [
            f"{np.mean(row[c]):.3f} ± {np.std(row[c]):.3f}" if c in row else "" for c in columns
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def list_runs(args: argparse.Namespace, overrides: list[str]) -> list[Run]:
    """Return the runs of a comparison, in the order of values, configs and seeds."""
    setting, _, values = args.vary.partition("=")
    runs = []
    for value in dict.fromkeys(values.split(",")):
        folder = args.out / f"{setting}={value}" if setting else args.out
        varied = [f"--config.{setting}={value}"] if setting else []
        for config in dict.fromkeys(args.configs):
            name = config_name(config)
            for seed in dict.fromkeys(args.seeds):
                workdir = folder / f"{name}-seed{seed}"
                runs.append(Run(config, seed, value, name, workdir, [*varied, *overrides]))
    return runs


def execute_runs(runs: list[Run], jobs: int | None) -> list[Failure]:
    """Run what is unfinished, and return the failures; exit with 143 if runs were stopped.

    Args:
      runs: the runs.
      jobs: runs at a time, whose output is logged; None prints the output of one at a time.
    """
    try:
        prepared = [prepare_run(run.config, run.seed, run.workdir, run.overrides) for run in runs]
        commands = [command for command in prepared if command]
        if not commands:
            return []
        environments = run_queue.device_shares(jobs or 1)
    except ValueError as error:
        sys.exit(f"error: {error}")
    report = functools.partial(print, flush=True)
    shared = len(environments) > 1 and not environments[0]
    report(
        f"{len(commands)} of {len(runs)} runs are unfinished"
        + f"; {jobs} at a time share all cores" * shared
    )
    failures, stopped = run_queue.run_commands(commands, environments, bool(jobs), report)
    if stopped:
        print("stopped; the same command continues", file=sys.stderr)
        sys.exit(run_queue.TERMINATED)
    return failures


def describe_failures(failures: list[Failure], count: int) -> str:
    """Return what to say about failures of `count` runs."""
    lines = [f"{failure.folder}: {failure.reason}" for failure in failures]
    first = f"error: {len(failures)} of {count} runs failed; the same command tries them again"
    return "\n".join([first, *lines])


def write_tables(runs: list[Run], args: argparse.Namespace) -> str:
    """Write the table and the figure of the finished runs to `--out`; return the table."""
    setting = args.vary.partition("=")[0]
    experiments, rows, untrained = {}, {}, {}
    for value in dict.fromkeys(run.value for run in runs):
        group = [run for run in runs if run.value == value]
        for name in dict.fromkeys(run.name for run in group):
            members = [run.workdir for run in group if run.name == name]
            workdirs = list(filter(is_finished, members))
            experiments.setdefault(name, {})[value] = gather_results(workdirs, args.probe)
            label = format_label(name, setting, value)
            if len(workdirs) < len(members):
                label += f" ({len(workdirs)} of {len(members)} runs)"
            rows[label] = make_row(workdirs, args.probe)
        workdirs = [run.workdir for run in group if is_finished(run.workdir)]
        baseline = gather_results(workdirs, args.probe, UNTRAINED)
        if baseline:
            untrained[value] = baseline
            rows[format_label(UNTRAINED, setting, value)] = make_row(
                workdirs, args.probe, UNTRAINED
            )
    if untrained:
        experiments[UNTRAINED] = untrained
    table = format_table(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    atomic_files.write_text(args.out / "table.md", table + "\n")
    sweep_figure.draw_sweep(args.out / "plot.png", experiments, setting)
    return table


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the checked arguments before "--" and the overrides after it."""
    parser = argparse.ArgumentParser(prog="vrl compare", description=__doc__)
    parser.add_argument("configs", nargs="+", help="config files")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated seeds (default 0,1,2)")
    parser.add_argument("--vary", default="", help="a setting and its values: data.key=1,2,3")
    parser.add_argument("--probe", default="", help="restrict the table to a probe: linear or knn")
    parser.add_argument("--out", default="runs/compare", help="output folder")
    parser.add_argument(
        "--jobs", type=int, help=f"runs at a time, each with its {run_queue.LOG} and its GPUs"
    )
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--share", default="", help="run the I-th of N parts of the runs, from 0: I/N; no table"
    )
    part.add_argument("--table", action="store_true", help="tabulate finished runs, run nothing")
    own, overrides = split_arguments(argv)
    args = parser.parse_args(own)
    if is_remote(args.out):
        parser.error(f"--out must be a local folder, got {args.out}")
    args.out = pathlib.Path(args.out).expanduser()
    try:
        args.seeds = [int(seed) for seed in args.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds must be integers such as 0,1,2, got {args.seeds!r}")
    setting, _, values = args.vary.partition("=")
    if setting and not values:
        parser.error(f"--vary must be a setting and values such as data.key=1,2, got {setting!r}")
    if args.jobs is not None and args.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {args.jobs}")
    share = re.fullmatch(r"(\d+)/(\d+)", args.share or "0/1")
    if not share or int(share[1]) >= int(share[2]):
        parser.error(f"--share must be I/N with I from 0 to N - 1, got {args.share!r}")
    args.part, args.parts = int(share[1]), int(share[2])
    return args, overrides


def main(argv: list[str] | None = None) -> None:
    """Run unfinished experiments, print the table, and write it and the figure to `--out`."""
    args, overrides = parse_arguments(sys.argv[1:] if argv is None else argv)
    runs = list_runs(args, overrides)
    selected = runs[args.part :: args.parts]
    failures = [] if args.table else execute_runs(selected, args.jobs)
    if args.share:
        print(f"share {args.share} has ended; --table in place of --share writes the table")
    else:
        print(write_tables(runs, args))
    if failures:
        sys.exit(describe_failures(failures, len(selected)))


if __name__ == "__main__":
    main()
