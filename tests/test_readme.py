"""The README's Python runs as it stands, it stays short, and every config is documented."""

import importlib.util
import pathlib
import re

from tests.jitted import jitted
from vrl_jax import losses

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
CONFIGS = {path.name for path in (ROOT / "configs").glob("[a-z]*.py")}
MOST_LINES = 150


def test_it_is_short():
    assert len(TEXT.splitlines()) <= MOST_LINES


def test_python_examples_run(monkeypatch):
    for module in (losses, losses.forecast, losses.koopman):
        for name in re.findall(rf"{module.__name__.removeprefix('vrl_jax.')}\.(\w+)\(", TEXT):
            monkeypatch.setattr(module, name, jitted(getattr(module, name)))
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len(blocks) == 2
    if not importlib.util.find_spec("torch"):
        blocks = [block for block in blocks if "import torch" not in block]
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_every_config_named_exists_and_every_config_is_named():
    assert config_names(TEXT) <= CONFIGS
    assert config_names((ROOT / "docs" / "configs.md").read_text()) == CONFIGS


def config_names(text: str) -> set[str]:
    return set(re.findall(r"`(?:configs/)?(\w+\.py)`", text))


def test_links_lead_to_files():
    for link in re.findall(r"\]\(([^)#]+)", TEXT):
        assert link.startswith("https://") or (ROOT / link).exists(), link
