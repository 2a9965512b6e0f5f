"""Every protocol and every recipe: found by listing the folders, held to one contract."""

import dataclasses
import importlib
import inspect
import itertools
import json
import pathlib
import pkgutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import chex
import numpy as np
import orbax.checkpoint as ocp
import pytest

import tests.evaluation
from tests.evaluation.test_evaluation_run import Split, evaluation, read
from vrl_jax import config, pretrained
from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.datasets import benchmarks
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.video_dataset import Video, VideoList
from vrl_jax.evaluation import protocols
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.eval_protocol import (
    EvalInput,
    EvalProtocol,
    RunInput,
    TrainInput,
    find_deviations,
    load_recipe,
)
from vrl_jax.evaluation.eval_task import EvalTask
from vrl_jax.evaluation.evaluation_run import EvaluationRun
from vrl_jax.evaluation.protocols.attentive import Attentive
from vrl_jax.evaluation.protocols.classifier import ClassifierEval
from vrl_jax.evaluation.protocols.linear import Linear
from vrl_jax.evaluation.recipes import list_recipes, published_recipe
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.report.html_page import write_report
from vrl_jax.report.result_files import load_result
from vrl_jax.train.optim import SGD
from vrl_jax.train.preemption import PreemptionGuard

VIDEOS = Split(train_videos=16, test_videos=16, frames=12)
SMALL = {
    EvalInput: EvalInput(Sampling(4, 1, 2), (18, 24), 16),
    RunInput: RunInput(size=16, frames=4, clips=2),
    TrainInput: TrainInput(
        Sampling(4, 1, 1), (18, 24), Augment(size=16, flip=0.0, jitter=0.0, gray=0.0, blur=0.0)
    ),
    LinearProbe: LinearProbe(steps=10),
    "optim": SGD(0.1),
    "epochs": 1.0,
    "batch": 8,
    "ks": (1, 2),
    "knn": 2,
    "neighbours": 2,
    "permutations": 1,
    "heads": 2,
}


def list_protocols() -> list[type]:
    """Return the protocols of the package: dataclasses with `evaluate`, without base classes."""
    names = [module.name for module in pkgutil.iter_modules(protocols.__path__)]
    modules = [importlib.import_module(f"{protocols.__name__}.{name}") for name in names]
    kinds = [
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
        and dataclasses.is_dataclass(kind)
        and hasattr(kind, "evaluate")
    ]
    return [kind for kind in kinds if not any(kind in other.__mro__[1:] for other in kinds)]


PROTOCOLS = list_protocols()
CLASSIFIERS = [
    pytest.param(kind, id=kind.__name__, marks=[] if kind is Attentive else [pytest.mark.slow])
    for kind in PROTOCOLS
    if issubclass(kind, ClassifierEval)
]
RECIPES = {recipe.__name__: recipe for _, recipe in list_recipes()}


def small(kind: type) -> EvalProtocol:
    """Return a protocol with the sizes that make a test quick."""
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    values = {name: SMALL.get(name, SMALL.get(hint)) for name, hint in fields.items()}
    return kind(**{name: value for name, value in values.items() if value is not None})


def name_of(kind: type) -> str:
    return kind.__name__


# Protocols


def test_all_protocols_are_found():
    names = {kind.__name__ for kind in PROTOCOLS}
    assert names >= {"Linear", "Finetune", "Attentive", "Retrieval", "Probes", "Factors"}


@pytest.fixture(params=PROTOCOLS, ids=name_of)
def protocol(request):
    return small(request.param)


def test_a_protocol_is_a_frozen_component(protocol):
    assert isinstance(protocol, EvalProtocol)
    assert protocol.task.isidentifier() and protocol.published == "" and protocol.group == ""
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.published = "another"
    described = json.loads(config.describe(protocol).to_json())
    assert config.build(described) == protocol


def test_its_input_does_not_need_an_encoder(protocol):
    test = protocol.input_for(None)
    assert isinstance(test, EvalInput) and test.sampling.frames == 4


def test_it_mirrors_nothing_where_mirror_images_change_labels(protocol):
    safe = VideoList((), {"class": ("left", "right")}, mirror_safe=True)
    unsafe = replace(safe, mirror_safe=False)
    assert protocol.adapt(safe) == protocol
    if hasattr(protocol, "train"):
        augment = replace(protocol.train.augment, flip=0.5)
        protocol = replace(protocol, train=replace(protocol.train, augment=augment))
        assert protocol.adapt(unsafe).train.augment.flip == 0
    assert protocol.adapt(unsafe).adapt(unsafe) == protocol.adapt(unsafe)


@dataclass(frozen=True)
class Closed:
    """A video that must not be read."""

    @contextmanager
    def open(self):
        pytest.fail("a video was read")
        yield


@dataclass(frozen=True)
class ClosedSplit(Split):
    """Rendered videos that must not be read."""

    def listed(self, scenes):
        videos = super().listed(scenes)
        closed = tuple(Video(video.id, Closed(), video.labels) for video in videos.videos)
        return replace(videos, videos=closed)


def test_bad_input_is_refused_before_a_video_is_read(protocol, tmp_path):
    closed = evaluation(protocol, data=ClosedSplit(train_videos=16, test_videos=16, frames=12))
    EvaluationRun(closed, tmp_path)
    if "group" in {field.name for field in dataclasses.fields(protocol)}:
        bad = replace(closed, protocol=replace(protocol, group="person"))
    else:
        bad = replace(closed, label="person")
    with pytest.raises(ValueError, match=r"must be one of .*'static'.*, got 'person'"):
        EvaluationRun(bad, tmp_path)
    assert not list(tmp_path.iterdir())


# Runs


class Finished(NamedTuple):
    """A finished evaluation: its settings, folder and task, and its results, twice."""

    evaluation: Evaluation
    folder: pathlib.Path
    task: EvalTask
    results: dict[str, Any]
    repeated: dict[str, Any]


@pytest.fixture(scope="module", params=PROTOCOLS, ids=name_of)
def finished(request, weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    settings = evaluation(small(request.param), data=VIDEOS, init=weights, save_every=1)
    run = EvaluationRun(settings, folder, quiet=True)
    assert run()
    results = read(folder)
    assert EvaluationRun(settings, folder, quiet=True)()  # the same command again
    return Finished(settings, folder, run._tasks[0][0], results, read(folder))


def keys_of(tree) -> set[str]:
    """Return all keys of nested dictionaries."""
    if isinstance(tree, list):
        return set().union(*map(keys_of, tree))
    if not isinstance(tree, dict):
        return set()
    return set(tree).union(*map(keys_of, tree.values()))


def test_results_carry_protocol_model_and_data(finished):
    model = pretrained.load(finished.evaluation.init)
    assert finished.results
    for result in finished.results.values():
        stamps = [result[name] for name in ("protocol", "model", "data", "unreadable")]
        assert not [key for key in keys_of(stamps) if not key.isidentifier() and "." not in key]
        assert result["protocol"]["task"] == finished.evaluation.protocol.task
        assert result["protocol"]["split"] == "split 1" and result["protocol"]["clips"] == 2
        assert result["protocol"]["input_mean"] == [0.4, 0.5, 0.6]
        assert result["model"]["weights"] == model.weight_hash()
        assert result["model"]["init"] == finished.evaluation.init
        assert result["data"]["set"] == "Split" and {"train", "test"} <= set(result["data"])
        assert set(result["unreadable"]) <= {"train", "test"} and result["commit"]
    for path in (finished.folder / "results").glob("*.json"):
        result = load_result(path, "run")
        assert result.values and all(np.isfinite(list(result.values.values())))
    page = write_report(finished.folder).read_text()
    assert finished.evaluation.protocol.task in page


def test_the_same_command_gives_the_same_results(finished):
    assert finished.results == finished.repeated


def test_the_encoder_is_bitwise_unchanged_unless_it_is_trained(finished):
    before = pretrained.load(finished.evaluation.init)
    assert finished.task.model.weight_hash() == before.weight_hash()
    if not isinstance(finished.evaluation.protocol, ClassifierEval):
        assert not finished.task.folder.checkpoints.exists()
        return
    state = restored(finished.task.folder.checkpoints)
    if finished.evaluation.protocol.frozen:
        chex.assert_trees_all_equal(state["state"]["frozen"], dict(before.variables))
        assert set(state["params"]) == {"head"}
    else:
        with pytest.raises(AssertionError):
            chex.assert_trees_all_equal(state["params"]["encoder"], before.variables["params"])


def restored(folder):
    with ocp.CheckpointManager(folder) as manager:
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore())
        return manager.restore(manager.latest_step(), args=arguments)["state"]


@pytest.mark.parametrize("finished", CLASSIFIERS, indirect=True)
def test_an_interrupted_training_continues_bit_by_bit(finished, tmp_path, monkeypatch):
    should_stop = PreemptionGuard.should_stop
    steps = itertools.count(1)
    monkeypatch.setattr(PreemptionGuard, "should_stop", lambda self: next(steps) == 1)
    assert not EvaluationRun(finished.evaluation, tmp_path, quiet=True)()
    assert not (tmp_path / "results").exists()
    monkeypatch.setattr(PreemptionGuard, "should_stop", should_stop)
    assert EvaluationRun(finished.evaluation, tmp_path, quiet=True)()
    folder = finished.task.folder.checkpoints
    again = restored(tmp_path / "trained-split1" / "checkpoints")
    chex.assert_trees_all_equal(restored(folder), again)
    assert read(tmp_path) == finished.results


OUT_OF_TREE = '''
"""Nearest class mean on the features of a frozen encoder."""

from dataclasses import dataclass

import chex
import numpy as np

from vrl_jax.evaluation.eval_protocol import EvalInput
from vrl_jax.probes import result_files


@dataclass(frozen=True)
class NearestMean:
    """Classification by the nearest class mean.

    Attributes:
      test: input of the encoder.
      published: "".
    """

    test: EvalInput
    published: str = ""

    task = "nearest_mean"
    group = ""

    def input_for(self, model):
        return self.test

    def adapt(self, dataset):
        return self

    def check(self, task):
        pass

    def stamp(self, task):
        return {"distance": "euclidean"}

    def evaluate(self, task):
        train, test = task.features("train"), task.features("test")
        label = task.evaluation.label
        scores = np.full((len(task.test), len(task.test.classes[label])), -np.inf)
        for number in np.unique(train.labels[label]):
            mean = train.features[train.labels[label] == number].mean(0)
            scores[:, number] = -np.linalg.norm(test.features - mean, axis=1)
        bank = test._replace(features=scores)
        return [
            {
                **task.stamp("features", train=train, test=test),
                **result_files.top_accuracies(self.task, bank, label),
            }
        ]
'''


def test_a_protocol_out_of_the_tree_is_built_from_a_config_and_runs(tmp_path, weights, monkeypatch):
    (tmp_path / "nearest_mean.py").write_text(OUT_OF_TREE)
    monkeypatch.syspath_prepend(tmp_path)
    settings = evaluation(small(Linear), data=VIDEOS, init=weights)
    described = json.loads(config.describe(settings).to_json())
    test = described["protocol"]["test"]
    described["protocol"] = {"kind": "nearest_mean:NearestMean", "test": test}
    built = config.build(described)
    assert isinstance(built.protocol, EvalProtocol)
    assert EvaluationRun(built, tmp_path / "run", quiet=True)()
    (result,) = read(tmp_path / "run").values()
    assert result["name"] == "nearest_mean" and 0 <= result["value"] <= 1
    assert result["protocol"]["distance"] == "euclidean" and result["protocol"]["clips"] == 2


# Recipes


@pytest.fixture(params=RECIPES)
def recipe(request):
    return RECIPES[request.param]


def test_a_recipe_names_itself_and_its_paper(recipe):
    paper = recipe.__module__.rpartition(".")[2]
    assert recipe.__name__ == f"{paper}_{recipe().task}" and recipe.__doc__
    assert published_recipe(paper, recipe().task) is recipe
    assert "arXiv" in inspect.getmodule(recipe).__doc__
    classes = inspect.getmembers(benchmarks, inspect.isclass)
    names = {getattr(kind, "benchmark", "") for _, kind in classes}
    assert recipe.benchmarks and set(recipe.benchmarks) <= names - {""}


def test_a_recipe_is_a_protocol_for_every_benchmark(recipe):
    for benchmark in ("", *recipe.benchmarks, "another"):
        protocol = recipe(benchmark)
        assert isinstance(protocol, EvalProtocol)
        name = f"{recipe.__module__}:{recipe.__name__}"
        assert protocol.published == (f"{name}:{benchmark}" if benchmark else name)
        assert load_recipe(protocol.published) == (recipe, benchmark)
        assert config.build(json.loads(config.describe(protocol).to_json())) == protocol
        assert find_deviations(protocol, "") == find_deviations(protocol, benchmark) == {}


def test_crops_of_a_recipe_fit_its_frames(recipe):
    for benchmark in ("", *recipe.benchmarks):
        protocol = recipe(benchmark)
        assert protocol.test.size <= min(protocol.test.resize)
        if hasattr(protocol, "train"):
            assert protocol.train.augment.size <= min(protocol.train.resize)


def test_a_recipe_for_data_with_a_direction_mirrors_nothing(recipe):
    data = VideoList((), {"class": ("left", "right")}, mirror_safe=False)
    if "ssv2" in recipe.benchmarks:
        assert recipe("ssv2").adapt(data) == recipe("ssv2")


def test_every_recipe_is_pinned_by_a_table():
    """A test module of this folder names the recipes whose numbers it states as `PINNED`."""
    names = [module.name for module in pkgutil.iter_modules(tests.evaluation.__path__)]
    modules = [importlib.import_module(f"{tests.evaluation.__name__}.{name}") for name in names]
    pinned = [name for module in modules for name in getattr(module, "PINNED", ())]
    assert sorted(pinned) == sorted(RECIPES)
