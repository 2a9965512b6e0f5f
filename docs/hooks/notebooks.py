"""Add the notebooks, which are stored outside of `docs/`, to the files of the site."""

import pathlib
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Return the files of the site with the notebooks."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    return files
