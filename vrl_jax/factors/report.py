"""What of a frozen encoder is appearance and what is motion, on any labelled data set.

All numbers come from one pass over the training and one over the test videos: every view of a clip
is made from the same decoded frames.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from vrl_jax import check
from vrl_jax.data.dataset import VideoDataset
from vrl_jax.factors import frame_order, spectrum, units
from vrl_jax.factors.frame_order import ViewFeatures
from vrl_jax.factors.spectrum import ClipOperators
from vrl_jax.factors.test_views import ViewExtractor
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.probes.results import Result

Clips = UInt8[np.ndarray, "m t h w 3"]
BACKGROUNDS = {"scuba": "sinusoidal stripes", "scuba-stills": "frames of other classes"}


@dataclass(frozen=True)
class FactorConfig:
    """How the static/dynamic report is made.

    Attributes:
      permutations: ways in which test clips are shuffled, the same for all.
      threshold: of a unit's correlation.
      radius: an eigenvalue counts as static within this distance of 1.
      ridge: see `koopman.fit`.
      seed: of shuffles, styles and backgrounds.
      group: label by which one group at a time is left out, over the test videos alone; "" learns
        from the train and asks about the test videos.
      linear: all probes, the floors' too.
    """

    permutations: int = 3
    threshold: float = 0.5
    radius: float = 0.1
    ridge: float = 1e-3
    seed: int = 0
    group: str = ""
    linear: LinearProbe = LinearProbe()

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check.at_least(1, permutations=self.permutations)
        check.positive(radius=self.radius, ridge=self.ridge)
        check.at_least(0, seed=self.seed)
        check.fraction(threshold=self.threshold)


class FactorReport(NamedTuple):
    """What was found.

    Attributes:
      results: as `judge` makes them; names have a part before "/" that groups them.
      arrays: by name, for an npz: what the results summarise.
      skipped: group of results to the reason why there are none.
    """

    results: list[Result]
    arrays: dict[str, Shaped[np.ndarray, "..."]]
    skipped: dict[str, str]


def report_factors(
    encode: Callable[[Clips], Float[np.ndarray, "_ d"]],
    batches: Callable[[VideoDataset], Iterable[Mapping[str, Any]]],
    train: VideoDataset,
    test: VideoDataset,
    *,
    rows: int,
    hosts: int = 1,
    config: FactorConfig = FactorConfig(),
    stamp: Mapping[str, Any],
    frames: Callable[[Clips], Float[np.ndarray, "_ t d"]] | None = None,
    masks: VideoDataset | None = None,
    twins: tuple[VideoDataset, VideoDataset] | None = None,
) -> FactorReport:
    """Return the order test, arrow of time, units, floors, and what masks and frames allow.

    Test videos that could not be read count as wrong; units and spectrum do without them, and
    probes without training videos that could not be read.

    Args:
      encode: see `extract`.
      batches: a source's batches as `eval_batches` makes them, each host its own.
      train: what probes learn from; not read where a group is left out.
      test: what is asked about.
      rows: videos that all hosts encode at a time.
      hosts: that share the videos.
      config: the settings.
      stamp: what every result carries beside its own.
      frames: as `encode`, but to at least 5 frame vectors a clip: for the spectrum.
      masks: masks of the test videos' foregrounds as videos, white where it is: for SCUBA and SCUFO
        (`scuba.load_masks` finds them; rendered videos have their own).
      twins: the test videos changed in motion alone, and in appearance alone: for units by pairs
        of known factors.
    """
    reader = ViewExtractor(encode, batches, rows, hosts, config.seed)
    fitted: list[ClipOperators] = []

    def fit(clips):
        fitted.append(spectrum.fit_operators(frames(clips), config.ridge))

    asked = reader.test(test, config.permutations, masks, fit if frames else None)
    known = asked if config.group else reader.train(train)
    results = [_direction(known, asked, config)]
    for label in [name for name in test.classes if name != config.group]:
        results += _of_label(known, asked, label, test.classes[label], config)
    shuffled = [view for name, view in asked.views.items() if name.startswith("order/shuffled")]
    found = [_units(asked, shuffled, asked.views["style/restyled"], "restyled", config.threshold)]
    if twins is not None:
        moved, dressed = (reader.plain(source).views["order/ordered"] for source in twins)
        found.append(_units(asked, [moved], dressed, "known factors", config.threshold))
    skipped = {}
    if not _masked(asked).any():
        skipped["scuba"] = "there are no masks" if masks is None else "no mask could be read"
    if frames:
        operators = _by_video(fitted, ~asked.unreadable, rows, hosts)
        found.append(spectrum.describe_spectra(operators, config.radius))
    else:
        skipped["koopman"] = "there are no frame vectors"
    arrays = {}
    for told, values in found:
        results, arrays = results + told, arrays | values
    return FactorReport([{**stamp, **result} for result in results], arrays, skipped)


def _direction(known: ViewFeatures, asked: ViewFeatures, config: FactorConfig) -> Result:
    right = frame_order.arrow_of_time(known, asked, group=config.group, settings=config.linear)
    return {
        "name": "arrow/forward-backward",
        "label": "direction",
        "value": float(right.mean()),
        "metric": "top-1 accuracy",
        "chance": 0.5,
        "per_class": {"forward": float(right[0].mean()), "backward": float(right[1].mean())},
    }


def _of_label(
    known: ViewFeatures,
    asked: ViewFeatures,
    label: str,
    classes: tuple[str, ...],
    config: FactorConfig,
) -> list[Result]:
    """Return what the probes of one label find: order test, floors, SCUBA."""
    labels = asked.labels[label]

    def right(learned: str, views: tuple[str, ...]) -> dict[str, np.ndarray]:
        said = frame_order.predict_views(
            known,
            asked,
            label,
            len(classes),
            views,
            learned=learned,
            group=config.group,
            settings=config.linear,
        )
        return {view: answers == labels for view, answers in said.items()}

    shown = [view for view in asked.views if view.partition("/")[0] in ("order", *BACKGROUNDS)]
    encoded = right("order/ordered", tuple(shown))
    results = frame_order.compare_orders(_under("order", encoded), labels, classes)
    for floor in ("floor/appearance", "floor/motion"):
        found = right(floor, (floor,))[floor]
        results.append({"name": floor, **frame_order.summarize_accuracy(found, labels, classes)})
    masked = _masked(asked)
    for name, background in BACKGROUNDS.items() if masked.any() else ():
        contrast = _contrast(_under(name, encoded), masked, labels, classes)
        told = {"background": background, "videos": int(masked.sum())}
        results += [{**each, **told, "name": f"{name}/{each['name']}"} for each in contrast]
    return [{"label": label, **result} for result in results]


def _contrast(
    right: Mapping[str, np.ndarray],
    masked: Bool[np.ndarray, "n"],
    labels: Int[np.ndarray, "n"],
    classes: tuple[str, ...],
) -> list[Result]:
    """Return what is right of masked videos on other backgrounds, moving, still, and moving alone.

    A blind guess, right or wrong on both, has a contrasted accuracy of 0.
    """
    scuba, scufo, labels = right["scuba"][masked], right["scufo"][masked], labels[masked]
    contrasted = frame_order.summarize_accuracy(scuba & ~scufo, labels, classes)
    contrasted |= {"metric": "contrasted accuracy", "chance": 0.0}
    return [
        {"name": "scuba", **frame_order.summarize_accuracy(scuba, labels, classes)},
        {"name": "scufo", **frame_order.summarize_accuracy(scufo, labels, classes)},
        {"name": "contrasted", **contrasted},
    ]


def _units(
    asked: ViewFeatures, moved: list[np.ndarray], dressed: np.ndarray, pairs: str, threshold: float
) -> tuple[list[Result], dict[str, np.ndarray]]:
    """Count units by pairs with other motion and with another look; returns correlations too."""
    kept = ~asked.unreadable
    plain = asked.views["order/ordered"][kept]
    static = units.correlate_channels(
        np.concatenate([plain] * len(moved)), np.concatenate([view[kept] for view in moved])
    )
    dynamic = units.correlate_channels(plain, dressed[kept])
    results = [{"label": pairs, **found} for found in units.count_units(static, dynamic, threshold)]
    return results, {f"units/{pairs}/static": static, f"units/{pairs}/dynamic": dynamic}


def _masked(bank: ViewFeatures) -> Bool[np.ndarray, "n"]:
    """Return of which videos a mask shows anything."""
    return bank.views.get("mask/share", np.zeros((len(bank.unreadable), 1)))[:, 0] > 0


def _under(prefix: str, views: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the views of a group, without its name."""
    return {
        view.removeprefix(f"{prefix}/"): found
        for view, found in views.items()
        if view.startswith(f"{prefix}/")
    }


def _by_video(
    batches: list[ClipOperators], kept: Bool[np.ndarray, "n"], rows: int, hosts: int
) -> ClipOperators:
    """Return the kept videos' operators, in the source's order: see `extract`."""

    def join(parts):
        by_host = [part.reshape(hosts, rows // hosts, -1, *part.shape[1:]) for part in parts]
        turns = [np.moveaxis(part, 0, 1).reshape(rows, *part.shape[2:]) for part in by_host]
        return np.concatenate(turns)[: len(kept)][kept]

    return ClipOperators(*(join(parts) for parts in zip(*batches, strict=True)))
