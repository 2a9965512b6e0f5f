"""Some test videos with their nearest training videos, for the report."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.probes import retrieval
from vrl_jax.probes.feature_bank import FeatureBank

GALLERY = "neighbours.npz"
NEIGHBOURS = 4


def find_neighbours(
    train: tuple[VideoDataset, FeatureBank],
    test: tuple[VideoDataset, FeatureBank],
    read: Callable[[VideoDataset, int], UInt8[np.ndarray, "k t h w 3"]],
    *,
    count: int,
    group: str,
    center: str,
) -> dict[str, Any]:
    """Return the arrays of `neighbours.npz`, see `vrl_jax.report.run_reader.Neighbours`.

    Args:
      train: gallery videos and their features.
      test: query videos and their features.
      read: returns the clips of a video, of which the first is shown; black if it is unreadable.
      count: number of queries, evenly spaced over the readable test videos; all if there are fewer.
      group: label in which neighbours must differ from the query; "" for none.
      center: see `retrieval.nearest_neighbours`.
    """
    (gallery, train_bank), (queries, test_bank) = train, test
    readable = np.flatnonzero(~test_bank.unreadable)
    count = min(count, len(readable))
    chosen = readable[np.linspace(0, len(readable) - 1, count).astype(int)]
    indices, similarity = _nearest(chosen, train_bank, test_bank, group, center)
    names = [name for name in queries.classes if name != group]
    labels = [(test_bank.labels[name][chosen], train_bank.labels[name][indices]) for name in names]

    def spell(bank, video):
        return ", ".join(spell_label(queries.classes[n], bank.labels[n][video]) for n in names)

    return {
        "queries": np.stack([read(queries, q)[0] for q in chosen.tolist()]),
        "query_labels": np.array([spell(test_bank, q) for q in chosen]),
        "gallery": np.stack(
            [np.stack([read(gallery, i)[0] for i in row]) for row in indices.tolist()]
        ),
        "gallery_labels": np.array([[spell(train_bank, i) for i in row] for row in indices]),
        "similarity": similarity,
        "same": np.stack([_share_class(own[:, None], others) for own, others in labels], axis=-1),
        "label_names": np.array(names),
    }


def spell_label(classes: tuple[str, ...], label: np.integer | Bool[np.ndarray, " c"]) -> str:
    """Return the class of a number, or the classes of a mask."""
    if np.ndim(label) == 0:
        return classes[label]
    return " + ".join(np.array(classes)[label]) or "none"


def _share_class(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return whether labels are equal or, where they are masks, have a class in common."""
    return (own & others).any(-1) if own.ndim == 3 else own == others


def _nearest(
    chosen: np.ndarray, train: FeatureBank, test: FeatureBank, group: str, center: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest training videos of the chosen test videos, centred by readable ones."""
    readable = ~train.unreadable, ~test.unreadable
    gallery, queries = train.features.copy(), test.features.copy()
    queries[readable[1]], gallery[readable[0]] = retrieval.center_features(
        queries[readable[1]], gallery[readable[0]], center
    )
    indices, similarity = [], []
    for query in chosen:
        allowed = readable[0]
        if group:
            allowed = allowed & (train.labels[group] != test.labels[group][query])
        candidates = np.flatnonzero(allowed)
        rows, cosines = retrieval.nearest_neighbours(
            queries[query][None], gallery[candidates], NEIGHBOURS
        )
        indices.append(candidates[rows[0]])
        similarity.append(cosines[0])
    return np.array(indices), np.array(similarity)
