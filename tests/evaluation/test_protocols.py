"""Every number of the published recipes, and what a change of one tells."""

from dataclasses import replace

import pytest

from tests.evaluation.shrink import shrink
from vrl_jax.augment.mixing import Mix
from vrl_jax.augment.training_views import StrongAugment
from vrl_jax.evaluation.eval_protocol import find_deviations, load_recipe
from vrl_jax.evaluation.protocols.retrieval import Retrieval
from vrl_jax.evaluation.recipes import list_recipes, published_recipe

# frames, stride, fps, clips, crops, side; rate, epochs, batch, decay; drops in epochs, their factor
TEST = {
    ("lss", "linear"): (8, 9, 30, 10, 3, 256),
    ("lss", "finetune"): (8, 9, 30, 10, 3, 256),
    ("severe", "linear"): (16, 1, 16, 10, 1, 112),
    ("severe", "finetune"): (32, 1, 16, 10, 1, 112),
    ("ctp", "finetune"): (16, 2, 0, 10, 1, 112),
    ("coclr", "linear"): (32, 1, 0, 10, 10, 128),
    ("coclr", "finetune"): (32, 1, 0, 10, 10, 128),
    ("coclr", "retrieval"): (32, 1, 0, 10, 1, 128),
    ("dualvar", "finetune"): (16, 2, 0, 10, 1, 112),
    ("dualvar", "retrieval"): (16, 4, 0, 10, 1, 112),
    ("videomae", "finetune"): (16, 4, 0, 5, 3, 224),
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
    ("videomae", "finetune"): ("AdamW", 5e-4, 75, 384, 0.05, (), 0.1),
}
PINNED = ["_".join(key) for key in TEST]


@pytest.mark.parametrize("name, task", TEST)
def test_the_recipes_are_those_of_the_papers(name, task):
    made = published_recipe(name, task)()
    sampling, crops = made.test.sampling, made.test.crops
    told = (sampling.frames, sampling.stride, sampling.fps, sampling.clips, len(crops))
    assert (*told, made.test.size) == TEST[name, task]
    if task == "retrieval":
        assert made.center == "each"
    else:
        assert pinned(made) == FIT[name, task]
        assert (made.train.sampling.frames, made.train.sampling.clips) == (sampling.frames, 1)


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
    lss, coclr = published_recipe("lss", "linear")(), published_recipe("coclr", "linear")()
    assert lss.optim.reference_batch == 512 and lss.optim.warmup == 8 / 60
    assert lss.optim.whole_cosine and not lss.test.sampling.reach_end
    assert lss.dropout == 0 and published_recipe("lss", "finetune")().dropout == 0.8
    assert coclr.normed and not lss.normed
    tuned = published_recipe("coclr", "finetune")()
    assert (tuned.encoder_rate, tuned.dropout) == (0.1, 0.9)
    seen = tuned.train.augment
    assert (seen.area, seen.jitter, seen.flip) == ((0.2, 1.0), 0.3, 0.5)
    assert (seen.brightness, seen.contrast, seen.saturation, seen.hue) == (0.4, 0.4, 0.4, 0.1)
    for task, places in (("linear", "ten"), ("retrieval", "center")):
        crops = published_recipe("coclr", task)().test.crops
        assert crops.positions == places and crops.share == 128 / 146  # 224 of 256
    ctp = published_recipe("ctp", "finetune")()
    assert (ctp.dropout, ctp.optim.clip_norm, ctp.train.augment.flip) == (0.5, 40, 0.35)
    severe = published_recipe("severe", "finetune")()
    assert severe.train.repeats == 10
    assert severe.train.augment.area[0] == 0.08 and severe.train.augment.hue == 0.2
    assert published_recipe("severe", "linear")("ucf101").train.repeats == 10
    assert published_recipe("severe", "linear")("k400").train.repeats == 1
    for task in ("linear", "finetune"):
        assert published_recipe("severe", task)("ssv2").train.repeats == 2
    dualvar = published_recipe("dualvar", "finetune")()
    assert dualvar.test.resize == (128, 171) and dualvar.test.crops.share * 128 == 112
    assert dualvar.train.augment.crop == "plain" and dualvar.train.augment.jitter == 0.8
    assert dualvar.test.sampling.layout == "centred"


def test_data_sets_have_recipes_of_their_own():
    ssv2 = published_recipe("lss", "finetune")("ssv2")
    assert pinned(ssv2) == ("SGD", 0.12, 22, 64, 1e-6, (14, 18), 0.1)
    assert ssv2.train.augment.flip == 0 and ssv2.dropout == 0.5
    assert (ssv2.test.sampling.layout, ssv2.test.sampling.clips) == ("segments", 1)
    assert ssv2.train.sampling.layout == "segments" and len(ssv2.test.crops) == 1
    severe = published_recipe("severe", "finetune")("ssv2")
    assert pinned(severe)[2:] == (22, 32, 0.0, (12, 17, 20), 0.3) and severe.train.augment.flip == 0
    linear = published_recipe("severe", "linear")("ssv2")
    assert linear.train.augment.flip == 0 and pinned(linear) == FIT["severe", "linear"]
    kinetics = published_recipe("severe", "linear")("k400")
    assert pinned(kinetics)[2:] == (40, 64, 0.0, (10, 20, 30), 0.3)


@pytest.mark.parametrize("benchmark", ["k400", "ssv2"])
def test_the_recipe_of_videomae_is_that_of_its_scripts(benchmark):
    """`finetune.sh` of ViT-B, and the defaults of `run_class_finetuning.py`."""
    tuned = published_recipe("videomae", "finetune")(benchmark)
    train, optim, epochs = tuned.train, tuned.optim, 75 if benchmark == "k400" else 30
    assert pinned(tuned) == ("AdamW", 5e-4, epochs, 384, 0.05, (), 0.1)
    assert optim.warmup * epochs == pytest.approx(5) and not optim.decay_all
    assert (optim.reference_batch, optim.start, optim.end) == (256, 1e-6, 1e-6)
    assert (optim.clip_norm, optim.whole_cosine) == (0, False)
    assert (tuned.layer_decay, tuned.drop_path, tuned.smoothing) == (0.75, 0.1, 0.1)
    assert tuned.mix == Mix(mixup=0.8, cutmix=1.0, switch=0.5, probability=1.0, group=6)
    assert (tuned.dropout, tuned.normed, tuned.average, tuned.microbatch) == (0, False, 0, 0)
    assert train.strong == StrongAugment(views=2, rand="rand-m7-n4-mstd0.5-inc1", erase=0.25)
    augment = train.augment
    assert (augment.size, augment.area, augment.aspect) == (224, (0.08, 1.0), (0.75, 4 / 3))
    assert augment.jitter == augment.gray == augment.blur == train.repeats - 1 == 0
    assert augment.flip == (0.5 if benchmark == "k400" else 0)
    assert tuned.test.resize[0] == tuned.test.size == 224 and tuned.test.crops.share == 1
    if benchmark == "ssv2":
        assert train.sampling.layout == tuned.test.sampling.layout == "segments"
        assert (tuned.test.sampling.clips, len(tuned.test.crops)) == (2, 3)
        assert not tuned.test.sampling.reach_end and train.resize[0] == 240
    else:
        assert train.resize[0] == 320 and (train.sampling.frames, train.sampling.stride) == (16, 4)


def test_a_recipe_tells_the_data_sets_of_its_paper():
    assert published_recipe("dualvar", "retrieval").benchmarks == ("ucf101",)
    benchmarks = {name for _, recipe in list_recipes() for name in recipe.benchmarks}
    assert benchmarks == {"ucf101", "hmdb51", "ssv2", "k400", "diving48"}


@pytest.mark.parametrize(
    "paper, task, message",
    [
        ("lss", "retrieval", "only for linear, finetune; 'retrieval' is in coclr, dualvar"),
        ("ctp", "linear", "ctp has no recipe for 'linear'"),
        ("byol", "linear", "paper must be one of"),
        ("lss", "guess", "in no paper"),
    ],
)
def test_what_no_paper_has_is_refused(paper, task, message):
    with pytest.raises(ValueError, match=message):
        published_recipe(paper, task)


@pytest.mark.parametrize("name", ["severe", ":recipe", ".severe:severe_linear", "no.module:recipe"])
def test_a_published_recipe_that_does_not_exist_is_refused(name):
    with pytest.raises(ValueError, match="no recipe"):
        load_recipe(name)


@pytest.mark.parametrize("part, field", [("test", "size"), ("test", "resize"), ("train", "resize")])
def test_an_input_without_pixels_is_refused(part, field):
    protocol = published_recipe("severe", "linear")("ucf101")
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        replace(getattr(protocol, part), **{field: 0 if field == "size" else (0, 0)})


def test_deviations_are_all_that_differs_from_the_recipe():
    protocol = published_recipe("dualvar", "finetune")("ucf101")
    assert find_deviations(protocol, "ucf101") == find_deviations(protocol, "") == {}
    assert find_deviations(replace(protocol, published=""), "ucf101") == {}
    used = shrink(protocol, size=56, frames=16, clips=3, epochs=2.0, batch=4, learning_rate=0.1)
    assert find_deviations(used, "ucf101") == {
        "test.sampling.clips": [3, 10],
        "test.resize": [[64, 86], [128, 171]],
        "test.size": [56, 112],
        "train.resize": [[64, 86], [128, 171]],
        "train.augment.size": [56, 112],
        "optim.learning_rate": [0.1, 0.05],
        "epochs": [2.0, 150.0],
        "batch": [4, 16],
    }
    own = published_recipe("severe", "finetune")("ssv2")
    assert find_deviations(own, "ssv2") == find_deviations(own, "") == {}
    assert "epochs" in find_deviations(own, "ucf101")  # which has settings of its own
    other = Retrieval(protocol.test, published=protocol.published)
    assert find_deviations(other, "ucf101")["kind"][0].endswith(":Retrieval")
