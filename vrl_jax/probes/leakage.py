"""Contents of a method's parts: every label probed in every part, and responses to single factors.

A static part should hold appearance and not motion, a dynamic part the reverse. The table of parts
and labels is that of the papers on disentanglement: accuracies off its diagonal are leaks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from vrl_jax.probes.feature_bank import FeatureBank, split_columns
from vrl_jax.probes.probe_suite import ProbeSuite, run_probes
from vrl_jax.probes.result_files import Result


def split_bank(bank: FeatureBank, widths: Mapping[str, int]) -> dict[str, FeatureBank]:
    """Return a bank for each part of features that were concatenated in this order.

    Args:
      bank: the features.
      widths: width of each part, by name.
    """
    parts = split_columns(bank.features, widths)
    return {name: bank._replace(features=part) for name, part in parts.items()}


def probe_parts(
    train: Mapping[str, FeatureBank],
    test: Mapping[str, FeatureBank],
    classes: Mapping[str, tuple[str, ...]],
    config: ProbeSuite,
    stamp: Mapping[str, Any],
) -> list[Result]:
    """Return the linear probe of every label in every part, named "leakage/<part>".

    Args:
      train: features to train probes on, by part.
      test: features to test on, by part.
      classes: class names by label name.
      config: settings of the probes.
      stamp: entries added to every result.
    """
    return [
        {**result, "name": f"leakage/{part}"}
        for part in test
        for result in run_probes(train[part], test[part], classes, config, stamp)
        if result["name"] == "linear"
    ]


def measure_response(
    part: Float[np.ndarray, "n d"],
    twin: Float[np.ndarray, "n d"],
    readable: Bool[np.ndarray, "n"],
) -> float:
    """Return how much a part changes with one factor, relative to how much videos differ in it.

    The median distance between the parts of a video and of its twin, divided by the median distance
    between those of different videos: 0 is invariance; 1 is as much as another video.

    Args:
      part: of the videos.
      twin: of the videos with one factor changed.
      readable: the videos to use, at least two.
    """
    part, twin = part[readable], twin[readable]
    change = np.linalg.norm(part - twin, axis=1)
    between = np.linalg.norm(part - np.roll(part, 1, axis=0), axis=1)
    return float(np.median(change) / max(np.median(between), 1e-12))


def measure_responses(
    parts: Mapping[str, FeatureBank], twins: Mapping[str, Mapping[str, FeatureBank]]
) -> list[Result]:
    """Return the response of every part to every factor, named "response/<part>".

    Args:
      parts: features of the test videos, by part.
      twins: the same with one factor changed, by factor and part.
    """
    return [
        {
            "name": f"response/{part}",
            "label": factor,
            "value": measure_response(
                bank.features, changed[part].features, ~(bank.unreadable | changed[part].unreadable)
            ),
            "metric": "change with the factor / distance between videos",
        }
        for part, bank in parts.items()
        for factor, changed in twins.items()
    ]
