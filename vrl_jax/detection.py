"""Actions of persons in key frames, by a linear head on a frozen encoder, as on AVA.

`python -m vrl_jax.detection runs/mine --root=VIDEOS --train=train.csv --test=val.csv
--actions=list.pbtxt --out=folder` encodes the clip around each key frame that AVA's files name,
cuts out each box, trains the head and writes `predictions.csv` and `results/detection-action.json`.
Features stay in `{train,test}-frames.npz` (of each key frame, per frame) and
`{train,test}-boxes.npz`. The same is done for the encoder untrained, in the folder `untrained`.
Stopped at any moment, the command goes on where it was.

A box's features are the last map, mean over time, RoIAlign, maximum over space, as in SlowFast.
Test boxes are the annotated ones, whose score flatters, unless `--boxes` has detected ones.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vrl_jax import pretrained, provenance
from vrl_jax.data import ava
from vrl_jax.data.ava import Boxes, Instances
from vrl_jax.evaluate import multilabel, results
from vrl_jax.evaluate.detection import frame_map
from vrl_jax.evaluate.linear import LinearProbe
from vrl_jax.jobs.encode import Protocol, add_options, describe_model, read_protocol
from vrl_jax.jobs.regions import POOLING, Encoded, Footage, encode_boxes, hash_boxes
from vrl_jax.pretrained import Pretrained


def predict(
    encoded: Encoded, probabilities: Float[np.ndarray, "m c"], actions: Sequence[int]
) -> Boxes:
    """Return a row for every action of every box that was read."""
    boxes, count = encoded.found.boxes.take(encoded.read), len(actions)
    repeated = Boxes(*(np.repeat(column, count, axis=0) for column in boxes))
    numbers = np.tile(np.array(actions), len(probabilities))
    return repeated._replace(action=numbers, score=probabilities.reshape(-1).astype(float))


def learn(
    train: Encoded,
    rows: Boxes,
    test: Encoded,
    actions: Sequence[int],
    settings: LinearProbe,
) -> multilabel.MultiLabelResult:
    """Train the head; its setting is the best by frame mAP on held-out training videos.

    Args:
      train: what to learn from.
      rows: its annotations.
      test: what to predict.
      actions: their numbers.
      settings: what to try.
    """
    kept = train.found.boxes.take(train.read)
    unread = set(train.found.boxes.take(~train.read).keys())

    def score(probabilities: np.ndarray, held: np.ndarray) -> float:
        videos = np.unique(kept.video[held])
        truth = rows.take(np.isin(rows.video, videos))
        part = train._replace(read=_within(train.read, held))
        found = predict(part, probabilities, actions)
        return float(np.nan_to_num(frame_map(truth, found, actions, excluded=unread).value))

    return multilabel.probe(
        train.features[train.read],
        train.found.labels[train.read],
        test.features[test.read],
        groups=np.unique(kept.video, return_inverse=True)[1],
        score=score,
        settings=settings,
    )


def _within(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return a mask of everything for a mask of those in another mask."""
    mask = np.zeros_like(outer)
    mask[np.flatnonzero(outer)[inner]] = True
    return mask


def detect(
    model: Pretrained, init: str, protocol: Protocol, out: Path, given: argparse.Namespace
) -> dict[str, Any]:
    """Do what the command's options say with one encoder, and return the result.

    Args:
      model: the encoder.
      init: what the result calls it.
      protocol: how it sees videos.
      out: folder for features and predictions.
      given: the options.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = ava.read_actions(given.actions)
    actions, rows, found = sorted(names), *_read_boxes(given, sorted(names))
    footage = Footage(given.root, given.start, given.times == "seconds")
    about = {
        "model": {**describe_model(model), "init": init},
        "protocol": {
            **protocol.describe(model, POOLING),
            "placing": "the whole frame, fitted into a black square",
            "times": given.times,
            "start": given.start,
        },
    }
    hashes = {part: hash_boxes(found[part]) for part in found}
    encoded = {}
    for part in found:
        data = {"data": {"boxes": hashes[part], "actions": actions}}
        settings = footage, protocol, about | data, out / part
        encoded[part] = encode_boxes(model, found[part], *settings)
        if not encoded[part].read.any():
            raise ValueError(f"no key frame can be read: {out / part}-frames.npz says why")
    chosen = learn(encoded["train"], rows["train"], encoded["test"], actions, LinearProbe())
    predictions = predict(encoded["test"], chosen.probabilities, actions)
    ava.write_predictions(out / "predictions.csv", predictions)
    score = frame_map(rows["test"], predictions, actions, capacity=given.capacity)
    counts = [(rows["test"].action == action).sum() for action in score.per_action]
    result = {
        "name": "detection",
        "label": "action",
        "metric": "frame mAP at IoU 0.5",
        "value": score.value,
        "chance": float(np.mean(counts) / len(found["test"].frame)),
        "per_action": {names[action]: value for action, value in score.per_action.items()},
        "held_out_map": chosen.held_out_score,
        "chosen": {"learning_rate": chosen.learning_rate, "weight_decay": chosen.weight_decay},
        "unreadable_boxes": {part: int((~encoded[part].read).sum()) for part in encoded},
        **about,
        "data": {"set": "boxes in AVA's format", **hashes},
        "commit": provenance.commit(),
    }
    test_boxes = {"boxes": "detected" if given.boxes else "annotated", "capacity": given.capacity}
    result["protocol"] = {"split": "train, test", **about["protocol"], **test_boxes}
    return result


def _read_boxes(
    given: argparse.Namespace, actions: Sequence[int]
) -> tuple[dict[str, Boxes], dict[str, Instances]]:
    """Return the annotations of train and test, and the boxes to encode of each."""
    excluded = ava.read_excluded(given.excluded) if given.excluded else set()
    parts = {"train": given.train, "test": given.test}
    rows = {part: ava.read_annotations(path).without(excluded) for part, path in parts.items()}
    found = {part: ava.collect(rows[part], actions) for part in rows}
    if given.boxes:
        found["test"] = ava.collect(ava.read_predictions(given.boxes).without(excluded), actions)
        parts["test"] = given.boxes
    for part, path in parts.items():
        if not found[part].keys:
            raise ValueError(f"{path} has no box")
    return rows, found


def main(argv: list[str] | None = None) -> None:
    """Encode what is left, train the head, write and say what it found."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m vrl_jax.detection", description=__doc__, formatter_class=form
    )
    parser.add_argument("model", help="a run's folder, or what vrl_jax.pretrained.load takes")
    for name, text in (
        ("root", "folder of the videos"),
        ("train", "annotations to learn from"),
        ("test", "annotations to be judged on"),
        ("actions", "label map of the actions that count"),
        ("out", "folder for what is written"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)
    parser.add_argument("--excluded", type=Path, help="key frames to leave out, of both parts")
    parser.add_argument("--boxes", type=Path, help="detected boxes of the test, as predictions")
    parser.add_argument(
        "--capacity", type=int, default=0, help="predictions that count a key frame"
    )
    parser.add_argument("--start", type=float, default=0.0, help="time at which files begin, s")
    parser.add_argument("--times", choices=("seconds", "frames"), default="seconds")
    parser.add_argument(
        "--untrained",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="judge the same encoder untrained as well",
    )
    add_options(parser)
    given = parser.parse_args(argv)
    try:
        model = pretrained.load(given.model, step=given.step)
        size = model.augment.size
        protocol = read_protocol(model, given, 1, (size, size))
        found = [detect(model, given.model, protocol, given.out, given)]
        if given.untrained:
            plain = pretrained.initialize(model.encoder, model.augment, protocol.sampling.frames)
            found.append(detect(plain, "untrained", protocol, given.out / "untrained", given))
    except (ValueError, OSError) as error:
        sys.exit(str(error).replace("--config.", "--"))
    results.write(given.out / "results", found)
    for one in found:
        kind = one["model"]["init"]
        print(f"{kind}: frame mAP {one['value']:.4f} (chance {one['chance']:.4f})")


if __name__ == "__main__":
    main()
