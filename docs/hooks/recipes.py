"""The table of the published evaluation recipes, generated from the recipes themselves."""

from typing import Any

from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.evaluation.eval_protocol import EvalInput, EvalProtocol
from vrl_jax.evaluation.protocols.classifier import ClassifierEval
from vrl_jax.evaluation.recipes import list_recipes
from vrl_jax.train.optim import Optimizer

MARKER = "<!-- recipes -->"
TITLES = ("paper", "protocol", "set", "training", "optimiser", "augmentation", "test")
BENCHMARKS = ("ucf101", "hmdb51", "diving48", "ssv2", "k400")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with the table in place of its marker."""
    return markdown.replace(MARKER, format_table()) if MARKER in markdown else markdown


def format_table() -> str:
    """Return the table: a row per recipe, and one per data set with settings of its own."""
    rows = [TITLES, ["---"] * len(TITLES)]
    for paper, recipe in list_recipes():
        default = recipe()
        cells = describe_protocol(default)
        rows.append((f"`{paper}`", default.task, "any", *cells))
        for benchmark in BENCHMARKS:
            own = describe_protocol(recipe(benchmark))
            if own != cells:
                rows.append((f"`{paper}`", default.task, f"`{benchmark}`", *own))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def describe_protocol(protocol: EvalProtocol) -> tuple[str, ...]:
    """Return training, optimiser, augmentation and test of a protocol."""
    test = describe_test(protocol.test)
    if not isinstance(protocol, ClassifierEval):
        return "", "", "", f"{test}, features centred by the mean of `{protocol.center}` set"
    optimizer = describe_optimizer(protocol.optim, protocol.epochs)
    return describe_training(protocol), optimizer, describe_strong(protocol), test


def describe_training(protocol: ClassifierEval) -> str:
    """Return length and input of training, and the classifier."""
    train = protocol.train
    parts = [f"{protocol.epochs:g} epochs of {protocol.batch}", describe_clip(train.sampling)]
    parts += [format_size(train.resize)]
    parts += [f"{train.repeats} clips per video and epoch"] * (train.repeats > 1)
    parts += [f"encoder at {protocol.encoder_rate:g} of the rate"] * (protocol.encoder_rate != 1)
    parts += [f"rate × {protocol.layer_decay:g} per layer"] * (protocol.layer_decay < 1)
    parts += [f"dropout {protocol.dropout:g}"] * (protocol.dropout > 0)
    parts += [f"{train.strong.views} views per clip"] * (train.strong.views > 1)
    parts += ["features at unit length, batch-normalised"] * protocol.normed
    return ", ".join(parts)


def describe_optimizer(optim: Optimizer, epochs: float) -> str:
    """Return the optimiser and its schedule."""
    reference = f" for {optim.reference_batch}" if optim.reference_batch else ""
    nesterov = "Nesterov " if getattr(optim, "nesterov", False) else ""
    parts = [f"{nesterov}{type(optim).__name__}, rate {optim.learning_rate:g}{reference}"]
    if optim.warmup:
        parts.append(f"{optim.warmup * epochs:g} epochs of warm-up")
    drops = " ".join(f"{drop * epochs:g}" for drop in optim.drops)
    cosine = "cosine over all epochs" if optim.whole_cosine else "cosine"
    cosine += f" to {optim.end:g}" if optim.end else ""
    parts.append(f"× {optim.drop_factor:g} after {drops}" if drops else cosine)
    everywhere = ", biases and norms included" if optim.decay_all else ""
    decay = f"weight decay {optim.weight_decay:g}{everywhere}"
    parts.append(decay if optim.weight_decay else "no weight decay")
    return ", ".join(parts)


def describe_augment(augment: Augment) -> str:
    """Return the augmentation of a training clip."""
    low, high = (round(side * augment.size) for side in augment.scale)
    crop = {
        "resized": f" from {augment.area[0]:g} to {augment.area[1]:g} of the area",
        "scaled": f" of frames scaled to {low} to {high}",
        "plain": "",
    }[augment.crop]
    parts = [f"{augment.size}{crop}"]
    parts += [f"flip with probability {augment.flip:g}"] * (augment.flip > 0)
    if augment.jitter:
        colours = augment.brightness, augment.contrast, augment.saturation, augment.hue
        strengths = " ".join(f"{x:g}" for x in colours)
        parts.append(f"colour jitter {strengths} with probability {augment.jitter:g}")
    return ", ".join(parts)


def describe_strong(protocol: ClassifierEval) -> str:
    """Return all augmentation of a training clip."""
    strong, mix = protocol.train.strong, protocol.mix
    parts = [describe_augment(protocol.train.augment)]
    parts += [f"`{strong.rand}`"] * bool(strong.rand)
    parts += [f"random erasing with probability {strong.erase:g}"] * (strong.erase > 0)
    parts += [f"mixup {mix.mixup:g}"] * (mix.mixup > 0)
    parts += [f"CutMix {mix.cutmix:g}"] * (mix.cutmix > 0)
    parts += [f"label smoothing {protocol.smoothing:g}"] * (protocol.smoothing > 0)
    drop_path = getattr(protocol, "drop_path", 0.0)
    return ", ".join(parts + [f"drop path {drop_path:g}"] * (drop_path > 0))


def describe_test(test: EvalInput) -> str:
    """Return the clips and crops that are averaged."""
    count = f"{test.sampling.clips} × {len(test.crops)}"
    size = f"{test.size} of {format_size(test.resize)}"
    return ", ".join((count, describe_clip(test.sampling), size))


def describe_clip(sampling: Sampling) -> str:
    """Return the frames of a clip."""
    if sampling.layout == "segments":
        return f"a frame of each of {sampling.frames} parts"
    rate = f" at {sampling.fps:g} frames per second" if sampling.fps else ""
    end = "" if sampling.reach_end else ", not to the end"
    return f"{sampling.frames} × {sampling.stride} frames{rate}{end}"


def format_size(shape: tuple[int, int]) -> str:
    """Return height and width."""
    return f"{shape[0]} × {shape[1]}"
