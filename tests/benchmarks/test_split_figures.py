"""The pictures of the experiment on the split."""

import json

import numpy as np

from benchmarks import split_figures


def test_the_split_keeps_standing_modes_in_the_static_part_and_the_mean_does_not():
    clips = split_figures.make_modes("standing")
    parts = split_figures.split_clips(clips)
    middle = np.searchsorted(split_figures.RATES, 0.5)
    assert split_figures.dynamic_share(clips, parts["split"])[middle] < 0.05
    assert abs(split_figures.dynamic_share(clips, parts["mean"])[middle] - 1) < 0.05


def test_both_pictures_are_drawn_and_the_table_is_printed(tmp_path, capsys):
    encoder = {"encoder: motion": 0.5, "encoder: drift": 0.6, "encoder: appearance": 0.7}
    parts = {"m: motion": 0.8, "m: drift": 0.3, "a: appearance": 0.9}
    arms = {"simclr": {"0": {"": encoder}}, "detrend": {"0": {"": encoder | parts}}}
    results = {f"{motion}-drift2": arms for motion in split_figures.MOTIONS}
    (tmp_path / "split.json").write_text(json.dumps({"results": results}))
    split_figures.main([f"--json={tmp_path / 'split.json'}", f"--out={tmp_path}", "--videos=8"])
    assert len(capsys.readouterr().out.splitlines()) == 2 + 4
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "split_filters.png", "split_arms.png"
    }  # fmt: skip
