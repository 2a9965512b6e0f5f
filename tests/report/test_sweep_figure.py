import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from vrl_jax.report import sweep_figure


@pytest.fixture
def figure(monkeypatch):
    """Return the figures that are saved, to look into."""
    saved = []
    keep = matplotlib.figure.Figure.savefig

    def savefig(self, *args, **kwargs):
        saved.append(self)
        keep(self, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    return saved


def test_curves_stand_at_the_setting_s_values(tmp_path, figure):
    one = {
        "0.5": {"linear static": [0.4, 0.6], "linear dynamic": [0.1]},
        "1": {"linear static": [0.8]},
    }
    two = {"1": {"linear dynamic": [0.3]}}
    sweep_figure.draw_sweep(tmp_path / "plot.png", {"one": one, "two": two}, "data.p")
    static, dynamic = figure[0].axes
    assert (static.get_title(), static.get_xlabel()) == ("linear static", "data.p")
    line = static.containers[0].lines[0]
    np.testing.assert_allclose(line.get_xydata(), [[0.5, 0.5], [1.0, 0.8]])
    np.testing.assert_allclose(dynamic.containers[1].lines[0].get_xydata(), [[1.0, 0.3]])
    assert [text.get_text() for text in figure[0].legends[0].get_texts()] == ["one", "two"]
    with Image.open(tmp_path / "plot.png") as picture:
        assert min(picture.size) > 400


def test_without_a_setting_experiments_stand_side_by_side(tmp_path, figure):
    values = (("set_a", 0.2), ("set_b", 0.9))
    experiments = {name: {"": {"linear static": [value]}} for name, value in values}
    sweep_figure.draw_sweep(tmp_path / "plot.png", experiments, "")
    (axes,) = figure[0].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    assert not figure[0].legends


def test_nothing_found_draws_nothing_and_does_not_fail(tmp_path):
    sweep_figure.draw_sweep(tmp_path / "plot.png", {"a": {"": {}}}, "")
    assert (tmp_path / "plot.png").exists()


def test_values_that_are_no_numbers_stand_evenly(tmp_path, figure):
    one = {"plain": {"linear": [0.5]}, "resized": {"linear": [0.25]}}
    sweep_figure.draw_sweep(tmp_path / "plot.png", {"one": one}, "augment.crop")
    (axes,) = figure[0].axes
    assert axes.lines[0].get_xydata().tolist() == [[0, 0.5], [1, 0.25]]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["plain", "resized"]
