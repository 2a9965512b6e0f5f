"""Linear classification of the actions of boxes, selected by frame mAP."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vrl_jax.detection.ava_boxes import Boxes
from vrl_jax.detection.box_features import BoxFeatures
from vrl_jax.detection.frame_metrics import frame_mean_ap
from vrl_jax.probes import multilabel_probe
from vrl_jax.probes.linear_probe import LinearProbe


def predict_actions(
    encoded: BoxFeatures, logits: Float[np.ndarray, "m c"], actions: Sequence[int]
) -> Boxes:
    """Return a row for each action of each readable box, with the logit as its score."""
    boxes, count = encoded.instances.boxes.take(encoded.readable), len(actions)
    repeated = Boxes(*(np.repeat(column, count, axis=0) for column in boxes))
    numbers = np.tile(np.array(actions), len(logits))
    return repeated._replace(action=numbers, score=logits.reshape(-1).astype(float))


def train_head(
    train: BoxFeatures,
    annotations: Boxes,
    test: BoxFeatures,
    actions: Sequence[int],
    settings: LinearProbe,
) -> multilabel_probe.MultiLabelResult:
    """Train the head with the hyperparameters of the best frame mAP on held-out training videos.

    Args:
      train: features of the training boxes.
      annotations: of the training boxes.
      test: features of the test boxes.
      actions: numbers of the actions.
      settings: the hyperparameters.
    """
    boxes = train.instances.boxes.take(train.readable)
    unreadable = set(train.instances.boxes.take(~train.readable).keys())

    def score(logits: np.ndarray, held_out: np.ndarray) -> float:
        videos = np.unique(boxes.video[held_out])
        truth = annotations.take(np.isin(annotations.video, videos))
        part = train._replace(readable=_expand_mask(train.readable, held_out))
        predictions = predict_actions(part, logits, actions)
        result = frame_mean_ap(truth, predictions, actions, excluded=unreadable)
        return float(np.nan_to_num(result.value))

    return multilabel_probe.fit_multilabel_probe(
        train.features[train.readable],
        train.instances.labels[train.readable],
        test.features[test.readable],
        groups=np.unique(boxes.video, return_inverse=True)[1],
        score=score,
        settings=settings,
    )


def _expand_mask(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return a mask of all items from `inner`, a mask of the items in `outer`."""
    mask = np.zeros_like(outer)
    mask[np.flatnonzero(outer)[inner]] = True
    return mask
