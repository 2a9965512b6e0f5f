import math
import pathlib
import shutil
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vrl_jax.atomic_files import ConfigMismatch
from vrl_jax.train import sharding
from vrl_jax.train.checkpoint import Checkpoints, list_steps, restore_encoder
from vrl_jax.train.train_step import TrainState

WRITER = """
import sys, pathlib
import jax.numpy as jnp
from vrl_jax.train.checkpoint import Checkpoints, restore_encoder
from vrl_jax.train.train_step import TrainState
with Checkpoints(pathlib.Path(sys.argv[1]), 2, {}) as checkpoints:
    for step in range(1, 10**6):
        state = TrainState(jnp.int32(step), {"w": jnp.full(10**6, float(step))}, {}, {})
        checkpoints.save(state, 0.0)
        print(step, flush=True)
"""


def state(step, value=0.0):
    return TrainState(jnp.int32(step), {"w": jnp.full((4, 2), value)}, {"n": jnp.int32(3)}, {})


def test_keeps_the_latest_and_the_best(tmp_path):
    with Checkpoints(tmp_path, 2, {}) as checkpoints:
        for step, score in [(1, 0.1), (2, 0.9), (3, 0.5), (4, 0.3), (5, 0.2)]:
            checkpoints.save(state(step, step), score)
    steps = sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit())
    assert steps == [2, 4, 5]
    with Checkpoints(tmp_path, 2, {}) as checkpoints:
        restored = checkpoints.restore(state(0))
    assert int(restored.step) == 5
    np.testing.assert_array_equal(restored.params["w"], 5.0)


def test_a_run_that_goes_on_keeps_no_more(tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: 0.5, 4: 0.3, 5: 0.2}
    for step, score in scores.items():
        with Checkpoints(tmp_path, 1, {}) as checkpoints:
            checkpoints.save(state(step), score)
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == [2, 5]


def test_what_is_to_come_before_a_save_comes_before(tmp_path):
    before_saves = []
    with Checkpoints(
        tmp_path, 1, {}, before_save=lambda: before_saves.append(list_steps(tmp_path))
    ) as checkpoints:
        for step in (1, 2):
            checkpoints.save(state(step), 0.0)
    assert before_saves[0] == [] and len(before_saves) == 2


def test_a_save_that_is_refused_stops_the_run(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, 1, {}) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "save", lambda *_, **__: False)
        with pytest.raises(OSError, match="the checkpoint of step 3 was not written"):
            checkpoints.save(state(3), 0.0)


def test_restores_onto_another_mesh(tmp_path):
    with Checkpoints(tmp_path, 1, {}) as checkpoints:
        checkpoints.save(state(1, 7.0), 0.0)
    eight = jax.device_put(state(0), sharding.replicated_sharding(sharding.make_mesh()))
    with Checkpoints(tmp_path, 1, {}) as checkpoints:
        restored = checkpoints.restore(eight)
    assert len(restored.params["w"].sharding.device_set) == 8
    np.testing.assert_array_equal(restored.params["w"], 7.0)


def test_an_encoder_is_read_without_what_stood_around_it(tmp_path, caplog):
    def select(train):
        return {"params": train.params["trunk"], "batch_stats": train.state["moments"]}

    encoder = {"kernel": jnp.arange(6.0).reshape(2, 3)}
    params = {"trunk": encoder, "heads": {"w": jnp.ones(3)}}
    train_state = {"moments": {"mean": jnp.full(3, 2.0)}, "queue": jnp.ones((5, 2))}
    with Checkpoints(tmp_path, 3, {}, encoder=select) as checkpoints:
        for step in (1, 2):
            scaled = jax.tree.map(lambda x, step=step: step * x, params)
            checkpoints.save(
                TrainState(jnp.int32(step), scaled, train_state, {"m": jnp.ones(3)}), 0.0
            )
    caplog.clear()
    for expected in (None, 1):
        step, restored = restore_encoder(tmp_path, expected)
        assert step == (expected or 2)
        assert jax.tree.structure(restored) == jax.tree.structure(
            {"params": encoder, "batch_stats": {"mean": 0}}
        )
        np.testing.assert_array_equal(restored["params"]["kernel"], step * encoder["kernel"])
        np.testing.assert_array_equal(restored["batch_stats"]["mean"], 2.0)
    assert not caplog.records, caplog.text
    with pytest.raises(
        ValueError, match=r"step must be that of a checkpoint in .*, one of \[1, 2\], got 7"
    ):
        restore_encoder(tmp_path, 7)


def test_an_encoder_without_statistics_is_read(tmp_path):
    def select(train):
        return {"params": train.params, "batch_stats": {}}

    with Checkpoints(tmp_path, 1, {}, encoder=select) as checkpoints:
        checkpoints.save(state(1, 7.0), 0.0)
    step, restored = restore_encoder(tmp_path)
    assert step == 1 and restored["batch_stats"] == {}
    np.testing.assert_array_equal(restored["params"]["w"], 7.0)


def test_a_checkpoint_without_an_encoder_is_refused_by_name(tmp_path):
    with Checkpoints(tmp_path, 1, {}) as checkpoints:
        checkpoints.save(state(1), 0.0)
    with pytest.raises(ValueError, match="step 1 in .* has no item 'encoder': .* train again$"):
        restore_encoder(tmp_path)


def test_another_config_is_refused_with_what_differs(tmp_path):
    with Checkpoints(tmp_path, 1, {"config": {"lr": 0.1, "size": [1, 2]}, "data": "x"}) as saved:
        saved.save(state(1), 0.0)
    with pytest.raises(ValueError, match=r"config.lr: was 0.1, is 0.2; data: was 'x', is 'y'"):
        Checkpoints(tmp_path, 1, {"config": {"lr": 0.2, "size": [1, 2]}, "data": "y"})
    with Checkpoints(tmp_path, 1, {"config": {"lr": 0.2}}, accept_changes=True) as accepted:
        assert accepted.latest() == 1


def truncate(path):
    for file in path.rglob("d/*"):
        file.write_bytes(b"")


def zero(path):
    for file in filter(pathlib.Path.is_file, path.rglob("*")):
        file.write_bytes(bytes(file.stat().st_size))


def lose_data(path):
    for folder in list(path.rglob("d")):
        shutil.rmtree(folder)


def empty(path):
    shutil.rmtree(path)
    path.mkdir()


def lose_score(path):
    (path / "metrics" / "metrics").write_bytes(bytes(12))


def lose_identity(path):
    shutil.rmtree(path / "identity")


def lose_metadata(path):
    for file in list(path.rglob("_METADATA")):
        file.unlink()


def keep_encoder(train):
    return {"params": train.params, "batch_stats": {}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoints of steps 1 to 3."""
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder, 3, {"a": 1}, encoder=keep_encoder) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(state(step, step), 0.0)
    return folder


def resume(folder):
    with Checkpoints(folder, 3, {"a": 1}, encoder=keep_encoder) as checkpoints:
        return int(checkpoints.restore(state(0)).step)


@pytest.mark.parametrize("damage", [truncate, zero, lose_data, empty, lose_score, lose_identity])
def test_a_damaged_checkpoint_is_named_with_the_good_one_before_it(
    tmp_path, saved, damage, monkeypatch
):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "3")
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="damaged checkpoint .*/3: delete it .* of step 2") as run:
        resume(tmp_path)
    heard.clear()
    for text in ("Event loop is closed", "another"):  # the former of a read that ends later
        error = RuntimeError(text)
        sys.unraisablehook(types.SimpleNamespace(object=None, exc_value=error))
    assert [str(event.exc_value) for event in heard] == ["another"]
    assert "\n" not in str(run.value) and sorted(tmp_path.rglob("*")) == before
    if damage not in (lose_score, lose_identity):  # an encoder is read without them
        with pytest.raises(ValueError, match="/3: delete it to continue .*, that of step 2"):
            restore_encoder(tmp_path)
    assert restore_encoder(tmp_path, 2)[0] == 2
    shutil.rmtree(tmp_path / "3")
    assert resume(tmp_path) == 2


def test_all_damaged_checkpoints_are_named(tmp_path, saved):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    lose_metadata(tmp_path / "3")
    assert resume(tmp_path) == 3  # training knows the tree
    with pytest.raises(ValueError, match="/3: delete it to continue .*, that of step 2"):
        restore_encoder(tmp_path)
    for step, names in ((2, "/2 and .*/3: delete them .* step 1"), (1, "/1 and .*: no other one")):
        truncate(tmp_path / str(step))
        truncate(tmp_path / "3")
        with pytest.raises(ValueError, match=f"damaged checkpoint .*{names}"):
            resume(tmp_path)


@pytest.mark.parametrize("params", [{"w": jnp.zeros((4, 3))}, {"v": jnp.zeros((4, 2))}])
def test_arrays_of_other_settings_are_refused_but_not_called_damaged(saved, params):
    with Checkpoints(saved, 3, {"a": 1}) as checkpoints:
        with pytest.raises(ConfigMismatch, match="the arrays of .*/3 do not fit") as caught:
            checkpoints.restore(state(0)._replace(params=params))
    assert "damaged" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_score_that_is_not_a_number_is_not_the_best(tmp_path):
    for step, score in enumerate([0.1, 0.9, float("nan"), 0.5, -math.inf, float("nan")], 1):
        with Checkpoints(tmp_path, 1, {}) as checkpoints:
            checkpoints.save(state(step), score)
            assert checkpoints.latest() == step
        with Checkpoints(tmp_path, 1, {}) as checkpoints:  # opened again
            assert checkpoints.latest() == step == max(list_steps(tmp_path))
    assert list_steps(tmp_path) == [2, 6]


def identity(root="/a", data="x", **config):
    return {"config": {"lr": 0.1, "data": {"kind": "k", "root": root}, **config}, "data": data}


def test_data_and_weights_that_moved_are_the_same(tmp_path, capsys):
    with Checkpoints(tmp_path, 1, identity(init="/runs/a")) as checkpoints:
        checkpoints.save(state(1), 0.0)
    Checkpoints(tmp_path, 1, identity(init="/runs/a"))
    assert not capsys.readouterr().out
    for moved in (identity("/b", init="/runs/a"), identity(init="/runs/b")):
        Checkpoints(tmp_path, 1, moved)
        (line,) = capsys.readouterr().out.splitlines()
        assert "have moved and are the same: config." in line and line.count("was '/") == 1
    for other in (
        identity("/b", "y", init="/runs/a"),
        identity("/b", lr=0.2, init="/runs/a"),
        identity("/a", init="/runs/a") | {"weights": "z"},
    ):
        with pytest.raises(ConfigMismatch, match="other settings"):
            Checkpoints(tmp_path, 1, other)


@pytest.mark.parametrize("call", ["save", "wait_until_finished", "close"])
def test_a_full_disk_is_not_called_memory(tmp_path, monkeypatch, call):
    def fail(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device [28]")

    checkpoints = Checkpoints(tmp_path, 2, {})
    checkpoints.save(state(1), 0.0)
    checkpoints.wait()
    monkeypatch.setattr(checkpoints._manager, call, fail)
    with pytest.raises(
        OSError, match="no space is left .*the same command continues from step [12]"
    ):
        with checkpoints:
            checkpoints.save(state(2), 0.0)
            checkpoints.wait()
    monkeypatch.undo()
    checkpoints._manager.close()


@pytest.mark.parametrize("delay", [0.0, 0.03])
def test_a_save_cut_off_by_a_kill_is_never_taken_for_a_good_one(tmp_path, delay):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        cwd=pathlib.Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        for line in process.stdout:
            if int(line) == 4:
                break
        time.sleep(delay)
        process.kill()
    like = TrainState(jnp.int32(0), {"w": jnp.zeros(10**6)}, {}, {})
    with Checkpoints(tmp_path, 2, {}) as checkpoints:
        restored = checkpoints.restore(like)
    assert int(restored.step) >= 1
    np.testing.assert_array_equal(restored.params["w"], float(restored.step))
