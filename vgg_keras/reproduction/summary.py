"""Tested claims as a table and as JSON. Does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from vgg_keras.report.tables import Cell, Table
from vgg_keras.reproduction.verdicts import TestedClaim

_HEADER = (
    "claim",
    "section",
    "the paper says",
    "gain of the paper",
    "our gain",
    "95 % interval",
    "verdict",
    "seeds",
    "images",
    "measured on",
)


def claims_table(tested: Sequence[TestedClaim]) -> Table:
    """Builds a table with one row for each tested claim; gains are in points.

    Example:
        print(render(claims_table(test_claims(read_results("results"))), "text"))
    """
    return Table(None, "Claims of the paper; gains in points", _HEADER, tuple(map(_row, tested)))


def _row(one: TestedClaim) -> tuple[Cell, ...]:
    claim, found = one.claim, one.difference
    ours: tuple[Cell, ...] = (None, None, one.verdict, None, None)
    if found:
        interval = f"{found.low:.1f} to {found.high:.1f}"
        ours = found.points, interval, one.verdict, found.seeds, found.images
    says = (claim.id, f"§{claim.section}", claim.statement, one.papers_gain)
    return (*says, *ours, one.measured_on or None)


def claims_as_json(tested: Sequence[TestedClaim]) -> list[dict[str, Any]]:
    """One dictionary for each tested claim; can be written as JSON.

    `points`, `low` and `high` are in points of the gain; they are missing without results.
    """
    return [
        {
            "claim": one.claim.id,
            "section": one.claim.section,
            "statement": one.claim.statement,
            "helps": one.claim.helps,
            "papers_gain": one.papers_gain,
            "verdict": one.verdict,
            **(asdict(one.difference) if one.difference else {}),
            "measured_on": one.measured_on,
            "pairs": one.pairs,
            "of_pairs": len(one.claim.pairs),
            "notes": list(one.notes),
        }
        for one in tested
    ]
