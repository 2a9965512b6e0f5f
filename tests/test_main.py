"""The main job as a user runs it: whole, refused, interrupted and resumed, on real videos."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from vrl_jax import config, main

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


def command(name, workdir, **changes):
    settings = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    flags = [f"--config.{key}={value}" for key, value in settings.items() if value is not None]
    return [
        sys.executable,
        "-m",
        "vrl_jax.main",
        f"--config=configs/{name}.py",
        f"--workdir={workdir}",
        *flags,
    ]


# One device, as a laptop has, and quick compilation.
ENVIRONMENT = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}


def launch(name, workdir, **changes):
    return subprocess.Popen(
        command(name, workdir, **changes),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, code=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return out + err


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(workdir, step):
    """Return every array of a checkpoint: parameters, statistics, optimiser, step."""
    path = workdir / "checkpoints" / str(step) / "state"
    with ocp.PyTreeCheckpointer() as reader:
        stored = reader.metadata(path).item_metadata.tree
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        return jax.tree.leaves(reader.restore(path, restore_args=plain))


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
        f"{kind}-{label}"
        for kind in ("linear", "knn", "retrieval")
        for label in ("static", "dynamic")
    }
    assert set(results) == kinds
    assert results["linear-static"]["value"] == probes[-1]["linear/static"]
    assert results["linear-static"]["protocol"]["frames"] == 8
    assert set(results["retrieval-dynamic"]["values"]) == {"1", "5"}
    with np.load(workdir / "spectrum.npz") as spectrum:
        assert spectrum["eigenvalues"].shape == (3, 24, 7)
    page = (workdir / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "<svg" in page
    assert (workdir / "tensorboard").is_dir()


def test_kill_and_resume_are_bit_exact_with_other_workers(whole, tmp_path):
    process = launch("synthetic_bod", tmp_path)
    deadline = time.time() + 240
    while time.time() < deadline and process.poll() is None:
        done = sorted(tmp_path.glob("checkpoints/[0-9]*"))
        if any(path.name == "3" for path in done):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    text = finish(launch("synthetic_bod", tmp_path, loader__workers=2))
    assert "step 0 of 8" not in text and "of 8" in text
    for a, b in zip(weights(whole[0], 8), weights(tmp_path, 8), strict=True):
        np.testing.assert_array_equal(a, b)
    same = ("step", "loss", "loss/static", "loss/dynamic", "norm/gradient")
    ours, theirs = (records(path / "metrics.jsonl") for path in (tmp_path, whole[0]))
    assert [[r[k] for k in same] for r in ours] == [[r[k] for k in same] for r in theirs]


def test_sigterm_saves_leaves_and_says_so(tmp_path):
    process = launch("synthetic_bod", tmp_path, train__steps=5000, train__save_every=5000)
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


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("weizmann_bod", {}, "error: root must be a folder, got '': pass --config.data.root="),
        ("synthetic_bod", {"train__batch": 0}, "batch must be at least 1, got 0"),
        ("synthetic_bod", {"augment__flip": 0.5}, "pass --config.augment.flip=0"),
        ("synthetic_bod", {"sampling__clips": 1}, "pass --config.sampling.clips=2"),
        ("synthetic_bod", {"method__radius": "wide"}, "radius"),
        ("synthetic_bod", {"optim__lr": 0.1}, "lr"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(tmp_path, name, changes, message):
    drop = {"data__pretrain_videos": None, "data__train_videos": None, "data__test_videos": None}
    process = launch(name, tmp_path, **(drop if name == "weizmann_bod" else {}), **changes)
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0 and message in out + err
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_workdir_of_another_experiment_is_refused(whole):
    process = launch("synthetic_bod", whole[0], method__radius=0.77)
    text = finish(process, 1)
    assert "config.method.radius: was" in text and "is 0.77" in text


def test_the_default_workdir_is_the_same_for_the_same_settings():
    from configs import synthetic_bod

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


def test_weizmann_runs_on_real_videos(videos, tmp_path):
    changes = real(videos, data__root=videos / "weizmann", train__steps=3, train__probe_every=0)
    finish(launch("weizmann_bod", tmp_path, **changes))
    result = json.loads((tmp_path / "results" / "linear-class.json").read_text())
    assert len(result["groups"]) == 9 and result["protocol"]["split"] == "leave one person out"
    assert 0 <= result["value"] <= 1 and result["std"] > 0


KINETICS = sorted(path.stem for path in (ROOT / "configs").glob("k400_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINETICS)
def test_a_kinetics_config_takes_steps_on_real_clips(videos, tmp_path, name):
    steps = 10 if name == "k400_bod" else 2
    clips = sorted((videos / "diverse").rglob("*.mp4"))
    clips = [c for c in clips if "kinetics" in str(c).lower() or "mmaction2" in str(c)][:2]
    assert clips
    for split in ("train", "val"):
        for i in range(6):
            folder = tmp_path / "k400" / split / f"class {i % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.mp4").symlink_to(clips[i % len(clips)])
    settings = {
        "data.root": tmp_path / "k400",
        "resize": "(40,53)",
        "augment.size": 32,
        "sampling.frames": 8,
        "train.batch": 2,
        "train.steps": steps,
        "evaluate.batch": 2,
        "evaluate.clips": 1,
        "evaluate.ks": "(1,)",
        "evaluate.knn": 3,
        "loader.workers": 1,
        "encoder.dtype": "float32",
        "encoder.blocks": "(1,1,1,1)",
        "framework.hidden": 128,
    }
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    start = [sys.executable, "-m", "vrl_jax.main", f"--config=configs/{name}.py"]
    process = subprocess.run(
        [*start, f"--workdir={tmp_path / 'run'}", *flags],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},  # unoptimised, each step would take minutes
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    with ocp.CheckpointManager(tmp_path / "run" / "checkpoints") as manager:
        assert manager.latest_step() == steps
