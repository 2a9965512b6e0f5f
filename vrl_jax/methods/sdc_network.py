"""The network of SDC: one encoder for clips, stills and differences, with concept heads."""

from collections.abc import Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax.frameworks.base import ProjectionHead, draw_rows
from vrl_jax.losses import dot_products, normalize
from vrl_jax.methods.network import Outputs, split_views
from vrl_jax.types import Features

# PyTorch's epsilon, and two passes, which keep all digits.
_layer_norm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)

KINDS = ("clip", "still", "difference")  # the order of the views, two of each
# (kind, the kind it is contrasted with); each has its own head.
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
      kinds: kinds of view, in order and two views of each; some of `KINDS`.
      width: width of the encoder's features.
      dim: width of the contrast heads.
      concepts: number of concepts of each type; a codebook has the static rows first, then the
        dynamic ones.
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
        """The pairs of `CONTRASTS` between the network's kinds of view."""
        return tuple(pair for pair in CONTRASTS if {*pair} <= {*self.kinds})

    def setup(self):
        """Create the submodules and codebooks."""
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
        """Return features f32[b v ...], and contrasts, scores and decoded, f32[b 2 ...] per kind.

        Scores are cosines with the codebook of the kind. A decoder reads the scores that should
        describe its kind: all for clips, static ones for stills, dynamic ones for differences.
        """
        features = split_views(
            self.encode(clips.reshape(-1, *clips.shape[2:]), train), clips.shape[1]
        )
        by_kind = {kind: features.clip[:, 2 * k : 2 * k + 2] for k, kind in enumerate(self.kinds)}
        projected = {
            f"contrast/{kind}/{other}": self.contrast[f"{kind}_{other}"](by_kind[kind], train)
            for kind, other in self.contrasts
        }
        for kind, x in by_kind.items():
            parts = [x] if self.joint_norm else [x[:, :1], x[:, 1:]]
            concepts = jnp.concatenate([self.concept[kind](part, train) for part in parts], axis=1)
            scores = dot_products(normalize(concepts), self.codebook[kind])
            projected[f"scores/{kind}"] = scores
            projected[f"decoded/{kind}"] = self.decoder[kind](select_scores(kind, scores), train)
        if self.is_initializing():
            self.locate(features.stages[-1])
        return Outputs(features, projected, {})

    def encode(self, clips: Float[Array, "n t h w 3"], train: bool = False) -> Features:
        """Return the encoder's features, by default with fixed statistics."""
        return self.encoder(clips, train)

    def locate(self, maps: Float[Array, "b v t h w c"]) -> Mapping[str, Float[Array, "b 2 k c"]]:
        """Return a unit vector of each concept, gathered from the last feature maps of its kind."""
        tokens = maps.astype(jnp.float32).reshape(*maps.shape[:2], -1, maps.shape[-1])
        return {
            kind: self.attention(
                tokens[:, 2 * k : 2 * k + 2], select_scores(kind, self.codebook[kind].T).T
            )
            for k, kind in enumerate(self.kinds)
        }


class ConceptAttention(nn.Module):
    """Slot attention: concepts compete for the positions of a map and gather their features.

    One iteration of the attention of super-features (FIRe, arXiv 2201.13182).

    Attributes:
      width: width of keys, queries and values.
    """

    width: int

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "*b l c"], templates: Float[Array, "k c"]
    ) -> Float[Array, "*b k c"]:
        """Return a unit vector for each template (concept), from the tokens (positions)."""
        x = _layer_norm(name="norm_tokens")(tokens)
        keys = nn.Dense(self.width, use_bias=False, name="key")(x)
        values = nn.Dense(self.width, use_bias=False, name="value")(x)
        queries = nn.Dense(self.width, use_bias=False, name="query")(
            _layer_norm(name="norm_templates")(templates)
        )
        logits = jnp.einsum("...lc,kc->...lk", keys, queries) / self.width**0.5
        weights = jax.nn.softmax(logits, axis=-1) + 1e-8
        weights = weights / jnp.sum(weights, axis=-2, keepdims=True)
        x = jnp.einsum("...lk,...lc->...kc", weights, values) + templates
        hidden = nn.relu(nn.Dense(self.width // 2, name="inner")(_layer_norm(name="norm")(x)))
        return normalize(x + nn.Dense(self.width, name="outer")(hidden))


def select_scores(kind: str, scores: Float[Array, "*b k"]) -> Float[Array, "*b _"]:
    """Return the scores against the concepts that describe a kind of view."""
    half = scores.shape[-1] // 2
    return {"clip": scores, "still": scores[..., :half], "difference": scores[..., half:]}[kind]
