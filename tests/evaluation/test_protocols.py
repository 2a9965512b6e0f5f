"""Every number of the published recipes, and what a change of one tells."""

import pytest

from vrl_jax.evaluation import protocols
from vrl_jax.evaluation.protocols import Change, apply_change, published_recipe

# frames, stride, fps, clips, crops, side; rate, epochs, batch, decay; drops in epochs, their factor
TEST = {
    ("lss", "linear"): (8, 8, 0, 10, 3, 256),
    ("lss", "finetune"): (8, 8, 0, 10, 3, 256),
    ("severe", "linear"): (16, 1, 16, 10, 1, 112),
    ("severe", "finetune"): (32, 1, 16, 10, 1, 112),
    ("ctp", "finetune"): (16, 2, 0, 10, 1, 112),
    ("coclr", "linear"): (32, 1, 0, 10, 10, 128),
    ("coclr", "finetune"): (32, 1, 0, 10, 10, 128),
    ("coclr", "retrieval"): (32, 1, 0, 10, 1, 128),
    ("dualvar", "finetune"): (16, 2, 0, 10, 1, 112),
    ("dualvar", "retrieval"): (16, 4, 0, 10, 1, 112),
}
FIT = {
    ("lss", "linear"): ("SGD", 4.0, 60, 512, 0.0, (), 0.1),
    ("lss", "finetune"): ("SGD", 0.025, 200, 64, 0.0, (60, 120, 180), 0.1),
    ("severe", "linear"): ("Adam", 0.01, 10, 128, 0.0, (4, 8), 0.3),
    ("severe", "finetune"): ("Adam", 1e-4, 16, 32, 0.0, (6, 10, 14), 0.3),
    ("ctp", "finetune"): ("SGD", 0.01, 150, 32, 5e-4, (60, 120), 0.1),
    ("coclr", "linear"): ("SGD", 0.1, 100, 64, 1e-3, (60, 80), 0.1),
    ("coclr", "finetune"): ("Adam", 1e-3, 500, 64, 1e-3, (400, 450), 0.1),
    ("dualvar", "finetune"): ("SGD", 0.05, 150, 16, 1e-3, (50, 100), 0.1),
}


@pytest.mark.parametrize("name, task", TEST)
def test_the_recipes_are_those_of_the_papers(name, task):
    made = published_recipe(name, task)
    sampling, crops = made.test.sampling, made.test.crops
    told = (sampling.frames, sampling.stride, sampling.fps, sampling.clips, len(crops))
    assert (*told, made.test.size) == TEST[name, task]
    assert made.center == ("each" if task == "retrieval" else "none")
    assert (made.fit is None) == (task == "retrieval")
    if made.fit:
        assert pinned(made.fit) == FIT[name, task]
        assert (made.fit.sampling.frames, made.fit.sampling.clips) == (sampling.frames, 1)


def pinned(fit):
    drops = tuple(round(share * fit.epochs, 6) for share in fit.optim.drops)
    return (
        type(fit.optim).__name__,
        fit.optim.learning_rate,
        fit.epochs,
        fit.batch,
        fit.optim.weight_decay,
        drops,
        fit.optim.drop_factor,
    )


def test_what_sets_one_recipe_apart():
    lss, coclr = published_recipe("lss", "linear").fit, published_recipe("coclr", "linear").fit
    assert lss.optim.reference_batch == 512 and lss.optim.warmup == 8 / 60
    assert lss.dropout == 0 and published_recipe("lss", "finetune").fit.dropout == 0.8
    assert coclr.normed and not lss.normed
    tuned = published_recipe("coclr", "finetune").fit
    assert (tuned.encoder_rate, tuned.dropout) == (0.1, 0.9)
    seen = tuned.augment
    assert (seen.area, seen.jitter, seen.flip) == ((0.2, 1.0), 0.3, 0.5)
    assert (seen.brightness, seen.contrast, seen.saturation, seen.hue) == (0.4, 0.4, 0.4, 0.1)
    for task, places in (("linear", "ten"), ("retrieval", "center")):
        crops = published_recipe("coclr", task).test.crops
        assert crops.places == places and crops.share == 128 / 146  # 224 of 256
    ctp = published_recipe("ctp", "finetune").fit
    assert (ctp.dropout, ctp.optim.clip_norm, ctp.augment.flip) == (0.5, 40, 0.35)
    severe = published_recipe("severe", "finetune").fit
    assert severe.repeats == 10 and severe.augment.area[0] == 0.08 and severe.augment.hue == 0.2
    assert published_recipe("severe", "linear", "ucf101").fit.repeats == 10
    assert published_recipe("severe", "linear", "k400").fit.repeats == 1
    for task in ("linear", "finetune"):
        assert published_recipe("severe", task, "ssv2").fit.repeats == 2
    dualvar = published_recipe("dualvar", "finetune")
    assert dualvar.test.resize == (128, 171) and dualvar.test.crops.share * 128 == 112
    assert dualvar.fit.augment.crop == "plain" and dualvar.fit.augment.jitter == 0.8
    assert dualvar.test.sampling.layout == "centred"


def test_data_sets_have_recipes_of_their_own():
    ssv2 = published_recipe("lss", "finetune", "ssv2")
    assert pinned(ssv2.fit) == ("SGD", 0.12, 22, 64, 1e-6, (14, 18), 0.1)
    assert ssv2.fit.augment.flip == 0 and ssv2.fit.dropout == 0.5
    assert (ssv2.test.sampling.layout, ssv2.test.sampling.clips) == ("segments", 1)
    assert ssv2.fit.sampling.layout == "segments" and len(ssv2.test.crops) == 1
    severe = published_recipe("severe", "finetune", "ssv2").fit
    assert pinned(severe)[2:] == (22, 32, 0.0, (12, 17, 20), 0.3) and severe.augment.flip == 0
    linear = published_recipe("severe", "linear", "ssv2").fit
    assert linear.augment.flip == 0 and pinned(linear) == FIT["severe", "linear"]
    kinetics = published_recipe("severe", "linear", "k400").fit
    assert pinned(kinetics)[2:] == (40, 64, 0.0, (10, 20, 30), 0.3)


def test_a_recipe_says_whether_the_paper_has_it_for_the_data():
    assert published_recipe("dualvar", "retrieval", "ucf101").published
    assert not published_recipe("dualvar", "retrieval", "hmdb51").published
    for name, task in TEST:
        assert not published_recipe(name, task, "diving48").published
        assert not published_recipe(name, task).published


@pytest.mark.parametrize(
    "given, told",
    [
        (("lss", "retrieval"), "'lss' has no retrieval, but linear, finetune; retrieval is of coc"),
        (("ctp", "linear"), "'ctp' has no linear"),
        (("byol", "linear"), "protocol"),
        (("lss", "guess"), "task"),
    ],
)
def test_what_no_paper_has_is_refused(given, told):
    with pytest.raises(ValueError, match=told):
        published_recipe(*given)


def test_a_change_is_made_and_told():
    made = published_recipe("dualvar", "finetune", "ucf101")
    same, told = apply_change(made, Change(epochs=150, size=112))
    assert same == made and told == {}
    new, told = apply_change(made, Change(epochs=2, size=56, clips=3, batch=4, learning_rate=0.1))
    assert told == {
        "clips": (3, 10),
        "size": (56, 112),
        "learning_rate": (0.1, 0.05),
        "epochs": (2, 150.0),
        "batch": (4, 16),
    }
    assert new.test.resize == (64, 86) and new.fit.resize == (64, 86) and new.fit.augment.size == 56
    assert (new.test.sampling.clips, new.fit.sampling.clips) == (3, 1)
    assert (new.fit.epochs, new.fit.batch, new.fit.optim.learning_rate) == (2, 4, 0.1)
    frames, told = apply_change(made, Change(frames=4))
    assert frames.test.sampling.frames == frames.fit.sampling.frames == 4
    assert told == {"frames": (4, 16)}
    with pytest.raises(ValueError, match="change.epochs, .* got 2, 0 and 0"):
        apply_change(published_recipe("dualvar", "retrieval"), Change(epochs=2))


def test_every_protocol_has_a_task():
    assert set(TEST) == set(protocols._RECIPES)
