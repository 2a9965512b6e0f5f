import pytest

from vrl_jax.report.__main__ import main


def test_one_run(bare_workdir, capsys):
    workdir = bare_workdir
    main([str(workdir)])
    assert capsys.readouterr().out.split() == [str(workdir / "report.html")]
    assert (workdir / "report.html").is_file()


def test_several_runs(bare_workdir, tmp_path):
    out, other = tmp_path / "both.html", tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    main([str(bare_workdir), str(other), "--out", str(out)])
    assert all(path.is_file() for path in (out, bare_workdir / "report.html"))


@pytest.mark.parametrize(("name", "complaint"), [("nowhere", "no folder"), (".", "no config.json")])
def test_wrong_folder_is_told_without_a_traceback(tmp_path, capsys, name, complaint):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / name)])
    assert stop.value.code == 1
    assert complaint in capsys.readouterr().err


def test_markdown_goes_to_the_screen_and_no_page_is_written(workdir, tmp_path, capsys):
    main([str(workdir), "--markdown"])
    assert "| tiny\\_bod | Tiny (12.3 K parameters) | static | 90.2 % |" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.html"))
