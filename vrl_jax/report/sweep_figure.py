"""Probe accuracies of several experiments over a varied setting."""

import os
import pathlib
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vrl_jax.report.svg_plots import STYLE, curve_style

# One value per seed, by value of the setting and name of the probe.
SweepResults = Mapping[str, Mapping[str, list[float]]]


def draw_sweep(path: pathlib.Path, experiments: Mapping[str, SweepResults], setting: str) -> None:
    """Draw mean and standard deviation over seeds: a panel per probe, a curve per experiment.

    Args:
      path: of the picture; its suffix determines the format.
      experiments: results by the experiment's name; a prefix up to a "_" that all compound names
        share is dropped from the labels.
      setting: name of the horizontal axis. Values that are not numbers are evenly spaced. With a
        single value, experiments are side by side instead.
    """
    probes = list(
        dict.fromkeys(p for results in experiments.values() for v in results.values() for p in v)
    )
    values = list(dict.fromkeys(v for results in experiments.values() for v in results))
    numeric = all(map(_is_number, values))
    positions = {value: float(value) if numeric else i for i, value in enumerate(values)}
    compound = [name for name in experiments if "_" in name]
    shared = os.path.commonprefix(compound) if len(compound) > 1 else ""
    names = [name.removeprefix(shared[: shared.rfind("_") + 1]) for name in experiments]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * max(1, len(probes)), 3.2), layout="constrained")
        for panel, probe in enumerate(probes):
            axes = figure.add_subplot(1, len(probes), panel + 1)
            axes.set(title=probe, ylim=(0, 1.02), xlabel=setting if len(values) > 1 else "")
            for index, results in enumerate(experiments.values()):
                color, dash = curve_style(index)
                measured = [value for value in values if probe in results.get(value, {})]
                means = [np.mean(results[value][probe]) for value in measured]
                spread = [np.std(results[value][probe]) for value in measured]
                x = [positions[v] if len(values) > 1 else index for v in measured]
                axes.errorbar(
                    x, means, spread, color=color, linestyle=dash, marker="o", markersize=4,
                    capsize=2, label=names[index],
                )  # fmt: skip
            if len(values) == 1:
                axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
            elif not numeric:
                axes.set_xticks(range(len(values)), values, rotation=20, ha="right")
        handles, labels = figure.axes[0].get_legend_handles_labels() if probes else ([], [])
        if len(values) > 1 and handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
        figure.savefig(path, dpi=160)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
