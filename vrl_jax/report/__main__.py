"""Rebuild a run's report, or compare several runs: `python -m vrl_jax.report WORKDIR...`.

A run on an object store is downloaded first; its report is written to `--out`.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vrl_jax.report import html_page, markdown_tables, remote_runs


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report of each run, and for several runs a page that compares them."""
    parser = argparse.ArgumentParser(prog="vrl report", description=__doc__)
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", help="folder of a run")
    parser.add_argument(
        "--out",
        type=_local_path,
        help="file for the comparison of several runs (default: ./comparison.html), or for the "
        "report of one run on an object store (default: ./report.html)",
    )
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print the tables of results as Markdown instead of writing a page",
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as copies:
        copies = Path(copies).resolve()
        try:
            folders = [
                remote_runs.fetch_folder(workdir, copies)
                if remote_runs.is_remote(workdir)
                else _local_path(workdir)
                for workdir in args.workdirs
            ]
            output = (
                [markdown_tables.format_markdown(folders)]
                if args.markdown
                else _write_pages(args, folders)
            )
        except (ValueError, OSError) as error:
            parser.exit(1, f"error: {remote_runs.restore_urls(str(error), copies)}\n")
    for text in output:
        print(text)


def _local_path(text: str) -> Path:
    return Path(text).expanduser()


def _write_pages(args: argparse.Namespace, folders: list[Path]) -> list[Path]:
    """Write all pages and return those that outlast the temporary copies."""
    pages = [html_page.write_report(folder) for folder in folders]
    paired = zip(pages, args.workdirs, strict=True)
    local = [page for page, workdir in paired if not remote_runs.is_remote(workdir)]
    if len(pages) > 1:
        local.append(html_page.write_comparison(folders, args.out or Path("comparison.html")))
    elif not local:
        local.append(Path(shutil.copy(pages[0], args.out or Path("report.html"))))
    return local


if __name__ == "__main__":
    main()
