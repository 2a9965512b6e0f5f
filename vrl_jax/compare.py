"""Several experiments over several seeds, as one table and one picture of what probes found.

`python -m vrl_jax.compare configs/synthetic_simclr.py configs/synthetic_bod.py --seeds=0,1,2`
trains every config with every seed, one after the other, each in its own folder under `--out`;
run again it continues where it was interrupted. `--vary=data.cooccurrence=0.125,0.5,0.9,1` does so
for every value of a setting. The encoders as they were before training make a row of their own,
each counted once. What follows `--` overrides every config.
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

from vrl_jax import files
from vrl_jax.report import sweep
from vrl_jax.report.storage import is_remote

UNTRAINED = "untrained"


def run_experiment(config: str, seed: int, workdir: pathlib.Path, overrides: list[str]) -> None:
    """Train, judge and report one config with one seed, unless that is done already.

    A run that fails or stops ends the comparison with its exit status.

    Raises:
      ConfigMismatch: the folder holds the run of another command.
    """
    given = [f"--config={config}", f"--config.train.seed={seed}", *overrides]
    kept, results = workdir / "command.json", any(workdir.glob("results/*.json"))
    finished = results and (workdir / "report.html").exists()  # which is written last
    earlier = json.loads(kept.read_text()) if kept.exists() else []
    if earlier or finished:
        commands = ({"command": shlex.join(line)} for line in (earlier, given))
        files.check_same_settings(workdir, *commands, "--out")
    if finished:
        return
    print(f"{config}, seed {seed}: {workdir}", flush=True)
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_text(kept, json.dumps(given))
    code = wait_for([sys.executable, "-m", "vrl_jax.main", *given, f"--workdir={workdir}"])
    if code:
        sys.exit(code)  # the run has said why


def wait_for(command: list[str]) -> int:
    """Run a command and return its exit status; it is told of what asks this process to end."""
    child = None

    def tell(number, frame):
        if child is None:
            sys.exit(128 + number)
        child.send_signal(number)

    numbers = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    before = {number: signal.signal(number, tell) for number in numbers}
    try:
        child = subprocess.Popen(command, start_new_session=True)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def gather_results(
    workdirs: list[pathlib.Path], probe: str = "", init: str = "", key: str = "value"
) -> dict[str, list[float]]:
    """Return the single-number results of some runs, by probe and label.

    Args:
      workdirs: their folders.
      probe: all of them, or this one alone.
      init: "" for the trained encoders, `UNTRAINED` for what they were before, each once.
      key: "value"; or "std", the spread within a result over its groups or splits, if it has some.
    """
    found = collections.defaultdict(dict)
    for workdir in workdirs:
        for path in sorted(workdir.glob("results/*.json")):
            result = json.loads(path.read_text())
            model = result.get("model", {})
            wanted = probe in ("", result["name"]) and model.get("init", "") == init
            if wanted and key in result:
                column = f"{result['name']} {result['label']}"
                found[column][model["weights"] if init else path] = result[key]
    return {column: list(values.values()) for column, values in found.items()}


def make_row(workdirs: list[pathlib.Path], probe: str, init: str = "") -> dict[str, list[float]]:
    """Return the results, and beside each what it varies by within itself, where it does."""
    within = gather_results(workdirs, probe, init, "std")
    return gather_results(workdirs, probe, init) | {
        f"{c}, std within": v for c, v in within.items()
    }


def format_label(name: str, setting: str, value: str) -> str:
    """Return what a row of the table is called."""
    return f"{name}, {setting}={value}" if setting else name


def format_table(rows: dict[str, dict[str, list[float]]]) -> str:
    """Return a Markdown table: a row an experiment, mean and standard deviation over seeds."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        cells = [
            f"{np.mean(row[c]):.3f} ± {np.std(row[c]):.3f}" if c in row else "" for c in columns
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, print the table and keep it and the picture under `--out`."""
    parser = argparse.ArgumentParser(prog="python -m vrl_jax.compare", description=__doc__)
    parser.add_argument("configs", nargs="+", help="config files")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated seeds (default 0,1,2)")
    parser.add_argument("--vary", default="", help="a setting and its values: data.key=1,2,3")
    parser.add_argument("--probe", default="", help="show this one alone: linear or knn")
    parser.add_argument("--out", default="runs/compare")
    given = sys.argv[1:] if argv is None else argv
    cut = given.index("--") if "--" in given else len(given)
    arguments, overrides = parser.parse_args(given[:cut]), given[cut + 1 :]
    if is_remote(arguments.out):
        parser.error(f"--out must be a folder on this machine, got {arguments.out}")
    out = pathlib.Path(arguments.out)
    try:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds wants whole numbers, as 0,1,2; got {arguments.seeds!r}")
    setting, _, values = arguments.vary.partition("=")
    if setting and not values:
        parser.error(f"--vary wants a setting and its values, as data.key=1,2; got {setting!r}")

    experiments, rows, untrained = {}, {}, {}
    for value in values.split(","):
        folder = out / f"{setting}={value}" if setting else out
        varied = [f"--config.{setting}={value}"] if setting else []
        everything = []
        for config in arguments.configs:
            name = pathlib.Path(config).stem
            workdirs = [folder / f"{name}-seed{seed}" for seed in seeds]
            for seed, workdir in zip(seeds, workdirs, strict=True):
                try:
                    run_experiment(config, seed, workdir, [*varied, *overrides])
                except files.ConfigMismatch as error:
                    sys.exit(f"error: {error}")
            everything += workdirs
            experiments.setdefault(name, {})[value] = gather_results(workdirs, arguments.probe)
            rows[format_label(name, setting, value)] = make_row(workdirs, arguments.probe)
        before = gather_results(everything, arguments.probe, UNTRAINED)
        if before:
            untrained[value] = before
            rows[format_label(UNTRAINED, setting, value)] = make_row(
                everything, arguments.probe, UNTRAINED
            )
    if untrained:
        experiments[UNTRAINED] = untrained
    table = format_table(rows)
    files.write_text(out / "table.md", table + "\n")
    sweep.draw_sweep(out / "plot.png", experiments, setting)
    print(table)


if __name__ == "__main__":
    main()
