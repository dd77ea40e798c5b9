"""Which row of a table of the paper a result belongs beside, and why a result is beside none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from vgg_keras.evaluation.procedure import CROP_OF_PAPER
from vgg_keras.metadata import members
from vgg_keras.report.generalisation import (
    PROTOCOLS_OF_TABLE,
    TRANSFER_MEASURES,
    TRANSFER_TABLES,
    transfer_conditions,
)
from vgg_keras.report.paper import PaperTable, Row, Tested
from vgg_keras.report.results import Result

# A result without these facts about each net matches no row.
_NEEDED = ("net", "train_scale", "crop_size", "width", "test_scales")
_NEEDED_OF_TRANSFER = (
    "net",
    "region",
    "test_scales",
    "aggregate",
    "crop_size",
    "width",
    "layer",
)


class _Fact(NamedTuple):
    """What a result must share with a row.

    Attributes:
        name: name of the fact, for messages.
        ours, papers: the fact of a result, and of a row in proportion to the result, in words.
        is_shared: whether a result and a row share it.
    """

    name: str
    ours: Callable[[Result], str]
    papers: Callable[[Result, Row], str]
    is_shared: Callable[[Result, Row], bool]


def matches(result: Result, paper: PaperTable, row: Row) -> bool:
    """Whether a result belongs beside a row of a table.

    It must have the measures of the table, the protocol of the row, and exactly the row's nets,
    each at the row's S and Q and under the row's conditions. Scales are compared in proportion to
    the crop size: scale q at crop size c matches the paper's scale p if |q - p * c / 224| < 1. A
    result without these facts matches no row.

    For Tables 11 and 12 it must have a protocol of the table and the nets and image regions of the
    row. Width, layer and scales may differ from the paper's; `transfer_cells` names them.
    """
    return mismatch(result, paper, [row]) is None


def mismatch(result: Result, paper: PaperTable, rows: Sequence[Row]) -> str | None:
    """Why a result belongs beside none of some rows; None if it belongs beside one of them.

    Args:
        result: from `read_results`.
        paper: table of the paper, from Table 3 on.
        rows: rows of the table. Those of other authors match no result.

    Returns:
        The first fact that the result shares with none of the rows that share the facts before, and
        what these rows have.

    Example:
        mismatch(result, PAPER_TABLES[4], PAPER_TABLES[4].rows)
        # "Q = 109, but the rows with net = D, S = [73;146] have Q = 73,109,146"
    """
    left = [row for row in rows if row.tested or row.conditions]
    if reason := _unfit(result, paper):
        return reason
    shared: list[str] = []
    for fact in _facts(paper, left):
        found = [row for row in left if fact.is_shared(result, row)]
        ours = f"{fact.name} = {fact.ours(result)}"
        if not found:
            papers = " or ".join(dict.fromkeys(fact.papers(result, row) for row in left))
            which = f"the rows with {', '.join(shared)}" if shared else "the rows of the table"
            return f"{ours}, but {which} have {fact.name} = {papers}"
        shared.append(ours)
        left = found
    return None if left else "the table has no rows for results"


def _unfit(result: Result, paper: PaperTable) -> str | None:
    """Why a result can be beside no row of a table; None if it has what rows are chosen by."""
    is_transfer = paper in TRANSFER_TABLES
    measures = TRANSFER_MEASURES if is_transfer else {key for _, key in paper.measures}
    if not (any if is_transfer else all)(key in result for key in measures):
        words = (" or " if is_transfer else " and ").join(sorted(measures))
        return f"no {words}, which the table shows"
    protocols = PROTOCOLS_OF_TABLE.get(paper.number)
    if protocols and result["protocol"] not in protocols:
        return f"protocol = {result['protocol']}, but the table has {' or '.join(protocols)}"
    nets = members(result.get("features", {}) if is_transfer else result)
    for key in _NEEDED_OF_TRANSFER if is_transfer else _NEEDED:
        if not nets or any(net.get(key) is None for net in nets):
            return f"{key} of a net is unknown"
    return None


def _facts(paper: PaperTable, rows: Iterable[Row]) -> list[_Fact]:
    keys = dict.fromkeys(key for row in rows for key, _ in row.conditions)
    return [*(() if paper in TRANSFER_TABLES else _OF_NETS), *map(_condition, keys)]


def _paired(result: Result, row: Row, *facts: Callable[[dict[str, Any], Tested], bool]) -> bool:
    """Whether each net of a result is that of another test of the row, by some facts."""
    nets, left = members(result), list(row.tested)
    for net in nets:
        found = next((one for one in left if all(fact(net, one) for fact in facts)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _is_net(net: dict[str, Any], tested: Tested) -> bool:
    return bool(net["net"] == tested.net)


def _is_trained(net: dict[str, Any], tested: Tested) -> bool:
    return _in_proportion(net["train_scale"], tested.train_scale, net["crop_size"])


def _is_tested(net: dict[str, Any], tested: Tested) -> bool:
    # Sorted, because the order of the test scales does not matter.
    return _in_proportion(sorted(net["test_scales"]), tested.test_scales, net["crop_size"])


def _in_proportion(ours: Sequence[int], papers: Sequence[int], crop: int) -> bool:
    return len(ours) == len(papers) and all(
        abs(q * CROP_OF_PAPER - p * crop) < CROP_OF_PAPER for q, p in zip(ours, papers, strict=True)
    )


def _is_protocol(result: Result, row: Row) -> bool:
    return set(_protocols(result)) == {row.protocol}


def _protocols(result: Result) -> list[str]:
    """The protocol of a result and of its nets, each once."""
    of_nets = (net["protocol"] for net in members(result) if "protocol" in net)
    return list(dict.fromkeys([result["protocol"], *of_nets]))


def _ours(cell: int) -> Callable[[Result], str]:
    """Net, S or Q of all nets of a result, as printed in the paper."""

    def words(result: Result) -> str:
        nets = members(result)
        tests = (
            Tested(net["net"], tuple(net["train_scale"]), tuple(sorted(net["test_scales"])))
            for net in nets
        )
        return " + ".join(test.cells[cell] for test in tests)

    return words


def _papers(cell: int) -> Callable[[Result, Row], str]:
    """Net, S or Q of a row, in proportion to the crop size of the result's first net."""

    def words(result: Result, row: Row) -> str:
        factor = members(result)[0]["crop_size"] / CROP_OF_PAPER
        tests = (
            Tested(
                one.net,
                (round(one.train_scale[0] * factor), round(one.train_scale[1] * factor)),
                tuple(round(scale * factor) for scale in one.test_scales),
            )
            for one in row.tested
        )
        return " + ".join(test.cells[cell] for test in tests)

    return words


_OF_NETS = (
    _Fact("net", _ours(0), _papers(0), lambda result, row: _paired(result, row, _is_net)),
    _Fact(
        "S", _ours(1), _papers(1), lambda result, row: _paired(result, row, _is_net, _is_trained)
    ),
    _Fact(
        "Q",
        _ours(2),
        _papers(2),
        lambda result, row: _paired(result, row, _is_net, _is_trained, _is_tested),
    ),
    _Fact(
        "protocol",
        lambda result: " and ".join(_protocols(result)),
        lambda _, row: row.protocol,
        _is_protocol,
    ),
)


def _condition(key: str) -> _Fact:
    """A condition of rows, such as `regression`."""

    def found(result: Result) -> list[str | None]:
        """The values of all nets, each once."""
        if "features" in result:
            return [transfer_conditions(result).get(key)]
        return list(dict.fromkeys(net.get(key) for net in members(result)))

    def papers(_: Result, row: Row) -> str:
        return dict(row.conditions).get(key, "any")

    def is_shared(result: Result, row: Row) -> bool:
        conditions = dict(row.conditions)
        return key not in conditions or found(result) == [conditions[key]]

    def ours(result: Result) -> str:
        return " and ".join(value or "unknown" for value in found(result))

    return _Fact(key, ours, papers, is_shared)
