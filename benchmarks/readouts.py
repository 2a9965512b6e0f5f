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
import pathlib
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from benchmarks import rounds
from vrl_jax import pretrained
from vrl_jax.data.data_loader import Loader, eval_batches
from vrl_jax.data.video_dataset import VideoDataset, label_array
from vrl_jax.encoders.layers import pool_to_grid, pool_to_segments
from vrl_jax.evaluation.encode_videos import compile_encoder, pad_rows
from vrl_jax.experiment import Experiment
from vrl_jax.factors.pixel_baselines import ordered_motion_pixels
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes.linear_probe import fit_probe, leave_one_group_out
from vrl_jax.probes.result_files import chance_level

SEGMENTS = 6
SIDES = 32, 16, 8, 4, 2, 1  # of the grid that frame differences are averaged over
GRID = 4  # of features
BATCH = 16  # clips per call of the encoder

Clips = UInt8[np.ndarray, "n t h w 3"]
Rows = Float[np.ndarray, "n d"]


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


def center(clips: Clips) -> UInt8[np.ndarray, "n t s s 3"]:
    """Return the central square."""
    side = min(clips.shape[2:4])
    top, left = ((length - side) // 2 for length in clips.shape[2:4])
    return clips[:, :, top : top + side, left : left + side]


def encode_cells(model: Pretrained, clips: Clips) -> Float[np.ndarray, "n t cells d"]:
    """Return the last feature map, averaged over a grid."""
    encode = compile_encoder(model, lambda features: pool_to_grid(features, GRID))
    starts = range(0, len(clips), BATCH)
    batches = [pad_rows(clips[start : start + BATCH], BATCH) for start in starts]
    cells = np.concatenate([encode(batch) for batch in batches])[: len(clips)]
    return cells.reshape(*cells.shape[:2], GRID**2, -1)


def measure_pixels(probe: Probe) -> Iterator[tuple[str, float]]:
    """Return the accuracies on frame differences, by what is left of them."""
    clips = [part.clips for part in probe.parts]
    squares = [center(each) for each in clips]

    def score(clips: list[Clips], segments: int, side: int, mask=None) -> float:
        return probe.score([ordered_motion_pixels(x, segments, side) for x in clips], mask)

    ordered, fine = f"in {SEGMENTS} segments", SIDES[0]
    height, width = probe.experiment.resize
    yield (
        f"whole frames of {height} x {width}, {fine} x {fine} cells, {ordered}",
        score(clips, SEGMENTS, fine),
    )
    for side in SIDES:
        name = f"central square, {side} x {side} cells, {ordered}"
        yield name, score(squares, SEGMENTS, side)
    for side in (fine, GRID):
        name = f"central square, {side} x {side} cells, mean over time"
        yield name, score(squares, 1, side)
    if not probe.experiment.evaluate.group:
        labels = probe.parts[0].labels
        half = np.zeros(len(labels), bool)
        half[np.argsort(labels, kind="stable")[::2]] = True  # of every class
        name = f"central square, {fine} x {fine} cells, {ordered}, half of the training clips"
        yield name, score(squares, SEGMENTS, fine, half)


def measure_features(probe: Probe, model: Pretrained) -> dict[str, float]:
    """Return the accuracies on the last feature map of an encoder, by what is left of it."""
    cells = [encode_cells(model, part.clips) for part in probe.parts]
    places = {
        f"{GRID} x {GRID} cells": [x.reshape(*x.shape[:2], -1) for x in cells],
        "mean over space": [x.mean(2) for x in cells],
    }
    values = {}
    for place, maps in places.items():
        changes = [np.abs(np.diff(x, axis=1)) for x in maps]
        for name, frames in ((place, maps), (f"changes, {place}", changes)):
            for segments, time in ((SEGMENTS, f"{SEGMENTS} segments"), (1, "mean over time")):
                rows = [np.asarray(pool_to_segments(jnp.asarray(x), segments)) for x in frames]
                values[f"{name}, {time}"] = probe.score(rows)
    return values


def tabulate(probe: Probe, pixels: dict[str, float], features: dict[str, dict[str, float]]) -> str:
    """Return the tables of frame differences and of features."""
    labels = probe.parts[-1].labels
    columns = list(features["untrained"])
    return "\n\n".join(
        [
            f"{probe.label}: {len(labels)} test clips, "
            f"most frequent class {chance_level(labels):.3f}",
            rounds.markdown_table(
                ["absolute frame differences", probe.label],
                [[name, f"{value:.3f}"] for name, value in pixels.items()],
            ),
            rounds.markdown_table(
                ["last feature map", *columns],
                [[name, *(f"{row[c]:.3f}" for c in columns)] for name, row in features.items()],
            ),
        ]
    )


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", help="folders of finished runs on the same data")
    parser.add_argument("--json", type=pathlib.Path, help="file to write the results to")
    args = parser.parse_args()
    experiment = pretrained.load_experiment(args.runs[0])
    probe = open_probe(experiment)
    pixels = dict(measure_pixels(probe))
    untrained = pretrained.init_untrained(
        experiment.encoder, experiment.augment, experiment.sampling.frames
    )
    features = {"untrained": measure_features(probe, untrained)}
    for run in args.runs:
        features[pathlib.Path(run).name] = measure_features(probe, pretrained.load(run))
    numbers = {"label": probe.label, "frame differences": pixels, "features": features}
    rounds.publish(tabulate(probe, pixels, features), numbers, args.json)


if __name__ == "__main__":
    main()
