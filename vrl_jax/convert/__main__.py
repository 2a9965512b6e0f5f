"""Encoders from PyTorch and back: `python -m vrl_jax.convert r3d_18.pth --out=r3d_18.safetensors`.

The source is a file of weights with torchvision's, pytorchvideo's, DualVar's or SDC's names (see
`vrl_jax.convert.names`), also as a part of a checkpoint; a run's folder; or a file that this
command wrote. Without `--to` the result is our `.safetensors` file, which `pretrained.load` reads;
`--to=torchvision --out=x.pth` (or `.safetensors`) writes what `load_state_dict` takes. Weights do
not say what input they were trained on: where it is not what is printed, give it.
"""

import argparse
import collections
import sys
from dataclasses import replace

from vrl_jax.convert import files
from vrl_jax.convert.names import FAMILIES
from vrl_jax.data import storage
from vrl_jax.pretrained import Pretrained


def main(argv: list[str] | None = None) -> None:
    """Read, write, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m vrl_jax.convert", description=__doc__)
    parser.add_argument(
        "source", type=storage.local_path, help="a file of weights, or a run's folder"
    )
    parser.add_argument("--out", type=storage.local_path, required=True, help="the file to write")
    parser.add_argument("--to", choices=("ours", *FAMILIES), default="ours", help="whose names")
    parser.add_argument("--prefix", help="of the names, where the file has several encoders")
    parser.add_argument("--step", type=int, help="of the run's checkpoints (default: the newest)")
    parser.add_argument("--size", type=int, help="side of the input that the weights expect")
    parser.add_argument("--mean", type=_channels, help="its mean, as 0.45,0.45,0.45")
    parser.add_argument("--std", type=_channels, help="its standard deviation")
    arguments = parser.parse_args(argv)
    given = {name: getattr(arguments, name) for name in ("size", "mean", "std")}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.out.resolve() == arguments.source.resolve():
        parser.error(f"--out is the source, {arguments.source}: write another file")
    if given and arguments.to != "ours":
        parser.error(f"{arguments.to}'s files do not say their input: leave out {', '.join(given)}")
    try:
        found, left_out = files.read_weights(arguments.source, arguments.prefix, arguments.step)
        found = replace(found, augment=replace(found.augment, **given))
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        files.write_weights(arguments.out, found, arguments.to)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(format_summary(found, left_out))
    print(f"wrote {arguments.out}")
    if arguments.to != "ours" and getattr(found.encoder, "temporal_stride", 2) != 2:
        print(f"note: {arguments.to}'s network halves time three times, this encoder does not")


def format_summary(found: Pretrained, left_out: list[str]) -> str:
    """Return what was read, in lines for people."""
    augment = found.augment
    counts = collections.Counter(".".join(name.split(".")[:2]) for name in left_out)
    lines = [
        f"encoder   {found.encoder}, {found.parameters():,} parameters",
        f"input     {augment.size} x {augment.size}, mean {augment.mean}, std {augment.std}",
        *(f"{name:9} {value}" for name, value in found.origin.items()),
        f"weights   {found.weights()}",
        f"left out  {', '.join(f'{name} ({n})' for name, n in counts.items()) or 'nothing'}",
    ]
    return "\n".join(lines)


def _channels(text: str) -> tuple[float, ...]:
    values = tuple(map(float, text.split(",")))
    if len(values) != 3:
        raise argparse.ArgumentTypeError(f"three numbers, as 0.45,0.45,0.45; got {text!r}")
    return values


if __name__ == "__main__":
    main()
