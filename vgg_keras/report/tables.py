"""The paper's tables beside results of our own, as text, Markdown, CSV or JSON.

A result is what `vgg-keras evaluate --json` prints: one net under one protocol, or a fusion,
which has `members`, one object a net, in the place of the net's own keys.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePath

from vgg_keras.evaluation.procedure import CROP_OF_PAPER
from vgg_keras.metadata import members
from vgg_keras.nets import NETS, TABLE_1, configuration_rows, weight_layers
from vgg_keras.report.appendices import PAPER_TABLES
from vgg_keras.report.generalisation import MEASURES, OURS, TRANSFER_TABLES, transfer_cells
from vgg_keras.report.paper import PaperTable, Row, Tested

Cell = str | float | None

_RESULT_KEYS = {"protocol", "images"}
_MEASURES = MEASURES | {key for table in PAPER_TABLES.values() for _, key in table.measures}
_MEMBER_KEYS = {"net", "train_scale", "crop_size", "width", "test_scales"}
# Beside saved predictions, in saved answers, or our own.
_KEEPING_KEYS = {"file", "predictions", "class_names", "pictures"}
_TABLES = (1, *PAPER_TABLES)
# What is not as the paper has it, where it is not the default.
_READINGS = (
    ("flip", True, "no flip"),
    ("precision", "float32", "mixed precision"),
    ("map_average", "scores", "posteriors averaged over the map"),
    ("pool_rounding", "down", "pooling rounded up"),
)
_OURS_OF = "ours of"


@dataclass(frozen=True)
class Table:
    """A table to render.

    Attributes:
        number, title: in the paper, with its section.
        header: headings of the columns, all different.
        rows: cells; numbers in full precision, None where there is nothing, lines of a text
            divided by line breaks.
        paper_columns: how many columns, from the left, are the paper's. Rows that differ in the
            others alone are several results beside one row of the paper.
    """

    number: int
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    paper_columns: int = 0


def build_table(number: int, results: Sequence[dict] = ()) -> Table:
    """A table of the paper with our numbers beside the paper's.

    Args:
        number: of the table, 1 to 12.
        results: as `read_results` gives them. Tables 1 and 2 follow from the nets alone.

    Returns:
        The table. From Table 3 on its last columns are our errors in percent, top-1 and top-5 of
        classification or that of localisation, and what they were measured on; in Tables 11 and
        12 mean AP or mean class recall. A row that several results match comes once for each.

    Raises:
        ValueError: there is no table of that number.
    """
    if number not in _TABLES:
        raise ValueError(
            f"There is no table of that number. Tables: {', '.join(map(str, _TABLES))}. "
            f"Received: {number!r}"
        )
    if number == 1:
        return _configurations()
    paper = PAPER_TABLES[number]
    columns = (*paper.columns, *paper.value_columns)
    title = f"{paper.title} (§{paper.section})"
    if paper in TRANSFER_TABLES:
        beside = [(row, transfer_cells(number, row, results)) for row in paper.rows]
        cells = tuple((*row.cells, *row.values, *ours) for row, found in beside for ours in found)
        return Table(number, title, (*columns, *OURS), cells, len(columns))
    measured = (*(heading for heading, _ in paper.measures), _OURS_OF)
    header = (*columns, *(("ours",) if number == 2 else measured))
    rows = tuple(
        (*row.cells, *row.values, *ours)
        for row in paper.rows
        for ours in (_parameters(row) if number == 2 else _matching(paper, row, results))
    )
    return Table(number, title, header, rows, len(columns))


def _configurations() -> Table:
    """Table 1 with one column per net. A cell that all nets share stands in every column."""
    rows = configuration_rows([NETS[name] for name in TABLE_1])
    cells = tuple(row if len(row) > 1 else row * len(TABLE_1) for row in rows)
    return Table(1, "ConvNet configurations (§2.2)", TABLE_1, cells)


def _parameters(row: Row) -> list[tuple[Cell, ...]]:
    """Parameters of the row's net in millions."""
    count = sum(layer.parameters for layer in weight_layers(NETS[row.cells[0]]))
    return [(round(count / 1e6, 1),)]


def _matching(paper: PaperTable, row: Row, results: Sequence[dict]) -> list[tuple[Cell, ...]]:
    """Errors and circumstances of each of the row's results; one blank line where it has none."""
    found: list[tuple[Cell, ...]] = [
        (*(result[key] for _, key in paper.measures), circumstances(result))
        for result in results
        if matches(result, paper, row)
    ]
    return found or [(None,) * (len(paper.measures) + 1)]


def matches(result: dict, paper: PaperTable, row: Row) -> bool:
    """Whether a result is of the table's kind, of the row's protocol and of its nets, each at the
    row's S and Q and under its conditions.

    Scales are compared in proportion to the crop: q at crop size c stands for the paper's p
    where |q - p * c / 224| < 1, less than a pixel. A result that does not say what it was
    measured with matches nothing.
    """
    nets, left = members(result), list(row.tested)
    if not left or len(nets) != len(left) or any(key not in result for _, key in paper.measures):
        return False
    for member in nets:
        found = next((tested for tested in left if _is_of(member, tested)), None)
        if found is None or member.get("protocol", row.protocol) != row.protocol:
            return False
        if any(member.get(key) != value for key, value in row.conditions):
            return False
        left.remove(found)
    return result["protocol"] == row.protocol


def nets_of(result: dict) -> list[tuple[str, str, str]]:
    """Net, S and Q of each member as the paper prints them."""
    return [
        Tested(
            m.get("net", "?"), tuple(m.get("train_scale", "??")), tuple(m.get("test_scales", ()))
        ).cells
        for m in members(result)
    ]


def _is_of(member: dict, tested: Tested) -> bool:
    """Whether a member's net, S and Q are those tested, in proportion."""
    if not member.keys() >= _MEMBER_KEYS or member["net"] != tested.net:
        return False
    crop = member["crop_size"]
    # In order: 64, 73, 82 is the same test as 82, 64, 73.
    return _in_proportion(member["train_scale"], tested.train_scale, crop) and _in_proportion(
        sorted(member["test_scales"]), tested.test_scales, crop
    )


def _in_proportion(ours: Sequence[int], papers: Sequence[int], crop: int) -> bool:
    return len(ours) == len(papers) and all(
        abs(q * CROP_OF_PAPER - p * crop) < CROP_OF_PAPER for q, p in zip(ours, papers, strict=True)
    )


def circumstances(result: dict) -> str:
    """What sets a result apart from the paper's: imagenette160, 1982 images, crop 64, width 1/4."""
    nets = members(result)
    crops = dict.fromkeys(str(net.get("crop_size", CROP_OF_PAPER)) for net in nets)
    widths = dict.fromkeys(str(Fraction(m.get("width", 1)).limit_denominator(1000)) for m in nets)
    parts = [_data_name(result), f"{result['images']} images"]
    if "skipped" in result:
        parts.append(f"{len(result['skipped'])} unreadable")
    if list(crops) != [str(CROP_OF_PAPER)]:
        parts.append(f"crop {' and '.join(crops)}")
    if list(widths) != ["1"]:
        parts.append(f"width {' and '.join(widths)}")
    for key, value, text in _READINGS:
        if any(one.get(key, value) != value for one in (result, *nets)):
            parts.append(text)
    return ", ".join(filter(None, parts))


def _data_name(result: dict) -> str:
    """The data without their kind and folder, and the split where it is not the paper's."""
    kind, _, name = result.get("data", "").partition(":")
    name = PurePath(name).name if kind == "folder" else name or kind
    return f"{name} {result.get('split', 'val')}".removesuffix(" val").strip()


def read_results(folder: Path) -> list[dict]:
    """All results in the JSON files of a folder and of those in it; other content is passed over.

    Returns:
        Results in the order of their paths, each with its path under `file`. One that is met
        again is left out: the one beside its predictions stays, where there is one.

    Raises:
        ValueError: there is no such folder, or a file is no JSON.
    """
    if not folder.is_dir():
        raise ValueError(f"Results are read from a folder that exists. Received: {folder}")
    results: dict[str, dict] = {}
    for path in sorted(path for path in folder.rglob("[!.]*.json") if path.is_file()):
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"A .json file must hold JSON ({error}). Received: {path}") from error
        for item in content if isinstance(content, list) else [content]:
            if isinstance(item, dict) and item.keys() >= _RESULT_KEYS and item.keys() & _MEASURES:
                measured = {key: item[key] for key in item.keys() - _KEEPING_KEYS}
                key = json.dumps(measured, sort_keys=True)
                kept = item.keys() & {"predictions", "pictures"}
                better = kept and not kept & results.get(key, item).keys()
                if key not in results or better:
                    results[key] = item | {"file": str(path)}
    return list(results.values())


def render(table: Table, kind: str, width: int = 132) -> str:
    """A table as text, ending in a line break.

    Text and Markdown are for reading: numbers have one decimal, as in the paper, and the paper's
    cells are shown once where several results stand beside them. CSV and JSON have all cells,
    and numbers in full.

    Args:
        table: what to render.
        kind: text, markdown, csv or json: an object with number, title and rows, which are
            objects keyed by the header.
        width: of text, in characters.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}. Received: {kind!r}")
    return _text(table, width) if kind == "text" else _WRITERS[kind](table)


def _text(table: Table, width: int) -> str:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    # Text, not str: names of data are no markup.
    drawn = RichTable(title=Text(f"Table {table.number}: {table.title}"))
    for name, right in zip(table.header, numeric_columns(table), strict=True):
        # Long words go on in the next line: an ellipsis would hide scales.
        drawn.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    firsts = [row[0] for row in table.rows]
    grouped = len(set(firsts)) < len(firsts)  # a line between groups, none between single rows
    for row, first, below in zip(cells_as_text(table), firsts, [*firsts[1:], None], strict=True):
        drawn.add_row(*map(Text, row), end_section=grouped and first != below)
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(drawn)
    return out.getvalue()


_ESCAPES = str.maketrans({"|": r"\|", "\n": "<br>"})


def _markdown(table: Table) -> str:
    rule = ["---:" if right else "---" for right in numeric_columns(table)]
    rows = [[cell.translate(_ESCAPES) for cell in row] for row in cells_as_text(table)]
    lines = [f"| {' | '.join(row)} |" for row in (table.header, rule, *rows)]
    return "\n".join([f"**Table {table.number}: {table.title}**", "", *lines]) + "\n"


def _csv(table: Table) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([table.header, *_one_line(table)])
    return out.getvalue()


def _json(table: Table) -> str:
    rows = [dict(zip(table.header, row, strict=True)) for row in _one_line(table)]
    content = {"number": table.number, "title": table.title, "rows": rows}
    return json.dumps(content, indent=2) + "\n"


_WRITERS: dict[str, Callable[[Table], str]] = {"markdown": _markdown, "csv": _csv, "json": _json}
KINDS = ("text", *_WRITERS)


def _one_line(table: Table) -> list[list[Cell]]:
    """The rows with the lines of a cell side by side."""
    return [[c.replace("\n", " ") if isinstance(c, str) else c for c in row] for row in table.rows]


def numeric_columns(table: Table) -> list[bool]:
    """Whether a column has numbers alone."""
    columns = zip(*table.rows, strict=True)
    return [all(not isinstance(cell, str) for cell in column) for column in columns]


def cells_as_text(table: Table) -> list[list[str]]:
    """The cells as text, as in print: what all columns share in the middle one alone, and the
    paper's cells blank where they are those of the row above."""
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
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)
