"""Query clips as film strips, with their nearest neighbours."""

from typing import NamedTuple

from vrl_jax.report import result_table, run_reader, svg_plots

MAX_CLIPS = 60  # film strips on a page, which keeps the file small enough to mail


class Clip(NamedTuple):
    """One clip as a film strip.

    Attributes:
      source: data URI of the picture.
      label: class names of the clip.
      similarity: cosine similarity with the query; "" for the query.
      agrees: for each label, whether the clip has the query's class.
    """

    source: str
    label: str
    similarity: str
    agrees: dict[str, bool]


def build_gallery(neighbours: run_reader.Neighbours | None) -> tuple[list[list[Clip]], str]:
    """Return queries, each followed by its neighbours, and a note on their agreement."""
    if neighbours is None:
        return [], ""
    names = neighbours.label_names.tolist()
    count = neighbours.gallery.shape[1]
    rows = [
        [
            Clip(
                svg_plots.film_strip(neighbours.queries[q]), str(neighbours.query_labels[q]), "", {}
            ),
            *(_neighbour(neighbours, q, k, names) for k in range(count)),
        ]
        for q in range(min(max(1, MAX_CLIPS // (1 + count)), len(neighbours.queries)))
    ]
    shares = zip(names, neighbours.same.reshape(-1, len(names)).mean(0).tolist(), strict=True)
    agreement = ", ".join(
        f"{name} {result_table.format_number(share, True)}" for name, share in shares
    )
    note = (
        f"{len(rows)} of {len(neighbours.queries)} query clips with their nearest clips; below "
        "each, the cosine similarity to the query. Frame: green, all labels agree with the "
        "query's; dashed yellow, some; orange, none. Agreement over all queries: "
        f"{agreement}."
    )
    return rows, note


def _neighbour(neighbours: run_reader.Neighbours, q: int, k: int, names: list[str]) -> Clip:
    return Clip(
        svg_plots.film_strip(neighbours.gallery[q, k]),
        str(neighbours.gallery_labels[q, k]),
        f"{neighbours.similarity[q, k]:.3f}",
        dict(zip(names, neighbours.same[q, k].tolist(), strict=True)),
    )
