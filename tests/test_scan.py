"""`vrl scan`: from an encoder to its page and its card."""

import json
from dataclasses import replace

import pytest

from vrl_jax import config, pretrained, scan
from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.datasets.noise_motion import NoiseMotion
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.evaluation.evaluation_run import EvaluationRun
from vrl_jax.report import scan_card

ENCODER = Tiny(widths=(4, 6), strides=(2, 2), conv="native")
DATA = "Synthetic train_videos=24 test_videos=24 classes=2 frames=8"
QUICK = [
    "config.protocol.linear.steps=10",
    "config.protocol.attentive.steps=10",
    "config.protocol.permutations=1",
    "config.batch=8",
]


def test_a_scan_is_an_evaluation_of_all_layers():
    overrides = [("protocol.cluster", "static"), ("batch", "8")]
    evaluation = scan.make_evaluation("runs/mine", "", "NoiseMotion", overrides)
    assert evaluation.init == "runs/mine" and isinstance(evaluation.data, NoiseMotion)
    protocol = evaluation.protocol
    assert protocol.layers and protocol.intervals and protocol.conflict
    assert protocol.attentive.steps
    assert protocol.cluster == "static" and evaluation.batch == 8
    network = scan.make_evaluation("", "configs/synthetic_bod.py", "", [])
    assert isinstance(network.encoder, Tiny) and not network.init
    assert (network.protocol.test.size, network.protocol.test.frames) == (32, 16)
    assert isinstance(network.data, Synthetic)
    with pytest.raises(ValueError, match="--untrained must be a config of pretraining"):
        scan.make_evaluation("", "configs/eval_scan.py", "", [])


def test_arguments_are_checked(capsys):
    for argv, message in (
        ([], "one of the arguments encoder --untrained --compare is required"),
        (["a", "--", "--x=1"], "arguments after -- must be --config.KEY=VALUE, got --x=1"),
    ):
        with pytest.raises(SystemExit):
            scan.main(argv)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="error: nowhere is not a run"):
        scan.main(["nowhere"])
    with pytest.raises(SystemExit, match="a scan has one split and all training videos"):
        scan.main(["nowhere", "--", "--config.protocol.subset.per_class=1"])


@pytest.mark.slow
def test_a_scan_has_a_page_and_a_card_that_can_be_compared(tmp_path, capsys):
    weights, out = tmp_path / "mine.safetensors", tmp_path / "scan"
    model = pretrained.init_untrained(ENCODER, Augment(size=12), frames=6, seed=7)
    pretrained.save(weights, replace(model, sampling=Sampling(6, 1)))
    overrides = [f"--{setting}" for setting in QUICK]
    scan.main([str(weights), f"--data={DATA}", f"--out={out}", "--", *overrides])
    card = scan_card.read_card(out / "card.json")
    assert card.name == "scan" and card.layers == ["stage 0", "stage 1"]
    widths = {r["layer"]: r["width"] for r in json.loads((out / "card.json").read_text())["results"]
              if r["name"] == "rank/effective"}  # fmt: skip
    assert widths == {"stage 0": 4, "stage 1": 6}
    assert {r.untrained for r in card.results} == {True, False}
    for path in (out / "results").glob("*.json"):  # the last layer has the features
        result = json.loads(path.read_text())
        prefix = result["name"].partition("/")[0]
        if prefix == "koopman":
            continue
        layer = "" if prefix == "floor" else "stage 1"
        untrained = result["model"]["init"] == "untrained"
        if layer == "stage 1" or not untrained:
            own = card.find_result(layer, result["name"], result["label"], untrained)
            assert own.value == result["value"], path
    assert card.find_result("stage 0", "conflict/moving", "dynamic").interval
    assert card.find_result("stage 0", "attentive/ordered", "dynamic", untrained=True).interval
    assert card.protocol["factors"]["attentive"]["steps"] == 10
    assert config.build(json.loads((out / "config.json").read_text())).protocol.layers
    other = tmp_path / "other.safetensors"
    pretrained.save(other, replace(model, step=3, origin={"run": "another"}))
    changes = [*overrides, "--config.protocol.conflict=False"]
    for encoder, data, settings in (
        (other, DATA, overrides),
        (weights, DATA + " seed=1", overrides),
        (weights, DATA, changes),
    ):
        with pytest.raises(SystemExit, match="has a scan of another encoder, protocol or data"):
            scan.main([str(encoder), f"--data={data}", f"--out={out}", "--", *settings])
    quick = [tuple(setting.removeprefix("config.").split("=")) for setting in QUICK]
    evaluation = scan.make_evaluation(str(weights), "", DATA, quick)
    scan.check_folder(EvaluationRun(evaluation, out), out)  # the same scan is made again
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match="run holds no scan of this version, change --out"):
        scan.main([str(weights), f"--data={DATA}", f"--out={tmp_path / 'run'}"])
    assert scan_card.read_card(out / "card.json").name == "scan"
    page = tmp_path / "scans.html"
    argv = ["--compare", str(out / "card.json"), "--sort=order/ordered dynamic", f"--out={page}"]
    scan.main(argv)
    assert "scan, untrained" in page.read_text() and "Last layer, Synthetic" in page.read_text()
    assert f"scan: open {page}" in capsys.readouterr().out
