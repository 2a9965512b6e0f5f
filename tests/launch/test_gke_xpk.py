"""GKE with XPK: what is asked of xpk and kubectl."""

import shlex

import pytest

CLUSTER = ["--cluster=c", "--project=p", "--zone=us-east5-b"]
RUN = ["--config=configs/k400_bod.py", "--data=Prepared root=gs://x y"]


def test_run_sends_the_source_and_queues_the_command(shell):
    shell.fake("xpk", "git")
    flags = [*CLUSTER, "--name=a", "--type=v5p-8", "--slices=2", "--bucket=gs://b/", "--restarts=3"]
    archive, create = shell.does_what_it_printed("gke_xpk.sh", "run", *flags, "--", *RUN)
    folder = shell.place / "vrl_jax.XXXXXX" / "vrl_jax"
    assert archive[3:] == ["archive", "--format=tar.gz", f"--output={folder}.tar.gz", "HEAD"]
    assert create[:-1] == [
        *("xpk", "workload", "create", "--workload=a", *CLUSTER),
        *("--tpu-type=v5p-8", "--num-slices=2", "--max-restarts=3"),
        "--termination-grace-period-seconds=120",
        *("--base-docker-image=python:3.12", f"--script-dir={folder}"),
    ]
    install, start = create[-1].removeprefix("--command=").split(" && ")
    pip = ["pip", "install", "--quiet", "-c", "constraints.txt", "-e", ".[tpu,gcs]"]
    assert shlex.split(install) == pip
    main = ["exec", "python", "-m", "vrl_jax.main", "--distributed", *RUN]
    main.append("--workdir=gs://b/runs/a")
    assert shlex.split(start) == main


@pytest.mark.parametrize("code", [0, 7])
def test_what_is_sent_is_the_archive_and_nothing_of_others_is_touched(shell, code):
    shell.fake("xpk", "git", workload=[("", code)])
    of_others = [shell.place / "vrl-jax" / "notes", shell.place / "vrl-jax.tar.gz"]
    of_others[0].parent.mkdir()
    for path in of_others:
        path.write_text("of others")
    shell("gke_xpk.sh", "run", *CLUSTER, "--type=v5p-8", "--bucket=b", "--", *RUN, code=code)
    assert shell.sent() == ["committed"]
    assert [path.read_text() for path in of_others] == ["of others"] * 2


@pytest.mark.parametrize(
    "action, expected",
    [
        ("wait", [["xpk", "workload", "list", *CLUSTER, "--wait-for-job-completion=vrl-jax"]]),
        ("delete", [["xpk", "workload", "delete", "--workload=vrl-jax", *CLUSTER, "--force"]]),
        (
            "logs",
            [
                ["gcloud", "container", "clusters", "get-credentials", "c", "--project=p"]
                + ["--location=us-east5"],
                ["kubectl", "logs", "--follow", "--tail=-1", "--container=jax-tpu"]
                + [
                    "--selector=jobset.sigs.k8s.io/jobset-name=vrl-jax,"
                    "jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0"
                ],
            ],
        ),
    ],
)
def test_the_other_actions(shell, action, expected):
    shell.fake("xpk", "gcloud", "kubectl")
    assert shell.does_what_it_printed("gke_xpk.sh", action, *CLUSTER) == expected


def test_a_failure_of_xpk_is_the_script_s(shell):
    shell.fake("xpk", workload=[("no such cluster", 7)])
    assert "no such cluster" in shell("gke_xpk.sh", "wait", *CLUSTER, code=7)
