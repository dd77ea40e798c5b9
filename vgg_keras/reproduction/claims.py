"""The claims of the paper as data: which results should be better than which, and by how much.

The results are rows of the paper's tables, which hold the nets, scales and protocols.
`vgg_keras.reproduction.verdicts` tests the claims. This module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from vgg_keras.report.appendices import PAPER_TABLES
from vgg_keras.report.paper import SMALL_FILTERS, SMALL_FILTERS_GAIN
from vgg_keras.reproduction.comparisons import Pair, Side


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        id: short name.
        section: section of the paper.
        statement: what the paper says, in our words.
        pairs: comparisons; the gain is the mean over them.
        helps: whether the variants are said to be better. If not, they are said not to be.
        stated_gain: gain in points that the paper states in its text instead of a table.
    """

    id: str
    section: str
    statement: str
    pairs: tuple[Pair, ...]
    helps: bool = True
    stated_gain: float | None = None

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides of all pairs: each baseline and its variant."""
        return tuple(side for pair in self.pairs for side in (pair.baseline, pair.variant))

    def papers_gain(self, pairs: Sequence[Pair] | None = None) -> float | None:
        """The paper's own gain in points, the mean over pairs.

        Args:
            pairs: some of the pairs; by default all.

        Returns:
            None if the paper has no number for one of them.
        """
        gains = [pair.papers_gain for pair in (self.pairs if pairs is None else pairs)]
        known = [gain for gain in gains if gain is not None]
        return fmean(known) if known and len(known) == len(gains) else self.stated_gain


def _side(number: int, *cells: str, protocol: str = "") -> Side:
    """The one row of a table that begins with these cells and has the protocol, if one is given."""
    table = PAPER_TABLES[number]
    (row,) = (
        row
        for row in table.rows
        if row.cells[: len(cells)] == cells and protocol in ("", row.protocol)
    )
    return Side(table, row)


def _pairs(*sides: tuple[Side, Side]) -> tuple[Pair, ...]:
    return tuple(Pair(baseline, variant) for baseline, variant in sides)


def _aggregated(number: int, method: str, aggregate: str) -> Side:
    """A row of Table 11 with descriptors of several scales aggregated in one way.

    The numbers of the table are of stacked descriptors.
    """
    side = _side(number, method)
    values = side.row.values if aggregate == "stack" else (None,) * len(side.row.values)
    conditions = (*side.row.conditions, ("aggregate", aggregate))
    row = dataclasses.replace(side.row, values=values, conditions=conditions)
    return Side(side.table, row)


_SCALES = {  # training scales of each net in Table 4
    "B": ("256",),
    "C": ("256", "384", "[256;512]"),
    "D": ("256", "384", "[256;512]"),
    "E": ("256", "384", "[256;512]"),
}
_FIXED, _JITTERED = ("256", "384"), "[256;512]"
_PROTOCOLS = ("dense", "multi-crop", "multi-crop+dense")
_TWO_NETS, _SEVEN_NETS = "post-submission", "ILSVRC submission"
_SHALLOW, _DEEP = (Side(PAPER_TABLES[3], row) for row in SMALL_FILTERS)
_FC = "1st and 2nd FC"
_METHODS = "VGG Net-D (16 layers)", "VGG Net-E (19 layers)", "VGG Net-D & Net-E"
_D, _E, _D_AND_E = _METHODS


def _nets(baseline: str, variant: str, *scales: str) -> tuple[Pair, ...]:
    """Two nets in Table 3, at each of the training scales."""
    return _pairs(*((_side(3, baseline, scale), _side(3, variant, scale)) for scale in scales))


def _protocols(baseline: str, variant: str) -> tuple[Pair, ...]:
    """Two protocols in Table 5, with each of its nets."""
    return _pairs(
        *((_side(5, net, protocol=baseline), _side(5, net, protocol=variant)) for net in "DE")
    )


def _fusion_against(net: str) -> tuple[Pair, ...]:
    """A net in Table 5 against the fusion of D and E in Table 6, by each protocol."""
    return _pairs(
        *((_side(5, net, protocol=p), _side(6, _TWO_NETS, protocol=p)) for p in _PROTOCOLS)
    )


def _aggregates(baseline: str) -> tuple[Pair, ...]:
    """An aggregation against stacking in Table 11, with each net."""
    return _pairs(
        *((_aggregated(11, net, baseline), _aggregated(11, net, "stack")) for net in _METHODS)
    )


def _descriptors(baseline: str, variant: str) -> tuple[Pair, ...]:
    """Two rows of Table 11 with stacked scales."""
    return _pairs((_aggregated(11, baseline, "stack"), _aggregated(11, variant, "stack")))


CLAIMS = (
    Claim("lrn", "4.1", "LRN does not help net A", _nets("A", "A-LRN", "256"), helps=False),
    Claim("depth-a-b", "4.1", "net B is better than A: depth helps", _nets("A", "B", "256")),
    Claim("depth-b-d", "4.1", "net D is better than B: depth helps", _nets("B", "D", "256")),
    Claim("depth-a-e", "4.1", "net E is better than A: depth helps", _nets("A", "E", "256")),
    Claim(
        "saturation",
        "4.1",
        "the gain of depth ends at 19 layers: E does not help beyond D",
        _nets("D", "E", *_FIXED, _JITTERED),
        helps=False,
    ),
    Claim(
        "non-linearity",
        "4.1",
        "net C is better than B: more non-linear layers help",
        _nets("B", "C", "256"),
    ),
    Claim(
        "spatial-context",
        "4.1",
        "net D is better than C: 3x3 filters are better than 1x1 filters",
        _nets("C", "D", *_FIXED, _JITTERED),
    ),
    Claim(
        "small-filters",
        "4.1",
        "net B is better than the shallow net with 5x5 filters, on a central crop",
        _pairs((_SHALLOW, _DEEP)),
        stated_gain=SMALL_FILTERS_GAIN,
    ),
    Claim(
        "training-jitter",
        "4.1",
        "training at jittered scales is better than at a fixed scale",
        _pairs(
            *((_side(3, net, fixed), _side(3, net, _JITTERED)) for net in "CDE" for fixed in _FIXED)
        ),
    ),
    Claim(
        "test-scales",
        "4.2",
        "testing at several scales is better than at one",
        _pairs(
            *(
                (_side(3, net, scale), _side(4, net, scale))
                for net, scales in _SCALES.items()
                for scale in scales
            )
        ),
    ),
    Claim(
        "multi-crop",
        "4.3",
        "multi-crop evaluation is slightly better than dense evaluation",
        _protocols("dense", "multi-crop"),
    ),
    Claim(
        "both-over-dense",
        "4.3",
        "multi-crop and dense evaluation together are better than dense evaluation",
        _protocols("dense", "multi-crop+dense"),
    ),
    Claim(
        "both-over-multi-crop",
        "4.3",
        "multi-crop and dense evaluation together are better than multi-crop evaluation",
        _protocols("multi-crop", "multi-crop+dense"),
    ),
    Claim("fusion-over-d", "4.4", "D and E together are better than D", _fusion_against("D")),
    Claim("fusion-over-e", "4.4", "D and E together are better than E", _fusion_against("E")),
    Claim(
        "seven-nets",
        "4.4",
        "seven nets together are better than the best of them, D trained at jittered scales",
        _pairs((_side(5, "D", protocol="dense"), _side(6, _SEVEN_NETS))),
    ),
    Claim(
        "two-over-seven",
        "4.4",
        "D and E, trained at jittered scales, are together better than the seven nets",
        _pairs((_side(6, _SEVEN_NETS), _side(6, _TWO_NETS, protocol="dense"))),
    ),
    Claim(
        "per-class-boxes",
        "A.2",
        "per-class regression is better than single-class regression",
        _pairs((_side(8, _FC, "SCR"), _side(8, _FC, "PCR"))),
    ),
    Claim(
        "all-layers",
        "A.2",
        "fine-tuning of all layers is better than of the FC layers",
        _pairs((_side(8, _FC, "PCR"), _side(8, "all", "PCR"))),
    ),
    Claim(
        "dense-boxes",
        "A.2",
        "boxes of the whole image for five classes are better than one of the central crop",
        _pairs((_side(8, "all", "PCR"), _side(9, "384", "384"))),
    ),
    Claim(
        "larger-boxes",
        "A.2",
        "localisation at S = 384 is better than at S = 256",
        _pairs((_side(9, "256", "256"), _side(9, "384", "384"))),
    ),
    Claim(
        "box-scales",
        "A.2",
        "localisation at several test scales is better than at one",
        _pairs((_side(9, "384", "384"), _side(9, "384", "352,384"))),
    ),
    Claim(
        "box-fusion",
        "A.2",
        "two localisation nets together are better than the best of them",
        _pairs((_side(9, "384", "352,384"), _side(9, "fusion"))),
    ),
    Claim(
        "stack-over-mean",
        "B",
        "on Caltech, stacking of scales is better than averaging",
        _aggregates("mean"),
    ),
    Claim(
        "stack-over-max",
        "B",
        "on Caltech, stacking of scales is better than max-pooling",
        _aggregates("max"),
    ),
    Claim(
        "features-e-over-d",
        "B",
        "on Caltech, features of E are better than of D",
        _descriptors(_D, _E),
    ),
    Claim(
        "features-over-d",
        "B",
        "on Caltech, features of D and E together are better than of D",
        _descriptors(_D, _D_AND_E),
    ),
    Claim(
        "features-over-e",
        "B",
        "on Caltech, features of D and E together are better than of E",
        _descriptors(_E, _D_AND_E),
    ),
)
