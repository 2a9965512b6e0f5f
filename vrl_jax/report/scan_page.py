"""Pages of scanned encoders: one encoder layer by layer, and several encoders side by side."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vrl_jax.report import html_page, result_table, svg_plots
from vrl_jax.report.plot_panels import Group
from vrl_jax.report.result_table import Grid
from vrl_jax.report.scan_card import NO_LAYER, LayerResult, ScanCard
from vrl_jax.report.summary_cards import Card

NOT_SCANNED = ("leakage", "koopman")  # parts of the report on factors that have no layers
FIRST = ("order/ordered", "attentive/ordered", "floor/appearance", "floor/motion")  # columns
BANDS = (*FIRST[:2], "arrow/forward-backward")  # results whose intervals are drawn
DRAWN = (  # results that a drawing shows, at most as many as there are colours
    *("order/ordered", "attentive/ordered", "order/shuffled", "order/reversed", "order/frozen"),
    *("scuba/scuba", "conflict/moving"),
    *("arrow/forward-backward", "rank/effective"),
    *("units/static", "units/dynamic", "units/joint", "units/residual"),
)
TITLES = {
    "static": "Label static: appearance",
    "dynamic": "Label dynamic: motion",
    "direction": "Arrow of time",
    "restyled": "Units, from restyled and shuffled clips",
    "known factors": "Units, from videos with one factor changed",
    "clips": "Effective rank",
}
NOTES = {
    "direction": "Linear probe that separates forward from backward clips.",
    "restyled": "Shares of channels that respond to appearance (static), to motion (dynamic), to "
    "both (joint) or to neither (residual).",
    "clips": "Exponential of the entropy of the singular values of centred features: the number of "
    "directions that are in use.",
}
NOTES["known factors"] = NOTES["restyled"]
LABEL_NOTES = {  # by the part of a result's name before "/"
    "order": "order: linear probe on the features of the layer, averaged over time and space, "
    "trained on ordered clips; tested on frames in order, shuffled, reversed, one frame repeated "
    "(frozen), every second frame shown twice (held).",
    "attentive": "attentive: attentive probe on tokens, with positions in time.",
    "scuba": "scuba: the foreground on stripes; scufo: with one frame repeated; contrasted: "
    "correct on scuba and wrong on scufo.",
    "scuba-stills": "scuba-stills: on stills of other videos.",
    "conflict": "conflict: on stripes beside the still foreground of another video; moving: "
    "predicted as the moving one; still: as the still one.",
    "floor": "floor: linear probe on pixels, without an encoder.",
}


def write_scan(card: ScanCard, out: Path) -> Path:
    """Write the page of one encoder and return its path."""
    sections, notes = [], {""}
    for label in dict.fromkeys(result.label for result in card.results):
        title, note = TITLES.get(label, f"Label {label}"), _note(card, label)
        drawing = [Group("", [draw_layers(card, label)])]
        sections += [
            html_page.Section(title, "plots", drawing, "", "" if note in notes else note),
            html_page.Section(f"{title}, all results", "grid", layer_grid(card, label), ""),
        ]
        notes.add(note)
    settings = {"Protocol": card.protocol | {"data": card.data}, "Encoder": card.model}
    sections += [
        html_page.Section(title, "settings", result_table.flatten_dict(tree), "")
        for title, tree in settings.items()
    ]
    return html_page.render_page(
        out,
        title=f"Scan of {card.name}",
        subtitle=f"{result_table.encoder_name(card.model)} · {_describe_data(card)}",
        cards=[_headline(card, result) for result in card.results if _is_headline(card, result)],
        warnings=[
            f"not measured: {name} ({text})"
            for name, text in card.skipped.items()
            if name not in NOT_SCANNED
        ],
        legend=[],
        sections=sections,
    )


def write_comparison(cards: list[ScanCard], out: Path, sort: str = "") -> Path:
    """Write one page with a table for every protocol and return its path.

    Args:
      cards: of the encoders.
      out: the page.
      sort: result and label whose value orders the encoders, such as "order/ordered dynamic"; ""
        keeps their order.

    Raises:
      ValueError: no card has the result of `sort`.
    """
    name, _, label = sort.partition(" ")
    columns = dict.fromkeys(f"{r.name} {r.label}" for card in cards for r in card.results)
    if sort and sort not in columns:
        raise ValueError(f"--sort must be one of {', '.join(columns)}, got {sort!r}")
    groups: dict[str, list[ScanCard]] = {}
    for card in cards:
        groups.setdefault(card.measure, []).append(card)
    stamps = [
        result_table.flatten_dict(first.shared_protocol | {"data": first.data})
        for first, *_ in groups.values()
    ]
    sections = []
    for members, stamp in zip(groups.values(), stamps, strict=True):
        if sort:
            members.sort(key=lambda card: -_last_value(card, name, label))
        differs = [
            f"{key} {result_table.shorten_hash(text)}"
            for key, text in stamp.items()
            if any(other.get(key) != text for other in stamps)
        ]
        title = ", ".join([_describe_data(members[0]), *differs])
        grid = compare_grid(members, name, label)
        ordered = (r.label for card in members for r in card.results if r.name == FIRST[0])
        drawn = [draw_depths(members, each) for each in dict.fromkeys(ordered)]
        sections += [
            html_page.Section(f"By depth, {title}", "plots", [Group("", drawn)], ""),
            html_page.Section(f"Last layer, {title}", "grid", grid, ""),
            html_page.Section(f"Protocol: {title}", "settings", stamp, ""),
        ]
    return html_page.render_page(
        out,
        title=f"Comparison of {len(cards)} scans",
        subtitle=f"by {sort}" if sort else "",
        cards=[],
        warnings=[f"{len(groups)} protocols, which are not comparable"] * (len(groups) > 1),
        legend=[],
        sections=sections,
    )


def layer_grid(card: ScanCard, label: str) -> Grid:
    """Return the results of one label: a row per layer, also untrained, and one of pixels."""
    names = list(dict.fromkeys(r.name for r in card.results if r.label == label))
    names.sort(key=_column_rank)
    rows = []
    for untrained in (False, True):
        for layer in [*card.layers, *[NO_LAYER] * (not untrained)]:
            cells = [card.find_result(layer, name, label, untrained) for name in names]
            if any(cells):
                title = layer + ", untrained" * untrained or "pixels, no encoder"
                rows.append([title, *map(format_result, cells)])
    return Grid(["layer", *names], rows)


def compare_grid(cards: list[ScanCard], name: str, label: str) -> Grid:
    """Return a row per encoder with the values of its last layer, the untrained one below it.

    If a result orders the rows, the first columns of numbers are its best layer and its values.
    """
    keys = dict.fromkeys((r.name, r.label) for card in cards for r in card.results)
    keys = [key for key in keys if not key[0].startswith("floor/")]
    keys.sort(key=lambda key: (key != (name, label), _column_rank(key[0])))
    rows = []
    for card in cards:
        for untrained in (False, True):
            layer = card.layers[-1]
            cells = [card.find_result(layer, *key, untrained) for key in keys]
            if not any(cells):
                continue
            layers = [card.find_result(each, name, label, untrained) for each in card.layers]
            best = max(filter(None, layers), key=lambda result: result.value, default=None)
            rows.append(
                [
                    card.name + ", untrained" * untrained,
                    result_table.encoder_name(card.model),
                    str(card.protocol.get("resolution", "")),
                    *[f"{best.layer}: {format_result(best)}" if best else "—"] * bool(name),
                    *map(format_result, cells),
                ]
            )
    best_title = [f"best layer in {name} {label}"] * bool(name)
    titles = [f"{key[0]} {key[1]}" for key in keys]
    return Grid(["scan", "encoder", "resolution", *best_title, *titles], rows)


def format_result(result: LayerResult | None) -> str:
    """Return a number with its interval as text."""
    if result is None:
        return html_page.ABSENT
    percent = result_table.is_fraction(result.metric)
    text = result_table.format_number(result.value, percent)
    if result.interval is None:
        return text
    low, high = (result_table.format_number(v, percent).removesuffix(" %") for v in result.interval)
    return f"{text} ({low} to {high})"


def draw_layers(card: ScanCard, label: str) -> svg_plots.Plot:
    """Draw the results of one label over the layers, with bands for intervals."""
    own = [r for r in card.results if r.label == label and r.layer in card.layers]
    names = [name for name in DRAWN if any(r.name == name for r in own)]
    lines, bands = [], []
    for number, name in enumerate(names):
        for untrained in (False, True):
            results = [r for r in own if r.name == name and r.untrained == untrained]
            if not results or (untrained and number and not name.startswith("units/")):
                continue  # of the untrained encoder, only the first accuracy is drawn
            at = np.array([card.layers.index(r.layer) for r in results])
            values = np.array([r.value for r in results])
            color, dash = svg_plots.curve_style(number)[0], "dashed" if untrained else "solid"
            lines.append(svg_plots.Line(name + ", untrained" * untrained, at, values, color, dash))
            if not untrained and results[0].interval and name in BANDS:
                bands.append((at, *np.array([r.interval for r in results]).T, color))
    chance = next((r.chance for r in own if r.name == names[0] and r.chance is not None), None)
    percent = result_table.is_fraction(own[0].metric)

    def adjust(axes: Axes) -> None:
        for at, low, high, color in bands:
            axes.fill_between(at, low, high, color=color, alpha=0.12, lw=0)
        if chance is not None:
            axes.axhline(chance, color="#000000", ls="dotted", lw=1.1)
        shown = range(0, len(card.layers), -(-len(card.layers) // 12))
        axes.set_xticks([*shown], [card.layers[index][:20] for index in shown])
        axes.set_xlim(-0.5, len(card.layers) - 0.5)

    drawing = _draw_lines(f"{card.name} {label}", lines, percent, adjust)
    alt = f"{label} by layer: {_describe_ends(lines)}"
    return svg_plots.Plot("", drawing, alt, tuple(lines), wide=True)


def draw_depths(cards: list[ScanCard], label: str) -> svg_plots.Plot:
    """Draw the accuracy of the linear probe on a label over depth, one curve per encoder.

    Depth is 0 at the first layer and 1 at the last.
    """
    lines = []
    for number, card in enumerate(cards):
        results = [card.find_result(layer, FIRST[0], label) for layer in card.layers]
        depths = np.linspace(0, 1, len(results)) if len(results) > 1 else [1.0]
        at = [depth for depth, result in zip(depths, results, strict=True) if result]
        values = [result.value for result in results if result]
        if values:
            style = svg_plots.curve_style(number)
            lines.append(svg_plots.Line(card.name, np.array(at), np.array(values), *style))
    title = f"{FIRST[0]} {label} by depth"
    drawing = _draw_lines(
        title, lines, True, lambda axes: axes.set(xlim=(-0.02, 1.02), xlabel="depth")
    )
    alt = f"{title}: {_describe_ends(lines)}"
    return svg_plots.Plot(title, drawing, alt, tuple(lines), wide=True)


def _draw_lines(
    name: str, lines: list[svg_plots.Line], percent: bool, adjust: Callable[[Axes], object]
) -> str:
    """Return curves with a marker at every value as SVG; `adjust` adds to their axes."""
    with matplotlib.rc_context(svg_plots.STYLE):
        figure = Figure(figsize=(7.0, 2.8), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            axes.plot(line.steps, line.values, color=line.color, ls=line.dash, marker="o", ms=3)
        adjust(axes)
        if percent:
            axes.set_ylim(-0.02, 1.02)
            axes.yaxis.set_major_formatter(svg_plots.format_percent)
        return svg_plots.figure_svg(figure, name)


def _describe_ends(lines: list[svg_plots.Line]) -> str:
    return ", ".join(f"{line.label} {line.values[-1]:.3g} at the last layer" for line in lines)


def _note(card: ScanCard, label: str) -> str:
    """Return how to read the results of a label: what was measured and drawn, and nothing else."""
    own = [result for result in card.results if result.label == label]
    prefixes = dict.fromkeys(result.name.partition("/")[0] for result in own)
    notes = [NOTES.get(label, "")]
    if label not in NOTES:
        notes = [LABEL_NOTES[prefix] for prefix in prefixes if prefix in LABEL_NOTES]
    if any(result.interval for result in own):
        notes.append("In parentheses, and as bands of ordered clips, 95 % intervals.")
    if any(result.untrained for result in own):
        notes.append("Dashed lines are the encoder without training.")
    if any(result.chance is not None for result in own):
        notes.append("Dotted lines mark chance, the share of the most frequent class.")
    return " ".join(notes)


def _last_value(card: ScanCard, name: str, label: str) -> float:
    result = card.find_result(card.layers[-1], name, label)
    return result.value if result else -np.inf


def _is_headline(card: ScanCard, result: LayerResult) -> bool:
    names = ("order/ordered", "arrow/forward-backward", "rank/effective")
    return result.name in names and result.layer == card.layers[-1] and not result.untrained


def _headline(card: ScanCard, result: LayerResult) -> Card:
    """Return a result of the last layer, with its best layer and chance."""
    percent = result_table.is_fraction(result.metric)
    title = result.label if result.name.startswith("order/") else result.name
    layers = [card.find_result(layer, result.name, result.label) for layer in card.layers]
    best = max(filter(None, layers), key=lambda each: each.value)
    notes = ["last layer", f"best {best.layer}, {result_table.format_number(best.value, percent)}"]
    if result.chance is not None:
        notes.append(f"chance {result_table.format_number(result.chance, percent)}")
    return Card(title, result_table.format_number(result.value, percent), "; ".join(notes))


def _column_rank(name: str) -> int:
    """Return the position of a result's column: chief results first, others as they are."""
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _describe_data(card: ScanCard) -> str:
    """Return the videos and clips of a scan in words."""
    protocol, counts = card.protocol, (f"{card.videos[part]:,}" for part in ("train", "test"))
    videos = f"{card.data.get('set')}, {' + '.join(counts)} videos"
    clips = f"{protocol.get('clips')} x {protocol.get('frames')} frames"
    return f"{videos}, {protocol.get('split')}, {clips}"
