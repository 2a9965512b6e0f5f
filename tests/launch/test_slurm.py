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
