"""Size of the training step before compilation, by part, and the time to compile it.

`python benchmarks/compilation.py --config=configs/k400_bod.py --compile` takes the flags of
`vrl_jax.preflight`, such as `--topology=v5e:2x2`, which selects the compiler. Without `--compile`
it counts operations only.

An operation belongs to the innermost scope in `PARTS` that its name contains. The body of a loop
counts once, a function at each call, because the compiler inlines calls. Times are processor time,
which depends less on what else the machine does. They include the assembler of GPU programs, a
process of its own.
"""

import collections
import os
import re
import sys

from absl import flags

from vrl_jax.flags import config_from_flags, launch
from vrl_jax.preflight import count_videos, resolve_convolutions, target_from_flags
from vrl_jax.pretraining.train_program import make_program
from vrl_jax.profiling.hlo_program import CONTROL, Instruction, parse_program

_COMPILE = flags.DEFINE_boolean("compile", False, "Compile the step as well, and time it.")

PARTS = ("augment", "encoder", "koopman", "hypergradient", "lower", "loss", "optimizer", "update")
FREE = ("parameter", "constant", "tuple", "get-tuple-element")  # no operation in any compiler
_NAME = re.compile(r'op_name="([^"]*)"')
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")


def count_operations(text: str) -> collections.Counter[str]:
    """Return the number of operations of each part of a program, "" for those in no part.

    Args:
      text: of the program before optimisation, `jax.stages.Lowered.as_text("hlo",
        debug_info=True)`.
    """
    program, count = parse_program(text), collections.Counter()

    def add(computation: str, caller: str) -> None:
        for instruction in program.computations[computation]:
            part = _part(instruction) or caller
            if instruction.opcode in CONTROL:
                conditions = _CONDITION.findall(instruction.attributes)
                for called in (*instruction.called, *conditions):
                    add(called, part)
            count[part] += instruction.opcode not in (*FREE, "call")

    add(program.entry, "")
    return count


def _part(instruction: Instruction) -> str:
    name = _NAME.search(instruction.attributes)
    scopes = re.split(r"[/()]", name[1]) if name else []
    return next((scope for scope in reversed(scopes) if scope in PARTS), "")


def processor_time() -> float:
    """Return the processor time of this process and of those that it started, in seconds."""
    return sum(os.times()[:4])


def main() -> None:
    """Print the operations by part, and the times."""
    try:
        experiment, mesh = target_from_flags(config_from_flags())
        experiment = resolve_convolutions(experiment, mesh.devices.flat[0].platform)
        start = processor_time()
        step = make_program(experiment, count_videos(experiment), mesh).step.lower()
    except ValueError as error:
        sys.exit(f"error: {error}")
    lowered = processor_time()
    count = count_operations(step.as_text("hlo", debug_info=True))
    print(f"`{' '.join(['python', *sys.argv])}`\n\n| part | operations |\n|---|---|")
    for part, operations in count.most_common():
        print(f"| {part or 'elsewhere'} | {operations:,} |")
    print(f"| all | {count.total():,} |\n\nTraced and lowered in {lowered - start:.1f} s.")
    if _COMPILE.value:
        start = processor_time()
        step.compile()
        print(f"Compiled in {processor_time() - start:.1f} s.")


if __name__ == "__main__":
    launch(main)
