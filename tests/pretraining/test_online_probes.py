"""What the probes of a run ask for is known to be there before it starts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import MissingPart, Video, VideoList, take_subset
from vrl_jax.pretraining.online_probes import OnlineProbes, _find_parts
from vrl_jax.pretraining.train_program import make_program
from vrl_jax.probes.feature_bank import FeatureBank
from vrl_jax.probes.probe_suite import ProbeConfig, check_group
from vrl_jax.train.sharding import make_mesh


def test_more_neighbours_than_training_videos_are_refused():
    labels = ("class", "person")
    ProbeConfig().check_data("evaluate", labels, 50)
    with pytest.raises(ValueError, match=r"50 neighbours among 49 .* --config.evaluate.ks$"):
        ProbeConfig().check_data("evaluate", labels, 49)
    with pytest.raises(ValueError, match=r"20 neighbours among 19 .* --config.evaluate.knn$"):
        ProbeConfig(ks=(1,)).check_data("evaluate", labels, 19)
    with pytest.raises(ValueError, match="50 neighbours among 30 "):
        ProbeConfig(probe_videos=30).check_data("evaluate", labels, 1000)
    ProbeConfig(probe_videos=0).check_data("evaluate", labels, 1000)
    ProbeConfig(group="person").check_data("evaluate", labels, 3)


def test_groups_must_be_of_a_label_and_leave_another():
    check_group("evaluate.group", "person", ("class", "person"))
    check_group("evaluate.group", "", ("class",))
    with pytest.raises(ValueError, match="evaluate.group must be one of '', 'class', got 'person'"):
        check_group("evaluate.group", "person", ("class",))
    with pytest.raises(ValueError, match="evaluate.group='class' is the only label of the videos"):
        check_group("evaluate.group", "class", ("class",))


def test_a_run_with_too_few_is_refused_before_it_starts(tmp_path):
    experiment = config.build(synthetic_bod.get_config())
    data = dataclasses.replace(experiment.data, train_videos=30)
    horizon = experiment.train.horizon(64)
    method = experiment.method.build(experiment.encoder, experiment.framework, horizon)
    with pytest.raises(ValueError, match="evaluate.ks requests 50 neighbours among 30"):
        OnlineProbes(
            dataclasses.replace(experiment, data=data),
            method,
            make_mesh(),
            tmp_path,
            data.pretrain(),
        )


@dataclasses.dataclass(frozen=True)
class Twice(Synthetic):
    """Rendered videos that are tested on the training videos."""

    def test(self):
        return self.train()


def test_a_run_tested_on_its_training_videos_is_refused_unless_groups_are_left_out(tmp_path):
    experiment = config.build(synthetic_bod.get_config())
    horizon = experiment.train.horizon(64)
    method = experiment.method.build(experiment.encoder, experiment.framework, horizon)
    data = Twice(train_videos=60)
    experiment = dataclasses.replace(experiment, data=data)
    with pytest.raises(ValueError, match="60 of 60 test videos are training videos as well"):
        OnlineProbes(experiment, method, make_mesh(), tmp_path, data.pretrain())
    evaluate = dataclasses.replace(experiment.evaluate, group="static")
    OnlineProbes(
        dataclasses.replace(experiment, evaluate=evaluate),
        method,
        make_mesh(),
        tmp_path,
        data.pretrain(),
    )


def test_probes_say_what_they_lack():
    experiment = config.build(synthetic_bod.get_config())
    labelled = experiment.data.train()
    unlabelled = VideoList((Video("a", VideoFile("a.mp4"), {}),), {})

    def find(test, train, **evaluate):
        data = Parts(test, train)
        settings = dataclasses.replace(experiment.evaluate, **evaluate)
        changed = dataclasses.replace(experiment, data=data, evaluate=settings)
        return _find_parts(changed, unlabelled)

    assert find(labelled, labelled) == (labelled, labelled, "")
    assert find(None, labelled) == (unlabelled, unlabelled, "no such part")
    assert find(labelled, None) == (labelled, labelled, "no such part")
    assert find(labelled, None, group="static") == (labelled, labelled, "")
    assert find(unlabelled, labelled)[2] == "the test videos have no labels"
    assert find(labelled, unlabelled)[2] == "the training videos have no label 'dynamic'"


def test_classes_without_training_videos_are_named(capsys):
    experiment = config.build(synthetic_bod.get_config())
    test = experiment.data.test()
    absent = test[0].labels["dynamic"]
    videos = (test[number] for number in range(64))
    train = VideoList(
        tuple(video for video in videos if video.labels["dynamic"] != absent), test.classes
    )
    experiment = dataclasses.replace(experiment, data=Parts(test, train))
    held_out = dataclasses.replace(experiment.evaluate, cluster="dynamic")
    _find_parts(dataclasses.replace(experiment, evaluate=held_out), train)
    assert not capsys.readouterr().err
    _find_parts(experiment, train)
    says = f"no training video, such as {test.classes['dynamic'][absent]!r}"
    assert says in capsys.readouterr().err


@dataclasses.dataclass(frozen=True)
class Parts:
    """A data set with parts that may be missing."""

    test_part: object
    train_part: object

    def pretrain(self):
        return self.train()

    def test(self):
        return self._part(self.test_part)

    def train(self):
        return self._part(self.train_part)

    def _part(self, part):
        if part is None:
            raise MissingPart("no such part")
        return part


def test_a_spectrum_goes_on_with_what_was_there_and_marks_what_is_lost(tmp_path):
    experiment = config.build(synthetic_bod.get_config())
    data = dataclasses.replace(experiment.data, train_videos=50, test_videos=50)
    augment = dataclasses.replace(experiment.augment, jitter=0.0, gray=0.0, blur=0.0)
    experiment = dataclasses.replace(experiment, data=data, augment=augment)
    program = make_program(experiment, 50, make_mesh(jax.devices()[:1]))
    mesh, state = make_mesh(jax.devices()[:1]), program.init()
    probes = OnlineProbes(experiment, program.method, mesh, tmp_path, data.pretrain())
    videos = probes._test
    lost = VideoList((Video("lost", VideoFile("absent.mp4"), {}), videos[1], videos[2]), {})
    for step, source, steps, shape in (
        (0, lost, [0], (1, 3, 15)),
        (4, lost, [0, 4], (2, 3, 15)),
        (8, take_subset(lost, 2), [0, 4, 8], (3, 3, 15)),
    ):
        # All could be read when the bank was made.
        bank = FeatureBank(np.zeros((len(source), 1)), {}, np.zeros(len(source), bool))
        probes._add_spectrum(state._replace(step=jnp.int32(step)), source, bank)
        with np.load(tmp_path / "spectrum.npz") as saved:
            assert saved["steps"].tolist() == steps and saved["eigenvalues"].shape == shape
            broken = np.isnan(saved["eigenvalues"]).all(2)
            assert broken[:, 0].all() and not broken[:2, 1:].any()
    assert broken[2].tolist() == [True, False, True]
    assert [path.name for path in tmp_path.iterdir()] == ["spectrum.npz"]
