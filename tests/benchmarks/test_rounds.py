import json

from benchmarks import rounds


def test_works_take_turns_and_the_first_call_of_each_is_not_timed(monkeypatch):
    clock, called = [0.0], []
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: clock[0])

    def work(name, seconds):
        def call():
            clock[0] += 100.0 if name not in called else seconds
            called.append(name)

        return call

    timings = rounds.interleave({"a": work("a", 1.0), "b": work("b", 3.0)}, rounds=2, times=2)
    assert timings == {"a": [1.0, 1.0], "b": [3.0, 3.0]}
    assert "".join(called) == "ab" + "aabb" * 2
    assert rounds.ratios(timings["b"], timings["a"]) == [3.0, 3.0]


def test_tables_and_spreads_are_told_as_markdown():
    assert rounds.format_spread([3.0, 1.0, 2.5], ".1f") == "2.5 (1.0 - 3.0)"
    assert rounds.markdown_table(["", "x"], [["a", "1"]]) == "|  | x |\n| --- | --- |\n| a | 1 |"


def test_a_report_is_printed_and_numbers_are_kept(tmp_path, capsys):
    rounds.publish("the report", {"ratio": [1.5]}, tmp_path / "made.json")
    numbers = json.loads((tmp_path / "made.json").read_text())
    assert numbers["ratio"] == [1.5] and numbers["cores"] >= 1 and numbers["processor"]
    printed = capsys.readouterr().out
    assert numbers["command"] in printed and printed.endswith("\n\nthe report\n")
