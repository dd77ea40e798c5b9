"""Tests the claims of the paper on results. Does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from vgg_keras.errors import PredictionsError
from vgg_keras.report.generalisation import circumstances_of_transfer
from vgg_keras.report.matching import matches
from vgg_keras.report.results import Result, setting
from vgg_keras.report.seeds import Seed
from vgg_keras.reproduction.claims import CLAIMS, Claim
from vgg_keras.reproduction.comparisons import Pair, Side
from vgg_keras.reproduction.outcomes import Outcomes, read_outcomes
from vgg_keras.reproduction.paired import Difference, paired_difference

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

    __test__ = False  # no test class of pytest


def verdict(claim: Claim, difference: Difference) -> str:
    """Whether a claim holds, by the interval of the gain.

    A claim that something helps holds if the interval is above zero, and is contradicted if it is
    below. A claim that something does not help holds if the interval reaches zero or less and ends
    below `MARGIN`, and is contradicted if it is above zero. Otherwise a claim is undecided.
    """
    if claim.helps:
        holds, contradicted = difference.low > 0, difference.high < 0
    else:
        contradicted = difference.low > 0
        holds = difference.high < MARGIN and not contradicted
    return HOLDS if holds else CONTRADICTED if contradicted else UNDECIDED


def test_claims(results: Sequence[Result]) -> list[TestedClaim]:
    """Tests all claims of the paper on results.

    Results are compared if they have the same data, split, crop size and width. They are paired by
    seed and by image. Random splits of the data are averaged for each seed of the nets.

    Args:
        results: from `read_results`.

    Returns:
        The claims in the order of `CLAIMS`: each once for every such group of results that has one
        for the claim, or once if there is none.

    Example:
        [one.verdict for one in test_claims(read_results("results"))]
    """
    reader = _Reader()
    return [tested for claim in CLAIMS for tested in _tests_of(claim, results, reader)]


test_claims.__test__ = False  # type: ignore[attr-defined]  # no test of pytest


@dataclass(frozen=True)
class _Reader:
    """Reads the outcomes of each result once."""

    read: dict[tuple[int, str], Outcomes | PredictionsError] = field(default_factory=dict)

    def outcomes(self, result: Result, measure: str) -> Outcomes:
        """See `read_outcomes`."""
        key = id(result), measure
        if key not in self.read:
            try:
                self.read[key] = read_outcomes(result, measure)
            except PredictionsError as error:
                self.read[key] = error
        found = self.read[key]
        if isinstance(found, PredictionsError):
            raise found
        return found


def _tests_of(claim: Claim, results: Sequence[Result], reader: _Reader) -> Iterator[TestedClaim]:
    """The claim, tested on each group of results."""
    of_sides = [
        [one for one in results if matches(one, side.table, side.row)] for side in claim.sides
    ]
    groups = dict.fromkeys(_group(one) for found in of_sides for one in found)
    for group in groups or [("",)]:
        of_group = [[one for one in found if _group(one) == group] for found in of_sides]
        yield _tested(claim, group[-1], of_group, reader)


def _group(result: Result) -> tuple[str, ...]:
    """What results must share to be compared; the last text says it in words."""
    is_transfer = "features" in result
    words = circumstances_of_transfer(result, False) if is_transfer else setting(result)
    return result.get("data", ""), result.get("split", ""), words


_SidesBySeed = dict[Seed, tuple[Outcomes, Outcomes]]  # of a pair


def _tested(
    claim: Claim, measured_on: str, results: Sequence[Sequence[Result]], reader: _Reader
) -> TestedClaim:
    """The claim, tested on one group of results: those of each side of `claim.sides`."""
    notes: list[str] = []
    of_sides = [
        _by_seed(side, found, reader, notes)
        for side, found in zip(claim.sides, results, strict=True)
    ]
    absent = [s.description for s, found in zip(claim.sides, results, strict=True) if not found]
    if absent:
        notes.append(f"There is no result of {'; '.join(dict.fromkeys(absent))}.")
    compared: dict[Pair, _SidesBySeed] = {}
    for pair, baseline, variant in zip(claim.pairs, of_sides[::2], of_sides[1::2], strict=True):
        if both := _paired(pair, baseline, variant, notes):
            compared[pair] = both
    difference = _difference(list(compared.values()), notes)
    return TestedClaim(
        claim,
        measured_on,
        difference,
        claim.papers_gain(list(compared) if difference else None),
        len(compared) if difference else 0,
        verdict(claim, difference) if difference else MISSING,
        tuple(dict.fromkeys(notes)),
    )


def _by_seed(
    side: Side, results: Sequence[Result], reader: _Reader, notes: list[str]
) -> dict[Seed, Outcomes]:
    """The outcomes of a side by seed. Notes say what cannot be used."""
    found: dict[Seed, list[Result]] = {}
    for result in results:
        found.setdefault(Seed.of(result), []).append(result)
    usable = {}
    for seed, (first, *others) in found.items():
        if others:
            files = ", ".join(one["file"] for one in (first, *others))
            notes.append(
                f"{side.description}: {seed} has {1 + len(others)} results, and none is "
                f"used: {files}."
            )
            continue
        try:
            usable[seed] = reader.outcomes(first, side.measure)
        except PredictionsError as error:
            notes.append(str(error))
    return usable


def _paired(
    pair: Pair, baseline: dict[Seed, Outcomes], variant: dict[Seed, Outcomes], notes: list[str]
) -> _SidesBySeed:
    """The seeds that both sides have, on the same images. Notes say what cannot be used."""
    both = {}
    for seed in dict.fromkeys((*baseline, *variant)):
        if seed in baseline and seed in variant:
            if baseline[seed].are_of_same_images(variant[seed]):
                both[seed] = baseline[seed], variant[seed]
            else:
                names = f"{pair.baseline.description} and {pair.variant.description}"
                notes.append(f"{names} were tested on different images with {seed}.")
        elif baseline and variant:
            lacking = pair.variant if seed in baseline else pair.baseline
            notes.append(f"{lacking.description}: {seed} is missing.")
    return both


def _difference(compared: Sequence[_SidesBySeed], notes: list[str]) -> Difference | None:
    """The mean difference over pairs, for the seeds that all pairs have; None if there is none."""
    every = list(dict.fromkeys(seed for one in compared for seed in one))
    common = [seed for seed in every if all(seed in one for one in compared)]
    if len(common) < len(every):
        names = ", ".join(str(seed) for seed in every if seed not in common)
        notes.append(f"Not all comparisons have {names}, which is ignored.")
    of_seeds: list[tuple[Seed, Sequence[Outcomes], Sequence[Outcomes]]] = []
    for seed in common:
        baselines, variants = zip(*(one[seed] for one in compared), strict=True)
        if all(baselines[0].are_of_same_images(other) for other in baselines):
            of_seeds.append((seed, baselines, variants))
        else:
            notes.append(f"With {seed}, the comparisons are of different images.")
    if not of_seeds:
        return None
    baseline, variant, weights = _stacked([sides for _, *sides in of_seeds])
    found = paired_difference(baseline, variant, weights, _groups(of_seeds))
    if found.seeds == 1 < found.splits:
        notes.append(
            "All splits are of one seed: the interval is over images and splits, and holds for "
            "these nets."
        )
    return found


def _stacked(of_seeds: Sequence[Sequence[Sequence[Outcomes]]]) -> np.ndarray:
    """The sides and the weights for `paired_difference`, `(3, S, N)`.

    Args:
        of_seeds: for each seed the baselines and the variants, which are of the same images.
    """
    names = sorted({name for baselines, _ in of_seeds for name in baselines[0].names})
    columns = {name: i for i, name in enumerate(names)}
    blocks = []
    for baselines, variants in of_seeds:
        weights = baselines[0].weights
        block = np.zeros((3, len(weights), len(names)))
        block[..., [columns[name] for name in baselines[0].names]] = (
            np.mean([one.right for one in baselines], 0),
            np.mean([one.right for one in variants], 0),
            weights,
        )
        blocks.append(block)
    return np.concatenate(blocks, 1)


def _groups(of_seeds: Sequence[tuple[Seed, Sequence[Outcomes], Sequence[Outcomes]]]) -> list[int]:
    """The seed of the nets of each row that `_stacked` makes, as a number."""
    nets = list(dict.fromkeys(seed.nets for seed, *_ in of_seeds))
    return [nets.index(seed.nets) for seed, baselines, _ in of_seeds for _ in baselines[0].weights]
