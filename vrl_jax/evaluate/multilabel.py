"""Linear classifiers of items that have any number of labels, chosen without the test set."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from vrl_jax.evaluate.linear import LinearProbe, hold_out


class MultiLabelResult(NamedTuple):
    """Test items' logits, and the setting that was chosen by its score on held-out items.

    Logits keep the order of the surest items, whose probabilities are all rounded to 1.
    """

    logits: Float[np.ndarray, "m c"]
    learning_rate: float
    weight_decay: float
    held_out_score: float


def probe(
    train_features: Float[np.ndarray, "n d"],
    train_labels: Bool[np.ndarray, "n c"],
    test_features: Float[np.ndarray, "m d"],
    *,
    groups: Int[np.ndarray, "n"],
    score: Callable[[np.ndarray, np.ndarray], float],
    settings: LinearProbe,
) -> MultiLabelResult:
    """Choose a setting on a slice of train, refit it on all of train, predict once.

    The loss is the sigmoid cross-entropy, mean over items and sum over labels, + λ/2 ‖W‖². All
    settings are trained at once.

    Args:
      train_features: one per training item.
      train_labels: which labels it has.
      test_features: one per test item.
      groups: which video each training item is from; the held-out slice is of whole groups.
      score: of logits f32[k c] of the held-out items, whose mask bool[n] comes second.
      settings: what to try.

    Raises:
      ValueError: there are fewer than two groups, or every setting diverged.
    """
    everything = np.ones(len(train_features), bool)
    held = hold_out(groups, everything, groups, settings)
    grid = [(rate, decay) for rate in settings.learning_rates for decay in settings.weight_decays]
    given = train_features, train_labels
    rows = train_features[held]
    tried = _predict(_fit(*given, ~held, *np.array(grid, np.float32).T, settings), rows)
    scores = [score(each, held) if np.isfinite(each).all() else -1.0 for each in tried]
    best = int(np.argmax(scores))
    heads = _fit(*given, everything, *np.array(grid[best : best + 1], np.float32).T, settings)
    logits = _predict(heads, test_features)[0]
    if scores[best] < 0 or not np.isfinite(logits).all():
        raise ValueError(
            f"logits are not finite: lower learning_rates {settings.learning_rates}, or "
            "look for the features that are not finite"
        )
    return MultiLabelResult(logits, *grid[best], float(scores[best]))


class _Heads(NamedTuple):
    mean: Float[Array, "d"]
    std: Float[Array, "d"]
    weights: Float[Array, "heads d c"]
    bias: Float[Array, "heads c"]


@jax.jit(static_argnames="settings")
def _fit(
    features: Array,
    labels: Array,
    members: Array,
    rates: Array,
    decays: Array,
    settings: LinearProbe,
) -> _Heads:
    """Train one head per (rate, decay) on the rows that are members, all on the same batches."""
    n, dim = features.shape
    mean = jnp.average(features, axis=0, weights=members)
    std = jnp.sqrt(jnp.average((features - mean) ** 2, axis=0, weights=members))
    std = jnp.where(std > 1e-6 * abs(mean), std, 1)  # a constant must not become rounding noise
    features, targets = (features - mean) / std, labels.astype(jnp.float32)

    def train(rate: Array, decay: Array) -> tuple[Array, Array]:
        adam = optax.adam(optax.cosine_decay_schedule(rate, settings.steps))

        def loss(head: tuple[Array, Array], rows: Array | slice) -> Array:
            weights, bias = head
            logits = jnp.matmul(features[rows], weights, precision="highest") + bias
            each = optax.sigmoid_binary_cross_entropy(logits, targets[rows]).sum(1)
            fit = (each * members[rows]).sum() / jnp.maximum(members[rows].sum(), 1)
            return fit + decay / 2 * (weights**2).sum()

        def step(carry, key):
            head, state = carry
            rows = slice(None)
            if n > settings.batch:
                rows = jax.random.randint(key, (settings.batch,), 0, n)
            updates, state = adam.update(jax.grad(loss)(head, rows), state)
            return (optax.apply_updates(head, updates), state), None

        head = jnp.zeros((dim, targets.shape[1])), jnp.zeros(targets.shape[1])
        keys = jax.random.split(jax.random.key(settings.seed), settings.steps)
        return jax.lax.scan(step, (head, adam.init(head)), keys)[0][0]

    return _Heads(mean, std, *jax.vmap(train)(rates, decays))


def _predict(heads: _Heads, features: np.ndarray) -> Float[np.ndarray, "heads n c"]:
    features = (features - heads.mean) / heads.std
    logits = jnp.einsum("nd,hdc->hnc", features, heads.weights, precision="highest")
    return np.asarray(logits + heads.bias[:, None])
