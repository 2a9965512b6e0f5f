"""The network of SDC: one encoder for clips, still frames and differences, and their concepts."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax.frameworks.base import ProjectionHead, draw_rows
from vrl_jax.losses import dot_products, normalize
from vrl_jax.methods.network import Outputs, split_views
from vrl_jax.types import Features

KINDS = ("clip", "still", "difference")  # the views come in this order, two of each
# What is contrasted with what; each has a head of its own.
CONTRASTS = (
    ("clip", "clip"),
    ("clip", "still"),
    ("still", "clip"),
    ("clip", "difference"),
    ("difference", "clip"),
)


class ConceptNet(nn.Module):
    """Encoder, contrast heads, concept heads, codebooks, decoders and the local attention.

    Attributes:
      encoder: the network that is kept.
      kinds: of view, in their order, two views of each; of `KINDS`.
      width: of its features.
      dim: of the contrast heads.
      concepts: of each type: a codebook has as many static rows, then as many dynamic ones.
      joint_norm: batch statistics of the concept heads over both views of a kind together.
    """

    encoder: nn.Module
    kinds: tuple[str, ...]
    width: int
    dim: int
    concepts: int
    joint_norm: bool

    @property
    def contrasts(self) -> tuple[tuple[str, str], ...]:
        """Those of `CONTRASTS` that the network's kinds of view allow."""
        return tuple(pair for pair in CONTRASTS if {*pair} <= {*self.kinds})

    def setup(self):
        """Lay out the parts."""
        self.contrast = {
            f"{kind}_{against}": ProjectionHead(self.width, self.dim, norm=False)
            for kind, against in self.contrasts
        }
        self.concept = {kind: ProjectionHead(self.width, self.width) for kind in self.kinds}
        self.decoder = {kind: ProjectionHead(self.width, self.width) for kind in self.kinds}
        self.codebook = {
            kind: self.param(f"codebook_{kind}", draw_rows, (2 * self.concepts, self.width))
            for kind in self.kinds
        }
        self.attention = ConceptAttention(self.width)

    def __call__(
        self, clips: Float[Array, "b v t h w 3"], train: bool, predict: bool = True
    ) -> Outputs:
        """Return features f32[b v ...] and f32[b 2 ...] a kind: contrasts, scores, decoded.

        Scores are cosines with the kind's codebook. A decoder sees of them what should describe its
        kind: all of a clip's, the static ones of a still's, the dynamic ones of a difference's.
        """
        features = split_views(
            self.encode(clips.reshape(-1, *clips.shape[2:]), train), clips.shape[1]
        )
        seen = {kind: features.clip[:, 2 * k : 2 * k + 2] for k, kind in enumerate(self.kinds)}
        made = {
            f"contrast/{kind}/{against}": self.contrast[f"{kind}_{against}"](seen[kind], train)
            for kind, against in self.contrasts
        }
        for kind, x in seen.items():
            parts = [x] if self.joint_norm else [x[:, :1], x[:, 1:]]
            found = jnp.concatenate([self.concept[kind](part, train) for part in parts], axis=1)
            scores = dot_products(normalize(found), self.codebook[kind])
            made[f"scores/{kind}"] = scores
            made[f"decoded/{kind}"] = self.decoder[kind](select_scores(kind, scores), train)
        if self.is_initializing():
            self.find(features.stages[-1])
        return Outputs(features, made, {})

    def encode(self, clips: Float[Array, "n t h w 3"], train: bool = False) -> Features:
        """Return the encoder's features, by default with fixed statistics."""
        return self.encoder(clips, train)

    def find(self, maps: Float[Array, "b v t h w c"]) -> Mapping[str, Float[Array, "b 2 k c"]]:
        """Return what is found of each kind's concepts in its last feature maps, unit vectors."""
        tokens = maps.astype(jnp.float32).reshape(*maps.shape[:2], -1, maps.shape[-1])
        return {
            kind: self.attention(
                tokens[:, 2 * k : 2 * k + 2], select_scores(kind, self.codebook[kind].T).T
            )
            for k, kind in enumerate(self.kinds)
        }


class ConceptAttention(nn.Module):
    """Concepts compete for the places of a map; each gathers the places it won.

    One iteration of the attention of super-features (FIRe, arXiv 2201.13182).
    """

    width: int

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "*b l c"], templates: Float[Array, "k c"]
    ) -> Float[Array, "*b k c"]:
        """Return a unit vector for each template."""
        x = nn.LayerNorm(name="norm_tokens")(tokens)
        keys = nn.Dense(self.width, use_bias=False, name="key")(x)
        values = nn.Dense(self.width, use_bias=False, name="value")(x)
        queries = nn.Dense(self.width, use_bias=False, name="query")(
            nn.LayerNorm(name="norm_templates")(templates)
        )
        logits = jnp.einsum("...lc,kc->...lk", keys, queries) / self.width**0.5
        share = jax.nn.softmax(logits, axis=-1) + 1e-8
        share = share / jnp.sum(share, axis=-2, keepdims=True)
        found = jnp.einsum("...lk,...lc->...kc", share, values) + templates
        hidden = nn.relu(nn.Dense(self.width // 2, name="inner")(nn.LayerNorm(name="norm")(found)))
        return normalize(found + nn.Dense(self.width, name="outer")(hidden))


def select_scores(kind: str, scores: Float[Array, "*b k"]) -> Float[Array, "*b _"]:
    """Return the scores against the concepts that should describe a kind of view."""
    half = scores.shape[-1] // 2
    return {"clip": scores, "still": scores[..., :half], "difference": scores[..., half:]}[kind]
