"""Tables 2 to 7 of the paper as data, with the nets and scales that each number was measured with.

Table 1 is `vgg_keras.nets.NETS`, and the tables of the appendices are in `appendices.py`. This
module does not import TensorFlow or rich.
"""

from __future__ import annotations

from dataclasses import dataclass

MEASURED_ON = "measured on"  # heading of the column beside our numbers


@dataclass(frozen=True)
class Tested:
    """A net with the scales of training and testing.

    Attributes:
        net: configuration of Table 1.
        train_scale: S in pixels as a pair (S_min, S_max), equal if S was fixed (§3.1).
        test_scales: Q in pixels. The posteriors of several scales were averaged (§4.2).
    """

    net: str
    train_scale: tuple[int, int]
    test_scales: tuple[int, ...]

    @property
    def cells(self) -> tuple[str, str, str]:
        """Net, S and Q, printed as in the paper: D, [256;512], 256,384,512."""
        low, high = self.train_scale
        scale = str(low) if low == high else f"[{low};{high}]"
        return self.net, scale, ",".join(map(str, self.test_scales))


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        cells: texts of the descriptive columns.
        values: the paper's numbers, one for each value column; None if the cell is empty.
        protocol: how the nets were tested (§3.2): "centre", "dense", "multi-crop" or
            "multi-crop+dense".
        tested: the nets. The posteriors of several nets were averaged (§4.4). Empty for the
            systems of other authors, which no result of ours stands beside.
        conditions: pairs (key, value) that a result of ours must also have.
    """

    cells: tuple[str, ...]
    values: tuple[float | None, ...]
    protocol: str = "dense"
    tested: tuple[Tested, ...] = ()
    conditions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper.

    Attributes:
        number: number in the paper.
        title: caption, shortened.
        section: section of the paper that discusses it.
        columns: headings of the descriptive columns.
        value_columns: headings of the numbers.
        rows: rows in the paper's order. A cell that spans several rows is repeated in each.
        measures: pairs of a heading for our numbers and the key of a result that they are read
            from. Only results that have all of these keys are shown in the table.
    """

    number: int
    title: str
    section: str
    columns: tuple[str, ...]
    value_columns: tuple[str, ...]
    rows: tuple[Row, ...]
    measures: tuple[tuple[str, str], ...] = (
        ("our top-1 error", "top1_error"),
        ("our top-5 error", "top5_error"),
    )


_ERRORS = ("top-1 val. error (%)", "top-5 val. error (%)")
_SCALES = ("ConvNet config. (Table 1)", "train (S)", "test (Q)")

_256, _384, _JITTERED = (256, 256), (384, 384), (256, 512)
# Test scales Q of Table 4 by training scale S. Table 3 has the middle one alone (§4.1).
_TEST_SCALES = {
    _256: (224, 256, 288),
    _384: (352, 384, 416),
    _JITTERED: (256, 384, 512),
}


def _multi_scale(net: str, train_scale: tuple[int, int]) -> Tested:
    return Tested(net, train_scale, _TEST_SCALES[train_scale])


def _single_scale(net: str, train_scale: tuple[int, int]) -> Tested:
    return Tested(net, train_scale, _TEST_SCALES[train_scale][1:2])


_TABLE_2 = (("A", 133), ("A-LRN", 133), ("B", 133), ("C", 134), ("D", 138), ("E", 144))

_TABLE_3 = (
    ("A", _256, (29.6, 10.4)),
    ("A-LRN", _256, (29.7, 10.5)),
    ("B", _256, (28.7, 9.9)),
    ("C", _256, (28.1, 9.4)),
    ("C", _384, (28.1, 9.3)),
    ("C", _JITTERED, (27.3, 8.8)),
    ("D", _256, (27.0, 8.8)),
    ("D", _384, (26.8, 8.7)),
    ("D", _JITTERED, (25.6, 8.1)),
    ("E", _256, (27.3, 9.0)),
    ("E", _384, (26.9, 8.7)),
    ("E", _JITTERED, (25.5, 8.0)),
)

# §4.1: net B, and the net that has one 5x5 layer in place of each two of its 3x3 layers, tested on
# a central crop. The paper states their difference alone, in points of the top-1 error.
SMALL_FILTERS = tuple(
    Row(test.cells, (None, None), "centre", (test,))
    for test in (_single_scale("B-shallow", _256), _single_scale("B", _256))
)
SMALL_FILTERS_GAIN = 7.0

_TABLE_4 = (
    ("B", _256, (28.2, 9.6)),
    ("C", _256, (27.7, 9.2)),
    ("C", _384, (27.8, 9.2)),
    ("C", _JITTERED, (26.3, 8.2)),
    ("D", _256, (26.6, 8.6)),
    ("D", _384, (26.5, 8.6)),
    ("D", _JITTERED, (24.8, 7.5)),
    ("E", _256, (26.9, 8.7)),
    ("E", _384, (26.7, 8.6)),
    ("E", _JITTERED, (24.8, 7.5)),
)

_EVALUATION_METHODS = {  # protocols by their names in Table 5
    "dense": "dense",
    "multi-crop": "multi-crop",
    "multi-crop & dense": "multi-crop+dense",
}
_TABLE_5 = (
    ("D", "dense", (24.8, 7.5)),
    ("D", "multi-crop", (24.6, 7.5)),
    ("D", "multi-crop & dense", (24.4, 7.2)),
    ("E", "dense", (24.8, 7.5)),
    ("E", "multi-crop", (24.6, 7.4)),
    ("E", "multi-crop & dense", (24.4, 7.1)),
)

# §4.4: of this net D only the FC layers were trained on jittered scales. Results do not record
# that, so any net D of these scales matches.
_SEVEN_NETS = tuple(
    _multi_scale(net, train_scale)
    for net, train_scale in (
        ("D", _256),
        ("D", _384),
        ("D", _JITTERED),
        ("C", _256),
        ("C", _384),
        ("E", _256),
        ("E", _384),
    )
)
_TWO_NETS = (_multi_scale("D", _JITTERED), _multi_scale("E", _JITTERED))
_SUBMITTED, _LATER = "ILSVRC submission", "post-submission"
_TABLE_6 = (
    (_SUBMITTED, _SEVEN_NETS, "", "dense", (24.7, 7.5, 7.3)),
    (_LATER, _TWO_NETS, ", dense eval.", "dense", (24.0, 7.1, 7.0)),
    (_LATER, _TWO_NETS, ", multi-crop", "multi-crop", (23.9, 7.2, None)),
    (_LATER, _TWO_NETS, ", multi-crop & dense eval.", "multi-crop+dense", (23.7, 6.8, 6.8)),
)

_OURS_IN_TABLE_7 = (
    ("2 nets, multi-crop & dense eval.", "multi-crop+dense", _TWO_NETS, (23.7, 6.8, 6.8)),
    ("1 net, multi-crop & dense eval.", "multi-crop+dense", _TWO_NETS[1:], (24.4, 7.1, 7.0)),
    ("ILSVRC submission, 7 nets, dense eval.", "dense", _SEVEN_NETS, (24.7, 7.5, 7.3)),
)
_OTHERS_IN_TABLE_7 = (
    # The paper has one cell for GoogLeNet's validation and test error. It is stored as the former.
    ("GoogLeNet (Szegedy et al., 2014) (1 net)", (None, 7.9, None)),
    ("GoogLeNet (Szegedy et al., 2014) (7 nets)", (None, 6.7, None)),
    ("MSRA (He et al., 2014) (11 nets)", (None, None, 8.1)),
    ("MSRA (He et al., 2014) (1 net)", (27.9, 9.1, 9.1)),
    ("Clarifai (Russakovsky et al., 2014) (multiple nets)", (None, None, 11.7)),
    ("Clarifai (Russakovsky et al., 2014) (1 net)", (None, None, 12.5)),
    ("Zeiler & Fergus (Zeiler & Fergus, 2013) (6 nets)", (36.0, 14.7, 14.8)),
    ("Zeiler & Fergus (Zeiler & Fergus, 2013) (1 net)", (37.5, 16.0, 16.1)),
    ("OverFeat (Sermanet et al., 2014) (7 nets)", (34.0, 13.2, 13.6)),
    ("OverFeat (Sermanet et al., 2014) (1 net)", (35.7, 14.2, None)),
    ("Krizhevsky et al. (Krizhevsky et al., 2012) (5 nets)", (38.1, 16.4, 16.4)),
    ("Krizhevsky et al. (Krizhevsky et al., 2012) (1 net)", (40.7, 18.2, None)),
)


def _one_net(tested: Tested, errors: tuple[float, ...]) -> Row:
    return Row(tested.cells, errors, tested=(tested,))


def _models(tested: tuple[Tested, ...]) -> str:
    """The nets, listed as in Table 6: (D/256/224,256,288), ..."""
    return ", ".join(f"({'/'.join(net.cells)})" for net in tested)


MAIN_TABLES = (
    PaperTable(
        2,
        "Number of parameters (in millions)",
        "2.2",
        ("Network",),
        ("Number of parameters",),
        tuple(Row((net,), (millions,)) for net, millions in _TABLE_2),
    ),
    PaperTable(
        3,
        "ConvNet performance at a single test scale",
        "4.1",
        _SCALES,
        _ERRORS,
        tuple(_one_net(_single_scale(net, scale), errors) for net, scale, errors in _TABLE_3),
    ),
    PaperTable(
        4,
        "ConvNet performance at multiple test scales",
        "4.2",
        _SCALES,
        _ERRORS,
        tuple(_one_net(_multi_scale(net, scale), errors) for net, scale, errors in _TABLE_4),
    ),
    PaperTable(
        5,
        "ConvNet evaluation techniques comparison",
        "4.3",
        ("ConvNet config. (Table 1)", "Evaluation method"),
        _ERRORS,
        tuple(
            Row((net, method), errors, _EVALUATION_METHODS[method], (_multi_scale(net, _JITTERED),))
            for net, method, errors in _TABLE_5
        ),
    ),
    PaperTable(
        6,
        "Multiple ConvNet fusion results",
        "4.4",
        ("Time", "Combined ConvNet models"),
        ("top-1 val", "top-5 val", "top-5 test"),
        tuple(
            Row((time, _models(tested) + evaluation), errors, protocol, tested)
            for time, tested, evaluation, protocol, errors in _TABLE_6
        ),
    ),
    PaperTable(
        7,
        "Comparison with the state of the art in ILSVRC classification",
        "4.5",
        ("Method",),
        (*_ERRORS, "top-5 test error (%)"),
        tuple(
            Row((f"VGG ({nets})",), errors, protocol, tested)
            for nets, protocol, tested, errors in _OURS_IN_TABLE_7
        )
        + tuple(Row((method,), errors) for method, errors in _OTHERS_IN_TABLE_7),
    ),
)
