"""Training of linear heads on frozen features, all hyperparameters at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Shaped

from vrl_jax import check


@dataclass(frozen=True)
class LinearProbe:
    """Training of a linear classifier and selection of its hyperparameters.

    Attributes:
      learning_rates: of Adam, decayed to 0 by a half cosine; combined with every weight decay. The
        first of equally good combinations is chosen.
      weight_decays: λ in mean cross-entropy + λ/2 ‖W‖²; the bias is not decayed.
      steps: of training.
      batch: items per step; all items where there are fewer.
      held_out: fraction of the training items, or groups, used for selection.
      seed: of the held-out split and of the batches.
    """

    learning_rates: tuple[float, ...] = (0.001, 0.01, 0.1)
    weight_decays: tuple[float, ...] = (0.0, 0.001, 0.1)
    steps: int = 300
    batch: int = 4096
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check.positive(smallest_learning_rate=min(self.learning_rates), steps=self.steps)
        check.at_least(0, smallest_weight_decay=min(self.weight_decays))
        check.positive(batch=self.batch)
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must lie strictly between 0 and 1, got {self.held_out}")


class LinearHeads(NamedTuple):
    """Linear classifiers of features that are normalised by mean and standard deviation."""

    mean: Float[Array, "d"]
    std: Float[Array, "d"]
    weights: Float[Array, "heads d c"]
    bias: Float[Array, "heads c"]


@jax.jit(static_argnames=("outputs", "cost", "settings"))
def fit_heads(
    features: Float[Array, "n d"] | Float[np.ndarray, "n d"],
    targets: Shaped[Array, "n ..."] | Shaped[np.ndarray, "n ..."],
    mask: Bool[Array, "n"] | Bool[np.ndarray, "n"],
    rates: Float[Array, "heads"] | Float[np.ndarray, "heads"],
    decays: Float[Array, "heads"] | Float[np.ndarray, "heads"],
    outputs: int,
    cost: Callable[[Array, Array], Array],
    settings: LinearProbe,
) -> LinearHeads:
    """Train one head per (rate, decay) on the masked rows, all heads on the same batches.

    Args:
      features: one per item.
      targets: second argument of `cost`.
      mask: training items; the others have weight 0.
      rates: learning rates.
      decays: as many weight decays.
      outputs: number of logits.
      cost: (logits f32[k outputs], targets [k ...]) -> f32[k].
      settings: steps, batch and seed.
    """
    n, dim = features.shape
    mean = jnp.average(features, axis=0, weights=mask)
    std = jnp.sqrt(jnp.average((features - mean) ** 2, axis=0, weights=mask))
    std = jnp.where(std > 1e-6 * abs(mean), std, 1)  # do not amplify rounding errors of constants
    features = (features - mean) / std

    def train(rate: Array, decay: Array) -> tuple[Array, Array]:
        adam = optax.adam(optax.cosine_decay_schedule(rate, settings.steps))

        def loss(head: tuple[Array, Array], rows: Array | slice) -> Array:
            weights, bias = head
            logits = jnp.matmul(features[rows], weights, precision="highest") + bias
            losses = cost(logits, targets[rows])
            fit = (losses * mask[rows]).sum() / jnp.maximum(mask[rows].sum(), 1)
            return fit + decay / 2 * (weights**2).sum()

        def step(carry, key):
            head, state = carry
            rows = slice(None)
            if n > settings.batch:
                rows = jax.random.randint(key, (settings.batch,), 0, n)
            updates, state = adam.update(jax.grad(loss)(head, rows), state)
            return (optax.apply_updates(head, updates), state), None

        head = jnp.zeros((dim, outputs)), jnp.zeros(outputs)
        keys = jax.random.split(jax.random.key(settings.seed), settings.steps)
        return jax.lax.scan(step, (head, adam.init(head)), keys)[0][0]

    return LinearHeads(mean, std, *jax.vmap(train)(rates, decays))


def score_heads(
    heads: LinearHeads, features: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "heads n c"]:
    """Return the logits of every head."""
    features = (features - heads.mean) / heads.std
    logits = jnp.einsum("nd,hdc->hnc", features, heads.weights, precision="highest")
    return np.asarray(logits + heads.bias[:, None])
