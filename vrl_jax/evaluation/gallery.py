"""Some test videos with their nearest training videos, for the report."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vrl_jax.data.dataset import VideoDataset
from vrl_jax.probes import retrieval
from vrl_jax.probes.features import FeatureBank

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
    """Return the arrays of `neighbours.npz`, see `vrl_jax.report.read.Neighbours`.

    Args:
      train: the gallery and its features.
      test: the queries and theirs.
      read: a video's clips, of which the first is shown; black ones if it cannot be read any more.
      count: of queries, evenly spaced over the readable ones.
      group: label in which neighbours must differ from the query; "" for none.
      center: see `retrieval.nearest_neighbours`.
    """
    (gallery, known), (queries, asked) = train, test
    readable = np.flatnonzero(~asked.unreadable)
    chosen = readable[np.linspace(0, len(readable) - 1, count).astype(int)]
    indices, similarity = _nearest(chosen, known, asked, group, center)
    names = [name for name in queries.classes if name != group]
    own = np.stack([asked.labels[name][chosen] for name in names], axis=-1)
    found = np.stack([known.labels[name][indices] for name in names], axis=-1)

    def spell(codes):
        return ", ".join(
            queries.classes[name][code] for name, code in zip(names, codes, strict=True)
        )

    return {
        "queries": np.stack([read(queries, q)[0] for q in chosen.tolist()]),
        "query_labels": np.array([spell(codes) for codes in own]),
        "gallery": np.stack(
            [np.stack([read(gallery, i)[0] for i in row]) for row in indices.tolist()]
        ),
        "gallery_labels": np.array([[spell(codes) for codes in row] for row in found]),
        "similarity": similarity,
        "same": found == own[:, None],
        "label_names": np.array(names),
    }


def _nearest(
    chosen: np.ndarray, known: FeatureBank, asked: FeatureBank, group: str, center: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest videos of the chosen ones; a mean is that of all readable videos."""
    readable = ~known.unreadable, ~asked.unreadable
    gallery, queries = known.features.copy(), asked.features.copy()
    queries[readable[1]], gallery[readable[0]] = retrieval.center_features(
        queries[readable[1]], gallery[readable[0]], center
    )
    indices, similarity = [], []
    for query in chosen:
        allowed = readable[0]
        if group:
            allowed = allowed & (known.labels[group] != asked.labels[group][query])
        places = np.flatnonzero(allowed)
        found, cosines = retrieval.nearest_neighbours(
            queries[query][None], gallery[places], NEIGHBOURS
        )
        indices.append(places[found[0]])
        similarity.append(cosines[0])
    return np.array(indices), np.array(similarity)
