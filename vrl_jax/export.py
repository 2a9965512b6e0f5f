"""A folder to give an encoder away: `python -m vrl_jax.export runs/mine --out=mine`.

It has the weights (`encoder.safetensors`), the config of the run (`config.json`, in which paths and
addresses are cut to their last name), a model card (`README.md`) with the recipe and the results of
these weights, and the encoder as programs of `jax.export` for CPU, CUDA and TPU, which run without
this library. The run's own results are in the card; `--results` adds those of evaluations. The
licence is left to you: it is marked in the card. `--config.init=mine`, `vrl embed mine` and every
other command that takes weights read the folder.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export
from jaxtyping import Array

from vrl_jax import config, model_card, pretrained
from vrl_jax.augment.clip_views import center_view
from vrl_jax.data import remote_paths
from vrl_jax.pretrained import EXPORTED, Pretrained
from vrl_jax.report import remote_runs, run_reader
from vrl_jax.report.result_files import Result

PLATFORMS = ("cpu", "cuda", "tpu")


def export_encoder(model: Pretrained, dtype: str, batch: int | None = None) -> export.Exported:
    """Return a program of (arrays by name, clips [b t h w 3]) to features.

    The arrays are those of `EXPORTED`. Clips are RGB with values 0 to 255, as decoded for the run;
    the program cuts the central square and normalises it. Features are "clip" f32[b d] and "frames"
    f32[b t d]. Convolutions that are formulated by platform are native ones.

    Args:
      model: the encoder of a run.
      dtype: of the clips, "uint8" or "float32".
      batch: the number of clips, b; None for any.

    Raises:
      ValueError: the encoder has no program for any number of clips.
    """
    encoder = model.encoder
    if getattr(encoder, "conv", "") == "auto":
        encoder = replace(encoder, conv="native")

    def encode(arrays: dict[str, Array], clips: Array) -> dict[str, Array]:
        variables = {"batch_stats": {}, **unflatten_dict(arrays, sep="/")}
        loaded = replace(model, encoder=encoder, variables=variables)
        features = loaded(center_view(clips, model.augment))
        return {"clip": features.clip, "frames": features.frames}

    size, frames = model.experiment.resize, model.sampling.frames
    arrays = flatten_dict(model.variables, sep="/")
    arrays = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
    rows = batch or export.symbolic_shape("b")[0]
    clips = jax.ShapeDtypeStruct((rows, frames, *size, 3), dtype)
    try:
        with _bare_file_names():
            return export.export(jax.jit(encode), platforms=PLATFORMS)(arrays, clips)
    except Exception as error:  # of any kind, where code of the encoder needs a number
        if batch:
            raise
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{type(encoder).__name__} has no program for any number of clips ({reason}): pass "
            "--batch=N"
        ) from error


@contextlib.contextmanager
def _bare_file_names() -> Iterator[None]:
    """Keep the folders of source files out of programs, which name the line of each operation."""
    name = "jax_hlo_source_file_canonicalization_regex"
    earlier = getattr(jax.config, name)
    jax.config.update(name, ".*/")
    try:
        yield
    finally:
        jax.config.update(name, earlier)


def write_folder(
    out: Path,
    model: Pretrained,
    environment: dict[str, str],
    results: Sequence[Result],
    batch: int | None = None,
) -> None:
    """Write the folder of an encoder, which is complete or absent.

    Args:
      out: the folder, which must not exist.
      model: the encoder of a run.
      environment: software of the run.
      results: of these weights.
      batch: clips per call of the programs; None for any number.

    Raises:
      ValueError: as `export_encoder`.
    """
    partial = out.with_name(f"{out.name}.part")
    partial.mkdir(parents=True, exist_ok=True)
    described = hide_locations(json.loads(config.describe(model.experiment).to_json()))
    (partial / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    pretrained.save(partial / EXPORTED, model)
    for dtype in model_card.DTYPES:
        program = export_encoder(model, dtype, batch)
        (partial / model_card.program_name(dtype)).write_bytes(program.serialize())
    card = model_card.format_card(out.name, model, described, environment, results, batch)
    (partial / "README.md").write_text(card, encoding="utf-8")
    partial.rename(out)


def hide_locations(tree: Any) -> Any:
    """Return a config in which absolute paths and addresses are cut to their last name."""
    if isinstance(tree, dict):
        return {key: hide_locations(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [hide_locations(value) for value in tree]
    located = isinstance(tree, str) and (tree[:1] in ("/", "~") or remote_paths.is_remote(tree))
    return tree.rstrip("/").rpartition("/")[2] if located else tree


def select_results(runs: Sequence[run_reader.Run], weights: str, name: str) -> list[Result]:
    """Return the results of given weights, and of the untrained encoder for comparison.

    Args:
      runs: the run, then evaluations of it.
      weights: hash of the weights.
      name: of the model, which the results get.

    Raises:
      ValueError: an evaluation has no result of these weights.
    """
    selected = []
    for number, run in enumerate(runs):
        own = [result for result in run.results if result.model.get("weights") == weights]
        if number and not own:
            raise ValueError(f"{run.folder} has no result of the weights {weights[:10]}")
        for result in run.results:
            if own and (result in own or result.untrained):
                model = {k: v for k, v in result.model.items() if k != "init" or result.untrained}
                selected.append(replace(result, run=name, model=model))
    return selected


def main(argv: Sequence[str] | None = None) -> None:
    """Write the folder of a run's encoder."""
    parser = argparse.ArgumentParser(prog="vrl export", description=__doc__)
    parser.add_argument("run", help="folder of a run of pretraining")
    parser.add_argument(
        "--out", type=remote_paths.local_path, required=True, help="folder, named as the model"
    )
    parser.add_argument("--step", type=int, help="of the checkpoint (default: the newest)")
    parser.add_argument(
        "--results",
        type=remote_paths.local_path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="of an evaluation of these weights, for the card; repeat it for several",
    )
    parser.add_argument("--batch", type=int, help="clips per call of the programs (default: any)")
    args = parser.parse_args(argv)
    if args.batch is not None and args.batch < 1:
        parser.error(f"--batch must be at least 1, got {args.batch}")
    if args.out.exists():
        parser.error(f"--out must be a new folder, but {args.out} exists")
    with tempfile.TemporaryDirectory() as copies:
        copies = Path(copies).resolve()
        try:
            model = pretrained.load(args.run, args.step)
            if not model.experiment:
                raise ValueError(f"{args.run} is not a run: pass the folder of one of pretraining")
            if remote_runs.is_remote(args.run):
                folder = remote_runs.fetch_folder(args.run, copies)
            else:
                folder = remote_paths.to_path(args.run)
            runs = [run_reader.read_run(path) for path in (folder, *args.results)]
            results = select_results(runs, model.weight_hash(), args.out.name)
            write_folder(args.out, model, runs[0].environment, results, args.batch)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {remote_runs.restore_urls(str(error), copies)}")
    print(f"wrote {args.out} with {len(results)} results; choose a licence in its README.md")


if __name__ == "__main__":
    main()
