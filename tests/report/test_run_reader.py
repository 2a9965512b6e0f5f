import json

import numpy as np
import pytest

from tests.report.conftest import dump, dump_lines
from vrl_jax import run_files
from vrl_jax.report import run_reader


def test_cut_last_line_is_skipped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "loss": 4.0}\n{"step": 3, "lo')
    assert [record["step"] for record in run_reader.read_records(path)] == [1, 2]


def test_last_line_without_line_break_counts_when_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    assert [record["step"] for record in run_reader.read_records(path)] == [1, 2]


@pytest.mark.parametrize("damaged", ['{"step": 2, "lo', "[2]", '{"loss": 1.0}', ""])
def test_broken_line_in_the_middle_is_named(tmp_path, damaged):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{damaged}\n{{"step": 3}}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        run_reader.read_records(path)


def test_last_record_of_a_repeated_step_wins(tmp_path):
    dump_lines(
        tmp_path / "metrics.jsonl",
        [{"step": s, "loss": v} for s, v in ((1, 9.0), (2, 8.0), (3, 7.0), (2, 6.0), (3, 5.0))],
    )
    steps, values = run_reader.history_series(
        run_reader.read_records(tmp_path / "metrics.jsonl"), "loss"
    )
    np.testing.assert_array_equal(steps, [1, 2, 3])
    np.testing.assert_array_equal(values, [9, 6, 5])


def test_series_skips_steps_without_the_quantity_and_reads_null_as_nan():
    history = [{"step": 1, "a": 1.0}, {"step": 2}, {"step": 3, "a": None}]
    steps, values = run_reader.history_series(history, "a")
    np.testing.assert_array_equal(steps, [1, 3])
    np.testing.assert_array_equal(values, [1, np.nan])


def test_everything_is_read(workdir):
    run = run_reader.read_run(workdir)
    assert (len(run.metrics), len(run.probes), len(run.results)) == (200, 5, 7)
    assert run.config["optim"]["learning_rate"] == 0.001
    assert run.spectrum.eigenvalues.shape == (5, 32, 7)
    assert run.spectrum.static_rank.shape == (5, 32)
    assert run.neighbours.same.shape == (3, 5, 2)
    assert {result.run for result in run.results} == {"tiny_bod"}
    with_predictions = [result.path.stem for result in run.results if result.predictions]
    assert with_predictions == ["linear_static"]


def test_runs_are_named_by_what_tells_them_apart(workdir, other_workdir):
    runs = run_reader.read_runs([other_workdir, workdir])
    assert list(runs) == ["tiny_dualvar", "tiny_bod"]
    for name, run in runs.items():
        assert {result.run for result in run.results} == {name}


def test_wrong_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        run_reader.read_run(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no config.json"):
        run_reader.read_run(tmp_path)


def test_damaged_files_are_named(workdir):
    path = workdir / "results" / "linear_static.json"
    content = path.read_text()
    path.write_text(content[:40])
    with pytest.raises(ValueError, match=r"linear_static\.json is not JSON"):
        run_reader.read_run(workdir)
    dump(path, {"name": "linear", "value": 0.5})
    with pytest.raises(ValueError, match=r"linear_static\.json must have"):
        run_reader.read_run(workdir)
    path.write_text(content)
    spectrum = workdir / "spectrum.npz"
    spectrum.write_bytes(spectrum.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"spectrum\.npz"):
        run_reader.read_run(workdir)
    np.savez(spectrum, steps=np.arange(2), radius=0.1)
    with pytest.raises(ValueError, match="lacks eigenvalues"):
        run_reader.read_run(workdir)


def test_records_survive_a_round_trip_of_nan(tmp_path):
    (tmp_path / "m.jsonl").write_text(json.dumps({"step": 1, "loss": float("nan")}) + "\n")
    assert np.isnan(
        run_reader.history_series(run_reader.read_records(tmp_path / "m.jsonl"), "loss")[1]
    ).all()


def test_text_arrays_keep_their_type_when_empty(tmp_path):
    np.savez(tmp_path / "a.npz", ids=np.array([], "U3"), reasons=np.array([["a"], ["bcd"]]))
    arrays = run_files.read_arrays(tmp_path / "a.npz", ["ids"])
    assert arrays["ids"].dtype.kind == "U" and arrays["reasons"].tolist() == [["a"], ["bcd"]]
