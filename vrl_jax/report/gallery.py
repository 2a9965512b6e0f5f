"""Query clips as film strips, with the clips nearest to them."""

from typing import NamedTuple

from vrl_jax.report import plot, read, table

MOST_CLIPS = 60  # film strips on a page, which keeps it at a size that can be mailed


class Clip(NamedTuple):
    """One clip as a film strip; `agrees` says for each label whether it is the query's."""

    source: str
    label: str
    similarity: str
    agrees: dict[str, bool]


def build_gallery(found: read.Neighbours | None) -> tuple[list[list[Clip]], str]:
    """Return queries, each followed by its neighbours, and a note on how well they agree."""
    if found is None:
        return [], ""
    names = found.label_names.tolist()
    shown = max(1, MOST_CLIPS // (1 + found.gallery.shape[1]))
    queries = [
        [
            Clip(plot.film_strip(found.queries[q]), str(found.query_labels[q]), "", {}),
            *(_neighbour(found, q, k, names) for k in range(found.gallery.shape[1])),
        ]
        for q in range(min(shown, len(found.queries)))
    ]
    shares = zip(names, found.same.reshape(-1, len(names)).mean(0).tolist(), strict=True)
    agreement = ", ".join(f"{name} {table.format_number(share, True)}" for name, share in shares)
    note = (
        f"{len(queries)} of {len(found.queries)} queries with their nearest clips, by cosine "
        f"similarity. Neighbours that share the query's label, over all queries: {agreement}."
    )
    return queries, note


def _neighbour(found: read.Neighbours, q: int, k: int, names: list[str]) -> Clip:
    return Clip(
        plot.film_strip(found.gallery[q, k]),
        str(found.gallery_labels[q, k]),
        f"{found.similarity[q, k]:.3f}",
        dict(zip(names, found.same[q, k].tolist(), strict=True)),
    )
