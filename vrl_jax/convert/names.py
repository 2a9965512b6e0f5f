"""What other code calls the weights of our encoders.

| family | networks | known from |
|---|---|---|
| torchvision | R3D, R(2+1)D, S3D | its source |
| pytorchvideo | Slow-R50 (SlowOnly) | its source; `blocks.5` is the classifier |
| dualvar | R(2+1)D and R3D of one block a stage, C3D | its source (github lzhangbj/DualVar) |

DualVar saves `{"epoch", "state_dict", ...}` with the encoder at `encoder_q.0.`, for SimCLR and for
MoCo (whose momentum encoder is at `encoder_k.0.`), and at `backbone.` once it is fine-tuned. Its
page offers weights but links to none, so that no released file was seen. Its S3D and S3D-G are not
here: they normalise with an epsilon of 1e-5, ours and torchvision's with 1e-3. Its C3D drops the
odd last row of a map that ours pools by itself; clips of 16 x 112 x 112 have none.

SDC's default encoder (github shvdiwnkozbw/Self-supervised-Video-Concept) has torchvision's names
for an R(2+1)D of one block a stage, at `module.backbone.`; `prototype_s` beside it tells that it
expects another input than torchvision's weights. None of its weights were released. Its 3D-ResNet
(a stem over seven frames, then pooling) is none of our encoders.

Names say nothing of strides: `temporal_stride` is taken to be 2, as it is in all of these.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from vrl_jax.augment.views import Augment
from vrl_jax.encoders.c3d import C3D
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.r3d import R3D
from vrl_jax.encoders.s3d import S3D
from vrl_jax.encoders.slowonly import SlowOnly
from vrl_jax.methods.network import EncoderConfig

KINETICS = {"mean": (0.43216, 0.394666, 0.37645), "std": (0.22803, 0.22145, 0.216989)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SLOWFAST = {"mean": (0.45, 0.45, 0.45), "std": (0.225, 0.225, 0.225)}

# What stands upon an encoder, in whatever code: the first part of its names
HEADS = ("fc", "classifier", "head", "heads", "linear", "mlp", "proj", "projection", "projector")


@dataclass(frozen=True)
class Layout:
    """The names that one code base gives to the weights of one kind of encoder.

    Attributes:
      family: the code base.
      network: the encoder, for people.
      anchor: a name that only this layout has.
      rename: the path of a convolution or normalisation in our encoder to its name in theirs.
      encoder: all names to the encoder's config.
      fits: whether these names are for an encoder.
      inputs: what such weights expect, unless one knows better.
      heads: the first parts of the names of heads, for which our encoder has no place.
      beside: a name that the file has elsewhere.
    """

    family: str
    network: str
    anchor: str
    rename: Callable[[str], str]
    encoder: Callable[[Collection[str]], EncoderConfig]
    fits: Callable[[EncoderConfig], bool]
    inputs: Augment
    heads: tuple[str, ...] = HEADS
    beside: str = ""


def _blocks(pattern: str, names: Collection[str], first: int = 1) -> tuple[int, ...]:
    """Count the blocks of each of four stages, at least one.

    Args:
      pattern: matches the beginning of a name; its groups are the stage and the block.
      names: of all weights.
      first: number of the first stage.
    """
    found = {match.groups() for match in map(re.compile(pattern).match, names) if match}
    stages = [int(stage) for stage, _ in found]
    return tuple(max(1, stages.count(stage)) for stage in range(first, first + 4))


def _split(path: str) -> tuple[str, str]:
    """Split `a/b/c` into `a/b` and `c`."""
    where, _, part = path.rpartition("/")
    return where, part


def _torchvision_residual(path: str) -> str:
    """Name a part of R3D or R(2+1)D."""
    where, part = _split(path)
    if where == "stem":
        divided = {"spatial": 0, "middle": 1, "temporal": 3, "norm": 4}
        return f"stem.{divided[part]}"
    stage, block, branch = re.fullmatch(r"stages_(\d)_(\d+)/(\w+)", where).groups()
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
    where, part = _split(path)
    block, _, branch = where.partition("/")
    divided = (branch or block) in ("conv1", "conv2", "second", "third")
    parts = {"conv": "0", "spatial": "0.0", "middle": "0.1", "temporal": "1.0"}
    parts["norm"] = "1.1" if divided else "1"
    return f"features.{features[block]}.{branches[branch] if branch else ''}{parts[part]}"


def _pytorchvideo_slow(path: str) -> str:
    where, part = _split(path)
    if where == "stem":
        return f"blocks.0.{part}"
    stage, block, branch = re.fullmatch(r"stage(\d)_(\d+)/(\w+)", where).groups()
    letter = {"first": "a", "second": "b", "third": "c"}
    name = f"branch1_{part}" if branch == "shortcut" else f"branch2.{part}_{letter[branch]}"
    return f"blocks.{stage}.res_blocks.{block}.{name}"


def _dualvar_residual(path: str) -> str:
    """Name a part of R3D or R(2+1)D; the blocks of a stage are `block1`, `blocks.0`, `blocks.1`."""
    where, part = _split(path)
    parts = {"conv": "temporal_spatial_conv", "spatial": "spatial_conv", "middle": "bn"}
    parts["temporal"] = "temporal_conv"
    if where == "stem":
        return "bn1" if part == "norm" else f"conv1.{parts[part]}"
    stage, block, branch = re.fullmatch(r"stages_(\d)_(\d+)/(\w+)", where).groups()
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
    "encoder": lambda names: R2plus1D(blocks=_torchvision_blocks(names)),
    "fits": lambda encoder: isinstance(encoder, R2plus1D) and encoder.variant == "torchvision",
}

LAYOUTS = (
    Layout(
        **_R2PLUS1D,
        network="SDC's R(2+1)D",
        inputs=Augment(size=128, **IMAGENET),
        beside="prototype_s.weight",
    ),
    Layout(**_R2PLUS1D, network="R(2+1)D", inputs=Augment(size=112, **KINETICS)),
    Layout(
        family="torchvision",
        network="R3D",
        anchor="layer4.0.conv1.0.weight",
        rename=_torchvision_r3d,
        encoder=lambda names: R3D(blocks=_torchvision_blocks(names)),
        fits=lambda encoder: isinstance(encoder, R3D),
        inputs=Augment(size=112, **KINETICS),
    ),
    Layout(
        family="torchvision",
        network="S3D",
        anchor="features.15.branch0.0.weight",
        rename=_torchvision_s3d,
        encoder=lambda names: S3D(),
        fits=lambda encoder: isinstance(encoder, S3D) and not encoder.gated,
        inputs=Augment(size=224, **KINETICS),
    ),
    Layout(
        family="pytorchvideo",
        network="Slow-R50",
        anchor="blocks.4.res_blocks.0.branch2.conv_a.weight",
        rename=_pytorchvideo_slow,
        encoder=lambda names: SlowOnly(
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
        encoder=lambda names: R2plus1D(blocks=_dualvar_blocks(names), variant="vcop"),
        fits=lambda encoder: isinstance(encoder, R2plus1D) and encoder.variant == "vcop",
        inputs=Augment(size=112, **IMAGENET),
    ),
    Layout(
        family="dualvar",
        network="R3D",
        anchor="conv5.block1.conv1.temporal_spatial_conv.weight",
        rename=_dualvar_residual,
        encoder=lambda names: R3D(blocks=_dualvar_blocks(names)),
        fits=lambda encoder: isinstance(encoder, R3D),
        inputs=Augment(size=112, **IMAGENET),
    ),
    Layout(
        family="dualvar",
        network="C3D",
        anchor="conv5b.weight",
        rename=_dualvar_c3d,
        encoder=lambda names: C3D(),
        fits=lambda encoder: isinstance(encoder, C3D),
        inputs=Augment(size=112, **IMAGENET),
    ),
)
FAMILIES = tuple(dict.fromkeys(layout.family for layout in LAYOUTS))


def layout_for(encoder: EncoderConfig, family: str) -> Layout:
    """Return the layout in which a code base stores an encoder.

    Raises:
      ValueError: it has no such encoder; the message says who has.
    """
    fitting = {layout.family: layout for layout in reversed(LAYOUTS) if layout.fits(encoder)}
    if family not in fitting:
        known = ", ".join(fitting) or "none"
        raise ValueError(f"{family} has no names for {encoder}; layouts that have: {known}")
    return fitting[family]
