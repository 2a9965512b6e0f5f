"""Folders of models as `transformers` saves them: weights, config.json and preprocessing."""

import json
import pathlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vrl_jax.augment.clip_views import Augment
from vrl_jax.convert.weight_layouts import Layout
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.methods.network import EncoderConfig

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")


def is_model(path: pathlib.Path) -> bool:
    """Return whether a path is a folder with weights as `transformers` names them."""
    return any((path / f"{name}{end}").is_file() for name in WEIGHTS for end in ("", ".index.json"))


def weight_paths(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the weight files of a model, several if they are sharded.

    Raises:
      ValueError: shards are missing.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            names = sorted(set(read_json(index)["weight_map"].values()))
            if missing := [name for name in names if not (folder / name).is_file()]:
                raise ValueError(f"{index} names shards that are missing: {', '.join(missing)}")
            return [folder / name for name in names]
    raise ValueError(f"{folder} must have one of {', '.join(WEIGHTS)}")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Return the object in a JSON file, or {} where there is no file.

    Raises:
      ValueError: the file has no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        tree = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must contain an object, got {type(tree).__name__}")
    return tree


def read_inputs(
    folder: pathlib.Path | None,
    config: Mapping[str, Any],
    layout: Layout,
    encoder: EncoderConfig,
) -> tuple[Augment, Sampling | None]:
    """Return the input that weights expect: size, mean and std, and clips where they are known.

    Values come from the preprocessing and the config.json in the folder; missing ones are those of
    the layout.

    Args:
      folder: of the model; None for a file without one.
      config: its config.json.
      layout: of the weights.
      encoder: of the weights; learned positions fix its clips.

    Raises:
      ValueError: a value has another form than `transformers` writes.
    """
    trees = [read_json(folder / name) for name in PROCESSORS] if folder else []
    processor = next((tree for tree in trees if tree), {})
    processor = processor.get("video_processor", processor)
    config = config.get("vision_config", config)
    size = processor.get("crop_size") or config.get("crop_size") or config.get("image_size")
    size = getattr(encoder, "size", None) or _side(size) or layout.inputs.size
    augment = replace(layout.inputs, size=size, **_statistics(processor))
    frames = config.get("num_frames") or config.get("frames_per_clip")
    changes = {"frames": getattr(encoder, "frames", frames)}
    if processor.get("fps"):
        changes |= {"fps": float(processor["fps"]), "stride": 1}
    changes = {name: value for name, value in changes.items() if value}
    return augment, layout.sampling and replace(layout.sampling, **changes)


def _statistics(processor: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return mean and std of values in [0, 1]; {} if the preprocessing does not say them.

    It computes (value * rescale_factor - offset - mean) / std of values in [0, 255].
    """
    if processor.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    elif "image_mean" in processor and "image_std" in processor:
        mean, std = processor["image_mean"], processor["image_std"]
    else:
        return {}
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"image_mean and image_std must be three numbers, got {mean} and {std}")
    scale = 255 * processor.get("rescale_factor", 1 / 255)
    scale = 1.0 if abs(scale - 1) < 1e-6 else scale
    offset = 1.0 if processor.get("offset") else 0.0
    return {
        "mean": tuple((value + offset) / scale for value in mean),
        "std": tuple(value / scale for value in std),
    }


def _side(size: Any) -> int | None:
    """Return the side of a crop; `transformers` writes a number, a pair or an object."""
    sides = size.values() if isinstance(size, Mapping) else size
    sides = {sides} if isinstance(sides, int | None) else set(sides)
    if len(sides) != 1:
        raise ValueError(f"crops must be square, got {size}")
    return sides.pop()
