"""Notebooks lie beside the site's sources and are linked from it."""

import pathlib
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Add the notebooks to what the site is made of."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    return files
