"""Damaged files given to the public commands end in results or a one-line error.

`python -m tests.test_damaged_inputs 1000` tries as many variants of each kind of file, and
`python -m tests.test_damaged_inputs 1000:1100 tars` those with numbers 1000 to 1099 of one kind. A
variant is a function of its kind and number.
"""

import multiprocessing
import os
import pathlib
import re
import shutil
import sys
import tempfile
import zipfile
import zlib

import numpy as np
import pytest

from tests.convert.test_weight_files import SMALL, draw
from tests.data.datasets.test_record_shards import (
    encode,
    sequence,
    write_tar,
    write_tfrecords,
)
from tests.data.test_fuzz import DAMAGES
from tests.data.video.test_video_decoder import CLIPS, write_clip
from tests.report.conftest import fake_run
from vrl_jax import __main__ as vrl
from vrl_jax import pretrained
from vrl_jax.augment.clip_views import Augment
from vrl_jax.convert import weight_files
from vrl_jax.data.tools import video_index, video_transcoder
from vrl_jax.encoders.tiny import Tiny

SECONDS = 120  # for one command, on a busy machine
PRELOADED = [  # what the commands import; not what they run
    "tests.test_damaged_inputs",
    "vrl_jax.convert.weight_files",
    "vrl_jax.evaluation.evaluation_run",
    "vrl_jax.pretraining.pretraining_run",
    "vrl_jax.probes.feature_file",
    "vrl_jax.report.html_page",
]
ROOT = pathlib.Path(__file__).parents[1]


def swap_lines(rng, data):
    """Exchange two lines, which leaves every line valid."""
    lines = data.split(b"\n")
    i, j = rng.integers(len(lines), size=2)
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


# Each kind writes good input into a folder and returns the files to damage and the command.


def write_weights(folder):
    encoder = Tiny(widths=(4, 6), strides=(4, 2))
    file = folder / "w.safetensors"
    pretrained.save(file, pretrained.init_untrained(encoder, Augment(size=16), frames=4, seed=1))
    return file


def embed(folder, *source):
    """Return the command that reads a clip of every video."""
    options = ["--clips=1", "--frames=4", "--stride=1", "--workers=0"]
    return ["embed", write_weights(folder), *source, *options]


def write_classes(folder, names):
    for number, (name, options) in enumerate(names.items()):
        for split in ("train", "val"):
            path = folder / split / f"class {number % 2}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_clip(path, frames=12, video=number, **options)


def clips(folder):
    write_classes(folder, CLIPS)
    return folder.rglob("*.*"), ["index", folder, "--workers=0"]


def zips(folder):
    for name in ("train/a/x", "train/b/y", "val/a/x", "val/b/y"):
        path = folder / f"{name}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as file:
            for number in range(12):
                file.writestr(f"{number}.jpg", encode(number))
    return folder.rglob("*.zip"), embed(folder, folder)


def tars(folder):
    write_clip(folder / "clip.mp4", frames=12)
    data = (folder / "clip.mp4").read_bytes()
    for name in ("train", "test"):
        members = {f"{k}.{end}": v for k in "ab" for end, v in (("mp4", data), ("cls", b"1"))}
        write_tar(folder / f"{name}.tar", **members)
    source = ["WebDataset", f"train_shards={folder}/train.tar", f"test_shards={folder}/test.tar"]
    return folder.glob("*.tar"), embed(folder, *source)


def tables(folder):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    write_clip(folder / "clip.mp4", frames=12)
    rows = {"video": [(folder / "clip.mp4").read_bytes()] * 3, "label": ["walk", "run", "walk"]}
    for name in ("train", "test"):
        parquet.write_table(pa.table(rows), folder / f"{name}.parquet", row_group_size=2)
    source = [f"{part}_shards={folder}/{part}.parquet" for part in ("train", "test")]
    return folder.glob("*.parquet"), embed(folder, "Parquet", *source)


def records(folder):
    (folder / "classes.txt").write_text("walk\nrun\n")
    for name in ("train", "test"):
        examples = [
            sequence([encode(i) for i in range(12)], **{"clip_label_text": b"walk"})
            for _ in range(2)
        ]
        write_tfrecords(folder / f"{name}.tfrecord", *examples)
    source = [f"{part}_shards={folder}/{part}.tfrecord" for part in ("train", "test")]
    source = ["SequenceExamples", *source, f"classes={folder}/classes.txt"]
    return [*folder.glob("*.t*")], embed(folder, *source)


def lists(folder):
    names = [f"v {number}.mp4" for number in range(4)]
    for number, name in enumerate(names):
        write_clip(folder / name, frames=12, video=number)
    for part in ("train", "test"):
        text = "".join(f"{name} {number % 3}\n" for number, name in enumerate(names))
        (folder / f"{part}.txt").write_text(text)
    (folder / "classes.txt").write_text("0 walk\n1 run\n2 jump\n")
    source = [f"{part}_list={folder}/{part}.txt" for part in ("train", "test")]
    command = ["index", "ListFile", f"root={folder}", *source, f"classes={folder}/classes.txt"]
    return folder.glob("*.txt"), [*command, "--workers=0"]


def indexed(folder):
    write_classes(folder / "set", {name: CLIPS[name] for name in ("no_b.mp4", "b.avi")})
    video_index.main([str(folder / "set"), f"--out={folder}/index", "--workers=0"])
    return (folder / "index").iterdir(), ["prepare", folder / "index", "--workers=0"]


def shards(folder):
    indexed(folder)
    video_transcoder.main(
        [str(folder / "index"), f"--out={folder}/shards", "--short-side=32", "--workers=0"]
    )
    return (folder / "shards").iterdir(), embed(folder, "Prepared", f"root={folder}/shards")


def safetensors(folder):
    return [write_weights(folder)], ["convert", folder / "w.safetensors"]


def pickles(folder):
    pytest.importorskip("torch")
    weight_files.write_weights(folder / "w.pth", draw(SMALL), "torchvision")
    return folder.iterdir(), ["convert", folder / "w.pth"]


def reports(folder):
    fake_run(folder / "run", np.random.default_rng(0), steps=20)
    return (path for path in folder.rglob("*") if path.is_file()), ["report", folder / "run"]


def configs(folder):
    shutil.copy(ROOT / "configs" / "synthetic_bod.py", folder)
    return folder.iterdir(), ["train", f"--config={folder}/synthetic_bod.py", "--config.help"]


def checkpoints(folder):
    from tests import test_main

    test_main.finish(test_main.launch("synthetic_simclr", folder / "run", train__steps=2))
    files = [*(folder / "run" / "checkpoints").rglob("*"), folder / "run" / "config.json"]
    return (path for path in files if path.is_file()), ["convert", folder / "run"]


KINDS = {
    kind.__name__: kind
    for kind in (
        clips,
        zips,
        tars,
        tables,
        records,
        lists,
        indexed,
        shards,
        safetensors,
        pickles,
        reports,
        configs,
        checkpoints,
    )
}
WITH_OUT = {"index": "out", "prepare": "out", "convert": "out.safetensors", "embed": "out.npz"}


def serve(command, log):
    """Run a command of `vrl` in this process, its output in a file."""
    with open(log, "wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    sys.argv = ["vrl", *command]
    vrl.main()


def damage_one(kind, number, folder, files):
    """Damage one file in place, and return the name of what was done."""
    rng = np.random.default_rng((zlib.crc32(kind.encode()), number))
    path = folder / files[rng.integers(len(files))]
    data = path.read_bytes()
    damage = (*DAMAGES, swap_lines)[rng.integers(len(DAMAGES) + 1)]
    path.write_bytes(damage(rng, data) if data else b"\x00")
    return f"{kind} {number}: {damage.__name__} {path.relative_to(folder)}"


def outcome(context, command, log):
    """Return "done", "refused" or what went wrong with a command."""
    process = context.Process(target=serve, args=([str(word) for word in command], str(log)))
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        return f"no end in {SECONDS} s"
    text = log.read_text(errors="replace")
    if "Traceback" in text or process.exitcode < 0:
        return f"exit code {process.exitcode}: {text[-3000:]}"
    if process.exitcode == 0:
        return "done"
    last = text.rstrip("\n").rpartition("\n")[2]
    one_line = re.match(r"(.*\r)?(error: |vrl \w+: )\S", last)
    return "refused" if one_line else f"not one line: {text[-3000:]}"


def try_variants(kind, numbers, folder):
    """Return the outcome of the good files and of each variant of a kind, by its description."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    good = folder / "good"
    good.mkdir()
    files, command = KINDS[kind](good)
    files = sorted(str(path.relative_to(good)) for path in files)

    def run(number=None):
        with tempfile.TemporaryDirectory(dir=folder) as copy:
            damaged = pathlib.Path(copy) / "good"
            shutil.copytree(good, damaged)
            name = "good" if number is None else damage_one(kind, number, damaged, files)
            words = [str(word).replace(str(good), str(damaged)) for word in command]
            if command[0] in WITH_OUT:
                words.append(f"--out={copy}/{WITH_OUT[command[0]]}")
            return name, outcome(context, words, pathlib.Path(copy) / "log")

    return dict(run(number) for number in (None, *numbers))


def wrong(outcomes):
    """Return the outcomes that should not be."""
    sound = {name: ("done", "refused") for name in outcomes} | {"good": ("done",)}
    return {name: text for name, text in outcomes.items() if text not in sound[name]}


# Once tracebacks, or errors of several lines.
FOUND = {
    "safetensors": [18],
    "reports": [126, 128],
    "indexed": [61, 79, 184],
    "tables": [3001],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damage_ends_in_results_or_one_line(kind, tmp_path):
    numbers = [*range(12), *FOUND.get(kind, ())]
    outcomes = try_variants(kind, dict.fromkeys(numbers), tmp_path)
    assert len(outcomes) == 1 + len(set(numbers))
    assert not wrong(outcomes), "\n\n".join(f"{k}: {v}" for k, v in wrong(outcomes).items())
    if kind not in ("clips", "zips"):  # those are counted as unreadable
        assert "refused" in outcomes.values()


if __name__ == "__main__":
    span, *only = sys.argv[1:]
    first, _, end = span.rpartition(":")
    for kind in only or KINDS:
        with tempfile.TemporaryDirectory() as scratch:
            results = try_variants(kind, range(int(first or 0), int(end)), pathlib.Path(scratch))
        sound = [list(results.values()).count(word) for word in ("done", "refused")]
        print(
            f"{kind}: {sound[0]} done, {sound[1]} refused, {len(wrong(results))} wrong", flush=True
        )
        for name, text in wrong(results).items():
            print(f"--- {name}: {text.strip().splitlines()[-1]}", flush=True)
