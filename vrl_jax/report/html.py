"""One file a person opens: what a run reached, how it got there, what it looks like."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from vrl_jax.report import head, panels, plot, read, table

MOST_CLIPS = 60  # film strips on a page, which keeps it at a size that can be mailed
ABSENT = "—"
MEANS = f"Curves of more than {plot.MOST_POINTS} points show means of neighbouring ones."


class Section(NamedTuple):
    """One part of a page.

    Attributes:
      title: its heading.
      kind: the macro of the template that shows the content.
      content: what is shown; a section whose content is empty is left out.
      source: what it is made of; a page without the section says that there is none.
      note: how to read it.
    """

    title: str
    kind: str
    content: Any
    source: str
    note: str = ""


class Grid(NamedTuple):
    """A plain table of text; the first column names the row."""

    header: list[str]
    rows: list[list[str]]


class Clip(NamedTuple):
    """One clip as a film strip; `agrees` says for each label whether it is the query's."""

    source: str
    label: str
    similarity: str
    agrees: dict[str, bool]


def write(workdir: Path) -> Path:
    """Write report.html into a run's folder and return its path.

    Raises `ValueError` naming the file where the folder, or what it holds, is not in order.
    """
    run = read.run(workdir)
    tables = table.build(run.results)
    return _render(
        run.folder / "report.html",
        title=run.name,
        subtitle=head.subtitle(run),
        cards=head.cards(run, tables),
        warnings=head.warnings(run),
        legend=[],
        sections=[
            Section("Results", "tables", tables, "results/*.json"),
            Section("Probes", "plots", panels.probes(run.probes), "probes.jsonl"),
            Section("Training", "plots", panels.training(run.metrics), "metrics.jsonl", MEANS),
            _spectrum(run.spectrum),
            _neighbours(run.neighbours),
            Section("Config", "settings", table.flatten(run.config), "setting in config.json"),
            Section("Environment", "settings", table.flatten(run.environment), "environment.json"),
        ],
    )


def compare(workdirs: list[Path], out: Path) -> Path:
    """Write one page with the curves and results of several runs together and return its path.

    Raises `ValueError` as `write` does, and where a folder is given twice.
    """
    runs = dict(zip(_names(workdirs), map(read.run, workdirs), strict=True))
    results = [{**result, "run": name} for name, run in runs.items() for result in run.results]
    probes = panels.together({name: run.probes for name, run in runs.items()})
    metrics = panels.together({name: run.metrics for name, run in runs.items()})
    return _render(
        out,
        title=f"Comparison of {len(runs)} runs",
        subtitle=", ".join(runs),
        cards=[],
        warnings=[f"{name}: {text}" for name, run in runs.items() for text in head.warnings(run)],
        legend=[
            plot.Line(name, np.empty(0), np.empty(0), *plot.style(index))
            for index, name in enumerate(runs)
        ],
        sections=[
            Section("Runs", "grid", _overview(runs), ""),
            Section("Results", "tables", table.build(results), "results/*.json"),
            Section("Probes", "plots", probes, "probes.jsonl"),
            Section("Training", "plots", metrics, "metrics.jsonl", MEANS),
            Section("Settings that differ", "grid", _differences(runs), "setting that differs"),
        ],
    )


def _spectrum(spectrum: read.Spectrum | None) -> Section:
    if spectrum is None:
        return Section("Koopman spectrum", "plots", [], "spectrum.npz")
    note = (
        "Eigenvalues of the operators fitted to the frames of each clip, at the first, a middle "
        "and the last probe. Those in the green disc, "
        f"|λ − 1| ≤ {table.number(spectrum.radius)}, carry what stays the same in a clip."
    )
    return Section("Koopman spectrum", "plots", panels.spectra(spectrum), "spectrum.npz", note)


def _neighbours(found: read.Neighbours | None) -> Section:
    if found is None:
        return Section("Nearest neighbours", "neighbours", [], "neighbours.npz")
    names = found.label_names.tolist()
    shown = max(1, MOST_CLIPS // (1 + found.gallery.shape[1]))
    queries = [
        [
            Clip(plot.strip(found.queries[q]), str(found.query_labels[q]), "", {}),
            *(_neighbour(found, q, k, names) for k in range(found.gallery.shape[1])),
        ]
        for q in range(min(shown, len(found.queries)))
    ]
    shares = zip(names, found.same.reshape(-1, len(names)).mean(0).tolist(), strict=True)
    agreement = ", ".join(f"{name} {table.number(share, True)}" for name, share in shares)
    note = (
        f"{len(queries)} of {len(found.queries)} queries with their nearest clips, by cosine "
        f"similarity. Neighbours that share the query's label, over all queries: {agreement}."
    )
    return Section("Nearest neighbours", "neighbours", queries, "neighbours.npz", note)


def _neighbour(found: read.Neighbours, q: int, k: int, names: list[str]) -> Clip:
    return Clip(
        plot.strip(found.gallery[q, k]),
        str(found.gallery_labels[q, k]),
        f"{found.similarity[q, k]:.3f}",
        dict(zip(names, found.same[q, k].tolist(), strict=True)),
    )


def _overview(runs: dict[str, read.Run]) -> Grid:
    cards = {name: head.training(run.metrics) for name, run in runs.items()}
    titles = list(dict.fromkeys(card.title for row in cards.values() for card in row))
    rows = []
    for name, run in runs.items():
        texts = {card.title: card.text for card in cards[name]}
        rows.append([name, head.subtitle(run) or ABSENT, *(texts.get(t, ABSENT) for t in titles)])
    return Grid(["run", "what", *titles], rows)


def _differences(runs: dict[str, read.Run]) -> Grid | None:
    configs = [table.flatten(run.config) for run in runs.values()]
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = [[key, *(config.get(key, ABSENT) for config in configs)] for key in keys]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    return Grid(["setting", *runs], rows) if rows else None


def _names(workdirs: list[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    paths = [workdir.resolve() for workdir in workdirs]
    if len(set(paths)) < len(paths):
        raise ValueError(f"a run is given twice among {', '.join(map(str, workdirs))}")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]


def _render(out: Path, sections: list[Section], **content: Any) -> Path:
    """Fill the template and put the file in place in one move: a reader never meets half a page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("template.html").render(
        sections=[section for section in sections if section.content],
        absent=[section for section in sections if not section.content],
        **content,
    )
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    unfinished.write_text(page.strip() + "\n", encoding="utf-8")
    unfinished.replace(out)
    return out
