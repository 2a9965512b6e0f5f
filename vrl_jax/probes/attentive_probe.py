"""Attentive probes on tokens of a frozen encoder, small enough to train one per layer."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from vrl_jax import check
from vrl_jax.encoders.layers import average_bins
from vrl_jax.probes.classifier_heads import AttentiveHead

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class AttentiveProbe:
    """Training of an attentive classifier, see `AttentiveHead`.

    The tokens of a feature map are averaged to a grid of cells, normalised per channel by the
    training videos, and projected to `width` channels. Positions in time are added. There is one
    setting for all layers; nothing is selected. Weights start with a standard deviation of
    1/sqrt(width): with the 0.02 of `AttentiveHead`, a few hundred steps do not leave the mean.

    Attributes:
      steps: of Adam; 0 for no probe.
      batch: videos per step, drawn with replacement.
      learning_rate: decayed to 0 by a half cosine.
      width: channels of the probe.
      heads: attention heads, which must divide the width.
      grid: most cells in time, height and width.
      seed: of initial weights and batches.
    """

    steps: int = 0
    batch: int = 64
    learning_rate: float = 3e-3
    width: int = 64
    heads: int = 4
    grid: Grid = (8, 2, 2)
    seed: int = 0

    def __post_init__(self) -> None:
        check.at_least(0, steps=self.steps, seed=self.seed)
        check.at_least(1, batch=self.batch, heads=self.heads, grid=min(self.grid))
        check.positive(learning_rate=self.learning_rate)
        if self.width < 1 or self.width % self.heads:
            raise ValueError(f"heads must divide the width {self.width}, got {self.heads}")


def average_to_grid(features: Float[Array, "b t h w d"], grid: Grid) -> Float[Array, "b _ _ d"]:
    """Return the means of at most `grid` cells, in f32[b times places d].

    Cells are as equal as the positions allow; where they do not divide, neighbours share some.
    """
    for axis, most in enumerate(grid, start=1):
        count = features.shape[axis]
        bins = average_bins(count, min(count, most))
        features = jnp.tensordot(features.astype(jnp.float32), bins, (axis, 1), precision="highest")
        features = jnp.moveaxis(features, -1, axis)
    return features.reshape(*features.shape[:2], -1, features.shape[-1])


def fit_attentive(
    train_tokens: Float[np.ndarray, "n t s d"],
    train_labels: Int[np.ndarray, "n"],
    test_tokens: Float[np.ndarray, "m t s d"],
    *,
    num_classes: int,
    settings: AttentiveProbe,
    mask: Bool[np.ndarray, "n"],
) -> Int[np.ndarray, "m"]:
    """Train a probe on the masked items and return its predictions.

    Args:
      train_tokens: of the training items; outside the mask they need not be finite.
      train_labels: in [0, num_classes).
      test_tokens: of the test items.
      num_classes: number of logits; classes may be absent.
      settings: of the training.
      mask: training items to use.

    Raises:
      ValueError: training diverged.
    """
    train_tokens = np.where(mask[:, None, None, None], train_tokens, 0)
    logits = np.asarray(
        _score_tokens(train_tokens, train_labels, mask, test_tokens, num_classes, settings)
    )
    if not np.isfinite(logits).all():
        raise ValueError(
            f"the attentive probe diverged: lower its learning_rate {settings.learning_rate}, or "
            "check the features for values that are not finite"
        )
    return logits.argmax(axis=-1)


@partial(jax.jit, static_argnums=(4, 5))
def _score_tokens(
    tokens: Array,
    labels: Array,
    mask: Array,
    test_tokens: Array,
    num_classes: int,
    settings: AttentiveProbe,
) -> Array:
    """Return the logits of the test tokens by a probe trained on the masked rows."""
    weights = mask / mask.sum()
    mean = jnp.einsum("n,ntsd->d", weights, tokens) / (tokens.shape[1] * tokens.shape[2])
    spread = jnp.einsum("n,ntsd->d", weights, (tokens - mean) ** 2)
    std = jnp.sqrt(spread / (tokens.shape[1] * tokens.shape[2]))
    std = jnp.where(std > 1e-6 * abs(mean), std, 1)  # as in `linear_fit.fit_heads`
    head = AttentiveHead(
        num_classes,
        heads=settings.heads,
        width=settings.width,
        time_positions=True,
        initial_std=settings.width**-0.5,
    )
    schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.steps)
    optimizer = optax.adam(schedule)
    start, draw = jax.random.split(jax.random.key(settings.seed))

    def score(params: dict, rows: Array) -> Array:
        return head.apply(params, (rows - mean) / std, False)

    def loss(params: dict, rows: Array) -> Array:
        logits = score(params, tokens[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    def step(carry: tuple, key: Array) -> tuple[tuple, None]:
        params, state = carry
        rows = jax.random.choice(key, len(labels), (settings.batch,), p=weights)
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state)
        return (optax.apply_updates(params, updates), state), None

    params = head.init(start, tokens[:1], False)
    carry = params, optimizer.init(params)
    params = jax.lax.scan(step, carry, jax.random.split(draw, settings.steps))[0][0]
    return score(params, test_tokens)
