"""The header of a page: the run's components, its headline numbers, and warnings."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from vrl_jax.report import result_table, run_reader
from vrl_jax.report.plot_panels import ACCURACIES, COLLAPSE


class Card(NamedTuple):
    """One headline number; `note` gives a reference for it, such as chance."""

    title: str
    text: str
    note: str


def run_subtitle(run: run_reader.Run) -> str:
    """Return the names of the classes of a run's method, framework and encoder."""
    parts = []
    for part in ("method", "framework", "encoder"):
        if run.config.get(part):  # a method may have no framework
            parts.append(f"{part} {run.config[part]['kind'].rpartition(':')[2]}")
    return " · ".join(parts)


def summary_cards(run: run_reader.Run, tables: list[result_table.Table]) -> list[Card]:
    """Return the headline numbers: final results or else the last probe, then training."""
    return (_results(tables) or _probes(run.probes)) + training_cards(run.metrics)


def training_cards(metrics: list[run_reader.Record]) -> list[Card]:
    """Return the last logged step, its loss, and the wall time, where they were logged."""
    cards = []
    if metrics:
        epoch = last_value(metrics, "epoch")
        note = "" if epoch is None else f"epoch {result_table.format_number(epoch)}"
        cards.append(Card("last logged step", f"{last_value(metrics, 'step'):,.0f}", note))
    loss = last_value(metrics, "loss")
    if loss is not None:
        first = run_reader.history_series(metrics, "loss")[1][0]
        note = f"at first {result_table.format_number(first)}"
        cards.append(Card("last logged loss", result_table.format_number(loss), note))
    total = last_value(metrics, "wall_seconds")
    if total is not None:
        cards.append(Card("wall time", result_table.format_duration(total), "h:mm:ss"))
    return cards


def run_warnings(run: run_reader.Run) -> list[str]:
    """Return a sentence for each indicator of collapsed features or a diverged loss."""
    sentences = []
    for key, (name, threshold) in COLLAPSE.items():
        value = last_value(run.probes, key)
        if value is not None and not value >= threshold:  # NaN warns, too
            sentences.append(
                f"The features have collapsed: at the last probe the {name} is "
                f"{result_table.format_number(value)}, below "
                f"{result_table.format_number(threshold)}."
            )
    loss = last_value(run.metrics, "loss")
    if loss is not None and not np.isfinite(loss):
        sentences.append(f"The loss is {loss} at step {last_value(run.metrics, 'step'):,.0f}.")
    return sentences


def last_value(history: list[run_reader.Record], key: str) -> float | None:
    """Return the last value of a quantity, or None where it was never logged."""
    values = run_reader.history_series(history, key)[1]
    return float(values[-1]) if len(values) else None


def _results(tables: list[result_table.Table]) -> list[Card]:
    counts = Counter(part.title for part in tables)
    cards = []
    for part in tables:
        differences = [f"{key} {value}" for key, value in part.differs.items()]
        name = f"protocol {part.title}" if part.title else ""
        protocol = [name, *(differences if counts[part.title] > 1 else [])]
        for row in part.rows:
            for column in result_table.leading_columns(part.columns):
                if column in row.cells and not row.untrained:
                    cell = row.cells[column]
                    note = ", ".join(filter(None, [_chance(cell), *protocol]))
                    cards.append(Card(f"{column.title} {row.label}".strip(), cell.text, note))
    return cards


def _chance(cell: result_table.Cell) -> str:
    return (
        ""
        if cell.chance is None
        else f"chance {result_table.format_number(cell.chance, cell.percent)}"
    )


def _probes(history: list[run_reader.Record]) -> list[Card]:
    cards = []
    for key in run_reader.history_keys(history):
        prefix, _, label = key.partition("/")
        value, chance = last_value(history, key), last_value(history, f"chance/{label}")
        if prefix in ACCURACIES and value is not None:
            note = "" if chance is None else f"chance {result_table.format_number(chance, True)}, "
            note += f"at step {last_value(history, 'step'):,.0f}"
            cards.append(Card(f"{prefix} {label}", result_table.format_number(value, True), note))
    return cards
