"""Actions of persons in key frames, by a linear head on a frozen encoder, as on AVA.

`python -m vrl_jax.detection runs/mine --root=VIDEOS --train=train.csv --test=val.csv
--actions=list.pbtxt --out=folder` encodes the clip around each key frame that AVA's files name,
cuts out each box, trains the head and writes `predictions.csv` and `results/detection-action.json`.
Features stay in `{train,test}-frames.npz` (of each key frame, per frame) and
`{train,test}-boxes.npz`. The same is done for the encoder untrained, in the folder `untrained`.
Stopped at any moment, the command goes on where it was.

As in SlowFast, a box's features are the last map, mean over time, RoIAlign 7 x 7, maximum over
space, every class has a sigmoid, and detected boxes count from a score of 0.8. Other than there,
the encoder is frozen, its map has its own stride (SlowFast halves the last), the whole frame is
fitted into a square, and clips are cut as the run's. The scores of predictions are logits. Test
boxes are the annotated ones, whose score flatters, unless `--boxes` has detected ones.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vrl_jax import check, config, files, pretrained
from vrl_jax.data import storage
from vrl_jax.data.loader import Loader
from vrl_jax.detection import ava, multilabel_probe
from vrl_jax.detection.ava import Boxes, Instances
from vrl_jax.detection.box_features import (
    POOLING,
    BoxFeatures,
    KeyFrameVideos,
    encode_boxes,
    hash_annotations,
    hash_boxes,
)
from vrl_jax.detection.metrics import frame_map
from vrl_jax.evaluation.encode import EncodeConfig, add_options, read_encode_config
from vrl_jax.evaluation.stamp import describe_model
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes import results
from vrl_jax.probes.linear_probe import LinearProbe, hold_out
from vrl_jax.train import provenance
from vrl_jax.train.compilation import enable_cache


class DetectionTask(NamedTuple):
    """What is to be learned and judged.

    Attributes:
      names: of the actions that count, by number.
      rows: annotations of "train" and of "test".
      found: the boxes to encode of each.
    """

    names: dict[int, str]
    rows: dict[str, Boxes]
    found: dict[str, Instances]

    def identify(self) -> dict[str, str]:
        """Return the hashes of the annotations, and of the test's boxes."""
        told = {part: hash_annotations(rows, self.names) for part, rows in self.rows.items()}
        return {**told, "boxes": hash_boxes(self.found["test"])}


def predict_actions(
    encoded: BoxFeatures, logits: Float[np.ndarray, "m c"], actions: Sequence[int]
) -> Boxes:
    """Return a row for every action of every box that was read; its score is the logit."""
    boxes, count = encoded.found.boxes.take(encoded.read), len(actions)
    repeated = Boxes(*(np.repeat(column, count, axis=0) for column in boxes))
    numbers = np.tile(np.array(actions), len(logits))
    return repeated._replace(action=numbers, score=logits.reshape(-1).astype(float))


def train_head(
    train: BoxFeatures,
    rows: Boxes,
    test: BoxFeatures,
    actions: Sequence[int],
    settings: LinearProbe,
) -> multilabel_probe.MultiLabelResult:
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

    def score(logits: np.ndarray, held: np.ndarray) -> float:
        videos = np.unique(kept.video[held])
        truth = rows.take(np.isin(rows.video, videos))
        part = train._replace(read=_within(train.read, held))
        found = predict_actions(part, logits, actions)
        return float(np.nan_to_num(frame_map(truth, found, actions, excluded=unread).value))

    return multilabel_probe.fit_multilabel_probe(
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


def detect_actions(
    model: Pretrained,
    init: str,
    protocol: EncodeConfig,
    out: Path,
    given: argparse.Namespace,
    task: DetectionTask,
) -> dict[str, Any]:
    """Do what the command's options say with one encoder, and return the result.

    Args:
      model: the encoder.
      init: what the result calls it.
      protocol: how it sees videos.
      out: folder for features and predictions.
      given: the options.
      task: what the files say.
    """
    out.mkdir(parents=True, exist_ok=True)
    footage = KeyFrameVideos(given.root, given.start, given.times == "seconds")
    about = {
        "model": {"config": repr(model.encoder), **describe_model(model)},
        "protocol": {
            **protocol.describe(model, POOLING),
            "placing": "the whole frame, fitted into a black square",
            "times": given.times,
            "start": given.start,
        },
    }
    encoded = {
        part: encode_boxes(model, found, footage, protocol, about, out / part)
        for part, found in task.found.items()
    }
    actions, head, truth = sorted(task.names), LinearProbe(), task.rows["test"]
    chosen = train_head(encoded["train"], task.rows["train"], encoded["test"], actions, head)
    predictions = predict_actions(encoded["test"], chosen.logits, actions)
    ava.write_predictions(out / "predictions.csv", predictions)
    score = frame_map(truth, predictions, actions, capacity=given.capacity)
    settings = {"boxes": "annotated", "capacity": given.capacity, "head": asdict(head)}
    if given.boxes:
        settings |= {"boxes": "detected", "min_score": given.min_score}
    result = {
        "name": "detection",
        "label": "action",
        "metric": "frame mAP at IoU 0.5",
        "value": score.value,
        "per_class": {task.names[action]: value for action, value in score.per_action.items()},
        "held_out_map": chosen.held_out_score,
        "chosen": {"learning_rate": chosen.learning_rate, "weight_decay": chosen.weight_decay},
        "unreadable": {part: int((~each.read).sum()) for part, each in encoded.items()},
        "model": {**about["model"], "init": init},
        "protocol": {"split": "train, test", **about["protocol"], **settings},
        "data": {"set": "boxes in AVA's format", **task.identify()},
        "commit": provenance.source_commit(),
    }
    if not given.boxes:  # each box guessed alike: right as often as it has the action
        counts = [(truth.action == action).sum() for action in score.per_action]
        result["chance"] = float(np.mean(counts) / len(task.found["test"].frame))
    return result


def read_task(given: argparse.Namespace) -> DetectionTask:
    """Return what the command's files say.

    Raises:
      ValueError: nothing could be learned from them, or judged on them.
    """
    names = ava.read_actions(given.actions)
    excluded = ava.read_excluded(given.excluded) if given.excluded else set()
    parts = {"train": given.train, "test": given.test}
    rows = {part: ava.read_annotations(path).without(excluded) for part, path in parts.items()}
    found = {part: ava.collect_instances(rows[part], sorted(names)) for part in rows}
    for part, path in parts.items():
        if found[part].keys and not found[part].labels.any():
            raise ValueError(f"{path} has none of the actions in {given.actions}")
    if given.boxes:
        boxes = ava.read_predictions(given.boxes).without(excluded)
        boxes = boxes.take(boxes.score >= given.min_score)
        found["test"], parts["test"] = ava.collect_instances(boxes, sorted(names)), given.boxes
    for part, path in parts.items():
        if not found[part].keys:
            raise ValueError(f"{path} has no box")
    videos = np.unique(found["train"].boxes.video, return_inverse=True)[1]
    hold_out(videos, np.ones(len(videos), bool), videos, LinearProbe())  # else it fails too late
    return DetectionTask(names, rows, found)


def write_run_files(model: Pretrained, given: argparse.Namespace) -> None:
    """Write what the report wants beside results: the options, software and machine."""
    path = given.out / "config.json"
    if path.is_file() and "kind" in json.loads(path.read_text()):
        raise ValueError(f"--out must not be the folder of a run, got {given.out}")
    given.out.mkdir(parents=True, exist_ok=True)
    encoder = json.loads(config.describe(model.encoder).to_json())
    files.write_text(path, json.dumps({**vars(given), "encoder": encoder}, indent=2, default=str))
    files.write_text(
        given.out / "environment.json", json.dumps(provenance.describe_environment(), indent=2)
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the command's options."""
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
        parser.add_argument(f"--{name}", type=storage.local_path, required=True, help=text)
    parser.add_argument(
        "--excluded", type=storage.local_path, help="key frames to leave out, of both parts"
    )
    parser.add_argument(
        "--boxes", type=storage.local_path, help="detected boxes of the test, as predictions"
    )
    parser.add_argument(
        "--min-score", type=float, default=0.8, help="of the boxes taken of these (default 0.8)"
    )
    parser.add_argument(
        "--capacity", type=int, default=0, help="predictions that count a key frame"
    )
    parser.add_argument("--start", type=float, default=0.0, help="time at which files begin, s")
    parser.add_argument("--times", choices=("seconds", "frames"), default="seconds")
    parser.add_argument(
        "--max-failed",
        type=float,
        default=Loader().max_failed,
        help="share of key frames that may be unreadable (default %(default)s)",
    )
    parser.add_argument(
        "--untrained",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="judge the same encoder untrained as well",
    )
    add_options(parser)
    return parser


def evaluate_encoders(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what the command finds, for the encoder and for the same one untrained.

    Raises:
      ValueError: an option or a file is wrong; where that can be known, before anything is encoded.
    """
    check.at_least(0, capacity=given.capacity)
    task, model = read_task(given), pretrained.load(given.model, step=given.step)
    size = model.augment.size
    protocol = read_encode_config(model, given, 1, (size, size))
    check.one_of(("independent", "centred"), layout=protocol.sampling.layout)
    loader = replace(protocol.loader, max_failed=given.max_failed)
    protocol = replace(protocol, loader=loader)
    write_run_files(model, given)
    found = [detect_actions(model, given.model, protocol, given.out, given, task)]
    if given.untrained:
        plain = pretrained.init_untrained(model.encoder, model.augment, protocol.sampling.frames)
        found.append(
            detect_actions(plain, "untrained", protocol, given.out / "untrained", given, task)
        )
    return found


def main(argv: list[str] | None = None) -> None:
    """Encode what is left, train the head, write and say what it found."""
    given = make_parser().parse_args(argv)
    enable_cache()
    try:
        found = evaluate_encoders(given)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}".replace("--config.", "--"))
    results.write_results(given.out / "results", found)
    for one in found:
        chance = f" (chance {one['chance']:.4f})" if "chance" in one else ""
        print(f"{one['model']['init']}: frame mAP {one['value']:.4f}{chance}")


if __name__ == "__main__":
    main()
