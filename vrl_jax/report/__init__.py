"""HTML pages and Markdown tables from the files of runs."""

from pathlib import Path


def write_report(workdir: Path) -> Path:
    """Write a run's report, see `html_page.write_report`; only then Matplotlib is imported."""
    from vrl_jax.report import html_page

    return html_page.write_report(workdir)
