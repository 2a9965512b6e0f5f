"""Cloud TPU slices: the commands, and a run that is carried through preemptions."""

import json
import subprocess

import pytest

PLACE = ["--project=p", "--zone=z"]
DATA = "--data=Prepared root='gs://mine/my data'"
RUN = ["--", "--config=configs/k400_bod.py", DATA]
FLAGS = ["--type=v5litepod-16", "--bucket=gs://mine/", *PLACE]
QR = ["gcloud", "compute", "tpus", "queued-resources"]
ASK = [*QR, "describe", "vrl-jax", *PLACE, "--format=value(state.state)"]
DELETE = [*QR, "delete", "vrl-jax", *PLACE, "--force", "--quiet"]
ABSENT = ("ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: no such thing", 1)
LOOK = (
    "if [ -e vrl_jax/launch/worker.sh ]; then bash vrl_jax/launch/worker.sh state; "
    "else echo gone; fi"
)
BROKEN = ("ERROR: the network is unreachable", 1)


def node(name):
    return [
        "gcloud",
        "compute",
        "tpus",
        "tpu-vm",
        "describe",
        name,
        *PLACE,
        "--format=value(state)",
    ]


def on(command, node="all", worker="all"):
    where = ["--quiet", f"--node={node}", f"--worker={worker}"]
    return [*QR, "ssh", "vrl-jax", *PLACE, *where, f"--command={command}"]


def worker(words):
    return on(f"bash vrl_jax/launch/worker.sh {words}")


def asked(shell, question):
    """Return which of the calls hold the question, by their last words."""
    return [call for call in shell.calls() if question in " ".join(call)]


def cloud(shell, queued=("ACTIVE",), nodes=("READY",), states=("exited 0",)):
    """Answer as Google does: what is queued, what its nodes are, what the hosts say of the run."""
    pairs = {
        "queued-resources describe": queued,
        "tpu-vm describe": nodes,
        "worker.sh state": states,
    }
    told = {
        question: [(answer, 0) if isinstance(answer, str) else answer for answer in answers]
        for question, answers in pairs.items()
    }
    shell.fake("gcloud", "git", **told)


def test_up_prints_and_does_the_whole(shell):
    cloud(shell, queued=[ABSENT, "ACTIVE"])
    calls = shell.does_what_it_printed("tpu.sh", "up", *FLAGS, *RUN)
    file = f"{shell.place}/vrl_jax.XXXXXX/vrl_jax.tar.gz"
    unpack = "rm -rf vrl_jax && mkdir vrl_jax && tar -xzf vrl_jax.tar.gz -C vrl_jax"
    quoted = "'--data=Prepared root='\\''gs://mine/my data'\\'''"
    assert [call for call in calls if call[0] != "git"] == [
        ASK,
        [*QR, "create", "vrl-jax", *PLACE, "--node-id=vrl-jax", "--accelerator-type=v5litepod-16"]
        + ["--runtime-version=v2-alpha-tpuv5-lite"],
        ASK,
        node("vrl-jax"),
        [*QR, "scp", file, "vrl-jax:vrl_jax.tar.gz", *PLACE, "--quiet", "--node=all"]
        + ["--worker=all"],
        on(unpack),
        worker("install"),
        worker(f"start --config=configs/k400_bod.py {quoted} --workdir=gs://mine/runs/vrl-jax"),
        ASK,
        node("vrl-jax"),
        on(LOOK),
        DELETE,
    ]
    assert [call[3:] for call in calls if call[0] == "git"] == [
        ["archive", "--format=tar.gz", f"--output={file}", "HEAD"]
    ]
    assert shell.sent() == ["committed"]


@pytest.mark.parametrize(
    "accelerator, runtime",
    [("v3-8", "tpu-ubuntu2204-base"), ("v5p-8", "v2-alpha-tpuv5"), ("v6e-16", "v2-alpha-tpuv6e")],
)
def test_spot_slices_are_created_together(shell, accelerator, runtime):
    cloud(shell, queued=[ABSENT, "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    flags = ["--slices=3", "--spot", "--create-flag=--valid-until-duration=6h", *PLACE]
    printed = shell.printed("tpu.sh", "create", *flags, f"--type={accelerator}")
    create = [*QR, "create", "vrl-jax", *PLACE, "--node-count=3", "--node-prefix=vrl-jax"]
    create += [f"--accelerator-type={accelerator}", f"--runtime-version={runtime}", "--spot"]
    nodes = [node(f"vrl-jax-{number}") for number in range(3)]
    assert printed == [ASK, [*create, "--valid-until-duration=6h"], ASK, *nodes]
    shell("tpu.sh", "create", *flags, f"--type={accelerator}")
    assert shell.calls() == [ASK, printed[1], ASK, ASK, ASK, *nodes]


def test_place_and_bucket_come_from_the_environment(shell):
    names = {"GOOGLE_CLOUD_PROJECT": "p", "CLOUDSDK_COMPUTE_ZONE": "z", "VRL_BUCKET": "gs://mine"}
    shell.environment |= names
    config = "--config=configs/a.py"
    start = worker(f"start {config} --workdir=gs://mine/runs/vrl-jax")
    assert shell.printed("tpu.sh", "run", "--", config) == [start]


def test_a_folder_of_one_s_own_is_used_as_it_is(shell):
    run = ["--config=configs/a.py", "--workdir=gs://other/a", "--config.train.steps=3"]
    assert shell.printed("tpu.sh", "run", *PLACE, "--bucket=mine", "--", *run) == [
        worker("start " + " ".join(run))
    ]


@pytest.mark.parametrize(
    "action, expected",
    [
        ("stop", [worker("stop")]),
        ("delete", [DELETE]),
        ("logs", [on("bash vrl_jax/launch/worker.sh logs", node=0, worker=0)]),
        ("status", [[*QR, "describe", "vrl-jax", *PLACE], worker("state")]),
    ],
)
def test_the_other_actions(shell, action, expected):
    cloud(shell)
    assert shell.does_what_it_printed("tpu.sh", action, *PLACE) == expected


def test_after_a_preemption_the_same_command_is_run_again(shell):
    cloud(
        shell,
        queued=[ABSENT, "ACTIVE", "ACTIVE", "ACTIVE", "SUSPENDED", ABSENT, "ACTIVE"],
        nodes=["READY", "READY", "PREEMPTED", "READY"],
        states=["running\nrunning", "exited 0\nexited 0"],
    )
    text = shell("tpu.sh", "up", "--spot", "--keep", *FLAGS, *RUN)
    assert "interrupted (LOST)" in text and "finished" in text
    starts = asked(shell, "worker.sh start")
    assert len(starts) == 2 and starts[0] == starts[1]
    order = [
        word
        for call in shell.calls()
        for word in ("create", "delete", "scp", "start", "state")
        if word in call or f"worker.sh {word}" in call[-1]
    ]
    again = ["scp", "start", "state"]
    assert order == ["create", *again, "delete", "create", *again]


def test_a_run_that_was_asked_to_stop_goes_on(shell):
    states = ["gone", "exited 0\nexited 143", "running\nexited 143", "exited 143", "exited 0"]
    cloud(shell, states=states)
    assert "interrupted (143)" in shell("tpu.sh", "up", *FLAGS, *RUN)
    assert len(asked(shell, "worker.sh start")) == 2 and not asked(shell, " create ")
    assert shell.calls()[-1] == DELETE


def test_an_error_of_the_training_is_not_tried_again(shell):
    cloud(shell, states=["gone", "running", "exited 143\nexited 1"])
    text = shell("tpu.sh", "up", *FLAGS, *RUN, code=2)
    assert "error: the run failed with exit code 1" in text and "still exist and are billed" in text
    assert len(asked(shell, "worker.sh start")) == 1 and DELETE not in shell.calls()


def test_an_error_that_a_preemption_made_is_tried_again(shell):
    cloud(
        shell,
        queued=["ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDED", ABSENT, "ACTIVE"],
        states=["gone", "exited 134\nexited 1", "exited 0"],
    )
    shell("tpu.sh", "up", *FLAGS, *RUN)
    assert len(asked(shell, "worker.sh start")) == 2 and len(asked(shell, " create ")) == 1


def test_what_is_not_reached_is_waited_for(shell):
    partly = "WARNING: Could not prepare all 2 nodes, attempting to ssh into the rest.\nexited 0"
    cloud(
        shell,
        queued=["ACTIVE", BROKEN, "ACTIVE"],
        states=[BROKEN, partly, "running", BROKEN, partly, "running", "exited 0"],
    )
    text = shell("tpu.sh", "up", *FLAGS, *RUN)
    assert "not all hosts of vrl-jax answer: ERROR: the network is unreachable" in text
    installed = asked(shell, "scp") + asked(shell, "worker.sh install")
    assert not installed + asked(shell, "worker.sh start"), "a run that goes on is only watched"
    assert len(asked(shell, "worker.sh state")) == 7


def test_hosts_answer_before_anything_is_installed(shell):
    ask = ["bash", "-c", LOOK]
    assert subprocess.run(ask, cwd=shell.place, capture_output=True, text=True).stdout == "gone\n"
    script = shell.place / "vrl_jax" / "launch" / "worker.sh"
    script.parent.mkdir(parents=True)
    script.write_text('echo "its $1"')
    said = subprocess.run(ask, cwd=shell.place, capture_output=True, text=True).stdout
    assert said == "its state\n"
    cloud(shell, states=["gone\ngone", "exited 0\nexited 0"])
    shell("tpu.sh", "up", *FLAGS, *RUN)
    assert len(asked(shell, "worker.sh start")) == 1


def test_slices_whose_node_is_missing_are_made_again(shell):
    cloud(shell, queued=["ACTIVE", ABSENT, "ACTIVE"], nodes=[ABSENT, "READY"])
    assert "vrl-jax is SUSPENDED: recreating it" in shell("tpu.sh", "create", *FLAGS)
    made = [call[4] for call in shell.calls() if call[4] != "describe"]
    assert made == ["delete", "create"]


def test_what_fails_after_a_preemption_is_tried_again(shell):
    no = ("ERROR: try again later", 1)
    states = ["running", "exited 0"]
    cloud(
        shell,
        queued=["ACTIVE", "SUSPENDED", "SUSPENDED", "SUSPENDED", ABSENT, ABSENT, "ACTIVE"],
        states=states,
    )
    told = json.loads((shell.place / "answers").read_text())
    shell.answer(told | {" delete ": [no, ("", 0)], " create ": [no, ("", 0)]})
    assert "try again later" in shell("tpu.sh", "up", *FLAGS, *RUN)
    made = [call[4] for call in shell.calls() if call[4] in ("delete", "create")]
    assert made == ["delete", "delete", "create", "create", "delete"]


@pytest.mark.parametrize("queued, action", [(ABSENT, "create"), ("SUSPENDED", "delete")])
def test_what_fails_at_once_ends_it(shell, queued, action):
    cloud(shell, queued=[queued])
    told = json.loads((shell.place / "answers").read_text())
    shell.answer(told | {f" {action} ": [("ERROR: no permission", 1)]})
    assert "no permission" in shell("tpu.sh", "up", *FLAGS, *RUN, code=1)
    assert len(asked(shell, f" {action} ")) == 1


def test_a_host_that_started_anew_is_given_the_run_again(shell):
    cloud(shell, states=["running", "exited 1\ngone", "exited 1\ngone", "exited 0"])
    assert "interrupted (LOST)" in shell("tpu.sh", "up", *FLAGS, *RUN)
    assert len(asked(shell, "worker.sh start")) == 1


def test_nothing_is_created_where_gcloud_does_not_answer_or_the_request_failed(shell):
    cloud(shell, queued=[BROKEN])
    assert "does not report the state of vrl-jax" in shell("tpu.sh", "up", *FLAGS, *RUN, code=2)
    assert shell.calls() == [ASK]
    cloud(shell, queued=["FAILED"])
    assert "vrl-jax is FAILED" in shell("tpu.sh", "up", *FLAGS, *RUN, code=2)
    assert shell.calls() == [ASK]
