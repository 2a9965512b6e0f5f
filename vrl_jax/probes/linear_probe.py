"""Linear probes on frozen features; every setting is chosen without a look at the test set."""

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


def fit_probe(
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

    def fit(members: np.ndarray, grid: list[tuple[float, float]]) -> linear_fit.LinearHeads:
        rates, decays = np.array(grid, np.float32).T
        return linear_fit.fit_heads(
            features, labels, members, rates, decays, num_classes, CROSS_ENTROPY, settings
        )

    logits = linear_fit.score_heads(fit(train & ~held, grid), features)[:, held]
    accuracy = (logits.argmax(axis=-1) == labels[held]).mean(axis=1)
    accuracy[~np.isfinite(logits).all(axis=(1, 2))] = -1
    best = int(accuracy.argmax())
    if accuracy[best] < 0:
        raise ValueError(
            "logits of every setting are not finite: lower learning_rates "
            f"{settings.learning_rates}, or look for the features that are not finite"
        )
    fitted = fit(train, [grid[best]])

    def predict(features: np.ndarray) -> np.ndarray:
        logits = linear_fit.score_heads(fitted, features)[0]
        if not np.isfinite(logits).all():
            raise ValueError("the probe's logits are not finite; look at the features")
        return logits.argmax(axis=-1)

    return grid[best], float(accuracy[best]), predict
