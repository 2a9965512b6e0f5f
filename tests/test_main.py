"""The main job as a user runs it: whole, refused, interrupted and resumed, on real videos."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from absl.testing import flagsaver

from configs import synthetic_bod
from tests import quick_xla
from tests.data.video.test_video_decoder import write_clip
from vrl_jax import config, flags, main, pretrained, replay
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.datasets.video_folders import ClassFolders
from vrl_jax.data.video_dataset import VideoError

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {
    "data.pretrain_videos": 40,
    "data.train_videos": 32,
    "data.test_videos": 24,
    "train.batch": 8,
    "train.steps": 8,
    "train.log_every": 1,
    "train.probe_every": 4,
    "train.save_every": 3,
    "evaluate.batch": 8,
    "evaluate.neighbours": 2,
    "evaluate.ks": "(1,5)",
    "evaluate.knn": 5,
    "evaluate.linear.steps": 20,
    "encoder.widths": "(4,8)",
    "encoder.strides": "(4,2)",
    "framework.hidden": 16,
    "method.dim": 8,
    "sampling.frames": 8,
}


COLOURLESS = {"augment.jitter": 0.0, "augment.gray": 0.0, "augment.blur": 0.0}  # quick to compile


def command(name, workdir, **changes):
    cheap = {"method.grid": 1, "method.forecast_grid": 2} if name.endswith("_bod") else {}
    settings = {
        **SMALL,
        **cheap,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    options = [f"--config.{key}={value}" for key, value in settings.items() if value is not None]
    return [
        sys.executable,
        "-m",
        "vrl_jax.main",
        f"--config=configs/{name}.py",
        f"--workdir={workdir}",
        *options,
    ]


# One device, as a laptop has, or eight, and quick compilation.
ENVIRONMENT = {**os.environ, "XLA_FLAGS": quick_xla.FLAGS}
EIGHT_DEVICES = {"XLA_FLAGS": f"{quick_xla.FLAGS} --xla_force_host_platform_device_count=8"}
CLOCKED = {"videos_per_second", "waiting_for_data", "wall_seconds"}  # differ from run to run


def launch(name, workdir, *flags, environment=None, **changes):
    return subprocess.Popen(
        [*command(name, workdir, **changes), *flags],
        cwd=ROOT,
        env={**ENVIRONMENT, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, code=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return out + err


def losses(workdir):
    return [record["loss"] for record in records(workdir / "metrics.jsonl")]


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(workdir, step, but=()):
    """Return every array of a checkpoint: parameters, statistics, optimiser, step."""
    path = workdir / "checkpoints" / str(step) / "state"
    with ocp.PyTreeCheckpointer() as reader:
        stored = reader.metadata(path).item_metadata.tree
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        tree = reader.restore(path, restore_args=plain)
    return jax.tree.leaves({name: part for name, part in tree.items() if name not in but})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    text = finish(launch("synthetic_bod", workdir))
    return workdir, text


def test_a_run_trains_judges_and_tells(whole):
    workdir, text = whole
    assert f"report: {workdir / 'report.html'}" in text
    assert [r["step"] for r in records(workdir / "metrics.jsonl")] == list(range(1, 9))
    probes = records(workdir / "probes.jsonl")
    assert [r["step"] for r in probes] == [0, 4, 8]
    results = {path.stem: json.loads(path.read_text()) for path in workdir.glob("results/*.json")}
    kinds = {
        f"{kind}{init}"
        for label in ("static", "dynamic")
        for kind in (f"linear-{label}", f"knn-{label}", f"retrieval-{label}-none")
        for init in ("", "-untrained")
    }
    assert set(results) == kinds
    assert results["linear-static-untrained"]["model"]["step"] == 0
    assert results["linear-static"]["value"] == probes[-1]["linear/static"]
    assert results["linear-static"]["protocol"]["frames"] == 8
    assert set(results["retrieval-dynamic-none"]["values"]) == {"1", "5"}
    with np.load(workdir / "spectrum.npz") as spectrum:
        assert spectrum["eigenvalues"].shape == (3, 24, 7)
    page = (workdir / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "<svg" in page
    assert (workdir / "tensorboard").is_dir()


def run(*arguments, cwd=ROOT):
    """Run the main command; return its exit status and all that it said."""
    given = [sys.executable, "-m", "vrl_jax.main", *arguments]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(given, cwd=cwd, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_dry_run_tells_what_would_be_and_leaves_nothing(tmp_path):
    code, text = run(*command("synthetic_bod", tmp_path / "run", **COLOURLESS)[3:], "--dry_run")
    assert code == 0, text
    assert "8 steps, 1.6 epochs" in text and "u8[8, 2, 8, 32, 32, 3]" in text
    assert re.search(r"total memory +[\d.,]+ MiB", text)
    assert not list(tmp_path.iterdir())


def test_every_key_is_explained_from_any_folder(tmp_path):
    name = "--config=configs/synthetic_bod.py"  # the installed one
    code, text = run(name, "--config.optim.learning_rate=0.5", "--config.help", cwd=tmp_path)
    assert code == 0, text
    assert re.search(r"config\.optim\.learning_rate +float +0\.5\s", text)
    assert not list(tmp_path.iterdir())


def test_an_unknown_key_ends_in_one_line():
    line = "--config configs/synthetic_bod.py --config.optim.leraning_rate 1"
    code, text = run(*line.split())
    assert code == 1 and "Traceback" not in text
    assert "error: config.optim.leraning_rate is unknown (did you mean learning_rate?)" in text


def test_processes_that_do_not_meet_are_refused(capsys, monkeypatch):
    config = {"config": "configs/synthetic_bod.py"}
    for given in ({"num_processes": 2}, {"process_id": 0}):
        with (
            flagsaver.flagsaver(**config, **given),
            pytest.raises(SystemExit, match="error: num_processes"),
        ):
            main.main()

    def refuse(*given):
        raise ValueError(f"no process of {given}")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    peers = {"coordinator_address": "a:1", "num_processes": 2, "process_id": 1}
    with flagsaver.flagsaver(**config, **peers):
        with pytest.raises(SystemExit, match=r"^error: no process of \('a:1', 2, 1\)$"):
            main.main()


@pytest.mark.parametrize("known", [ValueError, OSError, VideoError, FloatingPointError])
def test_an_error_of_a_run_is_one_line(monkeypatch, known):
    def fall():
        raise known("the reason")

    monkeypatch.setattr(main, "run", fall)
    with pytest.raises(SystemExit, match="^error: the reason$"):
        main.main()


def test_an_error_that_is_not_known_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(main, "run", lambda: [][0])
    with pytest.raises(IndexError):
        main.main()


@pytest.mark.parametrize("error", [ValueError, OSError, jax.errors.JaxRuntimeError, IndexError])
def test_one_of_several_processes_leaves_at_once_whatever_the_error(monkeypatch, capsys, error):
    def fall():
        raise error("the reason")

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(main, "run", fall)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(SystemExit, match="^1$"):
        main.main()
    assert "the reason" in capsys.readouterr().err


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path, rng):
    longer = {"train__steps": 40, "train__probe_every": 20}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start = time.monotonic()
    finish(launch("synthetic_bod", whole, **longer))
    seconds = time.monotonic() - start
    kills = 0
    while kills < 3:
        process = launch("synthetic_bod", killed, **longer, loader__workers=kills)
        try:
            process.communicate(timeout=rng.uniform(0, seconds))
            shutil.rmtree(killed)  # it came to its end: begin again
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    saved = any(path.name.isdigit() for path in killed.glob("checkpoints/*"))
    text = finish(launch("synthetic_bod", killed, **longer))
    assert not (saved and "step 0 of 40" in text)
    for a, b in zip(weights(whole, 40), weights(killed, 40), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("metrics.jsonl", "probes.jsonl"):
        kept = [
            [{k: r[k] for k in r.keys() - CLOCKED} for r in records(run / name)]
            for run in (whole, killed)
        ]
        assert kept[0] == kept[1]


@pytest.mark.slow
def test_sigterm_saves_leaves_and_says_so(tmp_path):
    process = launch("synthetic_simclr", tmp_path, train__steps=5000, train__save_every=5000)
    while process.poll() is None and not (tmp_path / "metrics.jsonl").exists():
        time.sleep(0.05)
    while process.poll() is None and len(records_so_far(tmp_path)) < 2:
        time.sleep(0.05)
    process.terminate()
    text = finish(process, 143)
    assert "the same command continues" in text
    saved = [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert saved == [str(records_so_far(tmp_path)[-1]["step"])]


def records_so_far(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.split("\n")[:-1]]


def test_a_finished_run_lends_its_encoder(whole):
    encoder = pretrained.load(whole[0])
    assert encoder.step == 8 and encoder.encoder.widths == (4, 8)
    results = [json.loads(path.read_text()) for path in whole[0].glob("results/*.json")]
    assert encoder.weight_hash() in {result["model"]["weights"] for result in results}
    assert pretrained.load(whole[0], 6).step == 6
    video = encoder.experiment.data.test()[0]
    with video.media.open() as reader:
        clips = reader.read(np.arange(16, 24)[None], encoder.experiment.resize)
    features = jax.jit(lambda views: encoder(views))(encoder.prepare(clips))
    assert features.clip.shape == (1, 8) and float(jnp.abs(features.clip).max()) > 0
    with pytest.raises(ValueError, match="is not a run"):
        pretrained.load(whole[0] / "results")


def launch_two(workdir, *flags, **changes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    peers = [*flags, f"--coordinator_address=127.0.0.1:{port}", "--num_processes=2"]
    return [
        subprocess.Popen(
            [*command("synthetic_bod", workdir, **changes), *peers, f"--process_id={number}"],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]


@pytest.mark.slow
def test_two_processes_train_and_judge_as_one(whole, tmp_path):
    texts = [finish(process) for process in launch_two(tmp_path)]
    assert ["report:" in text for text in texts] == [True, False]
    # Sums over devices round otherwise, which solves and each step's gradient magnify. The first
    # step compares gradients; the last weights, what they have made.
    first, alone = (records(run / "metrics.jsonl")[0] for run in (tmp_path, whole[0]))
    for key in alone.keys() - CLOCKED:
        assert first[key] == pytest.approx(alone[key], rel=1e-4, abs=1e-6), key
    np.testing.assert_allclose(losses(tmp_path), losses(whole[0]), rtol=2e-3)
    for path in (whole[0] / "results").glob("*.json"):
        ours = json.loads((tmp_path / "results" / path.name).read_text())
        theirs = json.loads(path.read_text())
        for key in ("value", "values"):
            if key in theirs:
                assert ours[key] == pytest.approx(theirs[key], abs=0.1)
    trained = (weights(run, 8, but=("opt_state",)) for run in (whole[0], tmp_path))
    for a, b in zip(*trained, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_state_split_over_two_processes_is_restored_and_replayed(tmp_path):
    changes = {"train.steps": 4, "train.save_every": 2, "train.probe_every": 0, **COLOURLESS}
    changes |= {"train.shard_state": True, "encoder.widths": "(32,64)"}  # large enough to be split
    for process in launch_two(tmp_path, **changes):
        finish(process)
    whole, loss = weights(tmp_path, 4), losses(tmp_path)[2]
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    texts = [finish(process) for process in launch_two(tmp_path, **changes)]
    assert "step 2 of 4" in texts[0]
    for ours, theirs in zip(weights(tmp_path, 4), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    changes["optim.learning_rate"] = 1e30
    for process in launch_two(tmp_path, "--accept_changes", **changes):
        assert "step 3: norm/update not finite. " in finish(process, 1)
    text = replay.replay_run(str(tmp_path))
    assert "step 3 of seed 0 is not finite" in text
    assert float(re.search(r"  loss +(\S+)", text)[1]) == pytest.approx(loss, rel=1e-4)


@pytest.mark.slow
def test_sigterm_to_one_process_saves_and_stops_all(tmp_path):
    processes = launch_two(tmp_path, train__steps=100_000, train__save_every=100_000)
    while all(p.poll() is None for p in processes) and not (tmp_path / "metrics.jsonl").exists():
        time.sleep(0.05)
    while all(p.poll() is None for p in processes) and len(records_so_far(tmp_path)) < 3:
        time.sleep(0.05)
    processes[1].terminate()
    texts = [finish(process, 143) for process in processes]
    assert "the same command continues" in texts[0]
    saved = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert saved == [records_so_far(tmp_path)[-1]["step"]]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "8")
    wide = {"XLA_FLAGS": f"{quick_xla.FLAGS} --xla_force_host_platform_device_count=2"}
    text = finish(launch("synthetic_bod", tmp_path, environment=wide))
    assert "step 6 of 8" in text
    np.testing.assert_allclose(losses(tmp_path), losses(whole[0]), rtol=1e-4)


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("weizmann_bod", {}, "^error: root must be a folder, got '': pass --config.data.root="),
        ("synthetic_bod", {"train.batch": "0"}, "batch must be at least 1, got 0"),
        ("synthetic_bod", {"augment.flip": "0.5"}, "pass --config.augment.flip=0"),
        ("synthetic_bod", {"sampling.clips": "1"}, "pass --config.sampling.clips=2"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    tmp_path, monkeypatch, name, changes, message
):
    monkeypatch.setattr(flags, "_overrides", list(changes.items()))
    with flagsaver.flagsaver(config=f"configs/{name}.py", workdir=str(tmp_path / "run")):
        with pytest.raises(SystemExit, match=message):
            main.main()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_workdir_of_another_experiment_is_refused(whole, monkeypatch):
    line = command("synthetic_bod", whole[0], method__radius=0.77)
    monkeypatch.setattr(flags, "_overrides", flags.split_overrides(line)[1])
    with flagsaver.flagsaver(config="configs/synthetic_bod.py", workdir=str(whole[0])):
        with pytest.raises(SystemExit, match="config.method.radius: was 0.3, is 0.77") as error:
            main.main()
    assert "--accept_changes continues" in str(error.value)


def test_the_command_line_can_name_another_data_set(tmp_path):
    described = synthetic_bod.get_config()
    named = flags.replace_data(
        described, f"ClassFolders 'root={tmp_path}/my videos' test_folder=test"
    )
    data = ClassFolders(root=f"{tmp_path}/my videos", test_folder="test")
    assert config.build(named).data == data
    seeded = flags.replace_data(described, "Synthetic seed=3 cooccurrence=0.5")
    assert config.build(seeded).data == Synthetic(seed=3, cooccurrence=0.5)
    assert (
        flags.replace_data(described, "")
        == flags.replace_data(described, " ")
        == described.to_dict()
    )
    with pytest.raises(ValueError, match="has no field 'roof'"):
        flags.replace_data(described, "ClassFolders roof=x")


def test_the_default_workdir_is_the_same_for_the_same_settings():
    described = synthetic_bod.get_config()
    first = main.default_workdir("configs/synthetic_bod.py", config.build(described))
    described.loader.workers = 3
    assert first == main.default_workdir("configs/synthetic_bod.py", config.build(described))
    described.train.seed = 5
    assert first != main.default_workdir("configs/synthetic_bod.py", config.build(described))
    assert first.parent == pathlib.Path("runs") and first.name.startswith("synthetic_bod-")


def real(videos, **changes):
    small = {key: value for key, value in SMALL.items() if not key.startswith("data.")}
    drop = {key.replace(".", "__"): None for key in SMALL if key not in small}
    return {**drop, **changes}


@pytest.mark.slow
def test_weizmann_runs_on_real_videos(videos, tmp_path):
    changes = real(videos, data__root=videos / "weizmann", train__steps=3, train__probe_every=0)
    finish(launch("weizmann_simclr", tmp_path, **changes))
    result = json.loads((tmp_path / "results" / "linear-class.json").read_text())
    assert len(result["groups"]) == 9 and result["protocol"]["split"] == "leave one person out"
    assert 0 <= result["value"] <= 1 and result["std"] > 0


def write_folders(root, count):
    """Write `count` clips a class and split, of which the first of every class is damaged."""
    for part, split in enumerate(("train", "val")):
        for label in ("a", "b"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                write_clip(folder / f"{number}.mp4", frames=12 + part, video=number)
            (folder / "0.mp4").write_bytes(b"nothing")


@pytest.mark.slow
def test_unreadable_videos_are_written_down_and_counted_as_wrong(tmp_path):
    write_folders(tmp_path / "clips", 10)
    data = real(tmp_path, train__probe_every=0, resize="(16,16)")
    data |= {"augment__size": 16, "sampling__frames": 4, "sampling__stride": 1, "train__steps": 4}
    run, folders = tmp_path / "run", f"--data=ClassFolders root={tmp_path}/clips"
    finish(launch("synthetic_simclr", run, folders, **data, loader__max_failed=0.2))
    listed = records(run / "quarantine.jsonl")
    assert {(line["part"], line["id"]) for line in listed} == {
        (part, f"{label}/0.mp4") for part in ("pretrain", "train", "test") for label in "ab"
    }
    assert all("Invalid data" in line["reason"] for line in listed)
    assert records(run / "metrics.jsonl")[-1]["unreadable_videos"] == 6
    result = json.loads((run / "results" / "linear-class.json").read_text())
    assert result["unreadable"] == {"train": 2, "test": 2} and result["value"] <= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["k400_simclr", "k400_bod", "k400_sdc"])
def test_a_kinetics_config_takes_steps_on_real_clips(videos, tmp_path, name):
    for split, clip in (("train", "part_0.mp4"), ("val", "demo.mp4")):
        for i in range(6):
            folder = tmp_path / "k400" / split / f"class {i % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.mp4").symlink_to(videos / "diverse" / "mmaction2" / clip)
    settings = {
        "data.root": tmp_path / "k400",
        "resize": "(40,53)",
        "augment.size": 32,
        "sampling.frames": 8,
        "train.batch": 2,
        "train.steps": 2,
        "evaluate.batch": 2,
        "evaluate.clips": 1,
        "evaluate.ks": "(1,)",
        "evaluate.knn": 3,
        "loader.workers": 1 if name == "k400_bod" else 0,  # a worker is slow to start
        "encoder.dtype": "float32",
        "encoder.blocks": "(1,1,1,1)",
        "encoder.conv": "native",  # quick to compile
    }
    if name == "k400_sdc":  # it makes its own comparisons
        settings |= {"resize": "(20,27)", "augment.size": 16, "sampling.frames": 4}
    else:
        settings["framework.hidden"] = 128
    options = [f"--config.{key}={value}" for key, value in settings.items()]
    start = [sys.executable, "-m", "vrl_jax.main", f"--config=configs/{name}.py"]
    process = subprocess.run(
        [*start, f"--workdir={tmp_path / 'run'}", *options],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    with ocp.CheckpointManager(tmp_path / "run" / "checkpoints") as manager:
        assert manager.latest_step() == 2
