"""Contact sheet of the augmented views of a config as the network sees them.

`python -m vrl_jax.browse --config=configs/synthetic_bod.py --out=views.png` takes the flags of
`vrl_jax.main`. Each band shows a video, and each of its columns a decoded clip above the views made
from it, with the random numbers of training step `--step`. Change `--config.train.seed` for other
views.
"""

import contextlib
import dataclasses
import pathlib
import sys
import textwrap
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from absl import flags
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vrl_jax import check
from vrl_jax.augment.clip_views import Augment, make_views
from vrl_jax.data import remote_paths
from vrl_jax.data.data_loader import failed_videos, train_batches
from vrl_jax.data.video_dataset import Video, VideoDataset, VideoError
from vrl_jax.experiment import Experiment
from vrl_jax.flags import CONFIG, config_from_flags, launch
from vrl_jax.methods.base import Method
from vrl_jax.pretraining.pretraining_run import check_mirror
from vrl_jax.report import svg_plots
from vrl_jax.train.train_step import view_keys
from vrl_jax.types import View

_OUT = flags.DEFINE_string("out", "views.png", "The sheet: .png, .jpg, .pdf or .svg.")
_SHOW = flags.DEFINE_integer("show", 8, "Number of videos to show.")
_STEP = flags.DEFINE_integer("step", 0, "Training step whose batch and random numbers are shown.")

FRAMES = 8  # shown of each clip, evenly spaced
# Layout in inches: height of a frame, gap between frames, height of a line of text, labels to the
# left of strips, outer margin, caption of a video, gap between videos.
FRAME, GAP, LINE = 0.6, 0.05, 0.17
GUTTER, MARGIN, CAPTION, BETWEEN = 0.75, 0.3, 0.22, 0.25
DPI = 200


class Strip(NamedTuple):
    """One clip or view of every video, to be displayed.

    Attributes:
      label: label of the clip or view.
      clip: number of the decoded clip shown, or from which the view is made.
      frames: values in [0, 1].
    """

    label: str
    clip: int
    frames: Float[np.ndarray, "b n _ _ 3"]


class Sheet(NamedTuple):
    """Content of a contact sheet.

    Attributes:
      title: title at the top.
      captions: one caption per video.
      strips: strips in the band of each video.
      notes: paragraphs at the bottom.
    """

    title: str
    captions: list[str]
    strips: list[Strip]
    notes: list[str]


def read_batch(
    experiment: Experiment, source: VideoDataset, method: Method, videos: int, step: int
) -> dict[str, Any]:
    """Return the first rows that the outer level sees of the batch of a training step.

    To read few more rows than needed, the batch is divided among as many hosts as possible.
    """
    batch, levels = experiment.train.batch, method.levels
    count = min(videos, batch)
    hosts = max(n for n in range(1, batch // count + 1) if batch % n == 0)
    batches = train_batches(
        source,
        experiment.sampling,
        experiment.resize,
        batch=batch * levels,
        seed=experiment.train.seed,
        start=step,
        hosts=hosts,
        loader=dataclasses.replace(experiment.loader, workers=0, threads=1, buffer=1),
    )
    with contextlib.closing(batches):
        rows = next(batches)
    return {name: value[::levels][:count] for name, value in rows.items()}


def draw_views(
    experiment: Experiment, method: Method, clips: UInt8[np.ndarray, "b k t h w 3"], step: int
) -> Float[np.ndarray, "b v t s s 3"]:
    """Return the views of the first rows at the outer level of a training step."""
    key = view_keys(experiment.train.seed, step, method.levels)[0]
    make = jax.jit(make_views, static_argnums=(2, 3))
    return np.asarray(make(key, clips, method.views, experiment.augment))


def arrange_strips(
    views: tuple[View, ...],
    clips: UInt8[np.ndarray, "b k t h w 3"],
    pixels: Float[np.ndarray, "b v t s s 3"],
    augment: Augment,
) -> list[Strip]:
    """Return each decoded clip, followed by the denormalized views made from it.

    Args:
      views: views of the method.
      clips: decoded clips.
      pixels: the views as `draw_views` returns them.
      augment: normalization of the views.
    """
    times = np.linspace(0, clips.shape[2] - 1, min(FRAMES, clips.shape[2])).round().astype(int)
    mean, std = np.float32(augment.mean), np.float32(augment.std)
    strips = []
    for clip in range(clips.shape[1]):
        strips.append(Strip(f"clip {clip}", clip, clips[:, clip, times] / np.float32(255)))
        for number, view in enumerate(views):
            if view.clip == clip:
                frames = np.clip(pixels[:, number, times] * std + mean, 0, 1)
                strips.append(Strip(_view_label(number, view), clip, frames))
    return strips


def network_views(method: Method, clips: Float[jax.ShapeDtypeStruct, "b v t s s 3"]) -> int:
    """Return the number of views that the network receives, including those the method makes."""
    counts = []

    def count(call, args, kwargs, context):
        if not counts and context.method_name == "__call__":
            counts.append(args[0].shape[1])
        return call(*args, **kwargs)

    with nn.intercept_methods(count):
        jax.eval_shape(method.init, jax.random.key(0), clips)
    return counts[0] if counts else len(method.views)


def preview_views(
    experiment: Experiment, name: str, show: int, step: int
) -> tuple[Sheet, list[str]]:
    """Return the sheet, and a line for each video that could not be read.

    Args:
      experiment: the experiment.
      name: name of the config, for the title.
      show: maximum number of videos.
      step: training step.

    Raises:
      ValueError: training would raise it too.
    """
    check.at_least(1, show=show)
    check.at_least(0, step=step)
    source = experiment.data.pretrain()
    check_mirror(experiment, source)
    horizon = experiment.train.horizon(len(source))
    method = experiment.method.build(experiment.encoder, experiment.framework, horizon)
    batch = read_batch(experiment, source, method, show, step)
    pixels = draw_views(experiment, method, batch["clips"], step)
    strips = arrange_strips(method.views, batch["clips"], pixels, experiment.augment)
    captions = [_caption(source, source[int(number)]) for number in batch["index"]]
    notes = [
        *_note_further_views(method, pixels),
        f"{strips[0].frames.shape[1]} of {pixels.shape[2]} frames, evenly spaced.",
        _format_settings(experiment.sampling),
        _format_settings(experiment.augment),
    ]
    title = f"{name}: views at step {step}, seed {experiment.train.seed}"
    failures = [
        f"{source[number].id} cannot be read and is replaced by another video: {reason}"
        for number, reason in failed_videos(batch)
    ]
    return Sheet(title, captions, strips, notes), failures


def draw_sheet(sheet: Sheet) -> Figure:
    """Return the sheet as a figure: one pair of axes in inches, with y pointing down."""
    clips = sorted({strip.clip for strip in sheet.strips})
    columns = [[strip for strip in sheet.strips if strip.clip == clip] for clip in clips]
    cell = FRAME * max(s.frames.shape[3] / s.frames.shape[2] for s in sheet.strips) + GAP
    column = GUTTER + sheet.strips[0].frames.shape[1] * cell + MARGIN
    width = MARGIN + len(columns) * column
    notes = "\n".join(textwrap.fill(note, int(13.5 * width)) for note in sheet.notes)
    band = CAPTION + max(map(len, columns)) * (FRAME + GAP) + BETWEEN
    foot = 2 * MARGIN + LINE + len(sheet.captions) * band
    height = foot + LINE * (notes.count("\n") + 1) + MARGIN
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    _write(axes, MARGIN, MARGIN, sheet.title, weight="bold", size=11)
    for row, caption in enumerate(sheet.captions):
        top = 2 * MARGIN + LINE + row * band
        _write(axes, MARGIN, top, caption, size=9)
        for number, strips in enumerate(columns):
            for line, strip in enumerate(strips):
                corner = MARGIN + number * column, top + CAPTION + line * (FRAME + GAP)
                _draw_strip(axes, corner, cell, strip, row)
    _write(axes, MARGIN, foot, notes, color="#666666", linespacing=1.4)
    return figure


def _draw_strip(
    axes: Axes, corner: tuple[float, float], cell: float, strip: Strip, row: int
) -> None:
    """Draw the strip of one video: its label in the gutter, its frames centered in their cells."""
    x, top = corner
    label = {"ha": "right", "va": "center", "color": "#666666", "linespacing": 1.3}
    _write(axes, x + GUTTER - 0.08, top + FRAME / 2, strip.label, **label)
    _, _, height, width, _ = strip.frames.shape
    half = FRAME * width / height / 2
    for number, frame in enumerate(strip.frames[row]):
        middle = x + GUTTER + (number + 0.5) * cell - GAP / 2
        axes.imshow(frame, extent=(middle - half, middle + half, top + FRAME, top), aspect="auto")


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    axes.text(x, y, text, **{"va": "top", "size": 8, **style})


def _view_label(number: int, view: View) -> str:
    """Return the label of a view, one property per line."""
    lines = [f"view {number}"]
    if view.still:
        lines.append("still")
    if view.weak:
        lines.append(f"weak {view.weak:g}")
    if view.same_augment_as >= 0:
        lines.append(f"as view {view.same_augment_as}")
    return "\n".join(lines)


def _caption(source: VideoDataset, video: Video) -> str:
    """Return the name and the labels of a video."""
    labels = (
        f"{name}: {' + '.join(source.classes[name][n] for n in np.atleast_1d(numbers).tolist())}"
        for name, numbers in video.labels.items()
    )
    return "    ".join([pathlib.PurePath(video.id).name, *labels])


def _note_further_views(method: Method, pixels: np.ndarray) -> list[str]:
    """Return a note on the views that the method makes from these, if it makes any."""
    more = network_views(method, jax.ShapeDtypeStruct(pixels.shape, jnp.float32)) - pixels.shape[1]
    note = f"Not shown: the method makes {more} more view{'s' * (more > 1)} from these."
    return [note] if more else []


def _format_settings(component: Any) -> str:
    """Return the fields of a component and their values as a paragraph."""
    values = dataclasses.asdict(component).items()
    text = ", ".join(f"{name} {_format_value(value)}" for name, value in values)
    return f"{type(component).__name__}: {text}"


def _format_value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_format_value, value))})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Draw the sheet and write it to a file."""
    try:
        experiment = config_from_flags()
        if not isinstance(experiment, Experiment):
            raise ValueError("config must describe a pretraining run, got an evaluation")
        sheet, failures = preview_views(experiment, CONFIG.value, _SHOW.value, _STEP.value)
        with matplotlib.rc_context(svg_plots.STYLE):
            draw_sheet(sheet).savefig(remote_paths.to_path(_OUT.value), dpi=DPI)
    except (OSError, ValueError, VideoError) as error:
        sys.exit(f"error: {error}")
    print("\n".join([*failures, f"views: {_OUT.value}"]))


if __name__ == "__main__":
    launch(main)
