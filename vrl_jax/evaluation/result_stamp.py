"""The stamp of a result: input, encoder and data, the same for every command."""

from typing import Any

from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.video_dataset import Splits, VideoDataset, fingerprint
from vrl_jax.evaluation.eval_protocol import EvalInput
from vrl_jax.pretrained import Pretrained
from vrl_jax.train import provenance


def describe_input(test: EvalInput, augment: Augment) -> dict[str, Any]:
    """Return the clips, crops and normalisation that an encoder was given, as JSON."""
    return {
        "clips": test.sampling.clips,
        "crops": len(test.crops),
        "squares": f"{test.crops.positions}, {test.crops.share:g} of the shorter side",
        "frames": test.sampling.frames,
        "stride": test.sampling.stride,
        "fps": test.sampling.fps,
        "layout": test.sampling.layout + ", not to the end" * (not test.sampling.reach_end),
        "decoded": "{} x {}".format(*test.resize),
        "resolution": f"{test.size} x {test.size}",
        "input_mean": list(augment.mean),
        "input_std": list(augment.std),
        "background": "subtracted" if augment.subtract_background else "kept",
    }


def describe_model(model: Pretrained) -> dict[str, Any]:
    """Return the encoder, its origin and the identity of its weights, as JSON."""
    described = {"encoder": type(model.encoder).__name__, **model.origin}
    if parameters := model.count_parameters():  # a function has none
        described |= {"parameters": parameters, "weights": model.weight_hash()}
    return described


def describe_data(data: Splits, test: VideoDataset, train: VideoDataset | None) -> dict[str, Any]:
    """Return the data set and the identity of its parts, as JSON.

    Args:
      data: the data set.
      test: its test videos.
      train: its training videos; None where groups of the test videos are left out.
    """
    return {
        "set": type(data).__name__,
        "test": fingerprint(test),
        **({} if train is None else {"train": fingerprint(train)}),
        "left_out": getattr(test, "left_out", 0),
    }


def stamp_result(
    protocol: dict[str, Any],
    model: dict[str, Any],
    data: dict[str, Any],
    unreadable: dict[str, int],
) -> dict[str, Any]:
    """Return what every result carries besides its own numbers.

    Args:
      protocol: see `describe_input`, with the settings of the protocol.
      model: see `describe_model`, with `init`.
      data: see `describe_data`.
      unreadable: number of unreadable videos by part.
    """
    return {
        "protocol": protocol,
        "model": model,
        "data": data,
        "unreadable": unreadable,
        "commit": provenance.source_commit(),
    }
