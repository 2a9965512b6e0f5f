"""Encoders: f32[b t h w 3] to `Features`."""

from vrl_jax.encoders.c3d import C3D
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.r3d import R3D
from vrl_jax.encoders.s3d import S3D
from vrl_jax.encoders.slowonly import SlowOnly
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.encoders.vit import ViT

__all__ = ["C3D", "R2plus1D", "R3D", "S3D", "SlowOnly", "Tiny", "ViT"]
