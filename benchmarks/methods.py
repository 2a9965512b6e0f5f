"""What a method costs beyond encoding: its step, over that of plain instance discrimination.

`python benchmarks/methods.py --encoder=r3d-18 --batch=8 --json=methods.json`

Methods differ in how many clips they encode, and that is most of their cost. So each is compared
with SimCLR on two views of as many videos as make the same number of encoded clips: HDC, which
encodes three clips a video, on 8 videos with SimCLR on 12. What is left is heads, losses, views and
the order of passes. Every encoder keeps all frames; SDC runs with all its losses begun.

`--rounds=0` compiles and times nothing and compares operations, as the steps are written, which
tells about large encoders on any machine; a loop counts once.
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
from benchmarks.jax_step import ENCODERS, experiment, program_of, runner
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
    """A method's step, and what it is compared with.

    Attributes:
      step: takes one step.
      encoded: clips that it encodes, of all videos, by learner and teacher.
      drawn: views that it augments.
    """

    step: Callable[[], None]
    encoded: int
    drawn: int


def planned(settings: Settings, method: MethodConfig | None) -> Experiment:
    """Return the run of a method; None is plain instance discrimination."""
    whole = {"temporal_stride": 1} if settings.encoder in ("r2plus1d-18", "r3d-18") else {}
    run = experiment(settings, method, **whole)
    return replace(run, framework=None) if isinstance(method, HDC | SDC) else run


def prepare(settings: Settings, method: MethodConfig | None) -> Case:
    """Compile the step of a method."""
    run = planned(settings, method)
    program = program_of(run)
    drawn = program.clips.shape[0] * len(program.method.views)
    return Case(partial(runner(program), 1), encoded(run, program), drawn)


def encoded(run: Experiment, program: Program) -> int:
    """Count the clips that go through the encoder in a step."""
    kind, seen = type(run.encoder.module()), 0

    def watch(call, arguments, given, context):
        nonlocal seen
        if type(context.module) is kind and context.method_name == "__call__":
            seen += arguments[0].shape[0]
        return call(*arguments, **given)

    def losses(train, clips):
        method, key = program.method, jax.random.key(0)
        lower = [method.inner.loss] * method.inner.steps if method.inner else []
        levels = [method.loss, *lower]
        return [level(train.params, train.state, clips, key, train.step) for level in levels]

    side, views = run.augment.size, len(program.method.views)
    shape = (run.train.batch, views, run.sampling.frames, side, side, 3)
    with nn.intercept_methods(watch):
        jax.eval_shape(losses, program.state, jax.ShapeDtypeStruct(shape, jnp.float32))
    return seen


def count(settings: Settings, methods: dict[str, MethodConfig]) -> dict[str, dict[str, float]]:
    """Return the operations of every step, and of the plain one that encodes as many clips."""
    found, plain = {}, {}
    for name, method in methods.items():
        run = planned(settings, method)
        program = program_of(run)
        clips = encoded(run, program)
        if clips not in plain:
            fewer = planned(replace(settings, batch=clips // 2), None)
            plain[clips] = operations(program_of(fewer))
        own = operations(program)
        found[name] = {"flop": own, "plain_flop": plain[clips], "ratio": own / plain[clips]}
    return found


def operations(program: Program) -> float:
    """Return the arithmetic operations of a step as it is written."""
    return program.step.lower().cost_analysis()["flops"]


def tell(settings: Settings, found: dict[str, dict[str, float]]) -> str:
    """Return the Markdown that tells of operations."""
    rows = [
        [
            name,
            *(f"{each[key] / 1e12:.3f}" for key in ("flop", "plain_flop")),
            f"{each['ratio']:.3f}",
        ]
        for name, each in found.items()
    ]
    header = ["", "TFLOP a step", "TFLOP of SimCLR, as many clips", "ratio"]
    return f"{described(settings)}\n\n{rounds.table(header, rows)}"


def described(settings: Settings) -> str:
    """Return what all steps have in common."""
    s = settings
    return (
        f"{s.encoder} keeping all frames, {s.dtype}, {s.batch} videos, views of {s.frames} x "
        f"{s.size} x {s.size}, on {jax.devices()[0].device_kind}"
    )


def measure(settings: Settings, turns: int, methods: dict[str, MethodConfig]) -> dict[str, Any]:
    """Return the seconds of every step and, by clips encoded, of the plain ones, by round."""
    cases = {name: prepare(settings, method) for name, method in methods.items()}
    plain = {}
    for case in cases.values():
        videos = case.encoded // 2
        if case.encoded not in plain:
            plain[case.encoded] = prepare(replace(settings, batch=videos), None).step
    steps = {**{name: case.step for name, case in cases.items()}, **plain}
    taken = rounds.interleave(steps, turns, settings.steps)
    return {
        name: {
            "encoded": case.encoded,
            "drawn": case.drawn,
            "seconds": taken[name],
            "plain_seconds": taken[case.encoded],
            "ratio": rounds.ratios(taken[name], taken[case.encoded]),
        }
        for name, case in cases.items()
    }


def tabulate(settings: Settings, found: dict[str, Any]) -> str:
    """Return the Markdown that tells a run."""
    s = settings
    rows = [
        [
            name,
            f"{each['encoded'] / s.batch:g}",
            f"{each['drawn'] / s.batch:g}",
            rounds.spread([1e3 * x for x in each["seconds"]], ".1f"),
            rounds.spread([1e3 * x for x in each["plain_seconds"]], ".1f"),
            rounds.spread(each["ratio"]),
        ]
        for name, each in found.items()
    ]
    header = ["", "encoded a video", "augmented", "ms a step", "ms of SimCLR, as many", "ratio"]
    lines = [described(settings), "", rounds.table(header, rows)]
    if OUTER in found and BOTH in found:
        share = rounds.ratios(found[BOTH]["seconds"], found[OUTER]["seconds"])
        more = rounds.spread([x - 1 for x in share])
        lines += ["", f"BOD-VCL's lower level adds {more} of its upper level's time."]
    return "\n".join(lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments; what was not given depends on the device."""
    defaults = CPU if jax.default_backend() == "cpu" else GPU
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", choices=tuple(ENCODERS), default=defaults["encoder"])
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=defaults["dtype"])
    parser.add_argument("--batch", type=int, default=defaults["batch"], help="videos, even")
    parser.add_argument("--frames", type=int, default=defaults["frames"])
    parser.add_argument("--size", type=int, default=defaults["size"])
    parser.add_argument("--steps", type=int, default=5, help="timed in a round")
    parser.add_argument("--rounds", type=int, default=5, help="0 counts operations")
    parser.add_argument("--only", choices=tuple(METHODS), help="of the methods (default: all)")
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers here")
    arguments = parser.parse_args(argv)
    if arguments.batch % 2:
        parser.error(f"--batch must be even, so that SimCLR has as many clips: {arguments.batch}")
    return arguments


def main() -> None:
    """Compile all steps, time them in rounds, print the table."""
    arguments = vars(parse())
    turns, path, only = (arguments.pop(name) for name in ("rounds", "json", "only"))
    settings = Settings(**arguments)
    methods = {only: METHODS[only]} if only else METHODS
    found = measure(settings, turns, methods) if turns else count(settings, methods)
    numbers = {"settings": asdict(settings), "methods": found}
    numbers["environment"] = provenance.describe_environment()
    rounds.publish((tabulate if turns else tell)(settings, found), numbers, path)


if __name__ == "__main__":
    main()
