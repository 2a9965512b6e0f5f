"""What holds for every script: shellcheck, its help, its complaints."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from configs import k400_bod
from tests.launch.conftest import LAUNCH

SCRIPTS = ("tpu.sh", "gke_xpk.sh", "slurm.sh", "local.sh", "worker.sh")
PLACE = ("--project=p", "--zone=us-east1-c")
RUN = ("--", "--config=configs/synthetic_bod.py")


def test_shellcheck_finds_nothing():
    files = sorted(str(path) for path in LAUNCH.glob("*.sh"))
    assert len(files) == 7
    program = shutil.which("shellcheck", path=os.path.dirname(sys.executable)) or "shellcheck"
    found = subprocess.run([program, *files], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_tells_of_every_flag(shell, script):
    text = shell(script, "--help")
    understood = re.findall(r"^ +(--[a-z-]+)=?\*?\)", (LAUNCH / script).read_text(), re.MULTILINE)
    for flag in {*understood, "--dry-run"} - {"--help"}:
        assert flag in text, flag
    assert "shellcheck" not in text


@pytest.mark.parametrize("script", SCRIPTS[:2])
def test_every_action_is_in_the_help(shell, script):
    actions = re.search(r"^  ([a-z |]+)\) shift", (LAUNCH / script).read_text(), re.MULTILINE)
    text = shell(script, "--help")
    for action in actions[1].split(" | "):
        assert f"{script} {action} " in text


@pytest.mark.parametrize(
    "script, words, message",
    [
        ("tpu.sh", (), "the action must be up, create"),
        ("tpu.sh", ("fly",), "got 'fly'"),
        (
            "tpu.sh",
            ("up", "--zone=z"),
            "no project: pass --project=... or set GOOGLE_CLOUD_PROJECT",
        ),
        ("tpu.sh", ("up", "--project=p"), "no zone: pass --zone=... or set CLOUDSDK_COMPUTE_ZONE"),
        ("tpu.sh", ("create", *PLACE), "no TPU type: pass --type="),
        ("tpu.sh", ("create", *PLACE, "--type=v5e-4"), "v6e-16, got 'v5e-4'"),
        ("tpu.sh", ("create", *PLACE, "--type=v4-8", "--slices=0"), "at least 1, got '0'"),
        ("tpu.sh", ("create", *PLACE, "--name=My_TPU"), "got 'My_TPU'"),
        ("tpu.sh", ("up", *PLACE, "--type=v4-8", *RUN), "no bucket for the run's folder: pass --b"),
        ("tpu.sh", ("run", *PLACE), "no config: pass -- --config="),
        (
            "tpu.sh",
            ("run", *PLACE, *RUN, "--workdir=/tmp/a"),
            "--workdir=/tmp/a must start with gs",
        ),
        ("tpu.sh", ("run", *PLACE, *RUN, "--workdir", "gs://a/b"), "write --workdir=gs://BUCKET/"),
        ("tpu.sh", ("run", *PLACE, *RUN, "-workdir=gs://a/b"), "got -workdir=gs://a/b"),
        ("tpu.sh", ("run", "--config=configs/a.py"), "flags of vrl_jax.main come after --"),
        ("tpu.sh", ("delete", *PLACE, *RUN), "'delete' takes no arguments after --"),
        ("gke_xpk.sh", ("run", *PLACE), "no cluster: pass --cluster="),
        ("gke_xpk.sh", ("run", *PLACE, "--cluster=c"), "no TPU type"),
        ("gke_xpk.sh", ("run", *PLACE, "--cluster=c", "--type=v6e-8", *RUN), "no bucket for the"),
        ("gke_xpk.sh", ("logs", "--cluster=c"), "no project"),
        ("gke_xpk.sh", ("go",), "must be run, logs, wait or delete, got 'go'"),
        ("slurm.sh", ("--nodes=two", *RUN), "nodes must be an integer of at least 1, got 'two'"),
        ("slurm.sh", ("--partition=gpu",), "no config"),
        ("slurm.sh", ("--config=configs/a.py",), "comes after --"),
        ("slurm.sh", ("--array=0-3", *RUN), "array must be like 12 or 12%4, got '0-3'"),
        ("slurm.sh", ("--array=3", "--nodes=2", *RUN), "has one node, got --nodes=2"),
        ("slurm.sh", ("--array=3",), "no configs: pass -- configs/..."),
        ("slurm.sh", ("--array=3", *RUN), "takes config files without --config="),
        ("slurm.sh", ("-p", "gpu", *RUN), "write flags of sbatch with ="),
        ("local.sh", ("--gpus=all", *RUN), "gpus must be numbers like 0,1, got 'all'"),
        ("local.sh", ("--gpus=0,1,2", "--processes=2", *RUN), "3 GPUs cannot be divided among 2"),
        ("local.sh", (), "no config"),
        ("worker.sh", ("jump",), "got 'jump'"),
        ("worker.sh", ("logs",), "no run was started on this host"),
    ],
)
def test_what_is_missing_is_named(shell, script, words, message):
    shell.fake("gcloud", "xpk", "kubectl", "sbatch", "nvidia-smi")
    text = shell(script, *words, code=2)
    assert text.startswith("error: ") and message in text
    assert not (shell.place / "calls").exists()


@pytest.mark.parametrize(
    "script, words, program",
    [
        ("tpu.sh", ("status", *PLACE), "gcloud"),
        ("gke_xpk.sh", ("wait", *PLACE, "--cluster=c"), "xpk"),
        ("gke_xpk.sh", ("logs", *PLACE, "--cluster=c"), "kubectl"),
        ("slurm.sh", RUN, "sbatch"),
        ("local.sh", ("--gpus=0", *RUN), "nvidia-smi"),
    ],
)
def test_a_program_that_is_not_installed_is_named(shell, script, words, program):
    shell.environment["PATH"] = f"{shell.place / 'bin'}"
    shell.fake(*{"gcloud", "python"} - {program})
    for name in ("bash", "env", "sed", "dirname", "tr", "wc"):
        (shell.place / "bin" / name).symlink_to(shutil.which(name))
    assert f"error: {program} is not installed: " in shell(script, *words, code=2)


def readme():
    return (LAUNCH / "README.md").read_text().replace("\\\n", " ")


def test_the_examples_are_understood(shell):
    text = readme()
    names = dict(re.findall(r"(\w+)=(\S+)", re.search(r"^export (.*)$", text, re.MULTILINE)[1]))
    shell.environment |= names
    examples = re.findall(r"^launch/(\S+) (.*)$", text, re.MULTILINE)
    assert {script for script, _ in examples} == set(SCRIPTS) - {"worker.sh"}
    for script, words in examples:
        split = shlex.split(words)
        place = split.index("--") if "--" in split else len(split)
        assert shell(script, *split[:place], "--dry-run", *split[place:])


def test_the_examples_fit_their_chips():
    videos = k400_bod.get_config().train.batch
    examples = re.findall(
        r"^launch/.*--type=v5litepod-(\d+)(.*configs/k400_bod.*)$", readme(), re.M
    )
    assert len(examples) == 2
    for chips, words in examples:
        slices = re.search(r"--slices=(\d+)", words)
        batch = re.search(r"--config.train.batch=(\d+)", words)
        batch, slices = int(batch[1]) if batch else videos, int(slices[1]) if slices else 1
        assert batch / (int(chips) * slices) <= 21  # videos in the 15.75 GiB of a v5e chip
