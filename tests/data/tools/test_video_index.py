import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from tests.data.misbehaving import LINES, Named, Unlisted
from tests.data.video.test_video_decoder import (
    COVER,
    JITTER,
    MAIN,
    POSTER,
    set_matrix,
    write_clip,
    write_stamped,
    write_streams,
)
from vrl_jax.data.datasets import dataset_lookup, indexed
from vrl_jax.data.datasets.benchmarks import UCF101
from vrl_jax.data.datasets.indexed import Indexed, Row
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.datasets.tar_shards import WebDataset
from vrl_jax.data.datasets.transcoded import Prepared
from vrl_jax.data.datasets.video_folders import ClassFolders, ListFile
from vrl_jax.data.tools import video_index
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Splits, fingerprint

ROOT = Path(__file__).parents[3]
FAKE = "tests.data.misbehaving:Named"


def write_set(root, lines, frames=None):
    """Write a `Named` data set; files are clips of 20 + n frames unless they say otherwise."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "list.txt").write_text("".join(line + "\n" for line in lines))
    for number, line in enumerate(lines):
        path = root / line.split(",")[2]
        if path.exists() or "absent" in path.name:
            continue
        if "damaged" in path.name:
            path.write_bytes(b"\x00\x00\x00\x20ftypisom" + bytes(500))
            continue
        codec = {".avi": "mpeg4", ".webm": "libvpx", ".mpg": "mpeg2video"}.get(path.suffix)
        options = dict(codec=codec) if codec else dict(g=12)
        write_clip(path, frames=frames or 20 + number, video=number, **options)
    return root


def read(out):
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    return {row["id"]: row for row in rows}, json.loads((out / "dataset.json").read_text())


def test_every_video_is_written_down(tmp_path, capsys):
    root, out = write_set(tmp_path / "set", LINES), tmp_path / "index"
    command = [FAKE, f"root={root}", "--out", str(out), "mirror=true", "--workers=2", "--sha256"]
    video_index.main(command)
    rows, about = read(out)
    assert list(rows) == [line.split(",")[2] for line in LINES]
    for number, row in enumerate(rows.values()):
        good = number not in (2, 3)
        assert row["ok"] == good and bool(row["reason"]) == (not good)
        assert row["frames"] == (20 + number) * good
        assert (row["height"], row["width"]) == (64 * good, 128 * good)
        if good:
            assert row["fps"] == pytest.approx(25) and row["rotation"] == 0
            assert row["seconds"] == pytest.approx(row["frames"] / 25, abs=1e-3)
            assert row["bytes"] == os.path.getsize(row["path"]) and len(row["sha256"]) == 64
        assert row["path"] == str(root / row["id"]) and row["relative"] == row["id"]
        assert row["labels"] == {"class": int(LINES[number].split(",")[1])}
        assert row["splits"] == (["train", "pretrain"] if number < 4 else ["test"])
    assert rows["absent.mp4"]["reason"] == "missing"
    assert "Invalid data" in rows["damaged.mp4"]["reason"]
    assert "/" not in rows["damaged.mp4"]["reason"] and rows["damaged.mp4"]["bytes"] == 512
    assert about["classes"] == {"class": ["a", "b"]} and about["mirror_safe"]
    assert about["splits"] == {"pretrain": 2, "train": 2, "test": 3} and about["readable"] == 5
    assert about["made"]["fields"] == {"root": str(root), "mirror": True}
    output = capsys.readouterr().out
    assert "7 videos, 5 readable" in output and "1 unreadable: missing" in output
    assert "most unreadable: b (1), a (1)" in output or "a (1), b (1)" in output

    before = (out / "manifest.jsonl").stat()
    video_index.main(command)
    assert f"{out} is finished" in capsys.readouterr().out
    assert (out / "manifest.jsonl").stat() == before
    for other in (command[:-1], [*command, "mirror=false"]):
        with pytest.raises(
            SystemExit, match="^error: .* made with other settings: .* another --out"
        ):
            video_index.main(other)


def test_rows_describe_the_video_that_is_read(tmp_path):
    clip = Path(write_clip(tmp_path / "transposed.mp4", frames=3))
    clip.write_bytes(set_matrix(clip.read_bytes(), (0, 1, 1, 0)))
    write_streams(tmp_path / "poster.mkv", POSTER, MAIN)
    write_streams(tmp_path / "song.mp4", COVER)
    write_stamped(tmp_path / "browser.webm", JITTER, "libvpx")
    rows = {
        path.stem: Row(
            path.stem,
            ("train",),
            str(path),
            path.name,
            {},
            **video_index._check_video((VideoFile(str(path)), False)),
        )
        for path in tmp_path.iterdir()
    }
    shapes = {name: (row.height, row.width) for name, row in rows.items()}
    assert shapes == {
        "transposed": (128, 64),
        "poster": (64, 128),
        "browser": (64, 128),
        "song": (0, 0),
    }
    row = rows["transposed"]
    assert (row.mirrored, row.rotation, row.streams) == (True, 90, 1)
    row = rows["poster"]
    assert (row.frames, row.fps, row.seconds, row.streams) == (20, 25.0, 0.8, 2)
    assert rows["browser"].fps == pytest.approx(20 / 0.665)
    assert rows["browser"].seconds == pytest.approx(21 * 0.665 / 20, abs=1e-3)
    assert rows["song"].reason == "it has no video stream"
    about = {"splits": {}, "readable": 3, "classes": {}}
    summary = video_index.summarize_index(list(rows.values()), about)
    assert "1 with several video streams: the one with the largest frames is read" in summary
    assert "several" not in video_index.summarize_index([rows["browser"]], about)


def test_the_hash_is_of_the_videos_not_of_where_they_are(tmp_path):
    hashes = []
    for name, workers in (("one", 0), ("two", 2)):
        root, out = write_set(tmp_path / name, LINES), tmp_path / f"index {name}"
        video_index.index_videos(Named(str(root)), out, workers)
        hashes.append(indexed.load_manifest(out)[1]["hash"])
    assert hashes[0] == hashes[1]
    changes = (
        lambda root: (root / "list.txt").write_text("\n".join(["train,0,plain.mp4", *LINES[1:]])),
        lambda root: write_clip(root / "plain.mp4", frames=19),
        lambda root: (root / "plain.mp4").unlink(),
    )
    for number, change in enumerate(changes):
        root, out = write_set(tmp_path / f"other {number}", LINES), tmp_path / f"index {number}"
        change(root)
        video_index.index_videos(Named(str(root)), out, workers=0)
        hashes.append(indexed.load_manifest(out)[1]["hash"])
    assert len(set(hashes)) == 4


def test_what_hangs_or_crashes_is_written_down(tmp_path):
    lines = ["train,0,hang.mp4", "train,0,crash.mp4", "train,1,a.mp4", "train,1,crash 2.mp4"]
    lines += [f"test,0,{letter}.mp4" for letter in "bcdefg"]
    root, out = write_set(tmp_path / "set", lines), tmp_path / "index"
    summary = video_index.index_videos(Named(str(root)), out, workers=2, time_limit=3.0)
    rows, _ = read(out)
    assert rows["hang.mp4"]["reason"] == "not done within 3 s"
    for name in ("crash.mp4", "crash 2.mp4"):
        assert rows[name]["reason"] == "the decoder crashed with exit code 3"
    assert sum(row["ok"] for row in rows.values()) == 7
    assert "2 unreadable: the decoder crashed with" in summary


def test_only_the_readable_are_in_the_data_set(tmp_path):
    root, out = write_set(tmp_path / "set", LINES), tmp_path / "index"
    video_index.index_videos(Named(str(root)), out, workers=0)
    data = Indexed(str(out))
    assert isinstance(data, Splits)
    train, test = data.train(), data.test()
    assert [video.id for video in train.videos] == ["plain.mp4", "with [odd] name (1)!.avi"]
    assert [video.labels["class"] for video in test.videos] == [1, 0, 1]
    assert data.pretrain() == train and train.classes == {"class": ("a", "b")}
    assert not train.mirror_safe and not train.reverse_safe
    with test[0].media.open() as reader:
        assert reader.num_frames == 24
    root.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="2 of 2 listed videos are missing"):
        data.train()
    moved = Indexed(str(out), str(tmp_path / "moved")).train()
    assert moved[1].media.path == str(tmp_path / "moved" / "with [odd] name (1)!.avi")


def test_a_manifest_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(ValueError, match="manifest must be a folder, got ''.*--config.data.man"):
        Indexed().train()
    with pytest.raises(ValueError, match="no finished manifest.*vrl_jax.data.index SOURCE --out="):
        Indexed(str(tmp_path)).train()
    root, out = write_set(tmp_path / "set", LINES[:4]), tmp_path / "index"
    video_index.index_videos(Named(str(root)), out, workers=0)
    with pytest.raises(ValueError, match="no readable test video"):
        Indexed(str(out)).test()
    path = out / "manifest.jsonl"
    path.write_text(path.read_text().replace('"frames": 20', '"frames": 21'))
    with pytest.raises(ValueError, match="dataset.json belongs to another manifest.jsonl"):
        Indexed(str(out)).train()
    (out / "dataset.json").unlink()
    with pytest.raises(ValueError, match="no finished manifest"):
        Indexed(str(out)).train()


def test_videos_are_excluded(tmp_path, capsys):
    lines = [*LINES, "test,1,plain.mp4"]
    root, out = write_set(tmp_path / "set", lines), tmp_path / "index"
    video_index.index_videos(Named(str(root)), out, workers=0)
    before, about = read(out)
    bad = tmp_path / "quarantine.jsonl"
    entries = [
        {"step": 3, "part": "train", "id": "plain.mp4", "reason": "broken in the middle"},
        {"id": "vp8.webm", "reason": f"{root}/{read(out)[0]['vp8.webm']['relative']}: broken"},
    ]
    bad.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    video_index.main([f"--exclude={bad}", f"--out={out}"])
    assert "1 unreadable: broken in the middle (such as plain.mp4)" in capsys.readouterr().out
    entries[1]["reason"] = "broken"
    after, changed = read(out)
    for entry in entries:
        before[entry["id"]] |= {"ok": False, "reason": entry["reason"]}
    assert after == before and changed["hash"] != about["hash"]
    assert changed["readable"] == about["readable"] - 2 and changed["made"] == about["made"]
    assert [video.id for video in Indexed(str(out)).train().videos] == [LINES[1].split(",")[2]]
    for unknown in ({"id": "nobody"}, {"id": "vp8.webm", "part": "train"}):
        bad.write_text(json.dumps({**unknown, "reason": "x"}))
        with pytest.raises(SystemExit, match=f"has no video '{unknown['id']}'"):
            video_index.main([f"--exclude={bad}", f"--out={out}"])
    assert read(out)[0] == after
    with pytest.raises(SystemExit, match="no finished manifest"):
        video_index.main([f"--exclude={bad}", f"--out={tmp_path}"])


def test_excluding_can_be_repeated_when_it_was_cut_off(tmp_path):
    root, out = write_set(tmp_path / "set", LINES), tmp_path / "index"
    video_index.index_videos(Named(str(root)), out, workers=0)
    old, bad = (out / "dataset.json").read_text(), tmp_path / "bad.jsonl"
    bad.write_text('{"id": "plain.mp4", "reason": "broken"}\n')
    video_index.exclude_videos(bad, out)
    new = (out / "dataset.json").read_text()
    (out / "dataset.json").write_text(old)  # as if killed between the two files
    with pytest.raises(ValueError, match="if excluding videos was interrupted, repeat it"):
        Indexed(str(out)).train()
    video_index.exclude_videos(bad, out)
    assert (out / "dataset.json").read_text() == new


def test_a_torn_line_is_ignored_and_what_is_known_is_not_read_again(tmp_path):
    root, out = write_set(tmp_path / "set", LINES), tmp_path / "index"
    source = Named(str(root))
    video_index.index_videos(source, out, workers=0)
    whole = {name: (out / name).read_text() for name in os.listdir(out)}
    assert set(whole) == {"manifest.jsonl", "dataset.json"}
    lines = whole["manifest.jsonl"].splitlines(keepends=True)
    header = json.dumps(json.loads(whole["dataset.json"])["made"]) + "\n"
    marked = lines[0].replace('"frames": 20', '"frames": 99')
    for text, result in ((header[:9], lines[0]), (header + marked + lines[4][:30], marked)):
        for name in whole:
            (out / name).unlink()
        (out / video_index.PART).write_text(text)
        video_index.index_videos(source, out, workers=0)
        again = (out / "manifest.jsonl").read_text().splitlines(keepends=True)
        assert again == [result, *lines[1:]] and set(os.listdir(out)) == set(whole)
    for name in whole:
        (out / name).unlink()
    (out / video_index.PART).write_text(header)
    with pytest.raises(ValueError, match="fields.mirror: was False, is True.* another --out"):
        video_index.index_videos(Named(str(root), True), out, workers=0)
    write_clip(root / "absent.mp4", frames=5)  # what came since is seen
    (out / video_index.PART).write_text(header + lines[2])
    video_index.index_videos(source, out, workers=0)
    assert read(out)[0]["absent.mp4"]["frames"] == 5


def progress(path):
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def kill_and_repeat(command, out, done, rng, kills):
    """Run a command until it ends well, killing it after that many more steps each time."""
    killed = 0
    while True:
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        target = done(out) + int(rng.integers(1, 4))
        while killed < kills and process.poll() is None and done(out) < target:
            time.sleep(0.005)
        if killed < kills and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        elif process.wait() == 0:
            return killed
        else:
            raise AssertionError(f"exit code {process.returncode}")
        process.wait()


@pytest.mark.slow
def test_killing_changes_nothing(tmp_path, rng):
    kills, videos = 10, 100
    lines = [f"{'train' if n % 3 else 'test'},{n % 2},slow {n}.mp4" for n in range(videos)]
    root = write_set(tmp_path / "set", lines, frames=4)
    once, out = tmp_path / "once", tmp_path / "killed"
    video_index.index_videos(Named(str(root)), once)
    command = [sys.executable, "-m", "vrl_jax.data.index", FAKE, f"root={root}"]
    command += ["--workers=2", f"--out={out}"]
    assert (
        kill_and_repeat(command, out, lambda at: progress(at / video_index.PART), rng, kills)
        == kills
    )
    names = sorted(os.listdir(once))
    assert sorted(os.listdir(out)) == names
    for name in names:
        assert (out / name).read_bytes() == (once / name).read_bytes(), name


def test_data_sets_are_built_from_the_command_line(tmp_path):
    assert dataset_lookup.build_dataset("UCF101", ["root=/a b", "split=2"]) == UCF101(
        "/a b", split=2
    )
    lists = dataset_lookup.build_dataset(
        "ListFile", ["root=/x=y", "mirror_safe=false", "first_label=1"]
    )
    assert lists == ListFile("/x=y", mirror_safe=False, first_label=1)
    for text in ("False", "FALSE"):  # as in Python and in configs
        lists = dataset_lookup.build_dataset("ListFile", ["root=/x", f"mirror_safe={text}"])
        assert lists == ListFile("/x", mirror_safe=False)
    folders = dataset_lookup.build_dataset(str(tmp_path), ["test_folder=test"])
    assert folders == ClassFolders(str(tmp_path), test_folder="test")
    assert dataset_lookup.build_dataset(FAKE, ["mirror=true"]) == Named(mirror=True)


def test_every_data_set_of_the_folder_is_found_by_name():
    kinds = dataset_lookup.list_datasets()
    assert {UCF101, ClassFolders, WebDataset, Indexed, Prepared, Synthetic} <= set(kinds.values())
    assert all(dataset_lookup.build_dataset(name, []) == kind() for name, kind in kinds.items())
    assert {"Listed", "Scenes", "Video"}.isdisjoint(kinds)
    benchmarks = {getattr(kind, "benchmark", "") for kind in kinds.values()}
    assert benchmarks == {
        *("", "ucf101", "hmdb51", "diving48", "ssv2", "k400", "gym99", "ntu60", "charades")
    }


def test_the_hash_of_the_index_is_the_data_set_s_identity(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        write_clip(tmp_path / split / "a" / "1.mp4", frames=4)
    video_index.main([str(tmp_path), f"--out={tmp_path / 'index'}", "--workers=0"])
    expected = json.loads((tmp_path / "index" / "dataset.json").read_text())["hash"]
    assert fingerprint(Indexed(str(tmp_path / "index")).train()) == expected


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("UCF102", [], "'UCF102' is neither a folder nor a data set: data sets are Charades, Cl"),
        (
            "UCF101",
            ["splits=1"],
            r"no field 'splits': its fields are root \(str\), annotations \(str\), split",
        ),
        ("UCF101", ["split=one"], r"split='one' has the wrong type: .* split \(int\)"),
        ("UCF101", ["split"], "split='' has the wrong type"),
        ("ListFile", ["mirror_safe=1"], "mirror_safe='1' has the wrong type"),
        ("tests.data.misbehaving:NOT_LISTING", [], "is not a data set: it must be a dataclass"),
        ("tests.data.absent:Named", [], "is not a data set: No module named"),
    ],
)
def test_a_data_set_that_is_none_is_refused(name, settings, says):
    with pytest.raises(ValueError, match=says):
        dataset_lookup.build_dataset(name, settings)


def test_other_media_than_files_are_refused(tmp_path):
    write_clip(tmp_path / "a.mp4", frames=3)
    (tmp_path / "a.cls").write_text("0")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("a.mp4", "a.cls"):
            tar.add(tmp_path / name, name)
    with pytest.raises(ValueError, match="only data sets of video files .*, got Unlisted"):
        video_index.index_videos(Unlisted(), tmp_path / "index")
    with pytest.raises(ValueError, match="only video files can be indexed, got StoredVideo"):
        video_index.index_videos(WebDataset(str(tmp_path), str(tmp_path)), tmp_path / "index")


def test_a_rotated_video_is_upright(videos, tmp_path):
    (tmp_path / "list.txt").write_text("video_90.mov 0\n")
    path = str(tmp_path / "list.txt")
    source = ListFile(str(videos / "diverse" / "decord"), path, path)
    video_index.index_videos(source, tmp_path / "index")
    row = indexed.load_manifest(tmp_path / "index")[0][0]
    assert row.splits == ("train", "test", "pretrain")
    assert (row.height, row.width, row.rotation, row.frames) == (568, 320, -90, 3)
    video = Indexed(str(tmp_path / "index")).test()[0]
    with video.media.open() as reader:
        assert reader.read(np.array([[0]]), (568, 320)).shape == (1, 1, 568, 320, 3)


def test_nothing_here_imports_jax():
    names = "vrl_jax.data.index, vrl_jax.data.prepare, vrl_jax.data.datasets.dataset_lookup"
    code = f"import {names}, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        (
            "manifest.jsonl",
            '"frames"',
            '"framesframes"',
            r"manifest.jsonl, line 1 is damaged.*framesframes",
        ),
        ("manifest.jsonl", '"fps": 25.0', '"fps": "25.0"', "line 1 is damaged.*fps is '25.0'"),
        ("manifest.jsonl", '"relative"', '"relative\x00"', "line 1 is damaged.*control character"),
        (
            "dataset.json",
            '"readable"',
            '"treadable"',
            "dataset.json is damaged.*KeyError: 'readable'",
        ),
        ("dataset.json", "{", "[", "dataset.json is damaged.*JSONDecodeError"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path, name, old, new, says):
    about = {"classes": {"class": ["a"]}, "mirror_safe": True, "made": {}}
    row = Row("a/x", ("train",), "/a/x.mp4", "a/x.mp4", {"class": 0}, 5, 25.0, 64, 48, ok=True)
    indexed.save_manifest(tmp_path, [row], about)
    assert indexed.load_manifest(tmp_path)[0] == [row]
    path = tmp_path / name
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=says):
        indexed.load_manifest(tmp_path)
