import functools

import jax
import numpy as np
import pytest

from tests.encoders.reference import fill, shapes_of
from tests.encoders.test_r3d import parameters_by_stage
from vrl_jax.encoders.r2plus1d import R2plus1D, middle_width

CLIPS = (2, 16, 112, 112, 3)


@functools.cache
def shapes(**options):
    return shapes_of(R2plus1D(conv="native", **options).module(), CLIPS)


def middle_widths(params):
    """Read the widths between the halves of every convolution, by its name."""
    return {
        f"{block}/{conv}": halves["spatial"]["kernel"].shape[-1]
        for block, convs in params.items()
        if block != "stem"
        for conv, halves in convs.items()
        if "spatial" in halves
    }


@pytest.mark.parametrize("temporal_stride", [1, 2])
def test_parameters_of_r2plus1d_18(temporal_stride):
    params = shapes(variant="torchvision", temporal_stride=temporal_stride)[1]["params"]
    by_stage = parameters_by_stage(params)
    assert by_stage == [15_473, 444_032, 1_470_360, 5_874_736, 23_495_524]
    assert sum(by_stage) == 31_300_125


@pytest.mark.parametrize(
    ("blocks", "variant", "total"),
    [
        ((1, 1, 1, 1), "torchvision", 12_487_005),
        ((1, 1, 1, 1), "vcop", 14_365_303),
    ],
)
def test_parameters_of_the_other_networks(blocks, variant, total):
    params = shapes(blocks=blocks, variant=variant)[1]["params"]
    assert sum(parameters_by_stage(params)) == total


def test_middle_widths():
    params = shapes(blocks=(1, 1, 1, 1), variant="vcop")[1]["params"]
    assert params["stem"]["spatial"]["kernel"].shape == (1, 7, 7, 3, 83)
    expected = {"stages_0_0/first": 144, "stages_0_0/second": 144}
    for stage, widths in enumerate([(230, 288, 42), (460, 576, 85), (921, 1152, 170)], start=1):
        for conv, width in zip(("first", "second", "shortcut"), widths, strict=True):
            expected[f"stages_{stage}_0/{conv}"] = width
    assert middle_widths(params) == expected

    params = shapes(variant="torchvision", temporal_stride=2)[1]["params"]
    assert params["stem"]["spatial"]["kernel"].shape == (1, 7, 7, 3, 45)
    for stage, widths in enumerate([(144, 144), (230, 288), (460, 576), (921, 1152)]):
        for block, width in enumerate(widths):
            for conv in ("first", "second"):
                assert middle_widths(params)[f"stages_{stage}_{block}/{conv}"] == width


def test_middle_width_matches_the_undivided_convolution():
    for inputs, outputs, kernel in [(64, 128, (3, 3, 3)), (3, 64, (3, 7, 7)), (5, 9, (5, 3, 3))]:
        mid = middle_width(inputs, outputs, kernel)
        kt, kh, kw = kernel
        weights = [m * (kh * kw * inputs + kt * outputs) for m in (mid, mid + 1)]
        assert weights[0] <= kt * kh * kw * inputs * outputs < weights[1]


@pytest.mark.parametrize(
    ("variant", "temporal_stride", "frames"),
    [
        ("torchvision", 2, (16, 16, 8, 4, 2)),
        ("torchvision", 1, (16,) * 5),
        ("vcop", 2, (16, 16, 8, 4, 2)),
    ],
)
def test_maps(variant, temporal_stride, frames):
    features, variables = shapes(variant=variant, temporal_stride=temporal_stride)
    sides, widths = (56, 56, 28, 14, 7), (64, 64, 128, 256, 512)
    expected = [(2, t, s, s, d) for t, s, d in zip(frames, sides, widths, strict=True)]
    assert [stage.shape for stage in features.stages] == expected
    assert features.frames.shape == (2, frames[-1], R2plus1D(variant=variant).dim)
    if variant == "vcop":
        assert sum(parameters_by_stage(variables["params"])) == 33_178_423


def test_without_temporal_stride_a_shift_in_time_shifts_the_frames(rng):
    config, shape = R2plus1D((1, 1, 1, 1), temporal_stride=1, conv="native"), (1, 21, 8, 8, 3)
    module = config.module()
    long = rng.normal(size=(1, 22, 8, 8, 3)).astype(np.float32)
    variables = fill(module, shape, rng)
    encode = jax.jit(lambda v, x: module.apply(v, x, False).frames)
    early, late = (np.asarray(encode(variables, x)) for x in (long[:, :21], long[:, 1:]))
    # nine temporal convolutions see nine frames to either side
    np.testing.assert_allclose(early[:, 10:12], late[:, 9:11], rtol=1e-4, atol=1e-5)
    assert np.abs(early[:, 10] - early[:, 9]).max() > 1e-3
    assert np.abs(early[:, 1:4] - late[:, 0:3]).max() > 1e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"variant": "slow"}, "variant"), ({"blocks": (2, 2)}, "blocks"), ({"dtype": "f4"}, "dtype")],
)
def test_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        R2plus1D(**wrong)
