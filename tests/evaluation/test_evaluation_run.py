"""Published protocols on rendered videos: numbers by hand, an interruption, what cannot cheat."""

import itertools
import json
from contextlib import contextmanager
from dataclasses import dataclass, replace

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.arrays import load_arrays
from tests.evaluation.shrink import shrink
from vrl_jax import config, pretrained
from vrl_jax.atomic_files import ConfigMismatch
from vrl_jax.augment.clip_views import Augment
from vrl_jax.augment.photometric import normalize
from vrl_jax.augment.spatial_crops import Crops, fixed_crops
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.benchmarks import HMDB51
from vrl_jax.data.datasets.mixture import Mixture, Share
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.frame_sampling import Sampling, uniform_clips
from vrl_jax.data.video_dataset import Video, VideoError, VideoList
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.eval_protocol import RunInput
from vrl_jax.evaluation.evaluation_run import EvaluationRun, check_no_test_leakage
from vrl_jax.evaluation.protocols.classifier import require_unchanged
from vrl_jax.evaluation.protocols.factors import Factors
from vrl_jax.evaluation.protocols.probes import Probes
from vrl_jax.evaluation.recipes import published_recipe
from vrl_jax.probes import result_files
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.train.preemption import PreemptionGuard

UNITS = ("static", "dynamic", "joint", "residual")
ENCODER = Tiny(widths=(4, 8), strides=(4, 2), conv="native")  # quick to compile
INPUT = RunInput(size=16, frames=4, clips=2)


@dataclass(frozen=True)
class Broken:
    """A file that is not a video."""

    @contextmanager
    def open(self):
        raise VideoError("clip: it is broken")
        yield


@dataclass(frozen=True)
class Split(Synthetic):
    """Rendered videos with official splits, and what tests want changed in them.

    Attributes:
      split: another draw of the videos.
      label_seed: of test labels that are not the videos'; 0 leaves them.
      broken: test videos that cannot be read.
    """

    split: int = 1
    label_seed: int = 0
    broken: int = 0

    def train(self):
        return replace(self, seed=self.split).listed(super().train())

    def test(self):
        videos = list(replace(self, seed=self.split).listed(super().test()).videos)
        if self.label_seed:
            rng = np.random.default_rng(self.label_seed)
            labels = [{k: int(rng.integers(8)) for k in v.labels} for v in videos]
            videos = [Video(v.id, v.media, own) for v, own in zip(videos, labels, strict=True)]
        for i in range(self.broken):
            videos[i] = Video(videos[i].id, Broken(), videos[i].labels)
        return VideoList(tuple(videos), super().test().classes)

    def listed(self, scenes):
        scenes = replace(scenes, config=self)
        return VideoList(tuple(scenes[i] for i in range(len(scenes))), scenes.classes)


@dataclass(frozen=True)
class Twice(Split):
    """Videos that are tested on the training videos."""

    def test(self):
        return self.train()


def evaluation(protocol, **settings):
    """Return an evaluation by a protocol, or by a small published one, `(paper, task)`."""
    data = settings.pop("data", Split(train_videos=16, test_videos=16, frames=12))
    changes = settings.pop("change", {})
    if isinstance(protocol, tuple):
        protocol = shrink(published_recipe(*protocol)(settings.get("benchmark", "")), **changes)
        protocol = without_colours(protocol)
    defaults = {"label": "static", "encoder": ENCODER, "splits": (1,), "untrained": False}
    return Evaluation(data, protocol, loader=Loader(max_failed=0.5), **{**defaults, **settings})


def without_colours(protocol):
    """Return a protocol whose training step is quick to compile."""
    if not hasattr(protocol, "train"):
        return protocol
    augment = replace(protocol.train.augment, jitter=0.0, gray=0.0, blur=0.0)
    return replace(protocol, train=replace(protocol.train, augment=augment))


def read(folder):
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("results/*.json")}


def by_hand(model, source, crops, clips=2, stride=4, size=16, resize=(18, 24)):
    """Return the mean feature over clips and crops of every video."""

    @jax.jit
    def encode(clip):
        cut = fixed_crops(clip / 255, size, crops)
        return model(normalize(cut, model.augment.mean, model.augment.std)).clip.mean(0)

    rows = []
    for i in range(len(source)):
        with source[i].media.open() as reader:
            sampling = Sampling(4, stride, clips, layout="centred")
            frames = uniform_clips(reader.num_frames, reader.fps, sampling)
            pixels = reader.read(frames, resize)
        rows.append(np.mean([encode(clip.astype(np.float32)) for clip in pixels], axis=0))
    return np.array(rows)


def test_retrieval_is_what_the_features_say(tmp_path, weights):
    options = {"init": weights, "untrained": True, "benchmark": "ucf101"}
    wanted = evaluation(("dualvar", "retrieval"), change={"ks": (1, 5)}, **options)
    assert EvaluationRun(wanted, tmp_path / "run", quiet=True)()
    found = read(tmp_path / "run")
    assert set(found) == {
        f"retrieval-static-{center}{kind}"
        for center in ("each", "none")
        for kind in ("", "-untrained")
    }
    model = pretrained.load(weights)
    train, test = wanted.data.train(), wanted.data.test()
    gallery, queries = (by_hand(model, part, Crops(share=7 / 8)) for part in (train, test))
    for center in ("each", "none"):
        g = gallery - gallery.mean(0) * (center == "each")
        q = queries - queries.mean(0) * (center == "each")
        cosine = q @ g.T / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(g, axis=1)
        order = np.argsort(-cosine, axis=1)
        own = np.array([test[i].labels["static"] for i in range(len(test))])
        theirs = np.array([train[i].labels["static"] for i in range(len(train))])
        for k in (1, 5):
            recall = (theirs[order[:, :k]] == own[:, None]).any(1).mean()
            assert found[f"retrieval-static-{center}"]["values"][str(k)] == recall
    with np.load(tmp_path / "run" / "neighbours.npz") as shown:
        assert shown["gallery"].shape == (6, 4, 4, 18, 24, 3)
    stamp = found["retrieval-static-each"]
    assert stamp["protocol"]["changed"] == {
        "test.sampling.frames": [4, 16],
        "test.sampling.clips": [2, 10],
        "test.resize": [[18, 24], [128, 171]],
        "test.size": [16, 112],
        "ks": [[1, 5], [1, 5, 10, 20, 50]],
    }
    assert stamp["protocol"]["name"] == "dualvar_retrieval"
    assert stamp["protocol"]["of"] == "ucf101" and stamp["protocol"]["split"] == "split 1"
    assert stamp["protocol"]["input_mean"] == [0.4, 0.5, 0.6]
    assert stamp["model"]["init"] == weights and stamp["model"]["weights"] == model.weight_hash()
    untrained = found["retrieval-static-each-untrained"]["model"]
    assert untrained["init"] == "untrained" and untrained["weights"] != model.weight_hash()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A fine-tuning on two splits that ran to its end: its folder and what was evaluated."""
    folder = tmp_path_factory.mktemp("tuned")
    change = {"epochs": 4.0, "batch": 8}
    wanted = evaluation(
        ("dualvar", "finetune"), splits=(1, 2), change=change, untrained=True, save_every=3
    )
    assert EvaluationRun(wanted, folder, quiet=True)()
    return folder, wanted


@pytest.mark.slow
def test_finetuning_averages_splits_and_keeps_what_was_predicted(tuned):
    folder, _ = tuned
    (result,) = read(folder).values()  # of an untrained encoder alone: nothing else was given
    assert result["model"]["init"] == "untrained"
    parts = {}
    for split in (1, 2):
        (part,) = read(folder / f"untrained-split{split}").values()
        kept = load_arrays(next((folder / f"untrained-split{split}").glob("results/*.npz")))
        right = kept["predictions"] == kept["labels"]
        assert part["value"] == right.mean() and len(right) == 16
        assert part["mean_class_accuracy"] == pytest.approx(
            np.mean([right[kept["labels"] == c].mean() for c in np.unique(kept["labels"])])
        )
        assert part["top5"] >= part["value"]
        assert part["protocol"]["split"] == f"split {split}"
        assert part["protocol"]["fit"]["epochs"] == 4
        parts[str(split)] = part["value"]
        lines = (folder / f"untrained-split{split}/metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line) for line in lines]
        assert len(steps) == 1 and 0 <= steps[-1]["accuracy"] <= 1
        assert steps[0]["epoch"] == 0.5  # 8 of 16 videos in the first step
    assert result["splits"] == parts and result["value"] == np.mean(list(parts.values()))
    assert result["std"] == pytest.approx(np.std(list(parts.values())))
    assert result["protocol"]["split"] == "mean of 1, 2"
    assert len({json.dumps(data) for data in result["data"].values()}) == 2


@pytest.mark.slow
def test_an_interrupted_finetuning_goes_on_bit_by_bit(tuned, tmp_path, monkeypatch):
    folder, wanted = tuned
    should_stop = PreemptionGuard.should_stop
    steps = itertools.count(1)
    monkeypatch.setattr(PreemptionGuard, "should_stop", lambda self: next(steps) == 5)
    assert not EvaluationRun(wanted, tmp_path, quiet=True)()
    assert not (tmp_path / "results").exists()
    monkeypatch.setattr(PreemptionGuard, "should_stop", should_stop)
    assert EvaluationRun(wanted, tmp_path, quiet=True)()
    for split in (1, 2):
        states = [
            restored(base / f"untrained-split{split}" / "checkpoints")
            for base in (folder, tmp_path)
        ]
        chex.assert_trees_all_equal(*states)
    assert read(tmp_path) == read(folder)
    other = replace(wanted, seed=1)
    before = (tmp_path / "untrained-split1" / "config.json").read_text()
    with pytest.raises(ConfigMismatch, match="config.seed: was 0, is 1"):
        EvaluationRun(other, tmp_path, quiet=True)()
    assert (tmp_path / "untrained-split1" / "config.json").read_text() == before


def test_a_classifier_is_stored_with_the_names_of_its_classes(tuned):
    folder, evaluated = tuned
    names = evaluated.data.test().classes["static"]
    with ocp.CheckpointManager(folder / "untrained-split1/checkpoints") as manager:
        items = ocp.args.Composite(identity=ocp.args.JsonRestore())
        identity = manager.restore(8, args=items)["identity"]
    assert identity["classes"] == {str(number): name for number, name in enumerate(names)}
    kept = load_arrays(next((folder / "untrained-split1").glob("results/*.npz")))
    assert kept["classes"].tolist() == list(names)


def restored(folder):
    with ocp.CheckpointManager(folder) as manager:
        return manager.restore(8, args=ocp.args.Composite(state=ocp.args.StandardRestore()))[
            "state"
        ]


@pytest.mark.slow
def test_a_linear_evaluation_learns_and_never_sees_the_test_labels(tmp_path):
    weights = str(tmp_path / "wide.safetensors")
    wide = Tiny(widths=(16, 32), strides=(4, 2))
    pretrained.save(weights, pretrained.init_untrained(wide, Augment(size=16), frames=4, seed=1))
    data = Split(train_videos=96, test_videos=32, frames=12)
    change = {"epochs": 60, "batch": 16, "learning_rate": 30.0, "clips": 1}
    kept = {}
    for name, labels in (("own", 0), ("other", 3)):
        wanted = evaluation(
            ("lss", "linear"), init=weights, change=change, data=replace(data, label_seed=labels)
        )
        assert EvaluationRun(wanted, tmp_path / name, quiet=True)()
        kept[name] = load_arrays(tmp_path / name / "results" / "linear-static.npz")
    np.testing.assert_array_equal(kept["own"]["predictions"], kept["other"]["predictions"])
    share = {n: (k["predictions"] == k["labels"]).mean() for n, k in kept.items()}
    assert share["own"] > 0.4 and share["other"] < 0.3  # chance is 1/8


def test_a_video_that_cannot_be_read_is_wrong(tmp_path, weights):
    data = Split(train_videos=16, test_videos=16, frames=12, broken=5)
    wanted = evaluation(("dualvar", "retrieval"), init=weights, data=data, change={"ks": (16,)})
    EvaluationRun(wanted, tmp_path / "run", quiet=True)()
    result = read(tmp_path / "run")["retrieval-static-none"]
    assert result["unreadable"] == {"train": 0, "test": 5}
    assert result["values"]["16"] <= 11 / 16  # a neighbour of the class is among all of them
    lines = (tmp_path / "run" / "trained-split1" / "quarantine.jsonl").read_text().splitlines()
    assert len(lines) == 5 and "it is broken" in lines[0]
    change = {"epochs": 1, "batch": 8}
    wanted = evaluation(("lss", "linear"), init=weights, data=data, change=change)
    EvaluationRun(wanted, tmp_path / "fit", quiet=True)()
    kept = load_arrays(tmp_path / "fit" / "results" / "linear-static.npz")
    assert kept["predictions"].tolist()[:5] == [result_files.UNREADABLE] * 5
    found = read(tmp_path / "fit")["linear-static"]
    assert (
        found["value"] == (kept["predictions"] == kept["labels"]).mean()
        and found["value"] <= 11 / 16
    )


@pytest.mark.slow
def test_probes_of_pretraining_judge_any_encoder(tmp_path, weights):
    data = Synthetic(train_videos=24, test_videos=16, frames=12)
    protocol = Probes(ks=(1,), knn=3, test=replace(INPUT, stride=3))
    wanted = evaluation(protocol, init=weights, splits=(), data=data)
    EvaluationRun(wanted, tmp_path / "run", quiet=True)()
    found = read(tmp_path / "run")
    assert {name for name, _ in (s.split("-")[:2] for s in found)} == {"linear", "knn", "retrieval"}
    assert found["linear-dynamic"]["protocol"]["clips"] == 2
    assert found["linear-dynamic"]["protocol"]["stride"] == 3
    assert found["linear-dynamic"]["protocol"]["name"] == "probe"


@pytest.mark.slow
def test_what_is_appearance_and_what_is_motion_of_a_trained_and_an_untrained_encoder(
    tmp_path, weights
):
    data = Synthetic(train_videos=24, test_videos=20, frames=12)
    test = RunInput(frames=8, size=16, clips=1)
    protocol = Factors(permutations=2, linear=LinearProbe(steps=30), test=test)
    wanted = evaluation(protocol, init=weights, splits=(), untrained=True, data=data)
    assert EvaluationRun(wanted, tmp_path, quiet=True)()
    found = read(tmp_path)
    groups = ("order", "floor", "scuba", "arrow", "units", "koopman")
    assert {name.split("-")[0] for name in found} == set(groups)
    trained = {name for name in found if not name.endswith("-untrained")}
    assert {f"{name}-untrained" for name in trained} | trained == set(found)
    assert found["order-shuffled-static"]["protocol"]["factors"]["permutations"] == 2
    units = [found[f"units-{kind}-restyled"]["value"] for kind in UNITS]
    assert sum(units) == pytest.approx(1)
    with np.load(tmp_path / "trained" / "factors.npz") as arrays:
        assert arrays["koopman/eigenvalues"].shape == (20, 1, 7)


def test_real_videos_have_no_masks_and_short_maps_no_spectrum(tmp_path, weights):
    protocol = Factors(permutations=1, linear=LinearProbe(steps=20), test=INPUT)
    wanted = evaluation(
        protocol, init=weights, data=Split(train_videos=16, test_videos=16, frames=12)
    )
    assert EvaluationRun(wanted, tmp_path, quiet=True)()
    found = read(tmp_path)
    assert not any(name.startswith(("scuba", "koopman")) for name in found)
    assert found["order-ordered-static"]["skipped"] == {
        "scuba": "there are no masks",
        "koopman": "there are no frame features",
        "leakage": "there are no embeddings besides the features",
    }


def test_a_frozen_encoder_that_changed_is_an_error():
    before = {"params": {"w": np.ones(3)}, "batch_stats": {"mean": np.zeros(2)}}
    require_unchanged(before, jax.tree.map(np.copy, before))
    for path in ("params", "batch_stats"):
        after = jax.tree.map(lambda x: x + 1e-7, before)
        after = {**before, path: after[path]}
        with pytest.raises(RuntimeError, match="frozen encoder changed"):
            require_unchanged(before, after)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"data": Synthetic(), "splits": (1,)}, "Synthetic has no official splits"),
        ({"change": {"batch": 3}}, "protocol.batch must be a multiple of the 8 devices, got 3"),
        ({"batch": 3}, "batch must be a multiple of the 8 devices, got 3"),
        ({"label": "class"}, "label must be one of"),
        ({"splits": (1, 1)}, "splits must differ"),
        ({"init": "untrained"}, "rename the run"),
        ({"protocol": Factors(group="person"), "splits": ()}, "protocol.group must be one of"),
        ({"protocol": Factors(masks="/masks"), "splits": ()}, "/masks"),
        ({"protocol": ("dualvar", "retrieval"), "change": {}}, "requests 50 neighbours among 16"),
        ({"protocol": ("coclr", "finetune"), "splits": (), "data": Synthetic()}, "are mirrored"),
        ({"protocol": Probes(published="x:y")}, "no recipe 'x:y'"),
        ({"init": "/no/such/run"}, "/no/such/run"),
        ({"data": Twice(train_videos=16)}, "16 of 16 test videos are training videos as well"),
        ({"step": -2}, "step"),
    ],
)
def test_an_invalid_evaluation_is_refused_before_it_starts(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        options = {"protocol": ("dualvar", "finetune"), "change": {"batch": 8}, **settings}
        EvaluationRun(evaluation(**options), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_encoder_is_not_judged_on_videos_that_it_was_pretrained_on():
    for seen in (Split(split=2), Synthetic(), None):
        check_no_test_leakage(seen, Split(split=2))
    told = r"on split 2, which has test videos of split 1: pass --config.splits='\(2,\)'"
    with pytest.raises(ValueError, match=told):
        check_no_test_leakage(Split(split=2), Split(split=1))
    mixture = Mixture((Share(Synthetic()), Share(Split(split=2))))
    check_no_test_leakage(mixture, Split(split=2))
    with pytest.raises(ValueError, match=told):
        check_no_test_leakage(mixture, Split(split=1))


@dataclass(frozen=True)
class FirstVideo(Split):
    """Data with one training video."""

    def train(self):
        whole = super().train()
        return VideoList((whole[0],), whole.classes)


def test_classes_without_training_videos_are_named(tmp_path, capsys):
    data = FirstVideo(train_videos=16, test_videos=16, frames=12)
    EvaluationRun(evaluation(("dualvar", "finetune"), change={"batch": 8}, data=data), tmp_path)
    says = capsys.readouterr().err
    assert "warning: dynamic: " in says and "classes of the test videos have no training" in says


def test_groups_of_the_training_videos_may_be_left_out(tmp_path):
    protocol = Probes(group="dynamic", ks=(1,), knn=3, test=INPUT)
    EvaluationRun(evaluation(protocol, data=Twice(train_videos=16)), tmp_path)


def test_the_data_tell_their_benchmark():
    protocol = published_recipe("severe", "linear")("ssv2")
    assert Evaluation(HMDB51(), protocol).benchmark_used == "hmdb51"
    assert Evaluation(HMDB51(), protocol).benchmark_name() == "hmdb51, not in the paper"
    assert Evaluation(Synthetic(), protocol, benchmark="ssv2").benchmark_name() == "ssv2"
    with pytest.raises(ValueError, match="the data are hmdb51, but benchmark is 'ucf101'"):
        Evaluation(HMDB51(), protocol, benchmark="ucf101")


def test_nothing_is_mirrored_where_mirror_images_change_labels(tmp_path):
    protocol = ("dualvar", "finetune")
    wanted = evaluation(protocol, data=Synthetic(), splits=(), change={"batch": 8})
    ((task,),) = EvaluationRun(wanted, tmp_path)._tasks
    assert task.protocol.train.augment.flip == 0
    assert task.deviations["train.augment.flip"] == [0.0, 0.5]


def test_a_described_evaluation_is_built_again():
    wanted = evaluation(("lss", "linear"), change={"epochs": 2.0})
    assert config.build(json.loads(config.describe(wanted).to_json())) == wanted
