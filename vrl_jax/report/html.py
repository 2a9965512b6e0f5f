"""One file a person opens: what a run reached, how it got there, what it looks like."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from vrl_jax.report import (
    confusion,
    factors,
    gallery,
    panels,
    plot,
    read,
    significance,
    summary,
    table,
)
from vrl_jax.report.results import Result

ABSENT = "—"
MEANS = f"Curves of more than {plot.MOST_POINTS} points show means of neighbouring ones."
KINDS = (
    "results/*.json with a name such as order/reversed",
    "What features know of appearance and of motion. Dotted lines: chance; pale bars: encoders "
    "that were not trained.",
)
CONFUSION = (
    "Rows are classes, columns what their videos were taken for, as shares of the row, on a "
    "root scale that shows rare mistakes too."
)
CONTESTS = (
    "results/*.npz of two runs under one protocol",
    "Runs against the first one, on the videos that both could read. p: how likely chance alone "
    "would make them disagree so one-sidedly (McNemar's exact test), not corrected for the number "
    "of comparisons. Plots: accuracy gained or lost by class, with its number of videos.",
)


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


def write_report(workdir: Path) -> Path:
    """Write report.html into a run's folder and return its path.

    Raises `ValueError` naming the file where the folder, or what it holds, is not in order.
    """
    run = read.read_run(workdir)
    plain = [result for result in run.results if not result.kind]
    tables = table.build_tables(plain)
    classes = confusion.confusion_matrices(plain)
    clips, shown = gallery.build_gallery(run.neighbours)
    return _render(
        run.folder / "report.html",
        title=run.name,
        subtitle=summary.run_subtitle(run),
        cards=summary.summary_cards(run, tables),
        warnings=summary.run_warnings(run),
        legend=[],
        sections=[
            Section("Results", "tables", tables, "results/*.json"),
            _factors(run.results, [run.name]),
            Section("Classes", "confusions", classes, "results/*.npz", CONFUSION),
            Section("Probes", "plots", panels.probe_plots(run.probes), "probes.jsonl"),
            Section(
                "Training", "plots", panels.training_plots(run.metrics), "metrics.jsonl", MEANS
            ),
            _spectrum(run.spectrum),
            Section("Nearest neighbours", "neighbours", clips, "neighbours.npz", shown),
            Section("Config", "settings", table.flatten_dict(run.config), "setting in config.json"),
            Section(
                "Environment", "settings", table.flatten_dict(run.environment), "environment.json"
            ),
        ],
    )


def write_comparison(workdirs: list[Path], out: Path) -> Path:
    """Write one page with the curves and results of several runs together and return its path.

    Raises `ValueError` as `write` does, and where a folder is given twice.
    """
    runs = read.read_runs(workdirs)
    results = [result for run in runs.values() for result in run.results]
    plain = [result for result in results if not result.kind]
    probes = panels.overlay_runs({name: run.probes for name, run in runs.items()})
    metrics = panels.overlay_runs({name: run.metrics for name, run in runs.items()})
    return _render(
        out,
        title=f"Comparison of {len(runs)} runs",
        subtitle="",
        cards=[],
        warnings=[
            f"{name}: {text}" for name, run in runs.items() for text in summary.run_warnings(run)
        ],
        legend=[
            plot.Line(name, np.empty(0), np.empty(0), *plot.curve_style(index))
            for index, name in enumerate(runs)
        ],
        sections=[
            Section("Runs", "grid", _overview(runs), ""),
            Section("Results", "tables", table.build_tables(plain), "results/*.json"),
            _factors(results, list(runs)),
            Section("Class by class", "contests", significance.compare_runs(plain), *CONTESTS),
            Section("Probes", "plots", probes, "probes.jsonl"),
            Section("Training", "plots", metrics, "metrics.jsonl", MEANS),
            Section("Settings that differ", "grid", _differences(runs), "setting that differs"),
        ],
    )


def _factors(results: list[Result], runs: list[str]) -> Section:
    kinds = factors.factor_groups(results, runs)
    skipped = {name: why for result in results for name, why in result.skipped.items()}
    reasons = [f"{name}: {why}" for name, why in skipped.items()]
    note = KINDS[1] + f" Not asked: {', '.join(reasons)}." * bool(reasons)
    return Section("Static and dynamic", "kinds", kinds, KINDS[0], note)


def _spectrum(spectrum: read.Spectrum | None) -> Section:
    if spectrum is None:
        return Section("Koopman spectrum", "plots", [], "spectrum.npz")
    note = (
        "Eigenvalues of the operators fitted to the frames of each clip, at the first, a middle "
        "and the last probe. Those in the green disc, "
        f"|λ − 1| ≤ {table.format_number(spectrum.radius)}, carry what stays the same in a clip."
    )
    return Section(
        "Koopman spectrum", "plots", panels.spectrum_plots(spectrum), "spectrum.npz", note
    )


def _overview(runs: dict[str, read.Run]) -> table.Grid:
    cards = {name: summary.training_cards(run.metrics) for name, run in runs.items()}
    titles = list(dict.fromkeys(card.title for row in cards.values() for card in row))
    rows = []
    for name, run in runs.items():
        texts = {card.title: card.text for card in cards[name]}
        rows.append(
            [name, summary.run_subtitle(run) or ABSENT, *(texts.get(t, ABSENT) for t in titles)]
        )
    return table.Grid(["run", "what", *titles], rows)


def _differences(runs: dict[str, read.Run]) -> table.Grid | None:
    configs = [table.flatten_dict(run.config) for run in runs.values()]
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = [[key, *(config.get(key, ABSENT) for config in configs)] for key in keys]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    return table.Grid(["setting", *runs], rows) if rows else None


def _render(out: Path, sections: list[Section], **content: Any) -> Path:
    """Fill the template and put the file in place in one move: a reader never meets half a page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["short"] = table.shorten_hash
    page = environment.get_template("template.html").render(
        sections=[section for section in sections if section.content],
        absent=[section for section in sections if not section.content],
        **content,
    )
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    unfinished.write_text(page.strip() + "\n", encoding="utf-8")
    unfinished.replace(out)
    return out
