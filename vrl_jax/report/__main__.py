"""Rebuild the report of a run, or compare several: `python -m vrl_jax.report WORKDIR...`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from vrl_jax.report import html, markdown


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the report of every run named, and with several a page that compares them."""
    parser = argparse.ArgumentParser(prog="python -m vrl_jax.report", description=__doc__)
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR", help="a run's folder")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("comparison.html"),
        help="where the comparison of several runs goes (default: ./comparison.html)",
    )
    parser.add_argument(
        "--markdown",
        action="store_true",
        help="print the tables of results as Markdown, and write no page",
    )
    wanted = parser.parse_args(arguments)
    try:
        printed = [markdown.write(wanted.workdirs)] if wanted.markdown else _pages(wanted)
    except (ValueError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    for text in printed:
        print(text)


def _pages(wanted: argparse.Namespace) -> list[Path]:
    pages = [html.write(workdir) for workdir in wanted.workdirs]
    if len(wanted.workdirs) > 1:
        pages.append(html.compare(wanted.workdirs, wanted.out))
    return pages


if __name__ == "__main__":
    main()
