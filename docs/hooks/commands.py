"""What each command says of itself, `--help`, stands on the site: `<!-- help: vrl_jax.main -->`."""

import contextlib
import importlib
import io
import os
import re
from typing import Any

from absl import flags

PLACE = re.compile(r"<!-- help: (\S+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with the helps in their places."""
    return PLACE.sub(lambda found: f"```text\n{help_of(found[1])}\n```", markdown)


def help_of(name: str) -> str:
    """Return a command's own help: what it is and its own flags, as absl or argparse has it."""
    module = importlib.import_module(name)
    if name in flags.FLAGS.flags_by_module_dict():
        return f"{module.__doc__.strip()}\n\n{flags.FLAGS.module_help(module).strip()}"
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    os.environ["COLUMNS"] = "90"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        module.main(["--help"])
    return printed.getvalue().strip("\n")
