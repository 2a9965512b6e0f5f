"""What a linear probe reads from pixels and from features, as more is left out of them.

`python benchmarks/readouts.py runs/egogestar/*` takes data, clips, label and probe from the first
run, and fits that probe to descriptors of the same clips. The first are absolute frame differences
in six segments in order: of whole frames, of the square that the encoder sees, on ever coarser
grids, averaged over time, and from half of the training clips. The others are the last feature map
of the encoder without training and of every run, and its absolute changes from frame to frame: on a
grid in order, averaged over space, over time, and over both. It prints the tables of
`docs/split.md`.
"""

import argparse
import json
import pathlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from benchmarks import rounds
from vrl_jax import atomic_files, pretrained
from vrl_jax.data.data_loader import Loader, eval_batches
from vrl_jax.data.video_dataset import VideoDataset, label_array
from vrl_jax.encoders.layers import average_bins, pool_to_grid, pool_to_segments
from vrl_jax.evaluation.encode_videos import compile_encoder
from vrl_jax.experiment import Experiment
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes.linear_probe import fit_probe, leave_one_group_out
from vrl_jax.probes.result_files import chance_level

SEGMENTS = 6
SIDES = 32, 16, 8, 4, 2, 1  # of the grid that frame differences are averaged over
GRID = 4  # of features
BATCH = 16  # clips per call of the encoder

Clips = UInt8[np.ndarray, "n t h w 3"]
Rows = Float[np.ndarray, "n d"]
Describe = Callable[[Clips], Rows]


class Part(NamedTuple):
    """Clips with the label to predict and the groups to hold out together."""

    clips: Clips
    labels: Int[np.ndarray, "n"]
    groups: Int[np.ndarray, "n"] | None


class Probe(NamedTuple):
    """The linear probe of an experiment on its data.

    Attributes:
      experiment: its settings.
      label: the label to predict.
      classes: of the label.
      parts: training and test videos; only the latter where groups are left out.
    """

    experiment: Experiment
    label: str
    classes: int
    parts: tuple[Part, ...]

    def measure(self, describe: Describe, mask: Bool[np.ndarray, "n"] | None = None) -> float:
        """Return the test accuracy on a descriptor of clips, from the training videos of a mask."""
        return self.score([describe(part.clips) for part in self.parts], mask)

    def score(self, rows: list[Rows], mask: Bool[np.ndarray, "n"] | None = None) -> float:
        """Return the test accuracy on the rows of each part."""
        evaluate, groups = self.experiment.evaluate, self.parts[0].groups
        data = [(row, part.labels) for row, part in zip(rows, self.parts, strict=True)]
        options = {"num_classes": self.classes, "settings": evaluate.linear}
        if evaluate.group:
            return leave_one_group_out(*data[0], groups, **options).accuracy
        return fit_probe(*data[0], *data[1], groups=groups, mask=mask, **options).accuracy


def open_probe(experiment: Experiment) -> Probe:
    """Read the clips of an experiment's training and test videos."""
    evaluate, data = experiment.evaluate, experiment.data
    held_out = evaluate.group or evaluate.cluster
    sources = [data.test()] if evaluate.group else [data.train(), data.test()]
    label = next(name for name in sources[0].classes if name != held_out)
    sampling = replace(experiment.sampling, clips=1)

    def read(source: VideoDataset) -> Part:
        batches = eval_batches(
            source, sampling, experiment.resize, batch=BATCH, loader=Loader(workers=0)
        )
        clips = np.concatenate([batch["clips"][:, 0] for batch in batches])
        groups = label_array(source, held_out) if held_out else None
        return Part(clips, label_array(source, label), groups)

    return Probe(experiment, label, len(sources[0].classes[label]), tuple(map(read, sources)))


def shrink(images: Float[np.ndarray, "n t h w"], side: int) -> Float[np.ndarray, "n t d"]:
    """Average over a grid of `side` x `side` cells, and flatten."""
    rows, columns = (np.asarray(average_bins(length, side)) for length in images.shape[2:])
    return (rows @ images @ columns.T).reshape(*images.shape[:2], -1)


def center(images: Float[np.ndarray, "n t h w"]) -> Float[np.ndarray, "n t s s"]:
    """Return the central square."""
    side = min(images.shape[2:])
    top, left = ((length - side) // 2 for length in images.shape[2:])
    return images[:, :, top : top + side, left : left + side]


def describe_changes(side: int, segments: int, whole: bool = False) -> Describe:
    """Return a descriptor: mean absolute differences of grey frames in segments, on a grid.

    Args:
      side: of the grid.
      segments: of the clip.
      whole: describe whole frames, not their central squares.
    """

    def describe(clips: Clips) -> Rows:
        grey = clips.astype(np.float32).mean(-1)
        changes = np.abs(np.diff(grey if whole else center(grey), axis=1))
        return np.asarray(pool_to_segments(jnp.asarray(shrink(changes, side)), segments))

    return describe


def encode_cells(model: Pretrained, clips: Clips) -> Float[np.ndarray, "n t cells d"]:
    """Return the last feature map, averaged over a grid."""
    encode = compile_encoder(model, lambda features: pool_to_grid(features, GRID))
    fill = np.zeros((-len(clips) % BATCH, *clips.shape[1:]), clips.dtype)
    batches = np.split(np.concatenate([clips, fill]), (len(clips) + len(fill)) // BATCH)
    cells = np.concatenate([encode(batch) for batch in batches])[: len(clips)]
    return cells.reshape(*cells.shape[:2], GRID**2, -1)


def measure_pixels(probe: Probe) -> Iterator[tuple[str, float]]:
    """Return the accuracies on frame differences, by what is left of them."""
    ordered, size = f"in {SEGMENTS} segments", probe.experiment.resize
    yield (
        f"whole frames of {size[0]} x {size[1]}, 32 x 32 cells, {ordered}",
        probe.measure(describe_changes(SIDES[0], SEGMENTS, whole=True)),
    )
    for side in SIDES:
        yield (
            f"central square, {side} x {side} cells, {ordered}",
            probe.measure(describe_changes(side, SEGMENTS)),
        )
    for side in (SIDES[0], GRID):
        yield (
            f"central square, {side} x {side} cells, mean over time",
            probe.measure(describe_changes(side, 1)),
        )
    if not probe.experiment.evaluate.group:
        labels = probe.parts[0].labels
        half = np.zeros(len(labels), bool)
        half[np.argsort(labels, kind="stable")[::2]] = True  # of every class
        yield (
            f"central square, {SIDES[0]} x {SIDES[0]} cells, {ordered}, half of the training clips",
            probe.measure(describe_changes(SIDES[0], SEGMENTS), half),
        )


def measure_features(probe: Probe, model: Pretrained) -> dict[str, float]:
    """Return the accuracies on the last feature map of an encoder, by what is left of it."""
    maps = [encode_cells(model, part.clips) for part in probe.parts]
    values = {}
    for space, cells in ((f"{GRID} x {GRID} cells", GRID**2), ("mean over space", 1)):
        frames = [x if cells > 1 else x.mean(2, keepdims=True) for x in maps]
        changes = [np.abs(np.diff(x, axis=1)) for x in frames]
        for kind, rows in (("", frames), ("changes, ", changes)):
            for segments, time in ((SEGMENTS, f"{SEGMENTS} segments"), (1, "mean over time")):
                flat = [x.reshape(*x.shape[:2], -1) for x in rows]
                pooled = [np.asarray(pool_to_segments(jnp.asarray(x), segments)) for x in flat]
                values[f"{kind}{space}, {time}"] = probe.score(pooled)
    return values


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", help="folders of finished runs on the same data")
    parser.add_argument("--json", type=pathlib.Path, help="file to write the results to")
    args = parser.parse_args()
    experiment = pretrained.load_experiment(args.runs[0])
    probe = open_probe(experiment)
    test = probe.parts[-1]
    pixels = dict(measure_pixels(probe))
    blank = pretrained.init_untrained(
        experiment.encoder, experiment.augment, experiment.sampling.frames
    )
    features = {"untrained": measure_features(probe, blank)}
    for run in args.runs:
        features[pathlib.Path(run).name] = measure_features(probe, pretrained.load(run))
    chance = chance_level(test.labels)
    print(f"{probe.label}: {len(test.labels)} test clips, most frequent class {chance:.3f}\n")
    print(rounds.markdown_table(["frame differences", probe.label], _format(pixels)))
    columns = list(features["untrained"])
    rows = [[name, *(f"{row[column]:.3f}" for column in columns)] for name, row in features.items()]
    print("\n" + rounds.markdown_table(["last feature map", *columns], rows))
    if args.json:
        record = {
            **rounds.describe_machine(),
            "label": probe.label,
            "chance": chance,
            "data": type(experiment.data).__name__,
            "frame differences": pixels,
            "features": features,
        }
        atomic_files.write_text(args.json, json.dumps(record, indent=1) + "\n")


def _format(accuracies: dict[str, float]) -> list[list[str]]:
    return [[name, f"{value:.3f}"] for name, value in accuracies.items()]


if __name__ == "__main__":
    main()
