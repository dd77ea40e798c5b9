"""Tests the claims of the paper on results. Does not import TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass

from vgg_keras.reproduction.claims import Claim
from vgg_keras.reproduction.paired import Difference

HOLDS, CONTRADICTED, UNDECIDED, MISSING = "holds", "contradicted", "undecided", "missing"
MARGIN = 0.5  # points; what gains less does not help


@dataclass(frozen=True)
class TestedClaim:
    """A claim tested on results.

    Attributes:
        claim: the claim.
        measured_on: data, crop size and width of the results; "" if there are none.
        difference: our gain of the variants over the baselines; None without results.
        papers_gain: the paper's gain over the same pairs; over all pairs without results.
        pairs: number of pairs that `difference` is the mean of.
        verdict: HOLDS, CONTRADICTED, UNDECIDED or MISSING.
        notes: what is missing or not used, one sentence each.
    """

    claim: Claim
    measured_on: str
    difference: Difference | None
    papers_gain: float | None
    pairs: int
    verdict: str
    notes: tuple[str, ...] = ()


def verdict(claim: Claim, difference: Difference) -> str:
    """Whether a claim holds, by the interval of the gain.

    A claim that something helps holds if the interval is above zero, and is contradicted if it is
    below. A claim that something does not help holds if the interval reaches zero and stays below
    `MARGIN`, and is contradicted if it is above zero. Otherwise a claim is undecided.
    """
    if claim.helps:
        holds, contradicted = difference.low > 0, difference.high < 0
    else:
        contradicted = difference.low > 0
        holds = difference.high < MARGIN and not contradicted
    return HOLDS if holds else CONTRADICTED if contradicted else UNDECIDED
