"""Appearance and motion in a frozen encoder, measured on any labelled dataset.

All numbers come from one pass over the training videos and one over the test videos: every view of
a clip is made from the same decoded frames.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from vrl_jax import check
from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.factors import frame_order, koopman_spectrum, units
from vrl_jax.factors.frame_order import ViewFeatures
from vrl_jax.factors.koopman_spectrum import ClipOperators
from vrl_jax.factors.test_views import ViewExtractor
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.probes.result_files import Result

Clips = UInt8[np.ndarray, "m t h w 3"]
Arrays = dict[str, Shaped[np.ndarray, "..."]]
BACKGROUNDS = {"scuba": "sinusoidal stripes", "scuba-stills": "frames of other classes"}


@dataclass(frozen=True)
class FactorConfig:
    """Evaluation of static and dynamic factors.

    Attributes:
      permutations: number of random frame orders of the test clips, the same for all clips.
      threshold: correlation above which a channel is static or dynamic.
      radius: distance from 1 within which an eigenvalue is static.
      ridge: regularisation of the operators, see `koopman.fit`.
      seed: of permutations, styles and backgrounds.
      group: label for leave-one-group-out evaluation on the test videos, such as the person; ""
        trains on the training videos and tests on the test videos.
      linear: settings of all linear probes, also of the pixel baselines.
    """

    permutations: int = 3
    threshold: float = 0.5
    radius: float = 0.1
    ridge: float = 1e-3
    seed: int = 0
    group: str = ""
    linear: LinearProbe = LinearProbe()

    def __post_init__(self) -> None:
        check.at_least(1, permutations=self.permutations)
        check.positive(radius=self.radius, ridge=self.ridge)
        check.at_least(0, seed=self.seed)
        check.fraction(threshold=self.threshold)


class FactorReport(NamedTuple):
    """Results on static and dynamic factors.

    Attributes:
      results: as from `run_probes`; names have a prefix up to "/" by group.
      arrays: the per-channel and per-clip data behind the results, by name, for an npz file.
      skipped: prefix of results that could not be measured, with the reason.
    """

    results: list[Result]
    arrays: Arrays
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
    """Measure frame order, arrow of time, pixel baselines, units, and optionally SCUBA and spectra.

    Unreadable test videos count as wrong, but are left out of units and spectra. Unreadable
    training videos are left out.

    Args:
      encode: see `extract_features`.
      batches: this host's batches of a dataset, as from `eval_batches`.
      train: videos to train probes on; not read with `config.group`.
      test: videos to test on.
      rows: global batch size in videos.
      hosts: number of hosts that share the videos.
      config: the settings.
      stamp: entries added to every result.
      frames: like `encode`, but to at least 5 frame features per clip; enables the spectrum.
      masks: foreground masks of the test videos as videos, white in the foreground; enables SCUBA
        and SCUFO (`scuba.load_masks` reads them; rendered videos provide their own).
      twins: the test videos with only the motion changed, and with only the appearance changed;
        enables units from pairs with known factors.
    """
    extractor = ViewExtractor(encode, batches, rows, hosts, config.seed)
    operators: list[ClipOperators] = []

    def fit(clips: Clips) -> None:
        operators.append(koopman_spectrum.fit_operators(frames(clips), config.ridge))

    test_features = extractor.extract_test(
        test, config.permutations, masks, fit if frames else None
    )
    train_features = test_features if config.group else extractor.extract_train(train)
    results = [_arrow_of_time(train_features, test_features, config)]
    for label in [name for name in test.classes if name != config.group]:
        results += _label_results(train_features, test_features, label, test.classes[label], config)
    parts = _units_by_pairs(extractor, test_features, twins, config.threshold)
    skipped = {}
    if not _has_mask(test_features).any():
        skipped["scuba"] = "there are no masks" if masks is None else "no mask could be read"
    if frames:
        by_video = _by_video(operators, ~test_features.unreadable, rows, hosts)
        parts.append(koopman_spectrum.describe_spectra(by_video, config.radius))
    else:
        skipped["koopman"] = "there are no frame features"
    results += [result for part, _ in parts for result in part]
    arrays = {name: array for _, part in parts for name, array in part.items()}
    return FactorReport([{**stamp, **result} for result in results], arrays, skipped)


def _arrow_of_time(train: ViewFeatures, test: ViewFeatures, config: FactorConfig) -> Result:
    correct = frame_order.arrow_of_time(train, test, group=config.group, settings=config.linear)
    return {
        "name": "arrow/forward-backward",
        "label": "direction",
        "value": float(correct.mean()),
        "metric": "top-1 accuracy",
        "chance": 0.5,
        "per_class": {"forward": float(correct[0].mean()), "backward": float(correct[1].mean())},
    }


def _label_results(
    train: ViewFeatures,
    test: ViewFeatures,
    label: str,
    classes: tuple[str, ...],
    config: FactorConfig,
) -> list[Result]:
    """Return the results of one label: frame order, pixel baselines, SCUBA and SCUFO."""
    labels = test.labels[label]

    def probe(train_view: str, views: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return by view which test videos a probe of `train_view` predicts correctly."""
        predictions = frame_order.predict_views(
            train,
            test,
            label,
            len(classes),
            views,
            train_view=train_view,
            group=config.group,
            settings=config.linear,
        )
        return {view: predicted == labels for view, predicted in predictions.items()}

    views = [view for view in test.views if view.partition("/")[0] in ("order", *BACKGROUNDS)]
    correct = probe("order/ordered", tuple(views))
    results = frame_order.compare_orders(_with_prefix("order", correct), labels, classes)
    for name in ("floor/appearance", "floor/motion"):
        baseline = frame_order.summarize_accuracy(probe(name, (name,))[name], labels, classes)
        results.append({"name": name, **baseline})
    mask = _has_mask(test)
    for name, background in BACKGROUNDS.items() if mask.any() else ():
        details = {"background": background, "videos": int(mask.sum())}
        for result in _contrast(_with_prefix(name, correct), mask, labels, classes):
            results.append({**result, **details, "name": f"{name}/{result['name']}"})
    return [{"label": label, **result} for result in results]


def _contrast(
    correct: Mapping[str, np.ndarray],
    mask: Bool[np.ndarray, "n"],
    labels: Int[np.ndarray, "n"],
    classes: tuple[str, ...],
) -> list[Result]:
    """Return accuracies on SCUBA and SCUFO, and contrasted accuracy, of the videos with a mask.

    Contrasted: correct on SCUBA and wrong on SCUFO. It is 0 for a constant prediction, which is
    correct on both or on neither.
    """
    scuba, scufo, labels = correct["scuba"][mask], correct["scufo"][mask], labels[mask]
    contrasted = frame_order.summarize_accuracy(scuba & ~scufo, labels, classes)
    contrasted |= {"metric": "contrasted accuracy", "chance": 0.0}
    return [
        {"name": "scuba", **frame_order.summarize_accuracy(scuba, labels, classes)},
        {"name": "scufo", **frame_order.summarize_accuracy(scufo, labels, classes)},
        {"name": "contrasted", **contrasted},
    ]


def _units_by_pairs(
    extractor: ViewExtractor,
    test: ViewFeatures,
    twins: tuple[VideoDataset, VideoDataset] | None,
    threshold: float,
) -> list[tuple[list[Result], Arrays]]:
    """Return units from shuffled and restyled clips, and from twins with known factors."""
    shuffled = [view for name, view in test.views.items() if name.startswith("order/shuffled")]
    parts = [_units(test, shuffled, test.views["style/restyled"], "restyled", threshold)]
    if twins is not None:
        moved, restyled = (extractor.extract_ordered(one).views["order/ordered"] for one in twins)
        parts.append(_units(test, [moved], restyled, "known factors", threshold))
    return parts


def _units(
    test: ViewFeatures,
    moved: list[np.ndarray],
    restyled: np.ndarray,
    pairs: str,
    threshold: float,
) -> tuple[list[Result], Arrays]:
    """Return the shares of units, and the correlations of all channels.

    Args:
      test: features of the original clips.
      moved: features of clips with other motion and the same appearance.
      restyled: features of clips with other appearance and the same motion.
      pairs: name of the pairs.
      threshold: see `units.unit_shares`.
    """
    readable = ~test.unreadable
    ordered = test.views["order/ordered"][readable]
    static = units.correlate_channels(
        np.concatenate([ordered] * len(moved)), np.concatenate([view[readable] for view in moved])
    )
    dynamic = units.correlate_channels(ordered, restyled[readable])
    counts = units.unit_shares(static, dynamic, threshold)
    arrays = {f"units/{pairs}/static": static, f"units/{pairs}/dynamic": dynamic}
    return [{"label": pairs, **result} for result in counts], arrays


def _has_mask(test: ViewFeatures) -> Bool[np.ndarray, "n"]:
    """Return for which videos a mask marks any foreground."""
    return test.views.get("mask/share", np.zeros((len(test.unreadable), 1)))[:, 0] > 0


def _with_prefix(prefix: str, views: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the views with a prefix, under names without it."""
    return {
        view.removeprefix(f"{prefix}/"): array
        for view, array in views.items()
        if view.startswith(f"{prefix}/")
    }


def _by_video(
    batches: list[ClipOperators], mask: Bool[np.ndarray, "n"], rows: int, hosts: int
) -> ClipOperators:
    """Return the operators of the videos in the mask, in the order of the dataset.

    Videos alternate by host, see `extract_features`.
    """

    def join(parts):
        by_host = [part.reshape(hosts, rows // hosts, -1, *part.shape[1:]) for part in parts]
        by_video = [np.moveaxis(part, 0, 1).reshape(rows, *part.shape[2:]) for part in by_host]
        return np.concatenate(by_video)[: len(mask)][mask]

    return ClipOperators(*(join(parts) for parts in zip(*batches, strict=True)))
