"""Curves and spectra as SVG, clips as film strips."""

import base64
import hashlib
import io
import re
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from PIL import Image

# Okabe and Ito (2008): distinguishable with every kind of colour vision.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("solid", "dashed", "dashdot")
WARNING = "#d55e00"
MAX_POINTS = 160  # of a curve; longer ones are averaged over neighbouring points
MAX_MODULUS = 1.5  # eigenvalues further out do not enlarge the axes

STYLE = {
    "svg.fonttype": "none",  # text stays text: small, sharp, searchable
    "text.parse_math": False,  # a "$" in a name is a "$"
    "svg.hashsalt": "report",  # the same data make the same page
    "font.sans-serif": ["DejaVu Sans"],  # wider than the fonts that browsers substitute
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "axes.labelcolor": "#444444",
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Line:
    """One curve: `values` over `steps`, both float[n]; a dotted line is a reference level."""

    label: str
    steps: np.ndarray
    values: np.ndarray
    color: str
    dash: str = "solid"


@dataclass(frozen=True)
class Plot:
    """One drawing with its title, alternative text and legend."""

    title: str
    svg: str
    alt: str
    legend: tuple[Line, ...] = ()
    wide: bool = False


def curve_style(index: int) -> tuple[str, str]:
    """Return colour and dash of the `index`-th curve of a plot."""
    return PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)]


def format_percent(value: float, position: int | None = None) -> str:
    """Return the tick label of a fraction; matplotlib passes a `position` to formatters."""
    return f"{100 * value:.4g}%"


def draw_curves(
    title: str,
    lines: list[Line],
    percent: bool = False,
    wide: bool = False,
    legend: bool = True,
) -> Plot:
    """Draw curves over the training step; long ones are averaged over neighbouring points.

    Args:
      title: above the plot.
      lines: the curves, in drawing order.
      percent: whether the values are fractions, drawn on an axis from 0 to 100 %.
      wide: whether the plot is two columns wide.
      legend: whether the plot has a legend of its own.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0 if wide else 3.4, 2.1), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            _draw(axes, line)
        axes.set_xlabel("step")
        if len(steps := np.unique(np.concatenate([[], *(line.steps for line in lines)]))) == 1:
            axes.set_xlim(steps[0] - 1, steps[0] + 1)  # else all ticks would have one label
        axes.xaxis.set_major_locator(
            MaxNLocator(7 if wide else 4, steps=[1, 2, 2.5, 5, 10], integer=True)
        )
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        if percent:
            axes.set_ylim(-0.02, 1.02)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        else:
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            axes.ticklabel_format(axis="y", useOffset=False, scilimits=(-3, 5))
        drawing = figure_svg(figure, title)
    texts = "; ".join(_describe(line) for line in lines)
    return Plot(
        title, drawing, f"{title} over steps. {texts}", tuple(lines) if legend else (), wide
    )


def draw_spectrum(title: str, eigenvalues: np.ndarray, radius: float) -> Plot:
    """Draw eigenvalues, complex[...], with the unit circle and the static disc |λ − 1| ≤ radius."""
    values = eigenvalues[np.isfinite(eigenvalues)]
    whole_disc = 1.08 + radius
    limit = max(whole_disc, min(1.05 * np.abs(values).max(initial=0), MAX_MODULUS))
    beyond = int((np.maximum(abs(values.real), abs(values.imag)) > limit).sum())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4, 3.2), layout="constrained")
        axes = figure.add_subplot(aspect="equal", xlim=(-limit, limit), ylim=(-limit, limit))
        axes.add_patch(Circle((0, 0), 1, fill=False, color="#888888", lw=0.8))
        axes.add_patch(Circle((1, 0), radius, color="#009e73", alpha=0.3, lw=0))
        axes.add_patch(Circle((1, 0), radius, fill=False, color="#009e73", lw=1.2, zorder=3))
        axes.scatter(
            values.real,
            values.imag,
            s=7,
            color=PALETTE[0],
            alpha=float(np.clip(300 / max(values.size, 1), 0.1, 0.6)),
            linewidths=0,
            rasterized=True,  # thousands of dots become one small picture
        )
        axes.set_xlabel("Re λ", labelpad=1)
        axes.set_ylabel("Im λ", labelpad=0)
        axes.set_xticks([-1, 0, 1])
        axes.set_yticks([-1, 0, 1])
        drawing = figure_svg(figure, title)
    share = static_eigenvalue_share(eigenvalues, radius)
    alt = (
        f"{title}: {values.size} eigenvalues in the complex plane, "
        f"{share:.1%} inside the static disc, {beyond} outside the axes"
    )
    return Plot(title, drawing, alt)


def static_eigenvalue_share(eigenvalues: np.ndarray, radius: float) -> float:
    """Return the share of eigenvalues, complex[...], with |λ − 1| ≤ radius."""
    values = eigenvalues[np.isfinite(eigenvalues)]
    return float((np.abs(values - 1) <= radius).mean())


def film_strip(clip: np.ndarray, frames: int = 6, height: int = 72) -> str:
    """Return evenly spaced frames of a clip, u8[t, h, w, 3], side by side as a data URI."""
    chosen = np.linspace(0, len(clip) - 1, min(frames, len(clip))).round().astype(int)
    width = round(height * clip.shape[2] / clip.shape[1])
    film = Image.new("RGB", (len(chosen) * (width + 2) - 2, height), "white")
    for position, index in enumerate(chosen):
        frame = Image.fromarray(clip[index]).resize((width, height))
        film.paste(frame, (position * (width + 2), 0))
    stream = io.BytesIO()
    film.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _draw(axes: Axes, line: Line) -> None:
    steps, values = thin_curve(line.steps), thin_curve(line.values)
    level = line.dash == "dotted"
    axes.plot(
        steps,
        values,
        color=line.color,
        linestyle=line.dash,
        linewidth=1.1 if level else 1.4,
        alpha=0.9,
        marker="" if level or len(steps) > 30 else "o",
        markersize=3,
    )


def thin_curve(values: np.ndarray) -> np.ndarray:
    """Return float[n] as its first value and `MAX_POINTS` means over segments of equal length."""
    if len(values) <= MAX_POINTS:
        return values
    edges = np.linspace(0, len(values), MAX_POINTS + 1).astype(int)
    means = np.add.reduceat(values, edges[:-1]) / np.diff(edges)
    return np.append(values[0], means)


def _describe(line: Line) -> str:
    if not len(line.values):
        return f"{line.label}: no points"
    ends = (f"{line.values[i]:.4g} at {line.steps[i]:.0f}" for i in (0, -1))
    return f"{line.label}: from {' to '.join(ends)}"


def figure_svg(figure: Figure, title: str) -> str:
    """Return the figure as SVG for embedding in a page with others.

    Ids get a prefix that is unique on the page. Parts that only a standalone file needs are
    removed: declarations, namespaces, metadata, a style sheet for `*`.
    """
    stream = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", dpi=200, metadata=no_metadata)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    prefix = f"i{hashlib.sha256((title + text).encode()).hexdigest()[:8]}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'href="#', f'href="#{prefix}', text)
    return re.sub(r"url\(#", f"url(#{prefix}", text)
