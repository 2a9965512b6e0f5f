"""SDC: static and dynamic concepts from clips, still frames and frame differences.

Qian et al. 2022, arXiv 2207.12795. Clips attract stills and differences of the same video. Each
view is described by its scores against static and dynamic concepts. Views that share a type of
concept predict each other's assignment; views that lack it must not discriminate its concepts. The
feature is reconstructed from the scores, and concepts located in feature maps by attention agree
between the two clips of a video.

The formulas are those of the released code. Ours: losses and batch statistics are those of the
global batch, and `streams`, `joint_norm` and `wrap` are options.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.frameworks.base import FrameworkConfig
from vrl_jax.losses import (
    concept_alignment,
    info_nce,
    local_contrast,
    negative_cosine,
    negative_entropy,
    normalize,
    shared_activations,
)
from vrl_jax.methods.base import ExtraLosses, Method, reject_framework
from vrl_jax.methods.compose import compose, keep_views, unless
from vrl_jax.methods.network import EncoderConfig
from vrl_jax.methods.sdc_network import ConceptNet, select_scores
from vrl_jax.types import TrainLength, View

STREAMS = ("still", "difference")


@dataclass(frozen=True)
class SDC:
    """Concept contrast between clips, stills and differences.

    Attributes:
      dim: width of the contrast heads.
      streams: views in addition to clips: "still", "difference", or both in this order. Without a
        stream, its views and losses are left out.
      concepts: number of static concepts, and of dynamic ones.
      temperature: temperature of the contrasts between views.
      concept_temperature: temperature of the predicted assignments and of the entropy.
      epsilon: entropy regularisation of the assignment.
      iterations: Sinkhorn-Knopp iterations of the assignment.
      queue: earlier scores of each view that are used for balancing.
      queue_epochs: epochs before the queue is used.
      freeze_epochs: epochs during which the codebooks keep their initial values.
      local_epochs: epochs before the local contrast starts.
      margin: margin of the local contrast.
      top: concepts with a score above the `top`-th largest count in the local contrast.
      wrap: the difference of the first frame is to the last frame; False makes it zero.
      joint_norm: batch statistics of the concept heads over both views of a kind together.
      clip_weight: weight of the contrast between the two clips.
      still_weight: weight of the contrasts between clips and stills.
      difference_weight: weight of the contrasts between clips and differences.
      alignment_weight: weight of the predicted assignments.
      entropy_weight: weight of the negative entropy of concepts that a view should lack.
      reconstruction_weight: weight of the reconstruction of features from scores.
      local_weight: weight of the local contrast.
    """

    dim: int = 128
    streams: tuple[str, ...] = STREAMS
    concepts: int = 100
    temperature: float = 0.07
    concept_temperature: float = 0.1
    epsilon: float = 0.05
    iterations: int = 3
    queue: int = 1024
    queue_epochs: float = 1.0
    freeze_epochs: float = 1.0
    local_epochs: float = 10.0
    margin: float = 1.4
    top: int = 10
    wrap: bool = True
    joint_norm: bool = False
    clip_weight: float = 1.0
    still_weight: float = 1.0
    difference_weight: float = 1.0
    alignment_weight: float = 1.0
    entropy_weight: float = 0.1
    reconstruction_weight: float = 1.0
    local_weight: float = 1.0

    def __post_init__(self):
        check.one_of((STREAMS, STREAMS[:1], STREAMS[1:]), streams=tuple(self.streams))
        check.at_least(1, dim=self.dim, iterations=self.iterations, queue=self.queue, top=self.top)
        check.at_least(self.top, concepts=self.concepts)
        check.positive(temperature=self.temperature, epsilon=self.epsilon, margin=self.margin)
        check.positive(concept_temperature=self.concept_temperature)
        check.at_least(0, queue_epochs=self.queue_epochs, freeze_epochs=self.freeze_epochs)
        check.at_least(0, local_epochs=self.local_epochs, clip_weight=self.clip_weight)
        check.at_least(0, still_weight=self.still_weight, local_weight=self.local_weight)
        check.at_least(0, difference_weight=self.difference_weight)
        check.at_least(0, alignment_weight=self.alignment_weight)
        check.at_least(0, entropy_weight=self.entropy_weight)
        check.at_least(0, reconstruction_weight=self.reconstruction_weight)

    def build(
        self, encoder: EncoderConfig, framework: FrameworkConfig | None, horizon: TrainLength
    ) -> Method:
        """Return the method's functions.

        Raises:
          ValueError: there is a framework.
        """
        reject_framework("SDC", framework)
        network = self.network(encoder)
        views = (View(0), View(1))
        if "still" in self.streams:
            views += (View(0, still=True), View(1, still=True))
        return compose(
            network=network,
            views=views,
            horizon=horizon,
            prepare=self._prepare if "difference" in self.streams else keep_views,
            keep=partial(self._keep, network, horizon.steps_per_epoch),
            terms=ExtraLosses(
                partial(self._loss, horizon.steps_per_epoch),
                self._init,
                partial(self._update, horizon.steps_per_epoch),
            ),
        )

    def network(self, encoder: EncoderConfig) -> ConceptNet:
        """Return the encoder with its heads, codebooks, decoders and attention."""
        return ConceptNet(
            encoder.module(), self._kinds, encoder.dim, self.dim, self.concepts, self.joint_norm
        )

    @property
    def _kinds(self):
        return ("clip", *self.streams)

    def _prepare(self, clips, context):
        return append_differences(clips, self.wrap)

    def _before_local(self, epoch, step):
        return step < round(self.local_epochs * epoch)

    def _keep(self, network, epoch, params, outputs, step):
        """Keep the clip vector and the vectors of all concepts, zeros before the local contrast."""

        def locate():
            maps = outputs.features.stages[-1]
            return network.apply({"params": params}, maps, method="locate")

        located = unless(self._before_local(epoch, step), locate)
        concepts = {f"concepts/{kind}": vectors for kind, vectors in located.items()}
        projected = {**outputs.projected, "feature": outputs.features.clip, **concepts}
        return outputs._replace(features=None, projected=projected)

    def _loss(self, epoch, params, state, outputs, context, key, step):
        scores = {kind: outputs.projected[f"scores/{kind}"] for kind in self._kinds}
        losses = {
            **concept_contrasts(outputs.projected, self.streams, self.temperature),
            **self._concepts(scores, state["queue"], step >= round(self.queue_epochs * epoch)),
            **reconstruction_losses(outputs.projected, self._kinds),
            "local": unless(
                self._before_local(epoch, step), partial(self._local, outputs.projected, scores)
            ),
        }
        weights = {
            "clip": self.clip_weight,
            "still": self.still_weight,
            "difference": self.difference_weight,
            "alignment": self.alignment_weight,
            "entropy": self.entropy_weight,
            "reconstruction": self.reconstruction_weight,
            "local": self.local_weight,
        }
        total = sum(weights[name] * loss for name, loss in losses.items())
        newest = jnp.concatenate([scores[kind] for kind in self._kinds], axis=1)
        aux = {"scores": jax.lax.stop_gradient(newest), "codebooks": codebook_params(params)}
        return total, {f"loss/{name}": loss for name, loss in losses.items()}, aux

    def _concepts(self, scores, queue, use_queue):
        """Return the alignment of views that share a type of concept, and the entropy of others."""
        past = dict(zip(self._kinds, jnp.split(queue, len(self._kinds), axis=1), strict=True))
        alignment, entropy = 0.0, 0.0
        align = partial(
            concept_alignment,
            temperature=self.concept_temperature,
            epsilon=self.epsilon,
            iterations=self.iterations,
        )

        def alone(now, old):
            return align(now)

        for kind in self.streams:
            now, old = (
                jnp.concatenate(
                    [select_scores(kind, x["clip"]), select_scores(kind, x[kind])], axis=1
                )
                for x in (scores, past)
            )
            now, old = jnp.moveaxis(now, 1, 0), jnp.moveaxis(old, 1, 0)
            alignment += jax.lax.cond(use_queue, align, alone, now, old)
            (other,) = set(STREAMS) - {kind}
            unrelated = select_scores(other, scores[kind])
            entropy += negative_entropy(unrelated, temperature=self.concept_temperature)
        return {"alignment": alignment, "entropy": entropy}

    def _local(self, projected, scores):
        """Return the local contrast of all kinds."""
        total = 0.0
        for kind in self._kinds:
            relevant = select_scores(kind, jax.lax.stop_gradient(scores[kind]))
            mask = shared_activations(relevant[:, 0], relevant[:, 1], top=self.top)
            vectors = projected[f"concepts/{kind}"]
            total += local_contrast(vectors[:, 0], vectors[:, 1], mask, margin=self.margin)
        return total

    def _init(self, key, videos):
        check.at_least(videos, **{"method.queue, which holds the scores of a step": self.queue})
        shape = (self.queue, 2 * len(self._kinds), 2 * self.concepts)
        return {"queue": jax.random.normal(key, shape)}

    def _update(self, epoch, params, state, aux, step):
        """Normalise the codebooks, or restore them while frozen, and append to the queue.

        Frozen codebooks still have gradients: with moments of zero, the optimiser's first steps
        afterwards would be too large.
        """
        frozen = step < round(self.freeze_epochs * epoch)
        books = {
            name: jnp.where(frozen, aux["codebooks"][name], normalize(rows))
            for name, rows in codebook_params(params).items()
        }
        queue = jnp.concatenate([state["queue"], aux["scores"]])[-self.queue :]
        return {**params, **books}, {"queue": queue}


def append_differences(
    views: Float[Array, "b v t h w 3"], wrap: bool
) -> Float[Array, "b _ t h w 3"]:
    """Append the frame differences of the first two views: each frame minus the previous one.

    The first frame's difference is to the last frame if `wrap`, else zero.
    """
    clips = views[:, :2]
    differences = clips - jnp.roll(clips, 1, axis=2)
    if not wrap:
        differences = differences.at[:, :, 0].set(0.0)
    return jnp.concatenate([views, differences], axis=1)


def concept_contrasts(
    embeddings: dict[str, Array], streams: tuple[str, ...], temperature: float
) -> dict[str, Float[Array, ""]]:
    """Return the contrasts between clips, and between clips and streams.

    Each term compares a view of one clip with a view of the other clip of the video, which is a
    target without gradient. For a stream, the sum of four terms is divided by 2, so the stream has
    twice the weight of the clips.
    """

    def c(query, key):
        return info_nce(query, jax.lax.stop_gradient(key), temperature=temperature)

    clip = embeddings["contrast/clip/clip"]
    losses = {"clip": (c(clip[:, 0], clip[:, 1]) + c(clip[:, 1], clip[:, 0])) / 2}
    for kind in streams:
        a, b = embeddings[f"contrast/clip/{kind}"], embeddings[f"contrast/{kind}/clip"]
        crossed = [(a[:, 0], b[:, 1]), (a[:, 1], b[:, 0])]
        losses[kind] = sum(c(x, y) + c(y, x) for x, y in crossed) / 2
    return losses


def reconstruction_losses(
    projected: dict[str, Array], kinds: tuple[str, ...]
) -> dict[str, Float[Array, ""]]:
    """Return the negative cosine between features and their reconstructions, summed over kinds."""
    target = jax.lax.stop_gradient(projected["feature"])
    terms = [
        negative_cosine(projected[f"decoded/{kind}"], target[:, 2 * k : 2 * k + 2])
        for k, kind in enumerate(kinds)
    ]
    return {"reconstruction": sum(terms)}


def codebook_params(params: dict) -> dict:
    """Select the codebooks from a network's parameters."""
    return {name: rows for name, rows in params.items() if name.startswith("codebook_")}
