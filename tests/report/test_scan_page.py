"""The card of a scan, its page, and the comparison of cards."""

import json
import re

import pytest

from vrl_jax.report import scan_card, scan_page


def entry(layer, name, label, value, metric="top-1 accuracy", **more):
    return {"layer": layer, "name": name, "label": label, "value": value, "metric": metric, **more}


def layers(motion, init="runs/a", **protocol):
    """Return the file of one task, with a motion accuracy for each of two layers."""
    results = [
        entry(layer, "order/ordered", "way", value, chance=0.5, interval=[value - 0.1, value])
        for layer, value in zip(("stage 0", "stage 1"), motion, strict=True)
    ]
    results += [entry("stage 1", "units/static", "restyled", 0.25, "share of units")]
    results += [entry("stage 1", "rank/effective", "clips", 3.5, "effective rank", width=8)]
    results += [entry("", "floor/motion", "way", 0.6, chance=0.5, interval=[0.5, 0.7])]
    return {
        "protocol": {"split": "train, test", "clips": 1, "frames": 8, "resolution": "8 x 8"}
        | protocol,
        "model": {"encoder": "Tiny", "parameters": 42, "init": init},
        "data": {"set": "Synthetic", "test": "abc"},
        "videos": {"train": 30, "test": 1000},
        "layers": ["stage 0", "stage 1"],
        "skipped": {"scuba": "there are no masks", "koopman": "no frames"},
        "results": results,
    }


CARD = {"card": 2, "name": "a", **layers((0.5, 0.5))}


@pytest.fixture
def write_card(tmp_path):
    def write(name, *parts):
        files = {}
        for part, content in zip(("trained", "untrained"), parts, strict=False):
            files[part] = tmp_path / f"{name}-{part}.json"
            files[part].write_text(json.dumps(content))
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(scan_card.make_card(name, files)))
        return path

    return write


def test_a_page_has_every_layer_the_untrained_encoder_and_pixels(write_card, tmp_path):
    card = scan_card.read_card(write_card("a", layers((0.7, 0.9)), layers((0.55, 0.5))))
    header, rows = scan_page.layer_grid(card, "way")
    assert header == ["layer", "order/ordered", "floor/motion"]  # of any label: chief ones first
    assert rows == [
        ["stage 0", "70.0 % (60.0 to 70.0)", "—"],
        ["stage 1", "90.0 % (80.0 to 90.0)", "—"],
        ["pixels, no encoder", "—", "60.0 % (50.0 to 70.0)"],
        ["stage 0, untrained", "55.0 % (45.0 to 55.0)", "—"],
        ["stage 1, untrained", "50.0 % (40.0 to 50.0)", "—"],
    ]
    drawn = scan_page.draw_layers(card, "way")
    assert [line.label for line in drawn.legend] == ["order/ordered", "order/ordered, untrained"]
    assert [list(line.values) for line in drawn.legend] == [[0.7, 0.9], [0.55, 0.5]]
    page = scan_page.write_scan(card, tmp_path / "scan.html").read_text()
    assert "not measured: scuba (there are no masks)" in page and "koopman" not in page
    assert "Effective rank" in page and "3.5" in page
    assert "Synthetic, 30 + 1,000 videos, train, test, 1 x 8 frames" in page
    assert "order: linear probe" in page and "floor: linear probe on pixels" in page
    assert (
        "Dashed lines" in page
        and "95 % intervals" in page
        and "last layer; best stage 1, 90.0 %; chance" in page
    )
    assert "attentive:" not in page and "scuba:" not in page  # not measured
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)  # offline


def test_cards_are_sorted_and_protocols_are_not_mixed(write_card, tmp_path):
    worse = write_card("worse", layers((0.95, 0.6)), layers((0.5, 0.4)))
    better = write_card("better", layers((0.7, 0.9), resolution="16 x 16"))
    other = write_card("other", layers((0.7, 0.8), frames=16))
    cards = [scan_card.read_card(path) for path in (worse, better, other)]
    assert cards[0].measure == cards[1].measure != cards[2].measure
    page = scan_page.write_comparison(cards, tmp_path / "scans.html", "order/ordered way")
    tables = re.findall(r"<table>.*?</table>", page.read_text(), re.S)
    names = [re.findall(r'scope="row" class="name">(.*?)<', table) for table in tables]
    assert names == [["better", "worse", "worse, untrained"], ["other"]]
    assert "stage 0: 95.0 % (85.0 to 95.0)" in tables[0]  # the best layer of the worse encoder
    drawn = scan_page.draw_depths(cards[:2], "way")
    assert [(line.label, list(line.steps), list(line.values)) for line in drawn.legend] == [
        ("worse", [0, 1], [0.95, 0.6]), ("better", [0, 1], [0.7, 0.9])
    ]  # fmt: skip
    assert len(re.findall(r"<figcaption>order/ordered way by depth", page.read_text())) == 2
    assert "2 protocols, which are not comparable" in page.read_text()
    titles = re.findall(r"<h2[^>]*>(Last layer.*?)</h2>", page.read_text(), re.S)
    assert [title.rpartition(", ")[2] for title in titles] == ["frames 8", "frames 16"]
    assert "better" in scan_page.write_comparison(cards[1:2], page).read_text()
    header, _ = scan_page.compare_grid(cards, "rank/effective", "clips")
    best = "best layer in rank/effective clips"
    assert header[3:] == [
        best,
        "rank/effective clips",
        "order/ordered way",
        "units/static restyled",
    ]
    with pytest.raises(ValueError, match="--sort must be one of order/ordered way, .*'rank'"):
        scan_page.write_comparison(cards, page, "rank")


def test_a_function_is_named_and_only_what_was_measured_is_explained(write_card, tmp_path):
    content = layers((0.7, 0.9))
    content["model"] = {"encoder": "External", "function": "mine:encode", "init": "mine:encode"}
    content["results"] = [entry("stage 1", "order/ordered", "dynamic", 0.5)]
    card = scan_card.read_card(write_card("mine-encode", content))
    page = scan_page.write_scan(card, tmp_path / "scan.html").read_text()
    assert "function mine:encode" in page and "parameters" not in page
    assert "Label dynamic: motion" in page
    assert ", untrained" not in page and "without training" not in page and "95 %" not in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, " must be a card of version 2: scan again"),
        (
            {"card": 2, "name": "a"},
            " lacks model, protocol, data, videos, layers, skipped, results",
        ),
        (
            {**CARD, "results": [{"layer": "x"}]},
            " has a damaged result: KeyError\\('value'\\)",
        ),
        ({**CARD, "results": ["x"]}, " has a damaged result: "),
        ({**CARD, "model": "x"}, ": model must be an object, got 'x'"),
        ({**CARD, "layers": []}, r": layers must be names, got \[\]"),
    ],
)
def test_what_is_no_card_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"a.json{message}"):
        scan_card.read_card(tmp_path / "a.json")
