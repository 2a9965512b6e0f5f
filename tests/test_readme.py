"""What the README shows runs: its Python as it stands, and its configs exist."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_python_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_every_config_named_exists_and_every_config_is_named():
    named = set(re.findall(r"`(?:configs/)?(\w+\.py)`", TEXT))
    present = {path.name for path in (ROOT / "configs").glob("[a-z]*.py")}
    assert present <= named
