"""How the field's papers judge an encoder, as pinned recipes by name.

`lss`: the large-scale study (arXiv 2104.14558); `severe`: SEVERE (2203.14221); `ctp`: CtP and
tubelet contrast (2105.02545); `coclr`: CoCLR (2010.09709); `dualvar`: DualVar (2107.01194). What a
paper leaves open is its released code's; SEVERE's linear evaluation on SSv2 has none, and the clips
of a video there are ours.

Known to differ: CoCLR scores all windows of a video, here ten evenly spaced ones. SEVERE's batch
statistics adapt in linear evaluation, here a frozen encoder is frozen; and it mirrors SSv2. CtP
trains on frames of three sizes with a faint colour jitter and draws a smaller classifier at first,
and its test clips are centred in ten equal parts. DualVar's schedule is that of encoders pretrained
on Kinetics: those of UCF101 had 100 epochs, with drops at 30, 60 and 80. Frames are scaled to cover
a box of 4 : 3 and cut to it, where the large-scale study crops from the whole of a wide frame and
others squash it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vrl_jax import check
from vrl_jax.augment.crops import Crops
from vrl_jax.augment.views import Augment
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.train.optim import SGD, Adam, Optimizer

TASKS = ("linear", "finetune", "retrieval")
SETS = ("ucf101", "hmdb51", "diving48", "ssv2", "k400")


@dataclass(frozen=True)
class Fit:
    """How a classifier upon an encoder is trained.

    Attributes:
      optim: of all weights, or of the classifier's where the encoder is frozen.
      epochs: passes over `repeats` clips of each training video.
      batch: clips a step, over all devices.
      sampling: of the clip.
      resize: height and width that frames are decoded to.
      augment: how a clip becomes a view; its mean and std are those that the encoder is used to.
      repeats: clips of a video in an epoch.
      encoder_rate: learning rate of the encoder, relative to the classifier's.
      dropout: before the classifier.
      normed: scale features to unit length and normalise them by the batch before the classifier.
    """

    optim: Optimizer
    epochs: float
    batch: int
    sampling: Sampling
    resize: tuple[int, int]
    augment: Augment
    repeats: int = 1
    encoder_rate: float = 1.0
    dropout: float = 0.0
    normed: bool = False


@dataclass(frozen=True)
class Test:
    """How a video is judged: its clips' and crops' class probabilities, or features, are averaged.

    Attributes:
      sampling: how many clips, and of which frames.
      resize: height and width that frames are decoded to.
      size: side of the squares that the encoder sees.
      crops: which squares.
    """

    sampling: Sampling
    resize: tuple[int, int]
    size: int
    crops: Crops = Crops()


@dataclass(frozen=True)
class Recipe:
    """One protocol for one task on one data set.

    Attributes:
      test: how a video is judged.
      fit: how the classifier is trained; None in retrieval.
      center: what is subtracted in retrieval, see `retrieval.nearest_neighbours`.
      published: whether the paper has it for that data set; else it is its recipe for another.
    """

    test: Test
    fit: Fit | None = None
    center: str = "none"
    published: bool = False


@dataclass(frozen=True)
class Change:
    """What deviates from a recipe; 0 keeps the recipe's. Every result tells of it.

    Attributes:
      epochs, batch, learning_rate: of training.
      frames: of a clip.
      size: of the squares; frames are decoded smaller or larger in proportion.
      clips: that a video is judged by.
    """

    epochs: float = 0.0
    batch: int = 0
    learning_rate: float = 0.0
    frames: int = 0
    size: int = 0
    clips: int = 0

    def __post_init__(self):
        check.at_least(0, epochs=self.epochs, batch=self.batch, learning_rate=self.learning_rate)
        check.at_least(0, frames=self.frames, size=self.size, clips=self.clips)


def published_recipe(name: str, task: str, data: str = "") -> Recipe:
    """Return a protocol's recipe.

    Args:
      name: "lss", "severe", "ctp", "coclr" or "dualvar".
      task: "linear", "finetune" or "retrieval".
      data: one of `SETS`, or "" for another data set.

    Raises:
      ValueError: there is no such protocol, or its paper has no such task.
    """
    check.one_of(tuple(_PUBLISHED), protocol=name)
    check.one_of(TASKS, task=task)
    published = _PUBLISHED[name]
    if task not in published:
        raise ValueError(
            f"the protocol {name!r} has no {task}, but {', '.join(published)}; {task} is of "
            f"{', '.join(other for other, tasks in _PUBLISHED.items() if task in tasks)}"
        )
    made = _RECIPES[name, task]
    made = _ON_SETS.get((name, task, data), made)
    return replace(made, published=data in published[task])


def apply_change(made: Recipe, change: Change) -> tuple[Recipe, dict[str, tuple]]:
    """Return the recipe with the changes, and for each what it is now and what it was.

    Raises:
      ValueError: a setting of training is changed where nothing is trained.
    """
    test, fit, told = made.test, made.fit, {}

    def keep(name, new, old):
        if new and new != old:
            told[name] = (new, old)
        return new or old

    if fit is None and (change.epochs or change.batch or change.learning_rate):
        raise ValueError(
            "nothing is trained here: change.epochs, change.batch and change.learning_rate must "
            f"be 0, got {change.epochs:g}, {change.batch} and {change.learning_rate:g}"
        )
    frames = keep("frames", change.frames, test.sampling.frames)
    clips = keep("clips", change.clips, test.sampling.clips)
    size = keep("size", change.size, test.size)
    ratio = size / test.size
    sampling = replace(test.sampling, frames=frames, clips=clips)
    test = replace(test, sampling=sampling, size=size, resize=_scaled(test.resize, ratio))
    if fit is not None:
        rate = keep("learning_rate", change.learning_rate, fit.optim.learning_rate)
        fit = replace(
            fit,
            optim=replace(fit.optim, learning_rate=rate),
            epochs=keep("epochs", change.epochs, fit.epochs),
            batch=keep("batch", change.batch, fit.batch),
            sampling=replace(fit.sampling, frames=frames),
            resize=_scaled(fit.resize, ratio),
            augment=replace(fit.augment, size=round(fit.augment.size * ratio)),
        )
    return replace(made, test=test, fit=fit), told


def _scaled(resize: tuple[int, int], ratio: float) -> tuple[int, int]:
    return round(resize[0] * ratio), round(resize[1] * ratio)


def _plain(size: int, **settings) -> Augment:
    """Return an augmentation with a crop and a mirror image, and what is given."""
    none = {"jitter": 0.0, "gray": 0.0, "blur": 0.0}
    return Augment(**{"size": size, **none, **settings})


def _drops(epochs: float, *at: float) -> tuple[float, ...]:
    return tuple(epoch / epochs for epoch in at)


_TORCH_SGD = {"warmup": 0.0, "decay_all": True, "nesterov": False}

_LSS_TEST = Test(Sampling(8, 8, clips=10), (256, 340), 256, Crops("three"))
_LSS = {
    "sampling": Sampling(8, 8, clips=1),
    "resize": (320, 426),
    "augment": _plain(224, crop="scaled"),
}
_LSS_LINEAR = Fit(
    SGD(4.0, reference_batch=512, warmup=8 / 60, weight_decay=0.0), epochs=60.0, batch=512, **_LSS
)
_LSS_FINETUNE = Fit(
    SGD(0.025, warmup=0.0, drops=_drops(200, 60, 120, 180), weight_decay=0.0),
    epochs=200.0,
    batch=64,
    dropout=0.8,
    **_LSS,
)
_LSS_SSV2 = replace(
    _LSS_FINETUNE,
    optim=SGD(0.12, warmup=0.0, drops=_drops(22, 14, 18), weight_decay=1e-6),
    epochs=22.0,
    dropout=0.5,
    sampling=Sampling(8, 8, clips=1, layout="segments"),
    augment=_plain(224, crop="scaled", flip=0.0),
)
_LSS_SSV2_TEST = replace(
    _LSS_TEST, sampling=Sampling(8, 8, clips=1, layout="segments"), crops=Crops()
)

_SEVERE_TEST = Test(Sampling(32, 1, 10, fps=16.0), (128, 171), 112, Crops(share=112 / 128))
_SEVERE_FINETUNE = Fit(
    Adam(1e-4, warmup=0.0, drops=_drops(16, 6, 10, 14), drop_factor=0.3, weight_decay=0.0),
    epochs=16.0,
    batch=32,
    sampling=Sampling(32, 1, clips=1, fps=16.0),
    resize=(128, 171),
    augment=_plain(
        112, area=(0.08, 1.0), jitter=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2
    ),
    repeats=10,
)
_SEVERE_SSV2 = replace(
    _SEVERE_FINETUNE,
    optim=replace(_SEVERE_FINETUNE.optim, drops=_drops(22, 12, 17, 20)),
    epochs=22.0,
    augment=replace(_SEVERE_FINETUNE.augment, flip=0.0),
    repeats=2,
)
_SEVERE_LINEAR_TEST = replace(_SEVERE_TEST, sampling=Sampling(16, 1, 10, fps=16.0))
_SEVERE_LINEAR = replace(
    _SEVERE_FINETUNE,
    optim=replace(_SEVERE_FINETUNE.optim, learning_rate=0.01, drops=_drops(10, 4, 8)),
    epochs=10.0,
    batch=128,
    sampling=Sampling(16, 1, clips=1, fps=16.0),
)
_SEVERE_LINEAR_SSV2 = replace(_SEVERE_LINEAR, augment=_SEVERE_SSV2.augment, repeats=2)
_SEVERE_K400 = replace(
    _SEVERE_LINEAR,
    optim=replace(_SEVERE_LINEAR.optim, drops=_drops(40, 10, 20, 30)),
    epochs=40.0,
    batch=64,
    repeats=1,
)

_CTP_TEST = Test(Sampling(16, 2, 10), (128, 171), 112, Crops(share=112 / 128))
_CTP = Fit(
    SGD(0.01, drops=_drops(150, 60, 120), weight_decay=5e-4, clip_norm=40.0, **_TORCH_SGD),
    epochs=150.0,
    batch=32,
    sampling=Sampling(16, 2, clips=1),
    resize=(128, 171),
    augment=_plain(112, crop="plain", flip=0.35),
    dropout=0.5,
)

_COCLR_TEST = Test(Sampling(32, 1, 10), (146, 195), 128, Crops("ten", 128 / 146))
_COCLR_RETRIEVAL_TEST = replace(_COCLR_TEST, crops=Crops(share=128 / 146))
_COCLR = {
    "sampling": Sampling(32, 1, clips=1),
    "resize": (146, 195),
    "augment": _plain(
        128, area=(0.2, 1.0), jitter=0.3, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1
    ),
}
_COCLR_LINEAR = Fit(
    SGD(0.1, drops=_drops(100, 60, 80), weight_decay=1e-3, **_TORCH_SGD),
    epochs=100.0,
    batch=64,
    normed=True,
    **_COCLR,
)
_COCLR_FINETUNE = Fit(
    Adam(1e-3, warmup=0.0, drops=_drops(500, 400, 450), weight_decay=1e-3, decay_all=True),
    epochs=500.0,
    batch=64,
    encoder_rate=0.1,
    dropout=0.9,
    **_COCLR,
)

_DUALVAR_TEST = replace(_CTP_TEST, sampling=Sampling(16, 2, 10, layout="centred"))
_DUALVAR = Fit(
    SGD(0.05, drops=_drops(150, 50, 100), weight_decay=1e-3, **_TORCH_SGD),
    epochs=150.0,
    batch=16,
    sampling=Sampling(16, 2, clips=1),
    resize=(128, 171),
    augment=_plain(
        112, crop="plain", jitter=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2
    ),
)
_DUALVAR_RETRIEVAL_TEST = replace(_CTP_TEST, sampling=Sampling(16, 4, 10, layout="centred"))

_PUBLISHED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "lss": {"linear": ("k400",), "finetune": ("ucf101", "hmdb51", "ssv2")},
    "severe": {"linear": ("ucf101", "ssv2", "k400"), "finetune": ("ucf101", "ssv2", "k400")},
    "ctp": {"finetune": ("ucf101", "hmdb51")},
    "coclr": dict.fromkeys(TASKS, ("ucf101", "hmdb51")),
    "dualvar": {"finetune": ("ucf101", "hmdb51"), "retrieval": ("ucf101",)},
}
_RECIPES = {
    ("lss", "linear"): Recipe(_LSS_TEST, _LSS_LINEAR),
    ("lss", "finetune"): Recipe(_LSS_TEST, _LSS_FINETUNE),
    ("severe", "linear"): Recipe(_SEVERE_LINEAR_TEST, _SEVERE_LINEAR),
    ("severe", "finetune"): Recipe(_SEVERE_TEST, _SEVERE_FINETUNE),
    ("ctp", "finetune"): Recipe(_CTP_TEST, _CTP),
    ("coclr", "linear"): Recipe(_COCLR_TEST, _COCLR_LINEAR),
    ("coclr", "finetune"): Recipe(_COCLR_TEST, _COCLR_FINETUNE),
    ("coclr", "retrieval"): Recipe(_COCLR_RETRIEVAL_TEST, center="each"),
    ("dualvar", "finetune"): Recipe(_DUALVAR_TEST, _DUALVAR),
    ("dualvar", "retrieval"): Recipe(_DUALVAR_RETRIEVAL_TEST, center="each"),
}
_ON_SETS = {
    ("lss", "finetune", "ssv2"): Recipe(_LSS_SSV2_TEST, _LSS_SSV2),
    ("severe", "finetune", "ssv2"): Recipe(_SEVERE_TEST, _SEVERE_SSV2),
    ("severe", "linear", "ssv2"): Recipe(_SEVERE_LINEAR_TEST, _SEVERE_LINEAR_SSV2),
    ("severe", "linear", "k400"): Recipe(_SEVERE_LINEAR_TEST, _SEVERE_K400),
}
