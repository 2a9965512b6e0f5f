import base64
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests.buckets import Bucket, open_bucket
from tests.evaluation.test_evaluation_run import ENCODER
from tests.test_main import ENVIRONMENT, ROOT, command, write_folders
from vrl_jax import pretrained
from vrl_jax.augment.clip_views import Augment
from vrl_jax.evaluation.evaluation_run import UNTRAINED
from vrl_jax.report import __main__ as report
from vrl_jax.train.workdir import open_workdir

RUN = "gs://bucket/runs/x"


@pytest.fixture
def bucket():
    return open_bucket()


def test_a_local_folder_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "a", str(tmp_path / "a"), "a", pathlib.Path("a")):
        with open_workdir(path) as workdir:
            assert workdir.path == workdir.local == tmp_path / "a" and not workdir.copy
            assert workdir.checkpoints == tmp_path / "a" / "checkpoints"
            assert workdir / "x.json" == tmp_path / "a" / "x.json"
            assert (
                workdir.subfolder("given").checkpoints == tmp_path / "a" / "given" / "checkpoints"
            )


def test_a_shadow_begins_with_what_was_there(bucket):
    for name in ("config.json", "results/a.json", "given/log.txt", "tensorboard/e.1"):
        bucket.pipe(f"{RUN}/{name}", name.encode())
    for name in ("checkpoints/3/state/d", "given/checkpoints/3/commit_success.txt"):
        bucket.pipe(f"{RUN}/{name}", b"large")
    bucket.pipe("gs://bucket/runs/xy/other", b"")
    workdir = open_workdir(RUN)
    copied = {str(at.relative_to(workdir.local)) for at in workdir.local.rglob("*") if at.is_file()}
    assert copied == {"config.json", "results/a.json", "given/log.txt", "tensorboard/e.1"}
    assert (workdir / "config.json").read_text() == "config.json"
    assert str(workdir.subfolder("given").checkpoints) == f"{RUN}/given/checkpoints"
    assert (workdir.subfolder("given") / "log.txt").read_text() == "given/log.txt"
    assert workdir.local.name == "x"  # what reports call the run


def test_what_has_changed_is_copied_and_nothing_else(bucket):
    for name in ("kept", "changed", "gone", "checkpoints/3/d"):
        bucket.pipe(f"{RUN}/{name}", b"old")
    with open_workdir(RUN) as workdir:
        (workdir / "changed").write_text("new")
        (workdir / "gone").unlink()
        part = workdir.subfolder("given")
        part.local.mkdir()
        (part / "added").write_text("1")
        (workdir.local / "wandb").mkdir()
        (workdir.local / "wandb" / "of another program").write_text("")
        bucket.pipe(f"{RUN}/kept", b"of another process")
        assert bucket.cat(f"{RUN}/changed") == b"old"
        part.push()
        expected = {
            "kept": b"of another process",
            "changed": b"new",
            "given/added": b"1",
            "checkpoints/3/d": b"old",
        }
        there = {f"/bucket/runs/x/{name}": data for name, data in expected.items()}
        assert bucket.cat(bucket.find(RUN)) == there
        (workdir / "kept").write_text("ours")
    assert bucket.cat(f"{RUN}/kept") == b"ours"


def test_what_was_written_is_copied_after_an_error_too(bucket):
    with pytest.raises(FloatingPointError), open_workdir(RUN) as workdir:
        (workdir / "metrics.jsonl").write_text("{}\n")
        raise FloatingPointError
    assert bucket.cat(f"{RUN}/metrics.jsonl") == b"{}\n"


def test_a_shadow_ends_with_its_run(bucket):
    bucket.pipe(f"{RUN}/config.json", b"{}")
    with open_workdir(RUN) as workdir:
        (workdir / "wandb" / "offline-run-1").mkdir(parents=True)
        (workdir / "wandb" / "offline-run-1" / "run-1.wandb").write_text("records")
        (workdir / "wandb" / "latest-run").symlink_to("offline-run-1")
        (workdir / "wandb" / "debug.log").symlink_to("nowhere")
        workdir.push()
        assert not bucket.exists(f"{RUN}/wandb")
    assert bucket.find(f"{RUN}/wandb") == ["/bucket/runs/x/wandb/offline-run-1/run-1.wandb"]
    assert not workdir.copy.folder.parents[2].exists()
    workdir.push()
    assert len(bucket.find(RUN)) == 2
    with open_workdir(RUN) as workdir:  # other programs' files stay where they are
        assert [path.name for path in workdir.local.iterdir()] == ["config.json"]
    assert len(bucket.find(RUN)) == 2


def test_what_other_programs_do_meanwhile_disturbs_no_copy(bucket, monkeypatch):
    listing = os.scandir

    def scandir(path):
        if "wandb" in str(path):
            raise FileNotFoundError(path)
        return listing(path)

    with open_workdir(RUN) as workdir:
        (workdir / "wandb").mkdir()
        (workdir / "metrics.jsonl").write_text("{}\n")
        monkeypatch.setattr(os, "scandir", scandir)
        workdir.push()
    assert bucket.cat(f"{RUN}/metrics.jsonl") == b"{}\n"


@pytest.mark.parametrize("part", ["", "/results"])
def test_a_store_that_does_not_answer_loses_nothing(bucket, monkeypatch, capsys, part):
    for name in ("config.json", "metrics.jsonl", "results/a.json"):
        bucket.pipe(f"{RUN}/{name}", name.encode())
    listing = Bucket.ls

    def ls(self, path, **kwargs):
        if path == f"/bucket/runs/x{part}":
            raise TimeoutError
        return listing(self, path, **kwargs)

    monkeypatch.setattr(Bucket, "ls", ls)
    with pytest.raises(ValueError, match=f"{RUN} cannot be read: TimeoutError"):
        with open_workdir(RUN) as workdir:
            (workdir / "metrics.jsonl").write_text("")
    assert bucket.cat(f"{RUN}/metrics.jsonl") == b"metrics.jsonl"
    with pytest.raises(SystemExit):
        report.main([RUN])
    assert f"{RUN} cannot be read: TimeoutError" in capsys.readouterr().err


def test_what_is_no_runs_folder_is_not_copied(bucket):
    bucket.pipe({f"gs://bucket/runs/{name}/config.json": b"{}" for name in "abcd"})
    for url in ("gs://bucket", "gs://bucket/"):
        with pytest.raises(ValueError, match=rf"must be a folder in a bucket, .*got {url}$"):
            open_workdir(url)
    with pytest.raises(ValueError, match=r"gs://bucket/runs must be .* but a, b, c \.\.\.$"):
        open_workdir("gs://bucket/runs")
    for number, name in enumerate(["checkpoints/3/d", "trained/log", f"{UNTRAINED}-split2/log"]):
        bucket.pipe(f"gs://bucket/{number}/{name}", b"")
        open_workdir(f"gs://bucket/{number}")
    bucket.pipe("gs://bucket/marked/", b"")  # an empty folder, as Google's console makes it
    assert not list(open_workdir("gs://bucket/marked").local.iterdir())


def test_an_address_that_cannot_hold_a_run_is_refused():
    for url in ("ftp://x/y", "s3://x/y"):
        with pytest.raises(ValueError, match=f"a local path or begin with gs://, got {url}: on"):
            open_workdir(url)


def test_reports_are_made_of_remote_runs(bucket, tmp_path, monkeypatch, capsys):
    for name in ("a", "b"):
        bucket.pipe(f"gs://bucket/{name}/config.json", b'{"seed": 3}')
        bucket.pipe(f"gs://bucket/{name}/metrics.jsonl", b'{"step": 1, "loss": 2.5}\n')
    report.main(["gs://bucket/a", "--out", str(tmp_path / "one.html")])
    assert "loss" in (tmp_path / "one.html").read_text()
    monkeypatch.chdir(tmp_path)
    report.main(["gs://bucket/a"])
    report.main(["gs://bucket/a", "gs://bucket/b", "--out", "two.html"])
    paths = capsys.readouterr().out.split()
    assert paths == [str(tmp_path / "one.html"), "report.html", "two.html"]
    assert {path.name for path in tmp_path.iterdir()} == {"one.html", "report.html", "two.html"}
    assert not bucket.exists("gs://bucket/a/report.html")
    for args, says in [
        (["gs://bucket/none"], "gs://bucket/none is not a run's folder: it has no config.json"),
        (["gs://bucket/a", "gs://bucket/a"], "listed twice among gs://bucket/a, gs://bucket/a"),
        (["nosuch://x"], "nosuch://x: Protocol not known"),
    ]:
        with pytest.raises(SystemExit):
            report.main(args)
        assert says in capsys.readouterr().err


@pytest.fixture(scope="module")
def store():
    """The environment of programs for which `gs://bucket` is a server of this machine."""
    pytest.importorskip("gcsfs")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.gcs"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    url = server.stdout.readline().strip()
    # Clients look for a machine of Google's and its credentials: there are none.
    none = {"NO_GCE_CHECK": "true", "GCE_METADATA_HOST": "127.0.0.1:1"}
    urls = {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url}
    yield {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path), **none, **urls}
    server.kill()
    server.communicate()


def python(code, environment):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_a_checkpoint_that_was_not_finished_is_none(store):
    code = """
import jax.numpy as jnp
from etils import epath
from vrl_jax.train.checkpoint import Checkpoints, list_steps
from vrl_jax.train.train_step import TrainState

folder = epath.Path("gs://bucket/c/checkpoints")
def state(step):
    return TrainState(jnp.int32(step), {"w": jnp.full((4, 2), float(step))}, {}, {})

with Checkpoints(folder, 2, {}) as checkpoints:
    for step in (1, 2, 3):
        checkpoints.save(state(step), step)
print(*list_steps(folder))
(folder / "3" / "commit_success.txt").unlink()
print(*list_steps(folder))
with Checkpoints(folder, 2, {}) as checkpoints:
    print(int(checkpoints.restore(state(0)).params["w"][0, 0]))
    checkpoints.save(state(3), 3.0)
print(*list_steps(folder))
"""
    assert python(code, store) == ["2", "3", "2", "2", "2", "3"]


def files(environment):
    """Return all small files of the run, by their paths in its folder."""
    code = f"""
import base64, fsspec
files = fsspec.filesystem("gs")
for path in files.find("{RUN}"):
    if "/checkpoints/" not in path:
        data = base64.b64encode(files.cat(path)).decode()
        print(path.removeprefix("bucket/runs/x/"), data or "=")
"""
    words = python(code, environment)
    return {
        name: base64.b64decode(data) for name, data in zip(words[::2], words[1::2], strict=True)
    }


def lines(data):
    return [json.loads(line) for line in data.decode().splitlines()]


def launch(environment, **changes):
    args = command("synthetic_bod", RUN, **changes)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(args, cwd=ROOT, env=environment, **pipes)


@pytest.mark.slow
def test_a_run_that_is_stopped_and_killed_goes_on(store, tmp_path):
    plain = subprocess.run(command("synthetic_bod", tmp_path), cwd=ROOT, env=ENVIRONMENT)
    assert plain.returncode == 0
    for number, how, at in [(signal.SIGTERM, 143, "step 4:"), (signal.SIGKILL, -9, "step 8:")]:
        process = launch(store, train__save_every=2)
        for line in process.stdout:
            if at in line:  # it is about to save
                break
        process.send_signal(number)
        process.communicate()
        assert process.returncode == how
        there = files(store)
        done = [record["step"] for record in lines(there["metrics.jsonl"])]
        assert done == list(range(1, len(done) + 1)) and len(done) >= 4
        assert {"config.json", "environment.json", "probes.jsonl", "spectrum.npz"} <= set(there)
    text, _ = launch(store, train__save_every=2).communicate()
    assert f"report: {RUN}/report.html" in text, text
    there = files(store)
    for name in ("metrics.jsonl", "probes.jsonl"):
        ours, reference = lines(there[name]), lines((tmp_path / name).read_bytes())
        for one, other in zip(ours, reference, strict=True):
            for key in other.keys() - {"videos_per_second", "waiting_for_data", "wall_seconds"}:
                assert one[key] == other[key], key
    results = {f"results/{path.name}" for path in (tmp_path / "results").iterdir()}
    assert results <= set(there)
    code = (
        "from vrl_jax import pretrained; m = pretrained.load('{}'); print(m.step, m.weight_hash())"
    )
    assert python(code.format(RUN), store) == python(code.format(tmp_path), store)
    out = tmp_path / "report.html"
    python(f"from vrl_jax.report.__main__ import main; main(['{RUN}', '--out', '{out}'])", store)
    assert "spectrum" in out.read_text()


@pytest.mark.slow
def test_a_remote_encoder_is_judged_on_remote_videos_as_on_local_ones(store, tmp_path):
    write_folders(tmp_path / "set", 4)
    model = pretrained.init_untrained(ENCODER, Augment(size=16), frames=4, seed=7)
    pretrained.save(tmp_path / "w.safetensors", model)
    code = "import fsspec; fsspec.filesystem('gs').put('{}', 'bucket/', recursive=True)"
    for name in ("set", "w.safetensors"):
        python(code.format(tmp_path / name), store)
    code = """
import json
from dataclasses import replace
import fsspec
from absl import flags
from tests.evaluation.test_evaluation_run import evaluation
from vrl_jax.data.data_loader import Loader
from vrl_jax.data.datasets.video_folders import ClassFolders
from vrl_jax.evaluation.evaluation_run import EvaluationRun

flags.FLAGS.mark_as_parsed()
change = dict(batch=4, epochs=4.0)
given = dict(label="class", splits=(), change=change, save_every=3, benchmark="ucf101")
data, init = ClassFolders("{0}/set"), "{0}/w.safetensors"
wanted = evaluation(("dualvar", "finetune"), data=data, init=init, **given)
wanted = replace(wanted, loader=Loader(workers=1, max_failed=0.5))
job = EvaluationRun(wanted, "{0}/judged", quiet=True)
assert job()
files, root = fsspec.url_to_fs("{0}/judged")
for path in sorted(path for path in files.find(root) if "/results/" in path):
    if not path.endswith(".json"):
        continue
    result = json.loads(files.cat(path))
    print(json.dumps([result[key] for key in ("value", "unreadable", "data")]).replace(" ", ""))
"""
    outputs = [python(code.format(at), store) for at in ("gs://bucket", tmp_path)]
    there, here = ([text for text in texts if text.startswith("[")] for texts in outputs)
    assert there == here and here
    code = "import fsspec; print(*fsspec.filesystem('gs').find('bucket/judged'))"
    remote = {name.removeprefix("bucket/judged/") for name in python(code, store)}
    expected = {
        str(at.relative_to(tmp_path / "judged")) for at in tmp_path.glob("judged/**/*.json*")
    }
    assert {name for name in expected if "checkpoints" not in name} <= remote
    assert "trained/checkpoints/8/commit_success.txt" in remote
