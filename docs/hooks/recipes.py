"""The table of the evaluation protocols' recipes, made from the recipes themselves."""

from typing import Any

from vrl_jax.augment.views import Augment
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.evaluation import protocols
from vrl_jax.evaluation.protocols import Fit, Recipe, Test
from vrl_jax.train.optim import Optimizer

PLACE = "<!-- recipes -->"
TITLES = ("protocol", "task", "set", "trained", "optimiser", "augmentation", "judged by")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with the table in its place."""
    return markdown.replace(PLACE, table()) if PLACE in markdown else markdown


def table() -> str:
    """Return the table: a row a recipe, and one for each set that has another."""
    rows = [TITLES, ["---"] * len(TITLES)]
    for name, tasks in protocols._PUBLISHED.items():
        for task in tasks:
            usual = told(protocols.published_recipe(name, task))
            rows.append((f"`{name}`", task, "any", *usual))
            for data in protocols.SETS:
                if (own := told(protocols.published_recipe(name, task, data))) != usual:
                    rows.append((f"`{name}`", task, f"`{data}`", *own))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def told(recipe: Recipe) -> tuple[str, ...]:
    """Return what a recipe is, in words."""
    fit = recipe.fit
    if fit is None:
        return (
            "",
            "",
            "",
            judged(recipe.test) + f", features less the mean of `{recipe.center}` set",
        )
    return trained(fit), optimised(fit.optim, fit.epochs), varied(fit.augment), judged(recipe.test)


def trained(fit: Fit) -> str:
    """Return how long, on what, and by which classifier."""
    parts = [f"{fit.epochs:g} epochs of {fit.batch}", cut(fit.sampling), size(fit.resize)]
    parts += [f"{fit.repeats} clips a video an epoch"] * (fit.repeats > 1)
    parts += [f"encoder at {fit.encoder_rate:g} of the rate"] * (fit.encoder_rate != 1)
    parts += [f"dropout {fit.dropout:g}"] * (fit.dropout > 0)
    parts += ["features at unit length, normalised by the batch"] * fit.normed
    return ", ".join(parts)


def optimised(optim: Optimizer, epochs: float) -> str:
    """Return the optimiser and its schedule."""
    of = f" for {optim.reference_batch}" if optim.reference_batch else ""
    nesterov = "Nesterov " if getattr(optim, "nesterov", False) else ""
    parts = [f"{nesterov}{type(optim).__name__}, rate {optim.learning_rate:g}{of}"]
    if optim.warmup:
        parts.append(f"{optim.warmup * epochs:g} epochs of warm-up")
    drops = " ".join(f"{drop * epochs:g}" for drop in optim.drops)
    parts.append(f"× {optim.drop_factor:g} after {drops}" if drops else "cosine")
    on = ", of biases and norms, too" if optim.decay_all else ""
    parts.append(f"decay {optim.weight_decay:g}{on}" if optim.weight_decay else "no decay")
    return ", ".join(parts)


def varied(augment: Augment) -> str:
    """Return how a clip becomes a view."""
    least, most = (round(side * augment.size) for side in augment.scale)
    crop = {
        "resized": f" from a box of {augment.area[0]:g} to {augment.area[1]:g} of the area",
        "scaled": f" of frames scaled to {least} to {most}",
        "plain": "",
    }[augment.crop]
    parts = [f"{augment.size}{crop}"]
    parts += [f"mirrored with {augment.flip:g}"] * (augment.flip > 0)
    if augment.jitter:
        colours = augment.brightness, augment.contrast, augment.saturation, augment.hue
        parts.append(f"colours {' '.join(f'{x:g}' for x in colours)} with {augment.jitter:g}")
    return ", ".join(parts)


def judged(test: Test) -> str:
    """Return which clips and crops of a video are averaged."""
    return ", ".join(
        (
            f"{test.sampling.clips} × {len(test.crops)}",
            cut(test.sampling),
            f"{test.size} of {size(test.resize)}",
        )
    )


def cut(sampling: Sampling) -> str:
    """Return what a clip is."""
    if sampling.layout == "segments":
        return f"a frame of each of {sampling.frames} parts"
    rate = f" at {sampling.fps:g} a second" if sampling.fps else ""
    return f"{sampling.frames} × {sampling.stride} frames{rate}"


def size(shape: tuple[int, int]) -> str:
    """Return height and width."""
    return f"{shape[0]} × {shape[1]}"
