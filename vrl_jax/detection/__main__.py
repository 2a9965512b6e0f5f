"""Spatio-temporal action detection on AVA, by a linear head on a frozen encoder.

`python -m vrl_jax.detection runs/mine --root=VIDEOS --train=train.csv --test=val.csv
--actions=list.pbtxt --out=folder` encodes the clip around each key frame of AVA's files, pools the
features of each box, trains the head and writes `predictions.csv` and
`results/detection-action.json`. Features are kept in `{train,test}-frames.npz` (of each key frame,
per frame) and `{train,test}-boxes.npz`. The same is done for the untrained encoder, in the folder
`untrained`. After an interruption the same command resumes.

As in SlowFast, a box's features are the last feature map, averaged over time, RoIAlign 7 x 7,
maximum over space; every class has a sigmoid; and detected boxes count from a score of 0.8. Unlike
SlowFast, the encoder is frozen, its map keeps its own stride (SlowFast halves the last), the whole
frame is letterboxed into a square, and clips are sampled as in the run. Scores in
`predictions.csv` are logits. Test boxes are the annotated ones, which gives higher scores, unless
`--boxes` provides detected ones.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vrl_jax import atomic_files, check, config, pretrained
from vrl_jax.data import remote_paths
from vrl_jax.data.data_loader import Loader
from vrl_jax.detection import ava_boxes
from vrl_jax.detection.action_head import predict_actions, train_head
from vrl_jax.detection.ava_boxes import Boxes, Instances
from vrl_jax.detection.box_features import (
    POOLING,
    KeyFrameVideos,
    encode_boxes,
    hash_annotations,
    hash_boxes,
)
from vrl_jax.detection.frame_metrics import frame_mean_ap
from vrl_jax.evaluation.encode_videos import EncodeConfig, add_options, read_encode_config
from vrl_jax.evaluation.result_stamp import describe_model
from vrl_jax.pretrained import Pretrained
from vrl_jax.probes import result_files
from vrl_jax.probes.linear_probe import LinearProbe, hold_out
from vrl_jax.train import provenance
from vrl_jax.train.compilation import enable_cache


class DetectionTask(NamedTuple):
    """Annotations and boxes of a detection task.

    Attributes:
      names: of the evaluated actions, by number.
      annotations: of "train" and "test".
      instances: boxes to encode of "train" and "test".
    """

    names: dict[int, str]
    annotations: dict[str, Boxes]
    instances: dict[str, Instances]

    def identify(self) -> dict[str, str]:
        """Return the hashes of the annotations, and of the test boxes."""
        hashes = {
            part: hash_annotations(rows, self.names) for part, rows in self.annotations.items()
        }
        return {**hashes, "boxes": hash_boxes(self.instances["test"])}


def detect_actions(
    model: Pretrained,
    init: str,
    protocol: EncodeConfig,
    out: Path,
    args: argparse.Namespace,
    task: DetectionTask,
) -> dict[str, Any]:
    """Evaluate one encoder on the task and return the result.

    Args:
      model: the encoder.
      init: name of the encoder in the result.
      protocol: sampling and decoding of clips.
      out: folder for features and predictions.
      args: command-line options.
      task: annotations and boxes.
    """
    out.mkdir(parents=True, exist_ok=True)
    videos = KeyFrameVideos(args.root, args.start, args.times == "seconds")
    about = {
        "model": {"config": repr(model.encoder), **describe_model(model)},
        "protocol": {
            **protocol.describe(model, POOLING),
            "resizing": "whole frame, letterboxed into a square",
            "times": args.times,
            "start": args.start,
        },
    }
    encoded = {
        part: encode_boxes(model, instances, videos, protocol, about, out / part)
        for part, instances in task.instances.items()
    }
    actions, settings, truth = sorted(task.names), LinearProbe(), task.annotations["test"]
    head = train_head(
        encoded["train"], task.annotations["train"], encoded["test"], actions, settings
    )
    predictions = predict_actions(encoded["test"], head.logits, actions)
    ava_boxes.write_predictions(out / "predictions.csv", predictions)
    score = frame_mean_ap(truth, predictions, actions, capacity=args.capacity)
    boxes = {"boxes": "detected", "min_score": args.min_score} if args.boxes else {}
    scoring = {"boxes": "annotated", "capacity": args.capacity, "head": asdict(settings), **boxes}
    result = {
        "name": "detection",
        "label": "action",
        "metric": "frame mAP at IoU 0.5",
        "value": score.value,
        "per_class": {task.names[action]: value for action, value in score.per_action.items()},
        "held_out_map": head.held_out_score,
        "chosen": {"learning_rate": head.learning_rate, "weight_decay": head.weight_decay},
        "unreadable": {part: int((~each.readable).sum()) for part, each in encoded.items()},
        "model": {**about["model"], "init": init},
        "protocol": {"split": "train, test", **about["protocol"], **scoring},
        "data": {"set": "boxes in AVA's format", **task.identify()},
        "commit": provenance.source_commit(),
    }
    if not args.boxes:  # equal scores for all boxes: the precision is the frequency of the action
        counts = [(truth.action == action).sum() for action in score.per_action]
        result["chance"] = float(np.mean(counts) / len(task.instances["test"].frame))
    return result


def read_task(args: argparse.Namespace) -> DetectionTask:
    """Read the annotations and boxes that the options name.

    Raises:
      ValueError: a file is malformed, or has no boxes or no evaluated actions.
    """
    names = ava_boxes.read_actions(args.actions)
    excluded = ava_boxes.read_excluded(args.excluded) if args.excluded else set()
    paths = {"train": args.train, "test": args.test}
    rows = {
        part: ava_boxes.read_annotations(path).without(excluded) for part, path in paths.items()
    }
    instances = {part: ava_boxes.collect_instances(rows[part], sorted(names)) for part in rows}
    for part, path in paths.items():
        if instances[part].keys and not instances[part].labels.any():
            raise ValueError(f"{path} has none of the actions in {args.actions}")
    if args.boxes:
        boxes = ava_boxes.read_predictions(args.boxes).without(excluded)
        boxes = boxes.take(boxes.score >= args.min_score)
        instances["test"], paths["test"] = (
            ava_boxes.collect_instances(boxes, sorted(names)),
            args.boxes,
        )
    for part, path in paths.items():
        if not instances[part].keys:
            raise ValueError(f"{path} has no box")
    videos = np.unique(instances["train"].boxes.video, return_inverse=True)[1]
    hold_out(videos, np.ones(len(videos), bool), videos, LinearProbe())  # fail before encoding
    return DetectionTask(names, rows, instances)


def write_run_files(model: Pretrained, args: argparse.Namespace) -> None:
    """Write config.json and environment.json, which the report reads."""
    path = args.out / "config.json"
    if path.is_file() and "kind" in json.loads(path.read_text()):
        raise ValueError(f"--out must not be the folder of a run, got {args.out}")
    args.out.mkdir(parents=True, exist_ok=True)
    encoder = json.loads(config.describe(model.encoder).to_json())
    atomic_files.write_text(
        path, json.dumps({**vars(args), "encoder": encoder}, indent=2, default=str)
    )
    atomic_files.write_text(
        args.out / "environment.json", json.dumps(provenance.describe_environment(), indent=2)
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="vrl detect", description=__doc__, formatter_class=form)
    parser.add_argument("model", help="a run's folder, or weights as for vrl_jax.pretrained.load")
    for name, text in (
        ("root", "folder of the videos"),
        ("train", "training annotations"),
        ("test", "test annotations"),
        ("actions", "label map of the actions to evaluate"),
        ("out", "output folder"),
    ):
        parser.add_argument(f"--{name}", type=remote_paths.local_path, required=True, help=text)
    parser.add_argument(
        "--excluded", type=remote_paths.local_path, help="key frames to leave out of train and test"
    )
    parser.add_argument(
        "--boxes",
        type=remote_paths.local_path,
        help="detected test boxes, in the format of predictions",
    )
    parser.add_argument(
        "--min-score", type=float, default=0.8, help="of detected boxes (default %(default)s)"
    )
    parser.add_argument(
        "--capacity",
        type=int,
        default=0,
        help="highest-scoring predictions per key frame that count (default 0: all)",
    )
    parser.add_argument(
        "--start", type=float, default=0.0, help="time of the first frame of the video files, s"
    )
    parser.add_argument("--times", choices=("seconds", "frames"), default="seconds")
    parser.add_argument(
        "--max-failed",
        type=float,
        default=Loader().max_failed,
        help="fraction of key frames that may be unreadable (default %(default)s)",
    )
    parser.add_argument(
        "--untrained",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also evaluate the untrained encoder",
    )
    add_options(parser)
    return parser


def evaluate_encoders(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the results of the encoder and, with --untrained, of the untrained one.

    Raises:
      ValueError: an option or a file is invalid; detected before encoding where possible.
    """
    check.at_least(0, capacity=args.capacity)
    task, model = read_task(args), pretrained.load(args.model, step=args.step)
    size = model.augment.size
    protocol = read_encode_config(model, args, 1, (size, size))
    check.one_of(("independent", "centred"), layout=protocol.sampling.layout)
    loader = replace(protocol.loader, max_failed=args.max_failed)
    protocol = replace(protocol, loader=loader)
    write_run_files(model, args)
    detections = [detect_actions(model, args.model, protocol, args.out, args, task)]
    if args.untrained:
        plain = pretrained.init_untrained(model.encoder, model.augment, protocol.sampling.frames)
        detections.append(
            detect_actions(plain, "untrained", protocol, args.out / "untrained", args, task)
        )
    return detections


def main(argv: list[str] | None = None) -> None:
    """Encode the boxes, train the head, write and print the results."""
    args = make_parser().parse_args(argv)
    enable_cache()
    try:
        detections = evaluate_encoders(args)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}".replace("--config.", "--"))
    result_files.write_results(args.out / "results", detections)
    for result in detections:
        chance = f" (chance {result['chance']:.4f})" if "chance" in result else ""
        print(f"{result['model']['init']}: frame mAP {result['value']:.4f}{chance}")


if __name__ == "__main__":
    main()
