"""Plots of the training curves, probes and Koopman spectra, grouped for the page."""

from typing import NamedTuple

import numpy as np

from vrl_jax.report import run_reader, svg_plots

History = list[run_reader.Record]

# Indicators of collapse: a description, and the value below which features count as collapsed.
COLLAPSE = {
    "collapse/feature_std": ("standard deviation of the features", 0.1),
    "collapse/effective_rank": ("effective rank of the features", 2.0),
}
ACCURACIES = {"linear": "Linear probe accuracy", "knn": "kNN accuracy"}
SHARES = {**ACCURACIES, "retrieval": "Retrieval recall at the smallest k"}  # curves from 0 to 100 %
TITLES = {"score": "score (mean held-out probe accuracy)"}
GREY = "#777777"


class Group(NamedTuple):
    """Plots under one heading; the first group of a section has none."""

    heading: str
    plots: list[svg_plots.Plot]


def training_plots(metrics: History) -> list[Group]:
    """Return one plot of the loss and its terms, and one of every other quantity."""
    groups = []
    for heading, keys in _by_prefix(metrics).items():
        loss = [key for key in keys if key == "loss" or key.startswith("loss/")]
        plots = [_shared("Loss and its terms", metrics, loss)] if loss else []
        plots += [_single(metrics, key) for key in keys if key not in loss]
        groups.append(Group(heading, plots))
    return groups


def probe_plots(history: History) -> list[Group]:
    """Return one plot per kind of probe, and one of every other quantity such as collapse."""
    plots = []
    keys = run_reader.history_keys(history)
    for prefix, title in SHARES.items():
        labels = [key.split("/", 1)[1] for key in keys if key.startswith(f"{prefix}/")]
        if labels:
            plots.append(_accuracy(title, prefix, history, labels))
    rest = [key for key in keys if key.split("/")[0] not in (*SHARES, "chance")]
    plots += [_single(history, key) for key in rest]
    return [Group("", plots)] if plots else []


def overlay_runs(histories: dict[str, History]) -> list[Group]:
    """Return one plot per quantity with a curve for each run that has it."""
    everything = [record for history in histories.values() for record in history]
    return [
        Group(heading, [_overlaid(histories, key) for key in keys])
        for heading, keys in _by_prefix(everything).items()
        if heading != "chance"
    ]


def spectrum_plots(spectrum: run_reader.Spectrum) -> list[Group]:
    """Return the eigenvalues at the first, middle and last probe, and their development."""
    steps = spectrum.steps.astype(float)
    chosen = sorted({0, len(steps) // 2, len(steps) - 1})
    planes = [
        svg_plots.draw_spectrum(f"Step {steps[i]:,.0f}", spectrum.eigenvalues[i], spectrum.radius)
        for i in chosen
    ]
    share = [
        svg_plots.static_eigenvalue_share(values, spectrum.radius)
        for values in spectrum.eigenvalues
    ]
    curves = {"Share of eigenvalues in the static disc": (np.array(share), True)}
    if spectrum.static_rank is not None:
        curves["Effective static rank tr f(S), mean over clips"] = (
            spectrum.static_rank.mean(1),
            False,
        )
    over_time = [
        svg_plots.draw_curves(
            title,
            [svg_plots.Line(title, steps, values, svg_plots.PALETTE[0])],
            percent,
            legend=False,
        )
        for title, (values, percent) in curves.items()
    ]
    return [Group("", planes), Group("Over training", over_time)]


def _by_prefix(history: History) -> dict[str, list[str]]:
    """Return keys by heading: the loss, its terms and names without a prefix come first."""
    keys = run_reader.history_keys(history)
    groups = {"": [key for key in keys if key == "loss"]}
    groups[""] += [key for key in keys if key.startswith("loss/")]
    groups[""] += [key for key in keys if "/" not in key and key != "loss"]
    for key in keys:
        if "/" in key and not key.startswith("loss/"):
            groups.setdefault(key.split("/")[0], []).append(key)
    return {heading: names for heading, names in groups.items() if names}


def _shared(title: str, history: History, keys: list[str]) -> svg_plots.Plot:
    lines = []
    for index, key in enumerate(keys):
        color, dash = ("#000000", "solid") if key == "loss" else svg_plots.curve_style(index - 1)
        lines.append(svg_plots.Line(key, *run_reader.history_series(history, key), color, dash))
    return svg_plots.draw_curves(title, lines, wide=True)


def _single(history: History, key: str) -> svg_plots.Plot:
    steps, values = run_reader.history_series(history, key)
    lines = [svg_plots.Line(key, steps, values, svg_plots.PALETTE[0])]
    if key in COLLAPSE:
        lines.append(_level("collapse threshold", steps, COLLAPSE[key][1], svg_plots.WARNING))
    return svg_plots.draw_curves(TITLES.get(key, key), lines, legend=key in COLLAPSE)


def _accuracy(title: str, prefix: str, history: History, labels: list[str]) -> svg_plots.Plot:
    curves, chances = [], []
    for index, label in enumerate(labels):
        color, dash = svg_plots.curve_style(index)
        curves.append(
            svg_plots.Line(
                label, *run_reader.history_series(history, f"{prefix}/{label}"), color, dash
            )
        )
        steps, values = run_reader.history_series(history, f"chance/{label}")
        if prefix in ACCURACIES and len(steps):
            chances.append(svg_plots.Line(f"chance, {label}", steps, values, color, "dotted"))
    return svg_plots.draw_curves(title, curves + chances, percent=True, wide=prefix == "linear")


def _overlaid(histories: dict[str, History], key: str) -> svg_plots.Plot:
    lines, levels = [], []
    prefix, _, label = key.partition("/")
    for index, (name, history) in enumerate(histories.items()):
        steps, values = run_reader.history_series(history, key)
        if not len(steps):
            continue
        lines.append(svg_plots.Line(name, steps, values, *svg_plots.curve_style(index)))
        steps, values = run_reader.history_series(history, f"chance/{label}")
        if prefix in ACCURACIES and len(steps):
            levels.append(svg_plots.Line(f"chance of {name}", steps, values, GREY, "dotted"))
        if key in COLLAPSE:
            levels.append(_level("collapse threshold", lines[-1].steps, COLLAPSE[key][1], GREY))
    return svg_plots.draw_curves(
        TITLES.get(key, key), lines + levels, percent=prefix in SHARES, legend=False
    )


def _level(label: str, steps: np.ndarray, value: float, color: str) -> svg_plots.Line:
    return svg_plots.Line(label, steps, np.full(len(steps), value), color, "dotted")
