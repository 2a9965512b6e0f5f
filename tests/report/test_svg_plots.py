import base64
import io
import re
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image

from vrl_jax.report import svg_plots


def line(n, rng, label="a"):
    return svg_plots.Line(
        label, np.arange(n, dtype=float), rng.normal(size=n), *svg_plots.curve_style(0)
    )


def test_ids_of_two_plots_never_meet_and_every_reference_resolves(rng):
    drawings = [
        svg_plots.draw_curves("a", [line(5, rng)]).svg,
        svg_plots.draw_curves("b", [line(9, rng)]).svg,
    ]
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in drawings]
    assert ids[0] and not set(ids[0]) & set(ids[1])
    for svg, own in zip(drawings, ids, strict=True):
        references = re.findall(r'href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)\)", svg)
        assert references and set(references) <= set(own)


def test_svg_is_whole_and_points_nowhere(rng):
    values = rng.normal(size=(4, 7)) + 1j * rng.normal(size=(4, 7))
    for drawing in (
        svg_plots.draw_curves("a", [line(5, rng)]),
        svg_plots.draw_spectrum("b", values, 0.1),
    ):
        xml.etree.ElementTree.fromstring(drawing.svg.replace("xlink:", ""))
        assert "http" not in drawing.svg


def test_same_data_make_the_same_drawing():
    first, second = (
        svg_plots.draw_curves("a", [line(5, np.random.default_rng(0))]).svg for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("n", [1, svg_plots.MAX_POINTS, svg_plots.MAX_POINTS + 1, 1000])
def test_thin_keeps_short_curves_and_means_of_long_ones(rng, n):
    values = rng.normal(size=n)
    thinned = svg_plots.thin_curve(values)
    if n <= svg_plots.MAX_POINTS:
        np.testing.assert_array_equal(thinned, values)
        return
    edges = [n * i // svg_plots.MAX_POINTS for i in range(svg_plots.MAX_POINTS + 1)]
    expected = [values[0]]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        expected.append(sum(values[start:stop]) / (stop - start))
    np.testing.assert_allclose(thinned, expected, rtol=1e-12)


@pytest.mark.parametrize("radius", [0.1, 0.5])
def test_static_share_counts_the_disc(rng, radius):
    values = 1 + 0.5 * (rng.normal(size=(6, 7)) + 1j * rng.normal(size=(6, 7)))
    inside = sum((v.real - 1) ** 2 + v.imag**2 <= radius**2 for v in values.ravel())
    assert svg_plots.static_eigenvalue_share(values, radius) == inside / 42


def test_spectrum_survives_eigenvalues_that_are_far_or_not_numbers():
    drawing = svg_plots.draw_spectrum("a", np.array([1, 40j, np.nan, 0.5]), 0.1)
    assert "33.3% inside" in drawing.alt
    assert "1 outside the axes" in drawing.alt


def test_curves_say_in_words_what_they_show():
    drawing = svg_plots.draw_curves(
        "loss", [svg_plots.Line("a", np.array([2.0, 9]), np.array([5.5, 1.25]), "#000")]
    )
    assert "a: from 5.5 at 2 to 1.25 at 9" in drawing.alt


@pytest.mark.parametrize(("t", "h", "w", "count"), [(8, 24, 24, 6), (3, 20, 40, 3), (1, 30, 15, 1)])
def test_strip_shows_frames_from_first_to_last(t, h, w, count):
    clip = np.empty((t, h, w, 3), np.uint8)
    clip[:] = np.linspace(0, 250, t).astype(np.uint8)[:, None, None, None]
    kind, data = svg_plots.film_strip(clip).split(",")
    film = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert kind == "data:image/jpeg;base64"
    width = 72 * w // h
    assert film.shape == (72, count * width + (count - 1) * 2, 3)
    for position in range(count):
        frame = round(position * (t - 1) / max(count - 1, 1))
        middle = film[36, position * (width + 2) + width // 2, 0]
        assert abs(int(middle) - int(clip[frame, 0, 0, 0])) <= 6
