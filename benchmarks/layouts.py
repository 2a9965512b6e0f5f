"""Memory, traffic and layouts of training steps on a GPU, by formulation of the convolutions.

`python benchmarks/layouts.py --topology=h100 --json=benchmarks/results/layouts.json`

Every step is compiled for a GPU that need not be there (`pip install -e '.[preflight]'`), which
takes minutes. The table says what the compiler lays out how; it measures no time. With names of
steps, only these are compiled, and the file keeps the others.
"""

import argparse
import dataclasses
import json
import pathlib
from typing import Any

import jax

from benchmarks import rounds
from benchmarks.jax_step import make_experiment
from benchmarks.step import Settings
from configs import k400_bod, k400_sdc, k400_simclr
from vrl_jax import config
from vrl_jax.encoders.s3d import S3D
from vrl_jax.experiment import Experiment
from vrl_jax.preflight import compile_step
from vrl_jax.profiling.compile_targets import compile_devices
from vrl_jax.profiling.device_specs import find_chip
from vrl_jax.train.sharding import make_mesh

VIDEOS = 8
R3D_18 = Settings("r3d-18", dtype="bfloat16", batch=VIDEOS, frames=16, size=112)


def list_steps() -> dict[str, tuple[Experiment, tuple[str, ...]]]:
    """Return the steps, with the formulations to compare."""
    bod, sdc, simclr = (
        config.build(file.get_config()) for file in (k400_bod, k400_sdc, k400_simclr)
    )
    s3d = dataclasses.replace(simclr, encoder=S3D(dtype="bfloat16"))
    return {
        "k400_simclr, SlowOnly-R50": (simclr, ("native", "planar")),
        "k400_bod, R(2+1)D-18": (bod, ("native", "planar")),
        "k400_sdc, R(2+1)D-10": (sdc, ("native", "planar")),
        "k400_simclr, S3D": (s3d, ("native", "planar")),
        "SimCLR, R3D-18": (make_experiment(R3D_18), ("native", "per_tap")),
    }


def compile_layouts(experiment: Experiment, formulation: str, topology: str) -> dict[str, Any]:
    """Return the figures of a step of `VIDEOS` videos on the first device of a topology."""
    train = dataclasses.replace(experiment.train, batch=VIDEOS)
    encoder = dataclasses.replace(experiment.encoder, conv=formulation)
    experiment = dataclasses.replace(experiment, train=train, encoder=encoder)
    mesh = make_mesh(compile_devices(topology)[:1])
    report = compile_step(experiment, mesh, 1000, find_chip(mesh.devices.flat[0].device_kind))
    return dataclasses.asdict(report)


def tabulate(figures: dict[str, dict[str, Any]]) -> str:
    """Return the table in Markdown; `figures` are reports by step and formulation."""
    header = ("step", "conv", "channels-last", "channels-first", "transposes", "temporaries")
    rows = []
    for step, by_formulation in figures.items():
        for formulation, report in by_formulation.items():
            costs, layouts = report["costs"], report["costs"]["layouts"]
            rows.append([
                step, formulation,
                str(sum(layouts["channels_last"].values())),
                _count_first(layouts["channels_first"]),
                f"{layouts['transposes']}, {layouts['transposed'] / 1e6:,.0f} MB",
                f"{report['memory']['temporaries'] / 2**30:.2f} GiB",
                f"{costs['traffic'] / 1e9:.1f} GB",
                f"{costs['flops'] / 1e12:.2f} TFLOP",
            ])  # fmt: skip
    return rounds.markdown_table([*header, "traffic", "operations"], rows)


def _count_first(by_extent: dict[str, int]) -> str:
    """Return the number of convolutions, and of those whose kernel is not over time and space."""
    extents = {extent: extent.split("x") for extent in by_extent}
    flat = sum(by_extent[k] for k, sides in extents.items() if len(sides) < 3 or "1" in sides)
    return f"{sum(by_extent.values())} ({flat} factorised)"


def main() -> None:
    """Compile the steps and print the table after each."""
    steps = list_steps()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", help="by default all")
    parser.add_argument("--topology", default="h100", help="as of vrl_jax.preflight")
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers to this file")
    args = parser.parse_args()
    if unknown := set(args.steps) - set(steps):
        parser.error(f"steps must be among {', '.join(map(repr, steps))}, got {unknown}")
    jax.config.update("jax_enable_compilation_cache", False)
    stored = args.json and args.steps and args.json.exists()
    figures = json.loads(args.json.read_text())["steps"] if stored else {}
    for name in args.steps or steps:
        experiment, formulations = steps[name]
        figures[name] = {}
        for each in formulations:
            figures[name][each] = compile_layouts(experiment, each, args.topology)
            ordered = {name: figures[name] for name in steps if name in figures}
            report = f"{VIDEOS} videos per step, bfloat16, {args.topology}\n\n{tabulate(ordered)}"
            rounds.publish(report, {"topology": args.topology, "steps": ordered}, args.json)


if __name__ == "__main__":
    main()
