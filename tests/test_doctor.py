"""The doctor names what limits and the flag that helps; its measurements are of the right thing."""

import dataclasses
import math
import shlex
import subprocess

import fsspec
import pytest

from configs import synthetic_bod
from tests.data.video.test_video_decoder import write_clip
from tests.test_main import COLOURLESS, ENVIRONMENT, ROOT, command
from vrl_jax import config, doctor
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.indexed import Indexed
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.datasets.video_folders import ClassFolders
from vrl_jax.data.tools import video_index
from vrl_jax.data.video.video_decoder import Excerpt, VideoBytes, VideoFile
from vrl_jax.data.video_dataset import Video, VideoList
from vrl_jax.profiling.input_report import (
    MIN_UTILIZATION,
    Rates,
    Setup,
    diagnose_input,
    prepare_commands,
)

RATES = Rates(read=1000.0, decode=30.0, loader=100.0, transfer=5000.0, step=300.0)
SETUP = Setup(loader=Loader(workers=4), cores=16, resize=(128, 171), crop=112, prepare="  prepare")


def verdict(rates=None, **setup):
    return diagnose_input(
        dataclasses.replace(RATES, **(rates or {})), dataclasses.replace(SETUP, **setup)
    )


@pytest.mark.parametrize("loader", [286.0, 900.0])
def test_a_fed_step_needs_nothing(loader):
    text = verdict({"loader": loader})
    assert text.startswith("Bottleneck: the training step.") and "nothing to change" in text
    assert "--config" not in text and "%" not in text


def test_more_workers_while_there_are_cores():
    text = verdict()  # each worker loads 25 videos a second
    assert text.startswith("Bottleneck: the loader. The accelerator would idle 67% of the time.")
    assert text.endswith("\nRemedy: --config.loader.workers=12")
    text = verdict({"loader": 40.0}, loader=Loader(workers=0))  # threads: by what decodes alone
    assert "idle 87%" in text and text.endswith("--config.loader.workers=10")


def test_more_cores_than_there_are_call_for_less_work():
    text = verdict(cores=8)
    assert "--config.loader.workers=8; since all 8 cores load 67% of what the step consumes" in text
    assert "transcode" in text and text.endswith("\n  prepare")
    text = verdict(cores=4)
    assert (
        "loader.workers" not in text
        and text.endswith("\n  prepare")
        and "all 4 cores load 33%" in text
    )
    # Workers beyond the cores add nothing: a core's share counts, not a worker's.
    text = verdict(cores=4, loader=Loader(workers=32))
    assert "loader.workers" not in text and "all 4 cores load 33%" in text
    text = verdict(cores=4, prepare="")
    assert "prepare" not in text and '--config.resize="(112,150)"' in text
    text = verdict(cores=4, prepare="", resize=(112, 112))
    assert "more cores are needed" in text and "--config" not in text


def test_a_slow_disk_is_named():
    text = verdict({"read": 20.0})
    assert text.startswith("Bottleneck: reading from disk. The accelerator would idle 67%")
    assert "faster disk" in text and text.endswith("\n  prepare")
    text = verdict({"read": 20.0}, prepare="")
    assert "faster disk" in text and "prepare" not in text
    assert verdict({"read": math.inf}) == verdict()


def test_a_slow_link_is_named():
    text = verdict({"transfer": 75.0})
    assert text.startswith("Bottleneck: the transfer to the device. The accelerator would idle 75%")
    assert '--config.resize="(112,150)"' in text
    assert "faster link" in verdict({"transfer": 75.0}, resize=(112, 150))


def test_the_commands_that_prepare_are_whole(tmp_path):
    root = tmp_path / "my clips"
    for split in ("train", "val"):
        (root / split / "a").mkdir(parents=True)
        write_clip(root / split / "a" / "1.mp4", frames=8)
    commands = prepare_commands(ClassFolders(str(root)), 96).splitlines()
    out = tmp_path / "index"
    parsed = [shlex.split(line.replace("INDEX", str(out))) for line in commands[:2]]
    assert parsed[0][:3] == ["python", "-m", "vrl_jax.data.index"]
    video_index.main([*parsed[0][3:], "--workers=1"])
    assert len(Indexed(str(out)).train()) == 1
    assert parsed[1][2:] == ["vrl_jax.data.prepare", str(out), "--out=SHARDS", "--short-side=96"]
    assert commands[2].strip() == "--data='Prepared root=SHARDS'"
    again = prepare_commands(Indexed(str(out)), 96).splitlines()
    assert len(again) == 2 and shlex.split(again[0]) == parsed[1]
    assert prepare_commands(Synthetic(), 96) == ""


def test_rates_of_nothing_are_refused():
    with pytest.raises(ValueError, match="loader must be above 0, got 0.0"):
        verdict({"loader": 0.0})


def videos(*media):
    return VideoList(tuple(Video(str(n), m, {}) for n, m in enumerate(media)), {})


def test_reading_counts_what_is_on_disk(tmp_path):
    file = VideoFile(write_clip(tmp_path / "a.mp4"))
    size = (tmp_path / "a.mp4").stat().st_size
    rate, mean = doctor.read_rate(videos(file, Excerpt(file, 3, 9), file))
    assert mean == size and 0 < rate < math.inf
    rate, mean = doctor.read_rate(videos(VideoBytes("a", b"1234")))
    assert mean == 0 and rate == math.inf
    fsspec.filesystem("memory").pipe("/doctor/a.mp4", bytes(500))
    rate, mean = doctor.read_rate(videos(VideoFile("memory://doctor/a.mp4")))
    assert mean == 500 and rate < math.inf


def test_decoding_passes_over_broken_videos_unless_all_are(tmp_path):
    experiment = config.build(synthetic_bod.get_config())
    good, bad = VideoFile(write_clip(tmp_path / "a.mp4")), VideoBytes("broken", b"1234")
    assert doctor.decode_rate(experiment, videos(good, bad)) > 0
    with pytest.raises(ValueError, match="no video can be read: broken: Invalid data"):
        doctor.decode_rate(experiment, videos(bad))


def start(**changes):
    line = command("synthetic_simclr", "unused", **COLOURLESS, **changes)
    line[line.index("vrl_jax.main")] = "vrl_jax.doctor"
    return subprocess.run(
        [*line, "--steps=2"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )


@pytest.mark.slow
def test_an_experiment_is_measured_and_judged():
    done = start(loader__workers=1)
    assert done.returncode == 0, done.stderr
    table, verdict = done.stdout.split("\n\n")
    rates = dict(line.split()[:2] for line in table.splitlines()[1:6])
    assert list(rates) == ["read", "decode", "loader", "transfer", "step"]
    assert rates["read"] == "inf" and "workers=1, threads=2" in table
    numbers = {name: float(rate.replace(",", "")) for name, rate in rates.items()}
    names = {
        "step": "Bottleneck: the training step",
        "loader": "Bottleneck: the loader",
        "transfer": "Bottleneck: the transfer to the device",
    }
    fed = min(numbers["loader"], numbers["transfer"]) / numbers["step"]
    least = min(names, key=numbers.get) if fed < MIN_UTILIZATION else "step"
    assert verdict.startswith(names[least])
    assert not (ROOT / "unused").exists()


def test_what_training_refuses_is_refused(monkeypatch):
    described = synthetic_bod.get_config()
    described.augment.flip = 0.5
    monkeypatch.setattr(doctor, "config_from_flags", lambda: config.build(described))
    with pytest.raises(SystemExit, match="^error: augment.flip is 0.5"):
        doctor.main()
    described = synthetic_bod.get_config()
    described.sampling.clips = 1
    with pytest.raises(ValueError, match="pass --config.sampling.clips=2"):
        doctor.measure_stages(config.build(described), 1)
    described.train.batch = 63
    with pytest.raises(ValueError, match="train.batch must be a multiple of the 8 devices"):
        doctor.measure_stages(config.build(described), 1)
