"""RandAugment: every operation beside Pillow's, which published recipes call, and its policies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vrl_jax.augment.rand_augment import (
    RandAugment,
    blend,
    list_operations,
    parse_policy,
    rand_augment,
)

LEVELS = ((7.3, 1.0), (4.1, -1.0))
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
ENHANCED = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}


def by_pillow(name, image, level, sign, increasing):
    """Return an operation as the released code of VideoMAE calls it."""
    (width, height), share = image.size, level / 10
    bits, threshold = int(share * 4), int(share * 256)
    if increasing:
        bits, threshold, factor = 4 - bits, 256 - threshold, 1 + sign * share * 0.9
    else:
        factor = share * 1.8 + 0.1
    shear = sign * share * 0.3
    matrices = {
        "shear_x": (1, shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, 0),
        "translate_x": (1, 0, sign * share * 0.45 * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, sign * share * 0.45 * height),
    }
    outside = {"fillcolor": (128, 128, 128), "resample": Image.Resampling.BICUBIC}
    if name in matrices:
        return image.transform(image.size, Image.Transform.AFFINE, matrices[name], **outside)
    if name in ENHANCED:
        return ENHANCED[name](image).enhance(factor)
    add = int(share * 110)
    table = [min(255, value + add) if value < 128 else value for value in range(256)]
    return {
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
        "rotate": lambda: image.rotate(sign * share * 30, **outside),
        "posterize": lambda: ImageOps.posterize(image, bits),
        "solarize": lambda: ImageOps.solarize(image, threshold),
        "solarize_add": lambda: image.point(3 * table),
    }[name]()


def test_operations_are_those_of_pillow(rng):
    clip = rng.integers(256, size=(2, 19, 23, 3), dtype=np.uint8)
    clip[1] = clip[1] // 3 + 40  # a frame of low contrast

    @jax.jit
    def apply(clip, level, sign):
        every = list_operations(True)
        weaker = list_operations(False)
        names = (*ENHANCED, "posterize", "solarize")
        apply = {f"{name} increasing": operation for name, operation in every.items()}
        apply |= {name: weaker[name] for name in names}
        return {key: f(clip.astype(jnp.int32), level, sign) for key, f in apply.items()}

    for level, sign in LEVELS:
        for key, frames in apply(clip, jnp.float32(level), jnp.float32(sign)).items():
            name, _, increasing = key.partition(" ")
            images = [Image.fromarray(frame) for frame in clip]
            expected = np.stack(
                [by_pillow(name, image, level, sign, bool(increasing)) for image in images]
            )
            if name in GEOMETRIC:  # in float32, truncation and the border differ in a few pixels
                assert (np.asarray(frames) == expected).mean() > 0.99, key
            else:
                np.testing.assert_array_equal(frames, expected, key)


def test_blends_are_clipped_and_truncated():
    reference, x = (np.reshape(each, (1, 1, 1, 3)) for each in ([10, 10, 200], [15, 250, 20]))
    mixed = jax.jit(blend)(reference, x, jnp.float32(1.9))
    np.testing.assert_array_equal(mixed[0, 0, 0], [19, 255, 0])  # 19.5, 466, -142


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("rand", RandAugment(10.0, 2, 0.0, False)),
        ("rand-m7-n4-mstd0.5-inc1", RandAugment(7.0, 4, 0.5, True)),
        ("rand-inc0-m9", RandAugment(9.0, 2, 0.0, False)),
    ],
)
def test_a_policy_has_the_numbers_of_its_name(name, policy):
    assert parse_policy(name) == policy


@pytest.mark.parametrize("name", ["augmix-m3", "rand-m11", "rand-w0", "rand-n1.5", "rand-m1-m2"])
def test_another_name_is_refused(name):
    with pytest.raises(ValueError, match=f"rand must be a policy such as .*, got '{name}'"):
        parse_policy(name)


@pytest.mark.slow
def test_a_draw_is_the_same_for_all_frames_and_another_for_each_key(rng):
    frame = rng.integers(256, size=(1, 9, 12, 3), dtype=np.uint8)
    clip = np.repeat(frame, 2, axis=0)
    policy = parse_policy("rand-m7-n4-mstd0.5-inc1")
    keys = jax.random.split(jax.random.key(1), 64)

    @jax.jit
    def apply(clip):
        return jax.lax.map(lambda key: rand_augment(key, clip, policy), keys)

    clips = np.asarray(apply(clip))
    assert clips.dtype == np.uint8
    np.testing.assert_array_equal(clips[:, 0], clips[:, 1])
    same = (clips == clip).all((1, 2, 3, 4))
    assert 0 < same.mean() < 0.25  # none of four operations is applied: 1/16, some change nothing
    assert len({each.tobytes() for each in clips}) > 45
