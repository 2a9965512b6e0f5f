"""Scan every layer of an encoder for appearance and motion: `python -m vrl_jax.scan runs/mine`.

The page and the card of an encoder, `scan.html` and `card.json` in `--out`, have for every layer:
accuracy of a linear and an attentive probe on each label, with frames in order, shuffled, reversed,
held, or one frame alone; the arrow of time; accuracy on other backgrounds and with a second, still
foreground, where there are masks; static, dynamic, joint and residual units; the effective rank.
Accuracies have 95 % intervals. Pixel baselines are scanned as well, and the encoder without
training if this library can initialise it.

The default data are `Synthetic`, 512 rendered videos to train probes on and 512 to test, labelled
by appearance (static) and by motion (dynamic). --data="Synthetic train_videos=64 test_videos=64"
is a quick trial, too small to rank layers.

The encoder is a run's folder, an exported folder, a weights file or a function, "module:name". The
folder of `--out` names the scan; one that has another scan is refused.
`--untrained=CONFIG` scans the network of a config of pretraining before training. Arguments after
`--` override `configs/eval_scan.py`: `-- --config.protocol.cluster=source` holds out together, and
resamples together, videos that share a label.

`--compare CARD CARD ...` writes one page with the cards of several encoders. Cards of different
protocols or data are in different tables.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vrl_jax import atomic_files, config, flags, run_files
from vrl_jax.config_file import read_config, split_arguments
from vrl_jax.data import remote_paths
from vrl_jax.data.video_dataset import VideoError
from vrl_jax.evaluation.eval_config import Evaluation
from vrl_jax.evaluation.evaluation_run import UNTRAINED, EvaluationRun, identify_results
from vrl_jax.experiment import Experiment
from vrl_jax.report import scan_card, scan_page
from vrl_jax.train.compilation import enable_cache

CONFIG = "configs/eval_scan.py"


def make_evaluation(
    encoder: str, untrained: str, data: str, overrides: Sequence[tuple[str, str | bool]]
) -> Evaluation:
    """Return the evaluation that scans an encoder.

    Args:
      encoder: see `Evaluation.init`.
      untrained: config file of pretraining, whose network is scanned in place of an encoder.
      data: data set, class and fields; "" for the rendered videos.
      overrides: of `CONFIG`, see `read_config`.

    Raises:
      ValueError: an invalid setting, or a config of something else than pretraining.
    """
    evaluation = config.build(flags.replace_data(read_config(CONFIG, overrides), data))
    if not untrained:
        return replace(evaluation, init=encoder)
    experiment = config.build(read_config(untrained))
    if not isinstance(experiment, Experiment):
        raise ValueError(f"--untrained must be a config of pretraining, got {untrained}")
    test = replace(
        evaluation.protocol.test,
        frames=evaluation.protocol.test.frames or experiment.sampling.frames,
        size=evaluation.protocol.test.size or experiment.augment.size,
    )
    protocol = replace(evaluation.protocol, test=test)
    return replace(evaluation, encoder=experiment.encoder, protocol=protocol)


def scan_encoder(evaluation: Evaluation, out: Path, name: str, quiet: bool = False) -> Path:
    """Run an evaluation, and return the page that it and `card.json` make in the folder `out`.

    Raises:
      ValueError: as `EvaluationRun`, several splits or subsets, or the folder has another scan.
      VideoError: too many videos cannot be read.
    """
    if evaluation.splits or getattr(evaluation.protocol, "subset", None):
        raise ValueError("a scan has one split and all training videos: drop splits and subset")
    files = {part: out / part / "layers.json" for part in ("trained", UNTRAINED)}
    run = EvaluationRun(evaluation, out, quiet)
    check_folder(run, out)
    for path in files.values():
        path.unlink(missing_ok=True)  # of an earlier scan in this folder
    run()
    card = scan_card.make_card(name, {part: p for part, p in files.items() if p.exists()})
    atomic_files.write_text(out / "card.json", json.dumps(card, indent=1))
    return scan_page.write_scan(scan_card.read_card(out / "card.json"), out / "scan.html")


def check_folder(run: EvaluationRun, out: Path) -> None:
    """Raise `ValueError` if a folder has another scan, or something else than a scan."""
    card, settings = out / "card.json", out / "config.json"
    if not (card.exists() or settings.exists()):
        return
    try:
        stamp = scan_card.read_card(card)._asdict()
        stored = identify_results(stamp, run_files.read_json(settings))
    except (OSError, ValueError) as error:
        raise ValueError(f"{out} holds no scan of this version, change --out: {error}") from error
    if stored != run.identity():
        raise ValueError(f"{out} has a scan of another encoder, protocol or data: change --out")


def main(argv: Sequence[str] | None = None) -> None:
    """Scan an encoder, or compare cards."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="vrl scan", description=__doc__, formatter_class=form)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "encoder", nargs="?", default="", help="run, folder, file or module:function"
    )
    source.add_argument("--untrained", default="", metavar="CONFIG", help="of pretraining")
    source.add_argument(
        "--compare", nargs="+", type=remote_paths.local_path, metavar="CARD", help="card.json"
    )
    parser.add_argument(
        "--data", default="", help="data set in place of rendered videos: 'JHMDB root=/data'"
    )
    parser.add_argument(
        "--sort", default="", help="result and label that order a comparison: 'order/ordered class'"
    )
    parser.add_argument(
        "--out",
        type=remote_paths.local_path,
        help="folder of the scan (default: runs/scan-NAME), or page of the comparison",
    )
    own, others = split_arguments(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(own)
    unknown, overrides = flags.split_overrides(others)
    if unknown:
        parser.error(f"arguments after -- must be --config.KEY=VALUE, got {' '.join(unknown)}")
    try:
        if args.compare:
            cards = [scan_card.read_card(path) for path in args.compare]
            if len({card.name for card in cards}) < len(cards):  # folders tell them apart
                folders = [str(path.parent) for path in args.compare]
                cards = [c._replace(name=name) for c, name in zip(cards, folders, strict=True)]
            page = scan_page.write_comparison(cards, args.out or Path("scans.html"), args.sort)
        else:
            enable_cache()
            evaluation = make_evaluation(args.encoder, args.untrained, args.data, overrides)
            name = scan_name(args.encoder or f"untrained-{Path(args.untrained).stem}")
            out = args.out or Path("runs") / f"scan-{name}"
            page = scan_encoder(evaluation, out, out.resolve().name.removeprefix("scan-") or name)
    except (ValueError, VideoError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"scan: open {page}")


def scan_name(encoder: str) -> str:
    """Return the name of an encoder's scan.

    >>> scan_name("runs/mine/"), scan_name("mylab.mine:encode"), scan_name("a/r3d.safetensors")
    ('mine', 'mylab.mine-encode', 'r3d')
    """
    name = encoder.rstrip("/").rpartition("/")[2]
    return name.removesuffix(".safetensors").replace(":", "-")


if __name__ == "__main__":
    main()
