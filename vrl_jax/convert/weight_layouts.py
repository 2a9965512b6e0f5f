"""Parameter names of other code bases for the encoders.

| family | networks | source of the names |
|---|---|---|
| torchvision | R3D, R(2+1)D, S3D | its code |
| pytorchvideo | Slow-R50 (SlowOnly) | its code; `blocks.5` is the classifier |
| dualvar | R(2+1)D and R3D with one block per stage, C3D | its code (github lzhangbj/DualVar) |

DualVar saves `{"epoch", "state_dict", ...}` with the encoder at `encoder_q.0.`, for SimCLR and for
MoCo (whose momentum encoder is at `encoder_k.0.`), and at `backbone.` after fine-tuning. Its page
announces weights without a link, so these names were not tested on a released file. Its S3D and
S3D-G are not supported: their normalisation has an epsilon of 1e-5, ours and torchvision's 1e-3.
Its C3D drops the last row of a map with an odd side, which ours pools separately; clips of
16 x 112 x 112 have no such maps.

The default encoder of SDC (github shvdiwnkozbw/Self-supervised-Video-Concept) has torchvision's
names for an R(2+1)D with one block per stage, at `module.backbone.`. The file also has
`prototype_s`, which distinguishes it from torchvision's weights, whose input differs. Its weights
were not released. Its 3D-ResNet (a stem over seven frames, then pooling) is not supported.

Names do not determine strides: `temporal_stride` is assumed to be 2, as in all of these networks.

Layouts of transformers are in `transformer_layouts`.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vrl_jax.augment.clip_views import Augment
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.encoders.c3d import C3D
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.r3d import R3D
from vrl_jax.encoders.s3d import S3D
from vrl_jax.encoders.slowonly import SlowOnly
from vrl_jax.methods.network import EncoderConfig

Arrays = Mapping[str, np.ndarray]

KINETICS = {"mean": (0.43216, 0.394666, 0.37645), "std": (0.22803, 0.22145, 0.216989)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SLOWFAST = {"mean": (0.45, 0.45, 0.45), "std": (0.225, 0.225, 0.225)}

# The first part of the names of heads, in any code base
HEADS = ("fc", "classifier", "head", "heads", "linear", "mlp", "proj", "projection", "projector")


def _accept(arrays: Arrays) -> None:
    """Accept all arrays."""


def _no_settings(arrays: Arrays) -> dict[str, Any]:
    """Read no settings."""
    return {}


@dataclass(frozen=True)
class Layout:
    """The parameter names of one kind of encoder in one code base.

    The kind of a layer, which determines the axes of its arrays, follows from the layer's class in
    our encoder: see `vrl_jax.convert.layer_kinds`.

    Attributes:
      family: the code base.
      network: name of the encoder, for messages.
      anchor: a parameter name that only this layout has.
      rename: the path of a layer in our encoder to its name in the code base.
      encoder: all arrays by name, and the config.json beside them or {}, to the encoder's config.
      fits: whether files of an encoder are written with this layout.
      inputs: the default input of such weights.
      heads: the first parts of the names of heads, which are not converted.
      companion: the end of a name that the file also has, outside the encoder.
      outside: the first parts of names that belong to the encoder, but lack its prefix.
      prepare: the arrays of a file to those that `rename` names, where names alone do not do.
      check: raises `ValueError` for arrays of another encoder with the same names.
      sampling: the default clips of such weights, where they were published.
      settings: the arrays of a file, as they are in it, to settings that their shapes determine, by
        the names of config.json.
    """

    family: str
    network: str
    anchor: str
    rename: Callable[[str], str]
    encoder: Callable[[Arrays, Mapping[str, Any]], EncoderConfig]
    fits: Callable[[EncoderConfig], bool]
    inputs: Augment
    heads: tuple[str, ...] = HEADS
    companion: str = ""
    outside: tuple[str, ...] = ()
    prepare: Callable[[Arrays], Arrays] = dict
    check: Callable[[Arrays], None] = _accept
    sampling: Sampling | None = None
    settings: Callable[[Arrays], dict[str, Any]] = _no_settings


def _blocks(pattern: str, names: Collection[str], first: int = 1) -> tuple[int, ...]:
    """Return the number of blocks, at least one, of each of four stages.

    Args:
      pattern: matches the beginning of a name; its groups are the stage and the block.
      names: of all parameters.
      first: number of the first stage.
    """
    blocks = {match.groups() for match in map(re.compile(pattern).match, names) if match}
    stages = [int(stage) for stage, _ in blocks]
    return tuple(max(1, stages.count(stage)) for stage in range(first, first + 4))


def _split(path: str) -> tuple[str, str]:
    """Split `a/b/c` into `a/b` and `c`."""
    parent, _, part = path.rpartition("/")
    return parent, part


def _torchvision_residual(path: str) -> str:
    """Return the name of a layer of R3D or R(2+1)D."""
    parent, part = _split(path)
    if parent == "stem":
        factorised = {"spatial": 0, "middle": 1, "temporal": 3, "norm": 4}
        return f"stem.{factorised[part]}"
    stage, block, branch = re.fullmatch(r"stages_(\d)_(\d+)/(\w+)", parent).groups()
    branch = {"first": "conv1", "second": "conv2", "shortcut": "downsample"}[branch]
    parts = {"conv": "0", "spatial": "0.0", "middle": "0.1", "temporal": "0.3", "norm": "1"}
    return f"layer{int(stage) + 1}.{block}.{branch}.{parts[part]}"


def _torchvision_r3d(path: str) -> str:
    return {"stem/conv": "stem.0", "stem/norm": "stem.1"}.get(path) or _torchvision_residual(path)


def _torchvision_blocks(names: Collection[str]) -> tuple[int, ...]:
    return _blocks(r"layer([1-4])\.(\d+)\.", names)


def _torchvision_s3d(path: str) -> str:
    features = {"conv1": 0, "conv2_reduce": 2, "conv2": 3, "block3b": 5, "block3c": 6}
    features |= {f"block4{letter}": 8 + i for i, letter in enumerate("bcdef")}
    features |= {"block5b": 14, "block5c": 15}
    branches = {"first": "branch0.", "second_reduce": "branch1.0.", "second": "branch1.1."}
    branches |= {"third_reduce": "branch2.0.", "third": "branch2.1.", "fourth": "branch3.1."}
    parent, part = _split(path)
    block, _, branch = parent.partition("/")
    factorised = (branch or block) in ("conv1", "conv2", "second", "third")
    parts = {"conv": "0", "spatial": "0.0", "middle": "0.1", "temporal": "1.0"}
    parts["norm"] = "1.1" if factorised else "1"
    return f"features.{features[block]}.{branches[branch] if branch else ''}{parts[part]}"


def _pytorchvideo_slow(path: str) -> str:
    parent, part = _split(path)
    if parent == "stem":
        return f"blocks.0.{part}"
    stage, block, branch = re.fullmatch(r"stage(\d)_(\d+)/(\w+)", parent).groups()
    letter = {"first": "a", "second": "b", "third": "c"}
    name = f"branch1_{part}" if branch == "shortcut" else f"branch2.{part}_{letter[branch]}"
    return f"blocks.{stage}.res_blocks.{block}.{name}"


def _dualvar_residual(path: str) -> str:
    """Return the name of a layer of R3D or R(2+1)D; blocks are `block1`, `blocks.0`, `blocks.1`."""
    parent, part = _split(path)
    parts = {"conv": "temporal_spatial_conv", "spatial": "spatial_conv", "middle": "bn"}
    parts["temporal"] = "temporal_conv"
    if parent == "stem":
        return "bn1" if part == "norm" else f"conv1.{parts[part]}"
    stage, block, branch = re.fullmatch(r"stages_(\d)_(\d+)/(\w+)", parent).groups()
    inner = "block1" if block == "0" else f"blocks.{int(block) - 1}"
    conv, norm = {
        "first": ("conv1", "bn1"),
        "second": ("conv2", "bn2"),
        "shortcut": ("downsampleconv", "downsamplebn"),
    }[branch]
    return f"conv{int(stage) + 2}.{inner}.{norm if part == 'norm' else f'{conv}.{parts[part]}'}"


def _dualvar_blocks(names: Collection[str]) -> tuple[int, ...]:
    return _blocks(r"conv([2-5])\.(block1|blocks\.\d+)\.", names, first=2)


def _dualvar_c3d(path: str) -> str:
    name = path.replace("1a", "1").replace("2a", "2")
    return name.replace("conv", "bn").removesuffix("_norm") if "norm" in name else name


_R2PLUS1D = {
    "family": "torchvision",
    "anchor": "layer4.0.conv1.0.0.weight",
    "rename": _torchvision_residual,
    "encoder": lambda names, config: R2plus1D(blocks=_torchvision_blocks(names)),
    "fits": lambda encoder: isinstance(encoder, R2plus1D) and encoder.variant == "torchvision",
}

LAYOUTS = (
    Layout(
        **_R2PLUS1D,
        network="SDC's R(2+1)D",
        inputs=Augment(size=128, **IMAGENET),
        companion="prototype_s.weight",
    ),
    Layout(**_R2PLUS1D, network="R(2+1)D", inputs=Augment(size=112, **KINETICS)),
    Layout(
        family="torchvision",
        network="R3D",
        anchor="layer4.0.conv1.0.weight",
        rename=_torchvision_r3d,
        encoder=lambda names, config: R3D(blocks=_torchvision_blocks(names)),
        fits=lambda encoder: isinstance(encoder, R3D),
        inputs=Augment(size=112, **KINETICS),
    ),
    Layout(
        family="torchvision",
        network="S3D",
        anchor="features.15.branch0.0.weight",
        rename=_torchvision_s3d,
        encoder=lambda names, config: S3D(),
        fits=lambda encoder: isinstance(encoder, S3D) and not encoder.gated,
        inputs=Augment(size=224, **KINETICS),
    ),
    Layout(
        family="pytorchvideo",
        network="Slow-R50",
        anchor="blocks.4.res_blocks.0.branch2.conv_a.weight",
        rename=_pytorchvideo_slow,
        encoder=lambda names, config: SlowOnly(
            blocks=_blocks(r"blocks\.([1-4])\.res_blocks\.(\d+)\.", names)
        ),
        fits=lambda encoder: isinstance(encoder, SlowOnly),
        inputs=Augment(size=256, **SLOWFAST),
        heads=(*HEADS, "blocks.5"),
    ),
    Layout(
        family="dualvar",
        network="R(2+1)D",
        anchor="conv5.block1.conv1.spatial_conv.weight",
        rename=_dualvar_residual,
        encoder=lambda names, config: R2plus1D(blocks=_dualvar_blocks(names), variant="vcop"),
        fits=lambda encoder: isinstance(encoder, R2plus1D) and encoder.variant == "vcop",
        inputs=Augment(size=112, **IMAGENET),
    ),
    Layout(
        family="dualvar",
        network="R3D",
        anchor="conv5.block1.conv1.temporal_spatial_conv.weight",
        rename=_dualvar_residual,
        encoder=lambda names, config: R3D(blocks=_dualvar_blocks(names)),
        fits=lambda encoder: isinstance(encoder, R3D),
        inputs=Augment(size=112, **IMAGENET),
    ),
    Layout(
        family="dualvar",
        network="C3D",
        anchor="conv5b.weight",
        rename=_dualvar_c3d,
        encoder=lambda names, config: C3D(),
        fits=lambda encoder: isinstance(encoder, C3D),
        inputs=Augment(size=112, **IMAGENET),
    ),
)
FAMILIES = tuple(dict.fromkeys(layout.family for layout in LAYOUTS))  # that can be written


def find_layout(encoder: EncoderConfig, family: str) -> Layout:
    """Return the layout of an encoder in a code base.

    Raises:
      ValueError: the code base has no such encoder; the message lists those that have.
    """
    layouts = {layout.family: layout for layout in reversed(LAYOUTS) if layout.fits(encoder)}
    if family not in layouts:
        families = ", ".join(layouts) or "none"
        raise ValueError(f"{family} has no names for {encoder}; code bases that have: {families}")
    return layouts[family]
