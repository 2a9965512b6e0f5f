"""Replace `<!-- help: vrl_jax.main -->` on a page by the `--help` output of that command."""

import contextlib
import importlib
import io
import os
import re
from typing import Any

from absl import flags

PLACEHOLDER = re.compile(r"<!-- help: (\S+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with every placeholder replaced."""
    return PLACEHOLDER.sub(lambda match: f"```text\n{read_help(match[1])}\n```", markdown)


def read_help(name: str) -> str:
    """Return the description and the flags of a command, as absl or argparse prints them."""
    module = importlib.import_module(name)
    if flags.FLAGS.get_key_flags_for_module(module):
        return f"{module.__doc__.strip()}\n\n{flags.FLAGS.module_help(module).strip()}"
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    os.environ["COLUMNS"] = "90"
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        module.main(["--help"])
    return output.getvalue().strip("\n")
