"""SLURM: what is asked of sbatch, and what the job asks of srun and scontrol."""

import re

import pytest

from tests.launch.conftest import LAUNCH

RUN = ["--config=configs/k400_bod.py", "--workdir=/scratch/a", "--data=Prepared root=/x y"]


def test_one_process_a_gpu_is_submitted(shell):
    shell.fake("sbatch")
    flags = ["--nodes=2", "--gpus=8", "--partition=gpu", "--time=1-00:00:00"]
    assert shell.does_what_it_printed("slurm.sh", None, *flags, "--", *RUN) == [
        ["sbatch", "--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8"]
        + ["--partition=gpu", "--time=1-00:00:00"]
        + [str(LAUNCH / "slurm_job.sh"), *RUN]
    ]


SWEEP = ["configs/k400_bod.py", "--seeds=0,1", "--out=/scratch/a", "--", "--config.train.steps=9"]


def test_a_comparison_is_submitted_as_an_array(shell):
    shell.fake("sbatch")
    flags = ["--array=12%4", "--gpus=2", "--partition=gpu"]
    assert shell.does_what_it_printed("slurm.sh", None, *flags, "--", *SWEEP) == [
        ["sbatch", "--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=2"]
        + ["--partition=gpu", "--array=0-11%4"]
        + [str(LAUNCH / "slurm_job.sh"), "--share-of=12", *SWEEP]
    ]


@pytest.mark.parametrize("code, requeued", [(1, False), (143, True)])
def test_a_task_of_an_array_runs_its_share_and_goes_back_when_it_saved(shell, code, requeued):
    shell.fake("srun", "scontrol", srun=[("", code)])
    shell.environment |= {"SLURM_JOB_ID": "42", "SLURM_ARRAY_TASK_ID": "3"}
    shell("slurm_job.sh", "--share-of=12", *SWEEP, code=code)
    srun = ["srun", "python", "-m", "vrl_jax.compare", "--jobs=1", "--share=3/12", *SWEEP]
    assert shell.calls() == [srun, *([["scontrol", "requeue", "42"]] if requeued else [])]


def test_the_job_is_requeued_and_warned_before_its_time_is_up():
    text = (LAUNCH / "slurm_job.sh").read_text()
    settings = re.findall(r"^#SBATCH (\S+)$", text.split("\nset -u")[0], re.MULTILINE)
    assert {"--requeue", "--open-mode=append", "--signal=TERM@300"} <= set(settings)


@pytest.mark.parametrize("code, requeued", [(0, False), (1, False), (143, True), (137, False)])
def test_the_job_goes_back_into_the_queue_when_it_saved(shell, code, requeued):
    shell.fake("srun", "scontrol", srun=[("", code)])
    shell.environment["SLURM_JOB_ID"] = "42"
    shell("slurm_job.sh", *RUN, code=code)
    srun = ["srun", "python", "-m", "vrl_jax.main", "--distributed", *RUN]
    assert shell.calls() == [srun, *([["scontrol", "requeue", "42"]] if requeued else [])]


def test_a_task_has_the_cpus_that_the_job_was_given_for_it(shell):
    shell.fake("srun")
    shell.environment |= {"SLURM_JOB_ID": "42", "SLURM_CPUS_PER_TASK": "12"}
    shell("slurm_job.sh", *RUN)
    [call] = shell.calls()
    assert call[:3] == ["srun", "--cpus-per-task=12", "python"] and call[-len(RUN) :] == RUN


def test_the_job_uses_the_environment_that_is_named(shell):
    shell.fake("srun")
    (shell.place / "venv" / "bin").mkdir(parents=True)
    (shell.place / "venv" / "bin" / "activate").write_text("echo activated\n")
    shell.environment |= {"SLURM_JOB_ID": "42", "VRL_VENV": str(shell.place / "venv")}
    assert "activated" in shell("slurm_job.sh", *RUN)
