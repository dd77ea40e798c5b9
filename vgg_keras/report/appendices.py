"""Tables 8 to 10 of the paper as data (Appendix A), and all tables of the paper by number.

The tables of Appendix B are in `generalisation.py`.
"""

from __future__ import annotations

from vgg_keras.report.generalisation import TRANSFER_TABLES
from vgg_keras.report.paper import MAIN_TABLES, PaperTable, Row, Tested

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


def _localised(
    cells: tuple[str, ...], values: tuple[float | None, ...], tested: tuple[Tested, ...]
) -> Row:
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

PAPER_TABLES: dict[int, PaperTable] = {
    table.number: table for table in (*MAIN_TABLES, *APPENDIX_TABLES, *TRANSFER_TABLES)
}
