import pytest

from tests.report.conftest import made, result
from vrl_jax.report import factor_plots


def order(name, value, run="a", label="static", **changed):
    return made(result(f"order/{name}", label, value) | changed, run)


def test_results_are_grouped_by_prefix():
    results = [
        order("ordered", 0.75),
        made(result("linear", "static", 0.5), "a"),
        made(result("units/static", "", 0.25), "a"),
        order("reversed", 0.5, label="dynamic"),
        order("ordered", 0.25, label="dynamic"),
    ]
    one, units = factor_plots.factor_groups(results, ["a"])
    assert (one.heading, units.heading) == ("order", "units")
    (built,) = one.tables
    assert [column.title for column in built.columns] == ["ordered", "reversed"]
    assert [row.label for row in built.rows] == ["static", "dynamic"]
    (plot,) = one.plots
    assert plot.alt == "Bars: static: ordered 75.0 %; dynamic: reversed 50.0 %, ordered 25.0 %"
    assert [line.label for line in plot.legend] == ["static", "dynamic"]
    assert plot.svg.count("stroke-dasharray") >= 3  # a level of chance a bar


def test_runs_stand_side_by_side_in_a_plot_a_label():
    results = [
        order("ordered", value, run, label)
        for run, value in (("a", 0.5), ("b", 0.25))
        for label in ("static", "dynamic")
    ]
    (one,) = factor_plots.factor_groups(results, ["a", "b"])
    assert [plot.title for plot in one.plots] == [
        "static, top-1 accuracy",
        "dynamic, top-1 accuracy",
    ]
    assert one.plots[0].alt == "Bars: a: ordered 50.0 %; b: ordered 25.0 %"


def test_untrained_bars_are_pale_and_last():
    untrained = order("ordered", 0.125, model={"encoder": "Tiny", "init": "untrained"})
    (one,) = factor_plots.factor_groups([untrained, order("ordered", 0.75)], ["a"])
    assert one.plots[0].alt == "Bars: static: ordered 75.0 %; static untrained: ordered 12.5 %"
    full, pale = (
        [int(line.color[i : i + 2], 16) for i in (1, 3, 5)] for line in one.plots[0].legend
    )
    assert all(p > f for p, f in zip(pale, full, strict=True))


@pytest.mark.parametrize("again", [False, True])
def test_a_bar_never_mixes_protocols(again):
    """Names measured in one way each share a plot; once a name has two ways, tables part."""
    results = [
        order("ordered", 0.75),
        order("reversed", 0.5, protocol={"frames": 8}),
        *([order("ordered", 0.25, protocol={"frames": 8})] * again),
    ]
    kinds = factor_plots.factor_groups(results, ["a"])
    assert [len(kind.tables) for kind in kinds] == ([1, 1] if again else [2])
    alts = [plot.alt for kind in kinds for plot in kind.plots]
    if again:
        assert alts == [
            "Bars: static: ordered 75.0 %",
            "Bars: static: reversed 50.0 %, ordered 25.0 %",
        ]
    else:
        assert alts == ["Bars: static: ordered 75.0 %, reversed 50.0 %"]


def test_classes_with_the_widest_spread_come_first():
    names = [f"class {i}" for i in range(30)]
    results = [
        order("ordered", 0.75, per_class=dict.fromkeys(names, 0.9)),
        order("reversed", 0.5, per_class={name: 0.9 - i / 40 for i, name in enumerate(names)}),
    ]
    (one,) = factor_plots.factor_groups(results, ["a"])
    ((title, grid),) = one.classes.items()
    assert title == "static" and grid.header == ["class", "ordered", "reversed"]
    assert len(grid.rows) == factor_plots.MAX_CLASSES
    assert grid.rows[0] == ["class 29", "90.0 %", "17.5 %"]
    assert [row[0] for row in grid.rows[:3]] == ["class 29", "class 28", "class 27"]
