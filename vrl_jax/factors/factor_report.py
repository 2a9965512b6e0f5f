"""Appearance and motion in a frozen encoder, measured on any labelled dataset.

All numbers come from one pass over the training videos and one over the test videos: every view of
a clip is made from the same decoded frames.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from tqdm import tqdm

from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.factors import koopman_spectrum, label_accuracy, units
from vrl_jax.factors.frame_order import ViewFeatures
from vrl_jax.factors.koopman_spectrum import ClipOperators
from vrl_jax.factors.label_accuracy import PROBED, FactorConfig
from vrl_jax.factors.test_views import ViewExtractor
from vrl_jax.probes import collapse, leakage
from vrl_jax.probes.feature_bank import FeatureBank
from vrl_jax.probes.result_files import Result

Clips = UInt8[np.ndarray, "m t h w 3"]
Arrays = dict[str, Shaped[np.ndarray, "..."]]
ENCODED = (*PROBED, "style")  # prefixes of the views with features
NO_LAYER = ""  # the layer of results that need no encoder


class FactorReport(NamedTuple):
    """Results on static and dynamic factors.

    Attributes:
      results: as from `run_probes`; names have a prefix up to "/" by group.
      arrays: the per-channel and per-clip data behind the results, by name, for an npz file.
      skipped: prefix of results that could not be measured, with the reason.
      layers: results of every layer, its name under "layer", where `layers` were given.
    """

    results: list[Result]
    arrays: Arrays
    skipped: dict[str, str]
    layers: list[Result]


def report_factors(
    encode: Callable[[Clips], Float[np.ndarray, "_ d"]],
    batches: Callable[[VideoDataset], Iterable[Mapping[str, Any]]],
    train: VideoDataset,
    test: VideoDataset,
    *,
    rows: int,
    hosts: int = 1,
    config: FactorConfig,
    stamp: Mapping[str, Any],
    frames: tuple[int, int] | None = None,
    parts: Callable[[Clips], Float[np.ndarray, "_ d"]] | None = None,
    widths: Mapping[str, int] | None = None,
    masks: VideoDataset | None = None,
    twins: Mapping[str, VideoDataset] | None = None,
    layers: Mapping[str, int] | None = None,
    tokens: Mapping[str, tuple[int, int, int]] | None = None,
    quiet: bool = True,
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
      frames: shape (t, d) of the frame features, at least 5 of a clip, that `encode` returns last;
        enables the spectrum.
      parts: like `encode`, but to the embeddings of the method side by side; enables the table of
        leakage (see `vrl_jax.probes.leakage`).
      widths: width of each of these embeddings, by name.
      masks: foreground masks of the test videos as videos, white in the foreground; enables SCUBA
        and SCUFO (`scuba.load_masks` reads them; rendered videos provide their own).
      twins: the test videos with one factor changed, see `HasTwins`; enables units from pairs with
        known factors.
      layers: widths by name of the layers that `encode` returns side by side, where it returns
        several; the last are the features that `results` describe.
      tokens: shapes (t, s, d) by layer of the tokens that follow the features of all layers side
        by side; enables the attentive probe. Only those of ordered clips are kept.
    """
    token_shapes = tokens or {}
    token_columns = _side_by_side({name: math.prod(t) for name, t in token_shapes.items()})
    extractor = ViewExtractor(
        encode,
        batches,
        rows,
        hosts,
        config.seed,
        config.segments,
        parts,
        widths or {},
        tokens=sum(map(math.prod, token_shapes.values())),
        frames=math.prod(frames) if frames else 0,
    )
    operators: list[ClipOperators] = []

    def fit(rows: Float[np.ndarray, "_ _"]) -> None:
        vectors = rows.reshape(-1, *frames)
        operators.append(koopman_spectrum.fit_operators(vectors, config.ridge))

    test_features = extractor.extract_test(
        test, config.permutations, masks, fit if frames else None, config.conflict
    )
    train_features = test_features if config.group else extractor.extract_train(train)
    names = (twins or {}) if parts else [name for name in ("dynamic", "static") if twins]
    changed = {name: extractor.extract_ordered(twins[name]) for name in names}
    layered: list[Result] = []
    columns = _side_by_side(layers) if layers else {"": slice(None)}
    progress = tqdm(columns.items(), "probes of layers", unit="layer", disable=quiet)
    for number, (name, own) in enumerate(progress, start=1):
        take = partial(
            _take_layer,
            columns=own,
            encoded_only=number < len(columns),
            tokens=(token_columns[name], token_shapes[name]) if tokens else None,
        )
        layer_test = take(test_features)
        layer_train = layer_test if config.group else take(train_features)
        layer_changed = {factor: take(twin) for factor, twin in changed.items()}
        results, described = _measure_features(
            layer_train, layer_test, layer_changed, test.classes, config
        )
        if layers:
            layered += _list_layer(name, layer_test, results, described)
    test_features, changed = layer_test, layer_changed  # those of the last layer
    results += leakage.measure_responses(
        _part_banks(test_features), {name: _part_banks(twin) for name, twin in changed.items()}
    )
    skipped = {}
    if not parts:
        skipped["leakage"] = "there are no embeddings besides the features"
    if not label_accuracy.has_mask(test_features).any():
        skipped["scuba"] = "there are no masks" if masks is None else "no mask could be read"
    if frames:
        by_video = _by_video(operators, ~test_features.unreadable, rows, hosts)
        described.append(koopman_spectrum.describe_spectra(by_video, config.radius))
    else:
        skipped["koopman"] = "there are no frame features"
    results += [result for group, _ in described for result in group]
    arrays = {name: array for _, group in described for name, array in group.items()}
    return FactorReport([{**stamp, **result} for result in results], arrays, skipped, layered)


def _side_by_side(widths: Mapping[str, int]) -> dict[str, slice]:
    """Return the columns of parts that stand side by side."""
    ends = accumulate(widths.values())
    return {name: slice(end - widths[name], end) for name, end in zip(widths, ends, strict=True)}


def _take_layer(
    features: ViewFeatures,
    columns: slice,
    encoded_only: bool,
    tokens: tuple[slice, tuple[int, int, int]] | None,
) -> ViewFeatures:
    """Return the views with the features of one layer, and the views that have none as they are.

    Args:
      features: views with the features of all layers.
      columns: those of the layer.
      encoded_only: leave out pixel baselines and parts, which no layer has.
      tokens: columns and shape of the layer's tokens.
    """
    views = {}
    for name, view in features.views.items():
        prefix = name.partition("/")[0]
        if prefix in ENCODED:
            views[name] = np.ascontiguousarray(view[:, columns])
        elif prefix == "tokens":
            views[name] = view[:, tokens[0]].reshape(-1, *tokens[1])
        elif not encoded_only or prefix == "mask":
            views[name] = view
    return features._replace(views=views)


def _measure_features(
    train: ViewFeatures,
    test: ViewFeatures,
    changed: Mapping[str, ViewFeatures],
    classes: Mapping[str, tuple[str, ...]],
    config: FactorConfig,
) -> tuple[list[Result], list[tuple[list[Result], Arrays]]]:
    """Return the accuracies of all labels, and the units with their correlations."""
    results = []
    for label in [name for name in classes if name not in (config.group, config.cluster)]:
        results += label_accuracy.measure_label(train, test, label, classes[label], config)
    results.append(label_accuracy.measure_direction(train, test, config))
    return results, _units_by_pairs(test, changed, config.threshold)


def _list_layer(
    layer: str,
    test: ViewFeatures,
    results: list[Result],
    described: list[tuple[list[Result], Arrays]],
) -> list[Result]:
    """Return the results of a layer with its name and its effective rank, without classes."""
    features = test.views["order/ordered"][~test.unreadable]
    rank = {
        "name": "rank/effective",
        "label": "clips",
        "value": collapse.collapse_metrics(features)["effective_rank"],
        "metric": "effective rank",
        "width": features.shape[1],
    }
    return [
        {
            "layer": NO_LAYER if result["name"].startswith("floor/") else layer,
            **{key: entry for key, entry in result.items() if "per_class" not in key},
        }
        for result in [*results, *(each for group, _ in described for each in group), rank]
        if not result["name"].startswith("leakage/")
    ]


def _part_banks(features: ViewFeatures) -> dict[str, FeatureBank]:
    """Return the parts of ordered clips by name."""
    return {
        name: FeatureBank(view, features.labels, features.unreadable)
        for name, view in label_accuracy.strip_prefix("part", features.views).items()
    }


def _units_by_pairs(
    test: ViewFeatures, twins: Mapping[str, ViewFeatures], threshold: float
) -> list[tuple[list[Result], Arrays]]:
    """Return units from shuffled and restyled clips, and from twins with known factors."""
    shuffled = [view for name, view in test.views.items() if name.startswith("order/shuffled")]
    parts = [_units(test, shuffled, test.views["style/restyled"], "restyled", threshold)]
    if twins:
        moved, restyled = (twins[name].views["order/ordered"] for name in ("dynamic", "static"))
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
