"""Optimisers of the papers, as Optax chains, with their learning-rate schedules."""

import collections
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from vrl_jax import check


@runtime_checkable
class Optimizer(Protocol):
    """Interface of the component `optim` of a config."""

    def build(self, batch: int, total_steps: int) -> optax.GradientTransformation:
        """Return the transformation for a global batch size and a number of steps."""
        ...


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then cosine decay or step decay; settings that all optimisers share.

    Attributes:
      learning_rate: peak learning rate, reached at the end of the warm-up; see `whole_cosine`.
      reference_batch: videos per step for `learning_rate`, which scales linearly with the batch; 0
        disables scaling.
      warmup: duration of the warm-up, as a fraction of the run.
      start: learning rate at the beginning of the warm-up, scaled likewise.
      end: learning rate at the end of the cosine, scaled likewise.
      whole_cosine: the cosine spans the whole run, and the warm-up ends at its value there, as in
        the large-scale study (arXiv 2104.14558); else the cosine begins after the warm-up.
      drops: times of step decay, as fractions of the run; () decays by a cosine.
      drop_factor: factor of the learning rate at each drop.
      weight_decay: coefficient, for parameters with at least two axes.
      decay_all: also decay biases and normalisation parameters.
      clip_norm: maximum global norm of the gradient; 0 disables clipping.
    """

    learning_rate: float = 1e-3
    reference_batch: int = 0
    warmup: float = 0.1
    start: float = 0.0
    end: float = 0.0
    whole_cosine: bool = False
    drops: tuple[float, ...] = ()
    drop_factor: float = 0.1
    weight_decay: float = 1e-4
    decay_all: bool = False
    clip_norm: float = 0.0

    def __post_init__(self):
        check.positive(learning_rate=self.learning_rate, drop_factor=self.drop_factor)
        check.fraction(warmup=self.warmup, **{f"drops[{i}]": x for i, x in enumerate(self.drops)})
        check.at_least(0, reference_batch=self.reference_batch, weight_decay=self.weight_decay)
        check.at_least(0, clip_norm=self.clip_norm, start=self.start, end=self.end)
        if self.whole_cosine and self.drops:
            raise ValueError(f"whole_cosine needs drops=(), got {self.drops}")
        if self.end and self.drops:
            raise ValueError(f"end={self.end} needs a cosine, drops=(), got {self.drops}")
        if early := [drop for drop in self.drops if drop < self.warmup]:
            raise ValueError(f"drops must come after the warm-up ({self.warmup}), got {early[0]}")

    def schedule(self, batch: int, total_steps: int) -> optax.Schedule:
        """Return the learning rate as a function of the step."""
        scale = batch / self.reference_batch if self.reference_batch else 1.0
        start, peak, end = self.start * scale, self.learning_rate * scale, self.end * scale
        warmup = min(round(self.warmup * total_steps), total_steps - 1)
        if self.whole_cosine:
            cosine = optax.cosine_decay_schedule(peak, total_steps, end / peak)
            rise = optax.linear_schedule(start, float(cosine(warmup)), max(warmup, 1))
            return lambda step: jnp.where(step < warmup, rise(step), cosine(step))
        if not self.drops:
            return optax.warmup_cosine_decay_schedule(start, peak, warmup, total_steps, end)
        factors = collections.defaultdict(lambda: 1.0)
        for drop in self.drops:
            factors[round(drop * total_steps) - warmup] *= self.drop_factor
        after = optax.piecewise_constant_schedule(peak, factors)
        return optax.join_schedules([optax.linear_schedule(start, peak, warmup), after], [warmup])

    def clip(self) -> optax.GradientTransformation:
        """Return the gradient clipping, or the identity."""
        return optax.clip_by_global_norm(self.clip_norm) if self.clip_norm else optax.identity()

    def decayed(self, params: Any) -> Any:
        """Return a tree of flags: which parameters are decayed."""
        return jax.tree.map(lambda leaf: self.decay_all or leaf.ndim > 1, params)


@dataclass(frozen=True)
class Adam(Schedule):
    """Adam with weight decay added to the gradient, as in PyTorch's `Adam`."""

    def build(self, batch: int, total_steps: int) -> optax.GradientTransformation:
        """Return the transformation for a global batch size and a number of steps."""
        return optax.chain(
            self.clip(),
            optax.add_decayed_weights(self.weight_decay, mask=self.decayed),
            optax.adam(self.schedule(batch, total_steps)),
        )


@dataclass(frozen=True)
class AdamW(Schedule):
    """Adam with decoupled weight decay."""

    def build(self, batch: int, total_steps: int) -> optax.GradientTransformation:
        """Return the transformation for a global batch size and a number of steps."""
        rate = self.schedule(batch, total_steps)
        decay = optax.adamw(rate, weight_decay=self.weight_decay, mask=self.decayed)
        return optax.chain(self.clip(), decay)


@dataclass(frozen=True)
class SGD(Schedule):
    """Gradient descent with momentum and weight decay added to the gradient.

    Attributes:
      momentum: of the gradient.
      nesterov: use Nesterov momentum.
    """

    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self):
        super().__post_init__()
        check.fraction(momentum=self.momentum)

    def build(self, batch: int, total_steps: int) -> optax.GradientTransformation:
        """Return the transformation for a global batch size and a number of steps."""
        return optax.chain(
            self.clip(),
            optax.add_decayed_weights(self.weight_decay, mask=self.decayed),
            optax.sgd(self.schedule(batch, total_steps), self.momentum, self.nesterov),
        )


@dataclass(frozen=True)
class LARS(SGD):
    """SGD with layer-wise adaptive learning rates (You et al., 2017, arXiv 1708.03888).

    Biases and normalisation parameters are not adapted. A matrix with zero gradient adds nothing to
    the momentum; otherwise its weight decay alone would be scaled to the length of a full step.

    Attributes:
      trust: step length relative to the norm of the weights.
    """

    trust: float = 0.001

    def __post_init__(self):
        super().__post_init__()
        check.positive(trust=self.trust)

    def build(self, batch: int, total_steps: int) -> optax.GradientTransformation:
        """Return the transformation for a global batch size and a number of steps."""
        return optax.chain(
            self.clip(),
            optax.stateless(self._adapt),
            optax.sgd(self.schedule(batch, total_steps), self.momentum, self.nesterov),
        )

    def _adapt(self, grads, params):
        """Add weight decay, and scale the gradients of matrices by their trust ratios."""

        def adapt(grad, weight, decayed):
            decay = self.weight_decay if decayed else 0.0
            update = grad + decay * weight
            if weight.ndim < 2:
                return update
            # As in the metrics of a step, so that XLA computes a gradient's norm once.
            grad_norm, norm = optax.tree.norm(grad), optax.tree.norm(weight)
            ratio = self.trust * norm / jnp.where(grad_norm > 0, grad_norm + decay * norm, 1.0)
            return jnp.where(grad_norm > 0, jnp.where(norm > 0, ratio, 1.0) * update, 0.0)

        return jax.tree.map(adapt, grads, params, self.decayed(params))
