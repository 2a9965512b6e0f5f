"""The tables of results as Markdown."""

from pathlib import Path

from vrl_jax.report import factor_plots, result_table, run_reader
from vrl_jax.report.result_files import Result


def format_markdown(workdirs: list[Path]) -> str:
    """Return the tables of some runs' results as Markdown.

    Raises:
      ValueError: a folder is not a run's, or one of its files is damaged.
    """
    runs = run_reader.read_runs(workdirs).values()
    return format_results([result for run in runs for result in run.results])


def format_results(results: list[Result]) -> str:
    """Return the tables of results as Markdown, one for each protocol and data set."""
    groups = {
        "": [result for result in results if not result.prefix],
        **factor_plots.group_by_prefix(results),
    }
    return "\n".join(
        _section(prefix, part)
        for prefix, members in groups.items()
        for part in result_table.build_tables(members)
    )


def _section(prefix: str, part: result_table.Table) -> str:
    heading = ": ".join(filter(None, [prefix, part.heading])) or "Results"
    header, *rows = _rows(part)
    rule = ["---"] * 3 + ["--:"] * (len(header) - 3)
    settings = "; ".join(
        f"{key} {result_table.shorten_hash(text)}" for key, text in part.protocol.items()
    )
    sentences = [_spreads(part), f"Protocol: {settings}."]
    lines = [
        f"### {_escape(heading)}",
        *(f"> **Warning:** {_escape(text)}" for text in part.changed),
        "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows)),
        " ".join(_escape(sentence) for sentence in sentences if sentence),
    ]
    return "\n\n".join(lines) + "\n"


def _rows(part: result_table.Table) -> list[list[str]]:
    header = ["run", "encoder", "label"]
    header += [f"{c.title} ({c.metric})" if c.metric else c.title for c in part.columns]
    header += [f"chance ({', '.join(part.chances)})"] if part.chances else []
    rows = [
        [
            _name(row, part.details),
            row.model.get("encoder", ""),
            row.label,
            *(row.cells[c].text if c in row.cells else "" for c in part.columns),
            *([row.chance] if part.chances else []),
        ]
        for row in part.rows
    ]
    return [[_escape(text) for text in row] for row in (header, *rows)]


def _name(row: result_table.Row, details: list[str]) -> str:
    """Return the run, with the details of its model that differ between rows."""
    texts = [
        f"{key} {result_table.shorten_hash(row.model[key])}" for key in details if key in row.model
    ]
    suffix = f" ({', '.join(texts)})" if texts else ""
    return row.run + ", untrained" * row.untrained + suffix


def _spreads(part: result_table.Table) -> str:
    cells = [cell for row in part.rows for cell in row.cells.values() if cell.parts]
    over = dict.fromkeys(f"{len(cell.parts)} {cell.part}" for cell in cells)
    return f"± is the standard deviation over {' or '.join(over)}." if over else ""


def _escape(text: str) -> str:
    """Return text with Markdown's special characters escaped."""
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
