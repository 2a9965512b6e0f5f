"""The HTML report of a run, and the comparison of several runs, as one self-contained file."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from vrl_jax.report import (
    confusion_matrix,
    factor_plots,
    neighbour_strips,
    plot_panels,
    result_table,
    run_reader,
    significance,
    summary_cards,
    svg_plots,
)
from vrl_jax.report.result_files import Result

ABSENT = "—"
THINNING = (
    f"Curves with more than {svg_plots.MAX_POINTS} points are averaged over neighbouring points."
)
FACTORS = (
    "results/*.json with a name such as order/reversed",
    "Appearance and motion in the features. Dotted lines mark chance; pale bars are untrained "
    "encoders.",
)
CONFUSION = (
    "Rows are true classes, columns predicted classes; each row sums to 100 %. The colour scale is "
    "a square root, which makes rare confusions visible."
)
COMPARISONS = (
    "results/*.npz of two runs under one protocol",
    "Each run against the first one, on the videos that both could read. p is the two-sided "
    "p-value of McNemar's exact test: the probability of a disagreement at least as one-sided if "
    "both runs were equally accurate. It is not corrected for multiple comparisons. The plots show "
    "the change of accuracy by class, with the number of videos in parentheses.",
)


class Section(NamedTuple):
    """One part of a page.

    Attributes:
      title: its heading.
      macro: the macro of the template that renders the content.
      content: what to render; a section with empty content is left out.
      source: the files it is made of, printed where the section is left out.
      note: how to read it.
    """

    title: str
    macro: str
    content: Any
    source: str
    note: str = ""


def write_report(workdir: Path) -> Path:
    """Write report.html into a run's folder and return its path.

    Raises:
      ValueError: the folder is not a run's, or one of its files is damaged.
    """
    run = run_reader.read_run(workdir)
    plain = [result for result in run.results if not result.prefix]
    tables = result_table.build_tables(plain)
    classes = confusion_matrix.confusion_matrices(plain)
    clips, agreement = neighbour_strips.build_gallery(run.neighbours)
    return render_page(
        run.folder / "report.html",
        title=run.name,
        subtitle=summary_cards.run_subtitle(run),
        cards=summary_cards.summary_cards(run, tables),
        warnings=summary_cards.run_warnings(run),
        legend=[],
        sections=[
            Section("Results", "tables", tables, "results/*.json"),
            _factors(run.results, [run.name]),
            Section("Classes", "confusions", classes, "results/*.npz", CONFUSION),
            Section("Probes", "plots", plot_panels.probe_plots(run.probes), "probes.jsonl"),
            Section(
                "Training",
                "plots",
                plot_panels.training_plots(run.metrics),
                "metrics.jsonl",
                THINNING,
            ),
            _spectrum(run.spectrum),
            Section("Nearest neighbours", "neighbours", clips, "neighbours.npz", agreement),
            Section(
                "Config",
                "settings",
                result_table.flatten_dict(run.config),
                "setting in config.json",
            ),
            Section(
                "Environment",
                "settings",
                result_table.flatten_dict(run.environment),
                "environment.json",
            ),
        ],
    )


def write_comparison(workdirs: list[Path], out: Path) -> Path:
    """Write one page with the curves and results of several runs and return its path.

    Raises:
      ValueError: as `write_report`, or a folder is listed twice.
    """
    runs = run_reader.read_runs(workdirs)
    results = [result for run in runs.values() for result in run.results]
    plain = [result for result in results if not result.prefix]
    probes = plot_panels.overlay_runs({name: run.probes for name, run in runs.items()})
    metrics = plot_panels.overlay_runs({name: run.metrics for name, run in runs.items()})
    return render_page(
        out,
        title=f"Comparison of {len(runs)} runs",
        subtitle="",
        cards=[],
        warnings=[
            f"{name}: {text}"
            for name, run in runs.items()
            for text in summary_cards.run_warnings(run)
        ],
        legend=[
            svg_plots.Line(name, np.empty(0), np.empty(0), *svg_plots.curve_style(index))
            for index, name in enumerate(runs)
        ],
        sections=[
            Section("Runs", "grid", _overview(runs), ""),
            Section("Results", "tables", result_table.build_tables(plain), "results/*.json"),
            _factors(results, list(runs)),
            Section(
                "Class by class", "comparisons", significance.compare_runs(plain), *COMPARISONS
            ),
            Section("Probes", "plots", probes, "probes.jsonl"),
            Section("Training", "plots", metrics, "metrics.jsonl", THINNING),
            Section("Settings that differ", "grid", _differences(runs), "setting that differs"),
        ],
    )


def _factors(results: list[Result], runs: list[str]) -> Section:
    groups = factor_plots.factor_groups(results, runs)
    skipped = {name: reason for result in results for name, reason in result.skipped.items()}
    reasons = [f"{name} ({reason})" for name, reason in skipped.items()]
    note = FACTORS[1] + f" Not measured: {', '.join(reasons)}." * bool(reasons)
    return Section("Static and dynamic", "factor_groups", groups, FACTORS[0], note)


def _spectrum(spectrum: run_reader.Spectrum | None) -> Section:
    if spectrum is None:
        return Section("Koopman spectrum", "plots", [], "spectrum.npz")
    note = (
        "Eigenvalues λ of the Koopman operators fitted to the frame features of each clip, at the "
        "first, the middle and the last probe, with the unit circle. Modes in the green disc, "
        f"|λ − 1| ≤ {result_table.format_number(spectrum.radius)}, are static: they do not "
        "change within a clip."
    )
    return Section(
        "Koopman spectrum", "plots", plot_panels.spectrum_plots(spectrum), "spectrum.npz", note
    )


def _overview(runs: dict[str, run_reader.Run]) -> result_table.Grid:
    cards = {name: summary_cards.training_cards(run.metrics) for name, run in runs.items()}
    titles = list(dict.fromkeys(card.title for row in cards.values() for card in row))
    rows = []
    for name, run in runs.items():
        texts = {card.title: card.text for card in cards[name]}
        rows.append(
            [
                name,
                summary_cards.run_subtitle(run) or ABSENT,
                *(texts.get(t, ABSENT) for t in titles),
            ]
        )
    return result_table.Grid(["run", "components", *titles], rows)


def _differences(runs: dict[str, run_reader.Run]) -> result_table.Grid | None:
    configs = [result_table.flatten_dict(run.config) for run in runs.values()]
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = [[key, *(config.get(key, ABSENT) for config in configs)] for key in keys]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    return result_table.Grid(["setting", *runs], rows) if rows else None


def render_page(out: Path, sections: list[Section], **content: Any) -> Path:
    """Fill the template and move the file into place, so that readers never see half a page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["short"] = result_table.shorten_hash
    page = environment.get_template("template.html").render(
        sections=[section for section in sections if section.content],
        absent=[section for section in sections if not section.content],
        **content,
    )
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    unfinished.write_text(page.strip() + "\n", encoding="utf-8", errors="backslashreplace")
    unfinished.replace(out)
    return out
