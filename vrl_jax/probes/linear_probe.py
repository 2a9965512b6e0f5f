"""Linear probes on frozen features; hyperparameters are selected on held-out training data."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax
from jaxtyping import Bool, Float, Int

from vrl_jax import check
from vrl_jax.probes import linear_fit
from vrl_jax.probes.linear_fit import LinearProbe

CROSS_ENTROPY = optax.softmax_cross_entropy_with_integer_labels


class ProbeResult(NamedTuple):
    """Accuracy and predictions of a probe, with its selected learning rate and weight decay."""

    accuracy: float
    learning_rate: float
    weight_decay: float
    held_out_accuracy: float
    predictions: Int[np.ndarray, "m"]


class GroupResult(NamedTuple):
    """Leave-one-group-out accuracies.

    Attributes:
      mean: over groups.
      std: over the G groups (division by G).
      held_out_accuracy: of the selected hyperparameters on held-out training groups, mean over
        test groups.
      per_group: accuracy by test group.
      predictions: of each item by the probe of its test group.
    """

    mean: float
    std: float
    held_out_accuracy: float
    per_group: dict[int, float]
    predictions: Int[np.ndarray, "n"]


def fit_probe(
    train_features: Float[np.ndarray, "n d"],
    train_labels: Int[np.ndarray, "n"],
    test_features: Float[np.ndarray, "m d"],
    test_labels: Int[np.ndarray, "m"],
    *,
    num_classes: int,
    settings: LinearProbe,
    groups: Int[np.ndarray, "n"] | None = None,
    mask: Bool[np.ndarray, "n"] | None = None,
) -> ProbeResult:
    """Select hyperparameters on held-out training items, refit on all of them, test once.

    All hyperparameters are trained at once. The result is always that of the last step.

    Args:
      train_features: one per training item.
      train_labels: in [0, num_classes).
      test_features: one per test item.
      test_labels: used only for the final accuracy.
      num_classes: number of logits; classes may be absent.
      settings: the hyperparameters.
      groups: the video, or person, of each training item; the held-out split then consists of
        whole groups, else it is stratified by class.
      mask: the training items to use, all by default. Changing it does not recompile. Features
        outside it need not be finite.

    Raises:
      ValueError: features and labels differ in number, a label is out of range, a split has no
        items, or training diverged for all hyperparameters.
    """
    check.same_shape(test_features=test_features[:, 0], test_labels=test_labels)
    train = np.ones(len(train_labels), bool) if mask is None else mask
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
    """Test on each group in turn with a probe trained on all others.

    Held-out splits for the selection consist of whole groups.

    Raises:
      ValueError: as `fit_probe`, or there are fewer than three groups.
    """
    names = np.unique(groups)
    check.at_least(3, **{"the number of groups": len(names)})
    predictions = np.empty(len(labels), int)
    per_group, held_out_accuracies = {}, []
    for name in names:
        test = groups == name
        _, held_out_accuracy, predict = _choose_and_refit(
            features, labels, ~test, groups, num_classes, settings
        )
        held_out_accuracies.append(held_out_accuracy)
        predictions[test] = predict(features)[test]
        per_group[int(name)] = float((predictions[test] == labels[test]).mean())
    accuracies = np.array(list(per_group.values()))
    return GroupResult(
        float(accuracies.mean()),
        float(accuracies.std()),
        float(np.mean(held_out_accuracies)),
        per_group,
        predictions,
    )


def hold_out(
    labels: Int[np.ndarray, "n"],
    train: Bool[np.ndarray, "n"],
    groups: Int[np.ndarray, "n"] | None,
    settings: LinearProbe,
) -> Bool[np.ndarray, "n"]:
    """Return a random subset of the mask `train`, at least one item or group, for selection.

    Raises:
      ValueError: one side of the split would be empty.
    """
    rng = np.random.default_rng(settings.seed)
    strata = labels[train] if groups is None else np.zeros(len(np.unique(groups[train])))
    # Systematic sampling: items ordered by class, shuffled within, one out of every 1 / share.
    order = np.lexsort((rng.random(len(strata)), strata))
    share = max(settings.held_out, 1 / max(len(strata), 1))  # at least one item
    marks = np.floor(np.arange(len(strata) + 1) * share + rng.random())
    chosen = order[np.diff(marks) > 0]
    if not 0 < len(chosen) < len(strata):
        raise ValueError(
            f"held_out={settings.held_out} of {len(strata)} training "
            f"{'items' if groups is None else 'groups'} leaves one side of the split empty; "
            "use more data or another fraction"
        )
    held_out = np.zeros(len(labels), bool)
    if groups is None:
        held_out[np.flatnonzero(train)[chosen]] = True
        return held_out
    return train & np.isin(groups, np.unique(groups[train])[chosen])


def _choose_and_refit(
    features: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    groups: np.ndarray | None,
    num_classes: int,
    settings: LinearProbe,
) -> tuple[tuple[float, float], float, Callable[[np.ndarray], np.ndarray]]:
    """Return the selected (rate, decay), its held-out accuracy, and a function that predicts.

    Rows outside the mask `train` have weight 0, so that shapes do not depend on it.
    """
    check.same_shape(features=features[:, 0], labels=labels)
    if not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels must lie in [0, {num_classes}), got {labels.min()} to {labels.max()}"
        )
    held_out = hold_out(labels, train, groups, settings)
    grid = [(rate, decay) for rate in settings.learning_rates for decay in settings.weight_decays]

    def fit(mask: np.ndarray, grid: list[tuple[float, float]]) -> linear_fit.LinearHeads:
        rates, decays = np.array(grid, np.float32).T
        return linear_fit.fit_heads(
            features, labels, mask, rates, decays, num_classes, CROSS_ENTROPY, settings
        )

    logits = linear_fit.score_heads(fit(train & ~held_out, grid), features)[:, held_out]
    accuracy = (logits.argmax(axis=-1) == labels[held_out]).mean(axis=1)
    accuracy[~np.isfinite(logits).all(axis=(1, 2))] = -1
    best = int(accuracy.argmax())
    if accuracy[best] < 0:
        raise ValueError(
            "logits are not finite for any hyperparameters: lower learning_rates "
            f"{settings.learning_rates}, or check the features for values that are not finite"
        )
    fitted = fit(train, [grid[best]])

    def predict(features: np.ndarray) -> np.ndarray:
        logits = linear_fit.score_heads(fitted, features)[0]
        if not np.isfinite(logits).all():
            raise ValueError(
                "the probe's logits are not finite; check the features for values that are not "
                "finite"
            )
        return logits.argmax(axis=-1)

    return grid[best], float(accuracy[best]), predict
