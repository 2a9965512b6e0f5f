"""The names are those of torchvision's and pytorchvideo's files, listed here by hand."""

import numpy as np
import pytest

from vrl_jax.convert import layout_match
from vrl_jax.convert.weight_layouts import LAYOUTS, find_layout
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.r3d import R3D
from vrl_jax.encoders.s3d import S3D
from vrl_jax.encoders.slowonly import SlowOnly
from vrl_jax.encoders.tiny import Tiny

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def norms(*names):
    return [f"{name}.{leaf}" for name in names for leaf in NORM]


def convs(*names):
    return [f"{name}.weight" for name in names]


def residual(divided):
    names = convs("stem.0") + norms("stem.1")
    if divided:
        names += convs("stem.3") + norms("stem.4")
    for block in [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]:
        for half in (f"{block}.conv1", f"{block}.conv2"):
            names += norms(f"{half}.1")
            if divided:
                names += convs(f"{half}.0.0", f"{half}.0.3") + norms(f"{half}.0.1")
            else:
                names += convs(f"{half}.0")
        if block.endswith("0") and block != "layer1.0":
            names += convs(f"{block}.downsample.0") + norms(f"{block}.downsample.1")
    return [*names, "fc.weight", "fc.bias"]


def s3d():
    halved, whole = ["features.0", "features.3"], ["features.2"]
    for i in (5, 6, 8, 9, 10, 11, 12, 14, 15):
        block = f"features.{i}"
        whole += [f"{block}.branch{n}" for n in ("0", "1.0", "2.0", "3.1")]
        halved += [f"{block}.branch1.1", f"{block}.branch2.1"]
    whole += [f"{unit}.{half}" for unit in halved for half in (0, 1)]
    names = [name for unit in whole for name in convs(f"{unit}.0") + norms(f"{unit}.1")]
    return [*names, "classifier.1.weight", "classifier.1.bias"]


def slow():
    names = convs("blocks.0.conv") + norms("blocks.0.norm")
    for stage, count in enumerate((3, 4, 6, 3), start=1):
        for block in [f"blocks.{stage}.res_blocks.{i}" for i in range(count)]:
            if block.endswith(".0"):
                names += convs(f"{block}.branch1_conv") + norms(f"{block}.branch1_norm")
            for letter in "abc":
                names += convs(f"{block}.branch2.conv_{letter}")
                names += norms(f"{block}.branch2.norm_{letter}")
    return [*names, "blocks.5.proj.weight", "blocks.5.proj.bias"]


FILES = {
    "R3D": (R3D(), residual(False), 122, 205_200, 33_371_472),
    "R(2+1)D": (R2plus1D(), residual(True), 224, 205_200, 31_505_325),
    "S3D": (S3D(), s3d(), 464, 410_000, 8_320_048),
    "Slow-R50": (SlowOnly(), slow(), 320, 819_600, 32_454_096),
}


def arrays_of(encoder, layout):
    """Arrays of the right names and shapes that take no memory."""
    table = layout_match.torch_arrays(encoder, layout)
    return {x.name: np.broadcast_to(np.float32(0), x.shape) for x in table.values()}


@pytest.mark.parametrize("network", FILES)
def test_names_and_their_number_are_those_of_the_published_files(network):
    encoder, names, count, head, parameters = FILES[network]
    assert len(names) == len(set(names)) == count
    (layout,) = [layout for layout in LAYOUTS if layout.network == network][:1]
    arrays = arrays_of(encoder, layout)
    counters = {name for name in names if name.endswith("num_batches_tracked")}
    assert {*arrays} | counters | set(names[-2:]) == {*names}
    trained = {name: x for name, x in arrays.items() if "running" not in name}
    assert sum(x.size for x in trained.values()) + head == parameters
    full = {**arrays, **dict.fromkeys([*counters, *names[-2:]], np.zeros(()))}
    matched, prefix = layout_match.match_layout(full)
    assert (matched, prefix) == (layout, "")
    assert layout_match.from_torch(full, layout, "")[::2] == (encoder, sorted(names[-2:]))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.family} {layout.network}")
def test_every_layout_finds_itself_again(layout):
    arrays = arrays_of(layout.encoder({}, {}), layout)
    assert len(set(arrays)) == len(arrays)
    if layout.companion:
        arrays = {f"module.backbone.{name}": x for name, x in arrays.items()}
        arrays[f"module.{layout.companion}"] = np.zeros((4, 512))
    matched, prefix = layout_match.match_layout(arrays)
    assert matched is layout and prefix == ("module.backbone." if layout.companion else "")
    encoder, _, unused = layout_match.from_torch(arrays, matched, prefix)
    assert layout.fits(encoder)
    assert unused == (["module.prototype_s.weight"] if layout.companion else [])


def test_blocks_are_counted():
    for encoder in (R3D((1, 2, 3, 4)), R2plus1D((2, 1, 1, 3))):
        layout = find_layout(encoder, "torchvision")
        assert layout.encoder(arrays_of(encoder, layout), {}) == encoder
    deep = R2plus1D((3, 1, 2, 1), variant="vcop")
    layout = find_layout(deep, "dualvar")
    assert layout.encoder(arrays_of(deep, layout), {}) == deep


def test_the_prefix_is_found_or_asked_for():
    layout = find_layout(S3D(), "torchvision")
    arrays = arrays_of(S3D(), layout)
    twice = {f"{p}.{name}": x for p in ("module.encoder_q.0", "module.encoder_k.0")
             for name, x in arrays.items()}  # fmt: skip
    twice["module.encoder_q.2.weight"] = np.zeros((3, 2))
    matched, prefix = layout_match.match_layout(twice)
    assert matched is layout and prefix == "module.encoder_q.0."
    unused = layout_match.from_torch(twice, layout, prefix)[2]
    assert len(unused) == len(arrays) + 1 and "module.encoder_q.2.weight" in unused
    assert layout_match.match_layout(twice, "module.encoder_k.0.")[1] == "module.encoder_k.0."
    with pytest.raises(ValueError, match=r"prefix must be .*module\.encoder_k\.0.*got 'x\.'"):
        layout_match.match_layout(twice, "x.")
    two = {f"{p}.{name}": x for p in ("student", "teacher") for name, x in arrays.items()}
    with pytest.raises(ValueError, match=r"several encoders.*student\..*teacher\."):
        layout_match.match_layout(two)
    assert layout_match.match_layout(two, "teacher.") == (layout, "teacher.")


def test_names_and_shapes_that_do_not_fit_are_named():
    layout = find_layout(R3D(), "torchvision")
    arrays = arrays_of(R3D(), layout)
    absent = {n: x for n, x in arrays.items() if n != "layer2.0.conv1.1.running_var"}
    with pytest.raises(ValueError, match="R3D.*missing: layer2.0.conv1.1.running_var"):
        layout_match.from_torch(absent, layout, "")
    with pytest.raises(ValueError, match="unknown: layer2.0.gate.weight"):
        layout_match.from_torch({**arrays, "layer2.0.gate.weight": np.zeros(3)}, layout, "")
    flat = {  # torchvision's MC3 has these names, but convolves over space alone from stage 2 on
        name: x[:, :, :1] if x.ndim == 5 and not name.startswith(("stem", "layer1")) else x
        for name, x in arrays.items()
    }
    wrong = r"layer2\.0\.conv1\.0\.weight has shape \(128, 64, 1, 3, 3\), must have \(128, 64, 3,"
    with pytest.raises(ValueError, match=wrong):
        layout_match.from_torch(flat, layout, "")


def test_other_networks_are_unknown():
    with pytest.raises(ValueError, match="torchvision's R3D.*got conv1.weight, layer1"):
        layout_match.match_layout(["conv1.weight", "layer1.0.conv1.weight"])
    with pytest.raises(ValueError, match="torchvision has no names for Tiny.*: none"):
        find_layout(Tiny(), "torchvision")
    with pytest.raises(ValueError, match="torchvision has no names for S3D.*gated=True"):
        find_layout(S3D(gated=True), "torchvision")
    with pytest.raises(ValueError, match="torchvision has no names .*: dualvar"):
        find_layout(R2plus1D(variant="vcop"), "torchvision")
