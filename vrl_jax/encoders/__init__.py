"""Encoders: f32[b t h w 3] to `Features`."""

from vrl_jax.encoders.c3d import C3D
from vrl_jax.encoders.four_ds import FourDS
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.r3d import R3D
from vrl_jax.encoders.rvm import RVM
from vrl_jax.encoders.s3d import S3D
from vrl_jax.encoders.slowonly import SlowOnly
from vrl_jax.encoders.timesformer import TimeSformer
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.encoders.videomae import VideoMAE
from vrl_jax.encoders.videoprism import VideoPrism
from vrl_jax.encoders.vit import ViT
from vrl_jax.encoders.vivit import ViViT
from vrl_jax.encoders.vjepa2 import VJEPA2

__all__ = [
    "C3D",
    "FourDS",
    "R2plus1D",
    "R3D",
    "RVM",
    "S3D",
    "SlowOnly",
    "TimeSformer",
    "Tiny",
    "VJEPA2",
    "ViT",
    "ViViT",
    "VideoMAE",
    "VideoPrism",
]
