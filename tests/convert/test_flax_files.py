"""Files of 4DS and RVM by their own names, and the tokens that loops compute from their arrays."""

import math

import jax
import numpy as np
import pytest

from tests.encoders.test_rvm import sines
from vrl_jax import pretrained
from vrl_jax.convert import weight_files
from vrl_jax.convert.__main__ import main
from vrl_jax.encoders.four_ds import FourDS
from vrl_jax.encoders.rvm import RVM

WIDTH, HIDDEN = 12, 20


def dense(name, *shape):
    return {f"{name}/kernel": shape, f"{name}/bias": shape[-1:]}


def norm(name):
    return {f"{name}/scale": (WIDTH,), f"{name}/bias": (WIDTH,)}


def attention(name, heads):
    split = (heads, WIDTH // heads)
    shapes = {f"{name}/out/kernel": (*split, WIDTH), f"{name}/out/bias": (WIDTH,)}
    for part in ("query", "key", "value"):
        shapes |= {f"{name}/{part}/kernel": (WIDTH, *split), f"{name}/{part}/bias": split}
    return shapes


def block(name, heads):
    shapes = norm(f"{name}/attention_norm") | norm(f"{name}/mlp_norm")
    shapes |= attention(f"{name}/attention", heads)
    shapes |= dense(f"{name}/mlp/dense_in", WIDTH, HIDDEN)
    return shapes | dense(f"{name}/mlp/dense_out", HIDDEN, WIDTH)


def cross_block(name, heads):
    shapes = block(name, heads) | norm(f"{name}/ca_attention_norm")
    return shapes | attention(f"{name}/ca_attention", heads)


FOUR_DS = {
    **dense("encoder/patch_embedding/Conv_0", 2, 4, 4, 3, WIDTH),
    "encoder/posenc/embeddings": (2, 2, 2, WIDTH),
    **block("processor/layers_0", 2),
    **block("processor/layers_1", 2),
}
RECURRENT = {
    **dense("tokenizer/patch_embedding/Conv_0", 1, 4, 4, 3, WIDTH),
    "cls_token": (1, WIDTH),
    **block("encoder/layers_0", 3),
    **block("encoder/layers_1", 3),
    **norm("encoder/LayerNorm_0"),
    **cross_block("rnn_core/transformer/xa_blocks_0", 2),
    **cross_block("rnn_core/transformer/xa_blocks_1", 2),
    **norm("rnn_core/transformer/output_norm"),
    **{
        f"rnn_core/{side}_{gate}/kernel": (WIDTH, WIDTH)
        for side in ("input", "state")
        for gate in ("update", "reset")
    },
    "rnn_core/state_layer_norm/scale": (WIDTH,),
}
DECODER = {
    **cross_block("decoder/xa_blocks_0", 2),
    **norm("decoder/output_norm"),
    **dense("decoder_embedder", WIDTH, WIDTH),
    **dense("delta_embedder", 64, WIDTH),
    **dense("detokenizer/Dense_0", WIDTH, 48),
    "mask_token": (1, WIDTH),
}
SMALL = {"width": WIDTH, "depth": 2, "hidden": HIDDEN, "patch": 4}
FILES = {
    "4DS": (FOUR_DS, {}, FourDS(**SMALL, heads=2, frames=4, size=8)),
    "RVM": (
        RECURRENT,
        DECODER,
        RVM(**SMALL, heads=3, core_depth=2, core_heads=2, core_hidden=HIDDEN),
    ),
}


def draw(shapes, rng):
    """Return generic arrays."""
    return {
        name: rng.uniform(0.5, 1.5, shape).astype(np.float32)
        if name.endswith("scale")
        else rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def below(arrays, name):
    return {key.removeprefix(f"{name}/"): x for key, x in arrays.items() if key.startswith(name)}


def affine(x, params, name):
    return x @ params[f"{name}/kernel"] + params.get(f"{name}/bias", 0.0)


def standardise(x, params, name, epsilon=1e-6):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return scaled * params[f"{name}/scale"] + params.get(f"{name}/bias", 0.0)


def attend(x, context, params, name):
    """Mix the values of a context, one head and one query at a time."""
    params = below(params, f"{name}")
    query, key, value = (
        np.einsum("nd,dhc->nhc", tokens, params[f"{part}/kernel"]) + params[f"{part}/bias"]
        for part, tokens in (("query", x), ("key", context), ("value", context))
    )
    out = np.zeros_like(query)
    for n, head in np.ndindex(query.shape[:2]):
        logits = key[:, head] @ query[n, head] / math.sqrt(query.shape[-1])
        weights = np.exp(logits - logits.max())
        out[n, head] = weights @ value[:, head] / weights.sum()
    return np.tensordot(out, params["out/kernel"], 2) + params["out/bias"]


def perceptron(x, params):
    y = affine(standardise(x, params, "mlp_norm"), params, "mlp/dense_in")
    y = y / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    return affine(y, params, "mlp/dense_out")


def transform(x, params):
    y = standardise(x, params, "attention_norm")
    x = x + attend(y, y, params, "attention")
    return x + perceptron(x, params)


def cut(clip, kernel):
    """Return the tubelets of a clip, t h w and the axes of a kernel."""
    sides = kernel.shape[:3]
    grid = [n // side for n, side in zip(clip.shape, sides, strict=False)]
    tubelets = np.zeros((*grid, *sides, 3))
    for place in np.ndindex(*grid):
        starts = [n * side for n, side in zip(place, sides, strict=True)]
        tubelets[place] = clip[
            tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
        ]
    return tubelets


def embed(clip, params, name):
    kernel = params[f"{name}/kernel"]
    return np.tensordot(cut(clip, kernel), kernel, 4) + params[f"{name}/bias"]


def encode_4ds(clip, params):
    x = embed(clip, params, "encoder/patch_embedding/Conv_0") + params["encoder/posenc/embeddings"]
    grid, maps = x.shape, []
    x = x.reshape(-1, WIDTH)
    for number in range(2):
        x = transform(x, below(params, f"processor/layers_{number}"))
        maps.append(x.reshape(grid))
    return maps


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def encode_rvm(clip, params):
    """Encode one frame at a time, keeping the state of the core."""
    frames = embed(clip, params, "tokenizer/patch_embedding/Conv_0")
    t, h, w, d = frames.shape
    maps = np.zeros((3, t, h, w, d))
    core, state = below(params, "rnn_core"), np.zeros((1 + h * w, d))
    for time, frame in enumerate(frames):
        x = (frame + sines(h, w, d)).reshape(-1, d)
        x = np.concatenate([params["cls_token"], x])
        for number in range(2):
            x = transform(x, below(params, f"encoder/layers_{number}"))
            maps[number, time] = x[1:].reshape(h, w, d)
        x = y = standardise(x, params, "encoder/LayerNorm_0")
        update, reset = (
            sigmoid(affine(x, core, f"input_{gate}") + affine(state, core, f"state_{gate}"))
            for gate in ("update", "reset")
        )
        context = reset * standardise(state, core, "state_layer_norm", 1e-4)
        for number in range(2):
            inner = below(core, f"transformer/xa_blocks_{number}")
            query = standardise(y, inner, "ca_attention_norm")
            y = y + attend(query, context, inner, "ca_attention")
            y = y + perceptron(y, inner)
            tokens = standardise(y, inner, "attention_norm")
            y = y + attend(tokens, tokens, inner, "attention")
        y = standardise(y, core, "transformer/output_norm")
        state = (1 - update) * state + update * y
        maps[2, time] = state[1:].reshape(h, w, d)
    return list(maps)


LOOPS = {"4DS": encode_4ds, "RVM": encode_rvm}


@pytest.mark.parametrize("network", FILES)
def test_tokens_of_every_block_equal_loops(tmp_path, rng, network):
    shapes, _, encoder = FILES[network]
    arrays = draw(shapes, rng)
    np.savez(tmp_path / "released.npz", **arrays)
    read, unused = weight_files.read_weights(tmp_path / "released.npz")
    assert (read.encoder, unused) == (encoder, [])
    clips = rng.uniform(size=(2, 4, 8, 8, 3)).astype(np.float32)
    features = jax.jit(lambda v, x: encoder.module().apply(v, x, False))(read.variables, clips)
    expected = [LOOPS[network](clip.astype(np.float64), arrays) for clip in clips]
    for got, maps in zip(features.stages, zip(*expected, strict=True), strict=True):
        assert np.abs(got - np.stack(maps)).max() < 1e-5 * np.abs(maps).max()
    np.testing.assert_allclose(features.frames, features.stages[-1].mean((2, 3)), atol=1e-5)


@pytest.mark.parametrize("network", FILES)
def test_the_command_tells_the_input_and_what_is_not_used(tmp_path, rng, capsys, network):
    shapes, decoder, encoder = FILES[network]
    arrays = {f"params/layers_0/{name}": x for name, x in draw(shapes | decoder, rng).items()}
    arrays["params/layers_2/Dense_0/kernel"] = np.zeros((2, 3), np.float32)
    np.savez(tmp_path / "released.npz", **arrays)
    main([str(tmp_path / "released.npz"), f"--out={tmp_path / 'mine.safetensors'}"])
    text = capsys.readouterr().out
    assert "params.layers_2 (1)" in text and "prefix    params.layers_0." in text
    assert not decoder or f"params.layers_0 ({len(decoder)})" in text
    loaded = pretrained.load(tmp_path / "mine.safetensors")
    size, frames = (8, 4) if network == "4DS" else (256, 16)
    assert (loaded.encoder, loaded.augment.size) == (encoder, size)
    assert (loaded.sampling.frames, loaded.sampling.stride) == (frames, 1)
    assert (loaded.augment.mean, loaded.augment.std) == ((0.0,) * 3, (1.0,) * 3)
    assert loaded.count_parameters() == sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize("network", FILES)
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"encoder/layers_1/attention/extra/kernel": (2, 2)}, "unknown: "),
        ({"processor/layers_1/attention/extra/kernel": (2, 2)}, "unknown: "),
        ({"mlp_norm/bias": None}, "missing: block1.perceptron_norm.bias"),
        ({"attention/out/kernel": (3, 5, WIDTH)}, "block1.out.weight has shape "),
    ],
)
def test_every_array_is_needed_and_no_other_is_taken(tmp_path, rng, network, changes, problem):
    shapes, decoder, _ = FILES[network]
    shapes = shapes | decoder
    for end, shape in changes.items():
        name = next((name for name in shapes if name.endswith(f"s_1/{end}")), end)
        shapes.pop(name, None)
        shapes |= {name: shape} if shape else {}
    np.savez(tmp_path / "released.npz", **draw(shapes, rng))
    with pytest.raises(ValueError, match=f"must be the weights of .*{problem}"):
        weight_files.read_weights(tmp_path / "released.npz")


def test_positions_of_clips_that_are_not_square_are_refused(tmp_path, rng):
    shapes = FOUR_DS | {"encoder/posenc/embeddings": (2, 2, 3, WIDTH)}
    np.savez(tmp_path / "wide.npz", **draw(shapes, rng))
    with pytest.raises(ValueError, match="must be those of square clips, got 2 x 3 patches"):
        weight_files.read_weights(tmp_path / "wide.npz")


def test_projections_without_an_axis_of_heads_need_a_published_width(tmp_path, rng):
    arrays = draw(FOUR_DS, rng)
    flat = {
        name: x.reshape(len(x), -1) if x.ndim == 3 and "/out/" not in name else x
        for name, x in arrays.items()
    }
    np.savez(tmp_path / "flat.npz", **flat)
    with pytest.raises(ValueError, match="number of heads at width 12 must be in a config.json"):
        weight_files.read_weights(tmp_path / "flat.npz")
