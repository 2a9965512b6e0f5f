"""Run several experiments over several seeds; one table and one figure of the probe results.

`python -m vrl_jax.compare configs/synthetic_simclr.py configs/synthetic_bod.py --seeds=0,1,2`
trains every config with every seed, one run after the other, each in its own folder under `--out`.
The same command resumes after an interruption. `--vary=data.cooccurrence=0.125,0.5,0.9,1` repeats
this for every value of a setting. The untrained encoders have a row of their own, in which each
counts once. Arguments after `--` override every config.
"""

import argparse
import collections
import json
import pathlib
import shlex
import signal
import subprocess
import sys

import numpy as np

from vrl_jax import atomic_files
from vrl_jax.report import sweep_figure
from vrl_jax.report.remote_runs import is_remote

UNTRAINED = "untrained"


def run_experiment(config: str, seed: int, workdir: pathlib.Path, overrides: list[str]) -> None:
    """Train, evaluate and report one config with one seed, unless the run is finished.

    If the run fails or is stopped, exit with its status.

    Raises:
      ConfigMismatch: the folder has the run of another command.
    """
    args = [f"--config={config}", f"--config.train.seed={seed}", *overrides]
    command_file, results = workdir / "command.json", any(workdir.glob("results/*.json"))
    finished = results and (workdir / "report.html").exists()  # the report is written last
    earlier = json.loads(command_file.read_text()) if command_file.exists() else []
    if earlier or finished:
        commands = ({"command": shlex.join(line)} for line in (earlier, args))
        atomic_files.check_same_settings(workdir, *commands, "--out")
    if finished:
        return
    print(f"{config}, seed {seed}: {workdir}", flush=True)
    workdir.mkdir(parents=True, exist_ok=True)
    atomic_files.write_text(command_file, json.dumps(args))
    code = wait_for([sys.executable, "-m", "vrl_jax.main", *args, f"--workdir={workdir}"])
    if code:
        sys.exit(code)  # the run has printed the reason


def wait_for(command: list[str]) -> int:
    """Run a command and return its exit status; signals to this process are forwarded to it."""
    child = None

    def forward(number, frame):
        if child is None:
            sys.exit(128 + number)
        child.send_signal(number)

    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        child = subprocess.Popen(command, start_new_session=True)
        code = child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


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


def main(argv: list[str] | None = None) -> None:
    """Run unfinished experiments, print the table, and write it and the figure to `--out`."""
    parser = argparse.ArgumentParser(prog="vrl compare", description=__doc__)
    parser.add_argument("configs", nargs="+", help="config files")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated seeds (default 0,1,2)")
    parser.add_argument("--vary", default="", help="a setting and its values: data.key=1,2,3")
    parser.add_argument("--probe", default="", help="restrict the table to a probe: linear or knn")
    parser.add_argument("--out", default="runs/compare", help="output folder")
    argv = sys.argv[1:] if argv is None else argv
    end = argv.index("--") if "--" in argv else len(argv)
    args, overrides = parser.parse_args(argv[:end]), argv[end + 1 :]
    if is_remote(args.out):
        parser.error(f"--out must be a local folder, got {args.out}")
    out = pathlib.Path(args.out).expanduser()
    try:
        seeds = [int(seed) for seed in args.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds must be integers such as 0,1,2, got {args.seeds!r}")
    setting, _, values = args.vary.partition("=")
    if setting and not values:
        parser.error(f"--vary must be a setting and values such as data.key=1,2, got {setting!r}")

    experiments, rows, untrained = {}, {}, {}
    for value in values.split(","):
        folder = out / f"{setting}={value}" if setting else out
        varied = [f"--config.{setting}={value}"] if setting else []
        all_workdirs = []
        for config in args.configs:
            name = pathlib.Path(config).stem
            workdirs = [folder / f"{name}-seed{seed}" for seed in seeds]
            for seed, workdir in zip(seeds, workdirs, strict=True):
                try:
                    run_experiment(config, seed, workdir, [*varied, *overrides])
                except atomic_files.ConfigMismatch as error:
                    sys.exit(f"error: {error}")
            all_workdirs += workdirs
            experiments.setdefault(name, {})[value] = gather_results(workdirs, args.probe)
            rows[format_label(name, setting, value)] = make_row(workdirs, args.probe)
        baseline = gather_results(all_workdirs, args.probe, UNTRAINED)
        if baseline:
            untrained[value] = baseline
            rows[format_label(UNTRAINED, setting, value)] = make_row(
                all_workdirs, args.probe, UNTRAINED
            )
    if untrained:
        experiments[UNTRAINED] = untrained
    table = format_table(rows)
    atomic_files.write_text(out / "table.md", table + "\n")
    sweep_figure.draw_sweep(out / "plot.png", experiments, setting)
    print(table)


if __name__ == "__main__":
    main()
