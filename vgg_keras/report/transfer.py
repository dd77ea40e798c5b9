"""Tables 11 and 12 beside results of `vgg-keras transfer`."""

from __future__ import annotations

from collections.abc import Sequence

from vgg_keras.report.appendices import TRANSFER_TABLES
from vgg_keras.report.paper import TransferRow, TransferTable


def transfer_rows(
    number: int, results: Sequence[dict]
) -> tuple[tuple[str, ...], tuple[tuple, ...]]:
    """Header and rows of Table 11 or 12: the method, the paper's number and ours for each set."""
    paper = TRANSFER_TABLES[number]
    header = ["Method"]
    for heading, *_ in paper.sets:
        header += [heading, f"ours, {heading.split(' (')[0]}"]
    return tuple(header), tuple(_row(paper, row, results) for row in paper.rows)


def _row(paper: TransferTable, row: TransferRow, results: Sequence[dict]) -> tuple:
    cells: list = [row.method]
    for value, (_, protocol, key) in zip(row.values, paper.sets, strict=True):
        own = [r for r in results if r.get("protocol") == protocol and key in r and of(r, row)]
        cells += [value, max((r[key] for r in own), default=None)]
    return tuple(cells)


def of(result: dict, row: TransferRow) -> bool:
    """Whether a result is of features of the row's nets and regions, each once."""
    about = result.get("features", {})
    found = [(m.get("net"), m.get("region")) for m in about.get("members", [about])]
    wanted = [(n, r) for n in row.nets.split(" + ") for r in row.region.split("+")]
    return bool(row.nets) and sorted(map(str, found)) == sorted(map(str, wanted))
