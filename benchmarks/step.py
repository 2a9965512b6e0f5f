"""Speed of the pretraining step relative to the same step in PyTorch and to the device.

`python benchmarks/step.py --encoder=r2plus1d-18 --json=step.json` times complete steps: views of u8
clips (two per video), encoder, projection head, NT-Xent (or MoCo's teacher and queue), gradient and
optimiser. Each side runs in its own process, `jax_step.py` and `torch_step.py`, which ends with its
turn; turns alternate. PyTorch runs compiled, with channels last, autocast if `--dtype=bfloat16`,
and a fused optimiser. `--conv=planar,native`, the default on a GPU, times our step in both
formulations of its convolutions; `native-nhwc` is native with XLA's flag that keeps 3-D
convolutions channels-last as well.

A clip is one view that the learner encodes. Model FLOP are two per multiply-add of the encoder,
three times for forward and backward, and once more if a teacher encodes. The rate of the device is
the higher of both sides' rates on a product of 8192 x 8192 bfloat16 matrices.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks import rounds

SIDES = {"ours": "jax_step.py", "PyTorch": "torch_step.py"}
CONVS = ("auto", "native", "planar", "per_tap", "native-nhwc")
NHWC = "--xla_gpu_force_conv_nhwc=true"
ENCODERS = ("r2plus1d-18", "r3d-18", "slowonly-50")
WARM = 2  # untimed steps; the first compiles
MEMORY = re.compile(r"out of memory|RESOURCE_EXHAUSTED", re.IGNORECASE)
CPU = {"batch": 4, "frames": 8, "size": 64, "steps": 2, "dtype": "float32", "conv": ["auto"]}
GPU = {
    "batch": 0, "frames": 16, "size": 112, "steps": 20, "dtype": "bfloat16",
    "conv": ["planar", "native"],
}  # fmt: skip

Turn = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Settings of a step, for both sides.

    Attributes:
      encoder: one of `ENCODERS`.
      framework: "simclr" or "moco".
      optim: "sgd" (with Nesterov momentum) or "adamw".
      dtype: of the computation of the encoder.
      batch: videos per step.
      frames: frames per clip.
      size: side of a view; frames are decoded at 128 x 171 for 112, and in proportion.
      steps: timed steps per turn.
      compile: whether PyTorch compiles.
      conv: formulation of our convolutions, one of `CONVS`.
    """

    encoder: str = "r2plus1d-18"
    framework: str = "simclr"
    optim: str = "sgd"
    dtype: str = "float32"
    batch: int = 4
    frames: int = 8
    size: int = 64
    steps: int = 2
    compile: bool = True
    conv: str = "auto"

    @property
    def resize(self) -> tuple[int, int]:
        """Height and width of the decoded frames."""
        return round(self.size * 128 / 112), round(self.size * 171 / 112)


def run_turn(side: str, settings: Settings) -> Turn:
    """Time one side in its own process.

    Raises:
      MemoryError: the device runs out of memory.
      RuntimeError: the process fails otherwise.
    """
    script, environment = SIDES[side.partition(",")[0]], dict(os.environ)
    if settings.conv == "native-nhwc":
        settings = replace(settings, conv="native")
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {NHWC}"
    done = subprocess.run(
        [sys.executable, pathlib.Path(__file__).with_name(script), json.dumps(asdict(settings))],
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode and MEMORY.search(done.stderr):
        raise MemoryError(f"{side}: a batch of {settings.batch} does not fit")
    if done.returncode:
        raise RuntimeError(f"{side} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def find_largest_batch(
    side: str, settings: Settings, turn: Callable[[str, Settings], Turn] = run_turn
) -> int:
    """Return the largest power of two of videos that fits into memory.

    Raises:
      MemoryError: two videos do not fit.
    """
    batch = 2
    turn(side, replace(settings, batch=batch, steps=1))
    while True:
        try:
            turn(side, replace(settings, batch=2 * batch, steps=1))
        except MemoryError:
            return batch
        batch *= 2


def list_sides(settings: Settings, convs: list[str]) -> dict[str, Settings]:
    """Return the settings of every side: ours with each formulation, and PyTorch."""
    name = "ours" if len(convs) == 1 else "ours, {}"
    ours = {name.format(conv): replace(settings, conv=conv) for conv in convs}
    return ours | {"PyTorch": settings}


def check_equal(turns: dict[str, list[Turn]]) -> None:
    """Raise `ValueError` unless all sides had the same device, augmentation and parameters."""
    torch = turns["PyTorch"][0]
    for side, (turn, *_) in turns.items():
        for name in ("device", "augmentation", "parameters"):
            if turn[name] != torch[name]:
                raise ValueError(f"{name} differ: {turn[name]} in {side}, {torch[name]} in PyTorch")


def summarize(settings: Settings, turns: dict[str, list[Turn]]) -> dict[str, Any]:
    """Return clips and FLOP per second by round, their ratios, and the rate of the device."""
    clips = {side: [2 * settings.batch / t["seconds"] for t in turns[side]] for side in turns}
    rates = [t["matmul_flops"] for side in turns for t in turns[side] if t["matmul_flops"]]
    ours = [side for side in turns if side != "PyTorch"]
    cost = turns[ours[0]][0]["flop_per_clip"]
    return {
        "clips_per_second": clips,
        "ratio": {side: rounds.ratios(clips[side], clips["PyTorch"]) for side in ours},
        "flop_per_clip": cost,
        "flops": {side: [cost * rate for rate in clips[side]] for side in turns},
        "matmul_flops": max(rates, default=None),
    }


def tabulate(settings: Settings, turns: dict[str, list[Turn]], summary: dict[str, Any]) -> str:
    """Return the report in Markdown."""
    s, one, peak = settings, turns["PyTorch"][0], summary["matmul_flops"]
    rows = []
    for side in turns:
        flops = statistics.median(summary["flops"][side])
        share = f"{flops / peak:.1%}" if peak else "not measured"
        clips = rounds.format_spread(summary["clips_per_second"][side], ".1f")
        rows.append([side, clips, f"{flops / 1e12:.3f}", share])
    lines = [
        f"{s.encoder}, {s.framework}, {s.optim}, {s.dtype}, {s.batch} videos x 2 views of "
        f"{s.frames} x {s.size} x {s.size}, {one['parameters']:,} parameters, on {one['device']}; "
        f"{summary['flop_per_clip'] / 1e9:.1f} GFLOP per clip; PyTorch "
        + ("compiled" if s.compile else "not compiled"),
        "",
        rounds.markdown_table(["", "clips/s", "model TFLOP/s", "of the matrix rate"], rows),
        "",
    ]
    for side, ratio in summary["ratio"].items():
        spread = rounds.format_spread(ratio)
        lines.append(f"{side} / PyTorch: {spread}, median of {len(ratio)} rounds")
    return "\n".join([*lines, *([f"matrix rate: {peak / 1e12:.0f} TFLOP/s"] if peak else [])])


def find_backend() -> str:
    """Return JAX's default backend, from a separate process, since a process keeps its GPU."""
    code = "import jax; print(jax.default_backend())"
    return subprocess.check_output([sys.executable, "-c", code], text=True).split()[-1]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments; defaults depend on the device."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", choices=ENCODERS, default=ENCODERS[0])
    parser.add_argument("--framework", choices=("simclr", "moco"), default="simclr")
    parser.add_argument("--optim", choices=("sgd", "adamw"), default="sgd")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"))
    parser.add_argument("--batch", type=int, help="videos; 0 selects the largest that fits (GPU)")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--steps", type=int, help="timed steps per turn")
    parser.add_argument(
        "--conv", type=lambda text: text.split(","), help=f"formulations among {', '.join(CONVS)}"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers to this file")
    arguments = parser.parse_args(argv)
    device = find_backend()
    for name, value in (CPU if device == "cpu" else GPU).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if unknown := set(arguments.conv) - set(CONVS):
        parser.error(f"--conv must be among {', '.join(CONVS)}, got {', '.join(sorted(unknown))}")
    if device == "cpu" and not arguments.batch:
        parser.error("--batch must be at least 1 on CPU, got 0, which fills the memory of a GPU")
    return arguments


def main() -> None:
    """Determine the batch size, run turns, and print the table."""
    arguments = vars(parse_args())
    count, path, convs = (arguments.pop(name) for name in ("rounds", "json", "conv"))
    settings = Settings(**arguments)
    with tempfile.TemporaryDirectory() as cache:
        for name, folder in (
            ("JAX_COMPILATION_CACHE_DIR", "xla"),
            ("TORCHINDUCTOR_CACHE_DIR", "i"),
        ):
            os.environ.setdefault(name, os.path.join(cache, folder))
        fits = {}
        if not settings.batch:
            sides = list_sides(settings, convs).items()
            fits = {side: find_largest_batch(side, each) for side, each in sides}
            settings = replace(settings, batch=min(fits.values()))
        sides = list_sides(settings, convs)
        turns = {side: [] for side in sides}
        for _ in range(count):
            for side, each in sides.items():
                turns[side].append(run_turn(side, each))
            check_equal(turns)
    summary = summarize(settings, turns)
    report = tabulate(settings, turns, summary)
    if fits:
        report += "\nlargest batch that fits: " + ", ".join(f"{k} {v}" for k, v in fits.items())
    numbers = {"settings": asdict(settings), **summary, "turns": turns, "largest_batch": fits}
    numbers["sides"] = {side: asdict(each) for side, each in sides.items()}
    rounds.publish(report, numbers, path)


if __name__ == "__main__":
    main()
