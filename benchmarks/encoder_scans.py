"""Cards of fourteen encoders without training, and of others, on one page.

`python benchmarks/encoder_scans.py --out=runs/encoder-scans runs/mine other.safetensors` writes
random weights of each encoder, scans them and the encoders that are named on rendered videos, and
writes `encoders.html`, which orders them by the accuracy on motion. It prints a table of the last
layers. A card that is there is not made again.
"""

import argparse
import pathlib
from collections.abc import Iterator, Sequence

from benchmarks import rounds
from vrl_jax import pretrained, scan
from vrl_jax.augment.clip_views import Augment
from vrl_jax.encoders.c3d import C3D
from vrl_jax.encoders.four_ds import FourDS
from vrl_jax.encoders.r2plus1d import R2plus1D
from vrl_jax.encoders.r3d import R3D
from vrl_jax.encoders.rvm import RVM
from vrl_jax.encoders.s3d import S3D
from vrl_jax.encoders.slowonly import SlowOnly
from vrl_jax.encoders.timesformer import TimeSformer
from vrl_jax.encoders.tiny import Tiny
from vrl_jax.encoders.videomae import VideoMAE
from vrl_jax.encoders.videoprism import VideoPrism
from vrl_jax.encoders.vit import ViT
from vrl_jax.encoders.vivit import ViViT
from vrl_jax.encoders.vjepa2 import VJEPA2
from vrl_jax.report import scan_card
from vrl_jax.report.scan_card import ScanCard

FRAMES, SIZE = 16, 32
NARROW = {"width": 192, "depth": 4, "heads": 3, "patch": 8}  # transformers, for clips of this size
CLIP = {"frames": FRAMES, "size": SIZE}
ENCODERS = (
    *(Tiny(), C3D(), R3D(), R2plus1D(), S3D(), SlowOnly()),
    *(ViT(**NARROW), VideoMAE(**NARROW), VJEPA2(**NARROW), ViViT(**NARROW, **CLIP)),
    *(TimeSformer(**NARROW, **CLIP), VideoPrism(**NARROW, **CLIP, time_depth=2)),
    *(FourDS(**NARROW, **CLIP), RVM(**NARROW, core_depth=2)),
)
MOTION = "order/ordered", "dynamic"  # orders the encoders
COLUMNS = {
    "appearance": ("order/ordered", "static"),
    "motion": MOTION,
    "motion, attentive": ("attentive/ordered", "dynamic"),
    "motion, shuffled": ("order/shuffled", "dynamic"),
    "motion, one frame": ("order/frozen", "dynamic"),
    "arrow of time": ("arrow/forward-backward", "direction"),
}


def write_weights(folder: pathlib.Path, seed: int) -> Iterator[pathlib.Path]:
    """Write the random weights of every encoder, and yield the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for encoder in ENCODERS:
        path = folder / f"{type(encoder).__name__}.safetensors"
        if not path.exists():
            weights = pretrained.init_untrained(encoder, Augment(size=SIZE), FRAMES, seed)
            pretrained.save(path, weights)
        yield path


def make_table(cards: Sequence[ScanCard]) -> str:
    """Return the results of the last layers as Markdown, the best on motion first."""
    results = {
        card.name: {
            name: card.find_result(card.layers[-1], *column).value
            for name, column in COLUMNS.items()
        }
        for card in cards
    }
    by_motion = sorted(results.items(), key=lambda entry: -entry[1]["motion"])
    rows = [[name, *(f"{value:.3f}" for value in row.values())] for name, row in by_motion]
    return rounds.markdown_table(["encoder", *COLUMNS], rows)


def main() -> None:
    """Scan the encoders, write the page and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("others", nargs="*", help="encoders as `vrl scan` takes them")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/encoder-scans"))
    parser.add_argument("--videos", type=int, default=128, help="training and test videos each")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    args = parser.parse_args()
    encoders = [*map(str, write_weights(args.out / "weights", args.seed)), *args.others]
    folders = [args.out / scan.scan_name(encoder) for encoder in encoders]
    data = f"Synthetic train_videos={args.videos} test_videos={args.videos}"
    for encoder, folder in zip(encoders, folders, strict=True):
        if not (folder / "card.json").exists():
            options = [f"--data={data}", f"--out={folder}", "--", "--config.untrained=False"]
            scan.main([encoder, *options])
    cards = [str(folder / "card.json") for folder in folders]
    page = args.out / "encoders.html"
    scan.main(["--compare", *cards, f"--sort={' '.join(MOTION)}", f"--out={page}"])
    print(make_table([scan_card.read_card(pathlib.Path(card)) for card in cards]))


if __name__ == "__main__":
    main()
