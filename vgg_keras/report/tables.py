"""The paper's tables, with our results beside the paper's. Does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vgg_keras.nets import NETS, TABLE_1, configuration_rows, weight_layers
from vgg_keras.pipelines.checks import check_choice
from vgg_keras.report.appendices import PAPER_TABLES
from vgg_keras.report.generalisation import (
    TRANSFER_COLUMNS,
    TRANSFER_TABLES,
    transfer_cells,
)
from vgg_keras.report.matching import matches, mismatch
from vgg_keras.report.paper import MEASURED_ON, PaperTable, Row
from vgg_keras.report.results import Result, circumstances
from vgg_keras.report.seeds import OverSeeds, group_by_seed

Cell = str | float | OverSeeds | None


class Unmatched(NamedTuple):
    """A result that is beside no row of a table.

    Attributes:
        file: file that the result was read from.
        reason: what it does not share with the rows.
    """

    file: str
    reason: str


@dataclass(frozen=True)
class Table:
    """A table to render.

    Attributes:
        number: number in the paper; None for a table of our own.
        title: title in the paper, with its section.
        header: headings of the columns, all different.
        rows: cells: numbers in full precision, means over seeds, None for an empty cell. A text
            may have several lines.
        paper_columns: number of columns, from the left, that are the paper's. Rows that differ
            only in the other columns are several results beside one row of the paper.
    """

    number: int | None
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    paper_columns: int = 0
    results: int | None = None
    unmatched: tuple[Unmatched, ...] = ()

    @property
    def has_results(self) -> bool:
        """Whether any result stands beside a row."""
        return any(cell is not None for row in self.rows for cell in row[self.paper_columns :])

    @property
    def caption(self) -> str:
        """Number and title."""
        return self.title if self.number is None else f"Table {self.number}: {self.title}"


def build_table(number: int, results: Sequence[Result] = ()) -> Table:
    """Builds a table of the paper with your results beside the paper's.

    Args:
        number: number of the table in the paper, 1 to 12.
        results: from `read_results`. Tables 1 and 2 do not need them.

    Returns:
        The table. From Table 3 on, its last columns are your errors in percent (top-1 and top-5
        error of classification, or the localisation error) and what they were measured on; in
        Tables 11 and 12, mean AP or mean class recall. A row that several results match is repeated
        for each of them. Results that differ only in the seed of their nets are one row, with the
        mean and the standard deviation over seeds.

    Raises:
        ArgumentError: there is no table with that number.

    Example:
        print(render(build_table(4, read_results("results")), "markdown"))
    """
    check_choice("number", number, (1, *PAPER_TABLES))
    if number == 1:
        return _configurations()
    paper = PAPER_TABLES[number]
    columns = (*paper.columns, *paper.value_columns)
    if number == 2:
        header: tuple[str, ...] = ("ours",)
    elif paper in TRANSFER_TABLES:
        header = TRANSFER_COLUMNS
    else:
        header = (*(heading for heading, _ in paper.measures), MEASURED_ON)
    rows = tuple(
        (*row.cells, *row.values, *ours)
        for row in paper.rows
        for ours in _beside(paper, row, results) or [(None,) * len(header)]
    )
    title = f"{paper.title} (§{paper.section})"
    compared, unmatched = (None, ()) if number == 2 else (len(results), _unmatched(paper, results))
    return Table(number, title, (*columns, *header), rows, len(columns), compared, unmatched)


def _unmatched(paper: PaperTable, results: Sequence[Result]) -> tuple[Unmatched, ...]:
    reasons = ((result, mismatch(result, paper, paper.rows)) for result in results)
    return tuple(Unmatched(one.get("file", "?"), reason) for one, reason in reasons if reason)


def _configurations() -> Table:
    """Table 1 with one column per net. A cell that all nets share stands in every column."""
    rows = configuration_rows([NETS[name] for name in TABLE_1])
    cells = tuple(row if len(row) > 1 else row * len(TABLE_1) for row in rows)
    return Table(1, "ConvNet configurations (§2.2)", TABLE_1, cells)


def _beside(paper: PaperTable, row: Row, results: Sequence[Result]) -> list[tuple[Cell, ...]]:
    """Our cells beside a row: one tuple for each group of results that differ only in the seed."""
    if paper.number == 2:
        count = sum(layer.parameters for layer in weight_layers(NETS[row.cells[0]]))
        return [(round(count / 1e6, 1),)]
    found = [result for result in results if matches(result, paper, row)]
    return [_over_seeds([_cells(paper, one) for one in group]) for group in group_by_seed(found)]


def _cells(paper: PaperTable, result: Result) -> tuple[Cell, ...]:
    """The numbers of a result, and what they were measured on."""
    if paper in TRANSFER_TABLES:
        return transfer_cells(result)
    return (*(result[key] for _, key in paper.measures), circumstances(result))


def _over_seeds(rows: Sequence[tuple[Cell, ...]]) -> tuple[Cell, ...]:
    """One row for the rows of several seeds, with the number of seeds in its last cell."""
    if len(rows) == 1:
        return rows[0]
    columns = list(zip(*rows, strict=True))
    cells = [
        OverSeeds.of(c) if all(isinstance(v, int | float) for v in c) else c[0] for c in columns
    ]
    return (*cells[:-1], f"{cells[-1]}, {len(rows)} seeds")
