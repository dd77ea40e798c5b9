"""Tables as text, Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence

from vgg_keras.pipelines.checks import check_choice
from vgg_keras.report.seeds import OverSeeds
from vgg_keras.report.tables import Cell, Table

_FILES_IN_A_LINE = 3


def render(table: Table, kind: str, width: int = 132) -> str:
    """Renders a table as a string that ends in a line break.

    Text and Markdown are for reading: numbers have one decimal as in the paper, a mean over seeds
    is followed by the standard deviation (30.1 ± 0.4), and the paper's cells are shown once if
    several results stand beside them. CSV and JSON have all cells, and numbers in full precision.
    Every column of theirs with means over seeds is followed by the column of the standard
    deviations, "our top-1 error (sd)"; a last column has the number of seeds, "seeds".

    Args:
        table: from `build_table`.
        kind: "text", "markdown", "csv" or "json". JSON is an object with `number`, `title`,
            `rows`, which are objects with the header as keys, `results`, the number of results
            that were compared with the rows, and `unmatched`, a list of `file` and `reason`.
        width: width of text in characters.

    Raises:
        ArgumentError: `kind` is none of these.

    Example:
        print(render(build_table(3), "text"))
    """
    check_choice("kind", kind, KINDS)
    return _text(table, width) if kind == "text" else _WRITERS[kind](table)


def _text(table: Table, width: int) -> str:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    # Text instead of str: brackets in the names of data are not rich's markup.
    drawn = RichTable(title=Text(table.caption))
    for name, right in zip(table.header, numeric_columns(table), strict=True):
        # Long words are folded, because an ellipsis would hide scales.
        drawn.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    firsts = [row[0] for row in table.rows]
    is_grouped = len(set(firsts)) < len(firsts)  # groups of rows are separated by lines
    for row, first, below in zip(cells_as_text(table), firsts, [*firsts[1:], None], strict=True):
        drawn.add_row(*map(Text, row), end_section=is_grouped and first != below)
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(drawn)
    return out.getvalue()


def matching_lines(table: Table) -> list[str]:
    """How many results were found, and which are beside no row and why, for people.

    Results with the same reason share a line, which names the first files.

    Args:
        table: from `build_table` with results.

    Example:
        print("\n".join(matching_lines(build_table(4, read_results("results")))))
    """
    if table.results is None:
        return [f"Table {table.number} has no results beside it."]
    beside = table.results - len(table.unmatched)
    files: dict[str, list[str]] = {}
    for one in table.unmatched:
        files.setdefault(one.reason, []).append(one.file)
    return [
        f"Results found: {table.results}. Beside a row: {beside}. Beside none: "
        f"{len(table.unmatched)}{':' if files else '.'}",
        *(f"- {listed(names)}: {reason}" for reason, names in files.items()),
    ]


def listed(names: Sequence[str]) -> str:
    """The first files between commas, and how many more there are."""
    more = len(names) - _FILES_IN_A_LINE
    return ", ".join(names[:_FILES_IN_A_LINE]) + (f" and {more} more" if more > 0 else "")


_ESCAPES = str.maketrans(
    {mark: f"\\{mark}" for mark in "|\\`*_$"} | {"<": "&lt;", "&": "&amp;", "\n": "<br>"}
)


def _markdown(table: Table) -> str:
    rule = ["---:" if right else "---" for right in numeric_columns(table)]
    rows = [[cell.translate(_ESCAPES) for cell in row] for row in cells_as_text(table)]
    lines = [f"| {' | '.join(row)} |" for row in (table.header, rule, *rows)]
    return "\n".join([f"**{table.caption}**", "", *lines]) + "\n"


def _csv(table: Table) -> str:
    out = io.StringIO()
    header, rows = _plain_columns(table)
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def _json(table: Table) -> str:
    header, rows = _plain_columns(table)
    content = {
        "number": table.number,
        "title": table.title,
        "rows": [dict(zip(header, row, strict=True)) for row in rows],
        "results": table.results,
        "unmatched": [one._asdict() for one in table.unmatched],
    }
    return json.dumps(content, indent=2) + "\n"


_WRITERS: dict[str, Callable[[Table], str]] = {"markdown": _markdown, "csv": _csv, "json": _json}
KINDS = ("text", *_WRITERS)


def _plain_columns(table: Table) -> tuple[list[str], list[list[str | float | None]]]:
    """Header and rows with one number or one line of text a cell, for programs to read."""
    columns: dict[str, list[str | float | None]] = {}
    seeds: list[int | None] = [None] * len(table.rows)
    for name, cells in zip(table.header, zip(*table.rows, strict=True), strict=True):
        means = {i: cell for i, cell in enumerate(cells) if isinstance(cell, OverSeeds)}
        columns[name] = [_plain(cell) for cell in cells]
        if means:
            columns[f"{name} (sd)"] = [
                means[i].sd if i in means else None for i in range(len(cells))
            ]
            seeds = [means[i].seeds if i in means else n for i, n in enumerate(seeds)]
    if any(seeds):
        columns["seeds"] = list(seeds)
    return list(columns), list(map(list, zip(*columns.values(), strict=True)))


def _plain(cell: Cell) -> str | float | None:
    if isinstance(cell, OverSeeds):
        return cell.mean
    return cell.replace("\n", " ") if isinstance(cell, str) else cell


def numeric_columns(table: Table) -> list[bool]:
    """Whether each column holds only numbers and empty cells."""
    columns = zip(*table.rows, strict=True)
    return [all(not isinstance(cell, str) for cell in column) for column in columns]


def cells_as_text(table: Table) -> list[list[str]]:
    """The cells as strings, arranged as in print.

    A text that all columns share stands in the middle column only, and the paper's cells are blank
    if they equal those of the row above.
    """
    shown, above = [], None
    for row in table.rows:
        paper, cells = row[: table.paper_columns], [_cell(cell) for cell in row]
        if len(set(cells)) == 1:
            cells = [cell if i == len(row) // 2 else "" for i, cell in enumerate(cells)]
        if paper == above:
            cells[: len(paper)] = [""] * len(paper)
        shown.append(cells)
        above = paper
    return shown


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, OverSeeds):
        return f"{cell.mean:.1f} ± {cell.sd:.1f}"
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)
