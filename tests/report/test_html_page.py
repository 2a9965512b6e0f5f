import json
import pickle
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.arrays import load_arrays
from tests.report.conftest import dump, dump_lines, fake_run, metrics, predictions, probe, result
from vrl_jax.report import html_page, significance, svg_plots

NASTY = '<script>alert("x")</script>'


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def attributes(self, *names):
        return [a[name] for _, a in self.tags for name in names if name in a]


def headings(page):
    return re.findall(r"<h2>(.*?)</h2>", page.read_text())


@pytest.fixture(scope="module", autouse=True)
def drawn():
    """Curves by their values: those that pages have in common are drawn once."""
    draw, plots = svg_plots.draw_curves, {}

    def find(*args, **settings):
        key = pickle.dumps((args, settings))
        if key not in plots:
            plots[key] = draw(*args, **settings)
        return plots[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svg_plots, "draw_curves", find)
        yield plots


@pytest.fixture(scope="module")
def path(drawn, tmp_path_factory):
    """The report of a whole run, for tests that only look at it."""
    workdir = fake_run(tmp_path_factory.mktemp("runs") / "tiny_bod", np.random.default_rng(0))
    return html_page.write_report(workdir)


def test_page_shows_the_numbers_of_the_files(path):
    workdir = path.parent
    page = Page(path)
    for number in ("97.1 %", "62.9 %", "90.2 %", "44.5 %", "87.1 %", "95.3 %", "12.5 %"):
        assert number in page.text
    stored = {0.9713, 0.6287, 0.9024, 0.4451, 0.8712, 0.9533, 0.7321, 0.3217}
    assert {float(a["value"]) for tag, a in page.tags if tag == "data"} == stored
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    for text in (f"{last['loss']:.4g}", "0:01:40", "method bod · framework SimCLR", "0.10.2"):
        assert text in page.text
    neighbours = load_arrays(workdir / "neighbours.npz")
    for value in neighbours["similarity"].ravel():
        assert f"{value:.3f}" in page.text
    agreements = neighbours["same"]
    assert page.text.count("static ✓") == agreements[..., 0].sum()
    assert page.text.count("dynamic ✗") == (~agreements[..., 1]).sum()
    for label in neighbours["gallery_labels"][0]:
        assert page.text.count(label) == len(agreements)
    assert path.stat().st_size < 3e6


def test_page_is_one_file_that_reaches_nowhere(path):
    page = Page(path)
    sources = page.attributes("src", "href", "xlink:href")
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert {"script", "link", "iframe"}.isdisjoint(tag for tag, _ in page.tags)
    assert "url(http" not in page.text and "@import" not in page.text


def test_every_picture_has_words_and_every_id_is_single(path):
    page = Page(path)
    pictures = [a for tag, a in page.tags if tag == "img" or a.get("role") == "img"]
    assert len(pictures) > 20
    assert all(a.get("alt") or a.get("aria-label") for a in pictures)
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))


def test_writing_again_gives_the_same_page_and_leaves_nothing_behind(bare_workdir, rng, drawn):
    workdir = bare_workdir
    dump_lines(workdir / "metrics.jsonl", [metrics(rng, 1), metrics(rng, 2)])
    before = {path.name for path in workdir.iterdir()} | {"report.html"}
    first = html_page.write_report(workdir).read_text()
    drawn.clear()
    assert html_page.write_report(workdir).read_text() == first
    assert {path.name for path in workdir.iterdir()} == before


def test_resumed_run_shows_the_later_record(bare_workdir):
    lines = ['{"step": 200, "loss": 4.5}', '{"step": 200, "loss": 123.456}', '{"step": 201, "lo']
    (bare_workdir / "metrics.jsonl").write_text("\n".join(lines))
    assert "123.5" in Page(html_page.write_report(bare_workdir)).text


def test_classes_and_factors_have_sections(path):
    page = Page(path)
    assert headings(path)[:3] == ["Results", "Static and dynamic", "Classes"]
    stored = load_arrays(path.parent / "results" / "linear_static.npz")
    right = stored["labels"] == stored["predictions"]
    for i, name in enumerate(stored["classes"]):
        own = stored["labels"] == i
        assert name in page.text and f"{100 * right[own].mean():.1f} %" in page.text
    alts = [a["aria-label"] for _, a in page.tags if "aria-label" in a]
    assert "Bars: static: ordered 73.2 %, shuffled 32.2 %" in alts


def test_changes_and_untrained_encoders_stand_out(bare_workdir):
    def content(value, **changed):
        protocol = {"name": "dualvar", "changed": {"epochs": [2, 150]}}
        return result("linear", "static", value) | {"protocol": protocol} | changed

    untrained = content(0.1111, model={"encoder": "Tiny", "init": "untrained"})
    dump(bare_workdir / "results" / "a.json", untrained)
    dump(bare_workdir / "results" / "b.json", content(0.9713, top5=0.9999))
    out = html_page.write_report(bare_workdir)
    page = Page(out)
    order = ["dualvar (changed)", "epochs 2 (the protocol has 150)", "97.1 %", "100.0 %", "11.1 %"]
    places = [page.text.index(text, page.text.index("Results")) for text in order]
    assert places == sorted(places)
    assert page.text.count("11.1 %") == 1  # no headline
    (row,) = re.findall(r'<tr class="untrained">.*?</tr>', out.read_text(), re.DOTALL)
    assert "11.1 %" in row and "static untrained" in row


def test_result_that_lacks_something_is_named(workdir):
    path = workdir / "results" / "knn_static.json"
    content = json.loads(path.read_text())
    del content["data"]
    dump(path, content)
    with pytest.raises(ValueError, match=r"knn_static\.json must have .*data"):
        html_page.write_report(workdir)


def test_sections_without_data_are_left_out_and_named(path, bare_workdir):
    assert "Not on this page" not in headings(path)
    (bare_workdir / "environment.json").unlink()
    page = html_page.write_report(bare_workdir)
    assert headings(page) == ["Config", "Not on this page"]
    for name in ("results/*.json", "probes.jsonl", "metrics.jsonl", "spectrum.npz"):
        assert f"there is no {name}." in Page(page).text


def test_probes_are_the_headline_of_a_run_without_results(bare_workdir, rng):
    dump_lines(bare_workdir / "probes.jsonl", [probe(rng, 1, 7) | {"linear/static": 0.4567}])
    text = Page(html_page.write_report(bare_workdir)).text
    assert "45.7 %" in text and "chance 12.5 %, at step 7" in text


@pytest.mark.parametrize(
    ("changed", "warns"),
    [
        ({}, False),
        ({"collapse/feature_std": 0.05}, True),
        ({"collapse/effective_rank": 1.5}, True),
        ({"collapse/effective_rank": float("nan")}, True),
    ],
)
def test_collapse_is_announced(bare_workdir, rng, changed, warns):
    dump_lines(bare_workdir / "probes.jsonl", [probe(rng, 0, 0), probe(rng, 1, 9) | changed])
    assert ("have collapsed" in Page(html_page.write_report(bare_workdir)).text) == warns


def test_loss_that_is_not_a_number_is_announced(bare_workdir, rng):
    dump_lines(bare_workdir / "metrics.jsonl", [metrics(rng, 1), {"step": 2, "loss": float("nan")}])
    assert "The loss is nan at step 2." in Page(html_page.write_report(bare_workdir)).text


def test_text_from_the_files_is_never_markup(workdir, rng):
    dump(workdir / "config.json", {NASTY: {NASTY: NASTY}, "method": {"kind": NASTY}})
    dump(workdir / "environment.json", {NASTY: NASTY})
    dump_lines(workdir / "metrics.jsonl", [metrics(rng, 1) | {NASTY: 1.0, f"loss/{NASTY}": 2.0}])
    dump_lines(workdir / "probes.jsonl", [probe(rng, 1, 1) | {f"linear/{NASTY}": 0.5}])
    content = json.loads((workdir / "results" / "linear_static.json").read_text())
    nasty = dict.fromkeys(("name", "label", "metric", "commit"), NASTY)
    nasty |= {"protocol": {NASTY: NASTY}, "model": {NASTY: NASTY}}
    dump(workdir / "results" / "linear_static.json", content | nasty)
    dump(workdir / "results" / "order-ordered-static.json", content | {"name": f"order/{NASTY}"})
    stored = load_arrays(workdir / "results" / "linear_static.npz")
    stored["classes"] = np.array([NASTY, f"$x^2$ {NASTY}", "star"])
    np.savez(workdir / "results" / "linear_static.npz", **stored)
    arrays = load_arrays(workdir / "neighbours.npz")
    arrays["query_labels"] = np.full(arrays["query_labels"].shape, f'">{NASTY}')
    arrays["label_names"] = np.array([NASTY, "dynamic"])
    np.savez(workdir / "neighbours.npz", **arrays)
    pages = [
        html_page.write_report(workdir),
        html_page.write_comparison([workdir], workdir / "one.html"),
    ]
    for page in map(Page, pages):
        assert "script" not in {tag for tag, _ in page.tags}
        assert NASTY in page.text


def test_comparison_shows_both_runs(workdir, other_workdir, tmp_path):
    out = html_page.write_comparison([workdir, other_workdir], tmp_path / "both.html")
    page = Page(out)
    assert headings(out) == [
        "Runs", "Results", "Static and dynamic", "Class by class", "Probes", "Training",
        "Settings that differ",
    ]  # fmt: skip
    alts = [a["aria-label"] for _, a in page.tags if "aria-label" in a]
    for key in ("loss", "loss/static", "learning_rate", "linear/static", "koopman/static_rank"):
        (alt,) = [alt for alt in alts if alt.startswith(f"{key} over")]
        assert "tiny_bod: from" in alt and "tiny_dualvar: from" in alt
    assert "method.kind" in page.text and "seed" in page.text
    assert "optim.learning_rate" not in page.text
    assert {a["value"] for tag, a in page.tags if tag == "data"} >= {"0.9713"}


def test_comparison_tells_whether_runs_differ(workdir, other_workdir, tmp_path):
    files = [w / "results" / "linear_static.npz" for w in (workdir, other_workdir)]
    first, other = map(load_arrays, files)
    read = (first["predictions"] >= 0) & (other["predictions"] >= 0)
    right, also = (f["predictions"][read] == f["labels"][read] for f in (first, other))
    page = html_page.write_comparison([workdir, other_workdir], tmp_path / "both.html").read_text()
    (row,) = re.findall(r"only first run correct.*?<tbody>\s*<tr>(.*?)</tr>", page, re.DOTALL)
    cells = re.findall(r">([^<>]+)</t[hd]>", row)
    only = [int((also & ~right).sum()), int((right & ~also).sum())]
    shares = [f"{100 * x.mean():.1f} %" for x in (also, right)]
    p = f"{significance.mcnemar_p(*only):.2g}"
    assert cells == ["tiny_dualvar", str(read.sum()), *shares, *map(str, only), p]


def test_comparison_keeps_protocols_apart(workdir, other_workdir, tmp_path):
    path = other_workdir / "results" / "linear_static.json"
    result = json.loads(path.read_text())
    result["protocol"]["views"]["clips"] = 1
    dump(path, result | {"value": 0.1111})
    out = html_page.write_comparison([workdir, other_workdir], tmp_path / "both.html").read_text()
    together, separate = re.findall(r"<table>.*?</table>", out, re.DOTALL)[1:3]
    assert "97.1 %" in together and "11.1 %" not in together
    assert "11.1 %" in separate and "97.1 %" not in separate
    assert "tiny_dualvar" in separate


def test_runs_of_one_name_are_told_apart(workdir, tmp_path):
    twin = tmp_path / "later" / workdir.name
    twin.mkdir(parents=True)
    dump(twin / "config.json", {"seed": 5})
    page = Page(html_page.write_comparison([workdir, twin], tmp_path / "both.html"))
    assert "later/tiny_bod" in page.text and f"{tmp_path.name}/tiny_bod" in page.text
    with pytest.raises(ValueError, match="listed twice"):
        html_page.write_comparison([workdir, workdir], tmp_path / "both.html")


def test_import_needs_no_jax():
    code = "import sys, vrl_jax.report.html_page; assert not {'jax', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_that_are_not_utf8_are_shown_escaped(workdir, rng):
    name = "caf\udce9"  # as Python reads the name of a folder that is not UTF-8
    np.savez(workdir / "results" / "linear_static.npz", **predictions(rng, names=(name, "bar")))
    linear = json.loads((workdir / "results" / "linear_static.json").read_text())
    dump(workdir / "results" / "linear_static.json", {**linear, "per_class": {name: 0.5}})
    config = json.loads((workdir / "config.json").read_text())
    dump(workdir / "config.json", {**config, "data": {"root": f"/data/{name}"}})
    dump_lines(workdir / "metrics.jsonl", [metrics(rng, 1), {**metrics(rng, 2), name: 1.0}])
    page = Page(html_page.write_report(workdir))
    assert page.text.count("caf\\udce9") > 2 and name not in page.text
    moved = workdir.rename(workdir.with_name(name))
    page = Page(html_page.write_report(moved))
    assert "caf\\udce9" in page.text
