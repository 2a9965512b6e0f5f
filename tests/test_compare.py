import functools
import json
import signal
import subprocess
import sys
import time

import pytest

from tests.test_main import COLOURLESS, EIGHT_DEVICES, ENVIRONMENT, ROOT, SMALL, records
from vrl_jax import compare
from vrl_jax.run_queue import Failure


@pytest.fixture
def undrawn(monkeypatch):
    """No figure is drawn."""
    monkeypatch.setattr(compare.sweep_figure, "draw_sweep", lambda *args: None)


@pytest.fixture
def commands(monkeypatch, undrawn):
    """The commands that were run, of which none has done anything."""
    collected = []

    def run_commands(commands, environments, logged, report):
        collected.extend(commands)
        return [], False

    monkeypatch.setattr(compare.run_queue, "run_commands", run_commands)
    return collected


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


def test_finished_runs_are_tabulated_and_not_run_again(tmp_path, capsys, commands):
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
    assert "linear" not in (tmp_path / "table.md").read_text() and not commands


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


def test_missing_runs_get_seed_folder_and_overrides(tmp_path, commands):
    arguments = ["configs/one.py", "--seeds=3", f"--out={tmp_path}", "--", "--config.train.steps=2"]
    compare.main(arguments)
    ((command, folder),) = commands
    assert folder == tmp_path / "one-seed3" and folder.is_dir()
    args = ["--config=configs/one.py", "--config.train.seed=3", "--config.train.steps=2"]
    assert command[1:] == ["-m", "vrl_jax.main", *args, f"--workdir={tmp_path / 'one-seed3'}"]
    with pytest.raises(
        SystemExit, match="^error: .*was made with other settings: command: was .*steps=2', is "
    ):
        compare.main([*arguments[:-1], "--config.train.steps=3"])
    compare.main(arguments)  # it was interrupted: goes on
    assert len(commands) == 2


def test_a_varied_setting_has_a_folder_a_row_and_a_place_in_the_picture(
    tmp_path, monkeypatch, commands
):
    for value, accuracy in (("0.5", 0.5), ("1", 0.75)):
        fake(tmp_path / f"data.cooccurrence={value}" / "one-seed0", linear_static=accuracy)
    settings = ["--seeds=0", "--vary=data.cooccurrence=0.5,1,0.9", f"--out={tmp_path}"]
    figures = []
    monkeypatch.setattr(compare.sweep_figure, "draw_sweep", lambda *args: figures.append(args))
    compare.main(["configs/one.py", *settings])
    ((command, _),) = commands  # two of the three are there
    assert command[-1] == f"--workdir={tmp_path / 'data.cooccurrence=0.9' / 'one-seed0'}"
    assert command[4:-1] == ["--config.train.seed=0", "--config.data.cooccurrence=0.9"]
    table = (tmp_path / "table.md").read_text()
    assert "| one, data.cooccurrence=0.5 | 0.500 ± 0.000 |" in table
    assert "| one, data.cooccurrence=0.9 (0 of 1 runs) |  |" in table
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


def test_a_run_without_labels_ends_and_repeated_words_are_one_run(tmp_path, commands, capsys):
    arguments = ["configs/one.py", "configs/one.py", "--seeds=0,0", f"--out={tmp_path}"]
    compare.main(arguments)
    ((_, folder),) = commands
    (folder / "results").mkdir()
    (folder / "report.html").touch()
    compare.main(arguments)
    assert len(commands) == 1
    assert "| one |" in capsys.readouterr().out.splitlines()[-1]


def test_a_report_of_a_run_that_goes_on_does_not_finish_it(tmp_path, commands):
    workdir = tmp_path / "one-seed0"
    workdir.mkdir()
    (workdir / "report.html").touch()
    args = ["--config=configs/one.py", "--config.train.seed=0"]
    (workdir / "command.json").write_text(json.dumps(args))
    compare.main(["configs/one.py", "--seeds=0", f"--out={tmp_path}"])
    assert len(commands) == 1


def test_failures_are_listed_at_the_end_and_a_stop_has_its_status(
    tmp_path, monkeypatch, capsys, undrawn
):
    ends = [([Failure(tmp_path / "two-seed0", "error: no data")], False), ([], True)]
    monkeypatch.setattr(compare.run_queue, "run_commands", lambda *args: ends.pop(0))
    fake(tmp_path / "one-seed0", linear_static=0.5)
    line = ["configs/one.py", "configs/two.py", "--seeds=0", f"--out={tmp_path}"]
    with pytest.raises(SystemExit) as ended:
        compare.main(line)
    first, last = str(ended.value.code).splitlines()
    assert first == "error: 1 of 2 runs failed; the same command tries them again"
    assert last == f"{tmp_path / 'two-seed0'}: error: no data"
    assert "| one | 0.500 ± 0.000 |\n| two (0 of 1 runs) |  |" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        compare.main(line)
    assert ended.value.code == 143


def test_shares_run_everything_once_and_the_table_is_written_afterwards(tmp_path, commands, capsys):
    line = ["configs/one.py", "configs/two.py", "--seeds=0,1,2", f"--out={tmp_path}"]
    for part in range(4):
        compare.main([*line, f"--share={part}/4"])
    folders = sorted(command.folder for command in commands)
    assert folders == sorted(tmp_path / f"{n}-seed{s}" for n in ("one", "two") for s in range(3))
    assert not (tmp_path / "table.md").exists()
    fake(tmp_path / "one-seed1", linear_static=0.5)
    capsys.readouterr()
    compare.main([*line, "--table"])
    assert len(commands) == 6
    assert "| one (1 of 3 runs) | 0.500 ± 0.000 |" in capsys.readouterr().out
    assert (tmp_path / "table.md").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--share=4/4"], "--share must be I/N with I from 0 to N - 1, got '4/4'"),
        (["--share=a"], "--share must be I/N with I from 0 to N - 1, got 'a'"),
        (["--share=0/4", "--table"], "not allowed with argument"),
        (["--jobs=0"], "--jobs must be at least 1, got 0"),
    ],
)
def test_parts_that_there_are_not_are_refused(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        compare.main(["configs/one.py", f"--out={tmp_path / 'a'}", *words])
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_jobs_have_their_devices_and_are_logged(tmp_path, monkeypatch, undrawn):
    calls = []

    def run_commands(commands, *options):
        calls.append((len(commands), *options[:2]))
        return [], False

    monkeypatch.setattr(compare.run_queue, "run_commands", run_commands)
    monkeypatch.setattr(compare.run_queue, "device_shares", lambda jobs: [{"GPU": "0"}] * jobs)
    line = ["configs/one.py", "--seeds=0,1", f"--out={tmp_path}"]
    compare.main([*line, "--jobs=2"])
    compare.main(line)
    assert calls == [(2, [{"GPU": "0"}] * 2, True), (2, [{"GPU": "0"}], False)]


@pytest.mark.slow
def test_runs_at_the_same_time_are_stopped_and_resumed_on_eight_devices(tmp_path):
    settings = {**SMALL, **COLOURLESS, "train.steps": 60, "train.probe_every": 60}
    overrides = [f"--config.{key}={value}" for key, value in settings.items()]
    line = ["-m", "vrl_jax.compare", "configs/synthetic_simclr.py", "--seeds=0,1", "--jobs=2"]
    line = [sys.executable, "-u", *line, f"--out={tmp_path}", "--", *overrides]
    start = functools.partial(
        subprocess.Popen, line, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    workdirs = [tmp_path / f"synthetic_simclr-seed{seed}" for seed in (0, 1)]
    with start() as sweep:
        while sweep.poll() is None and not all(map(has_metrics, workdirs)):
            time.sleep(0.05)
        sweep.send_signal(signal.SIGTERM)
        lines = sweep.communicate(timeout=300)[0]
    assert sweep.returncode == 143 and "stopped" in lines and not (tmp_path / "table.md").exists()
    with start(env={**ENVIRONMENT, **EIGHT_DEVICES}) as sweep:
        assert "failed" not in sweep.communicate(timeout=300)[0]
    assert sweep.returncode == 0 and "| synthetic_simclr |" in (tmp_path / "table.md").read_text()
    logs = [(workdir / "output.log").read_text() for workdir in workdirs]
    assert any("the same command continues" in log for log in logs)
    for workdir in workdirs:
        steps = [record["step"] for record in records(workdir / "metrics.jsonl")]
        assert steps == list(range(1, 61))
    with start() as sweep:
        assert "started" not in sweep.communicate(timeout=300)[0]


def has_metrics(workdir):
    path = workdir / "metrics.jsonl"
    return path.exists() and path.stat().st_size > 0
