"""One picture of several experiments: what each probe finds, over a setting that was varied."""

import os
import pathlib
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vrl_jax.report.plot import STYLE, curve_style

# One value per seed, by value of the setting and name of the probe.
SweepResults = Mapping[str, Mapping[str, list[float]]]


def draw_sweep(path: pathlib.Path, experiments: Mapping[str, SweepResults], setting: str) -> None:
    """Draw mean and standard deviation over seeds: a panel a probe, a curve an experiment.

    Args:
      path: of the picture; its ending decides the format.
      experiments: what was found, by the experiment's name; a word that all names of several
        words begin with (up to a "_") is left out.
      setting: what the horizontal axis is; values that are no numbers stand evenly on it, and with
        a single value experiments stand side by side instead.
    """
    probes = list(
        dict.fromkeys(p for found in experiments.values() for v in found.values() for p in v)
    )
    values = list(dict.fromkeys(v for found in experiments.values() for v in found))
    numbers = all(map(_is_number, values))
    places = {value: float(value) if numbers else at for at, value in enumerate(values)}
    several = [name for name in experiments if "_" in name]
    shared = os.path.commonprefix(several) if len(several) > 1 else ""
    names = [name.removeprefix(shared[: shared.rfind("_") + 1]) for name in experiments]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * max(1, len(probes)), 3.2), layout="constrained")
        for panel, probe in enumerate(probes):
            axes = figure.add_subplot(1, len(probes), panel + 1)
            axes.set(title=probe, ylim=(0, 1.02), xlabel=setting if len(values) > 1 else "")
            for index, found in enumerate(experiments.values()):
                color, dash = curve_style(index)
                given = [value for value in values if probe in found.get(value, {})]
                means = [np.mean(found[value][probe]) for value in given]
                spread = [np.std(found[value][probe]) for value in given]
                along = [places[v] if len(values) > 1 else index for v in given]
                axes.errorbar(
                    along, means, spread, color=color, linestyle=dash, marker="o", markersize=4,
                    capsize=2, label=names[index],
                )  # fmt: skip
            if len(values) == 1:
                axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
            elif not numbers:
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
