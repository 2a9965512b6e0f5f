"""Rebuild the report of a run, or compare several: `python -m vrl_jax.report WORKDIR...`.

A run on an object store is read from there, and its report is written where `--out` says.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vrl_jax.report import html, markdown, storage


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report of every run named, and with several a page that compares them."""
    parser = argparse.ArgumentParser(prog="python -m vrl_jax.report", description=__doc__)
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", help="a run's folder")
    parser.add_argument(
        "--out",
        type=Path,
        help="where the comparison of several runs goes (default: ./comparison.html), or the "
        "report of a single one on an object store (default: ./report.html)",
    )
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print the tables of results as Markdown, and write no page",
    )
    wanted = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as copies:
        copies = Path(copies).resolve()
        try:
            folders = [
                storage.fetch_folder(workdir, copies)
                if storage.is_remote(workdir)
                else Path(workdir)
                for workdir in wanted.workdirs
            ]
            printed = (
                [markdown.format_markdown(folders)] if wanted.markdown else _pages(wanted, folders)
            )
        except (ValueError, OSError) as error:
            parser.exit(1, f"{parser.prog}: {storage.restore_urls(str(error), copies)}\n")
    for text in printed:
        print(text)


def _pages(wanted: argparse.Namespace, folders: list[Path]) -> list[Path]:
    pages = [html.write_report(folder) for folder in folders]
    own = zip(pages, wanted.workdirs, strict=True)
    kept = [page for page, workdir in own if not storage.is_remote(workdir)]
    if len(pages) > 1:
        kept.append(html.write_comparison(folders, wanted.out or Path("comparison.html")))
    elif not kept:
        kept.append(Path(shutil.copy(pages[0], wanted.out or Path("report.html"))))
    return kept


if __name__ == "__main__":
    main()
