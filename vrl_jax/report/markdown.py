"""The tables as Markdown, for the README of a paper's repository."""

from pathlib import Path

from vrl_jax.report import factors, read, table


def format_markdown(workdirs: list[Path]) -> str:
    """Return the tables of some runs' results as Markdown.

    Raises `ValueError` naming the file where a folder, or what it holds, is not in order.
    """
    results = [result for run in read.read_runs(workdirs).values() for result in run.results]
    groups = {
        "": [result for result in results if not result.kind],
        **factors.group_by_prefix(results),
    }
    return "\n".join(
        _section(kind, part) for kind, own in groups.items() for part in table.build_tables(own)
    )


def _section(kind: str, part: table.Table) -> str:
    heading = ": ".join(filter(None, [kind, part.heading])) or "Results"
    header, *rows = _rows(part)
    rule = ["---"] * 3 + ["--:"] * (len(header) - 3)
    settings = "; ".join(f"{key} {table.shorten_hash(text)}" for key, text in part.protocol.items())
    sentences = [_spreads(part), f"Protocol: {settings}."]
    lines = [
        f"### {_plain(heading)}",
        *(f"> **Warning:** {_plain(text)}" for text in part.changed),
        "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows)),
        " ".join(_plain(sentence) for sentence in sentences if sentence),
    ]
    return "\n\n".join(lines) + "\n"


def _rows(part: table.Table) -> list[list[str]]:
    header = ["run", "encoder", "label"]
    header += [f"{c.title} ({c.metric})" if c.metric else c.title for c in part.columns]
    header += [f"chance ({', '.join(part.chances)})"] if part.chances else []
    rows = [
        [
            _who(row, part.details),
            row.model.get("encoder", ""),
            row.label,
            *(row.cells[c].text if c in row.cells else "" for c in part.columns),
            *([row.chance] if part.chances else []),
        ]
        for row in part.rows
    ]
    return [[_plain(text) for text in row] for row in (header, *rows)]


def _who(row: table.Row, details: list[str]) -> str:
    """Return the run, and what of its model differs from the other rows'."""
    own = [f"{key} {table.shorten_hash(row.model[key])}" for key in details if key in row.model]
    told = f" ({', '.join(own)})" if own else ""
    return row.run + ", untrained" * row.untrained + told


def _spreads(part: table.Table) -> str:
    cells = [cell for row in part.rows for cell in row.cells.values() if cell.parts]
    over = dict.fromkeys(f"{len(cell.parts)} {cell.part}" for cell in cells)
    return f"± is the standard deviation over {' or '.join(over)}." if over else ""


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is."""
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
