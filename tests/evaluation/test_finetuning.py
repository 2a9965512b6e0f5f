"""Fine-tuning of a transformer with everything that published recipes add."""

import itertools
from dataclasses import replace

import chex
import jax
import numpy as np
import pytest

from tests.evaluation.test_contract import VIDEOS, restored
from tests.evaluation.test_evaluation_run import evaluation, read
from vrl_jax.augment.clip_views import Augment
from vrl_jax.augment.mixing import Mix
from vrl_jax.augment.training_views import StrongAugment
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.encoders.videomae import VideoMAE
from vrl_jax.evaluation.eval_protocol import EvalInput, TrainInput
from vrl_jax.evaluation.evaluation_run import EvaluationRun
from vrl_jax.evaluation.protocols.finetune import Finetune
from vrl_jax.report.html_page import write_report
from vrl_jax.train.optim import AdamW
from vrl_jax.train.preemption import PreemptionGuard

ENCODER = VideoMAE(width=12, depth=2, heads=2, patch=8, dtype="bfloat16", norm="mean")
STRONG = StrongAugment(views=2, rand="rand-m7-n4-mstd0.5-inc1", erase=0.25)
AUGMENT = Augment(size=16, jitter=0.0, gray=0.0, blur=0.0)
PROTOCOL = Finetune(
    test=EvalInput(Sampling(4, 1, 2), (18, 24), 16),
    train=TrainInput(Sampling(4, 1, 1), (18, 24), AUGMENT, strong=STRONG),
    optim=AdamW(0.01, warmup=0.0, end=1e-3),
    epochs=3.0,
    batch=16,
    microbatch=8,
    layer_decay=0.5,
    drop_path=0.5,
    mix=Mix(mixup=0.8, cutmix=1.0, group=4),
    smoothing=0.1,
    average=0.5,
)


@pytest.mark.slow
def test_a_run_with_everything_tests_both_weights_and_continues_bit_by_bit(tmp_path, monkeypatch):
    settings = evaluation(PROTOCOL, data=VIDEOS, encoder=ENCODER, save_every=1)
    run = EvaluationRun(settings, tmp_path / "whole", quiet=True)
    assert run()
    ((task,),) = run._tasks
    results = read(tmp_path / "whole")
    names = "finetune-static-untrained", "finetune_average-static-untrained"
    assert set(results) == {*names}
    last, average = (results[name] for name in names)
    assert last["protocol"] == average["protocol"]
    assert last["protocol"]["fit"]["mix"]["cutmix"] == 1.0
    assert "finetune_average" in write_report(tmp_path / "whole").read_text()
    state = restored(task.folder.checkpoints)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(state["params"], state["state"]["average"]["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state["params"]))

    should_stop, steps = PreemptionGuard.should_stop, itertools.count(1)
    monkeypatch.setattr(PreemptionGuard, "should_stop", lambda self: next(steps) == 1)
    assert not EvaluationRun(settings, tmp_path / "parts", quiet=True)()
    monkeypatch.setattr(PreemptionGuard, "should_stop", should_stop)
    assert EvaluationRun(settings, tmp_path / "parts", quiet=True)()
    folder = tmp_path / "parts" / task.folder.local.name / "checkpoints"
    chex.assert_trees_all_equal(restored(folder), state)
    assert read(tmp_path / "parts") == results


@pytest.mark.parametrize("changes", [{"layer_decay": 0.75}, {"drop_path": 0.1}])
def test_layers_need_a_transformer(tmp_path, changes):
    plain = {"layer_decay": 1.0, "drop_path": 0.0}
    settings = evaluation(replace(PROTOCOL, **{**plain, **changes}), data=VIDEOS)
    with pytest.raises(ValueError, match="layer_decay and drop_path need a transformer, got Tiny"):
        EvaluationRun(settings, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mix": Mix(mixup=1.0, group=3)}, "microbatch must be a multiple of mix.group=3, got 8"),
        ({"smoothing": 1.5}, r"smoothing must lie in \[0, 1\], got 1.5"),
        ({"drop_path": -0.1}, "drop_path must lie in"),
        ({"average": 2.0}, "average must lie in"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(PROTOCOL, **changes)
