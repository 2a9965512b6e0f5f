"""A log is on disk once flushed, and a resumed run removes records of later steps."""

import struct
import subprocess
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from vrl_jax.train.run_log import JsonlWriter, Log, NullLog


def events(folder):
    """Return all events in TensorBoard's files."""
    recorded = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            recorded.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return recorded


def test_all_is_on_the_disk_once_flushed(tmp_path):
    values = {f"loss/{number}": number / 4 for number in range(50)}
    with Log(tmp_path, 3, 9, quiet=True) as log:
        for step in (4, 5):
            log.metrics(step, values)
            log.flush()
            head, begun, *scalars = events(tmp_path / "tensorboard")
            assert head.file_version == "brain.Event:2"
            assert begun.step == 4 and begun.session_log.status == SessionLog.START
            recorded = {
                (at.step, v.tag): v.simple_value for at in scalars for v in at.summary.value
            }
            expected = {
                (n, name): value for n in range(4, step + 1) for name, value in values.items()
            }
            assert recorded == expected
        log.probes(6, {"score": 0.5})
    last = events(tmp_path / "tensorboard")[-1]
    assert (last.step, last.summary.value[0].tag) == (6, "probe/score") and last.wall_time > 0


def test_writing_imports_no_pytorch_and_leaves_it_to_others(tmp_path):
    pytest.importorskip("torch")
    code = f"""
import pathlib, sys
from vrl_jax.train.run_log import TensorBoardWriter

writer = TensorBoardWriter(pathlib.Path({str(tmp_path)!r}), 0)
writer.write(1, {{"loss": 0.5}})
writer.close()
assert "torch" not in sys.modules
import torch
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert events(tmp_path)[-1].summary.value[0].simple_value == 0.5


def test_the_silent_do_all_that_a_log_does():
    missing = {name for name in vars(Log) if not name.startswith("_")} - set(vars(NullLog))
    assert not missing


def test_the_time_of_earlier_sessions_is_kept(tmp_path):
    with Log(tmp_path, 0, 9, quiet=True) as log:
        assert log.elapsed == 0
        for step in (2, 4):
            log.metrics(step, {"wall_seconds": 10.0 * step})
    with Log(tmp_path, 3, 9, quiet=True) as log:
        assert log.elapsed == 20


@pytest.mark.parametrize("line", [bytes(30), b"{}", b"null", b'{"step": 3', b"\xff"])
def test_a_damaged_line_is_named_and_nothing_is_lost(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    content = b'{"step": 1, "loss": 2.0}\n' + line + b'\n{"step": 3, "loss": 1.0}\n{"st'
    path.write_bytes(content)
    with pytest.raises(ValueError, match="metrics.jsonl, line 2 must be .*: delete the line"):
        JsonlWriter(path, 3)
    assert path.read_bytes() == content
    path.write_bytes(content.replace(line + b"\n", b""))
    writer = JsonlWriter(path, 3)
    writer.close()
    assert [record["step"] for record in writer.previous] == [1, 3]
