"""Functions of the user as encoders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax import config, pretrained
from vrl_jax.encoders.external import External, external
from vrl_jax.evaluation.result_stamp import describe_model

INPUT = {"size": 4, "frames": 6, "stride": 2, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def layers(clips):
    patches = clips.reshape(len(clips), 6, 4, -1)  # b, frames, rows, columns and channels
    return {"stem": 2 * patches.reshape(len(clips), 24, -1), "blocks": patches[:, :, :, None]}


@external(**INPUT, times=6)
def traced(clips):
    assert isinstance(clips, jax.Array)
    return layers(clips)


@external(**INPUT, times=6, host=True)
def on_host(clips):
    assert isinstance(clips, np.ndarray)
    return layers(clips)


@external(**INPUT, times=5)
def indivisible(clips):
    return layers(clips)


class WithGradient:
    """A tensor that requires a gradient."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("call detach first")


@external(**INPUT, host=True)
def with_gradient(clips):
    return {"block1": WithGradient()}


@external(**INPUT, host=True)
def unnamed(clips):
    return list(layers(clips).values())


@external(**INPUT)
def numpy_in_jax(clips):
    return layers(np.asarray(clips))


@external(**INPUT, host=True)
def squeezed(clips):
    return {"block1": clips[0, :, 0]}  # without clips


@external(**INPUT, host=True)
def channels_first(clips):
    return {"block1": np.moveaxis(np.concatenate([clips] * 3, -1), -1, 1)}


@external(**INPUT)
def jitted_inside(clips):
    return jax.jit(lambda x: {"block2": x, "block10": x})(clips)


@external(**INPUT, host=True)
def in_two_orders(clips):
    names = ("a", "b") if len(clips) == 2 else ("b", "a")
    by_name = {"a": clips, "b": -clips}
    return {name: by_name[name] for name in names}


@external(**INPUT, host=True)
def other_layers_of_three(clips):
    return {"a": clips} if len(clips) == 2 else {"b": clips}


@external(**INPUT)
def single_number(clips):
    return {"block1": clips.mean()}


@external(**INPUT)
def no_array(clips):
    return {"block1": None}


@external(**INPUT, host=True)
def complex_numbers(clips):
    return {"block1": clips * 1j}


@external(**INPUT)
def without_tokens(clips):
    return {"block1": clips[:, :0, 0, 0]}


@external(**INPUT, weights="absent.pt")
def without_weights(clips):
    return layers(clips)


@external(**INPUT)
@jax.jit
def jitted(clips):
    return layers(clips)


def bare(clips):
    return layers(clips)


@pytest.mark.parametrize("name", ["traced", "on_host"])
def test_layers_are_stages_in_their_order(rng, name):
    model = pretrained.load(f"{__name__}:{name}")
    assert (model.sampling.frames, model.sampling.stride, model.augment.size) == (6, 2, 4)
    assert model.count_parameters() == 0 and model.encoder.dim == 12
    assert model.encoder.list_layers() == ("stem", "blocks")
    clips = rng.integers(256, size=(3, 6, 4, 4, 3), dtype=np.uint8)
    features = jax.jit(lambda views: model(views))(model.prepare(clips))
    assert [stage.shape for stage in features.stages] == [(3, 6, 4, 1, 12)] * 2
    expected = ((clips / 255 - 0.5) / 0.25).reshape(3, 6, 4, 1, 12)
    np.testing.assert_allclose(features.stages[1], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features.stages[0], 2 * features.stages[1], rtol=1e-6)
    np.testing.assert_allclose(features.clip, expected.mean((1, 2, 3)), rtol=1e-3, atol=1e-5)
    assert config.build(config.describe(model.encoder)) == model.encoder
    assert model.origin["function"] == f"{__name__}:{name}"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tests.nowhere:traced", "there is no module tests.nowhere: run in the folder that holds"),
        (f"{__name__}:nothing", "there is no function .*:nothing"),
        (f"{__name__}:bare", "bare must be decorated by vrl_jax.encoders.external.external"),
        (f"{__name__}:jitted", "jitted must not be jitted: jax.jit sorts the layers by name"),
        (f"{__name__}:indivisible", "'stem' .* a multiple of times=5, .* b=2, got 2 x 24 x 12"),
        (f"{__name__}:jitted_inside", "sorted as text, as from jax.jit: block10, block2"),
        (f"{__name__}:single_number", "'block1' of .* with b=2, got a single number"),
        (f"{__name__}:no_array", "'block1' of .* is no array of numbers"),
        (f"{__name__}:complex_numbers", "'block1' of .* must be real, got complex64"),
        (f"{__name__}:without_tokens", "'block1' of .* with b=2, got 2 x 0 x 3"),
        (f"{__name__}:squeezed", "'block1' of .*squeezed must be b x tokens x d.* got 6 x 4 x 3"),
        (
            f"{__name__}:with_gradient",
            "'block1' of .* is no array of numbers, .*: call detach first",
        ),
        (f"{__name__}:unnamed", r"unnamed must return layers by name, .* got list"),
        (
            f"{__name__}:numpy_in_jax",
            r"numpy_in_jax failed on clips f32\[2 6 4 4 3\]: line \d+: Tracer.*host=True",
        ),
        (f"{__name__}:channels_first", "'block1' of .* has 9 positions in time for 6 frames"),
        (f"{__name__}:without_weights", "weights of .*: .*No such file.* 'absent.pt'"),
    ],
)
def test_refuses(path, message):
    with pytest.raises(ValueError, match=message):
        pretrained.load(path)


def test_refuses_other_clips_than_the_function_expects():
    module = External(f"{__name__}:traced").module()
    with pytest.raises(ValueError, match="expects clips of 6 x 4 x 4, .* got 5 x 4 x 4"):
        jax.eval_shape(lambda: module.apply({}, jnp.zeros((1, 5, 4, 4, 3)), False))
    with pytest.raises(ValueError, match="step must be None, since .* is a function, got 3"):
        pretrained.load(f"{__name__}:traced", step=3)


def test_layers_on_the_host_are_found_by_name():
    views = jnp.ones((3, 6, 4, 4, 3))
    features = pretrained.load(f"{__name__}:in_two_orders")(views)
    assert float(features.stages[0].mean()) == 1 and float(features.stages[1].mean()) == -1
    model = pretrained.load(f"{__name__}:other_layers_of_three")
    with pytest.raises(jax.errors.JaxRuntimeError, match="depend on the batch"):
        jax.block_until_ready(model(views))


def test_an_error_while_the_module_is_imported_names_its_line(tmp_path, monkeypatch):
    (tmp_path / "fails_at_import.py").write_text("import json\n\njson.loads('')\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = "fails_at_import cannot be imported: line 3: JSONDecodeError: Expecting value"
    with pytest.raises(ValueError, match=message):
        pretrained.load("fails_at_import:encode")
    (tmp_path / "needs_another.py").write_text("import a_module_that_is_absent\n")
    with pytest.raises(
        ValueError, match="needs_another cannot be imported: line 1: ModuleNotFound"
    ):
        pretrained.load("needs_another:encode")


def test_weights_of_a_function_identify_it(tmp_path, monkeypatch):
    described = []
    for content in (b"a", b"b"):
        (tmp_path / "absent.pt").write_bytes(content)
        monkeypatch.chdir(tmp_path)
        described.append(describe_model(pretrained.load(f"{__name__}:without_weights")))
    assert described[0]["module"] == described[1]["module"]
    assert described[0]["weights absent.pt"] != described[1]["weights absent.pt"]
    assert "parameters" not in described[0]
