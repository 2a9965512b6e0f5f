"""The pictures of `docs/split.md`, and what the filters of its arms keep of pixels.

`python benchmarks/split_figures.py --json=benchmarks/results/split.json --out=docs` draws
`split_filters.png` from clips of one mode, and `split_arms.png` from the results of
`benchmarks/split.py`. It prints how much the dynamic part of pixels, averaged to 8 x 8, responds to
the motion and to the drift of rendered videos.
"""

import argparse
import itertools
import json
import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from benchmarks import rounds
from vrl_jax.data.datasets.synthetic import Scenes, Synthetic
from vrl_jax.losses import koopman
from vrl_jax.probes.leakage import measure_response
from vrl_jax.report.svg_plots import STYLE, curve_style

FRAMES, RADIUS, RIDGE = 16, 0.3, 1e-3
LENGTH = 0.3  # of the mode, beside a constant of length 1
RATES = np.linspace(0.02, 1.2, 60)  # radians per frame
PHASES = np.arange(8) * np.pi / 8
DRIFT = 0.1, 0.25  # rates of `Synthetic`
FACTORS = {"motion": "m", "drift": "m", "appearance": "a"}  # and the part that each is read from
MOTIONS = {"travelling": (0.6, 0.9), "standing": (0.4, 1.02)}


def make_modes(motion: str) -> Float[Array, "r p t d"]:
    """Return clips with a constant and one mode, by rate and phase: the mode in channels 1 and 2.

    Args:
      motion: "travelling" turns in a plane, "standing" swings along a line.
    """
    time = np.arange(FRAMES)
    angle = RATES[:, None, None] * time + PHASES[:, None]
    sine = np.sin(angle) if motion == "travelling" else np.zeros_like(angle)
    channels = np.stack([np.ones_like(angle), LENGTH * np.cos(angle), LENGTH * sine], axis=-1)
    return jnp.asarray(channels, jnp.float32)


def dynamic_share(clips: Float[Array, "r p t d"], parts: koopman.Split) -> Float[np.ndarray, "r"]:
    """Return the length of the mode in the dynamic part, relative to the mode; median of phases."""
    mode = np.sqrt(np.mean(np.square(clips)[..., 1:], axis=-2))
    dynamic = np.asarray(parts.dynamic)[..., 1:]
    lengths = [np.linalg.norm(part, axis=-1) for part in (dynamic, mode)]
    return np.median(lengths[0] / lengths[1], axis=-1)


@partial(jax.jit, static_argnames="unit")
def split_clips(clips: Float[Array, "*b t d"], unit: bool = False) -> dict[str, koopman.Split]:
    """Return the parts by filter; `unit` scales frames first where there is no operator."""
    options = {"radius": RADIUS, "ridge": RIDGE, "pooling": "rms"}
    return {
        "mean": koopman.mean_residual_split(clips, unit=unit),
        "quadratic detrend": koopman.mean_residual_split(clips, unit=unit, degree=2),
        "split": koopman.split(clips, **options),
        "split, two frames in a state": koopman.split(clips, **options, delay=2),
    }


def read_pixels(videos: Scenes) -> Float[Array, "b t d"]:
    """Return the frames of videos, averaged to 8 x 8."""
    rows = []
    for index in range(len(videos)):
        with videos[index].media.open() as reader:
            frames = reader.read(np.arange(FRAMES)[None], (32, 32))
        cells = frames.reshape(FRAMES, 8, 4, 8, 4, 3).mean((2, 4))
        rows.append(cells.reshape(FRAMES, -1) / 255)
    return jnp.asarray(np.stack(rows), jnp.float32)


def tabulate_pixels(count: int) -> str:
    """Return the table of responses of the dynamic part of pixels, over `count` videos."""
    columns: dict[str, list[float]] = {}
    for motion in MOTIONS:
        videos = Synthetic(motion=motion, drift=2.0, seed=1, test_videos=count).test()
        twins = videos.twins()
        parts, *changed = (
            split_clips(read_pixels(each), unit=True)
            for each in (videos, twins["dynamic"], twins["drift"])
        )
        for name, other in itertools.product(parts, changed):
            response = measure_response(
                *(np.asarray(each[name].dynamic) for each in (parts, other)), np.ones(count, bool)
            )
            columns.setdefault(name, []).append(response)
    header = [f"{motion}: {factor}" for motion in MOTIONS for factor in ("motion", "drift")]
    rows = [[name, *(f"{value:.2f}" for value in values)] for name, values in columns.items()]
    return rounds.markdown_table(["filter", *header], rows)


def draw_filters(path: pathlib.Path) -> None:
    """Draw the share of a mode that each filter leaves in the dynamic part, by its rate."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.4), layout="constrained")
        for panel, (motion, rates) in enumerate(MOTIONS.items(), start=1):
            clips = make_modes(motion)
            axes = figure.add_subplot(1, 2, panel, xlabel="rate, radians per frame")
            axes.set(title=f"a {motion} mode", ylim=(0, 1.1))
            axes.axvspan(*DRIFT, color="0.92")
            axes.axvspan(*rates, color="0.85")
            for index, (name, parts) in enumerate(split_clips(clips).items()):
                color, dash = curve_style(index)
                share = dynamic_share(clips, parts)
                axes.plot(RATES, share, linestyle=dash, color=color, label=name)
        figure.axes[0].set_ylabel("share in the dynamic part")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        figure.savefig(path, dpi=160)


def draw_arms(path: pathlib.Path, results: dict, cells: dict[str, str]) -> None:
    """Draw motion and drift of every arm, read from m, and appearance, read from a.

    Arms without parts are read from the encoder, in hollow points.

    Args:
      path: of the picture.
      results: by kind of video, arm and seed, as `benchmarks/split.py` stores them.
      cells: kinds of video by title.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.3 * len(cells), 3.8), layout="constrained")
        arms = list(dict.fromkeys(arm for cell in cells.values() for arm in results[cell]))
        for panel, (title, cell) in enumerate(cells.items(), start=1):
            axes = figure.add_subplot(1, len(cells), panel, title=title, xlabel="accuracy")
            axes.set(xlim=(0, 1.03), ylim=(len(arms) - 0.5, -0.5))
            axes.set_yticks(range(len(arms)), arms if panel == 1 else [])
            axes.axvline(1 / 8, color="0.7")
            for index, (factor, part) in enumerate(FACTORS.items()):
                color, _ = curve_style(index)
                for arm, by_seed in results[cell].items():
                    trained = [models[""] for models in by_seed.values()]
                    has_parts = f"{part}: {factor}" in trained[0]
                    column = f"{part if has_parts else 'encoder'}: {factor}"
                    values = [each[column] for each in trained]
                    axes.errorbar(
                        np.mean(values), arms.index(arm), xerr=np.std(values), color=color,
                        marker="os^"[index], markersize=5, mfc=color if has_parts else "white",
                        linestyle="", label=factor if has_parts else None,
                    )  # fmt: skip
        handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles))
        figure.savefig(path, dpi=160)


def main(argv: list[str] | None = None) -> None:
    """Draw both pictures, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, required=True, help="of benchmarks/split.py")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs"))
    parser.add_argument("--videos", type=int, default=256, help="of the table")
    args = parser.parse_args(argv)
    results = json.loads(args.json.read_text())["results"]
    cells = {f"{motion}, drift 2 times the motion": f"{motion}-drift2" for motion in MOTIONS}
    draw_filters(args.out / "split_filters.png")
    draw_arms(args.out / "split_arms.png", results, cells)
    print(tabulate_pixels(args.videos))


if __name__ == "__main__":
    main()
