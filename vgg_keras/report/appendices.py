"""Tables 8 to 12 of the paper as data (Appendices A and B), and all its tables by number."""

from __future__ import annotations

from vgg_keras.report.paper import (
    MAIN_TABLES,
    PaperTable,
    Row,
    Tested,
    TransferRow,
    TransferTable,
)

_256, _384 = (256, 256), (384, 384)
_BEST = (("regression", "per-class"), ("tuned", "all"))  # "PCR, fine-tuning of all layers"
_FC = "1st and 2nd FC"

_SETTINGS = (
    (_FC, "SCR", ("single-class", "fc"), 36.4),
    (_FC, "PCR", ("per-class", "fc"), 34.3),
    ("all", "PCR", ("per-class", "all"), 33.1),
)

_SINGLE_NETS = (
    (_256, (256,), (29.5, None)),
    (_384, (384,), (28.2, 26.7)),
    (_384, (352, 384), (27.5, None)),
)
_FUSION = (Tested("D", _256, (256,)), Tested("D", _384, (352, 384)))

_OTHERS_IN_TABLE_10 = (
    ("GoogLeNet (Szegedy et al., 2014)", (None, 26.7)),
    ("OverFeat (Sermanet et al., 2014)", (30.0, 29.9)),
    ("Krizhevsky et al. (Krizhevsky et al., 2012)", (None, 34.2)),
)


def _localised(cells: tuple[str, ...], values, tested: tuple[Tested, ...]) -> Row:
    return Row(cells, values, "dense", tested, _BEST)


_TOP5 = (("ours", "top5_localisation_error"),)

APPENDIX_TABLES = (
    PaperTable(
        8,
        "Localisation error for different modifications, central crop, S = 384",
        "A.2",
        ("Fine-tuned layers", "regression type"),
        ("GT class localisation error (%)",),
        tuple(
            Row(
                (layers, kind),
                (error,),
                "centre-gt",
                (Tested("D", _384, (384,)),),
                (("regression", regression), ("tuned", tuned)),
            )
            for layers, kind, (regression, tuned), error in _SETTINGS
        ),
        (("ours", "gt_class_localisation_error"),),
    ),
    PaperTable(
        9,
        "Localisation error",
        "A.2",
        ("train (S)", "test (Q)"),
        ("top-5 val. error (%)", "top-5 test error (%)"),
        (
            *(
                _localised(Tested("D", train, test).cells[1:], errors, (Tested("D", train, test),))
                for train, test, errors in _SINGLE_NETS
            ),
            _localised(("fusion", "256/256 and 384/352,384"), (26.9, 25.3), _FUSION),
        ),
        _TOP5,
    ),
    PaperTable(
        10,
        "Comparison with the state of the art in ILSVRC localisation",
        "A.2",
        ("Method",),
        ("top-5 val. error (%)", "top-5 test error (%)"),
        (
            _localised(("VGG",), (26.9, 25.3), _FUSION),
            *(Row((method,), errors) for method, errors in _OTHERS_IN_TABLE_10),
        ),
        _TOP5,
    ),
)

# Those marked * in the paper were pre-trained on 2000 or 1512 classes. Spreads stay in the text.
_PEERS_OF_TABLE_11 = (
    ("Zeiler & Fergus (Zeiler & Fergus, 2013)", (None, 79.0, 86.5, 74.2)),
    ("Chatfield et al. (Chatfield et al., 2014)", (82.4, 83.2, 88.4, 77.6)),
    ("He et al. (He et al., 2014)", (82.4, None, 93.4, None)),
    ("Wei et al. (Wei et al., 2014)", (81.5, 81.7, None, None)),
    ("Wei et al. (Wei et al., 2014) *", (85.2, 90.3, None, None)),
)
_OURS_IN_TABLE_11 = (
    ("VGG Net-D (16 layers)", "D", (89.3, 89.0, 91.8, 85.0)),
    ("VGG Net-E (19 layers)", "E", (89.3, 89.0, 92.3, 85.1)),
    ("VGG Net-D & Net-E", "D + E", (89.7, 89.3, 92.7, 86.2)),
)
_SETS_OF_TABLE_11 = (
    ("VOC-2007 (mean AP)", "voc2007", "mean_ap"),
    ("VOC-2012 (mean AP)", "voc2012", "mean_ap"),
    ("Caltech-101 (mean class recall)", "caltech101", "mean_class_recall"),
    ("Caltech-256 (mean class recall)", "caltech256", "mean_class_recall"),
)
_TABLE_12 = (
    ("(Oquab et al., 2014) *", 70.2),
    ("(Gkioxari et al., 2014)", 73.6),
    ("(Hoai, 2014)", 76.3),
)
_OURS_IN_TABLE_12 = (
    ("VGG Net-D & Net-E, image-only", "image", 79.2),
    ("VGG Net-D & Net-E, image and bounding box", "image+box", 84.0),
)

# By number: title, section, column headings, and rows of (cells, values, nets, region). Their
# results are those of `vgg-keras transfer`, see `tables.py`.
TRANSFER_TABLES = {
    11: TransferTable(
        11,
        "Comparison with the state of the art in image classification on other data sets",
        _SETS_OF_TABLE_11,
        (
            *(TransferRow(method, values) for method, values in _PEERS_OF_TABLE_11),
            *(TransferRow(method, values, nets) for method, nets, values in _OURS_IN_TABLE_11),
        ),
    ),
    12: TransferTable(
        12,
        "Comparison with the state of the art in single-image action classification on VOC-2012",
        (("VOC-2012 action (mean AP)", "voc2012-action", "mean_ap"),),
        (
            *(TransferRow(method, (value,)) for method, value in _TABLE_12),
            *(
                TransferRow(method, (value,), "D + E", region)
                for method, region, value in _OURS_IN_TABLE_12
            ),
        ),
    ),
}

PAPER_TABLES: dict[int, PaperTable] = {
    table.number: table for table in (*MAIN_TABLES, *APPENDIX_TABLES)
}
