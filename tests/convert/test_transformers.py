"""Folders of `transformers` are read whole, and give its tokens after every block."""

import json
import shutil
import warnings
from dataclasses import replace

import chex
import jax
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

from vrl_jax import pretrained
from vrl_jax.convert import transformer_layouts, weight_files
from vrl_jax.convert.__main__ import main

with warnings.catch_warnings(action="ignore"):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import safetensors.torch

    from tests.convert import networks

SIZES = {
    "narrow": {"hidden_size": 28, "num_attention_heads": 2, "depth": 2, "intermediate_size": 112},
    "wide": {"hidden_size": 48, "num_attention_heads": 3, "depth": 3, "intermediate_size": 100},
}


def videomae(frames, depth, **size):
    config = {"image_size": 24, "patch_size": 8, "num_frames": frames, "use_mean_pooling": False}
    config = transformers.VideoMAEConfig(num_hidden_layers=depth, **config, **size)
    return transformers.VideoMAEModel(config)


def vjepa2(frames, depth, intermediate_size, hidden_size, **size):
    predictor = {"pred_hidden_size": 12, "pred_num_attention_heads": 1, "pred_num_hidden_layers": 1}
    config = transformers.VJEPA2Config(
        crop_size=24,
        patch_size=8,
        frames_per_clip=frames,
        num_hidden_layers=depth,
        mlp_ratio=intermediate_size / hidden_size,
        hidden_size=hidden_size,
        **predictor,
        **size,
    )
    return transformers.VJEPA2Model(config)


def vivit(frames, depth, **size):
    config = {"image_size": 24, "tubelet_size": [2, 8, 8], "num_frames": frames}
    config = transformers.VivitConfig(num_hidden_layers=depth, **config, **size)
    return transformers.VivitModel(config)


def timesformer(frames, depth, **size):
    config = {"image_size": 24, "patch_size": 8, "num_frames": frames}
    config = transformers.TimesformerConfig(num_hidden_layers=depth, **config, **size)
    return transformers.TimesformerModel(config)


def videoprism(frames, depth, **size):
    config = {"image_size": 24, "tubelet_size": [1, 8, 8], "num_frames": frames}
    depths = {"num_spatial_layers": depth, "num_temporal_layers": 2}
    config = transformers.VideoPrismVisionConfig(**depths, **config, **size)
    return transformers.VideoPrismVisionModel(config)


MODELS = [videomae, vjepa2, vivit, timesformer, videoprism]


def blocks_of(model):
    """Return the blocks of a model of any kind, in their order."""
    if hasattr(model, "spatial_layers"):
        return [*model.spatial_layers, *model.temporal_layers]
    return model.layers if hasattr(model, "layers") else model.encoder.layer


def to_map(tokens, model, grid):
    """Return tokens of a block as a map b t h w d, without the class token."""
    t, h, w = grid
    kind, width = model.config.model_type, tokens.shape[-1]
    if kind in ("vivit", "timesformer"):
        tokens = tokens[:, 1:]
    if kind == "timesformer" or tokens.shape[1] == t:  # frames last
        return tokens.reshape(-1, h, w, t, width).transpose(0, 3, 1, 2, 4)
    return tokens.reshape(-1, t, h, w, width)


def encode(model, clips):
    """Return the maps after every block, and after the last normalisation."""
    outputs = []
    hooks = [
        block.register_forward_hook(
            lambda block, inputs, output: outputs.append(
                output[0] if isinstance(output, tuple) else output
            )
        )
        for block in blocks_of(model)
    ]
    clips = torch.from_numpy(clips).permute(0, 1, 4, 2, 3)
    options = {"skip_predictor": True} if model.config.model_type == "vjepa2" else {}
    with torch.no_grad():
        last = model(clips, **options).last_hidden_state
    for hook in hooks:
        hook.remove()
    return [x.numpy() for x in (*outputs, last)]


def draw(make, frames, size):
    """Return a model with generic weights."""
    model = networks.fill(make(frames, **SIZES[size]))
    if make is videoprism:  # which stores scales less 1
        for name, x in model.state_dict().items():
            if "layernorm" in name and name.endswith("weight"):
                x.sub_(1)
    return model


def save(model, folder, **options):
    with warnings.catch_warnings(action="ignore"):
        model.save_pretrained(folder, **options)


def relative(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()


COMBINATIONS = [
    pytest.param(
        make, size, frames, marks=[] if (size, frames) == ("narrow", 4) else pytest.mark.slow
    )
    for make in MODELS
    for size in SIZES
    for frames in (4, 8)
]


@pytest.mark.parametrize(("make", "size", "frames"), COMBINATIONS)
def test_tokens_of_every_block_are_those_of_transformers(tmp_path, rng, make, size, frames):
    model = draw(make, frames, size)
    save(model, tmp_path)
    read, unused = weight_files.read_weights(tmp_path)
    assert all(name.startswith(("predictor.", "pooler.")) for name in unused)
    clips = rng.normal(size=(2, frames, 24, 24, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        features = jax.jit(lambda v, x: read.encoder.module().apply(v, x, False))(
            read.variables, clips
        )
    *expected, last = encode(model, clips)
    grid = features.stages[-1].shape[1:4]
    assert len(features.stages) == len(expected)
    expected[-1] = last
    if make is videoprism:
        last = last.reshape(2, *grid, -1)
        expected[-1] = last.transpose(0, 2, 3, 1, 4).reshape(-1, grid[0], last.shape[-1])
    worst = max(
        relative(np.asarray(got), to_map(tokens, model, grid))
        for got, tokens in zip(features.stages, expected, strict=True)
    )
    print(f"{make.__name__} {size}, {frames} frames: {len(expected)} blocks, {worst:.1e}")
    assert worst < 1e-5
    np.testing.assert_allclose(features.frames, features.stages[-1].mean((2, 3)), atol=1e-5)
    assert (read.augment.size, read.sampling.frames) == (24, frames)


def same(read, expected):
    assert read.encoder == expected.encoder
    chex.assert_trees_all_equal(read.variables, expected.variables)


@pytest.fixture(scope="module", params=MODELS, ids=lambda make: make.__name__)
def saved(request, tmp_path_factory):
    """Return a model, what is read from its folder, and its arrays there."""
    folder = tmp_path_factory.mktemp("model")
    model = draw(request.param, 4, "narrow")
    save(model, folder)
    return model, weight_files.read_weights(folder)[0], load_file(folder / "model.safetensors")


def test_the_command_writes_a_file_that_loads(tmp_path, saved):
    model, expected, _ = saved
    save(model, tmp_path / "folder")
    main([str(tmp_path / "folder"), f"--out={tmp_path / 'mine.safetensors'}"])
    loaded = pretrained.load(tmp_path / "mine.safetensors")
    same(loaded, expected)
    assert (loaded.augment, loaded.sampling) == (expected.augment, expected.sampling)


def test_shards_torch_files_and_half_precision_give_the_same(tmp_path, saved):
    model, expected, arrays = saved
    save(model, tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    same(weight_files.read_weights(tmp_path / "shards")[0], expected)
    (tmp_path / "torch").mkdir()
    shutil.copy(tmp_path / "shards" / "config.json", tmp_path / "torch")
    tensors = {name: torch.from_numpy(x) for name, x in arrays.items()}
    torch.save(tensors, tmp_path / "torch" / "pytorch_model.bin")
    same(weight_files.read_weights(tmp_path / "torch")[0], expected)
    (tmp_path / "half").mkdir()
    shutil.copy(tmp_path / "shards" / "config.json", tmp_path / "half")
    halves = {name: x.to(torch.bfloat16) for name, x in tensors.items()}
    safetensors.torch.save_file(halves, tmp_path / "half" / "model.safetensors")
    half = weight_files.read_weights(tmp_path / "half")[0]
    for got, x in zip(*map(jax.tree.leaves, (half.variables, expected.variables)), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, x, rtol=1e-2, atol=1e-2)


def write_folder(folder, model, arrays):
    """Write a folder with the config.json of a model and other arrays."""
    folder.mkdir()
    model.config.save_pretrained(folder)
    save_file(
        {name: np.array(x, order="C") for name, x in arrays.items()}, folder / "model.safetensors"
    )
    return folder


def test_every_array_is_needed_and_no_other_is_taken(tmp_path, saved):
    model, _, arrays = saved
    norms = [name for name in arrays if "norm_before.weight" in name or "norm1.weight" in name]
    name = min(norms)  # of the encoder, not the predictor
    less = {other: x for other, x in arrays.items() if other != name}
    more = {**arrays, name.replace("weight", "extra"): arrays[name]}
    for problem, changed in (("missing", less), ("unknown", more)):
        with pytest.raises(ValueError, match=f"must be the weights of .* got {problem}: "):
            weight_files.read_weights(write_folder(tmp_path / problem, model, changed))


def test_a_config_of_another_network_is_refused(tmp_path, saved):
    model, _, arrays = saved
    folder = write_folder(tmp_path / "folder", model, arrays)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(ValueError, match="hidden_act in config.json must be 'gelu.*, got 'relu'"):
        weight_files.read_weights(folder)


def test_widths_that_were_not_published_need_a_config(tmp_path, saved):
    _, _, arrays = saved
    save_file(arrays, tmp_path / "alone.safetensors")
    with pytest.raises(ValueError, match="number of heads at width 28 must be in a config.json"):
        weight_files.read_weights(tmp_path / "alone.safetensors")


SIZE = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 96}


def test_fine_tuned_and_pretrained_videomae(tmp_path):
    size = {"image_size": 16, "patch_size": 8, "num_frames": 4, "num_hidden_layers": 1, **SIZE}
    decoder = {"decoder_hidden_size": 12, "decoder_num_attention_heads": 1}
    decoder |= {"decoder_num_hidden_layers": 1, "decoder_intermediate_size": 12}
    for kind, pooling, norm, unused in (
        (transformers.VideoMAEForVideoClassification, True, "mean", {"classifier"}),
        (transformers.VideoMAEForVideoClassification, False, "tokens", {"classifier"}),
        (transformers.VideoMAEForPreTraining, False, "tokens", {"decoder", "encoder_to_decoder"}),
        (transformers.VideoMAEModel, True, "none", set()),
    ):
        config = transformers.VideoMAEConfig(use_mean_pooling=pooling, **size, **decoder)
        model = networks.fill(kind(config))
        folder = tmp_path / f"{kind.__name__}{pooling}"
        save(model, folder)
        read, left_out = weight_files.read_weights(folder)
        assert (read.encoder.norm, read.encoder.epsilon) == (norm, 1e-12)
        assert {name.partition(".")[0] for name in left_out} - {"mask_token"} == unused
        if norm == "mean":
            scale = read.variables["params"]["fc_norm"]["scale"]
            np.testing.assert_array_equal(scale, model.fc_norm.weight.detach())


def test_the_video_encoder_of_a_text_model(tmp_path):
    vision = {"image_size": 16, "tubelet_size": [1, 8, 8], "num_frames": 2, **SIZE}
    vision |= {"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1}
    text = {"vocab_size": 9, "num_hidden_layers": 1, "max_position_embeddings": 4, **SIZE}
    config = transformers.VideoPrismConfig(vision_config=vision, text_config=text)
    model = transformers.VideoPrismClipModel(config)
    save(model, tmp_path)
    read, left_out = weight_files.read_weights(tmp_path)
    assert read.origin["prefix"] == "video_model.vision_model."
    assert (read.encoder.heads, read.encoder.frames, read.encoder.size) == (2, 2, 16)
    kinds = {".".join(name.split(".")[:2]) for name in left_out}
    assert {"video_model.auxiliary_layers", "video_model.head", "text_model.layers"} <= kinds


RELEASED = {
    "encoder.layer.": "blocks.",
    "attention.attention.q_bias": "attn.q_bias",
    "attention.attention.v_bias": "attn.v_bias",
    "temporal_attention.attention.qkv": "temporal_attn.qkv",
    "temporal_attention.output.dense": "temporal_attn.proj",
    "temporal_dense": "temporal_fc",
    "temporal_layernorm": "temporal_norm1",
    "attention.attention.": "attn.",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.proj": "attn.proj",
    "attention.": "attn.",
    "encoder.layernorm": "norm",
    "layernorm": "norm",
    "encoder.embeddings.patch_embeddings.proj": "patch_embed.proj",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.time_embeddings": "time_embed",
}


def to_released(arrays):
    """Return arrays of `transformers` with the names of the authors' own PyTorch code."""
    renamed = {}
    for name, x in arrays.items():
        if name.startswith("predictor."):
            continue
        for theirs, released in RELEASED.items():
            name = name.replace(theirs, released)
        renamed[name] = x
    parts = ("query", "key", "value")
    for name in [name for name in renamed if ".attn.query." in name]:
        split = [renamed.pop(name.replace("query", part)) for part in parts]
        renamed[name.replace("query", "qkv")] = np.concatenate(split)
    return renamed


@pytest.mark.parametrize("saved", [videomae, vjepa2, timesformer], indirect=True)
def test_released_names_give_the_same(tmp_path, saved):
    model, expected, arrays = saved
    renamed = {f"module.{name}": x for name, x in to_released(arrays).items()}
    renamed["module.head.weight"] = np.zeros((3, 28), np.float32)
    read, unused = weight_files.read_weights(write_folder(tmp_path / "folder", model, renamed))
    assert read.origin["layout"].startswith("released") and unused == ["module.head.weight"]
    same(read, expected)


@pytest.mark.parametrize("saved", [vjepa2], indirect=True)
def test_versions_of_vjepa(tmp_path, saved):
    model, expected, arrays = saved
    arrays = to_released(arrays)
    sines = {**arrays, "pos_embed": np.zeros((1, 8 * 14 * 14, 28), np.float32)}
    with pytest.raises(ValueError, match="the weights are those of V-JEPA, which adds positions"):
        weight_files.read_weights(write_folder(tmp_path / "first", model, sines))
    norms = {name: arrays.pop(name) for name in ("norm.weight", "norm.bias")}
    for number in range(4):
        for name, x in norms.items():
            arrays[f"norms_block.{number}{name.removeprefix('norm')}"] = x * 2.0 ** (number - 3)
    vector = np.arange(28, dtype=np.float32)
    arrays |= {"video_mod_embed": vector[None, None], "img_mod_embed": vector[None, None] + 1}
    read, unused = weight_files.read_weights(write_folder(tmp_path / "later", model, arrays))
    assert read.encoder == replace(expected.encoder, version="2.1")
    assert unused == [
        "img_mod_embed",
        *(name for name in sorted(arrays) if name[:5] == "norms" and "block.3" not in name),
    ]
    params = dict(read.variables["params"])
    np.testing.assert_array_equal(params.pop("modality")["embedding"], vector[None])
    chex.assert_trees_all_equal(params, dict(expected.variables["params"]))


def to_flax(arrays, heads):
    """Return arrays of `transformers` with the names and shapes of VideoPrism's `.npz` files."""

    def block(index, kind):
        prefix = f"{kind}_layers.{index}."

        def get(name):
            return arrays[prefix + name]

        flax = {}
        for theirs, name in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
            weight = get(f"attention.{theirs}.weight")
            flax[f"self_attention/{name}/w"] = weight.T.reshape(len(weight), heads, -1)
            flax[f"self_attention/{name}/b"] = get(f"attention.{theirs}.bias").reshape(heads, -1)
        weight = get("attention.o_proj.weight")
        flax["self_attention/post/w"] = weight.reshape(len(weight), heads, -1)
        flax["self_attention/post/b"] = get("attention.o_proj.bias")
        for number in (1, 2):
            flax[f"ff_layer/ffn_layer{number}/linear/kernel"] = get(f"mlp.fc{number}.weight").T
            flax[f"ff_layer/ffn_layer{number}/linear/bias"] = get(f"mlp.fc{number}.bias")
        for theirs, name in (("before", ""), ("after", "ff_layer/")):
            flax[f"{name}layer_norm/scale"] = get(f"layernorm_{theirs}.weight")
            flax[f"{name}layer_norm/bias"] = get(f"layernorm_{theirs}.bias")
        return flax

    kernel = arrays["spatial_embeddings.patch_embeddings.projection.weight"]
    flax = {
        "patch_projection/linear/kernel": kernel.transpose(2, 3, 4, 1, 0).reshape(-1, len(kernel)),
        "patch_projection/linear/bias": arrays[
            "spatial_embeddings.patch_embeddings.projection.bias"
        ],
    }
    for kind, number in (("spatial", 1), ("temporal", 2)):
        flax[f"{kind}_pos_emb/emb_var"] = arrays[f"{kind}_embeddings.position_embeddings"][0]
        flax[f"{kind}_ln/scale"] = arrays[f"layernorm{number}.weight"]
        flax[f"{kind}_ln/bias"] = arrays[f"layernorm{number}.bias"]
        count = len({name.split(".")[1] for name in arrays if name.startswith(f"{kind}_layers.")})
        blocks = [block(index, kind) for index in range(count)]
        stack = f"{kind}_encoder/transformers_stack/x_layers"
        flax |= {f"{stack}/{name}": np.stack([b[name] for b in blocks]) for name in blocks[0]}
    return {f"params/{name}": x for name, x in flax.items()}


@pytest.mark.parametrize("saved", [videoprism], indirect=True)
def test_npz_files_of_videoprism_give_the_same(tmp_path, saved, monkeypatch):
    _, expected, arrays = saved
    monkeypatch.setitem(transformer_layouts.NUM_HEADS, 28, 2)
    np.savez(tmp_path / "flax.npz", **to_flax(arrays, heads=2))
    read, unused = weight_files.read_weights(tmp_path / "flax.npz")
    assert not unused
    same(read, expected)


def test_preprocessing_comes_along(tmp_path, saved):
    model, _, arrays = saved
    folder = write_folder(tmp_path / "folder", model, arrays)
    plain = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.5], "fps": 8}
    plain |= {"crop_size": {"height": 24, "width": 24}, "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(json.dumps(plain))
    read, _ = weight_files.read_weights(folder)
    assert (read.augment.size, read.sampling.fps, read.sampling.stride) == (24, 8, 1)
    assert (read.augment.mean, read.augment.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.5))
    shifted = {**plain, "rescale_factor": 1 / 127.5, "offset": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(shifted))
    augment = weight_files.read_weights(folder)[0].augment
    values = np.array([0.0, 100.0, 255.0])
    expected = ((values / 127.5 - 1) - 0.2) / 0.5
    np.testing.assert_allclose((values / 255 - augment.mean[1]) / augment.std[1], expected)
    wide = {**plain, "crop_size": [24, 32]}
    (folder / "preprocessor_config.json").write_text(json.dumps(wide))
    if not hasattr(read.encoder, "size"):
        with pytest.raises(ValueError, match="crops must be square"):
            weight_files.read_weights(folder)
