"""Shapes of BOD-VCL, which needs a time axis, with every encoder."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from vrl_jax.encoders import s3d
from vrl_jax.encoders.c3d import C3D
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.r3d import R3D
from vrl_jax.encoders.s3d import S3D
from vrl_jax.encoders.slowonly import SlowOnly
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.encoders.vit import ViT
from vrl_jax.frameworks.moco import MoCo
from vrl_jax.frameworks.simclr import SimCLR
from vrl_jax.methods.bod import BOD
from vrl_jax.types import TrainLength

# An encoder and the length of its time axis for 16 frames.
SHALLOW = (1, 1, 1, 1)
KEEP_TIME = [
    (Tiny(), 16),
    (SlowOnly(SHALLOW), 16),
    (R3D(SHALLOW, temporal_stride=1), 16),
    (R2plus1D(SHALLOW, temporal_stride=1), 16),
    (R2plus1D(SHALLOW, variant="vcop", temporal_stride=1), 16),
    (S3D(gated=True, temporal_stride=1), 16),
    (C3D(temporal_stride=1), 16),
    (ViT(depth=4, temporal_stride=1), 16),
    (ViT(depth=4), 8),
]


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """Leave one block of each of S3D's stages."""
    monkeypatch.setattr(s3d, "STAGES", (((3, 4, 5, 3, 4, 2),),) * 3)


def shapes(encoder, framework):
    """Return the shapes of BOD-VCL's loss and of the frame features, without computing them."""
    if hasattr(encoder, "conv"):
        encoder = replace(encoder, conv="native")  # the quickest to trace
    method = BOD(dim=16, inner_steps=0).build(encoder, framework, TrainLength(10, 5))
    clips = jax.ShapeDtypeStruct((2, len(method.views), 16, 112, 112, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(method.init, key, clips)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    loss, _ = jax.eval_shape(method.loss, params, state, clips, key, step)
    single = jax.ShapeDtypeStruct((2, 16, 112, 112, 3), jnp.float32)
    jax.eval_shape(method.operators, params, state, single)

    def frames(params, state, clips):
        return encoder.module().apply(method.encoder(params, state), clips, False).frames

    return loss, jax.eval_shape(frames, params, state, single)


@pytest.mark.parametrize(
    "encoder, frames",
    [
        pytest.param(*pair, marks=[] if isinstance(pair[0], Tiny | ViT) else [pytest.mark.slow])
        for pair in KEEP_TIME
    ],
    ids=lambda x: type(x).__name__,
)
def test_bod_trains_encoders_that_keep_time(encoder, frames):
    loss, vectors = shapes(encoder, MoCo(hidden=32, layers=2, queue=8))
    assert loss.shape == () and loss.dtype == jnp.float32
    assert vectors.shape[:2] == (2, frames)


@pytest.mark.parametrize("encoder", [R3D(SHALLOW), R2plus1D(SHALLOW), S3D(), C3D()])
def test_an_encoder_that_leaves_two_frames_is_refused_by_name(encoder):
    with pytest.raises(ValueError, match="at least 3"):
        shapes(encoder, SimCLR(hidden=32, layers=2))
