"""BOD-VCL: a Koopman operator per clip splits it; each part has its own loss (arXiv 2407.14069).

What the paper fixes: unit frames, one least-squares operator a clip, eigenvalues within a radius of
1 are static, the two parts averaged over time, equal weights, and a lower level that makes the
features linearly predictable. What is ours, because nothing usable is published: the ridge, the
soft filter in place of the hard mask, `split_at`, `grid`, `reversed_negatives`, `pooling`,
`stop_filter`, `floor`, the lower level's rate, and its loss: the published residual is zero for any
features once they are wider than the clip is long ("literal", refused there). "held_out" is the
nearest that is not void; "shared" gives the operator a task that a clip's own operator cannot meet
alone: see `vrl_jax.losses.forecast`. `forecast_weight` takes the lower level's loss into the upper
one.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.encoders.layers import pool_to_grid
from vrl_jax.frameworks.base import FrameworkConfig, PrototypeFramework
from vrl_jax.losses import forecast, koopman
from vrl_jax.losses.similarity import safe_norm
from vrl_jax.methods.base import ExtraLosses, Inner, Method, Operators
from vrl_jax.methods.compose import append_reversed, compose, keep_views
from vrl_jax.methods.network import EncoderConfig, attach_heads
from vrl_jax.types import Slot, TrainLength, View

SPLITS = ("koopman", "mean-residual")
PLACES = ("head", "backbone", "scores")
FORECASTS = ("held_out", "cross", "literal", "shared")
HYPERGRADIENTS = ("none", "maml1", "betty")


@dataclass(frozen=True)
class BOD:
    """Bi-level optimisation of decoupled appearance and motion.

    Attributes:
      dim: width of every slot.
      static_temperature: of the comparison of static parts, and of mean frames.
      dynamic_temperature: of the comparison of dynamic parts.
      static_weight: of the appearance loss.
      dynamic_weight: of the motion loss.
      joint_weight: of a loss on the mean frame, undivided: an arm for ablations. A loss of weight 0
        is left out.
      split: "koopman", or the control "mean-residual" (temporal mean, spread around it).
      split_at: "head" splits the projected frame vectors, as the paper does; "backbone" splits the
        encoder's, and each part has a projection head of its own; "scores", with SwAV alone, splits
        the projected frames' scores against prototypes, as the released code does (its are no
        cosines, these are).
      clips: of a video, at least 2; every ordered pair of them is compared.
      grid: frame vectors keep this many cells each way of the last feature map; 1, as in the paper,
        is its mean over space, to which a steady motion is constant and so static.
      reversed_negatives: the first view played backwards is a negative of the motion loss: it has
        the same appearance and another motion.
      radius: eigenvalues this close to 1 are static.
      order: steepness of that border, a multiple of 4.
      ridge: on the unit frames' Gram matrix.
      pooling: "mean" or "rms", of the dynamic part over time.
      stop_filter: no gradient through the choice of modes.
      filter: "soft", or for parity "eig-hard" and "eig-qr": see `koopman.split`.
      scope: whose frames share an operator in the split: "clip", "video" or "batch".
      projector: "oblique" or "orthogonal": see `koopman.split`.
      floor: where the split is at the head, a part shorter than this share of the mean frame is
        compared as weaker, not blown up to unit length.
      forecast: the lower level's loss: "held_out" (`koopman.forecast_residual`), "cross",
        "literal", or "shared", of which the last has a head of its own.
      forecast_weight: of that loss beside the two of the upper level; 0 leaves it to the lower one.
      forecast_grid: cells each way of the last feature map that the shared forecast reads.
      ahead: frames that the shared forecast looks ahead.
      held_out: transitions that the held-out forecast is asked for.
      inner_steps: steps of the lower level before each step of the upper one; 0 leaves it out.
      inner_learning_rate: of those steps (plain gradient descent), at its greatest: like the upper
        level's it warms up from 0 and falls along half a cosine to 0, so that neither end of a run
        is the lower level's alone.
      inner_warmup: share of the run that this warm-up takes.
      hypergradient: "none", "maml1" or "betty": see `Inner`.
    """

    dim: int = 128
    static_temperature: float = 0.1
    dynamic_temperature: float = 0.1
    static_weight: float = 1.0
    dynamic_weight: float = 1.0
    joint_weight: float = 0.0
    split: str = "koopman"
    split_at: str = "head"
    clips: int = 2
    grid: int = 1
    reversed_negatives: bool = False
    radius: float = 0.1
    order: int = 8
    ridge: float = 1e-3
    pooling: str = "mean"
    stop_filter: bool = False
    filter: str = "soft"
    scope: str = "clip"
    projector: str = "oblique"
    floor: float = 1e-2
    forecast: str = "held_out"
    forecast_weight: float = 0.0
    forecast_grid: int = 1
    ahead: int = 4
    held_out: int = 2
    inner_steps: int = 1
    inner_learning_rate: float = 0.01
    inner_warmup: float = 0.1
    hypergradient: str = "none"

    def __post_init__(self):
        check.one_of(SPLITS, split=self.split)
        check.one_of(PLACES, split_at=self.split_at)
        check.one_of(koopman.FILTERS, filter=self.filter)
        check.one_of(koopman.SCOPES, scope=self.scope)
        check.one_of(koopman.PROJECTORS, projector=self.projector)
        check.one_of(FORECASTS, forecast=self.forecast)
        check.at_least(0, forecast_weight=self.forecast_weight)
        check.one_of(HYPERGRADIENTS, hypergradient=self.hypergradient)
        check.positive(floor=self.floor, dim=self.dim, radius=self.radius, ridge=self.ridge)
        check.at_least(1, grid=self.grid, forecast_grid=self.forecast_grid)
        check.at_least(2, clips=self.clips)
        check.at_least(0, inner_steps=self.inner_steps, **self._weights())
        check.at_least(0, inner_learning_rate=self.inner_learning_rate)
        check.fraction(inner_warmup=self.inner_warmup)
        check.positive(**{"the sum of the losses' weights": sum(self._weights().values())})

    def build(
        self, encoder: EncoderConfig, framework: FrameworkConfig | None, horizon: TrainLength
    ) -> Method:
        """Return the method's functions.

        Raises:
          ValueError: scores are to be split, but the framework has none.
        """
        at_head, at_scores = self.split_at != "backbone", self.split_at == "scores"
        if at_scores and not isinstance(framework, PrototypeFramework):
            raise ValueError(
                f"split_at='scores' splits scores against prototypes, which "
                f"{type(framework).__name__} does not have: use SwAV, or split_at='head'"
            )
        views = tuple(View(i) for i in range(self.clips))
        slots = self._slots(len(views), unit=not at_head, scored=at_scores)
        shared = self.forecast == "shared" and (self.forecast_weight or self.inner_steps)

        def read(features):
            frames = self._frames(features)
            inputs, diagnostics = ({"frames": frames}, {}) if at_head else self._parts(frames)
            if shared:
                inputs["forecast"] = pool_to_grid(features, self.forecast_grid)
            return inputs, diagnostics

        def frames(outputs):
            return outputs.projected["frames"] if at_head else self._frames(outputs.features)

        def operators(outputs):
            return Operators(koopman.fit(frames(outputs), ridge=self.ridge).matrix, self.radius)

        def predictability(outputs):
            seen = outputs.projected["forecast"] if shared else frames(outputs)
            return self._predictability(seen)

        def freeze(params, step):
            head = framework.freeze_prototypes(params["heads_frames"], step, horizon)
            return {**params, "heads_frames": head}

        def term(params, state, outputs, context, key, step):
            loss, metrics = predictability(outputs)
            return self.forecast_weight * loss, {"loss/forecast": loss, **metrics}, {}

        terms = ExtraLosses(term) if self.forecast_weight else ExtraLosses()
        names = [*(["frames"] if at_head else slots), *(["forecast"] if shared else [])]
        network = attach_heads(encoder, framework, dict.fromkeys(names, self.dim), read)
        if at_scores:
            scores = framework.scores_head(self.dim)
            network = network.clone(heads={**network.heads, "frames": scores})
            terms = terms._replace(freeze=freeze)
        return compose(
            network=network,
            framework=framework,
            views=views,
            slots=slots,
            project=self._project if at_head else lambda outputs: (outputs.projected, {}),
            horizon=horizon,
            prepare=append_reversed if self.reversed_negatives else keep_views,
            operators=operators,
            terms=terms,
            inner=Inner(
                lambda outputs: predictability(outputs)[0],
                self.inner_steps,
                self._inner_schedule(horizon),
                self.hypergradient,
            )
            if self.inner_steps
            else None,
        )

    def _inner_schedule(self, horizon):
        """Return the lower level's rate at a step."""
        warmup = min(round(self.inner_warmup * horizon.steps), horizon.steps - 1)
        peak = self.inner_learning_rate
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, horizon.steps)

    def _weights(self):
        return {
            "static_weight": self.static_weight,
            "dynamic_weight": self.dynamic_weight,
            "joint_weight": self.joint_weight,
        }

    def _slots(self, views, unit, scored):
        """Return what is compared: the parts whose losses have a weight."""
        slot = Slot(self.dim, self.static_temperature, unit=unit, scored=scored)
        negatives = (views,) if self.reversed_negatives else ()
        slots = {
            "static": slot._replace(weight=self.static_weight),
            "dynamic": slot._replace(
                temperature=self.dynamic_temperature,
                weight=self.dynamic_weight,
                negatives=negatives,
            ),
            "joint": slot._replace(weight=self.joint_weight),
        }
        return {name: slot for name, slot in slots.items() if slot.weight}

    def _frames(self, features):
        """Return the vectors whose dynamics are looked at, f32[... t d]."""
        return pool_to_grid(features, self.grid)

    def _parts(self, frames):
        """Return what is compared of frame vectors, and what their operators looked like."""
        parts = self._split(frames.astype(jnp.float32))
        diagnostics = {
            "koopman/static_share": jnp.mean(parts.static_share),
            "koopman/dynamic_share": jnp.mean(parts.dynamic_share),
        }
        if self.split == "koopman":
            diagnostics |= {
                "koopman/static_rank": jnp.mean(parts.static_rank),
                "koopman/spectral_radius": jnp.mean(parts.spectral_radius),
                "koopman/no_static_mode": jnp.mean(parts.static_rank < 0.5),
            }
        made = {
            "static": parts.static,
            "dynamic": parts.dynamic,
            "joint": jnp.mean(frames.astype(jnp.float32), axis=-2),
        }
        return made, diagnostics

    def _project(self, outputs):
        """Split the projected frame vectors; but for scores, scale parts to comparable lengths."""
        frames = outputs.projected["frames"].astype(jnp.float32)
        if self.split_at == "scores":
            return self._parts(frames)
        floor = self.floor * safe_norm(jnp.mean(frames, axis=-2))
        parts, diagnostics = self._parts(frames)
        return {name: soft_normalize(part, floor) for name, part in parts.items()}, diagnostics

    def _split(self, frames):
        if self.split == "mean-residual":
            return koopman.mean_residual_split(frames)
        return koopman.split(
            frames,
            radius=self.radius,
            order=self.order,
            ridge=self.ridge,
            pooling=self.pooling,
            stop_filter=self.stop_filter,
            filter=self.filter,
            scope=self.scope,
            projector=self.projector,
        )

    def _predictability(self, frames):
        """Return the forecast loss of frame vectors f32[b v t d], and what to log beside it."""
        if self.forecast == "shared":
            found = forecast.shared_forecast(frames, ahead=self.ahead)
            return found.loss, {"forecast/accuracy": found.accuracy}
        if self.forecast == "cross":
            return forecast.cross_forecast(frames[:, 0], frames[:, 1], ridge=self.ridge), {}
        if self.forecast == "literal":
            return forecast.released_code_residual(frames), {}
        return koopman.forecast_residual(frames, ridge=self.ridge, held_out=self.held_out), {}


def soft_normalize(x: Float[Array, "*b d"], floor: Float[Array, "*b 1"]) -> Float[Array, "*b d"]:
    """Scale to nearly unit length, `x / sqrt(|x|^2 + floor^2)`: what is absent stays near zero."""
    return x / jnp.sqrt(safe_norm(x) ** 2 + floor**2)
