"""HDC: spatial and temporal contrast, decoupled by augmentation, at several depths.

Zhang and Crandall 2022, arXiv 2011.11261. Spatial contrast compares two views of the same frames,
which appearance solves; temporal contrast compares different clips of a video. Both apply to
several stages of the encoder, weighted by the invariance of each stage.

There is no released code. Published: the two tasks, their views and poolings, several levels,
weights that grow with depth, negatives within the batch. Ours: the choice of stages, a head per
level and task, `steps`, the values of the weights, "measured" weighting, the temperature and the
recipe.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.frameworks.base import FrameworkConfig, ProjectionHead
from vrl_jax.losses import normalize, nt_xent, nt_xent_steps
from vrl_jax.methods.base import ExtraLosses, Method, reject_framework
from vrl_jax.methods.compose import compose
from vrl_jax.methods.network import EncoderConfig, Network
from vrl_jax.types import TrainLength, View

TASKS = ("spatial", "temporal")
WEIGHTINGS = ("fixed", "uniform", "list", "measured")
STEPS = ("same_step", "all_steps", "flatten", "pool")


@dataclass(frozen=True)
class HDC:
    """Spatial and temporal contrast at several levels, within the batch.

    Attributes:
      dim: width of every embedding.
      hidden: width of the heads' hidden layers.
      layers: linear layers of a head.
      norm: batch normalisation after the heads' hidden layers.
      tasks: "spatial", "temporal", or both in this order; "temporal" at the last level only is
        instance discrimination of clips.
      temperature: temperature of all comparisons.
      levels: stages of the encoder, first to last; negative numbers count from the end.
      weighting: weights of the levels. "fixed": each is half of the next. "uniform": 1. "list": the
        two lists below. "measured": the mean cosine of positives relative to the last level.
      spatial_weights: weight of spatial contrast per level, for weighting "list".
      temporal_weights: weight of temporal contrast per level, for weighting "list".
      steps: time axis in spatial contrast. "same_step" and "all_steps": see `nt_xent_steps`.
        "flatten": one embedding of all steps. "pool": their mean, as in temporal contrast.
      share_heads: one head per level for both tasks.
      spatial_other_clip: ablation: spatial contrast between two clips instead of one.
      temporal_same_draw: ablation: temporal contrast with the same augmentation draw.
    """

    dim: int = 128
    hidden: int = 2048
    layers: int = 3
    norm: bool = True
    tasks: tuple[str, ...] = TASKS
    temperature: float = 0.1
    levels: tuple[int, ...] = (-3, -2, -1)
    weighting: str = "fixed"
    spatial_weights: tuple[float, ...] = ()
    temporal_weights: tuple[float, ...] = ()
    steps: str = "same_step"
    share_heads: bool = False
    spatial_other_clip: bool = False
    temporal_same_draw: bool = False

    def __post_init__(self):
        check.at_least(1, dim=self.dim, hidden=self.hidden, layers=self.layers)
        check.at_least(1, **{"the number of levels": len(self.levels)})
        check.positive(temperature=self.temperature)
        check.one_of((TASKS, TASKS[:1], TASKS[1:]), tasks=tuple(self.tasks))
        check.one_of(WEIGHTINGS, weighting=self.weighting)
        check.one_of(STEPS, steps=self.steps)
        if self.share_heads and self.steps == "flatten":
            raise ValueError(
                "share_heads requires inputs of equal width, but steps='flatten' joins steps"
            )
        for task, weights in self._listed.items():
            name, listed = f"{task}_weights", self.weighting == "list" and task in self.tasks
            count = len(self.levels) if listed else 0
            if len(weights) != count:
                raise ValueError(
                    f"{name} must have {count} numbers for weighting={self.weighting!r}, tasks "
                    f"{', '.join(self.tasks)} and {len(self.levels)} levels, got {weights}"
                )
            check.at_least(0, **{f"{name}[{i}]": value for i, value in enumerate(weights)})

    def build(
        self, encoder: EncoderConfig, framework: FrameworkConfig | None, horizon: TrainLength
    ) -> Method:
        """Return the method's functions.

        Raises:
          ValueError: there is a framework.
        """
        reject_framework("HDC", framework)
        second = View(2) if self.spatial_other_clip else View(0)
        third = View(1, same_augment_as=0) if self.temporal_same_draw else View(1)
        others = {"spatial": second, "temporal": third}
        kinds = ("level",) if self.share_heads else self.tasks
        names = [f"{kind}{k}" for k in range(len(self.levels)) for kind in kinds]
        heads = {
            name: ProjectionHead(self.hidden, self.dim, self.layers, self.norm) for name in names
        }
        return compose(
            network=Network(encoder.module(), heads, {}, self._read),
            views=(View(0), *(others[task] for task in self.tasks)),
            horizon=horizon,
            terms=ExtraLosses(self._contrast, self._init, self._update),
        )

    @property
    def _listed(self):
        return {"spatial": self.spatial_weights, "temporal": self.temporal_weights}

    def _read(self, features):
        """Return the heads' inputs: maps averaged over space, f32[b v t c], or time as well."""
        inputs, count = {}, len(features.stages)
        if not all(-count <= level < count for level in self.levels):
            raise ValueError(
                f"method.levels must be stages of the encoder, which has {count}, got {self.levels}"
            )
        for k, level in enumerate(self.levels):
            steps = features.stages[level].mean((-3, -2), dtype=jnp.float32)
            pooled = steps.mean(-2)
            spatial = {"flatten": steps.reshape(*steps.shape[:-2], -1), "pool": pooled}.get(
                self.steps, steps
            )
            if self.share_heads:  # all steps, then their mean: [b v t + 1 c]
                inputs[f"level{k}"] = jnp.concatenate([steps, pooled[..., None, :]], axis=-2)
            else:
                by_task = {"spatial": spatial, "temporal": pooled}
                inputs |= {f"{task}{k}": by_task[task] for task in self.tasks}
        return inputs, {}

    def _embeddings(self, outputs, task, k):
        """Return the embeddings of level k for a task, f32[b v (t) d]."""
        if not self.share_heads:
            return outputs.projected[f"{task}{k}"]
        embeddings = outputs.projected[f"level{k}"]
        pooled = task == "temporal" or self.steps == "pool"
        return embeddings[..., -1, :] if pooled else embeddings[..., :-1, :]

    def _compare(self, task, a, b):
        if task == "temporal" or self.steps in ("flatten", "pool"):
            return nt_xent(a, b, temperature=self.temperature)
        return nt_xent_steps(a, b, temperature=self.temperature, negatives=self.steps)

    def _contrast(self, params, state, outputs, context, key, step):
        weights, total, metrics = self._weights(state), 0.0, {}
        for j, task in enumerate(self.tasks):
            for k in range(len(self.levels)):
                embedded = self._embeddings(outputs, task, k)
                pair = embedded[:, 0], embedded[:, 1 + j]
                loss = self._compare(task, *pair)
                total += weights[k, j] * loss
                metrics[f"loss/{task}{k}"] = loss
                metrics[f"cosine/{task}{k}"] = positive_cosine(*pair)
                metrics[f"accuracy/{task}{k}"] = retrieval_accuracy(*pair)
        cosines = [
            [metrics[f"cosine/{task}{k}"] for task in self.tasks] for k in range(len(self.levels))
        ]
        return total, metrics, {"cosine": jnp.array(cosines)}

    def _weights(self, state):
        """Return the weights of each task at each level, f32[k task]."""
        count, tasks = len(self.levels), len(self.tasks)
        if self.weighting == "measured":
            return cosine_weights(state["cosine"])
        if self.weighting == "list":
            return jnp.stack([jnp.array(self._listed[task]) for task in self.tasks], 1)
        base = 0.5 if self.weighting == "fixed" else 1.0
        return jnp.tile(base ** jnp.arange(count - 1.0, -1, -1)[:, None], (1, tasks))

    def _init(self, key, videos):
        if self.weighting != "measured":
            return {}
        return {"cosine": jnp.ones((len(self.levels), len(self.tasks)))}

    def _update(self, params, state, aux, step):
        if self.weighting != "measured":
            return params, state
        return params, {"cosine": 0.99 * state["cosine"] + 0.01 * aux["cosine"]}


def cosine_weights(cosines: Float[Array, "k c"]) -> Float[Array, "k c"]:
    """Return weights of levels: mean cosine of positives relative to the last; no gradient.

    >>> print(cosine_weights(jnp.array([[0.2], [0.4], [0.8]])).ravel())
    [0.25 0.5  1.  ]
    """
    clipped = jnp.clip(jax.lax.stop_gradient(cosines), 0.05, 1.0)
    return clipped / clipped[-1]


def positive_cosine(a: Float[Array, "b *t d"], b: Float[Array, "b *t d"]) -> Float[Array, ""]:
    """Return the mean cosine of matching vectors, without gradient."""
    return jax.lax.stop_gradient(jnp.mean(jnp.sum(normalize(a) * normalize(b), axis=-1)))


def retrieval_accuracy(a: Float[Array, "b *t d"], b: Float[Array, "b *t d"]) -> Float[Array, ""]:
    """Return the fraction of `a` with the positive as nearest neighbour in `b`, per step."""
    a, b = (normalize(x).reshape(len(x), -1, x.shape[-1]) for x in (a, b))
    nearest = jnp.argmax(jnp.einsum("itd,jtd->tij", a, b), axis=-1)
    return jnp.mean(nearest == jnp.arange(len(a)))
