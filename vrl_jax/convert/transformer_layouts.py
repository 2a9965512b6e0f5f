"""Parameter names of published video transformers.

| family | networks | source of the names |
|---|---|---|
| transformers | VideoMAE, V-JEPA 2, VideoPrism, ViViT, TimeSformer | its code, version 5.24 |
| released | VideoMAE, v2, V-JEPA 2, 2.1, TimeSformer (`.pth`) | their code |
| released | VideoPrism, 4DS, RVM (`.npz`) | their code |

`transformers` writes the names of its older versions, so that files of both have the same. Names
and shapes determine everything but the number of heads: it is that of `config.json` where there is
one, else that of the published encoder of the same width. Projections in files of 4DS and RVM have
an axis of heads.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from vrl_jax.augment.clip_views import Augment
from vrl_jax.convert.weight_layouts import HEADS, IMAGENET, Arrays, Layout
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.encoders.four_ds import FourDS
from vrl_jax.encoders.rvm import RVM
from vrl_jax.encoders.timesformer import TimeSformer
from vrl_jax.encoders.videomae import VideoMAE
from vrl_jax.encoders.videoprism import VideoPrism
from vrl_jax.encoders.vivit import ViViT
from vrl_jax.encoders.vjepa2 import VJEPA2

Config = Mapping[str, Any]
Names = Mapping[str, str]

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

# Heads of the published encoders of each width
NUM_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
VIDEOMAE_HEADS = {**NUM_HEADS, 1408: 16}
VJEPA2_HEADS = {**NUM_HEADS, 1408: 22, 1664: 26}

VJEPA1_TOKENS = (8 * 14 * 14, 8 * 24 * 24)  # positions that V-JEPA adds, of 224 and 384 pixels

# Regular expressions of file names, in this order, and what they become: the path of our layer,
# with dots, and PyTorch's name of the array
_PERCEPTRON = {r"mlp\.fc1": "expand", r"mlp\.fc2": "contract"}
_PROJECTIONS = {rf"attention\.{name[0]}_proj": name for name in ("query", "key", "value", "out")}
_LAYER_NORMS = {"layernorm_before": "attention_norm", "layernorm_after": "perceptron_norm"}
_VIT: Names = {
    r"^embeddings\.patch_embeddings\.projection": "embed",
    r"^encoder\.layer\.": "block",
    r"temporal_attention\.attention\.": "time_",
    r"temporal_attention\.output\.dense": "time_out",
    "temporal_dense": "time_project",
    "temporal_layernorm": "time_norm",
    r"attention\.attention\.q_bias": "query.bias",
    r"attention\.attention\.v_bias": "value.bias",
    r"attention\.attention\.": "",
    r"attention\.output\.dense": "out",
    r"intermediate\.dense": "expand",
    r"output\.dense": "contract",
    **_LAYER_NORMS,
    "^layernorm": "norm",
    r"^embeddings\.cls_token": "class_token.weight",
}
_TIMM: Names = {
    r"^patch_embed\.proj": "embed",
    r"^blocks\.": "block",
    r"temporal_attn\.qkv": "time_qkv",
    r"temporal_attn\.proj": "time_out",
    "temporal_fc": "time_project",
    "temporal_norm1": "time_norm",
    r"attn\.q_bias": "query.bias",
    r"attn\.v_bias": "value.bias",
    r"attn\.qkv": "qkv",
    r"attn\.proj": "out",
    "norm1": "attention_norm",
    "norm2": "perceptron_norm",
    **_PERCEPTRON,
    r"^norms_block\.3": "norm",
    "^video_mod_embed": "modality.weight",
    "^cls_token": "class_token.weight",
    "^pos_embed": "space_positions.weight",
    "^time_embed": "time_positions.weight",
}
# Positions that rotary ones replace; embeddings of images and norms of inner blocks, of 2.1
_VJEPA2_UNUSED = ("pos_embed", "patch_embed_img", "img_mod_embed")
_VJEPA2_UNUSED += tuple(f"norms_block.{number}" for number in range(3))
_VJEPA2: Names = {
    r"^encoder\.embeddings\.patch_embeddings\.proj": "embed",
    r"^encoder\.layer\.": "block",
    r"^encoder\.layernorm": "norm",
    r"attention\.proj": "out",
    r"attention\.": "",
    "norm1": "attention_norm",
    "norm2": "perceptron_norm",
    **_PERCEPTRON,
}
_VIDEOPRISM: Names = {
    r"^spatial_embeddings\.patch_embeddings\.projection": "embed",
    r"^spatial_embeddings\.position_embeddings": "space_positions.weight",
    r"^temporal_embeddings\.position_embeddings": "time_positions.weight",
    r"^spatial_layers\.": "block",
    r"^temporal_layers\.": "time_block",
    **_PROJECTIONS,
    **_LAYER_NORMS,
    **_PERCEPTRON,
    "^layernorm1": "space_norm",
    "^layernorm2": "norm",
}
_VIDEOPRISM_NPZ: Names = {
    r"^patch_projection\.linear": "embed",
    r"^spatial_pos_emb\.emb_var": "space_positions.weight",
    r"^temporal_pos_emb\.emb_var": "time_positions.weight",
    r"^spatial_encoder\.transformers_stack\.x_layers\.": "block#.",
    r"^temporal_encoder\.transformers_stack\.x_layers\.": "time_block#.",
    r"self_attention\.post": "out",
    r"self_attention\.": "",
    r"ff_layer\.ffn_layer1\.linear": "expand",
    r"ff_layer\.ffn_layer2\.linear": "contract",
    r"ff_layer\.layer_norm": "perceptron_norm",
    r"#\.layer_norm": "#.attention_norm",
    "^spatial_ln": "space_norm",
    "^temporal_ln": "norm",
    r"\.(kernel|scale|w)$": ".weight",
    r"\.b$": ".bias",
}
# Of kauldron's modules
_FLAX: Names = {
    r"attention\.(query|key|value|out)\.": r"\1.",
    r"mlp\.dense_in": "expand",
    r"mlp\.dense_out": "contract",
    "mlp_norm": "perceptron_norm",
    r"\.(kernel|scale)$": ".weight",
}
_FOUR_DS: Names = {
    r"^encoder\.patch_embedding\.Conv_0": "embed",
    r"^encoder\.posenc\.embeddings": "positions.weight",
    r"^processor\.layers_": "block",
    **_FLAX,
}
_RVM: Names = {
    r"^tokenizer\.patch_embedding\.Conv_0": "embed",
    "^cls_token": "class_token.weight",
    r"^encoder\.layers_": "block",
    r"^encoder\.LayerNorm_0": "frame_norm",
    r"^rnn_core\.transformer\.xa_blocks_": "core.block",
    r"^rnn_core\.transformer\.output_norm": "core.norm",
    r"^rnn_core\.": "core.",
    "state_layer_norm": "state_norm",
    "ca_attention_norm": "cross_norm",
    r"ca_attention\.(query|key|value|out)\.": r"cross_\1.",
    **_FLAX,
}
_RVM_DECODER = ("decoder", "decoder_embedder", "delta_embedder", "detokenizer", "mask_token")


def rename_arrays(names: Names, arrays: Arrays) -> dict[str, np.ndarray]:
    """Return the arrays by the names of our layers, in the shapes that those have in PyTorch.

    Joint projections `qkv` are split, kernels of 2-d convolutions get an axis of time, and tables
    have one row for each token.

    Raises:
      ValueError: two arrays get the same name.
    """
    renamed = {}
    for name, array in arrays.items():
        for pattern, replacement in names.items():
            name = re.sub(pattern, replacement, name)
        if name in renamed:
            raise ValueError(f"arrays must have distinct names, got two for {name}")
        renamed[name] = array
    result = {}
    for name, array in renamed.items():
        if "qkv." in name:
            parts = np.split(array, 3)
            result |= {
                name.replace("qkv", part): x
                for part, x in zip(("query", "key", "value"), parts, strict=True)
            }
        elif name.endswith(("positions.weight", "class_token.weight", "modality.weight")):
            result[name] = array.reshape(-1, array.shape[-1])
        elif name == "embed.weight" and array.ndim == 4:
            result[name] = array[:, :, None]
        else:
            result[name] = array
    return result


def add_one(arrays: Arrays) -> dict[str, np.ndarray]:
    """Return VideoPrism's arrays with scales of normalisations that it stores less 1."""
    return {
        name: array + 1 if name.endswith("norm.weight") else array for name, array in arrays.items()
    }


def unstack_flax(arrays: Arrays) -> dict[str, np.ndarray]:
    """Return VideoPrism's Flax arrays, stacked by block, one by one in PyTorch's shapes."""
    result = {}
    for name, array in arrays.items():
        stacked = list(array) if "#" in name else [array]
        for number, x in enumerate(stacked):
            result[name.replace("#", str(number))] = _to_torch(name, x)
    return result


def _to_torch(name: str, x: np.ndarray) -> np.ndarray:
    layer, _, kind = name.rpartition(".")
    layer = layer.rpartition(".")[2]
    if kind == "bias":
        return x.reshape(-1)
    if layer == "out":  # (d heads channels)
        return x.reshape(len(x), -1)
    if layer in ("query", "key", "value"):
        return x.reshape(len(x), -1).T
    if layer == "embed":  # (height width channels, d)
        side = round((len(x) / 3) ** 0.5)
        return x.reshape(1, side, side, 3, -1).transpose(4, 3, 0, 1, 2)
    return x.T if layer in ("expand", "contract") else x


def transpose_flax(arrays: Arrays) -> dict[str, np.ndarray]:
    """Return Flax arrays in PyTorch's shapes, those of attention without the axis of heads."""
    result = {}
    for name, x in arrays.items():
        if name.endswith(".bias"):
            x = x.reshape(-1)
        elif name.endswith(".kernel") and x.ndim > 3:  # (time height width i o)
            x = np.moveaxis(x, (-1, -2), (0, 1))
        elif name.endswith(".out.kernel"):  # (heads channels d)
            x = x.reshape(-1, x.shape[-1]).T
        elif name.endswith(".kernel"):
            x = x.reshape(len(x), -1).T
        result[name] = x
    return result


def _chain(*steps: Callable[[Arrays], Arrays]) -> Callable[[Arrays], Arrays]:
    def prepare(arrays: Arrays) -> Arrays:
        for step in steps:
            arrays = step(arrays)
        return arrays

    return prepare


def _fields(
    arrays: Arrays, config: Config, num_heads: Mapping[int, int], *tables: str
) -> dict[str, Any]:
    """Return the fields of a `Transformer` from the shapes of its arrays, and its heads.

    Raises:
      ValueError: arrays that determine the fields are missing, or the number of heads is unknown.
    """
    needed = ("embed.weight", "block0.expand.bias", *(f"{name}.weight" for name in tables))
    if missing := [name for name in needed if name not in arrays]:
        raise ValueError(f"arrays of the encoder are missing: {', '.join(missing)}")
    width, _, stride, patch, _ = arrays["embed.weight"].shape
    hidden = len(arrays["block0.expand.bias"])
    heads = config.get("num_attention_heads") or num_heads.get(width)
    if not heads:
        raise ValueError(
            f"the number of heads at width {width} must be in a config.json beside the weights; "
            f"without one, widths must be among {', '.join(map(str, num_heads))}"
        )
    return {
        "width": width,
        "depth": _count(arrays, "block"),
        "heads": heads,
        "hidden": 0 if hidden == 4 * width else hidden,
        "temporal_stride": stride,
        "patch": patch,
    }


def _count(arrays: Arrays, kind: str) -> int:
    matches = (re.match(rf"{kind}(\d+)\.", name) for name in arrays)
    return len({match[1] for match in matches if match})


def _require(config: Config, **expected: Any) -> None:
    """Raise `ValueError` if config.json has another value than an encoder always has."""
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise ValueError(f"{name} in config.json must be {value!r}, got {config[name]!r}")


def _videomae(arrays: Arrays, config: Config) -> VideoMAE:
    _require(config, hidden_act="gelu", qv_bias=True)
    norms = {"norm.weight": "tokens", "fc_norm.weight": "mean"}
    norm = next((kind for name, kind in norms.items() if name in arrays), "none")
    epsilon = config.get("layer_norm_eps", VideoMAE.epsilon)
    return VideoMAE(**_fields(arrays, config, VIDEOMAE_HEADS), norm=norm, epsilon=epsilon)


def _vjepa2(arrays: Arrays, config: Config) -> VJEPA2:
    _require(config, hidden_act="gelu", qkv_bias=True, layer_norm_eps=1e-6)
    version = "2.1" if "modality.weight" in arrays else "2"
    return VJEPA2(**_fields(arrays, config, VJEPA2_HEADS), version=version)


def _refuse_vjepa1(arrays: Arrays) -> None:
    """Raise `ValueError` for the weights of V-JEPA, which have the names of V-JEPA 2's."""
    if "pos_embed" in arrays and arrays["pos_embed"].shape[-2] in VJEPA1_TOKENS:
        raise ValueError(
            "the weights are those of V-JEPA, which adds positions to the tokens; only V-JEPA 2 "
            "and 2.1 are supported"
        )


def _videoprism(arrays: Arrays, config: Config) -> VideoPrism:
    config = config.get("vision_config", config)
    _require(config, hidden_act="gelu_python", qkv_bias=True, layer_norm_eps=1e-6)
    _require(config, attn_logit_softcapping=50.0)
    tables = ("space_positions", "time_positions")
    fields = _fields(arrays, config, {**NUM_HEADS, 1408: 16}, *tables)
    side = round(len(arrays["space_positions.weight"]) ** 0.5)
    return VideoPrism(
        **fields,
        time_depth=_count(arrays, "time_block"),
        frames=len(arrays["time_positions.weight"]),
        size=side * fields["patch"],
    )


def _vivit(arrays: Arrays, config: Config) -> ViViT:
    _require(config, hidden_act="gelu_fast", qkv_bias=True, layer_norm_eps=1e-6)
    fields = _fields(arrays, config, NUM_HEADS, "positions")
    size = config.get("image_size", ViViT.size)
    size = size if isinstance(size, int) else size[0]
    places = (len(arrays["positions.weight"]) - 1) // (size // fields["patch"]) ** 2
    return ViViT(**fields, frames=places * fields["temporal_stride"], size=size)


def _timesformer(arrays: Arrays, config: Config) -> TimeSformer:
    _require(config, hidden_act="gelu", qkv_bias=True, layer_norm_eps=1e-6)
    _require(config, attention_type="divided_space_time")
    fields = _fields(arrays, config, NUM_HEADS, "space_positions", "time_positions")
    side = round((len(arrays["space_positions.weight"]) - 1) ** 0.5)
    frames = len(arrays["time_positions.weight"])
    return TimeSformer(**fields, frames=frames, size=side * fields["patch"])


def _four_ds(arrays: Arrays, config: Config) -> FourDS:
    fields = _fields(arrays, config, {**NUM_HEADS, 1792: 16}, "positions")
    times, height, width = config["grid"]
    if height != width:
        raise ValueError(f"positions must be those of square clips, got {height} x {width} patches")
    frames = times * fields["temporal_stride"]
    return FourDS(**fields, frames=frames, size=height * fields["patch"])


def _rvm(arrays: Arrays, config: Config) -> RVM:
    fields = _fields(arrays, config, NUM_HEADS)
    core_heads = config.get("core_heads", 0)
    hidden = len(arrays.get("core.block0.expand.bias", ()))
    return RVM(
        **fields,
        core_depth=max(1, _count(arrays, r"core\.block")),
        core_heads=0 if core_heads == fields["heads"] else core_heads,
        core_hidden=0 if hidden == 4 * fields["width"] else hidden,
    )


def _four_ds_settings(arrays: Arrays) -> dict[str, Any]:
    """Return the number of heads, and the grid of positions, from the shapes of Flax arrays."""
    settings = _heads_of(arrays, num_attention_heads="processor.layers_0.attention.query.kernel")
    positions = arrays.get("encoder.posenc.embeddings")
    return settings if positions is None else {**settings, "grid": positions.shape[:-1]}


def _rvm_settings(arrays: Arrays) -> dict[str, Any]:
    """Return the numbers of heads, of a frame and of the core, from the shapes of Flax arrays."""
    return _heads_of(
        arrays,
        num_attention_heads="encoder.layers_0.attention.query.kernel",
        core_heads="rnn_core.transformer.xa_blocks_0.attention.query.kernel",
    )


def _heads_of(arrays: Arrays, **kernels: str) -> dict[str, int]:
    """Return the axis of heads of kernels (d heads channels), where the kernels exist."""
    shapes = {name: arrays[kernel].shape for name, kernel in kernels.items() if kernel in arrays}
    return {name: shape[1] for name, shape in shapes.items() if len(shape) == 3}


def _layout(
    family: str,
    names: Names,
    *steps: Callable[[Arrays], Arrays],
    before: Callable[[Arrays], Arrays] = dict,
    **fields: Any,
) -> Layout:
    """Return a layout that is read by renaming, between other steps, and not written."""
    return Layout(
        family=family,
        rename=lambda path: path.replace("/", "."),
        fits=lambda encoder: False,
        prepare=_chain(before, partial(rename_arrays, names), *steps),
        **fields,
    )


_VIDEOMAE_INPUT = {
    "network": "VideoMAE",
    "encoder": _videomae,
    "inputs": Augment(size=224, **IMAGENET),
    "sampling": Sampling(frames=16, stride=4),
}
_VJEPA2_INPUT = {
    "network": "V-JEPA 2",
    "encoder": _vjepa2,
    "inputs": Augment(size=256, **IMAGENET),
    "sampling": Sampling(frames=64, stride=1, fps=4.0),
}
_VIDEOPRISM_INPUT = {
    "network": "VideoPrism",
    "encoder": _videoprism,
    "inputs": Augment(size=288, **PLAIN),
    "sampling": Sampling(frames=16, layout="segments"),
}
_TIMESFORMER_INPUT = {
    "network": "TimeSformer",
    "encoder": _timesformer,
    "inputs": Augment(size=224, **HALF),
    "sampling": Sampling(frames=8, stride=32),
}

# The first layout whose anchor is in a file is taken
TRANSFORMER_LAYOUTS = (
    _layout(
        "transformers",
        {
            **_VIT,
            r"^embeddings\.position_embeddings": "space_positions.weight",
            r"^embeddings\.time_embeddings": "time_positions.weight",
        },
        **_TIMESFORMER_INPUT,
        anchor="encoder.layer.0.temporal_attention.attention.qkv.weight",
    ),
    _layout(
        "transformers",
        {**_VIT, r"^embeddings\.position_embeddings": "positions.weight"},
        network="ViViT",
        encoder=_vivit,
        inputs=Augment(size=224, **HALF),
        sampling=Sampling(frames=32, stride=2),
        heads=(*HEADS, "pooler"),
        anchor="encoder.layer.0.attention.attention.key.bias",
    ),
    _layout(
        "transformers",
        _VIT,
        **_VIDEOMAE_INPUT,
        outside=("fc_norm",),
        anchor="encoder.layer.0.attention.attention.key.weight",
    ),
    _layout(
        "transformers",
        _VJEPA2,
        **_VJEPA2_INPUT,
        heads=(*HEADS, "predictor", "pooler"),
        anchor="encoder.layer.0.mlp.fc1.weight",
    ),
    _layout(
        "transformers",
        _VIDEOPRISM,
        add_one,
        **_VIDEOPRISM_INPUT,
        anchor="spatial_embeddings.position_embeddings",
    ),
    _layout(
        "released",
        _TIMM,
        **_TIMESFORMER_INPUT,
        anchor="blocks.0.temporal_attn.qkv.weight",
    ),
    _layout(
        "released",
        _TIMM,
        **_VIDEOMAE_INPUT,
        anchor="blocks.0.attn.q_bias",
    ),
    _layout(
        "released",
        _TIMM,
        **_VJEPA2_INPUT,
        heads=(*HEADS, *_VJEPA2_UNUSED),
        check=_refuse_vjepa1,
        anchor="blocks.0.attn.qkv.bias",
    ),
    _layout(
        "released",
        _VIDEOPRISM_NPZ,
        unstack_flax,
        add_one,
        **_VIDEOPRISM_INPUT,
        anchor="spatial_pos_emb.emb_var",
    ),
    _layout(
        "released",
        _FOUR_DS,
        before=transpose_flax,
        settings=_four_ds_settings,
        network="4DS",
        encoder=_four_ds,
        inputs=Augment(size=224, **PLAIN),
        sampling=Sampling(frames=16, stride=1),
        anchor="encoder.posenc.embeddings",
    ),
    _layout(
        "released",
        _RVM,
        before=transpose_flax,
        settings=_rvm_settings,
        network="RVM",
        encoder=_rvm,
        inputs=Augment(size=256, **PLAIN),
        sampling=Sampling(frames=16, stride=1),
        heads=_RVM_DECODER,
        anchor="rnn_core.state_layer_norm.scale",
    ),
)
