"""Multiply-adds per clip equal the published numbers."""

import flax.linen as nn
import jax
import pytest

from tests.encoders.reference import multiply_adds
from vrl_jax.encoders.c3d import C3D
from vrl_jax.encoders.layers import Conv3d
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.r3d import R3D
from vrl_jax.encoders.s3d import S3D
from vrl_jax.encoders.slowonly import SlowOnly
from vrl_jax.encoders.vit import ViT

SHALLOW = (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("config", "frames", "side", "billions"),
    [
        (R3D(conv="native"), 16, 112, 40.70),
        (R3D(blocks=SHALLOW, conv="native"), 16, 112, 19.89),
        (R2plus1D(conv="native"), 16, 112, 40.52),
        (R2plus1D(blocks=SHALLOW, variant="vcop", conv="native"), 16, 112, 21.36),
        (SlowOnly(conv="native"), 8, 256, 54.52),
        (C3D(conv="native"), 16, 112, 38.5),
        (S3D(conv="native"), 16, 224, 17.98),
        (ViT(), 16, 224, 180.3),
        (ViT(temporal_stride=4), 16, 112, 17.8),
        (ViT(width=192, heads=3), 16, 112, 2.9),
    ],
    ids=str,
)
def test_one_clip_costs_what_is_published(config, frames, side, billions):
    cost = multiply_adds(config.module(), (1, frames, side, side, 3))
    assert cost / 1e9 == pytest.approx(billions, rel=0.002)


class Few(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        y = Conv3d(4, (3, 5, 1), (1, 2, 1), formulation="native")(x)
        return jax.jit(nn.Dense(6).__call__)(y), y @ y.mT


def test_the_count_of_two_layers_and_a_product():
    voxels = 2 * 6 * 4 * 5  # of (2, 6, 7, 5, 3), every second row
    expected = voxels * (3 * 5 * 1 * 3 * 4) + voxels * 4 * 6 + voxels * 4 * 5
    assert multiply_adds(Few(), (2, 6, 7, 5, 3)) == expected
