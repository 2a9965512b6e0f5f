"""Optimisers as the field's papers state them, each an Optax chain."""

import collections
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from vrl_jax import check


@runtime_checkable
class Optimizer(Protocol):
    """What a config names as `optim`."""

    def build(self, batch: int, total_steps: int) -> optax.GradientTransformation:
        """Return the transformation for this global batch and length of run."""
        ...


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine down to 0 or drops; and what all optimisers share.

    Attributes:
      learning_rate: at the end of the warm-up.
      reference_batch: videos a step for which that rate is meant, scaled linearly; 0 takes it
        as it is.
      warmup: share of the run that the warm-up takes.
      start: the rate that the warm-up begins with, scaled likewise.
      drops: shares of the run at which the rate falls, in place of the cosine.
      drop_factor: what it is multiplied by there.
      weight_decay: on weights of two axes and more.
      decay_all: on biases and normalisation, too.
      clip_norm: largest global norm of the gradient; 0 leaves it alone.
    """

    learning_rate: float = 1e-3
    reference_batch: int = 0
    warmup: float = 0.1
    start: float = 0.0
    drops: tuple[float, ...] = ()
    drop_factor: float = 0.1
    weight_decay: float = 1e-4
    decay_all: bool = False
    clip_norm: float = 0.0

    def __post_init__(self):
        check.positive(learning_rate=self.learning_rate, drop_factor=self.drop_factor)
        check.fraction(warmup=self.warmup, **{f"drops[{i}]": x for i, x in enumerate(self.drops)})
        check.at_least(0, reference_batch=self.reference_batch, weight_decay=self.weight_decay)
        check.at_least(0, clip_norm=self.clip_norm, start=self.start)
        if early := [drop for drop in self.drops if drop < self.warmup]:
            raise ValueError(f"drops must come after the warm-up ({self.warmup}), got {early[0]}")

    def schedule(self, batch: int, total_steps: int) -> optax.Schedule:
        """Return the learning rate as a function of the step."""
        scale = batch / self.reference_batch if self.reference_batch else 1.0
        start, peak = self.start * scale, self.learning_rate * scale
        warmup = min(round(self.warmup * total_steps), total_steps - 1)
        if not self.drops:
            return optax.warmup_cosine_decay_schedule(start, peak, warmup, total_steps)
        factors = collections.defaultdict(lambda: 1.0)
        for drop in self.drops:
            factors[round(drop * total_steps) - warmup] *= self.drop_factor
        after = optax.piecewise_constant_schedule(peak, factors)
        return optax.join_schedules([optax.linear_schedule(start, peak, warmup), after], [warmup])

    def clip(self) -> optax.GradientTransformation:
        """Return the gradient clipping, which may be none."""
        return optax.clip_by_global_norm(self.clip_norm) if self.clip_norm else optax.identity()

    def decayed(self, params: Any) -> Any:
        """Mark the weights that are decayed."""
        return jax.tree.map(lambda leaf: self.decay_all or leaf.ndim > 1, params)


@dataclass(frozen=True)
class Adam(Schedule):
    """Adam with weight decay as a part of the gradient, as PyTorch's `Adam` has it."""

    def build(self, batch: int, total_steps: int) -> optax.GradientTransformation:
        """Return the transformation for this global batch and length of run."""
        return optax.chain(
            self.clip(),
            optax.add_decayed_weights(self.weight_decay, mask=self.decayed),
            optax.adam(self.schedule(batch, total_steps)),
        )


@dataclass(frozen=True)
class AdamW(Schedule):
    """Adam with decoupled weight decay."""

    def build(self, batch: int, total_steps: int) -> optax.GradientTransformation:
        """Return the transformation for this global batch and length of run."""
        rate = self.schedule(batch, total_steps)
        decay = optax.adamw(rate, weight_decay=self.weight_decay, mask=self.decayed)
        return optax.chain(self.clip(), decay)


@dataclass(frozen=True)
class SGD(Schedule):
    """Gradient descent with momentum and coupled weight decay.

    Attributes:
      momentum: of the gradient.
      nesterov: look ahead along the momentum.
    """

    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self):
        super().__post_init__()
        check.fraction(momentum=self.momentum)

    def build(self, batch: int, total_steps: int) -> optax.GradientTransformation:
        """Return the transformation for this global batch and length of run."""
        return optax.chain(
            self.clip(),
            optax.add_decayed_weights(self.weight_decay, mask=self.decayed),
            optax.sgd(self.schedule(batch, total_steps), self.momentum, self.nesterov),
        )


@dataclass(frozen=True)
class LARS(SGD):
    """SGD whose steps are as long as each matrix's norm asks for (arXiv 1708.03888).

    Biases and normalisation take their steps as they are. A matrix whose gradient is zero
    adds nothing to the momentum: weight decay alone would be scaled to a full step's length.

    Attributes:
      trust: step length relative to the weights' norm.
    """

    trust: float = 0.001

    def __post_init__(self):
        super().__post_init__()
        check.positive(trust=self.trust)

    def build(self, batch: int, total_steps: int) -> optax.GradientTransformation:
        """Return the transformation for this global batch and length of run."""
        return optax.chain(
            self.clip(),
            optax.stateless(self._scaled),
            optax.sgd(self.schedule(batch, total_steps), self.momentum, self.nesterov),
        )

    def _scaled(self, grads, params):
        """Decay all weights that are to be, and scale the matrices' gradients."""

        def scaled(grad, weight, decayed):
            decay = self.weight_decay if decayed else 0.0
            whole = grad + decay * weight
            if weight.ndim < 2:
                return whole
            slope, size = jnp.linalg.norm(grad), jnp.linalg.norm(weight)
            ratio = self.trust * size / jnp.where(slope > 0, slope + decay * size, 1.0)
            return jnp.where(slope > 0, jnp.where(size > 0, ratio, 1.0) * whole, 0.0)

        return jax.tree.map(scaled, grads, params, self.decayed(params))
