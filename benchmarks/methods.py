"""Cost of methods beyond encoding, relative to instance discrimination.

`python benchmarks/methods.py --encoder=r3d-18 --batch=8 --json=methods.json`

Methods differ in the number of clips that they encode, which is most of their cost. Each method is
therefore compared with SimCLR at the same number of encoded clips: HDC, which encodes three clips
per video, on 8 videos with SimCLR on 12. The difference is heads, losses, views and the order of
passes. Every encoder keeps all frames; SDC runs with all of its losses active.

`--rounds=0` compiles and times nothing and compares the operations of the steps as written, also
for large encoders on any machine; a loop counts once.
"""

import argparse
import pathlib
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks import rounds
from benchmarks.jax_step import ENCODERS, compile_runner, make_device_program, make_experiment
from benchmarks.step import Settings
from vrl_jax.experiment import Experiment
from vrl_jax.methods.base import MethodConfig
from vrl_jax.methods.bod import BOD
from vrl_jax.methods.dualvar import DualVar
from vrl_jax.methods.hdc import HDC
from vrl_jax.methods.sdc import SDC
from vrl_jax.pretraining.train_program import Program
from vrl_jax.train import provenance

OUTER, BOTH = "BOD-VCL, upper level", "BOD-VCL, both levels"
METHODS = {
    OUTER: BOD(inner_steps=0),
    "BOD-VCL, upper level with forecast": BOD(inner_steps=0, forecast_weight=1.0),
    "BOD-VCL, upper level, reversed negatives": BOD(inner_steps=0, reversed_negatives=True),
    BOTH: BOD(inner_steps=1),
    "DualVar": DualVar(),
    "HDC": HDC(),
    "SDC": SDC(queue_epochs=0.0, freeze_epochs=0.0, local_epochs=0.0),
}
CPU = {"encoder": "tiny", "batch": 8, "frames": 16, "size": 32, "dtype": "float32"}
GPU = {"encoder": "r2plus1d-18", "batch": 32, "frames": 16, "size": 112, "dtype": "bfloat16"}


class Case(NamedTuple):
    """The compiled step of a method.

    Attributes:
      step: runs one step.
      encoded: clips that it encodes, over all videos, by learner and teacher.
      augmented: views that it augments.
    """

    step: Callable[[], None]
    encoded: int
    augmented: int


def method_experiment(settings: Settings, method: MethodConfig | None) -> Experiment:
    """Return the experiment of a method; None is instance discrimination."""
    stride = {"temporal_stride": 1} if settings.encoder in ("r2plus1d-18", "r3d-18") else {}
    run = make_experiment(settings, method, **stride)
    return replace(run, framework=None) if isinstance(method, HDC | SDC) else run


def compile_case(settings: Settings, method: MethodConfig | None) -> Case:
    """Compile the step of a method."""
    run = method_experiment(settings, method)
    program = make_device_program(run)
    augmented = program.clips.shape[0] * len(program.method.views)
    return Case(partial(compile_runner(program), 1), count_encoded(run, program), augmented)


def count_encoded(run: Experiment, program: Program) -> int:
    """Count the clips that the encoder encodes in a step."""
    encoder_class, clips_encoded = type(run.encoder.module()), 0

    def record(call, args, kwargs, context):
        nonlocal clips_encoded
        if type(context.module) is encoder_class and context.method_name == "__call__":
            clips_encoded += args[0].shape[0]
        return call(*args, **kwargs)

    def losses(train, clips):
        method, key = program.method, jax.random.key(0)
        lower = [method.inner.loss] * method.inner.steps if method.inner else []
        levels = [method.loss, *lower]
        return [level(train.params, train.state, clips, key, train.step) for level in levels]

    side, views = run.augment.size, len(program.method.views)
    shape = (run.train.batch, views, run.sampling.frames, side, side, 3)
    with nn.intercept_methods(record):
        jax.eval_shape(losses, program.state, jax.ShapeDtypeStruct(shape, jnp.float32))
    return clips_encoded


def compare_flop(
    settings: Settings, methods: dict[str, MethodConfig]
) -> dict[str, dict[str, float]]:
    """Return the FLOP of every step, and of SimCLR's step that encodes as many clips."""
    counts, plain = {}, {}
    for name, method in methods.items():
        run = method_experiment(settings, method)
        program = make_device_program(run)
        clips = count_encoded(run, program)
        if clips not in plain:
            simclr = method_experiment(replace(settings, batch=clips // 2), None)
            plain[clips] = count_flop(make_device_program(simclr))
        flop = count_flop(program)
        counts[name] = {"flop": flop, "plain_flop": plain[clips], "ratio": flop / plain[clips]}
    return counts


def count_flop(program: Program) -> float:
    """Return the arithmetic operations of a step as written."""
    return program.step.lower().cost_analysis()["flops"]


def tabulate_flop(settings: Settings, counts: dict[str, dict[str, float]]) -> str:
    """Return the report of operations in Markdown."""
    rows = [
        [
            name,
            *(f"{each[key] / 1e12:.3f}" for key in ("flop", "plain_flop")),
            f"{each['ratio']:.3f}",
        ]
        for name, each in counts.items()
    ]
    header = ["", "TFLOP per step", "TFLOP of SimCLR, as many clips", "ratio"]
    return f"{describe_settings(settings)}\n\n{rounds.markdown_table(header, rows)}"


def describe_settings(settings: Settings) -> str:
    """Return the settings that all steps share."""
    s = settings
    return (
        f"{s.encoder} keeping all frames, {s.dtype}, {s.batch} videos, views of {s.frames} x "
        f"{s.size} x {s.size}, on {jax.devices()[0].device_kind}"
    )


def measure(settings: Settings, turns: int, methods: dict[str, MethodConfig]) -> dict[str, Any]:
    """Return the seconds of every step, and of SimCLR's that encodes as many clips, by round."""
    cases = {name: compile_case(settings, method) for name, method in methods.items()}
    plain = {}
    for case in cases.values():
        videos = case.encoded // 2
        if case.encoded not in plain:
            plain[case.encoded] = compile_case(replace(settings, batch=videos), None).step
    steps = {**{name: case.step for name, case in cases.items()}, **plain}
    seconds = rounds.interleave(steps, turns, settings.steps)
    return {
        name: {
            "encoded": case.encoded,
            "drawn": case.augmented,
            "seconds": seconds[name],
            "plain_seconds": seconds[case.encoded],
            "ratio": rounds.ratios(seconds[name], seconds[case.encoded]),
        }
        for name, case in cases.items()
    }


def tabulate(settings: Settings, timings: dict[str, Any]) -> str:
    """Return the report of times in Markdown."""
    s = settings
    rows = [
        [
            name,
            f"{each['encoded'] / s.batch:g}",
            f"{each['drawn'] / s.batch:g}",
            rounds.format_spread([1e3 * x for x in each["seconds"]], ".1f"),
            rounds.format_spread([1e3 * x for x in each["plain_seconds"]], ".1f"),
            rounds.format_spread(each["ratio"]),
        ]
        for name, each in timings.items()
    ]
    header = ["", "encoded per video", "augmented", "ms per step", "ms of SimCLR, as many", "ratio"]
    lines = [describe_settings(settings), "", rounds.markdown_table(header, rows)]
    if OUTER in timings and BOTH in timings:
        ratios = rounds.ratios(timings[BOTH]["seconds"], timings[OUTER]["seconds"])
        more = rounds.format_spread([x - 1 for x in ratios])
        lines += ["", f"BOD-VCL's lower level adds {more} of its upper level's time."]
    return "\n".join(lines)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments; defaults depend on the device."""
    defaults = CPU if jax.default_backend() == "cpu" else GPU
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", choices=tuple(ENCODERS), default=defaults["encoder"])
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=defaults["dtype"])
    parser.add_argument("--batch", type=int, default=defaults["batch"], help="videos, even")
    parser.add_argument("--frames", type=int, default=defaults["frames"])
    parser.add_argument("--size", type=int, default=defaults["size"])
    parser.add_argument("--steps", type=int, default=5, help="steps per round")
    parser.add_argument("--rounds", type=int, default=5, help="0 compares operations")
    parser.add_argument("--only", choices=tuple(METHODS), help="a single method (default: all)")
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers to this file")
    arguments = parser.parse_args(argv)
    if arguments.batch % 2:
        parser.error(f"--batch must be even, for SimCLR with as many clips, got {arguments.batch}")
    return arguments


def main() -> None:
    """Compile all steps, time them in rounds, and print the table."""
    arguments = vars(parse_args())
    turns, path, only = (arguments.pop(name) for name in ("rounds", "json", "only"))
    settings = Settings(**arguments)
    methods = {only: METHODS[only]} if only else METHODS
    compare = partial(measure, turns=turns) if turns else compare_flop
    results = compare(settings, methods=methods)
    numbers = {"settings": asdict(settings), "methods": results}
    numbers["environment"] = provenance.describe_environment()
    rounds.publish((tabulate if turns else tabulate_flop)(settings, results), numbers, path)


if __name__ == "__main__":
    main()
