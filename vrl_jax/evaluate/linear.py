"""Linear probes on frozen features; every setting is chosen without a look at the test set."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from vrl_jax import check


@dataclass(frozen=True)
class LinearProbe:
    """How a linear classifier is trained and its setting chosen.

    Attributes:
      learning_rates: of Adam, decayed to 0 by a half cosine; each is tried with each weight decay,
        and of equally good settings the first listed is taken.
      weight_decays: λ in mean cross-entropy + λ/2 ‖W‖²; the bias is free.
      steps: of training.
      batch: items per step; all of them where there are no more than that.
      held_out: share of the training items, or groups, that the choice is made on.
      seed: of the held-out slice and of the batches.
    """

    learning_rates: tuple[float, ...] = (0.001, 0.01, 0.1)
    weight_decays: tuple[float, ...] = (0.0, 0.001, 0.1)
    steps: int = 300
    batch: int = 4096
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check.positive(least_learning_rate=min(self.learning_rates), steps=self.steps)
        check.at_least(0, least_weight_decay=min(self.weight_decays))
        check.positive(batch=self.batch)
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must lie strictly between 0 and 1, got {self.held_out}")


class ProbeResult(NamedTuple):
    """What a probe found; learning rate and weight decay are those chosen on the held-out slice."""

    accuracy: float
    learning_rate: float
    weight_decay: float
    held_out_accuracy: float
    predictions: Int[np.ndarray, "m"]


class GroupResult(NamedTuple):
    """Accuracies with each group in turn as the test set; `std` is over groups (division by G).

    `held_out_accuracy` is that of the chosen settings on held-out training groups, over groups.
    """

    mean: float
    std: float
    held_out_accuracy: float
    per_group: dict[int, float]
    predictions: Int[np.ndarray, "n"]


def probe(
    train_features: Float[np.ndarray, "n d"],
    train_labels: Int[np.ndarray, "n"],
    test_features: Float[np.ndarray, "m d"],
    test_labels: Int[np.ndarray, "m"],
    *,
    num_classes: int,
    settings: LinearProbe,
    groups: Int[np.ndarray, "n"] | None = None,
    members: Bool[np.ndarray, "n"] | None = None,
) -> ProbeResult:
    """Choose a setting on a slice of train, refit it on all of train, test once.

    All settings are trained at once. What is reported is always the last step.

    Args:
      train_features: one per training item.
      train_labels: in [0, num_classes).
      test_features: one per test item.
      test_labels: read only to score the final predictions.
      num_classes: width of the classifier; classes may be absent.
      settings: what to try.
      groups: which video, or person, each training item is from; the held-out slice is then made
        of whole groups, else it is stratified by class.
      members: which of the training items count, all by default: as it varies nothing is compiled
        anew. Features of the others need not be finite.

    Raises:
      ValueError: features and labels differ in number, a label is out of range, nothing
        would be left to train on, or every setting diverged.
    """
    check.same_shape(test_features=test_features[:, 0], test_labels=test_labels)
    train = np.ones(len(train_labels), bool) if members is None else members
    train_features = np.where(train[:, None], train_features, 0)
    setting, held_out_accuracy, predict = _choose_and_refit(
        train_features, train_labels, train, groups, num_classes, settings
    )
    predictions = predict(test_features)
    accuracy = float((predictions == test_labels).mean())
    return ProbeResult(accuracy, *setting, held_out_accuracy, predictions)


def leave_one_group_out(
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, "n"],
    groups: Int[np.ndarray, "n"],
    *,
    num_classes: int,
    settings: LinearProbe,
) -> GroupResult:
    """Test on each group in turn with a probe on all others; settings are chosen by whole groups.

    Raises:
      ValueError: as `probe`, or fewer than three groups.
    """
    names = np.unique(groups)
    check.at_least(3, **{"the number of groups": len(names)})
    predictions = np.empty(len(labels), int)
    per_group, held_out = {}, []
    for name in names:
        test = groups == name
        _, chosen_by, predict = _choose_and_refit(
            features, labels, ~test, groups, num_classes, settings
        )
        held_out.append(chosen_by)
        predictions[test] = predict(features)[test]
        per_group[int(name)] = float((predictions[test] == labels[test]).mean())
    accuracies = np.array(list(per_group.values()))
    return GroupResult(
        float(accuracies.mean()),
        float(accuracies.std()),
        float(np.mean(held_out)),
        per_group,
        predictions,
    )


def hold_out(
    labels: Int[np.ndarray, "n"],
    train: Bool[np.ndarray, "n"],
    groups: Int[np.ndarray, "n"] | None,
    settings: LinearProbe,
) -> Bool[np.ndarray, "n"]:
    """Mark the random part of `train`, at least one item or group, that settings are chosen on.

    Raises:
      ValueError: nothing would be left to train on.
    """
    rng = np.random.default_rng(settings.seed)
    strata = labels[train] if groups is None else np.zeros(len(np.unique(groups[train])))
    # In the order of the classes, shuffled within, each step of 1 / share crosses one mark.
    order = np.lexsort((rng.random(len(strata)), strata))
    share = max(settings.held_out, 1 / max(len(strata), 1))  # at least one
    marks = np.floor(np.arange(len(strata) + 1) * share + rng.random())
    chosen = order[np.diff(marks) > 0]
    if not 0 < len(chosen) < len(strata):
        raise ValueError(
            f"held_out={settings.held_out} of {len(strata)} training "
            f"{'items' if groups is None else 'groups'} leaves nothing on one side; "
            "use more data or another share"
        )
    held = np.zeros(len(labels), bool)
    if groups is None:
        held[np.flatnonzero(train)[chosen]] = True
        return held
    return train & np.isin(groups, np.unique(groups[train])[chosen])


class _Heads(NamedTuple):
    mean: Float[Array, "d"]
    std: Float[Array, "d"]
    weights: Float[Array, "heads d c"]
    bias: Float[Array, "heads c"]


def _choose_and_refit(
    features: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    groups: np.ndarray | None,
    num_classes: int,
    settings: LinearProbe,
) -> tuple[tuple[float, float], float, Callable[[np.ndarray], np.ndarray]]:
    """Return the chosen (rate, decay), its held-out accuracy, and a function that predicts.

    Rows outside `train` weigh nothing: as the mask varies, shapes and compiled programs stay.
    """
    check.same_shape(features=features[:, 0], labels=labels)
    if not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels must lie in [0, {num_classes}), got {labels.min()} to {labels.max()}"
        )
    held = hold_out(labels, train, groups, settings)
    grid = [(rate, decay) for rate in settings.learning_rates for decay in settings.weight_decays]

    def fit(members: np.ndarray, grid: list[tuple[float, float]]) -> _Heads:
        rates, decays = np.array(grid, np.float32).T
        return _fit(features, labels, members, rates, decays, num_classes, settings)

    logits = _score(fit(train & ~held, grid), features)[:, held]
    accuracy = (logits.argmax(axis=-1) == labels[held]).mean(axis=1)
    accuracy[~np.isfinite(logits).all(axis=(1, 2))] = -1
    best = int(accuracy.argmax())
    if accuracy[best] < 0:
        raise ValueError(
            "logits of every setting are not finite: lower learning_rates "
            f"{settings.learning_rates}, or look for the features that are not finite"
        )
    heads = fit(train, [grid[best]])

    def predict(features: np.ndarray) -> np.ndarray:
        logits = _score(heads, features)[0]
        if not np.isfinite(logits).all():
            raise ValueError("the probe's logits are not finite; look at the features")
        return logits.argmax(axis=-1)

    return grid[best], float(accuracy[best]), predict


@jax.jit(static_argnames=("num_classes", "settings"))
def _fit(
    features: Array,
    labels: Array,
    members: Array,
    rates: Array,
    decays: Array,
    num_classes: int,
    settings: LinearProbe,
) -> _Heads:
    """Train one head per (rate, decay) on the rows that are members, all on the same batches."""
    n, dim = features.shape
    mean = jnp.average(features, axis=0, weights=members)
    std = jnp.sqrt(jnp.average((features - mean) ** 2, axis=0, weights=members))
    std = jnp.where(std > 1e-6 * abs(mean), std, 1)  # a constant must not become rounding noise
    features = (features - mean) / std

    def train(rate: Array, decay: Array) -> tuple[Array, Array]:
        adam = optax.adam(optax.cosine_decay_schedule(rate, settings.steps))

        def loss(head: tuple[Array, Array], rows: Array | slice) -> Array:
            weights, bias = head
            logits = jnp.matmul(features[rows], weights, precision="highest") + bias
            each = optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])
            fit = (each * members[rows]).sum() / jnp.maximum(members[rows].sum(), 1)
            return fit + decay / 2 * (weights**2).sum()

        def step(carry, key):
            head, state = carry
            rows = slice(None)
            if n > settings.batch:
                rows = jax.random.randint(key, (settings.batch,), 0, n)
            updates, state = adam.update(jax.grad(loss)(head, rows), state)
            return (optax.apply_updates(head, updates), state), None

        head = jnp.zeros((dim, num_classes)), jnp.zeros(num_classes)
        keys = jax.random.split(jax.random.key(settings.seed), settings.steps)
        return jax.lax.scan(step, (head, adam.init(head)), keys)[0][0]

    return _Heads(mean, std, *jax.vmap(train)(rates, decays))


def _score(heads: _Heads, features: np.ndarray) -> np.ndarray:
    features = (features - heads.mean) / heads.std
    logits = jnp.einsum("nd,hdc->hnc", features, heads.weights, precision="highest")
    return np.asarray(logits + heads.bias[:, None])
