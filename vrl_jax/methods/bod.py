"""BOD-VCL: a Koopman operator splits each clip, and each part has its own loss (arXiv 2407.14069).

Published: unit frames, one least-squares operator per clip, static eigenvalues within a radius of
1, both parts averaged over time, equal weights, and a lower level that makes features linearly
predictable. Ours, because nothing usable is published: the ridge, the soft filter instead of a hard
mask, `delay`, `split_at`, `grid`, `reversed_negatives`, `pooling`, `stop_filter`, and the lower
level's learning rate and loss. The published loss is zero for any features that are wider than the
clip is long; `vrl_jax.losses.forecast` explains the alternatives. `forecast_weight` adds the lower
level's loss to the upper level.

`ReleasedBOD` has the options of the released code and of ablations.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vrl_jax import check
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.video_dataset import Splits
from vrl_jax.encoders.layers import pool_to_grid
from vrl_jax.frameworks.base import FrameworkConfig
from vrl_jax.losses import forecast, koopman
from vrl_jax.losses.similarity import safe_norm
from vrl_jax.methods.base import ExtraLosses, Inner, Method, Operators
from vrl_jax.methods.compose import append_reversed, compose, keep_views
from vrl_jax.methods.network import EncoderConfig, attach_heads
from vrl_jax.types import Slot, TrainLength, View


@dataclass(frozen=True)
class BOD:
    """Bi-level optimisation of decoupled appearance and motion.

    Attributes:
      dim: width of every slot.
      static_temperature: temperature of the appearance loss, which compares static parts.
      dynamic_temperature: temperature of the motion loss, which compares dynamic parts.
      split_at: vectors to split. "head" splits the projected frame vectors, as in the paper;
        "backbone" splits those of the encoder, and each part has its own projection head.
      grid: cells per side of the last feature map that frame vectors keep. 1, as in the paper,
        averages over space, so that steady motion is constant and therefore static.
      reversed_negatives: the first view played backwards is a negative of the motion loss; it has
        the same appearance and a different motion.
      radius: eigenvalues at most this far from 1 are static.
      ridge: Tikhonov term on the Gram matrix of the unit frames.
      delay: consecutive frames in a state of the operator: with 1, as in the paper, an oscillation
        along one direction has a real eigenvalue, which the radius may cover; with 2 it has not.
      pooling: "mean" or "rms", over time, of the dynamic part.
      stop_filter: no gradient through the choice of modes.
      forecast: loss of the lower level. "held_out": see `koopman.forecast_residual`; "cross": see
        `forecast.cross_forecast`; "shared", with its own head: see `forecast.shared_forecast`.
      forecast_weight: weight of that loss in the upper level; 0 leaves it to the lower level.
      forecast_grid: cells per side of the last feature map that the shared forecast reads.
      ahead: frames that the shared forecast predicts ahead, fewer than the encoder's frames.
      inner_steps: steps of the lower level before each step of the upper level; 0 disables it.
      inner_learning_rate: peak learning rate of these steps, plain gradient descent. It warms up
        over the first fifth of the run and decays to 0 along a half cosine, like that of the upper
        level, so that the lower level dominates neither end of the run.
    """

    dim: int = 128
    static_temperature: float = 0.1
    dynamic_temperature: float = 0.1
    split_at: str = "head"
    grid: int = 1
    reversed_negatives: bool = False
    radius: float = 0.1
    ridge: float = 1e-3
    delay: int = 1
    pooling: str = "mean"
    stop_filter: bool = False
    forecast: str = "held_out"
    forecast_weight: float = 0.0
    forecast_grid: int = 1
    ahead: int = 4
    inner_steps: int = 1
    inner_learning_rate: float = 0.01

    # Constants here, fields of `ReleasedBOD`.
    clips: ClassVar[int] = 2
    floor: ClassVar[float] = 1e-2
    held_out: ClassVar[int] = 2
    inner_warmup: ClassVar[float] = 0.2
    hypergradient: ClassVar[str] = "none"

    split_options: ClassVar[tuple[str, ...]] = ("head", "backbone")
    forecast_options: ClassVar[tuple[str, ...]] = ("held_out", "cross", "shared")

    def __post_init__(self):
        check.one_of(self.split_options, split_at=self.split_at)
        check.one_of(koopman.POOLINGS, pooling=self.pooling)
        check.one_of(self.forecast_options, forecast=self.forecast)
        check.positive(dim=self.dim, radius=self.radius, ridge=self.ridge)
        check.positive(static_temperature=self.static_temperature)
        check.positive(dynamic_temperature=self.dynamic_temperature)
        check.at_least(1, delay=self.delay)
        check.at_least(1, grid=self.grid, forecast_grid=self.forecast_grid, ahead=self.ahead)
        check.at_least(0, forecast_weight=self.forecast_weight, inner_steps=self.inner_steps)
        check.at_least(0, inner_learning_rate=self.inner_learning_rate)

    def data_warnings(self, data: Splits, sampling: Sampling) -> list[str]:
        """Return a warning where the radius covers motions to and fro; see `HasDataWarnings`."""
        rate = sampling.stride * getattr(data, "standing_rate", 0.0)
        limit = koopman.slowest_standing_rate(self.radius)
        if self.delay > 1 or not 0 < rate < limit:
            return []
        return [
            f"method.radius={self.radius} counts oscillations along one direction as static up to "
            f"{limit:.2f} radians per frame, and the data have them from {rate:.2f}: use "
            f"method.delay=2, or a radius below {1 - math.cos(rate):.2f}"
        ]

    def build(
        self, encoder: EncoderConfig, framework: FrameworkConfig | None, horizon: TrainLength
    ) -> Method:
        """Return the method's functions."""
        return compose(**self._arguments(encoder, framework, horizon))

    def _arguments(
        self, encoder: EncoderConfig, framework: FrameworkConfig | None, horizon: TrainLength
    ) -> dict[str, Any]:
        """Return the arguments of `compose`."""
        slots = self._slots()
        names = [*slots] if self.split_at == "backbone" else ["frames"]
        names += ["forecast"] if self._shared else []
        return {
            "network": attach_heads(encoder, framework, dict.fromkeys(names, self.dim), self._read),
            "framework": framework,
            "views": tuple(View(i) for i in range(self.clips)),
            "slots": slots,
            "project": self._project,
            "horizon": horizon,
            "prepare": append_reversed if self.reversed_negatives else keep_views,
            "keep": self._keep,
            "operators": self._operators,
            "parts": lambda outputs: self._parts(outputs.projected["frames"])[0],
            "terms": ExtraLosses(self._forecast_term) if self.forecast_weight else ExtraLosses(),
            "inner": self._inner(horizon) if self.inner_steps else None,
        }

    def _slots(self) -> dict[str, Slot]:
        """Return the parts that the framework compares."""
        slot = Slot(self.dim, unit=self.split_at == "backbone")  # else `_project` scales them
        negatives = (self.clips,) if self.reversed_negatives else ()
        return {
            "static": slot._replace(temperature=self.static_temperature),
            "dynamic": slot._replace(temperature=self.dynamic_temperature, negatives=negatives),
        }

    @property
    def _shared(self):
        """Whether the shared forecast and its head are in use."""
        return self.forecast == "shared" and bool(self.forecast_weight or self.inner_steps)

    def _read(self, features):
        """Return the heads' inputs, and diagnostics."""
        frames = pool_to_grid(features, self.grid)
        inputs, diagnostics = {"frames": frames}, {}
        if self.split_at == "backbone":
            inputs, diagnostics = self._parts(frames)
        if self._shared:
            inputs["forecast"] = pool_to_grid(features, self.forecast_grid)
        return inputs, diagnostics

    def _keep(self, params, outputs, step):
        """Keep the heads' outputs and, under "frames", the frame vectors to split, f32[b v t d]."""
        projected = outputs.projected
        if self.split_at == "backbone":
            projected = {**projected, "frames": pool_to_grid(outputs.features, self.grid)}
        return outputs._replace(features=None, projected=projected)

    def _operators(self, outputs):
        matrix = koopman.fit(outputs.projected["frames"], ridge=self.ridge, delay=self.delay).matrix
        return Operators(matrix, self.radius)

    def _project(self, outputs):
        """Return the slots: at the head, split the frame vectors and scale both parts."""
        if self.split_at == "backbone":
            return {name: outputs.projected[name] for name in self._slots()}, {}
        frames = outputs.projected["frames"].astype(jnp.float32)
        floor = self.floor * safe_norm(jnp.mean(frames, axis=-2))
        parts, diagnostics = self._parts(frames)
        return {name: soft_normalize(part, floor) for name, part in parts.items()}, diagnostics

    def _parts(self, frames):
        """Return the parts of frame vectors by name, and diagnostics of their operators."""
        parts = self._split(frames.astype(jnp.float32))
        return {"static": parts.static, "dynamic": parts.dynamic}, self._diagnostics(parts)

    def _split(self, frames):
        return koopman.split(
            frames,
            radius=self.radius,
            ridge=self.ridge,
            pooling=self.pooling,
            stop_filter=self.stop_filter,
            delay=self.delay,
        )

    def _diagnostics(self, parts):
        return {
            "koopman/static_share": parts.static_share,
            "koopman/dynamic_share": parts.dynamic_share,
            "koopman/static_rank": parts.static_rank,
            "koopman/spectral_radius": parts.spectral_radius,
            "koopman/no_static_mode": parts.static_rank < 0.5,
        }

    def _forecast(self, outputs):
        """Return the forecast loss, and metrics."""
        if self.forecast == "shared":
            result = forecast.shared_forecast(outputs.projected["forecast"], ahead=self.ahead)
            return result.loss, {"forecast/accuracy": result.accuracy}
        frames = outputs.projected["frames"]
        if self.forecast == "cross":
            return forecast.cross_forecast(frames[:, 0], frames[:, 1], ridge=self.ridge), {}
        settings = {"ridge": self.ridge, "held_out": self.held_out, "delay": self.delay}
        return koopman.forecast_residual(frames, **settings), {}

    def _forecast_term(self, params, state, outputs, context, key, step):
        loss, metrics = self._forecast(outputs)
        return self.forecast_weight * loss, {"loss/forecast": loss, **metrics}, {}

    def _inner(self, horizon):
        """Return the lower level, whose loss is a function of outputs."""
        warmup = min(round(self.inner_warmup * horizon.steps), horizon.steps - 1)
        return Inner(
            loss=lambda outputs: self._forecast(outputs)[0],
            steps=self.inner_steps,
            learning_rate=optax.warmup_cosine_decay_schedule(
                0.0, self.inner_learning_rate, warmup, horizon.steps
            ),
            hypergradient=self.hypergradient,
        )


def soft_normalize(x: Float[Array, "*b d"], floor: Float[Array, "*b 1"]) -> Float[Array, "*b d"]:
    """Scale to nearly unit length, `x / sqrt(|x|^2 + floor^2)`: absent parts stay near zero."""
    return x / jnp.sqrt(safe_norm(x) ** 2 + floor**2)
