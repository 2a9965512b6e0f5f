"""Benchmark of a complete training job: time waiting for data, and cost of the start.

`python benchmarks/whole.py --config=configs/synthetic_bod.py --json=whole.json` takes the flags of
`vrl_jax.main`. Every round runs the job twice, with an empty compilation cache and with the filled
one, and then measures loader and step separately by `vrl_jax.doctor`. Waiting is the fraction of
time in which the step was done before the next batch was ready. Times and rates depend on the
machine; the ratios are the results.
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import statistics
import subprocess
import sys
import tempfile

START = re.compile(r"first step after ([\d.]+) s, including ([\d.]+) s to compile")
RATE = re.compile(r"^(loader|step) +([\d.,]+) ", re.M)


def command(module: str, flags: list[str]) -> list[str]:
    """Return the command that runs a module."""
    return [sys.executable, "-m", module, *flags]


def run_job(flags: list[str], steps: int, cache: pathlib.Path) -> dict[str, float]:
    """Run a job; return the seconds of its start, videos per second and the fraction of waiting."""
    with tempfile.TemporaryDirectory() as folder:
        length = ["--quiet", f"--workdir={folder}", f"--config.train.steps={steps}"]
        cadence = ["--config.train.log_every=5", "--config.train.probe_every=0"]
        done = subprocess.run(
            command("vrl_jax.main", [*flags, *length, *cadence]),
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"the job failed:\n{done.stdout}{done.stderr}")
        records = [json.loads(line) for line in open(f"{folder}/metrics.jsonl")]
    first_step, compiling = map(float, START.search(done.stdout).groups())
    warm = [record for record in records if record["step"] > 5]
    return {
        "first step, s": first_step,
        "compiling, s": compiling,
        "together, videos/s": statistics.median(record["videos_per_second"] for record in warm),
        "waiting for data": statistics.mean(record["waiting_for_data"] for record in warm),
    }


def measure_parts(flags: list[str], steps: int, cache: pathlib.Path) -> dict[str, float]:
    """Return videos per second of the loader and of the step, measured separately."""
    done = subprocess.run(
        command("vrl_jax.doctor", [*flags, f"--steps={steps}"]),
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"the doctor failed:\n{done.stdout}{done.stderr}")
    return {
        f"{name} alone, videos/s": float(rate.replace(",", ""))
        for name, rate in RATE.findall(done.stdout)
    }


def measure(flags: list[str], steps: int, rounds: int) -> list[dict[str, float]]:
    """Return the figures of every round."""
    figures = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cache = pathlib.Path(folder)
            cold, warm = run_job(flags, steps, cache), run_job(flags, steps, cache)
            rates = measure_parts(flags, min(steps, 20), cache)
        figures.append(
            {
                **warm,
                **rates,
                "first step with an empty cache, s": cold["first step, s"],
                "compiling with an empty cache, s": cold["compiling, s"],
                "together / slower alone": warm["together, videos/s"] / min(rates.values()),
                "compiling, kept / empty cache": warm["compiling, s"] / cold["compiling, s"],
            }
        )
    return figures


def tabulate(figures: list[dict[str, float]], command_line: str) -> str:
    """Return the report in Markdown, with medians over rounds."""
    lines = [f"`{command_line}`, {os.cpu_count()} cores", "", "| | median |", "|---|---|"]
    for name in figures[0]:
        value = statistics.median(each[name] for each in figures)
        lines.append(f"| {name} | {value:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Run the jobs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers to this file")
    args, flags = parser.parse_known_args()
    figures = measure(flags, args.steps, args.rounds)
    command_line = shlex.join(["python", *sys.argv])
    print(tabulate(figures, command_line))
    if args.json:
        numbers = {"command": command_line, "cores": os.cpu_count(), "rounds": figures}
        args.json.write_text(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
