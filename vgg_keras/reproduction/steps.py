"""The steps of a plan: ordinary runs, prediction files and results, as data.

This module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Self, TypeVar

from vgg_keras.recipes import Recipe
from vgg_keras.run_files import BEST_WEIGHTS

_T = TypeVar("_T")


def _union(first: tuple[_T, ...], second: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys((*first, *second)))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a plan.

    Attributes:
        name: unique name, such as "train D-384-seed1".
        output: the file or run folder that the step makes, below the folder of the plan.
        needs: names of the steps whose outputs it takes.
        rows: rows of the paper's tables that the output stands beside, as pairs of the number of
            the table and the index in `options.ROWS`.
    """

    name: str
    output: str
    needs: tuple[str, ...] = ()
    rows: tuple[tuple[int, int], ...] = ()

    @property
    def tables(self) -> tuple[int, ...]:
        """Numbers of the tables that the output stands in."""
        return tuple(sorted({number for number, _ in self.rows}))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The files of the output that later steps take, below the folder of the plan."""
        return (self.output,)

    @property
    def locks(self) -> tuple[str, ...]:
        """Names of locks: two steps that share one never run at the same time."""
        return (self.name,)

    def joined(self, other: Self) -> Self:
        """The step that stands beside the rows of another one of its name, too."""
        return dataclasses.replace(self, rows=_union(self.rows, other.rows))


@dataclass(frozen=True, kw_only=True)
class Train(Step):
    """Trains a net, for classification or localisation.

    Attributes:
        recipe: its `init_from` is the output of another step, or empty.
    """

    recipe: Recipe

    @property
    def outputs(self) -> tuple[str, ...]:
        return (f"{self.output}/{BEST_WEIGHTS}",)


class _WithPredictions(Step):
    """A step whose output is a prediction file, which has a description beside it."""

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output, f"{self.output}.json")


@dataclass(frozen=True, kw_only=True)
class Evaluate(_WithPredictions):
    """Computes the predictions of a net, at the paper's test scales (`Procedure`).

    Attributes:
        run: run folder.
        protocol: a name of `PROTOCOLS`.
        multi_scale: whether to test at several scales.
    """

    run: str
    protocol: str
    multi_scale: bool

    @property
    def locks(self) -> tuple[str, ...]:
        # Protocols share passes: two processes would compute them twice.
        return (f"evaluate {self.run}",)


@dataclass(frozen=True, kw_only=True)
class Fuse(_WithPredictions):
    """Averages predictions.

    Attributes:
        files: prediction files.
    """

    files: tuple[str, ...]


@dataclass(frozen=True)
class BoxTest:
    """A test of localisation nets.

    Attributes:
        output: file of the result.
        runs: run folders of localisation nets.
        classifiers: run folders of the nets that rate the boxes.
        test_scales: Q for each of `runs`.
    """

    output: str
    runs: tuple[str, ...]
    classifiers: tuple[str, ...]
    test_scales: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Localise(Step):
    """Tests localisation nets, by several tests that share passes over the images.

    Attributes:
        protocol: a name of `LOCALISATION_PROTOCOLS`.
        tests: the tests; `output` is that of the first one.
    """

    protocol: str
    tests: tuple[BoxTest, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(test.output for test in self.tests)

    @property
    def runs(self) -> tuple[str, ...]:
        """Run folders of all localisation nets."""
        return tuple(dict.fromkeys(run for test in self.tests for run in test.runs))

    @property
    def classifiers(self) -> tuple[str, ...]:
        """Run folders of all nets that rate boxes."""
        return tuple(dict.fromkeys(run for test in self.tests for run in test.classifiers))

    @property
    def locks(self) -> tuple[str, ...]:
        # The posteriors of the classifiers are shared with `Evaluate`.
        return (self.name, *(f"evaluate {run}" for run in self.classifiers))

    def joined(self, other: Self) -> Self:
        return dataclasses.replace(
            super().joined(other),
            needs=_union(self.needs, other.needs),
            tests=_union(self.tests, other.tests),
        )


@dataclass(frozen=True, kw_only=True)
class ExtractFeatures(Step):
    """Computes descriptors of other data.

    Attributes:
        run: run folder.
        data: the other data.
        test_scales: Q.
        aggregate: how the descriptors of several scales are combined.
    """

    run: str
    data: str
    test_scales: tuple[int, ...]
    aggregate: str

    @property
    def locks(self) -> tuple[str, ...]:
        return (f"features {self.run}",)


@dataclass(frozen=True, kw_only=True)
class Transfer(Step):
    """Scores descriptors with linear SVMs.

    Attributes:
        files: files of features, which are stacked.
        protocol: a name of `TRANSFER_PROTOCOLS`, or "custom".
    """

    files: tuple[str, ...]
    protocol: str
