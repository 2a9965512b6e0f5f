"""Config files are read, and their settings replaced by values of the same type."""

import ml_collections
import pytest
from absl import app
from absl import flags as absl_flags

from vrl_jax import config, flags
from vrl_jax.config_file import read_config

TYPES = """
import ml_collections

def get_config(arg="none"):
    config = ml_collections.ConfigDict(dict(
        arg=arg, on=False, count=1, rate=1.0, name="a", sizes=(1, 2), absent=None,
        unset=ml_collections.config_dict.placeholder(float), part=dict(width=3)))
    config.half = config.get_ref("rate") * 0.5
    return config
"""


IMPORT = "from ml_collections import ConfigDict\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "types.py"
    path.write_text(TYPES)
    return str(path)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("on", "true", True),
        ("on", "1", True),
        ("on", True, True),
        ("on", "false", False),
        ("count", "-3", -3),
        ("count", "0x10", 16),
        ("rate", "1e-3", 1e-3),
        ("rate", "3", 3.0),
        ("name", "a = b", "a = b"),
        ("name", "3", "3"),
        ("name", "", ""),
        ("sizes", "(4, 5)", (4, 5)),
        ("sizes", "4,5", (4, 5)),
        ("sizes", "4", (4,)),
        ("sizes", "[4]", (4,)),
        ("sizes", "()", ()),
        ("sizes", "", ()),
        ("sizes", "a,b", ("a", "b")),
        ("sizes", "/data/a b", ("/data/a b",)),
        ("sizes", "('a,b',)", ("a,b",)),
        ("absent", "0.5", 0.5),
        ("absent", "word", "word"),
        ("unset", "2", 2.0),
        ("part.width", "4", 4),
        ("part", "{'width': 5}", {"width": 5}),
    ],
)
def test_a_value_is_read_in_the_type_of_the_setting(file, key, text, value):
    got = read_config(file, [(key, text)])
    for name in key.split("."):
        got = got[name]
    got = got.to_dict() if isinstance(got, ml_collections.ConfigDict) else got
    assert got == value and type(got) is type(value)


def test_later_values_replace_earlier_ones_and_extend_tuples(file):
    read = read_config(file, [("sizes", "4"), ("rate", "2"), ("sizes", "(5, 6)"), ("rate", "3")])
    assert read.sizes == (4, 5, 6) and read.rate == 3.0
    assert read.half == 1.5  # a reference to the rate
    assert read_config(file + ":wide:x").arg == "wide:x" and read_config(file).arg == "none"


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("count", "3.0", "config.count must be int, got '3.0'"),
        ("on", "maybe", "config.on must be bool, got 'maybe'"),
        ("rate", "wide", "config.rate must be float, got 'wide'"),
        ("unset", "wide", "config.unset must be float, got 'wide'"),
        ("part", "4", "config.part must be a dict, got '4'"),
        ("name", True, "config.name needs a value: --config.name=VALUE"),
        ("nmae", "b", r"config.nmae is unknown \(did you mean name\?\); config has absent, arg"),
        ("part.depth", "b", "config.part.depth is unknown .*; config.part has width"),
        ("count.x", "b", "config.count.x is unknown: count is 1 and has no keys"),
        ("absent.x", "b", "config.absent.x is unknown: absent is None and has no keys"),
    ],
)
def test_a_mistake_is_named(file, key, text, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        read_config(file, [(key, text)])


def test_a_component_is_named_in_the_error():
    with pytest.raises(
        ValueError, match="raduis is unknown .*radius.*; BOD has ahead, delay, dim, "
    ):
        read_config("configs/synthetic_bod.py", [("method.raduis", "1")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "config must be an existing file, got '.*types.py'"),
        ("x = 1", "types.py: it has no function get_config"),
        ("x = 1\ndef get_config(:", "types.py, line 2: invalid syntax"),
        ("x = 1\x00", "types.py.*null bytes"),
        ("def get_config():\n    return widht", "types.py, line 2: NameError: name 'widht'"),
        ("import jaxx", "types.py, line 1: ModuleNotFoundError: No module named 'jaxx'"),
        ("def get_config(name):\n    return name", "types.py: TypeError: .* missing 1 required"),
        (
            f"{IMPORT}def get_config():\n    ConfigDict({{'train': 1}}).trian",
            "types.py, line 3: AttributeError: .*trian.*Did you mean",
        ),
        ("get_config = lambda: None", r"get_config\(\) must return a ConfigDict, got None"),
        ("def get_config():\n    raise ValueError('no such width')", "types.py: no such width"),
    ],
)
def test_a_file_without_a_config_is_named(file, tmp_path, monkeypatch, text, message):
    path = tmp_path / "types.py"
    path.write_text(text) if text else path.unlink()
    monkeypatch.chdir(tmp_path)
    for spelling in (file, "types.py"):
        with pytest.raises(ValueError, match=message):
            read_config(spelling)


def test_an_error_of_another_file_keeps_its_traceback(file, tmp_path):
    path = tmp_path / "types.py"
    path.write_text("import textwrap\n\ndef get_config():\n    textwrap.dedent(3)")
    with pytest.raises((TypeError, AttributeError)):
        read_config(file)


def test_configs_are_found_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_config("configs/eval_ucf101_linear.py:severe").protocol.published
    with pytest.raises(
        ValueError,
        match="eval_ucf101_linear.py: paper must be one of coclr, lss, severe for 'linear'",
    ):
        read_config("configs/eval_ucf101_linear.py:byol")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "synthetic_bod.py").write_text(TYPES)
    assert read_config("configs/synthetic_bod.py").count == 1  # the file that is here
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_config("~/configs/synthetic_bod.py").count == 1


def test_a_component_may_be_defined_in_the_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import dataclasses\n"
        "from vrl_jax import config\n\n\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Mine:\n    width: int = 3\n\n\n"
        "get_config = lambda: config.describe(Mine())\n"
    )
    assert config.build(read_config(str(file), [("width", "4")])).width == 4


@pytest.mark.parametrize(
    "line",
    [
        "--config x.py:a --config.a.b -1 --config.c --config.d=2 -v=1",
        "-config=x.py:a --config.a.b=-1 -config.c --config.d 2 -v=1",
    ],
)
def test_overrides_may_be_spelt_in_two_ways(line):
    rest, overrides = flags.split_overrides(["main", *line.split()])
    assert rest == ["main", "--config=x.py:a", "-v=1"]
    assert overrides == [("a.b", "-1"), ("c", True), ("d", "2")]
    rest, overrides = flags.split_overrides(["main", "--config.help", "--noconfig.e", "x"])
    assert rest == ["main", "--explain", "x"] and overrides == [("e", False)]


def test_overrides_are_read_from_flag_files(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "parse_flags_with_usage", lambda argv: argv)
    monkeypatch.setattr(flags, "_overrides", [])
    (tmp_path / "more").write_text("--config.a=1\n--quiet\n")
    line = ["main", "--config=x.py", f"--flagfile={tmp_path}/more", "--config.b=2"]
    assert absl_flags.FLAGS.is_parsed()
    assert flags.parse_flags(line) == ["main", "--config=x.py", "--quiet"]
    assert flags._overrides == [("a", "1"), ("b", "2")]
