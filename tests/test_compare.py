import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from vrl_jax import compare


def fake(folder, **values):
    (folder / "results").mkdir(parents=True)
    (folder / "report.html").touch()
    name, seed = folder.name.split("-seed")
    varied = [f"--config.{folder.parent.name}"] if "=" in folder.parent.name else []
    command = [f"--config=configs/{name}.py", f"--config.train.seed={seed}", *varied]
    (folder / "command.json").write_text(json.dumps(command))
    for name, value in values.items():
        kind, label = name.split("_")
        result = {"name": kind, "label": label, "value": value}
        (folder / "results" / f"{kind}-{label}.json").write_text(json.dumps(result))
    recall = {"name": "retrieval", "label": "static", "values": {"1": 0.5}}
    (folder / "results" / "retrieval-static.json").write_text(json.dumps(recall))


def test_finished_runs_are_tabulated_and_not_run_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compare, "wait_for", lambda command: pytest.fail("ran again"))
    fake(tmp_path / "one-seed0", linear_static=0.5, linear_dynamic=0.25)
    fake(tmp_path / "one-seed1", linear_static=0.75, linear_dynamic=0.25)
    fake(tmp_path / "two-seed0", linear_static=1.0)
    fake(tmp_path / "two-seed1", linear_static=1.0)
    compare.main(["configs/one.py", "configs/two.py", "--seeds=0,1", f"--out={tmp_path}"])
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[0] == "| | linear dynamic | linear static |"
    assert table[2] == "| one | 0.250 ± 0.000 | 0.625 ± 0.125 |"
    assert table[3] == "| two |  | 1.000 ± 0.000 |"
    assert "| one |" in capsys.readouterr().out
    compare.main(["configs/one.py", "--seeds=0", "--probe=knn", f"--out={tmp_path}"])
    assert "linear" not in (tmp_path / "table.md").read_text()


def test_untrained_encoders_are_a_row_and_each_counts_once(tmp_path):
    fake(tmp_path / "one-seed0", linear_static=0.5)
    fake(tmp_path / "two-seed0", linear_static=0.5)
    fake(tmp_path / "two-seed1", linear_static=0.5)
    fake(tmp_path / "one-seed1", linear_static=0.5)
    for folder, weights, value in (
        ("one-seed0", "a", 0.25),
        ("two-seed0", "a", 0.25),
        ("two-seed1", "b", 0.75),
    ):
        result = {"name": "linear", "label": "static", "value": value}
        result["model"] = {"init": "untrained", "weights": weights}
        path = tmp_path / folder / "results" / "linear-static-untrained.json"
        path.write_text(json.dumps(result))
    compare.main(["configs/one.py", "configs/two.py", "--seeds=0,1", f"--out={tmp_path}"])
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[2:] == [
        "| one | 0.500 ± 0.000 |",
        "| two | 0.500 ± 0.000 |",
        "| untrained | 0.500 ± 0.250 |",
    ]


def test_the_spread_within_a_result_stands_beside_it(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(
        compare.sweep_figure,
        "draw_sweep",
        lambda path, experiments, setting: figures.append(experiments),
    )
    for seed, (value, spread) in enumerate([(0.5, 0.1), (0.7, 0.2)]):
        fake(tmp_path / f"one-seed{seed}")
        result = {"name": "linear", "label": "class", "value": value, "std": spread}
        path = tmp_path / f"one-seed{seed}" / "results" / "linear-class.json"
        path.write_text(json.dumps(result))
    compare.main(["configs/one.py", "--seeds=0,1", f"--out={tmp_path}"])
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[0] == "| | linear class | linear class, std within |"
    assert table[2] == "| one | 0.600 ± 0.100 | 0.150 ± 0.050 |"
    assert figures == [{"one": {"": {"linear class": [0.5, 0.7]}}}]


def test_missing_runs_get_seed_folder_and_overrides(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(compare, "wait_for", commands.append)
    arguments = ["configs/one.py", "--seeds=3", f"--out={tmp_path}", "--", "--config.train.steps=2"]
    compare.main(arguments)
    (command,) = commands
    args = ["--config=configs/one.py", "--config.train.seed=3", "--config.train.steps=2"]
    assert command[1:] == ["-m", "vrl_jax.main", *args, f"--workdir={tmp_path / 'one-seed3'}"]
    with pytest.raises(
        SystemExit, match="^error: .*was made with other settings: command: was .*steps=2', is "
    ):
        compare.main([*arguments[:-1], "--config.train.steps=3"])
    compare.main(arguments)  # it was interrupted: goes on
    assert len(commands) == 2


def test_a_varied_setting_has_a_folder_a_row_and_a_place_in_the_picture(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(compare, "wait_for", commands.append)
    for value, accuracy in (("0.5", 0.5), ("1", 0.75)):
        fake(tmp_path / f"data.cooccurrence={value}" / "one-seed0", linear_static=accuracy)
    settings = ["--seeds=0", "--vary=data.cooccurrence=0.5,1,0.9", f"--out={tmp_path}"]
    figures = []
    monkeypatch.setattr(compare.sweep_figure, "draw_sweep", lambda *args: figures.append(args))
    compare.main(["configs/one.py", *settings])
    (command,) = commands  # two of the three are there
    assert command[-1] == f"--workdir={tmp_path / 'data.cooccurrence=0.9' / 'one-seed0'}"
    assert command[4:-1] == ["--config.train.seed=0", "--config.data.cooccurrence=0.9"]
    table = (tmp_path / "table.md").read_text()
    assert "| one, data.cooccurrence=0.5 | 0.500 ± 0.000 |" in table
    ((path, experiments, setting),) = figures
    assert (path, setting) == (tmp_path / "plot.png", "data.cooccurrence")
    assert experiments["one"]["1"] == {"linear static": [0.75]}


def test_a_setting_without_values_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        compare.main(["configs/one.py", "--vary=data.cooccurrence", f"--out={tmp_path}"])
    assert "such as data.key=1,2, got 'data.cooccurrence'" in capsys.readouterr().err


def test_what_is_no_seed_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        compare.main(["configs/one.py", "--seeds=1,b", f"--out={tmp_path}"])
    assert "--seeds must be integers such as 0,1,2, got '1,b'" in capsys.readouterr().err


def test_a_report_of_a_run_that_goes_on_does_not_finish_it(tmp_path, monkeypatch):
    workdir = tmp_path / "one-seed0"
    workdir.mkdir()
    (workdir / "report.html").touch()
    args = ["--config=configs/one.py", "--config.train.seed=0"]
    (workdir / "command.json").write_text(json.dumps(args))
    commands = []
    monkeypatch.setattr(compare, "wait_for", commands.append)
    compare.main(["configs/one.py", "--seeds=0", f"--out={tmp_path}"])
    assert len(commands) == 1


def test_a_run_that_fails_ends_the_comparison_with_its_status(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "wait_for", lambda command: 143)
    with pytest.raises(SystemExit) as ended:
        compare.main(["configs/one.py", "configs/two.py", "--seeds=0", f"--out={tmp_path}"])
    assert ended.value.code == 143 and not (tmp_path / "two-seed0").exists()


CHILD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_run_is_told_to_stop_and_its_status_kept():
    command = f"[{sys.executable!r}, '-c', {CHILD!r}]"
    here = f"from vrl_jax import compare; print(compare.wait_for({command}))"
    parent = subprocess.Popen(
        [sys.executable, "-c", here],
        cwd=pathlib.Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout.readline() == "ready\n"
    os.killpg(parent.pid, signal.SIGTERM)
    assert parent.communicate(timeout=30)[0] == "9\n" and parent.returncode == 0
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert compare.wait_for(killed) == 137
