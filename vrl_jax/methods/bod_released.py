"""BOD-VCL with the options of the released code and of ablations.

The released code (github ZeenSong/Video_contrastive) does not run as it is. Each option reproduces
one of its choices: eigenvectors with a hard mask, a residual on the fitted transitions as forecast
loss, a split of prototype scores, and the hypergradient of Betty.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from vrl_jax import check
from vrl_jax.frameworks.base import PrototypeFramework
from vrl_jax.losses import forecast, koopman
from vrl_jax.methods.bod import BOD


@dataclass(frozen=True)
class ReleasedBOD(BOD):
    """BOD with further options; with the defaults it is BOD.

    Attributes:
      static_weight: weight of the appearance loss. A loss of weight 0 is left out.
      dynamic_weight: weight of the motion loss.
      joint_weight: weight of a loss on the mean frame vector, without a split.
      split_at: as in `BOD`, or "scores": with SwAV, the scores of the projected frames against
        prototypes, as in the released code (whose scores are not cosines).
      clips: clips of a video, at least 2; all ordered pairs of them are compared.
      order: steepness of the soft filter at the radius, a multiple of 4.
      filter: "soft", or for parity "eig-hard" and "eig-qr": see `koopman.split`.
      scope: clips that share an operator in the split: "clip", "video" or "batch", with
        `split_at="backbone"` the micro-batch where there are micro-batches.
      projector: "oblique" or "orthogonal": see `koopman.split`.
      floor: a part split at the head that is shorter than this fraction of the mean frame vector
        keeps a length below 1.
      forecast: as in `BOD`, or the published loss "literal": see
        `forecast.released_code_residual`.
      held_out: transitions that the held-out forecast predicts.
      inner_warmup: fraction of the run over which the lower level's learning rate warms up.
      hypergradient: "none", "maml1" or "betty": see `Inner`.
    """

    static_weight: float = 1.0
    dynamic_weight: float = 1.0
    joint_weight: float = 0.0
    clips: int = 2
    order: int = 8
    filter: str = "soft"
    scope: str = "clip"
    projector: str = "oblique"
    floor: float = 1e-2
    held_out: int = 2
    inner_warmup: float = 0.2
    hypergradient: str = "none"

    split_options: ClassVar[tuple[str, ...]] = (*BOD.split_options, "scores")
    forecast_options: ClassVar[tuple[str, ...]] = (*BOD.forecast_options, "literal")

    def __post_init__(self):
        super().__post_init__()
        check.at_least(0, **self._weights)
        check.positive(**{"the sum of the losses' weights": sum(self._weights.values())})
        check.at_least(2, clips=self.clips)
        check.one_of(koopman.FILTERS, filter=self.filter)
        check.one_of(koopman.SCOPES, scope=self.scope)
        check.one_of(koopman.PROJECTORS, projector=self.projector)
        check.positive(floor=self.floor)
        check.at_least(1, held_out=self.held_out)
        check.fraction(inner_warmup=self.inner_warmup)
        check.one_of(("none", "maml1", "betty"), hypergradient=self.hypergradient)

    @property
    def _weights(self):
        return {
            "static_weight": self.static_weight,
            "dynamic_weight": self.dynamic_weight,
            "joint_weight": self.joint_weight,
        }

    def _arguments(self, encoder, framework, horizon):
        """Return the arguments of `compose`; scores come from a head with prototypes."""
        arguments = super()._arguments(encoder, framework, horizon)
        if self.split_at != "scores":
            return arguments
        if not isinstance(framework, PrototypeFramework):
            raise ValueError(
                f"split_at='scores' splits scores against prototypes, which "
                f"{type(framework).__name__} does not have: use SwAV, or split_at='head'"
            )

        def freeze(params, step):
            head = framework.freeze_prototypes(params["heads_frames"], step, horizon)
            return {**params, "heads_frames": head}

        network = arguments["network"]
        heads = {**network.heads, "frames": framework.scores_head(self.dim)}
        terms = arguments["terms"]._replace(freeze=freeze)
        return {**arguments, "network": network.clone(heads=heads), "terms": terms}

    def _slots(self):
        slots = super()._slots()
        slots["joint"] = slots["static"]
        scored = self.split_at == "scores"
        weighted = {
            name: slot._replace(weight=self._weights[f"{name}_weight"], scored=scored)
            for name, slot in slots.items()
        }
        return {name: slot for name, slot in weighted.items() if slot.weight}

    def _project(self, outputs):
        if self.split_at == "scores":  # a part of scores is compared at its own length
            return self._parts(outputs.projected["frames"])
        return super()._project(outputs)

    def _parts(self, frames):
        parts, diagnostics = super()._parts(frames)
        return {**parts, "joint": jnp.mean(frames.astype(jnp.float32), axis=-2)}, diagnostics

    def _split(self, frames):
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
            delay=self.delay,
        )

    def _forecast(self, outputs):
        if self.forecast == "literal":
            return forecast.released_code_residual(outputs.projected["frames"]), {}
        return super()._forecast(outputs)
