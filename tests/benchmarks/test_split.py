import json
import shutil

import pytest

from benchmarks import split
from configs import synthetic_split

CELL = split.Cell("standing", "2")


def write_run(folder, seed, values):
    """Write the results of a finished run; the untrained encoder has half of them."""
    (folder / "results").mkdir(parents=True)
    (folder / "report.html").touch()
    for name, value in values.items():
        probe, label = split.COLUMNS[name].split(" ")
        for init in ("", split.UNTRAINED):
            result = {"name": probe, "label": label, "value": value / (2 if init else 1)}
            result["model"] = {"init": init, "weights": str(seed)}
            file = f"{probe.replace('/', '-')}-{label}{init}.json"
            (folder / "results" / file).write_text(json.dumps(result))


def test_tables_have_a_row_for_each_arm_and_gains_in_pairs(tmp_path, capsys):
    motion = {
        "split-delay": (0.5, 0.6, 0.9), "detrend": (0.4, 0.48, 0.81), "mean": (0.1,), "split": ()
    }  # fmt: skip
    runs = split.list_runs(tmp_path, [CELL], list(motion), [0, 1, 2], [])
    for (_, arm, seed), run in runs.items():
        if int(seed) < len(motion[arm]):
            values = {"m: motion": motion[arm][int(seed)], "m: drift": 0.2}
            write_run(run.workdir, seed, values)
    results = {}
    split.update_results(results, runs)
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"overrides": [], "results": results}))
    split.main([f"--json={file}", f"--arms={','.join(motion)}", "--motions=standing", "--drifts=2",
                "--tables"])  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert "| split-delay (3) | 0.667 ± 0.170 | 0.200 ± 0.000 |" in lines
    assert "| mean (1) | 0.100 ± 0.000 | 0.200 ± 0.000 |" in lines
    assert lines.index("### Untrained") < lines.index(
        "| detrend (3) | 0.282 ± 0.089 | 0.100 ± 0.000 |"
    )
    assert not any(line.startswith("| split (") for line in lines)
    assert "standing-drift2, m: motion" in "\n".join(lines)
    assert any(
        line.startswith("| split-delay |") and "**+0.103 ± 0.009**" in line for line in lines
    )


def test_only_runs_without_results_run(tmp_path, monkeypatch):
    started = []

    def finish(runs, jobs):
        started.append([(run.name, run.seed) for run in runs])
        for run in runs:
            write_run(run.workdir, run.seed, {"encoder: motion": 0.5})
        return []

    monkeypatch.setattr(split, "execute_runs", finish)
    args = [f"--out={tmp_path}", "--motions=standing", "--drifts=2", "--arms=mean,split"]
    split.main([*args, "--seeds=0"])
    shutil.rmtree(tmp_path / CELL.folder)
    split.main([*args, "--seeds=0,1"])
    assert started == [[("mean", 0), ("split", 0)], [("mean", 1), ("split", 1)]]
    stored = json.loads((tmp_path / "split.json").read_text())["results"]
    assert list(stored[CELL.folder]["split"]) == ["0", "1"]
    with pytest.raises(SystemExit, match="split.json has runs with overrides .*steps=1"):
        split.main([*args, "--", "--config.train.steps=1"])


def test_a_cell_of_one_seed_has_no_error_and_no_gain_no_bold():
    assert split.format_gain([0.1]) == ""
    assert split.format_gain([0.1, -0.1, 0.05]) == "+0.017 ± 0.060"


def test_every_arm_of_the_experiment_has_a_method():
    for arm in split.ARMS:
        synthetic_split.build_method(arm)
    with pytest.raises(ValueError, match="split-lower takes no shared forecast"):
        synthetic_split.build_method("split-lower+forecast")
    with pytest.raises(ValueError, match="the arm must be one of simclr, .*, got 'none'"):
        synthetic_split.build_method("none")
