"""Results that differ only in the seed of their nets, and their means."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vgg_keras.metadata import members
from vgg_keras.report.results import MEASURES, STORAGE_KEYS, Result

# Keys, at any depth, of what nets that differ only in their seed do not share.
_OF_ONE_SEED = {"seed", "run", "digest"} | STORAGE_KEYS | MEASURES
_OF_ONE_SEED |= {"top1_localisation_error", "spread", "of_splits", "per_class", "C"}


@dataclass(frozen=True, order=True)
class Seed:
    """The seeds that a result depends on.

    Attributes:
        nets: the seed that all nets were trained with, or the seed of each net; "?" if unknown.
        splits: the seed of the random splits of a transfer result.
    """

    nets: tuple[str, ...]
    splits: str = ""

    @classmethod
    def of(cls, result: Result) -> Seed:
        """The seeds of a result."""
        is_transfer = "features" in result
        nets = members(result["features"] if is_transfer else result)
        seeds = [str(net.get("seed", "?")) for net in nets]
        of_nets = tuple(seeds[:1] if len(set(seeds)) == 1 else seeds)
        return cls(of_nets, str(result.get("seed", "?")) if is_transfer else "")

    @property
    def is_one(self) -> bool:
        """Whether all nets have one seed, and it or that of the splits is known."""
        return len(self.nets) == 1 and (self.nets[0], self.splits or "?") != ("?", "?")

    def __str__(self) -> str:
        splits = f" with splits of seed {self.splits}" if self.splits else ""
        return f"seed {'+'.join(self.nets)}{splits}"


@dataclass(frozen=True)
class OverSeeds:
    """The mean of a measure over seeds.

    Attributes:
        mean: mean of the results.
        sd: their sample standard deviation.
        seeds: number of seeds, 2 or more.
    """

    mean: float
    sd: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> OverSeeds:
        """Mean and standard deviation of one value for each seed.

        Example:
            OverSeeds.of([30.0, 31.0])  # OverSeeds(mean=30.5, sd=0.707..., seeds=2)
        """
        return cls(statistics.fmean(values), statistics.stdev(values), len(values))


def group_by_seed(results: Sequence[Result]) -> Iterator[list[Result]]:
    """Groups results that differ only in the seed, the run and the numbers that were measured.

    A result is grouped only if all of its nets have one seed. If two results of a group have the
    same seed and different numbers, they differ in something that results do not record, for
    example in the number of epochs; such a group is taken apart.

    Yields:
        Groups, in the order of their first results: one result for each seed.

    Example:
        [len(group) for group in group_by_seed(read_results("results"))]
    """
    groups: dict[str, list[Result]] = {}
    for index, result in enumerate(results):
        key = json.dumps(_shared(result)) if Seed.of(result).is_one else str(index)
        groups.setdefault(key, []).append(result)
    for group in groups.values():
        of_seeds: dict[Seed, Result] = {}
        for one in group:
            of_seeds.setdefault(Seed.of(one), one)
        if all(_measured(one) == _measured(of_seeds[Seed.of(one)]) for one in group):
            yield list(of_seeds.values())
        else:
            yield from ([one] for one in group)


def _shared(metadata: Any) -> Any:
    """What all results of a group say, sorted by key."""
    if isinstance(metadata, dict):
        return {key: _shared(metadata[key]) for key in sorted(metadata.keys() - _OF_ONE_SEED)}
    return list(map(_shared, metadata)) if isinstance(metadata, list) else metadata


def _measured(result: Result) -> dict[str, Any]:
    return {key: result[key] for key in result.keys() & MEASURES}
