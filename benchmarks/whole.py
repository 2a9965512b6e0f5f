"""A training job as a whole: does its step wait for data, and what does its start cost?

`python benchmarks/whole.py --config=configs/synthetic_bod.py --json=whole.json` takes the flags of
`vrl_jax.main`. Every round runs the job twice, with an empty compilation cache and with the one
that it left, and then measures loader and step apart by `vrl_jax.doctor`. Waiting is the share
of the time for which the step was done before the next batch was there. Times and rates are this
machine's; the claims are the ratios.
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
    """Return the command line of a module."""
    return [sys.executable, "-m", module, *flags]


def job(flags: list[str], steps: int, cache: pathlib.Path) -> dict[str, float]:
    """Run a job of so many steps; return its start in seconds, videos a second and waiting."""
    with tempfile.TemporaryDirectory() as folder:
        last = ["--quiet", f"--workdir={folder}", f"--config.train.steps={steps}"]
        cadence = ["--config.train.log_every=5", "--config.train.probe_every=0"]
        done = subprocess.run(
            command("vrl_jax.main", [*flags, *last, *cadence]),
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"the job failed:\n{done.stdout}{done.stderr}")
        records = [json.loads(line) for line in open(f"{folder}/metrics.jsonl")]
    whole, compiling = map(float, START.search(done.stdout).groups())
    settled = [record for record in records if record["step"] > 5]
    return {
        "first step, s": whole,
        "compiling, s": compiling,
        "together, videos/s": statistics.median(record["videos_per_second"] for record in settled),
        "waiting for data": statistics.mean(record["waiting_for_data"] for record in settled),
    }


def apart(flags: list[str], steps: int, cache: pathlib.Path) -> dict[str, float]:
    """Return videos a second of the loader alone and of the step alone."""
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
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            cache = pathlib.Path(folder)
            cold, warm = job(flags, steps, cache), job(flags, steps, cache)
            rates = apart(flags, min(steps, 20), cache)
        found.append(
            {
                **warm,
                **rates,
                "first step with an empty cache, s": cold["first step, s"],
                "compiling with an empty cache, s": cold["compiling, s"],
                "together / slower alone": warm["together, videos/s"] / min(rates.values()),
                "compiling, kept / empty cache": warm["compiling, s"] / cold["compiling, s"],
            }
        )
    return found


def report(found: list[dict[str, float]], told: str) -> str:
    """Return the Markdown that tells a run: medians over rounds."""
    lines = [f"`{told}`, {os.cpu_count()} cores", "", "| | median |", "|---|---|"]
    for name in found[0]:
        value = statistics.median(each[name] for each in found)
        lines.append(f"| {name} | {value:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Run the jobs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers here")
    given, flags = parser.parse_known_args()
    found = measure(flags, given.steps, given.rounds)
    told = shlex.join(["python", *sys.argv])
    print(report(found, told))
    if given.json:
        numbers = {"command": told, "cores": os.cpu_count(), "rounds": found}
        given.json.write_text(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
