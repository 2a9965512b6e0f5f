import json

import pytest

from vrl_jax import compare


def fake(folder, **values):
    (folder / "results").mkdir(parents=True)
    (folder / "report.html").touch()
    for name, value in values.items():
        kind, label = name.split("_")
        result = {"name": kind, "label": label, "value": value}
        (folder / "results" / f"{kind}-{label}.json").write_text(json.dumps(result))
    recall = {"name": "retrieval", "label": "static", "values": {"1": 0.5}}
    (folder / "results" / "retrieval-static.json").write_text(json.dumps(recall))


def test_finished_runs_are_tabulated_and_not_run_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compare.subprocess, "run", lambda *_, **__: pytest.fail("ran again"))
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


def test_missing_runs_get_seed_folder_and_overrides(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(compare.subprocess, "run", lambda c, **_: commands.append(c))
    arguments = ["configs/one.py", "--seeds=3", f"--out={tmp_path}", "--", "--config.train.steps=2"]
    compare.main(arguments)
    (command,) = commands
    assert command[1:4] == ["-m", "vrl_jax.main", "--config=configs/one.py"]
    assert command[4] == f"--workdir={tmp_path / 'one-seed3'}"
    assert command[5:] == ["--config.train.seed=3", "--config.train.steps=2"]
