"""What a claim compares: results that belong beside two rows of the paper's tables."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from vgg_keras.features.protocols import MEAN_CLASS_RECALL
from vgg_keras.report.generalisation import TRANSFER_TABLES
from vgg_keras.report.paper import PaperTable, Row


@dataclass(frozen=True)
class Side:
    """The results on one side of a comparison: those that belong beside a row of a table.

    Attributes:
        table: table of the paper, which decides the measure.
        row: the row.
    """

    table: PaperTable
    row: Row

    @property
    def measure(self) -> str:
        """The key of a result that holds the measure: an error, or the mean class recall."""
        return self.table.measures[0][1] if self.table.measures else MEAN_CLASS_RECALL

    @property
    def is_error(self) -> bool:
        """Whether less is better."""
        return self.table not in TRANSFER_TABLES

    @property
    def description(self) -> str:
        """Nets/S/Q as in Table 6, the protocol, and the conditions: D/256/256, dense."""
        nets = " + ".join("/".join(one.cells) for one in self.row.tested)
        conditions = (f"{key} {value}" for key, value in self.row.conditions)
        return ", ".join([*([nets, self.row.protocol] if nets else []), *conditions])

    @property
    def papers_value(self) -> float | None:
        """The paper's number in percent, on Caltech the mean of both data sets; or None."""
        values = [
            value
            for heading, value in zip(self.table.value_columns, self.row.values, strict=True)
            if "(mean class recall)" in heading
        ] or self.row.values[:1]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None


@dataclass(frozen=True)
class Pair:
    """Two sides that are compared.

    Attributes:
        baseline: the side that the gain is measured from.
        variant: the side that should be better, or that should not be if nothing helps.
    """

    baseline: Side
    variant: Side

    @property
    def papers_gain(self) -> float | None:
        """Points by which the paper's variant is better; None if a number is missing."""
        baseline, variant = self.baseline.papers_value, self.variant.papers_value
        if baseline is None or variant is None:
            return None
        return baseline - variant if self.variant.is_error else variant - baseline
