import os
import re

import numpy as np
import pytest

from vrl_jax import atomic_files
from vrl_jax.atomic_files import ConfigMismatch, check_same_settings

ARRAYS = {"order/forward": np.arange(6).reshape(2, 3), "names": np.array(["a", "ö"])}


def interrupt(*_):
    raise KeyboardInterrupt


def write_all(folder):
    atomic_files.write_text(folder / "a.json", "± 1\n")
    atomic_files.write_npz(folder / "a.npz", ARRAYS)
    atomic_files.write_npz(folder / "b.npz", ARRAYS, compress=True)


def test_what_is_written_is_read_back_and_nothing_else_is_left(tmp_path):
    write_all(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.npz", "b.npz"]
    assert (tmp_path / "a.json").read_bytes() == "± 1\n".encode()
    for name in ("a.npz", "b.npz"):
        with np.load(tmp_path / name) as stored:
            assert set(stored) == set(ARRAYS)
            for key, array in ARRAYS.items():
                np.testing.assert_array_equal(stored[key], array)
    assert (tmp_path / "b.npz").stat().st_size < (tmp_path / "a.npz").stat().st_size


def test_arrays_have_the_bytes_that_numpy_writes(tmp_path):
    write_all(tmp_path)
    np.savez(tmp_path / "c.npz", **ARRAYS)
    np.savez_compressed(tmp_path / "d.npz", **ARRAYS)
    for ours, theirs in (("a.npz", "c.npz"), ("b.npz", "d.npz")):
        assert (tmp_path / ours).read_bytes() == (tmp_path / theirs).read_bytes()


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_write_cut_off_leaves_the_old_file(tmp_path, monkeypatch, function):
    for name in ("a.json", "a.npz", "b.npz"):
        (tmp_path / name).write_text("old")
        monkeypatch.setattr(atomic_files.os, function, interrupt)
        with pytest.raises(KeyboardInterrupt):
            if name == "a.json":
                atomic_files.write_text(tmp_path / name, "new")
            else:
                atomic_files.write_npz(tmp_path / name, ARRAYS, compress=name == "b.npz")
        assert (tmp_path / name).read_text() == "old"
        monkeypatch.undo()
    write_all(tmp_path)  # over what was left
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.npz", "b.npz"]


def test_an_error_while_writing_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_files.atomic_path(tmp_path / "a") as partial:
        partial.write_text("half")
        1 / 0  # noqa: B018
    assert not (tmp_path / "a").exists()


def test_the_disk_has_a_file_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            atomic_files.os,
            name,
            lambda *args, name=name, real=real: (calls.append(name), real(*args)),
        )
    atomic_files.write_text(tmp_path / "a", "text")
    assert calls == ["fsync", "replace", "fsync"]


def test_equal_settings_pass():
    check_same_settings("out", {"a": {"b": [1, 2]}, "c": None}, {"a": {"b": [1, 2]}}, "--out")


def test_other_settings_are_listed_with_old_and_new_values():
    old = {"config": {"size": [1, 2], "lr": 0.1, "optim": {"name": "sgd"}}, "data": "x"}
    new = {"config": {"size": [1, 2], "lr": 0.2, "optim": {}}, "data": "y", "seed": 1}
    message = (
        "runs/a was made with other settings: config.lr: was 0.1, is 0.2; config.optim.name: was "
        "'sgd', is None; data: was 'x', is 'y'; seed: was None, is 1. Use the old settings or "
        "choose another --workdir"
    )
    with pytest.raises(ConfigMismatch, match=f"^{re.escape(message)}$"):
        check_same_settings("runs/a", old, new, "--workdir")
    assert issubclass(ConfigMismatch, ValueError)
