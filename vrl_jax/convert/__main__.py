"""Conversion of weights: `python -m vrl_jax.convert r3d_18.pth --out=r3d_18.safetensors`.

The source is a weight file with the parameter names of torchvision, pytorchvideo, DualVar or SDC
(see `weight_layouts`), or of VideoMAE, V-JEPA 2, VideoPrism, ViViT, TimeSformer, 4DS or RVM (see
`transformer_layouts`), also inside a checkpoint; a folder of `transformers` with `config.json` and
weights; the folder of a run; or a file written by this command. By default the result is a
`.safetensors` file for `pretrained.load`; `--to=torchvision --out=x.pth` (or `.safetensors`) writes
a state dict for `load_state_dict`. Weight files do not record the input that they were trained on:
correct the printed default with `--size`, `--mean`, `--std`, `--frames`, `--stride` and `--fps`.
"""

import argparse
import collections
import sys
from dataclasses import replace

from vrl_jax.convert import weight_files
from vrl_jax.convert.weight_layouts import FAMILIES
from vrl_jax.data import remote_paths
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.pretrained import Pretrained


def main(argv: list[str] | None = None) -> None:
    """Convert, and print a summary."""
    parser = argparse.ArgumentParser(prog="vrl convert", description=__doc__)
    parser.add_argument(
        "source", type=remote_paths.local_path, help="weight file, or folder of a model or run"
    )
    parser.add_argument("--out", type=remote_paths.local_path, required=True, help="file to write")
    parser.add_argument("--to", choices=("ours", *FAMILIES), default="ours", help="names to write")
    parser.add_argument("--prefix", help="of the encoder's names, if a file holds several")
    parser.add_argument("--step", type=int, help="of the run's checkpoint (default: the newest)")
    parser.add_argument("--size", type=int, help="side of the input in training, in pixels")
    parser.add_argument("--mean", type=_channels, help="mean of that input, as 0.45,0.45,0.45")
    parser.add_argument("--std", type=_channels, help="its standard deviation, likewise")
    parser.add_argument("--frames", type=int, help="in a clip of that input")
    parser.add_argument("--stride", type=int, help="from frame to frame, likewise")
    parser.add_argument("--fps", type=float, help="that the stride counts at; 0: the video's own")
    args = parser.parse_args(argv)
    options = {name: value for name, value in vars(args).items() if value is not None}
    inputs = {name: options[name] for name in ("size", "mean", "std") if name in options}
    clips = {name: options[name] for name in ("frames", "stride", "fps") if name in options}
    if args.out.resolve() == args.source.resolve():
        parser.error(f"--out must be another file than the source, got {args.out}")
    if (inputs or clips) and args.to != "ours":
        flags = ", ".join(f"--{name}" for name in (*inputs, *clips))
        parser.error(f"files of {args.to} do not record their input: drop {flags}")
    try:
        encoder, unused = weight_files.read_weights(args.source, args.prefix, args.step)
        encoder = replace(encoder, augment=replace(encoder.augment, **inputs))
        if clips:
            sampling = replace(encoder.sampling or Sampling(), **clips)
            encoder = replace(encoder, sampling=sampling)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        weight_files.write_weights(args.out, encoder, args.to)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(format_summary(encoder, unused))
    print(f"wrote {args.out}")
    if args.to != "ours" and getattr(encoder.encoder, "temporal_stride", 2) != 2:
        print(f"note: the network of {args.to} has a temporal stride of 8, this encoder has not")


def format_summary(encoder: Pretrained, unused: list[str]) -> str:
    """Return a summary of the encoder that was read, one line per property."""
    augment = encoder.augment
    counts = collections.Counter(".".join(name.split(".")[:2]) for name in unused)
    clips = encoder.sampling
    rate = clips and (f"{clips.fps:g} fps" if clips.fps else "the video's own rate")
    lines = [
        f"encoder   {encoder.encoder}, {encoder.count_parameters():,} parameters",
        f"input     {augment.size} x {augment.size}, mean {augment.mean}, std {augment.std}",
        f"clips     {clips.frames} frames, {clips.layout}, stride {clips.stride} at {rate}"
        if clips
        else "clips     unknown",
        *(f"{name:9} {value}" for name, value in encoder.origin.items()),
        f"weights   {encoder.weight_hash()}",
        f"not used  {', '.join(f'{name} ({n})' for name, n in counts.items()) or 'nothing'}",
    ]
    return "\n".join(lines)


def _channels(text: str) -> tuple[float, ...]:
    values = tuple(map(float, text.split(",")))
    if len(values) != 3:
        raise argparse.ArgumentTypeError(f"must be three numbers, as 0.45,0.45,0.45, got {text!r}")
    return values


if __name__ == "__main__":
    main()
